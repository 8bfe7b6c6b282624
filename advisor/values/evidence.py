"""What was run and how it scored: the facts that `advise next` decides on. Every field but a run's method may be left out.

A score is a share of items answered rightly (0.482, or 48.2 with `unit: percent`), or a mean that brings its own standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from advisor.values.card import GpuSpec
from advisor.values.contradictions import check_facts, check_run
from advisor.values.model import ModelSpec
from advisor.values.request import Alpha, Amount, LearningRate, Precision, Task
from advisor.values.vocabulary import Bytes, Method, Positive, Quantization, Value

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_METHODS = {"full_ft": "full", "full-ft": "full", "fft": "full", "full fine-tuning": "full"}
_TASKS = {
    **dict.fromkeys(("classification", "format", "json"), "extraction"),
    **dict.fromkeys(("instruct", "style"), "chat"),
    **dict.fromkeys(("cpt", "pretraining", "continued-pretraining"), "knowledge"),
    **dict.fromkeys(("grpo", "ppo", "rlvr"), "rl"),
}


class Complaint(str, Enum):
    """What is wrong with a trained model where it is not the score."""

    FORGETTING = "forgetting"
    """It lost what it knew before."""
    NEVER_STOPS = "never-stops"
    """Its answers have no end."""
    REPEATS = "repeats"
    """It says the same again and again."""
    GARBAGE = "garbage"
    """It writes no language."""
    LIKE_BASE = "like-base"
    """It answers as the untuned model does."""
    MERGED_DIFFERS = "merged-differs"
    """Merged, exported or served it is worse than the adapter was."""


class Unit(str, Enum):
    SHARE = "share"
    PERCENT = "percent"
    RAW = "raw"
    """A mean of something that is no share of items: a reward, a judge's mark, a loss."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class LossPoint:
    """A logged loss. It may be NaN or infinite: that is a fact about the run, not a mistake in the file.

    A ledger holds them by the hundred thousand, so each is two numbers and no more.
    """

    step: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    loss: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)


def all_finite(*curves: Sequence[LossPoint]) -> bool:
    """Whether every loss of the curves is a number."""
    return all(map(math.isfinite, map(attrgetter("loss"), chain.from_iterable(curves))))


class EpochScore(Value):
    epoch: PositiveNumber
    score: Number


class SweepPoint(Value):
    """The same set-up at another learning rate."""

    learning_rate: LearningRate
    score: Number | None = None
    eval_loss: Number | None = None
    diverged: bool = False
    data_fraction: Share | None = None
    """Of the training set; None: as the run that it belongs to."""


class EvaluationFacts(Value):
    """How a run is judged."""

    metric: str = ""
    n: Positive | None = None
    """Items of the held-out set."""
    standard_error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of one score, where it is known better than from the number of items; in the scores' unit."""
    target: Number | None = None
    base: Number | None = None
    """The untuned model with a good prompt."""
    higher_is_better: bool = True


class OtherScore(Value):
    """The current run on another benchmark."""

    metric: str
    score: Number
    target: Number | None = None
    n: Positive | None = None


