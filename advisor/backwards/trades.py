"""Memory against time against money: a plan, and what one change after another makes of it.

Changes that keep the training as it is come first, then those that cost quality, then those that cost data; among equals the one that
saves most memory for the time that it adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from advisor.backwards.question import timed
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.ladder.fit import Case, Priced, price_or_none
from advisor.ladder.knowledge import say
from advisor.ladder.moves import moves_from
from advisor.ladder.search import SHORTEST_SEQ_TOKENS
from advisor.memory.replayed import NotRecorded
from advisor.stacks import default_plan
from advisor.values import Change, Method, Plan, Request, StepTime
from advisor.values.question import Trade

LEAST_SHARE = 0.005
"""Of the card: changes that save less are left out. Judgement: half a percent is inside every interval."""

_FOUR_BIT = {Method.LORA: Method.QLORA, Method.DORA: Method.QDORA}
_WEIGHTS = ("method", "quantization", "double_quant", "kbit_prepare", "adapter_dtype", "base_dtype", "autocast", "autocast_dtype")


class _Row(NamedTuple):
    priced: Priced
    step_time: StepTime | None

    @property
    def high_bytes(self) -> int:
        """The end of the interval that must be within the card."""
        return self.priced.totals.high_bytes

    @property
    def seconds_per_token(self) -> float:
        """At the slow end; 0 where no time is known."""
        return 1 / self.step_time.tokens_per_s.low if self.step_time is not None else 0.0


class Table(NamedTuple):
    """What every row is priced with."""

    case: Case
    request: Request
    fixed: frozenset[str]
    """Options that the user gave."""
    tokens: int

    def row(self, plan: Plan) -> _Row | None:
        found = price_or_none(self.case, plan)
        return None if found is None else _Row(found, timed(self.case.model, plan, self.case.gpu, self.tokens))


def trades(table: Table, asked: Plan) -> tuple[Trade, ...]:
    """The plan that was asked about, the faster one that it may be made from, and the more frugal ones that it may become.

    Each row takes less memory than the one before, and names the change that leads to the next. Changes without a price are left out.
    """
    first = table.row(asked)
    if first is None:
        return ()
    rows: list[tuple[_Row, Change | None]] = [*_faster(table, asked, first), (first, None)]
    while True:
        step = _next(table, rows[-1][0])
        if step is None:
            break
        row, change = step
        rows[-1] = rows[-1][0], change
        rows.append((row, None))
    return tuple(_trade(rows[index:], asked) for index in range(len(rows)))


def _trade(rows: list[tuple[_Row, Change | None]], asked: Plan) -> Trade:
    """The first of the rows that are left."""
    row, change = rows[0]
    plan, memory, fit = row.priced.plan, row.priced.memory, row.priced.fit
    said = {} if change is None else {"change": change.what, "cost": change.cost}
    return Trade(plan=plan, memory=memory, fit=fit, step_time=row.step_time, asked=plan == asked, beaten=_beaten(rows), **said)


def _beaten(rows: list[tuple[_Row, Change | None]]) -> bool:
    """Whether a later row is no worse than the first in anything: each takes less memory than those before it."""
    first = rows[0][0]
    alike = [row for row, _ in rows[1:] if _same_training(row.priced.plan, first.priced.plan)]
    return first.step_time is not None and any(row.seconds_per_token <= first.seconds_per_token for row in alike)


def _same_training(one: Plan, other: Plan) -> bool:
    return (one.method, one.seq_len_tokens) == (other.method, other.seq_len_tokens)


def _faster(table: Table, asked: Plan, first: _Row) -> Iterator[tuple[_Row, Change | None]]:
    """The plan without checkpointing, which is what makes it slower."""
    if not asked.gradient_checkpointing or "checkpointing" in table.fixed:
        return
    plan = asked.model_copy(update={"gradient_checkpointing": False})
    row = table.row(plan)
    back = next((move.change for move in moves_from(table.case, plan, frozenset()) if move.applied(plan).gradient_checkpointing), None)
    if row is not None and row.high_bytes > first.high_bytes:
        yield row, back


def _next(table: Table, current: _Row) -> tuple[_Row, Change] | None:
    for offers in (_keeping(table, current.priced.plan), _quality(table, current.priced.plan), _data(table, current.priced.plan)):
        options = [(row, change) for plan, change in offers if (row := table.row(plan)) is not None and _saves(table, current, row)]
        if options:
            return max(options, key=lambda option: _worth(current, option[0]))
    return None


def _saves(table: Table, current: _Row, row: _Row) -> bool:
    return current.high_bytes - row.high_bytes > LEAST_SHARE * table.case.gpu.usable_bytes


def _worth(current: _Row, row: _Row) -> tuple[float, int]:
    """Bytes saved for the time that is added to each token."""
    saved_bytes = current.high_bytes - row.high_bytes
    added = row.seconds_per_token - current.seconds_per_token
    return (saved_bytes / added if added > 0 else inf), saved_bytes


def _keeping(table: Table, plan: Plan) -> Iterator[tuple[Plan, Change]]:
    """The same training with less: the moves of the ladder."""
    for move in moves_from(table.case, plan, table.fixed):
        yield move.applied(plan), move.change


def _quality(table: Table, plan: Plan) -> Iterator[tuple[Plan, Change]]:
    method = _FOUR_BIT.get(plan.method)
    if method is None or "quantization" in table.fixed:
        return
    request = table.request.model_copy(update={"method": method})
    try:
        quantized = default_plan(method, table.case.model, table.case.gpu, request)
    except NotRecorded:
        raise
    except (UnsupportedError, InvalidInputError):
        return
    change = Change(what=say("change.four_bit", method=method.label), cost=f"quality: {say(f'quality.{method.value}')}")
    yield plan.model_copy(update={name: getattr(quantized, name) for name in _WEIGHTS}), change


def _data(table: Table, plan: Plan) -> Iterator[tuple[Plan, Change]]:
    half = plan.seq_len_tokens // 2
    if half < SHORTEST_SEQ_TOKENS or "seq_len" in table.fixed:
        return
    what = say("change.seq_len", old=f"{plan.seq_len_tokens:,}", new=f"{half:,}")
    yield plan.model_copy(update={"seq_len_tokens": half}), Change(what=what, cost=say("cost.seq_len"))
