"""A question asked backwards: one thing about a plan is unknown, and the answer is its best value that fits."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Literal

from pydantic import computed_field

from advisor.display import Shown
from advisor.frames import Framed, Row, scalars
from advisor.values.advice import Fit, ModelSummary, StepTime, time_and_cost
from advisor.values.card import GpuSpec
from advisor.values.memory import Computed, MemoryBreakdown
from advisor.values.plan import Plan
from advisor.values.vocabulary import SCHEMA_VERSION, Bytes, Phase, Positive, Term, Value


class Unknown(str, Enum):
    """What is asked for."""

    SEQ_LEN = "seq_len"
    """The longest sequence."""
    BATCH_SIZE = "batch_size"
    """The largest micro-batch."""
    GPU = "gpu"
    """The card on which the same tokens cost least."""
    GPUS = "gpus"
    """The fewest cards."""
    MODEL = "model"
    """The largest known model."""


class Need(Value):
    """What a value of the unknown would need, and what there is."""

    value: str
    """As it is given to `advise estimate`: "4097", or a name."""
    high_bytes: Bytes
    """The high end of the interval, which must be within the card."""
    usable_bytes: Bytes
    fit: Fit
    phase: Phase
    """In which it peaks."""
    term: Term
    """The largest term there that grows with the unknown; of names, the largest of all."""
    term_bytes: Bytes


class Candidate(Value):
    """One of several cards, numbers of cards, or models that were considered."""

    name: str
    n_gpus: Positive = 1
    fit: Fit | None
    """None where it has no price."""
    reason: str = ""
    """Why it has no price."""
    high_bytes: Bytes | None = None
    usable_bytes: Bytes | None = None
    usd_per_hour: float | None = None
    """Of all its cards, at the lowest recorded rent."""
    step_time: StepTime | None = None
    """Hours and cost are of one pass over `cost_tokens` of the answer; None where it does not fit, or the card's speeds are not known."""


class Trade(Value):
    """One row of memory against time against money: a plan, and the one change that leads to the next row's."""

    plan: Plan
    memory: MemoryBreakdown
    fit: Fit
    step_time: StepTime | None
    asked: bool = False
    """It is the plan that the answer is about."""
    beaten: bool = False
    """A later row of the same method and length takes less memory and no more time: on the way there, and no place to stay."""
    change: str = ""
    """What leads to the next row; empty in the last one."""
    cost: str = ""
    """What that change costs, in words."""


class FitAnswer(Shown, Framed, Computed):
    """The answer to `advise fit`."""

    schema_version: str = SCHEMA_VERSION
    unknown: Unknown
    model: ModelSummary | None
    """None where the model is the unknown and none fits."""
    gpu: GpuSpec | None
    """None where the card is the unknown and none fits."""
    value: str | None
    """The answer, as it is given to `advise estimate`; None where nothing surely fits."""
    limited_by: Literal["memory", "model", "search", "none"]
    """What the answer stops at: the card's memory, the model's positions or the largest known model, the bound of the search; none where
    the best of all is taken."""
    sentence: str
    plan: Plan | None
    """The plan at the answer."""
    memory: MemoryBreakdown | None
    """Of that plan, per card."""
    beyond: Need | None = None
    """One step more, which does not surely fit."""
    uncertain_to: str = ""
    """Up to here it cannot be told whether it fits; empty where that is no further than the answer."""
    uncertain: bool = False
    """Nothing surely fits, and of something it cannot be told."""
    candidates: tuple[Candidate, ...] = ()
    trades: tuple[Trade, ...] = ()
    """Memory against time against money around the answer, the most memory first."""
    cost_tokens: Positive
    """Tokens that hours and costs are of."""
    assumptions: tuple[str, ...] = ()
    """What names and omitted options were taken to mean, one line each."""

    def _frame_rows(self) -> Iterator[Row]:
        """One for each plan of memory against time against money; where there is none, for each that was considered."""
        for trade in self.trades:
            sizes = {"low_bytes": trade.memory.low_bytes, "high_bytes": trade.memory.high_bytes}
            plan = {
                "method": trade.plan.method.value,
                "seq_len_tokens": trade.plan.seq_len_tokens,
                "micro_batch_size": trade.plan.micro_batch_size,
            }
            yield {**plan, **sizes, **scalars(trade, "step_time"), **time_and_cost(trade.step_time)}
        for candidate in () if self.trades else self.candidates:
            yield {**scalars(candidate, "step_time"), **time_and_cost(candidate.step_time)}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 something fits · 1 nothing fits · 3 cannot tell."""
        return 0 if self.value is not None else 3 if self.uncertain else 1
