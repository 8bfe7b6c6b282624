"""The values that flow through the tool, in one direction and frozen:

    ModelSpec, GpuSpec  →  Plan  →  MemoryBreakdown (+ StepTime)  →  Finding*  →  Advice

Units are in the names (`_bytes`, `_tokens`, `_per_s`); bytes are `int`. Totals and peaks are computed from their parts, so that
they cannot disagree with them. Unknown keys are errors.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

SCHEMA_VERSION = "1"
"""Version of the JSON that `--json` prints; it rises when a field is renamed, removed or changes its meaning."""

Positive = Annotated[int, Field(gt=0)]
Bytes = Annotated[int, Field(ge=0)]


class Value(BaseModel):
    """Base of every value: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ------------------------------------------------------------------------------------------------ vocabulary


class Method(str, Enum):
    """The rungs. QDoRA is DoRA on a 4-bit base."""

    LORA = "lora"
    QLORA = "qlora"
    DORA = "dora"
    QDORA = "qdora"
    FULL = "full"

    @property
    def has_adapter(self) -> bool:
        return self is not Method.FULL

    @property
    def is_dora(self) -> bool:
        return self in (Method.DORA, Method.QDORA)

    @property
    def is_quantized(self) -> bool:
        return self in (Method.QLORA, Method.QDORA)

    @property
    def label(self) -> str:
        return {"lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "qdora": "QDoRA", "full": "Full"}[self.value]


class DType(str, Enum):
    """Storage types of floating-point tensors."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def size_bytes(self) -> int:
        return 4 if self is DType.FP32 else 2


class Quantization(str, Enum):
    """bitsandbytes storage of the frozen base weights (bitsandbytes/functional.py, 0.50)."""

    NF4 = "nf4"
    FP4 = "fp4"
    INT8 = "int8"


class Optimizer(str, Enum):
    """Names as in transformers' `TrainingArguments.optim` (5.23); `adamw_torch` is the foreach implementation on CUDA."""

    ADAMW = "adamw_torch"
    ADAMW_FUSED = "adamw_torch_fused"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW_32BIT = "paged_adamw_32bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    ADAFACTOR = "adafactor"
    LION_32BIT = "lion_32bit"
    LION_8BIT = "lion_8bit"
    SGD = "sgd"


class Attention(str, Enum):
    """Which kernel computes attention. `sdpa` lets torch choose: flash, or mem-efficient where there is a mask or no flash kernel."""

    FLASH = "flash"
    SDPA = "sdpa"
    MEM_EFFICIENT = "mem_efficient"
    EAGER = "eager"


class Loss(str, Enum):
    """How logits become a loss: all at once with an fp32 copy, in chunks of tokens (TRL >= 1.7), or fused into the head (Liger, CCE)."""

    FULL = "full"
    CHUNKED = "chunked"
    FUSED = "fused"


class Stack(str, Enum):
    """Whose training loop runs."""

    HF = "hf"
    TRL = "trl"
    PLAIN = "plain"


class Sharding(str, Enum):
    """What several cards share: nothing (DDP keeps a replica each), or everything (FSDP full shard, ZeRO-3)."""

    NONE = "none"
    DDP = "ddp"
    FSDP = "fsdp"


class Phase(str, Enum):
    """The parts of a run in which memory peaks."""

    LOAD = "load"
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER_STEP = "optimizer_step"


class Term(str, Enum):
    """What a byte is for. The estimate, the dry run and the report share this vocabulary."""

    WEIGHTS = "weights"
    ADAPTER = "adapter"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer_state"
    ACTIVATIONS = "activations"
    LOGITS = "logits_and_loss"
    TEMPORARIES = "temporaries"
    WORKSPACE = "workspace"


# ------------------------------------------------------------------------------------------------ the model


class Linear(Value):
    """One weight matrix of a block: what LoRA can wrap and bitsandbytes can quantise."""

    name: str
    """Leaf name as peft's `target_modules` matches it, e.g. "q_proj"."""
    in_features: Positive
    out_features: Positive
    bias: bool = False
    copies: Positive = 1
    """How many such modules the block holds (experts held as separate modules, for instance)."""
    is_module: bool = True
    """False where the library keeps the weights in a bare 3-D parameter (fused experts of transformers 5): not quantised by
    bitsandbytes, not wrapped by LoRA's default targets."""

    @property
    def weight_params(self) -> int:
        return self.in_features * self.out_features * self.copies

    @property
    def params(self) -> int:
        return (self.in_features * self.out_features + (self.out_features if self.bias else 0)) * self.copies


class AttentionShape(Value):
    """Geometry of a block's attention. Latent attention (DeepSeek) has `v_head_dim` smaller than `head_dim`."""

    kind: Literal["standard", "latent", "linear", "mamba"] = "standard"
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    v_head_dim: Positive
    window_tokens: Positive | None = None
    qk_norm: Literal["none", "head", "full"] = "none"
    """Normalisation of queries and keys: per head (Qwen3, Gemma 3) or over the whole projection (OLMo 2)."""
    rotary_fraction: float = 1.0
    """Share of head_dim that is rotated; 0 for learned or ALiBi positions."""
    softcap: bool = False
    fused_qkv: bool = False
    """One matrix computes q, k and v (GPT-NeoX, Phi-3, GPT-2)."""


class MlpShape(Value):
    """Geometry of a block's feed-forward part, dense or Mixture-of-Experts."""

    kind: Literal["gated", "plain", "moe"]
    intermediate_size: Positive
    """Width of the dense part, or of one expert."""
    activation: str
    fused_gate_up: bool = False
    """One matrix computes gate and up (Phi-3, GLM-4)."""
    experts: int = 0
    experts_per_token: int = 0
    shared_intermediate_size: int = 0


class Block(Value):
    """A run of `count` consecutive, equal decoder (or encoder) layers."""

    count: Positive
    linears: tuple[Linear, ...]
    attention: AttentionShape
    mlp: MlpShape
    norm: Literal["rms", "rms_gemma", "layer"]
    """RMSNorm as in Llama, as in Gemma (1 + weight, in fp32), or LayerNorm."""
    norms: int = 2
    """Norms over the hidden size in the residual path: 2 (before attention and MLP), 4 (Gemma 2: before and after), 1 (Cohere)."""
    norm_placement: Literal["pre", "post", "both", "parallel"] = "pre"
    other_params: int = 0
    """Everything that is no linear weight or bias: norms, routers' biases, sinks, convolution kernels."""

    @cached_property
    def params(self) -> int:
        """Parameters of one layer of this run."""
        return sum(linear.params for linear in self.linears) + self.other_params


class ModelSpec(Value):
    """A model's shape, parameter for parameter, and where it comes from."""

    id: str
    model_type: str
    architecture: str
    """Class name as in config.json, e.g. "LlamaForCausalLM"."""
    kind: Literal["decoder", "encoder"] = "decoder"
    hidden_size: Positive
    vocab_size: Positive
    blocks: tuple[Block, ...]
    """Consecutive runs of equal layers, first layer first."""
    embedding_params: Positive
    """Token, position and type embeddings together (counted once; the head is `head_params`)."""
    head_params: int
    """Output head: 0 when tied to the embedding."""
    head_bias: bool = False
    tied_embeddings: bool = False
    other_params: int = 0
    """Outside blocks, embeddings and head: final norm, embedding projections and norms, poolers."""
    scales_logits: bool = False
    softcaps_logits: bool = False
    embedding_scaled: bool = False
    max_position_tokens: int | None = None
    config_json: str
    """The config.json that this was read from, verbatim, so that the dry run can build the real model."""
    source: str
    source_date: str | None = None
    params_published: int | None = None
    notes: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.id, self.config_json))

    @cached_property
    def layers(self) -> int:
        return sum(block.count for block in self.blocks)

    @cached_property
    def params(self) -> int:
        """Every parameter once, tied tensors counted once."""
        blocks = sum(block.params * block.count for block in self.blocks)
        return blocks + self.embedding_params + self.head_params + self.other_params


