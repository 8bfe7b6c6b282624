"""What a calibration measures, on the processor: a small model with random weights, a few steps, measured beside predicted.

On the machine with the card, leave `device` out; what is found narrows later answers for that card. Needs the extra `torch`.
"""

from __future__ import annotations

import sys

from advisor import calibrate
from advisor.units import format_size


def main(model: str = "smollm2-135m") -> None:
    run = calibrate(model, method="lora", device="cpu", batch_size=1, seq_len=128, grad_accum=1)
    for point in run.points:
        for phase in point.phases:
            print(
                f"{point.layers} layers, {phase.phase.value}: {format_size(phase.measured_bytes)} of {format_size(phase.predicted_bytes)}"
            )
    print(f"{run.ending.value} in {run.seconds:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
