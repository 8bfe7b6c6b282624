"""Order statistics that bound an error.

Bounds follow split conformal prediction: with n exchangeable errors the ⌈(n+1)(1−t)⌉-th smallest covers a new one from above with
probability at least 1−t, and the ⌊(n+1)t⌋-th from below (Lei et al. 2018, arXiv 1604.04173; Angelopoulos & Bates 2021,
arXiv 2107.07511); t is half of what may lie outside. Errors of one group (a source and a card, or a model) are no independent draws: for
a run unlike any group only groups are exchangeable, and whatever the number of errors, the extremes of K groups hold a new group's with
no more assurance than 1 − 2/(K+1) (Dunn, Wasserman & Ramdas 2022, arXiv 1809.07441, subsampling once; Lee, Barber & Willett 2023, arXiv
2306.06342, put the mass 1/(K+1) of the unseen group at infinity): 87 % of 15 models, 50 % of 3 sources and cards. Nine in ten would need
19. So no rule makes measured intervals valid across sources; what they hold is counted with each group left out (`advise accuracy`), and
bounds of a kind that few groups ran, or none, are widened by the largest step with which a group, or a kind, left out, lies beyond all
others (judgement).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

COVERAGE = 0.90
"""Share of runs that an interval shall hold. Judgement: one in ten outside, one in twenty above."""


def bounds(errors: Sequence[float], coverage: float = COVERAGE) -> tuple[float, float]:
    """The two order statistics of the rule above; the smallest and the largest error where there are too few for it."""
    ordered, n = sorted(errors), len(errors)
    tail = round((1 - coverage) / 2, 9)  # so that 0.05 is 0.05
    low_rank = math.floor((n + 1) * tail)
    high_rank = math.ceil(round((n + 1) * (1 - tail), 6))
    return ordered[max(low_rank, 1) - 1], ordered[min(high_rank, n) - 1]


def steps(groups: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """How far, at most, one group lies below and above all others: (negative or 0, positive or 0). (0, 0) with fewer than two."""
    if len(groups) < 2:
        return 0.0, 0.0
    lowest, next_lowest, *_ = sorted(map(min, groups.values()))
    *_, next_highest, highest = sorted(map(max, groups.values()))
    return lowest - next_lowest, highest - next_highest