# ------------------------------------------------------------------------------------------------ the card


class Price(Value):
    """What a card rents for, as somebody recorded it."""

    provider: str
    usd_per_gpu_hour: Annotated[float, Field(gt=0)]
    date: str
    source: str


class GpuSpec(Value):
    """A card as a training process sees it. `None` means that no sound source was found."""

    name: str
    vendor: str
    architecture: str | None = None
    compute_capability: str | None = None
    usable_bytes: Positive
    """What the driver lets one process allocate in total: the size that peaks are held against."""
    usable_source: str
    bandwidth_bytes_per_s: int | None = None
    bf16_flop_per_s: int | None = None
    fp16_flop_per_s: int | None = None
    fp32_flop_per_s: int | None = None
    bf16_supported: bool = True
    unified_memory: bool = False
    prices: tuple[Price, ...] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resolved_from: str = ""
    """One line for the reader: what was asked for and what it was taken to mean."""


# ------------------------------------------------------------------------------------------------ the plan

ALL_LINEAR = "all-linear"


class Plan(Value):
    """The whole training set-up. Everything that changes a byte is here, and nothing else is.

    `stacks.default_plan` fills in what a practitioner would run first on a given stack.
    """

    method: Method = Method.LORA
    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    target_modules: tuple[str, ...] = (ALL_LINEAR,)
    """Leaf names as peft matches them, or ("all-linear",): every linear layer of the blocks, not the head."""
    use_rslora: bool = False
    adapter_dtype: DType = DType.FP32
    """peft keeps adapters of 16-bit models in fp32 (`autocast_adapter_dtype`, peft 0.21 tuners/tuners_utils.py)."""
    base_dtype: DType = DType.BF16
    """Type of the unquantised weights, and of the computation unless `autocast`."""
    autocast: bool = False
    """Run forward under torch.autocast to 16 bit (`bf16=True` of a Trainer)."""
    autocast_dtype: DType = DType.BF16
    quantization: Quantization | None = None
    double_quant: bool = True
    kbit_prepare: bool = False
    """Call peft's `prepare_model_for_kbit_training`, which lifts every unquantised parameter to fp32."""
    optimizer: Optimizer = Optimizer.ADAMW
    micro_batch_size: Positive = 1
    seq_len_tokens: Positive = 2048
    grad_accum_steps: Positive = 1
    gradient_checkpointing: bool = True
    attention: Attention = Attention.SDPA
    padding: bool = False
    """Batches hold padding, so that attention gets a mask."""
    kv_cache_in_outputs: bool = False
    """`use_cache` left on without checkpointing: the forward's outputs keep keys and values alive."""
    loss: Loss = Loss.FULL
    stack: Stack = Stack.HF
    n_gpus: Positive = 1
    sharding: Sharding = Sharding.NONE

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        if self.method.is_quantized and self.quantization is None:
            raise ValueError(f"quantization: {self.method.value} needs one of nf4, fp4, int8")
        if self.method is Method.FULL and self.quantization is not None:
            raise ValueError("quantization: full fine-tuning trains 16- or 32-bit weights, not quantised ones")
        if self.method in (Method.LORA, Method.DORA) and self.quantization is not None:
            raise ValueError(f"quantization: {self.method.value} on a quantised base is called q{self.method.value}")
        if self.n_gpus == 1 and self.sharding is not Sharding.NONE:
            raise ValueError("sharding: needs more than one GPU")
        return self

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all cards."""
        return self.micro_batch_size * self.seq_len_tokens * self.grad_accum_steps * self.n_gpus


# ------------------------------------------------------------------------------------------------ what it needs


class TermBytes(Value):
    """Bytes of one term at the moment of a phase's peak."""

    term: Term
    bytes: Bytes
    detail: str = ""


