"""The closed form of one kind of plan as functions of its batch: polynomials, of which each phase is the highest.

`estimate_memory` answers for one batch, term by term. This is the same for all batches of a kind at once, in total bytes: the largest
of each phase's sizes, at tokens = micro-batch x length and pairs = micro-batch x length x length (tests/test_sweeps.py holds the two to
the same byte).
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.memory.intervals import interval_of
from advisor.memory.peak import priced_model, resting, step_phase, whatever_the_batch, without_batch
from advisor.memory.pools import ESTIMATE
from advisor.memory.program import Station
from advisor.memory.runtime import communicators_of, context_of, has_caching_allocator, has_flash, workspace_bytes
from advisor.memory.slack import Slack, slack_of
from advisor.memory.tape import ZERO, Size
from advisor.values import GpuSpec, Interval, ModelSpec, Phase, Plan


class Curves(NamedTuple):
    """Bytes on one card for every batch of one kind of plan."""

    phases: tuple[tuple[Phase, tuple[Size, ...]], ...]
    """Of each phase the moments that may be its highest, in the order of a breakdown's phases."""
    slack: Slack | None
    """None where the allocator keeps nothing idle."""
    context_bytes: int
    interval: Interval


def curves_of(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> Curves:
    """The curves of the kind of `plan`, without what calibrations say of the card. Raises UnsupportedError as `estimate_memory`,
    and for a plan with evaluation, whose batch is another one."""
    if plan.eval_micro_batch_size is not None:
        raise UnsupportedError("evaluation during training is priced one plan at a time: advise estimate")
    model = priced_model(model, plan)
    standing, program = whatever_the_batch(model, without_batch(model, plan), has_flash(gpu))
    workspace = workspace_bytes(gpu)
    before = program.outlives_backward
    rest = sum(size for _, size in resting(standing, workspace, standing.gathered_bytes))
    step = step_phase(standing, workspace, 0)
    interval, beside = interval_of(ESTIMATE, model, plan, gpu), communicators_of(plan, gpu)

    def over(stations: tuple[Station, ...], held_bytes: int, left: Size) -> tuple[Size, ...]:
        around = left.plus(Size(constant=rest + held_bytes))
        return tuple(station.live.plus(around) for station in stations)

    return Curves(
        phases=(
            (Phase.LOAD, (Size(constant=sum(size for _, size in standing.load)),)),
            (Phase.FORWARD, over(program.forward, standing.forward_bytes, before)),
            (Phase.BACKWARD, over(program.backward, standing.backward_bytes, ZERO)),
            (Phase.OPTIMIZER_STEP, (before.plus(Size(constant=step.allocated_bytes)),)),
        ),
        slack=slack_of(model, plan, program, step) if has_caching_allocator(gpu) else None,
        context_bytes=context_of(gpu.compute_capability).context_bytes + beside.context_bytes,
        interval=interval.model_copy(update={"context_bytes": interval.context_bytes + beside.margin_bytes}),
    )
