"""The closed form of one kind of plan as functions of its batch: polynomials, of which each phase is the highest.

`estimate_memory` answers for one batch, term by term. This is the same for all batches of a kind at once, in total bytes: the largest
of each phase's sizes, at tokens = micro-batch x length and pairs = micro-batch x length x length (tests/test_sweeps.py holds the two to
the same byte). Searches ask for totals alone, a hundred times an answer; terms are told of the few plans that are shown.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.errors import UnsupportedError
from advisor.memory.host_memory import host_memory
from advisor.memory.intervals import interval_of
from advisor.memory.peak import Batch, priced_model, resting, step_phase, whatever_the_batch, without_batch
from advisor.memory.pools import ESTIMATE
from advisor.memory.program import Station
from advisor.memory.runtime import communicators_of, context_of, has_caching_allocator, has_flash, workspace_bytes
from advisor.memory.slack import Slack, slack_of
from advisor.memory.tape import ZERO, Size
from advisor.values import GpuSpec, Interval, MemoryBreakdown, ModelSpec, Phase, Plan
from advisor.values.memory import HostMemory, highest_bytes, lowest_bytes


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
        around = left.with_constant(rest + held_bytes)
        return tuple(station.live.plus(around) for station in stations)

    return Curves(
        phases=(
            (Phase.LOAD, (Size(constant=sum(size for _, size in standing.load)),)),
            (Phase.FORWARD, over(program.forward, standing.forward_bytes, before)),
            (Phase.BACKWARD, over(program.backward, standing.backward_bytes, ZERO)),
            (Phase.OPTIMIZER_STEP, (before.with_constant(step.allocated_bytes),)),
        ),
        slack=slack_of(model, plan, program, step) if has_caching_allocator(gpu) else None,
        context_bytes=context_of(gpu.compute_capability).context_bytes + beside.context_bytes,
        interval=interval.model_copy(update={"context_bytes": interval.context_bytes + beside.margin_bytes}),
    )


class Totals(NamedTuple):
    """What a plan takes on a card, all terms together."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int
    host: HostMemory | None


def totals_in(memory: MemoryBreakdown) -> Totals:
    """The totals of a breakdown."""
    return Totals(memory.low_bytes, memory.expected_bytes, memory.high_bytes, memory.host)


def totals_of(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> Totals:
    """What `estimate_memory` adds up to, without what calibrations say of the card. Raises UnsupportedError as `curves_of`."""
    curves, host = _of_kind(model, plan if plan.eval_micro_batch_size is not None else without_batch(model, plan), gpu)
    batch = Batch(plan.micro_batch_size * plan.seq_len_tokens, plan.micro_batch_size * plan.seq_len_tokens**2)
    allocated = max(size.at(*batch) for _, sizes in curves.phases for size in sizes)
    slack = 0 if curves.slack is None else curves.slack.at(*batch)
    reserved = allocated + slack
    expected = reserved + curves.context_bytes
    high = highest_bytes(expected, reserved, curves.interval)
    return Totals(lowest_bytes(expected, reserved, curves.interval, slack if high > gpu.usable_bytes else 0), expected, high, host)


@lru_cache(maxsize=2048)
def _of_kind(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> tuple[Curves, HostMemory | None]:
    return curves_of(model, plan, gpu), host_memory(model, plan, gpu)
