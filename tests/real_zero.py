"""One of several real processes of DeepSpeed over gloo on the CPU: trains a small model under the recorder, and prints what it held.

python tests/real_zero.py MEET CONFIG RUNS     (MEET says how they find each other: env:// of a launcher, or file:// with a file that they
share; RANK is in the environment; RUNS is a list of plans of as many cards, each with DeepSpeed's file)
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
import torch.distributed as dist

from advisor.architectures import spec_from_config
from advisor.dryrun import meta_model
from advisor.dryrun.inputs import batch
from advisor.dryrun.recorder import Recorder
from advisor.tape.stream import Stream
from advisor.values import Phase, Plan

STEPS = 2
"""The first step makes the optimizer's states."""


def peak_of_last_step(stream: Stream, start: int) -> dict[str, int]:
    """Highest sum of what was alive in each phase from event `start` on."""
    peaks: dict[str, int] = {}
    held = 0
    for number, (signed, phase) in enumerate(zip(stream.events, stream.phases, strict=True)):
        size = stream.births[abs(signed) - 1].size_bytes
        held += size if signed > 0 else -size
        if number >= start:
            peaks[phase.value] = max(peaks.get(phase.value, 0), held)
    return peaks


def tensors_of(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        yield name, getattr(parameter, "ds_tensor", parameter.data)
        yield name, parameter.data
    yield from model.named_buffers()


def run(plan: Plan, config: dict[str, Any], deepspeed_config: dict[str, Any]) -> dict[str, Any]:
    import deepspeed

    recorder = Recorder("cpu")
    recorder.workspace_bytes = 0
    spec = spec_from_config(config, id="real", source="tests/real_zero.py")
    built = meta_model.build(spec, plan, Recorder("cpu"), meta_model.Shape(device="cpu"), None)
    trained = [parameter for parameter in built.model.parameters() if parameter.requires_grad]
    with recorder:
        made = torch.optim.AdamW(trained, lr=1e-4, foreach=True)
        engine, optimizer, _, _ = deepspeed.initialize(model=built.model, optimizer=made, config=deepspeed_config)
    gc.collect()
    for name, tensor in tensors_of(built.model):
        recorder.label(tensor, "weights", name)
    start = 0
    with recorder:
        for _ in range(STEPS):
            start = len(recorder.stream.events)
            for _ in range(plan.grad_accum_steps):
                recorder.begin(Phase.FORWARD)
                inputs = batch(built.base, plan, (plan.micro_batch_size, plan.seq_len_tokens), False, recorder)
                loss = engine(**inputs).loss
                recorder.begin(Phase.BACKWARD)
                engine.backward(loss)
                del loss, inputs
                recorder.begin(Phase.OPTIMIZER_STEP)
                engine.step()
    gc.collect()
    stream = recorder.stream
    host = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in on_host(optimizer)}
    return {
        "params": sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in built.model.parameters()),
        "trained": sum(getattr(each, "ds_numel", each.numel()) for each in trained),
        "host": sum(host.values()),
        "peaks": peak_of_last_step(stream, start),
    }


def on_host(optimizer: Any) -> Iterator[torch.Tensor]:
    """What DeepSpeed keeps on its `device`, which is the host under offload (stage_1_and_2.py, stage3.py)."""
    if not (getattr(optimizer, "cpu_offload", False) or getattr(optimizer, "offload_optimizer", False)):
        return
    groups = getattr(optimizer, "single_partition_of_fp32_groups", None) or optimizer.fp32_partitioned_groups_flat
    for group in groups:
        yield group
        if group.grad is not None:
            yield group.grad
        yield from (state for state in optimizer.optimizer.state[group].values() if isinstance(state, torch.Tensor))
    for name in ("param_buffer_of_bit16_for_cpu_offload_groups", "param_groups_fp16_flat_cpu_memory"):
        yield from getattr(optimizer, name, ())
    yield from getattr(optimizer, "accumulated_grads_in_cpu", {}).values()
    for name in ("temp_grad_buffer_for_cpu_offload", "grad_partitions_flat_buffer"):
        if hasattr(optimizer, name):
            yield getattr(optimizer, name)


def main() -> None:
    meet, config, runs = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    rank = int(os.environ["RANK"])
    plans = [(Plan.model_validate(plan), deepspeed_config) for plan, deepspeed_config in runs]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cards = plans[0][0].n_gpus
    os.environ.update(WORLD_SIZE=str(cards), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=cards)
    for plan, deepspeed_config in plans:
        held = run(plan, config, deepspeed_config)
        gc.collect()
        print("HELD", rank, json.dumps(held), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
