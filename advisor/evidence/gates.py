"""The gates in their order: the first that is not closed names the constraint that binds.

What was measured or is plainly off comes before what was merely not tried; no rung is climbed while a check is open. Each gate is a
plain function of the view that hands back a Result, or None where it is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from advisor.evidence import (
    gates_data,
    gates_doors,
    gates_first,
    gates_noise,
    gates_quantised,
    gates_rank,
    gates_rate,
    gates_scale,
    gates_training,
)
from advisor.evidence.result import Result
from advisor.evidence.view import View

Gate = Callable[[View], Result | None]

BEFORE_RUNS: Gate = gates_first.no_run_yet
GATES: tuple[Gate, ...] = (
    gates_first.memory_binds,  # R1
    gates_noise.forgetting_complaint,  # R14
    gates_noise.no_gap,  # R2
    gates_training.did_not_train,  # R3
    gates_rate.rate_is_off,  # R4
    gates_data.data_overfitted,  # R7
    gates_data.data_binds,  # R7
    gates_quantised.four_bit_costs,  # R8
    gates_data.batch_is_large,  # R7
    gates_rate.rate_is_doubtful,  # R4
    gates_scale.scale_is_off,  # R5
    gates_scale.mlp_is_bare,  # R6
    gates_quantised.four_bit_suspected,  # R8
    gates_rate.rate_is_unswept,  # R4
    gates_data.still_learning,  # R7
    gates_data.one_pass_only,  # R7
    gates_quantised.four_bit_needless,  # R8
    gates_rank.rank_may_limit,  # R9
    gates_doors.try_dora,  # R10
    gates_doors.open_full,  # R12
    gates_doors.end_of_ladder,  # R13
)


def open_gates(view: View) -> Iterator[Result]:
    """Every gate that is not closed, in order."""
    if view.focus is None:
        first = BEFORE_RUNS(view)
        assert first is not None
        yield first
        return
    for gate in GATES:
        result = gate(view)
        if result is not None:
            yield result
