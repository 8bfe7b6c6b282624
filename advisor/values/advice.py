"""The answer: every rung priced, the verdict, and what would change it."""

from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Literal

from pydantic import Field, computed_field, model_validator

from advisor.display import Shown
from advisor.frames import Framed, Row
from advisor.values.card import GpuSpec
from advisor.values.memory import Computed, MemoryBreakdown
from advisor.values.plan import Plan
from advisor.values.vocabulary import SCHEMA_VERSION, Bytes, Method, Positive, Value


class Fit(str, Enum):
    """Whether a plan fits a card: the whole interval below it, the whole interval above it, or neither; or no card would help."""

    FITS = "fits"
    UNCERTAIN = "uncertain"
    DOES_NOT_FIT = "does_not_fit"
    WOULD_NOT_START = "would_not_start"
    """Not from this checkpoint: a rung is priced on the original weights then."""


class Level(str, Enum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Range(Value):
    """A number known only within bounds, and who says so."""

    low: float
    high: float
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low <= self.high:
            raise ValueError("low: must not exceed high")
        return self


class Finding(Value):
    """One thing that a rule noticed. The id is stable: scripts may match on it."""

    id: str
    level: Level
    message: str
    hint: str = ""
    numbers: dict[str, float] = {}
    evidence: tuple[str, ...] = ()
    """Ids of facts in profiles/methods/."""


class Change(Value):
    """One step taken to make a plan fit, and what it costs."""

    what: str
    cost: str


class StepTime(Value):
    """Time of one optimizer step on the given cards, and what the run costs."""

    seconds_per_step: Range
    tokens_per_s: Range
    hours: Range | None = None
    """For the data set's tokens, once over; None when its size was not given."""
    usd: Range | None = None


def ends(name: str, span: Range | None) -> Row:
    """Return both ends of a range as columns of a row."""
    return {f"{name}_low": None if span is None else span.low, f"{name}_high": None if span is None else span.high}


def time_and_cost(time: StepTime | None) -> Row:
    """Return what a step takes and a run costs as columns of a row."""
    seconds, hours, usd = (None, None, None) if time is None else (time.seconds_per_step, time.hours, time.usd)
    return {**ends("seconds_per_step", seconds), **ends("hours", hours), **ends("usd", usd)}


class Rung(Shown, Value):
    """One method: the plan a practitioner would run first, made to fit where that is possible, and its price."""

    plan: Plan
    memory: MemoryBreakdown
    """Per card, when there are several."""
    fit: Fit
    headroom_bytes: int
    """Usable memory minus expected; negative when it does not fit."""
    changes: tuple[Change, ...] = ()
    """What was changed from the first plan to make it fit, in the order taken."""
    trainable_params: Positive | None
    """None for an adapter on a model whose matrices are not known."""
    trainable_share: Annotated[float, Field(gt=0, le=1)] | None
    base_precision: str
    relative_step_time: Range | None
    """Step time as a multiple of LoRA's, for the same tokens; None for a model whose operations are not counted."""
    step_time: StepTime | None = None
    quality: str
    quality_evidence: tuple[str, ...] = ()
    adapter_bytes: Bytes | None = None
    """Size of the saved adapter; None for full fine-tuning, which saves a whole model, and where its parameters are not known."""
    mergeable: str
    max_seq_len_tokens: int | None = None
    """Longest sequence that still surely fits, with changes of options that were not fixed where it takes them; None when none does."""
    max_micro_batch_size: int | None = None
    why_not: str = ""
    """Why this rung was not chosen; empty for the chosen one."""


class ModelSummary(Value):
    id: str
    architecture: str
    params: Positive
    layers: Positive
    hidden_size: Positive
    weights_16bit_bytes: Bytes
    source: str


class Verdict(Value):
    """Which rung, and the constraint that binds."""

    method: Method | None
    binding: Literal["memory", "none", "data", "capacity", "unknown"]
    sentence: str


class Advice(Shown, Framed, Computed):
    """The whole answer to `advise --model … --gpu …`."""

    schema_version: str = SCHEMA_VERSION
    model: ModelSummary
    gpu: GpuSpec
    n_gpus: Positive = 1
    assumptions: tuple[str, ...]
    """What names and omitted options were taken to mean, one line each."""
    verdict: Verdict
    rungs: tuple[Rung, ...]
    """In the order of the ladder."""
    findings: tuple[Finding, ...] = ()
    would_change: tuple[str, ...] = ()
    next_experiment: str
    next_evidence: tuple[str, ...] = ()
    """Ids of the facts that its learning rates stand on, in profiles/methods/."""
    snippet: str
    """Python that builds exactly the plan that was priced; empty when nothing fits."""
    command: str = ""
    """Command line that prices the plan of `focus` again; empty where no options describe it."""

    def _frame_rows(self) -> Iterator[Row]:
        """One for each rung, in the order of the ladder."""
        for rung in self.rungs:
            yield {
                "method": rung.plan.method.value,
                "fit": rung.fit.value,
                "chosen": rung is self.chosen,
                "low_bytes": rung.memory.low_bytes,
                "expected_bytes": rung.memory.expected_bytes,
                "high_bytes": rung.memory.high_bytes,
                "usable_bytes": self.gpu.usable_bytes,
                "headroom_bytes": rung.headroom_bytes,
                "max_seq_len_tokens": rung.max_seq_len_tokens,
                **ends("relative_step_time", rung.relative_step_time),
                **time_and_cost(rung.step_time),
                "changes": "; ".join(change.what for change in rung.changes),
            }

    @property
    def chosen(self) -> Rung | None:
        return next((rung for rung in self.rungs if rung.plan.method is self.verdict.method), None)

    @property
    def focus(self) -> Rung:
        """The rung that the reader looks at: the chosen one, else the one that comes nearest to fitting."""
        able = [rung for rung in self.rungs if rung.fit is not Fit.WOULD_NOT_START] or [*self.rungs]
        return self.chosen or min(able, key=lambda rung: rung.memory.expected_bytes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 something fits · 1 nothing fits · 3 cannot tell."""
        fits = {rung.fit for rung in self.rungs}
        return 0 if Fit.FITS in fits else 3 if Fit.UNCERTAIN in fits else 1


class TracedAdvice(Value):
    """`advise --trace --json`: the answer, and the dry run of the rung that it recommends."""

    advice: Advice
    memory: MemoryBreakdown | None
    """None where nothing fits, so that there is no rung to run."""
    fit: Fit | None

    @property
    def stands(self) -> bool:
        """Whether the dry run says of the rung what the closed form says."""
        return self.advice.chosen is None or self.fit is self.advice.chosen.fit
