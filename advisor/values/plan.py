"""A plan: the whole training set-up."""

from typing import Annotated

from pydantic import Field, model_validator

from advisor.values.vocabulary import (
    Attention,
    DType,
    Head,
    Loss,
    Masters,
    Method,
    Mixers,
    Optimizer,
    Positive,
    Quantization,
    Sharding,
    Shift,
    Stack,
    Value,
)

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
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs that is zeroed at random in training (peft `LoraConfig.lora_dropout`)."""
    adapter_dtype: DType = DType.FP32
    """peft keeps adapters of 16-bit models in fp32 (`autocast_adapter_dtype`, peft 0.21 tuners/tuners_utils.py)."""
    base_dtype: DType = DType.BF16
    """Type of the unquantised weights, and of the computation unless `autocast`."""
    autocast: bool = False
    """Run forward under torch.autocast to 16 bit (`bf16=True` of a Trainer)."""
    autocast_dtype: DType = DType.BF16
    quantization: Quantization | None = None
    double_quant: bool = True
    quantized_experts: bool = False
    """Stacked experts are quantised too, which transformers and bitsandbytes leave in 16 bit (axolotl's `quantize_moe_experts`)."""
    kbit_prepare: bool = False
    """Call peft's `prepare_model_for_kbit_training`, which lifts every unquantised parameter to fp32."""
    optimizer: Optimizer = Optimizer.ADAMW
    micro_batch_size: Positive = 1
    seq_len_tokens: Positive = 2048
    grad_accum_steps: Positive = 1
    images_per_row: Annotated[int, Field(ge=0)] = 0
    """Pictures in each sequence of a micro-batch; their tokens are among `seq_len_tokens`. 0: text alone."""
    image_size_pixels: tuple[Positive, Positive] | None = None
    """Width and height of each, before the model's image processor."""
    gradient_checkpointing: bool = True
    use_reentrant: bool = False
    """Checkpointing by `use_reentrant=True` (torch/utils/checkpoint.py)."""
    attention: Attention = Attention.SDPA
    mixers: Mixers = Mixers.INSTALLED
    padding: bool = False
    """Batches hold padding, so that attention gets a mask."""
    kv_cache_in_outputs: bool = False
    """`use_cache` left on without checkpointing: the forward's outputs keep keys and values alive."""
    head: Head | None = None
    """None: the model's first, `lm` for a decoder and `classification` for an encoder."""
    labels: Positive = 2
    """Classes of a classification head (transformers `PretrainedConfig.num_labels`)."""
    loss: Loss = Loss.FULL
    shift: Shift = Shift.LABELS
    eval_micro_batch_size: Positive | None = None
    """Sequences per card in evaluation, at the length of training; None where nothing is evaluated during training."""
    stack: Stack = Stack.HF
    n_gpus: Positive = 1
    sharding: Sharding = Sharding.NONE
    masters: Masters = Masters.NONE

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        if self.method.is_quantized and self.quantization is None:
            raise ValueError(f"quantization: {self.method.value} needs one of nf4, fp4, int8")
        if self.method is Method.FULL and self.quantization is not None:
            raise ValueError("quantization: full fine-tuning trains 16- or 32-bit weights, not quantised ones")
        if self.method in (Method.LORA, Method.DORA) and self.quantization is not None:
            raise ValueError(f"quantization: {self.method.value} on a quantised base is called q{self.method.value}")
        if self.quantized_experts and self.quantization is None:
            raise ValueError("quantized_experts: needs a quantised base")
        if (self.images_per_row > 0) != (self.image_size_pixels is not None):
            raise ValueError("images_per_row: images have a size (image_size_pixels), and nothing else has")
        if self.n_gpus == 1 and self.sharding is not Sharding.NONE:
            raise ValueError("sharding: needs more than one GPU")
        if self.masters is Masters.LIFTED and not self.sharding.is_fsdp:
            raise ValueError("masters: parameters are lifted to fp32 under FSDP only")
        if self.masters is Masters.COPIED and not self.sharding.is_zero:
            raise ValueError("masters: an fp32 copy beside 16-bit parameters is kept by DeepSpeed only")
        return self

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all cards."""
        return self.micro_batch_size * self.seq_len_tokens * self.grad_accum_steps * self.n_gpus

    @property
    def reentrant(self) -> bool:
        """Whether checkpoints are reentrant ones."""
        return self.gradient_checkpointing and self.use_reentrant

    @property
    def kind(self) -> str:
        """What decides which tensors there are, without how large and how many: plans of one kind err alike."""
        parts = (
            self.method.value,
            self.base_dtype.value,
            f"autocast {self.autocast_dtype.value}" if self.autocast else "",
            f"adapter {self.adapter_dtype.value}" if self.method.has_adapter else "",
            self.quantization.value if self.quantization else "",
            "double quantisation" if self.quantization and self.double_quant else "",
            "quantised experts" if self.quantized_experts else "",
            "kbit" if self.kbit_prepare else "",
            self.optimizer.value,
            "reentrant checkpointing" if self.reentrant else "checkpointing" if self.gradient_checkpointing else "",
            self.attention.value,
            "" if self.mixers is Mixers.INSTALLED else f"{self.mixers.value} mixers",
            "padding" if self.padding else "",
            "images" if self.images_per_row else "",
            f"{self.head.value} head" if self.head else "",
            "dropout" if self.lora_dropout and self.method.has_adapter else "",
            f"{self.loss.value} loss",
            "" if self.shift is Shift.LABELS else f"shifted {self.shift.value}",
            "evaluation" if self.eval_micro_batch_size else "",
            self.stack.value,
            f"{self.n_gpus} x {self.sharding.value}" if self.n_gpus > 1 else "",
            f"{self.masters.value} masters" if self.masters is not Masters.NONE else "",
        )
        return ", ".join(part for part in parts if part)
