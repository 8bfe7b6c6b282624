"""`python -m advisor.accuracy`: write the residuals of both tiers anew, after a formula, a dry run or a measurement has changed."""

from __future__ import annotations

import json
import sys
from functools import partial

from advisor.accuracy import CLOSED_FORM, DRY_RUN, accuracy, closed_form, recorded_dry_run, recorded_in
from advisor.errors import InvalidInputError
from advisor.profiles import ROOT


def main() -> None:
    for tier, estimator in ((CLOSED_FORM, closed_form), (DRY_RUN, partial(recorded_dry_run, recorded_in()))):
        shares = accuracy(estimator, tier).intervals
        if shares is None:
            raise InvalidInputError(f"{tier}: leaving a group out needs at least two groups of measured runs")
        target = ROOT / "measurements" / "residuals" / f"{tier}.json"
        target.write_text(json.dumps([shares.model_dump(mode="json")], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        sys.stdout.write(f"{target}: {shares.n} runs in {shares.n_groups} groups\n")


if __name__ == "__main__":
    main()
