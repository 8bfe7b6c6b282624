"""Times predicted after a calibration on cuts, against a real run of a second shape: python benchmarks/calibrated_times.py [METHOD…]

The cuts are two and eight layers at two lengths of the default plan; the second shape is the whole model at another length. The bar is
25 % (`advisor.speed.measured.MARGIN_SHARE`). Run it on a machine that does nothing else.
"""

from __future__ import annotations

import os
import sys
import tempfile

from advisor import api
from advisor.hub import load_model
from advisor.speed.measured import MARGIN_SHARE, step_seconds

MODEL = "smollm2-135m"
SEQ_LEN_TOKENS = 384


def main(methods: list[str]) -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FINETUNE_ADVISOR_DATA"] = folder
        for method in methods:
            error = _error(method)
            worst = max(worst, abs(error))
            print(f"{method:6} {error:+.1%}")
    print(f"worst {worst:.1%}, bar {MARGIN_SHARE:.0%}")
    return int(worst > MARGIN_SHARE)


def _error(method: str) -> float:
    """Predicted over measured, less one, for a whole optimizer step."""
    model = load_model(MODEL)
    cut = api.calibrate(model, method=method, device="cpu")
    whole = api.calibrate(model, method=method, device="cpu", preflight=True, seq_len=SEQ_LEN_TOKENS, grad_accum=2, keep=False)
    assert cut.calibration is not None, cut.message
    assert cut.calibration.rates is not None
    assert whole.points, whole.message
    point = whole.points[0]
    assert point.timing is not None
    measured = point.plan.grad_accum_steps * point.timing.micro_s + point.timing.optimizer_s
    return step_seconds(model, point.plan, cut.calibration.rates) / measured - 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["lora", "full", "dora", "qlora"]))
