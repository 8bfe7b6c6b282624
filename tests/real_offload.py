"""One of several real processes over gloo on the CPU: a step of torch's FSDP2 with `CPUOffloadPolicy`, and what then lies on the host.

python tests/real_offload.py MEET CONFIG CARDS     (CONFIG is JSON, MEET file:// with a file that they share; RANK is in the environment)
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from transformers import AutoConfig, AutoModelForCausalLM


def main() -> None:
    meet, config, cards = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=cards)
    config.pop("architectures")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    options = {"mesh": init_device_mesh("cpu", (cards,)), "offload_policy": CPUOffloadPolicy(pin_memory=False)}
    for layer in model.model.layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(config["vocab_size"], (1, 64))
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    held: dict[int, int] = {}  # a gradient is a part of its unit's
    for parameter in model.parameters():
        moments = [state for state in optimizer.state[parameter].values() if state.numel() > 1]
        storages = [each.to_local().untyped_storage() for each in (parameter.data, parameter.grad, *moments)]
        held |= {storage.data_ptr(): storage.nbytes() for storage in storages}
    dist.destroy_process_group()
    if rank == 0:
        print(sum(held.values()))


if __name__ == "__main__":
    main()