class PhaseBytes(Value):
    """The highest moment of one phase: its terms add up to what the allocator holds then."""

    phase: Phase
    terms: tuple[TermBytes, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def allocated_bytes(self) -> int:
        return sum(term.bytes for term in self.terms)


class Interval(Value):
    """Margins beside an estimate: factors on the expected value, and where they come from."""

    low_factor: Annotated[float, Field(gt=0, le=1)]
    high_factor: Annotated[float, Field(ge=1)]
    source: str


class MemoryBreakdown(Value):
    """Memory of one plan on one card. Peak is the largest phase, never a sum of phases."""

    schema_version: str = SCHEMA_VERSION
    source: Literal["estimate", "trace", "calibrated"]
    versions: dict[str, str] = {}
    """Library versions that the number speaks for."""
    phases: tuple[PhaseBytes, ...]
    reserved_slack_bytes: Bytes
    """What the caching allocator holds beyond the live tensors at the peak: unfilled segments and fragments."""
    context_bytes: Bytes
    """CUDA context of the process, outside the allocator."""
    interval: Interval
    notes: tuple[str, ...] = ()

    @cached_property
    def _peak(self) -> PhaseBytes:
        return max(self.phases, key=lambda phase: phase.allocated_bytes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_phase(self) -> Phase:
        return self._peak.phase

    @computed_field  # type: ignore[prop-decorator]
    @property
    def terms(self) -> tuple[TermBytes, ...]:
        """The terms alive at the peak."""
        return self._peak.terms

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_allocated_bytes(self) -> int:
        """Comparable to `torch.cuda.max_memory_allocated()`."""
        return self._peak.allocated_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_reserved_bytes(self) -> int:
        """Comparable to `torch.cuda.max_memory_reserved()`."""
        return self.peak_allocated_bytes + self.reserved_slack_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def process_bytes(self) -> int:
        """Comparable to the process's line in nvidia-smi."""
        return self.peak_reserved_bytes + self.context_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def expected_bytes(self) -> int:
        """What the card must hold: the process, as expected."""
        return self.process_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def low_bytes(self) -> int:
        return int(self.expected_bytes * self.interval.low_factor)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def high_bytes(self) -> int:
        return int(self.expected_bytes * self.interval.high_factor)

    @classmethod
    def model_validate_dump(cls, dump: dict[str, Any]) -> MemoryBreakdown:
        """The value back from its own JSON (computed fields are recomputed, not trusted)."""
        computed = cls.model_computed_fields
        phases = [{k: v for k, v in p.items() if k != "allocated_bytes"} for p in dump["phases"]]
        return cls.model_validate({k: v for k, v in dump.items() if k not in computed} | {"phases": phases})
