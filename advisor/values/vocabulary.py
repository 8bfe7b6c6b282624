"""The words that every part of the tool shares: the base value and the closed enumerations, parsed once at the edge."""

from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "2"
"""Version of the JSON that `--json` prints; it rises when a field is renamed, removed or changes its meaning."""

Positive = Annotated[int, Field(gt=0)]
Bytes = Annotated[int, Field(ge=0)]


class Value(BaseModel):
    """Base of every value: frozen, and strict about unknown fields. Its schema is built when it is first used: most commands use few."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Word(str, Enum):
    """Base of the enumerations that are options: a value is read in any case and punctuation ("QLoRA", "LLaMA-Factory")."""

    __hash__ = str.__hash__  # plans are looked up by their words a thousand times an answer; that of Enum runs in Python

    @classmethod
    def _missing_(cls, value: object) -> "Word | None":
        if not isinstance(value, str):
            return None
        spelt = {_plain(word): member for word, member in (*((member.value, member) for member in cls), *cls.also().items())}
        return spelt.get(_plain(value))

    @classmethod
    def also(cls) -> "dict[str, Any]":
        """Words of other libraries that mean exactly one of these."""
        return {}


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


class Method(Word):
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


class Quantization(Word):
    """Storage of the frozen base weights: by bitsandbytes (0.50, functional.py), or as an AWQ or GPTQ checkpoint packs them."""

    NF4 = "nf4"
    FP4 = "fp4"
    INT8 = "int8"
    AWQ = "awq"
    """Packed integers, scales and zeros per group, as GPT-QModel's AWQ layers hold them; the widths are the checkpoint's."""
    GPTQ = "gptq"
    """The same for GPTQ, with a group index per input."""


class Optimizer(Word):
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

    @classmethod
    def also(cls) -> dict[str, Any]:
        """Other names of the same in transformers' `OptimizerNames` (5.23 training_args.py), and older names."""
        return {
            "adamw_bnb_8bit": cls.ADAMW_8BIT,
            "adamw_hf": cls.ADAMW,
            "adamw": cls.ADAMW,
            "paged_adamw": cls.PAGED_ADAMW_32BIT,
            "lion": cls.LION_32BIT,
        }


class Attention(Word):
    """Which kernel computes attention. `sdpa` lets torch choose: flash, or mem-efficient where there is a mask or no flash kernel."""

    FLASH = "flash"
    SDPA = "sdpa"
    MEM_EFFICIENT = "mem_efficient"
    EAGER = "eager"

    @classmethod
    def also(cls) -> dict[str, Any]:
        """transformers' `attn_implementation` (5.23 modeling_utils.py), its kernels of the Hub, and the short names of ms-swift."""
        flash = """flash_attention_2 flash_attention_3 flash_attention_4 flash_attn flash_attn_2 kernels-community/flash-attn
            kernels-community/flash-attn2 kernels-community/flash-attn3 kernels-community/vllm-flash-attn3"""
        return {**dict.fromkeys(flash.split(), cls.FLASH), "xformers": cls.MEM_EFFICIENT}


class Loss(Word):
    """How logits become a loss."""

    FULL = "full"
    """All logits at once, an fp32 copy and its log-softmax (transformers loss/loss_utils.py `ForCausalLMLoss`)."""
    IN_PLACE = "in_place"
    """All logits at once and an fp32 copy, which the gradient overwrites (Liger's, flash-attn's, FOAK's cross-entropy kernels)."""
    CHUNKED_OUTPUT = "chunked_output"
    """All logits at once in their own type, the fp32 copy of one chunk at a time (torchtune `CEWithChunkedOutputLoss`)."""
    CHUNKED = "chunked"
    """Logits of a chunk of tokens at a time, in evaluation too (TRL >= 1.7, cut cross-entropy)."""
    FUSED = "fused"
    """Fused into the head (Liger's fused linear cross-entropy)."""


class Mixers(Word):
    """Whose code runs the layers that mix tokens without attention: state spaces, linear attention, short convolutions."""

    INSTALLED = "installed"
    """What the installed transformers takes: kernels of the packages that are there, its own torch code for the others."""
    TORCH = "torch"
    """transformers' own torch code."""
    PACKAGES = "packages"
    """The kernels of mamba-ssm, flash-linear-attention and causal-conv1d."""


