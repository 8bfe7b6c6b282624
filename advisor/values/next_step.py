"""The answer of `advise next`: which door, the constraint that binds, and the one experiment that decides something."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import Field, computed_field

from advisor.display import Shown
from advisor.values.advice import Finding, Fit, Range
from advisor.values.memory import Computed, MemoryBreakdown
from advisor.values.plan import Plan
from advisor.values.request import Precision
from advisor.values.vocabulary import SCHEMA_VERSION, Method, Positive, Quantization, Value

EXIT_RECOMMENDED = 0
EXIT_CANNOT_TELL = 3


class Door(str, Enum):
    """Which rung to stand on next. `stay`: the present one; `stop`: no door is worth opening."""

    LORA = "lora"
    QLORA = "qlora"
    DORA = "dora"
    QDORA = "qdora"
    FULL = "full_ft"
    STAY = "stay"
    STOP = "stop"

    @property
    def label(self) -> str:
        named = {Door.FULL: "Full fine-tuning", Door.STAY: "Stay", Door.STOP: "Stop"}
        return named[self] if self in named else Method(self.value).label


class Binding(str, Enum):
    """The constraint that keeps the score where it is."""

    MEMORY = "memory"
    OPTIMISATION_BUG = "optimisation_bug"
    LEARNING_RATE = "learning_rate"
    SCALE = "scale"
    TARGET_MODULES = "target_modules"
    BATCH = "batch"
    UNDERTRAINED = "undertrained"
    DATA_OVERFIT = "data_overfit"
    DATA = "data"
    QUANTISATION = "quantisation"
    CAPACITY = "capacity"
    EVALUATION_NOISE = "evaluation_noise"
    FORGETTING = "forgetting"
    CEILING = "ceiling"
    NONE = "none"
    """The target is reached."""
    UNKNOWN = "unknown"

    @property
    def label(self) -> str:
        named = {Binding.OPTIMISATION_BUG: "optimisation or data bug", Binding.DATA_OVERFIT: "data (overfitted)"}
        return named.get(self, self.value.replace("_", " "))


class Confidence(str, Enum):
    """What the diagnosis rests on. high: a measured difference beyond the noise; medium: a rule with published support, met by these
    facts; low: facts are missing, or the support is one study."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class NextRun(Value):
    """The set-up of the next run or sweep."""

    method: Method
    rank: Positive | None = None
    alpha: float | None = None
    use_rslora: bool = False
    init: str = ""
    targets: tuple[str, ...] | None = None
    dropout: float | None = None
    quantization: Quantization | None = None
    precision: Precision | None = None
    learning_rates: tuple[float, ...] = ()
    """One run each."""
    batch: Positive | None = None
    epochs: float | None = None
    data_fraction: Annotated[float, Field(gt=0)] = 1.0
    seeds: Positive = 1
    micro_batch: Positive | None = None
    seq_len: Positive | None = None
    gradient_checkpointing: bool | None = None

    @property
    def runs(self) -> int:
        return max(1, len(self.learning_rates)) * self.seeds


class ConfigChange(Value):
    """One setting that differs from the run before, named as peft and transformers name it."""

    where: Literal["LoraConfig", "BitsAndBytesConfig", "TrainingArguments", "data", "method"]
    setting: str
    old: str
    new: str


class Acceptance(Value):
    """What the experiment must show for its door to stay open."""

    standard_errors: float
    """Of the difference."""
    difference: float | None = None
    """The same as a number, in the scores' unit; None where the noise is not known."""
    paired: bool = False
    """The difference can be tested item by item."""
    seeds: Positive = 1
    chance: float | None = None
    """Share of such experiments in which the middle of the published gain shows; None where gain or noise are not known."""
    items_needed: int | None = None
    """Items, compared one by one, with which it shows in four of five; None where it does already, or the noise is not known."""
    seeds_needed: int | None = None
    """Of each set-up, with those items."""
    sentence: str


class Gain(Value):
    """What the move was measured to bring, in points of the metric that it was measured on."""

    points: Range
    conditions: str
    evidence: tuple[str, ...] = ()


class RunPrice(Value):
    """What the estimator says of the next run."""

    plan: Plan
    memory: MemoryBreakdown
    fit: Fit | None = None
    hours: Range | None = None
    """All runs of the experiment together."""
    usd: Range | None = None
    relative_step_time: Range | None
    """Against LoRA; None for a model whose operations are not counted."""
    changes: tuple[str, ...] = ()
    """What the estimator had to change to make it fit."""


class CitedFact(Value):
    """A published result that the answer rests on."""

    id: str
    statement: str
    source: str
    url: str
    confidence: str


class LaterDoor(Value):
    """The door behind the open checks: what the same facts say once those are closed."""

    rung: Door
    binding: Binding
    sentence: str


class NextStep(Shown, Computed):
    """The whole answer to `advise next`."""

    schema_version: str = SCHEMA_VERSION
    rung: Door
    method: Method | None
    """The method of the next run; None where nothing is to be trained."""
    binding: Binding
    gate: str
    """Id of the rule that spoke: R0 to R14."""
    confidence: Confidence
    reason: str
    current: str = ""
    """The run that this goes on from."""
    blocked_by: tuple[Binding, ...] = ()
    """Checks that are still open, in the order in which to close them: no costlier rung before."""
    then: LaterDoor | None = None
    next_experiment: str
    run: NextRun | None = None
    config_diff: tuple[ConfigChange, ...] = ()
    accept_if: Acceptance | None = None
    expected_gain: Gain | None = None
    cost: str = ""
    """What the move was measured to cost elsewhere."""
    price: RunPrice | None = None
    disagreement: str = ""
    """Where the ladder's order and the evidence differ: both, in one sentence."""
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    """What one would have to know to be surer."""
    assumptions: tuple[str, ...] = ()
    facts: tuple[CitedFact, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 a recommendation · 3 cannot tell."""
        return EXIT_CANNOT_TELL if self.binding is Binding.UNKNOWN and self.run is None else EXIT_RECOMMENDED
