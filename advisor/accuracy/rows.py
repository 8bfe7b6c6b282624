"""Runs and boundaries that others measured (`profiles/measurements/`).

A row keeps its source's words in `stated` and says the same in the words of Plan in `settings`; what is not stated is null. Rows that
cannot be scored stay, with the reason.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from advisor import profiles
from advisor.values import (
    Attention,
    DeepSpeedSettings,
    DType,
    Head,
    Loss,
    Masters,
    Mixers,
    Offload,
    Optimizer,
    Quantization,
    Sharding,
    Shift,
    Stack,
    Value,
)

PositiveBytes = Annotated[int, Field(gt=0)]


class Metric(str, Enum):
    """Which memory was read."""

    ALLOCATED = "allocated"
    """`torch.cuda.max_memory_allocated()`."""
    RESERVED = "reserved"
    """`torch.cuda.max_memory_reserved()`."""
    PROCESS = "process"
    """Reserved memory plus the CUDA context: the process's line in nvidia-smi."""
    UNKNOWN = "unknown"
    """The source does not say."""


class Reading(Value):
    """One number that was read off a card."""

    metric: Metric
    bytes: PositiveBytes
    bytes_high: PositiveBytes | None = None
    """Upper end where the source's unit may be GB or GiB; `bytes` is then the lower end."""
    what: str
    """Peak of the run, largest or mean of its steps, a sample."""
    seq_len_tokens: int | None = None
    """The length it belongs to, where a run mixes lengths."""
    scored: bool = True
    reason: str = ""
    dry_run_apart: str = ""
    """Listed apart where the dry run is judged: why a replay cannot tell this number. For the closed form, which replays nothing, such
    scatter is part of its error."""


class Loop(Value):
    """What a run did that its plan does not say, and a dry run can do too, in the words of its settings (`advisor.dryrun.dry_run`)."""

    steps: int = 2
    """Optimizer steps, the first included."""
    lengths_tokens: tuple[int, ...] = ()
    """Lengths that the run mixed, shortest first: what its allocator had seen when the longest came. With one alone, `steps` of it."""
    empty_cache_every_steps: int = 0
    """Steps between `torch.cuda.empty_cache()` calls; 0 for never."""
    zero_grad_first: bool = False
    """Gradients live until the next step begins."""
    clips: bool = False
    """A plain loop clips its gradients by their norm."""
    torch_has_flash: bool = True
    """torch was built with its flash kernel."""
    keep_outputs: bool = True
    """A plain loop's outputs live until the next step has made its own; False where a step is a function of its own."""


class Stage(Value):
    """Memory at a point of the run (after_load, …), or the largest within a phase (forward, …)."""

    name: str
    allocated_bytes: int | None = None
    max_allocated_bytes: int | None = None
    reserved_bytes: int | None = None


class Settings(Value):
    """Plan's fields as far as the source states them. Null: not stated, or not one of Plan's words (then see `stated`)."""

    method: str | None = None
    rank: int | None = None
    alpha: float | None = None
    target_modules: tuple[str, ...] | None = None
    use_rslora: bool | None = None
    adapter_dtype: DType | None = None
    base_dtype: DType | None = None
    autocast: bool | None = None
    autocast_dtype: DType | None = None
    quantization: Quantization | None = None
    double_quant: bool | None = None
    kbit_prepare: bool | None = None
    optimizer: Optimizer | None = None
    micro_batch_size: int | None = None
    seq_len_tokens: int | None = None
    grad_accum_steps: int | None = None
    gradient_checkpointing: bool | None = None
    attention: Attention | None = None
    padding: bool | None = None
    kv_cache_in_outputs: bool | None = None
    loss: Loss | None = None
    stack: Stack | None = None
    quantized_experts: bool | None = None
    sharding: Sharding | None = None
    masters: Masters | None = None
    use_reentrant: bool | None = None
    lora_dropout: float | None = None
    head: Head | None = None
    labels: int | None = None
    eval_micro_batch_size: int | None = None
    shift: Shift | None = None
    mixers: Mixers | None = None
    images_per_row: int | None = None
    image_size_pixels: tuple[int, int] | None = None
    shard_group: int | None = None
    reshard_after_forward: bool | None = None
    sync_each_batch: bool | None = None
    offload: tuple[Offload, ...] | None = None
    deepspeed: DeepSpeedSettings | None = None
    loads_on_rank_0: bool | None = None


class Measurement(Value):
    """One run (with readings) or one boundary (it fitted, or ran out of memory)."""

    id: str
    kind: Literal["run", "boundary"]
    source: Annotated[str, Field(min_length=1)]
    """Repository, paper or page."""
    place: str = ""
    """File and table in it."""
    revision: str = ""
    grade: Literal["A", "B"]
    """A: all settings, the length and the metric are known. B: one of them is uncertain, or the fact was inferred."""
    model: str
    same_shape_as: str | None = None
    """The profile of equal shape, where the model has none of its own."""
    layers: Annotated[int, Field(gt=0)] | None = None
    """The run was of the model's first so many layers; None for all of them."""
    gpu: str
    """As printed."""
    card: str | None = None
    """The profile in profiles/gpus."""
    usable_bytes: PositiveBytes | None = None
    """Of that very machine, where it was printed."""
    n_gpus: int | None = None
    versions: dict[str, str] = {}
    scored: bool
    reason: str = ""
    """Why it is not scored."""
    peft_config: dict[str, Any] = {}
    """The adapter of a method that is not priced, as its adapter_config.json says it: the dry run alone can run it."""
    loop: Loop = Loop()
    apart: str = ""
    """Priced, but listed apart: the known reason why it differs from the plan (older library versions, a cast that Plan cannot say)."""
    apart_by_versions: bool = False
    """The reason is older library versions alone: a dry run under those is not listed apart."""
    fits: bool | None = None
    settings: Settings = Settings()
    readings: tuple[Reading, ...] = ()
    stages: tuple[Stage, ...] = ()
    context_bytes: int | None = None
    stated: dict[str, Any] = {}
    """The source's own words, for what `settings` cannot hold and for checking it."""
    tags: tuple[str, ...] = ()
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Measurement:
        if self.scored == bool(self.reason):
            raise ValueError(f"reason: {self.id} needs one exactly when it is not scored")
        if self.kind == "run" and self.scored and not self.readings:
            raise ValueError(f"readings: {self.id} is a scored run without any")
        if self.kind == "boundary" and self.scored and self.fits is None:
            raise ValueError(f"fits: {self.id} is a scored boundary and needs it")
        return self

    @property
    def group(self) -> str:
        """Rows of one source on one card resemble each other: they stay together in cross-validation."""
        return f"{self.source.removeprefix('github.com/')} · {self.card or self.gpu}"


@cache
def measurements() -> tuple[Measurement, ...]:
    """Every row of `profiles/measurements/`, files in name order."""
    return profiles.rows("measurements", Measurement)