class Shift(str, Enum):
    """What the loss of a language model moves by one token, so that each token predicts the next."""

    LABELS = "labels"
    """The labels (transformers >= 4.49 loss/loss_utils.py)."""
    LOGITS = "logits"
    """A copy of the fp32 logits, beside those in 16 bit (transformers 4.46 to 4.48 loss/loss_utils.py)."""
    LOGITS_ALONE = "logits_alone"
    """A copy of the fp32 logits, which replace those in 16 bit (transformers before 4.46, each model's own forward)."""


class Head(Word):
    """What stands on the body of the model and is trained: the task's output and its loss."""

    LM = "lm"
    """A score for each word at each token, next token (`AutoModelForCausalLM`)."""
    MLM = "mlm"
    """A score for each word at each token, masked token (`AutoModelForMaskedLM`)."""
    CLASSIFICATION = "classification"
    """A score for each label of a sequence (`AutoModelForSequenceClassification`)."""
    TOKENS = "tokens"
    """A score for each label at each token (`AutoModelForTokenClassification`)."""
    EMBEDDING = "embedding"
    """The body alone (`AutoModel`)."""


class ModelKind(str, Enum):
    """What a model takes and gives, by the `AutoModel` class of transformers that builds it for training."""

    DECODER = "decoder"
    """Text in, next token out (`AutoModelForCausalLM`)."""
    ENCODER = "encoder"
    """Text in, a state for each token out: masked words, classes, embeddings (`AutoModelForMaskedLM` and others)."""
    IMAGE_TEXT = "image-text"
    """Images and text in, next token out (`AutoModelForImageTextToText`)."""
    AUDIO_TEXT = "audio-text"
    """A decoder of text that takes sounds as well, or all of text, images and sounds (`AutoModelForMultimodalLM`)."""
    ENCODER_DECODER = "encoder-decoder"
    """Text into the encoder, text out of the decoder (`AutoModelForSeq2SeqLM`)."""
    SPEECH = "speech"
    """Sounds into the encoder, text out of the decoder (`AutoModelForSpeechSeq2Seq`)."""


class Stack(Word):
    """Whose training loop runs."""

    HF = "hf"
    TRL = "trl"
    PLAIN = "plain"
    AXOLOTL = "axolotl"
    LLAMAFACTORY = "llamafactory"
    MS_SWIFT = "ms-swift"
    TORCHTUNE = "torchtune"

    @classmethod
    def also(cls) -> dict[str, Any]:
        """As answers call them (`advisor.stacks`), and the packages' short names."""
        return {
            "transformers": cls.HF,
            "transformers Trainer": cls.HF,
            "TRL SFTTrainer": cls.TRL,
            "swift": cls.MS_SWIFT,
            "a plain loop": cls.PLAIN,
        }


class Sharding(Word):
    """What several cards share, and whose engine does it."""

    NONE = "none"
    DDP = "ddp"
    """Nothing: a replica on each card."""
    FSDP1 = "fsdp1"
    """Weights, gradients and states (torch `FullyShardedDataParallel`, FULL_SHARD)."""
    FSDP2 = "fsdp2"
    """Weights, gradients and states (torch `fully_shard`)."""
    ZERO1 = "zero1"
    """Optimizer states (DeepSpeed)."""
    ZERO2 = "zero2"
    """Optimizer states and gradients (DeepSpeed)."""
    ZERO3 = "zero3"
    """Weights, gradients and states (DeepSpeed)."""

    @classmethod
    def also(cls) -> dict[str, Any]:
        """torch's name without a version is that of the present one."""
        return {"fsdp": cls.FSDP2}

    @property
    def is_fsdp(self) -> bool:
        return self in (Sharding.FSDP1, Sharding.FSDP2)

    @property
    def is_zero(self) -> bool:
        return self in (Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)

    @property
    def shards_weights(self) -> bool:
        return self.is_fsdp or self is Sharding.ZERO3

    @property
    def shards_states(self) -> bool:
        """Each card updates its own share of what is trained."""
        return self.is_fsdp or self.is_zero


class Masters(str, Enum):
    """Who holds fp32 values of what is trained in 16 bit."""

    NONE = "none"
    """Nobody: parameters are trained in the type that they rest in."""
    LIFTED = "lifted"
    """The parameters themselves are lifted to fp32 before they are sharded, and gathered in 16 bit (accelerate under FSDP with mixed
    precision)."""
    COPIED = "copied"
    """The optimizer: an fp32 copy beside the 16-bit parameters, sharded like its states (DeepSpeed)."""


class Phase(str, Enum):
    """The parts of a run in which memory peaks."""

    LOAD = "load"
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER_STEP = "optimizer_step"
    EVALUATION = "evaluation"


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
