"""`python -m advisor.accuracy`: write the residuals anew, after a formula, a dry run or a measurement has changed (seconds).

Three files: measured runs against the closed form, measured runs against the recorded dry runs, and the closed form against the dry runs
of `profiles/measurements/replays/`.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from advisor.accuracy.comparisons import residuals_of
from advisor.accuracy.intervals import errors_file
from advisor.accuracy.replays import replay_residuals
from advisor.accuracy.report import Estimator, accuracy
from advisor.accuracy.tiers import CLOSED_FORM, DRY_RUN, closed_form, recorded_dry_run, recorded_in
from advisor.memory.pools import REPLAY
from advisor.profiles import ROOT
from advisor.profiles.runtime import Residuals
from advisor.user_files import write_whole


def measured_errors(tier: str, estimator: Estimator) -> Residuals:
    return errors_file(tier, residuals_of(accuracy(estimator, tier).comparisons))


def files() -> tuple[Residuals, ...]:
    """The content of the three files, as the formulas and the rows of today make them."""
    return (
        measured_errors(CLOSED_FORM, closed_form),
        measured_errors(DRY_RUN, partial(recorded_dry_run, recorded_in())),
        errors_file(REPLAY, replay_residuals(), named=False),
    )


def main() -> None:
    for content in files():
        target = ROOT / "measurements" / "residuals" / f"{content.tier}.json"
        write_whole(target, (json.dumps([content.model_dump(mode="json")], indent=1, ensure_ascii=False) + "\n").encode())
        sys.stdout.write(f"{target}: {content.n} errors in {content.n_groups} groups\n")


if __name__ == "__main__":
    main()
