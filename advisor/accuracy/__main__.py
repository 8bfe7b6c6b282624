"""`python -m advisor.accuracy`: write the residuals of the closed form anew, after a formula or a measurement has changed."""

from __future__ import annotations

import json
import sys

from advisor.accuracy import accuracy, interval_shares, residuals_of
from advisor.accuracy.rows import Metric
from advisor.memory import estimate_memory
from advisor.profiles import ROOT


def main() -> None:
    report = accuracy(estimate_memory)
    # reserved memory alone: the context beside it is modelled apart, with a margin of its own
    row = interval_shares(residuals_of(report, (Metric.RESERVED,)), "estimate").model_dump(mode="json")
    target = ROOT / "measurements" / "residuals" / "estimate.json"
    target.write_text(json.dumps([row], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{target}: {row['n']} runs in {row['n_groups']} groups\n")


if __name__ == "__main__":
    main()
