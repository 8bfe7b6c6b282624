"""The gates: what the facts show, in order; the causes that stay open, by what an experiment on each can show; the doors behind them.

What was measured comes before what was merely not tried, and no rung is climbed while a cause that is cheaper to test is open. Among open
causes the one is tested first of which prior odds × published gain × chance to see that gain at this number of items is largest. Each gate
is a plain function of the view that hands back a Result, or None where it is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from advisor.evidence import (
    gates_data,
    gates_doors,
    gates_end,
    gates_first,
    gates_noise,
    gates_overfit,
    gates_quantised,
    gates_rank,
    gates_rate,
    gates_scale,
    gates_training,
    gates_twins,
)
from advisor.evidence.combine import combined
from advisor.evidence.done import untried
from advisor.evidence.power import chance_of
from advisor.evidence.result import Result
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate
from advisor.values.next_step import Binding

Gate = Callable[[View], Result | None]

BEFORE_RUNS: Gate = gates_first.no_run_yet
SHOWN: tuple[Gate, ...] = (
    gates_first.memory_binds,  # R1
    gates_noise.forgetting_complaint,  # R14
    gates_training.complained_of,  # R3
    gates_noise.no_gap,  # R2
    gates_training.did_not_train,  # R3
    gates_rate.better_rate_known,  # R4
    gates_twins.setting_won,  # R3, R6, R7
    gates_data.too_few_steps,  # R7
    gates_overfit.data_overfitted,  # R7
    gates_overfit.far_too_many_passes,  # R7
    gates_end.data_binds,  # R7
    gates_quantised.four_bit_costs,  # R8
)
"""What the facts show, the more basic first."""
OPEN: tuple[Gate, ...] = (
    gates_rate.rate_is_flagged,  # R4
    gates_data.batch_is_large,  # R7
    gates_rate.rate_is_open,  # R4
    gates_scale.scale_is_off,  # R5
    gates_scale.mlp_is_bare,  # R6
    gates_quantised.four_bit_suspected,  # R8
    gates_data.still_learning,  # R7
    gates_data.few_passes,  # R7
    gates_overfit.many_passes,  # R7
    gates_quantised.four_bit_needless,  # R8
)
"""Causes that an experiment would test at the price of a run. They close before any rung."""
AT_HAND: tuple[Gate, ...] = (gates_doors.full_won, gates_rank.rank_won)  # R12, R9
"""Doors that runs among the facts have opened."""


def open_gates(view: View) -> Iterator[Result]:
    """Yield every gate that is not closed, the experiment to run first in front; what was run already is left out."""
    if view.focus is None:
        first = BEFORE_RUNS(view)
        assert first is not None
        yield first
        return
    shown = list(_results(view, SHOWN))
    later = [result for result in shown if result.gate == "R2" and result.binding is Binding.EVALUATION_NOISE and _was_repeated(view)]
    yield from (result for result in shown if result not in later)
    yield from _open_causes(view)
    yield from later
    yield from _results(view, AT_HAND)
    rank, half = (list(_results(view, (gate,))) for gate in (gates_rank.rank_may_limit, gates_end.half_data))
    full = list(_results(view, (gates_doors.open_full,)))
    in_scale = [door for door in full if door.binding is Binding.CAPACITY]
    climb = [*rank, *_results(view, (gates_doors.try_dora,)), *in_scale]
    data_first = bool(rank and half) and worth(view, half[0]) > worth(view, rank[0])
    yield from (*half, *climb) if data_first else (*climb, *half)
    yield from full
    yield from _results(view, (gates_doors.dora_at_last,))
    yield gates_end.end_of_ladder(view)


def _was_repeated(view: View) -> bool:
    """The run was repeated as often as is asked for, so that a gap within the noise keeps no cheap move waiting any longer."""
    return view.gap is not None and len(view.repeats(view.run)) >= gate("repeats")


def worth(view: View, result: Result) -> float:
    """Points that the experiment can be counted on to show: prior odds × published gain × chance to see it."""
    if result.gain is None:
        return 0.0
    chance = chance_of(view, result.gain)
    middle = max(0.0, (result.gain.points.low + result.gain.points.high) / 2)
    return result.odds * middle * (1.0 if chance is None else chance.share)


def _open_causes(view: View) -> list[Result]:
    """Each cause once, the most telling experiment first; cheap moves together where one alone would rarely show."""
    found: dict[Binding, Result] = {}
    for result in _results(view, OPEN):
        found.setdefault(result.binding, result)
    rate = found.get(Binding.LEARNING_RATE)
    if Binding.SCALE in found and rate is not None and rate.odds < found[Binding.SCALE].odds:
        del found[Binding.LEARNING_RATE]  # the rate is swept with the scale
    ranked = sorted(found.values(), key=lambda result: -worth(view, result))
    return [combined(view, ranked[0], ranked[1:]), *ranked[1:]] if ranked else []


def _results(view: View, gates: tuple[Gate, ...]) -> Iterator[Result]:
    for each in gates:
        result = each(view)
        left = None if result is None else _left_of(view, result)
        if left is not None:
            yield left


def _left_of(view: View, result: Result) -> Result | None:
    """The result without runs that are among the facts; None where nothing new would be run. Repeats, and what a failure asks for, stay."""
    if result.run is None or result.gate in ("R1", "R2", "R14"):
        return result
    left = untried(view, result.run)
    if left is None:
        return replace(result, run=None) if result.gate == "R3" else None
    return replace(result, run=left)
