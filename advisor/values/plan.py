"""A plan: the whole training set-up."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from advisor.values.sharing import DeepSpeedSettings, Offload
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
    shard_group: Positive | None = None
    """Cards that share one model between them, with replicas beside them (FSDP's hybrid sharding); None: all of them."""
    reshard_after_forward: bool = True
    """FSDP frees a unit after its forward, and gathers it anew for backward."""
    sync_each_batch: bool = False
    """Gradients are reduced in each micro-batch rather than in the last (accelerate `GradientAccumulationPlugin.sync_each_batch`)."""
    offload: tuple[Offload, ...] = ()
    """What rests on the host. Under FSDP parameters and optimizer go together; activations go on one card too."""
    deepspeed: DeepSpeedSettings = DeepSpeedSettings()
    """Read under ZeRO alone."""
    loads_on_rank_0: bool = False
    """The first process of each node alone reads the weights, and sends the others their part (accelerate `cpu_ram_efficient_loading`)."""

    @field_validator("offload")
    @classmethod
    def _once(cls, value: tuple[Offload, ...]) -> tuple[Offload, ...]:
        return tuple(sorted(set(value)))

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
        if self.n_gpus == 1 and not (self.sharding is Sharding.NONE or self.sharding.is_zero):
            raise ValueError("sharding: needs more than one GPU")
        if self.masters is Masters.LIFTED and not self.sharding.is_fsdp:
            raise ValueError("masters: parameters are lifted to fp32 under FSDP only")
        if self.masters is Masters.COPIED and not self.sharding.is_zero:
            raise ValueError("masters: an fp32 copy beside 16-bit parameters is kept by DeepSpeed only")
        self._check_sharing()
        return self

    def _check_sharing(self) -> None:
        """Raises ValueError for settings that the engine does not have."""
        if self.shard_group is not None and not self.sharding.is_fsdp:
            raise ValueError("shard_group: shards and replicas of them are FSDP's; say --shard fsdp")
        if self.shard_group is not None and self.n_gpus % self.shard_group:
            raise ValueError(f"shard_group: groups of {self.shard_group} do not divide {self.n_gpus} GPUs")
        if not self.reshard_after_forward and not self.sharding.is_fsdp:
            raise ValueError("reshard_after_forward: a setting of FSDP alone")
        if self.loads_on_rank_0 and not self.sharding.is_fsdp:
            raise ValueError("loads_on_rank_0: a setting of FSDP alone (cpu_ram_efficient_loading)")
        moved = [part for part in self.offload if part is not Offload.ACTIVATIONS]
        if moved and not self.sharding.shards_states:
            raise ValueError("offload: states and weights go to the host under ZeRO or FSDP alone; say --shard zero2 or --shard fsdp")
        if moved and self.sharding.is_fsdp and len(moved) < 2:
            raise ValueError("offload: FSDP moves parameters and optimizer together; say --offload optimizer,params")
        if Offload.PARAMS in self.offload and self.sharding.is_zero and self.sharding is not Sharding.ZERO3:
            raise ValueError(f"offload: {self.sharding.value} keeps whole weights on the card; say --offload optimizer, or --shard zero3")

    @property
    def has_engine(self) -> bool:
        """Whether there are several cards, or DeepSpeed on one."""
        return self.n_gpus > 1 or self.sharding is not Sharding.NONE

    @property
    def sharing_gpus(self) -> int:
        """Cards over which a model is shared out."""
        return self.shard_group or self.n_gpus

    @property
    def offloads_optimizer(self) -> bool:
        return Offload.OPTIMIZER in self.offload

    @property
    def offloads_params(self) -> bool:
        return Offload.PARAMS in self.offload

    @property
    def offloads_activations(self) -> bool:
        return Offload.ACTIVATIONS in self.offload

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
            f"{self.n_gpus} x {self.sharding.value}" if self.has_engine else "",
            f"{self.masters.value} masters" if self.masters is not Masters.NONE else "",
            f"shared by {self.shard_group}" if self.shard_group else "",
            "" if self.reshard_after_forward else "not resharded",
            "reduced in each micro-batch" if self.sync_each_batch else "",
            f"{' and '.join(part.value for part in self.offload)} on the host" if self.offload else "",
            "" if self.deepspeed == DeepSpeedSettings() else f"DeepSpeed {self.deepspeed.model_dump_json(exclude_defaults=True)}",
            "read by one process" if self.loads_on_rank_0 else "",
        )
        return ", ".join(part for part in parts if part)
