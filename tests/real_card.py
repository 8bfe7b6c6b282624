"""One of several real processes over gloo on the CPU: trains a small model under the recorder, and prints what it held.

python tests/real_card.py RANK STORE CONFIG PLAN     (CONFIG and PLAN are JSON, STORE a file that the processes share)
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist

from advisor.architectures import spec_from_config
from advisor.dryrun.dry_run import Settings, record_on_cpu
from advisor.tape.stream import Stream
from advisor.values import Plan


def live_peaks(stream: Stream) -> dict[str, int]:
    """Highest sum of what was alive in each phase, as it was asked for."""
    peaks: dict[str, int] = {}
    live = 0
    for signed, phase in zip(stream.events, stream.phases, strict=True):
        size = stream.births[abs(signed) - 1].size_bytes
        live += size if signed > 0 else -size
        peaks[phase.value] = max(peaks.get(phase.value, 0), live)
    return peaks


def main() -> None:
    rank, store, config, said = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), Plan.model_validate_json(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=said.n_gpus)
    spec = spec_from_config(config, id="real", source="tests/real_card.py")
    stream, _ = record_on_cpu(spec, said, Settings(lengths=(said.seq_len_tokens,) * 2))
    dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(live_peaks(stream)))


if __name__ == "__main__":
    main()