class AdapterFacts(Value):
    """What an inspection of the trained adapter showed (`advise inspect`)."""

    rank: Positive
    energy_at_half: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the squared singular values that the first rank/2 of them hold."""
    truncated_rank: Positive | None = None
    truncated_score: Number | None = None
    """Score of the same adapter cut to that rank and evaluated again, without training."""
    untrained_modules: tuple[str, ...] = ()
    """Modules whose update is zero."""


class RunFacts(Value):
    """One training run, and how it scored."""

    id: str = ""
    method: Method
    rank: Positive | None = None
    alpha: Alpha | None = None
    use_rslora: bool = False
    init: str = ""
    """Initialisation other than peft's own: pissa, loftq, olora …"""
    targets: tuple[str, ...] | None = None
    """Leaf names, or ("all-linear",)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    quantization: Quantization | None = None
    precision: Precision | None = None
    """Type of the weights and of the computation."""
    adapter_params: Positive | None = None
    learning_rate: LearningRate | None = None
    lr_tuned: bool = False
    """The learning rate was swept for exactly this set-up, although the rows are not at hand."""
    lr_sweep: tuple[SweepPoint, ...] = ()
    """Other learning rates of this set-up. Runs that differ in nothing else are found by themselves."""
    batch: Positive | None = None
    """Sequences per optimizer step, over all cards."""
    steps: Positive | None = None
    epochs: PositiveNumber | None = None
    data_fraction: Share = 1.0
    """Share of the training set that was used: below 1 for pilots and half-data controls."""
    seq_len: Positive | None = None
    micro_batch: Positive | None = None
    gradient_checkpointing: bool | None = None
    seed: int | None = None
    score: Number | None = None
    n: Positive | None = None
    """Items that this run was scored on, where it differs from the evaluation's."""
    correct: tuple[bool, ...] = ()
    """Item by item, in the same order for every run."""
    item_ids: tuple[str, ...] = ()
    scores_by_epoch: tuple[EpochScore, ...] = ()
    train_losses: tuple[LossPoint, ...] = ()
    eval_losses: tuple[LossPoint, ...] = ()
    diverged: bool = False
    """The loss went to NaN or spiked and did not come back."""
    oom: bool = False
    peak_bytes: Bytes | None = None
    retention: Number | None = None
    """Score on a general benchmark after training, in the scores' unit."""
    forgetting: Number | None = None
    """What the general benchmark lost, as a share, where only that is known."""

    @field_validator("method", mode="before")
    @classmethod
    def _method(cls, value: Any) -> Any:
        return _METHODS.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @field_validator("targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("train_losses", "eval_losses", mode="before")
    @classmethod
    def _curve(cls, value: Any) -> Any:
        """Accepts [[step, loss], …] and [loss, …], equally spaced; the latter as a text with commas, too."""
        if isinstance(value, str):
            value = [loss.strip() for loss in value.split(",") if loss.strip()]
        if not isinstance(value, (list, tuple)) or set(map(type, value)) <= {LossPoint}:
            return value
        return [
            _pair(point, "step", "loss") if isinstance(point, (list, tuple)) else _bare(index, point) for index, point in enumerate(value)
        ]

    @field_validator("scores_by_epoch", mode="before")
    @classmethod
    def _epochs(cls, value: Any) -> Any:
        return [_pair(point, "epoch", "score") for point in value] if isinstance(value, (list, tuple)) else value

    @field_validator("lr_sweep", mode="before")
    @classmethod
    def _sweep(cls, value: Any) -> Any:
        return [_pair(point, "learning_rate", "score") for point in value] if isinstance(value, (list, tuple)) else value

    @model_validator(mode="after")
    def _consistent(self) -> RunFacts:
        check_run(self)
        return self

    @property
    def label(self) -> str:
        rank = f" r{self.rank}" if self.rank is not None and self.method.has_adapter else ""
        return self.id or f"{self.method.label}{rank}"


class Facts(Value):
    """Everything that is known about a project: the model, the card, the data, the evaluation, and the runs in their order."""

    model: ModelSpec | None = None
    model_note: str = ""
    """Why the model's shape is not known, where a name was given."""
    params: Positive | None = None
    """Parameters of the model, where its shape is not known."""
    params_per_rank: Positive | None = None
    """LoRA parameters per unit of rank, where the shape is not known."""
    gpu: GpuSpec | None = None
    n_gpus: Positive = 1
    task: Task | None = None
    objective: Literal["sft", "dpo", "rl"] | None = None
    """How it is trained; None: reinforcement learning where the task says so, else supervised."""
    dataset_tokens: Amount | None = None
    """Unique training tokens: of the completions when prompts are masked, of everything otherwise."""
    examples: Amount | None = None
    mean_tokens: PositiveNumber | None = None
    """Tokens of an example: with `examples` it stands in for `dataset_tokens`."""
    unit: Unit | None = None
    """Of every score in these facts; None: read off the scores."""
    evaluation: EvaluationFacts = EvaluationFacts()
    other_scores: tuple[OtherScore, ...] = ()
    """Of the current run, on other benchmarks."""
    runs: tuple[RunFacts, ...] = ()
    """Oldest first."""
    current: str = ""
    """Id of the run to go on from; empty: the cheapest one that no other beats beyond the noise."""
    adapter: AdapterFacts | None = None
    complaint: Complaint | None = None
    retention_base: Number | None = None
    """The untuned model on the general benchmark."""
    retention_n: Positive | None = None
    rank_cap: Positive | None = None
    """Largest rank that serving allows."""
    no_more_data: bool = False
    """Nothing can be collected beyond what there is."""
    serving: Literal["merged", "unmerged"] | None = None
    """`unmerged`: many adapters on one base, or latency counts."""
    budget_usd: PositiveNumber | None = None
    """What the first pilots may cost together."""
    spare_runs: Annotated[int, Field(ge=0)] = 0
    """Runs that may be spent on long shots."""

    notes: tuple[str, ...] = ()
    """What was left out or taken for granted as these facts were gathered, one line each."""

    @field_validator("complaint", mode="before")
    @classmethod
    def _complaint(cls, value: Any) -> Any:
        return ("-".join(value.lower().replace("_", " ").split()) or None) if isinstance(value, str) else value

    @field_validator("task", mode="before")
    @classmethod
    def _task(cls, value: Any) -> Any:
        return _TASKS.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Facts:
        check_facts(self)
        return self


def _pair(point: Any, first: str, second: str) -> Any:
    if isinstance(point, (list, tuple)) and len(point) == 2:
        return {first: point[0], second: point[1]}
    return point


def _bare(index: int, point: Any) -> Any:
    return point if isinstance(point, (dict, LossPoint)) else {"step": index, "loss": point}
