"""What was asked for: every option of a plan, None where the choice is left to the tool."""

import re
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from advisor.errors import InvalidInputError
from advisor.units import parse_size
from advisor.values.sharing import Offload
from advisor.values.vocabulary import Attention, Head, Loss, Method, Mixers, Optimizer, Quantization, Sharding, Stack, Value, Word

# Judgement: far above anything that is run, so that what exceeds them is a slip of the finger and not an answer in exbibytes.
MAX_COUNT = 10**9
MAX_GPUS = 10**5
MAX_TOKENS = 10**15

_COUNT = re.compile(r"(\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*|\d*\.\d+)\s*([kmgbt]?)", re.IGNORECASE | re.ASCII)
_LONGEST_NUMBER = 40
"""Judgement: no count has more digits; thousands of them are beyond what Python turns into a number."""
_BINARY = {"": 1, "k": 2**10, "m": 2**20}
"""Of a length: "4k" is the context of 4,096 tokens that model cards call 4k, "1M" one of 1,048,576."""
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
"""Of an amount of data: "30M" is 30,000,000 tokens."""


def _read(suffixes: dict[str, int], value: Any) -> Any:
    """4096 for "4,096", "4_096" or "4k"; what is no such number is handed on, to be refused as it stands."""
    if isinstance(value, bool):
        return str(value)  # refused in words: Python would count True as 1
    found = _COUNT.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= _LONGEST_NUMBER else None
    unit = suffixes.get(found[2].lower()) if found else None
    if found is None or unit is None:
        return value
    number = _exact(found[1].replace(",", "").replace("_", "")) * unit
    return int(number) if number == int(number) else value


def _exact(text: str) -> Any:
    """The number as it is written: 1.1 million in floats is no whole number."""
    if "." not in text:
        return int(text)
    from decimal import Decimal

    return Decimal(text)


def read_length(text: str) -> int | None:
    """Tokens of a sequence as it may be written, "4k" for 4,096; None for what is no such number."""
    number = _read(_BINARY, text)
    return number if isinstance(number, int) and 0 < number <= MAX_COUNT else None


def _not_tiny(value: float) -> float:
    if value < LEAST_RATE:
        raise PydanticCustomError("too_small", f"Input should be at least {LEAST_RATE:g}")
    return value


Count = Annotated[int, BeforeValidator(partial(_read, {"": 1})), Field(gt=0, le=MAX_COUNT)]
"""A number, with or without marks between its thousands: 4096, "4,096", "4_096"."""
LEAST_RATE, MOST_RATE = 1e-20, 1e4
"""Judgement: no optimiser's learning rate is beyond, and multiples of what is have no number."""
LearningRate = Annotated[float, Field(gt=0, le=MOST_RATE, allow_inf_nan=False), AfterValidator(_not_tiny)]
Alpha = Annotated[float, Field(gt=0, le=MAX_COUNT, allow_inf_nan=False), AfterValidator(_not_tiny)]
Length = Annotated[int, BeforeValidator(partial(_read, _BINARY)), Field(gt=0, le=MAX_COUNT)]
"""Tokens of a sequence: a count, or "4k" for 4,096."""
Amount = Annotated[int, BeforeValidator(partial(_read, _DECIMAL)), Field(gt=0, le=MAX_TOKENS)]
"""Tokens or examples of a data set: a count, or "30M" for 30,000,000 and "2B" for 2,000,000,000."""

MAX_SIDE_PIXELS = 10**5
"""Judgement: no picture is longer."""
_SIZE = re.compile(r"(\d{1,6})\s*[x×]\s*(\d{1,6})", re.IGNORECASE | re.ASCII)


def _read_size(value: Any) -> Any:
    """(1024, 768) for "1024x768"; what is no such text is handed on, to be refused as it stands."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if isinstance(value, str) and found is None:
        raise ValueError("write width x height in pixels, such as 1024x768")
    return (int(found[1]), int(found[2])) if found else value


_Side = Annotated[int, Field(gt=0, le=MAX_SIDE_PIXELS)]
ImageSize = Annotated[tuple[_Side, _Side], BeforeValidator(_read_size)]
"""Width and height of a picture, in pixels."""


def _read_bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except InvalidInputError as error:
        raise ValueError(str(error)) from None


HostBytes = Annotated[int, BeforeValidator(_read_bytes), Field(gt=0)]
"""A size of memory: "512GiB" as text."""


class Precision(Word):
    """Type of the weights and of the computation. `-amp` keeps fp32 weights and computes in 16 bit under torch.autocast."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"
    BF16_AMP = "bf16-amp"
    FP16_AMP = "fp16-amp"

    @classmethod
    def also(cls) -> dict[str, Any]:
        """torch's names of the types."""
        return {"bfloat16": cls.BF16, "float16": cls.FP16, "half": cls.FP16, "float32": cls.FP32, "float": cls.FP32}


class Task(Word):
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
    alpha: Alpha | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Leaf names as in the model, or ("all-linear",). A text is split at its commas."""
    batch_size: Count | None = None
    """Micro-batch: sequences per card and forward pass."""
    seq_len: Length | None = None
    """Tokens."""
    grad_accum: Count | None = None
    images: Count | None = None
    """Pictures in each sequence."""
    image_size: ImageSize | None = None
    """Width and height of each, in pixels: "1024x768" as text."""
    optimizer: Optimizer | None = None
    precision: Precision | None = None
    quantization: Quantization | None = None
    double_quant: bool | None = None
    kbit_prepare: bool | None = None
    checkpointing: bool | None = None
    padding: bool | None = None
    attention: Attention | None = None
    mixers: Mixers | None = None
    head: Head | None = None
    labels: Count | None = None
    """Classes of a classifier."""
    loss: Loss | None = None
    stack: Stack | None = None
    shard: Sharding | None = None
    """What several cards share, and whose engine does it."""
    offload: Annotated[tuple[Offload, ...], Field(min_length=1)] | None = None
    """What rests on the host. A text is split at its commas."""
    shard_group: Annotated[Count, Field(le=MAX_GPUS)] | None = None
    """Cards that share one model, with replicas of them beside."""
    sync_each_batch: bool | None = None
    """Gradients are reduced in each micro-batch."""
    host_memory: HostBytes | None = None
    """Of the machine that holds the cards: "512GiB" as text."""
    reentrant: bool | None = None
    """Checkpointing by `use_reentrant=True`."""
    gpus: Annotated[Count, Field(le=MAX_GPUS)] | None = None
    dataset_tokens: Amount | None = None
    """Unique training tokens: of the completions when prompts are masked, of everything otherwise."""
    epochs: Annotated[float, Field(gt=0, le=MAX_COUNT, allow_inf_nan=False)] | None = None
    """Passes over them: one where nobody says."""
    price: Annotated[float, Field(gt=0, le=MAX_COUNT, allow_inf_nan=False)] | None = None
    """USD that a card rents for an hour."""
    task: Task | None = None
    eval_items: Count | None = None
    """Held-out items that every run is scored on."""
    budget: Annotated[float, Field(gt=0, le=MAX_COUNT, allow_inf_nan=False)] | None = None
    """USD that the runs of the first experiment may cost together."""

    @field_validator("target_modules", "offload", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name for name in (part.strip() for part in value.split(",")) if name) if isinstance(value, str) else value
