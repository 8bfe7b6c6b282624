"""What an experiment can show: the chance that a gain of the published size stands out at this number of items.

A gain counts from two standard errors of the difference. Of a true gain g the observed one scatters around g by the same standard error, so
that it is seen with probability Φ(g / SE − 2), in the normal approximation of fact N7.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from advisor.evidence.view import View
from advisor.ladder.knowledge import gate
from advisor.statistics import normal_share
from advisor.values.contradictions import PERCENT
from advisor.values.next_step import Acceptance, Gain


@dataclass(frozen=True, slots=True)
class Chance:
    """How likely a gain is to be seen, and what would make that likely."""

    gain: float
    """Middle of the published range, in the scale of the scores."""
    error: float
    """Standard error of the difference to come."""
    share: float
    """Of such experiments, those that show it."""
    items: int
    """Compared one by one, with which four in five would."""
    seeds: int
    """Of each of the two set-ups, with which those items would."""


def error_to_come(view: View, seeds: int = 1) -> float | None:
    """Standard error of the difference between the present run and the next one; None where the noise is not known."""
    score = view.current_score
    if view.focus is None or score is None:
        return None
    return view.noise.to_come(view.run, score, len(view.repeats(view.run)), seeds, view.spread(view.run))


def chance_of(view: View, gain: Gain | None, seeds: int = 1) -> Chance | None:
    """The chance of the middle of a published gain; None where it, or the noise, is not known."""
    error = error_to_come(view, seeds)
    if gain is None or error is None or not view.noise.shares:
        return None
    middle = max(0.0, (gain.points.low + gain.points.high) / 2) / PERCENT
    share = normal_share(middle / error - gate("compare_z")) if error > 0 else 1.0
    return Chance(middle, error, share, *_needed(view, max(middle, SMALLEST), seeds))


SMALLEST = 1e-3
"""Gain, as a share, below which no count of items is worth the naming. Judgement: a tenth of a point."""


def _needed(view: View, gain: float, seeds: int) -> tuple[int, int]:
    """Items, and seeds of each set-up, with which the gain stands out in four of five experiments.

    Items average their own scatter alone. Where the spread of re-runs leaves no room, so many seeds are taken that it makes up half.
    """
    most = (gain / (gate("compare_z") + gate("power_z"))) ** 2
    spread = view.spread(view.run) ** 2
    reruns = spread * (1 / len(view.repeats(view.run)) + 1 / seeds) / 2
    if reruns <= most / 2:
        return ceil(gate("discordant") / (most - reruns)), seeds
    needed = ceil(2 * spread / most)
    return ceil(gate("discordant") / (most - spread / needed)), needed


def acceptance(view: View, keep: str, gain: Gain | None, seeds: int = 1, no_worse: bool = False) -> Acceptance:
    """What the next run must show, as a number where the noise is known, and how likely it is to show the published gain."""
    k, error = gate("compare_z"), error_to_come(view, seeds)
    difference = None if error is None else k * error * (PERCENT if view.unit == "percent" else 1)
    by = f"{k:g} standard errors" + (f" ({_points(view, k * error)})" if error is not None else "")
    paired = bool(view.focus is not None and view.focus.correct)
    how = (", compared item by item" if paired else "") + ("" if seeds == 1 else f", over {seeds} seeds each")
    sentence = f"{keep} unless it scores less by {by}{how}" if no_worse else f"{keep} only if it wins by at least {by}{how}"
    chance = None if no_worse else chance_of(view, gain, seeds)
    if chance is not None and gain is not None:
        sentence += f"; {_seen(view, chance, gain)}"
    return Acceptance(
        standard_errors=k,
        difference=difference,
        paired=paired,
        seeds=seeds,
        chance=None if chance is None else chance.share,
        items_needed=None if chance is None or chance.share >= POWER_AIM else chance.items,
        seeds_needed=None if chance is None or chance.share >= POWER_AIM else chance.seeds,
        sentence=sentence,
    )


def _seen(view: View, chance: Chance, gain: Gain) -> str:
    """ "a gain of 3.0 points shows in 41 of 100 such runs; about 2,900 items, compared one by one, make it 80"."""
    middle = PERCENT * chance.gain
    seen = round(PERCENT * chance.share)
    shown = f"a true gain of {middle:.1f} points, the middle of what is published, shows in {seen} of 100 such runs"
    if chance.share >= POWER_AIM:
        return shown
    if PERCENT * gate("compare_z") * chance.error > gain.points.high:
        shown = f"that is more than the {gain.points.high:.1f} points to be expected: {shown}"
    if chance.seeds > MOST_SEEDS:
        return f"{shown}; no practical evaluation makes it 80, as that takes {chance.seeds} seeds of each on about {chance.items:,} items"
    seeds = f"{chance.seeds} seeds of each on " if chance.seeds > 1 else ""
    n = view.noise.items(view.run)
    if n is not None and n >= chance.items:
        return f"{shown}; {seeds}the same {n:,} items, compared one by one, make it 80"
    return f"{shown}; {seeds}about {chance.items:,} items, compared one by one, make it 80"


MOST_SEEDS = 10
"""Repeats beyond which nobody trains a set-up. Judgement."""
POWER_AIM = 0.8
"""Chance from which an experiment is said to decide: the usual power (fact N7)."""


def _points(view: View, amount: float) -> str:
    return f"{amount:.3g}" if view.unit == "raw" else f"{PERCENT * amount:.1f} points"
