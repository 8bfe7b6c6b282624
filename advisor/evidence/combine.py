"""Cheap moves at once: where the aim is a score and not to know what brought it, and one move alone would rarely be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from advisor.evidence.lr import rate_for, rounded
from advisor.evidence.power import chance_of
from advisor.evidence.result import Result, next_run
from advisor.evidence.view import View
from advisor.ladder.learning_rate import show
from advisor.values import Range
from advisor.values.next_step import Binding, Gain, NextRun

CHEAP = (Binding.TARGET_MODULES, Binding.BATCH, Binding.UNDERTRAINED, Binding.SCALE)
"""Moves of one run that changes a setting and takes no pilot."""
RARELY = 0.5
"""Chance below which a move is not tested alone. Judgement: it would be missed more often than seen."""


def combined(view: View, first: Result, others: Sequence[Result]) -> Result:
    """Return the first move together with the other cheap ones that are open, or as it is."""
    chance = chance_of(view, first.gain)
    if view.target is None or chance is None or chance.share >= RARELY or first.binding not in CHEAP or first.run is None:
        return first
    more = [other for other in others if other.binding in CHEAP and other.run is not None]
    if not more:
        return first
    told = [move.experiment.replace(", nothing else changed", "") for move in (first, *more)]
    together = " ".join(f"({number}) {text}" for number, text in enumerate(told, start=1))
    planned = [move.run for move in (first, *more) if move.run is not None]
    run = _merged(view, planned)
    if sum(each.learning_rates != next_run(view.run).learning_rates for each in planned) > 1:
        together += f" Together that makes the learning rate{'s' if len(run.learning_rates) > 1 else ''} {_listed(run.learning_rates)}."
    return replace(
        first,
        reason="; ".join(move.reason for move in (first, *more)),
        experiment=f"Change these at once, as the aim is the target and one alone would show in {round(100 * chance.share)} of 100 runs: "
        f"{together}",
        run=run,
        gain=_sum([move.gain for move in (first, *more) if move.gain is not None]),
        cost="; ".join(dict.fromkeys(move.cost for move in (first, *more) if move.cost)),
        evidence=tuple(dict.fromkeys(name for move in (first, *more) for name in move.evidence)),
    )


def _merged(view: View, runs: list[NextRun]) -> NextRun:
    """Every setting that one of the moves changes; the first one's where two do. Of learning rates those of the move that names most,
    carried to all changes together (facts LR4, LR5, LR14)."""
    base = next_run(view.run)
    changed: dict[str, object] = {}
    for run in runs:
        for name in NextRun.model_fields:
            if getattr(run, name) != getattr(base, name):
                changed.setdefault(name, getattr(run, name))
    merged = base.model_copy(update=changed)
    own = max((run for run in runs if run.learning_rates != base.learning_rates), key=lambda run: len(run.learning_rates), default=base)
    return merged.model_copy(update={"learning_rates": tuple(rounded(rate_for(rate, own, merged)) for rate in own.learning_rates)})


def _listed(rates: tuple[float, ...]) -> str:
    *first, last = map(show, rates)
    return f"{', '.join(first)} and {last}" if first else last


def _sum(gains: list[Gain]) -> Gain:
    low, high = sum(gain.points.low for gain in gains), sum(gain.points.high for gain in gains)
    evidence = tuple(dict.fromkeys(name for gain in gains for name in gain.evidence))
    points = Range(low=round(low, 1), high=round(high, 1), source=", ".join(evidence))
    return Gain(points=points, conditions="the moves' own gains added, which nobody measured together", evidence=evidence)
