"""How far a score can be trusted: standard errors, differences of two runs, and the items that a difference needs.

All of it is the standard library's: the exact test of paired items is a sum of binomial terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, fsum, lgamma, log, sqrt
from statistics import NormalDist, correlation, linear_regression

POWER = 0.80
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Paired:
    """Two runs on the same items: how often only one of them was right."""

    n: int
    only_first: int
    only_second: int

    @property
    def discordant(self) -> int:
        return self.only_first + self.only_second

    @property
    def delta(self) -> float:
        """Second minus first, as a share."""
        return (self.only_second - self.only_first) / self.n


def share_error(share: float, n: int) -> float:
    """Standard error of a share of `n` independent items (fact N1).

    The share is drawn half an item towards the middle (Jeffreys), so that 0 of 20 is not taken for certainty.
    """
    drawn = (share * n + 0.5) / (n + 1)
    return sqrt(drawn * (1 - drawn) / n)


def paired(first: tuple[bool, ...], second: tuple[bool, ...]) -> Paired:
    """Counts of two equally long lists of item results."""
    both = list(zip(first, second, strict=True))
    return Paired(len(both), sum(a and not b for a, b in both), sum(b and not a for a, b in both))


def paired_error(pair: Paired) -> float:
    """Standard error of the difference of two shares on the same items: sqrt((b + c) − (b − c)²/n) / n."""
    discordant, shift = pair.discordant, pair.only_second - pair.only_first
    return sqrt(max(0.0, discordant - shift**2 / pair.n)) / pair.n


def mcnemar(pair: Paired) -> float:
    """Return the two-sided p-value of McNemar's exact test: whether the discordant items fall evenly to both runs.

    Twice the tail of the binomial distribution at one half (scipy.stats.binomtest gives the same number).
    """
    n, fewer = pair.discordant, min(pair.only_first, pair.only_second)
    tail = fsum(exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def quantile(probability: float) -> float:
    """Of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)


def normal_share(z: float) -> float:
    """Share of the standard normal distribution below `z`."""
    return NormalDist().cdf(z)


def items_needed(difference: float, share: float) -> int:
    """Items per run for a difference of two independent runs: 80 % power, two-sided 5 % (fact N7).

    n = 2 p (1 − p) (z_0.975 + z_0.8)² / d², in the normal approximation.
    """
    z = quantile(1 - SIGNIFICANCE / 2) + quantile(POWER)
    return ceil(2 * share * (1 - share) * z**2 / difference**2)


def items_needed_paired(difference: float, discordant: float) -> int:
    """The same for two runs on the same items, of which a share `discordant` is right in one run only (fact N7).

    n = (z_0.975 √q + z_0.8 √(q − d²))² / d², McNemar's test in the normal approximation. A difference cannot exceed q.
    """
    return ceil(_paired_items(difference, max(discordant, difference)))


def _paired_items(difference: float, discordant: float) -> float:
    z = quantile(1 - SIGNIFICANCE / 2) * sqrt(discordant) + quantile(POWER) * sqrt(discordant - difference**2)
    return z**2 / difference**2


def gap_items(gap: float, share: float, z: float, z_power: float) -> int:
    """Items with which a gap to a fixed target stands out of the noise: p (1 − p) (z + z_power)² / g² (gate R2)."""
    return ceil(share * (1 - share) * (z + z_power) ** 2 / gap**2)


def slope_error(x: tuple[float, ...], y: tuple[float, ...]) -> tuple[float, float]:
    """Slope of the straight line through points, and its standard error: slope √((1/r² − 1) / (n − 2)), r being their correlation."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0, 0.0
    slope, r = linear_regression(x, y).slope, correlation(x, y)
    if len(x) < 3 or r == 0:
        return slope, abs(slope)
    return slope, abs(slope) * sqrt(max(0.0, 1 / r**2 - 1) / (len(x) - 2))
