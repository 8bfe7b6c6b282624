"""What was asked for: every option of a plan, None where the choice is left to the tool."""

from enum import Enum
from typing import Annotated, Any

from pydantic import Field, field_validator

from advisor.values.vocabulary import Attention, Loss, Method, Optimizer, Quantization, Sharding, Stack, Value

# Judgement: far above anything that is run, so that what exceeds them is a slip of the finger and not an answer in exbibytes.
MAX_COUNT = 10**9
MAX_GPUS = 10**5
MAX_TOKENS = 10**15

Count = Annotated[int, Field(gt=0, le=MAX_COUNT)]


class Precision(str, Enum):
    """Type of the weights and of the computation. `-amp` keeps fp32 weights and computes in 16 bit under torch.autocast."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"
    BF16_AMP = "bf16-amp"
    FP16_AMP = "fp16-amp"


class Task(str, Enum):
    """What the data teaches; the evidence differs by it."""

    EXTRACTION = "extraction"
    CHAT = "chat"
    MATH = "math"
    CODE = "code"
    KNOWLEDGE = "knowledge"
    RL = "rl"


class Request(Value):
    """Options as the user gave them. What is given is never changed; what is None gets the stack's or the field's default."""

    method: Method | None = None
    rank: Count | None = None
    alpha: Annotated[float, Field(gt=0, le=MAX_COUNT, allow_inf_nan=False)] | None = None
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Leaf names as in the model, or ("all-linear",). A text is split at its commas."""
    batch_size: Count | None = None
    """Micro-batch: sequences per card and forward pass."""
    seq_len: Count | None = None
    """Tokens."""
    grad_accum: Count | None = None
    optimizer: Optimizer | None = None
    precision: Precision | None = None
    quantization: Quantization | None = None
    double_quant: bool | None = None
    kbit_prepare: bool | None = None
    checkpointing: bool | None = None
    padding: bool | None = None
    attention: Attention | None = None
    loss: Loss | None = None
    stack: Stack | None = None
    shard: Sharding | None = None
    """What several cards share, and whose engine does it."""
    reentrant: bool | None = None
    """Checkpointing by `use_reentrant=True`."""
    gpus: Annotated[int, Field(gt=0, le=MAX_GPUS)] | None = None
    dataset_tokens: Annotated[int, Field(gt=0, le=MAX_TOKENS)] | None = None
    """Unique training tokens: of the completions when prompts are masked, of everything otherwise."""
    task: Task | None = None

    @field_validator("target_modules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name for name in (part.strip() for part in value.split(",")) if name) if isinstance(value, str) else value
