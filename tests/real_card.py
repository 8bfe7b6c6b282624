"""One of several real processes over gloo on the CPU: trains a small model under the recorder, and prints what it held.

python tests/real_card.py MEET CONFIG PLAN     (CONFIG and PLAN are JSON, MEET says how the processes find each other: env:// of a
launcher, or file:// with a file that they share; RANK is in the environment)
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist

from advisor.architectures import spec_from_config
from advisor.dryrun.dry_run import Settings, record_on_cpu
from advisor.tape.stream import Stream
from advisor.values import Plan


def live_peaks(stream: Stream) -> dict[str, int]:
    """Highest sum of what was alive in each phase, as it was asked for, and what is left after the last step (`rest`)."""
    peaks: dict[str, int] = {}
    live = 0
    for signed, phase in zip(stream.events, stream.phases, strict=True):
        size = stream.births[abs(signed) - 1].size_bytes
        live += size if signed > 0 else -size
        peaks[phase.value] = max(peaks.get(phase.value, 0), live)
    return peaks | {"rest": live}


def main() -> None:
    meet, config, said = sys.argv[1], json.loads(sys.argv[2]), Plan.model_validate_json(sys.argv[3])
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=said.n_gpus)
    spec = spec_from_config(config, id="real", source="tests/real_card.py")
    stream, _ = record_on_cpu(spec, said, Settings(lengths=(said.seq_len_tokens,) * 2))
    dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(live_peaks(stream)))


if __name__ == "__main__":
    main()
