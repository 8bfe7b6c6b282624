"""What a trainer's file was taken to mean: the plan, and everything in the file that the plan does not say."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from pydantic import ValidationError

from advisor.errors import InvalidInputError
from advisor.stacks.engines import masters_of, reentrant_of
from advisor.stacks.facts import FOUR_BIT, StackDefaults
from advisor.stacks.first_plan import ALPHA_PER_RANK, FIRST_RANK
from advisor.values.card import GpuSpec
from advisor.values.model import ModelSpec
from advisor.values.plan import ALL_LINEAR, Plan
from advisor.values.request import MAX_COUNT, MAX_GPUS
from advisor.values.sharing import DeepSpeedSettings, Offload
from advisor.values.vocabulary import Attention, DType, Loss, Method, Optimizer, Quantization, Sharding


class Way(str, Enum):
    """Which way something that is not priced moves the memory."""

    UP = "up"
    DOWN = "down"
    EITHER = "either"


class Kept(NamedTuple):
    """Least share that stays of each part of the memory."""

    weights: float = 0.0
    states: float = 0.0
    """Of adapters, gradients, the optimizer's states and workspaces."""
    layers: float = 0.0
    """Of what a step makes and frees, but for the logits."""
    logits: float = 0.0


NOTHING_STAYS = Kept()
WEIGHTS_STAY = Kept(weights=1.0)
"""What touches how much is trained, and how."""
RESTING_STAYS = Kept(weights=1.0, states=1.0)
"""What touches the whole step."""
LOGITS_STAY = Kept(weights=1.0, states=1.0, logits=1.0)
"""What touches the layers alone: kernels and checkpoints inside them."""
LAYERS_STAY = Kept(weights=1.0, states=1.0, layers=1.0)
"""What touches the loss alone."""


class Remark(NamedTuple):
    """Something that the reader of a file has to be told. The id is stable."""

    id: str
    key: str
    text: str
    hint: str = ""
    way: Way | None = None
    """None: the price holds."""
    keeps: Kept = NOTHING_STAYS
    """What stays at least where it lowers the memory."""
    adds_hidden: int | None = None
    """Most that comes on top where it raises the memory, in fp32 tensors of the hidden states; None: nothing bounds it."""
    stops: bool = False
    """The training would not start."""


class Launch(NamedTuple):
    """What the launcher decides: an accelerate configuration, a command line, or nobody."""

    n_gpus: int | None = None
    fsdp: bool = False
    fsdp_version: int | None = None
    zero_stage: int | None = None
    offload: tuple[Offload, ...] = ()
    """What rests on the host, of the engine that the launcher names."""
    precision: DType | None = None
    """Type of the autocast; FP32 where it is switched off."""
    checkpointing: bool = False
    """accelerate's own activation checkpointing, which is not reentrant."""
    reshards: bool = True
    """Layers are freed after forward and gathered anew for backward."""
    loads_on_host: bool = False
    """accelerate's `cpu_ram_efficient_loading`."""
    hybrid: bool = False
    """Shards are those of one node, and each node holds all of them."""
    shard_group: int | None = None
    """Cards that share one model, with replicas beside them; None where the launcher names no number."""
    deepspeed_file: str = ""
    """DeepSpeed's own configuration, which the launcher hands on."""
    wraps: bool = True
    """FSDP gathers block by block, as far as the launcher says."""
    source: str = ""


class Around(NamedTuple):
    """What a file is read with: the model that it names, the card, the launcher, and what the user says beside it."""

    model: ModelSpec
    gpu: GpuSpec | None
    defaults: StackDefaults
    launch: Launch = Launch()
    seq_len: int | None = None
    folder: str = "."
    """Where the file lies: other files are named relative to it."""

    @property
    def bf16(self) -> bool:
        return self.gpu is None or self.gpu.bf16_supported


class Adapter(NamedTuple):
    """The adapter, or none."""

    rank: int = FIRST_RANK
    alpha: float = ALPHA_PER_RANK * FIRST_RANK
    targets: tuple[str, ...] = (ALL_LINEAR,)
    dora: bool = False
    rslora: bool = False
    dtype: DType = DType.FP32
    dropout: float = 0.0


class Weights(NamedTuple):
    """Types of the base weights and of the computation."""

    dtype: DType
    autocast: DType | None = None
    quantization: Quantization | None = None
    double_quant: bool = False
    kbit_prepare: bool = False
    quantized_experts: bool = False


class Batch(NamedTuple):
    micro: int
    seq: int
    accumulation: int
    evaluation: int | None = None
    """Sequences per card in evaluation; None where nothing is evaluated during training."""


class Loop(NamedTuple):
    optimizer: Optimizer
    checkpointing: bool
    attention: Attention
    loss: Loss
    use_reentrant: bool | None = None
    """None: as the stack does by default."""
    away: bool = False
    """Checkpoints' inputs go to the host."""


class Cards(NamedTuple):
    n: int = 1
    sharding: Sharding = Sharding.NONE
    bf16_masters: bool = False
    """DeepSpeed keeps masters and gradients in bf16."""
    offload: tuple[Offload, ...] = ()
    shard_group: int | None = None
    """Cards of a group that shares a model; None where there is one group."""
    reshards: bool = True
    sync_each_batch: bool = False
    loads_on_rank_0: bool = False
    deepspeed: DeepSpeedSettings = DeepSpeedSettings()


class Reading(NamedTuple):
    """The plan of a file, and what stands beside it."""

    plan: Plan
    remarks: tuple[Remark, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole beside the adapter."""
    learning_rate: float | None = None
    taken: tuple[str, ...] = ()
    """What was left out and what it was taken to be, one line each."""


def assemble(around: Around, adapter: Adapter | None, weights: Weights, batch: Batch, loop: Loop, cards: Cards) -> Plan:
    """The plan of these parts. What has no meaning for the method has its default, so that equal set-ups are equal plans."""
    defaults, quantized = around.defaults, weights.quantization is not None
    if adapter is None and weights.quantization is not None:
        raise InvalidInputError(f"a base in {weights.quantization.value} is trained through an adapter; the file has none")
    held, reentrant = adapter or Adapter(), loop.use_reentrant
    if reentrant is None:
        reentrant = reentrant_of(defaults, cards.sharding, adapter=adapter is not None)
    if not 0 < held.alpha <= MAX_COUNT:
        raise InvalidInputError(f"alpha is {held.alpha:g}; it must be above 0 and at most {MAX_COUNT:,}")
    if cards.n > MAX_GPUS:
        raise InvalidInputError(f"{cards.n:,} GPUs; at most {MAX_GPUS:,} can be priced")
    try:
        return Plan(
            method=_method(adapter, quantized),
            rank=held.rank,
            alpha=held.alpha,
            target_modules=held.targets,
            use_rslora=held.rslora,
            lora_dropout=held.dropout if 0 <= held.dropout < 1 else 0.0,  # none below 0 (peft); above, nothing starts
            adapter_dtype=held.dtype,
            base_dtype=weights.dtype,
            autocast=weights.autocast is not None,
            autocast_dtype=weights.autocast or (DType.FP16 if weights.dtype is DType.FP16 else DType.BF16),
            quantization=weights.quantization,
            double_quant=weights.quantization in FOUR_BIT and weights.double_quant,
            kbit_prepare=quantized and weights.kbit_prepare,
            quantized_experts=quantized and weights.quantized_experts,
            optimizer=loop.optimizer,
            micro_batch_size=batch.micro,
            seq_len_tokens=batch.seq,
            grad_accum_steps=batch.accumulation,
            gradient_checkpointing=loop.checkpointing,
            attention=loop.attention,
            kv_cache_in_outputs=defaults.kv_cache_in_outputs.value,
            loss=loop.loss,
            shift=defaults.shift.value,
            eval_micro_batch_size=batch.evaluation,
            stack=defaults.stack,
            n_gpus=cards.n,
            sharding=cards.sharding,
            masters=masters_of(
                cards.sharding,
                defaults.stack,
                mixed=weights.autocast is not None,
                quantized=quantized,
                bf16_masters=cards.bf16_masters,
            ),
            use_reentrant=loop.checkpointing and reentrant,
            shard_group=cards.shard_group,
            reshard_after_forward=cards.reshards,
            sync_each_batch=cards.sync_each_batch,
            offload=(*cards.offload, *((Offload.ACTIVATIONS,) if loop.away else ())),
            deepspeed=cards.deepspeed,
            loads_on_rank_0=cards.loads_on_rank_0,
        )
    except ValidationError as error:
        raise InvalidInputError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None


def _method(adapter: Adapter | None, quantized: bool) -> Method:
    if adapter is None:
        return Method.FULL
    if adapter.dora:
        return Method.QDORA if quantized else Method.DORA
    return Method.QLORA if quantized else Method.LORA


def canonical(plan: Plan) -> Plan:
    """The plan with everything that has no meaning for its method at its default."""
    full, quantized = plan.method is Method.FULL, plan.quantization is not None
    update: dict[str, object] = {
        "double_quant": plan.double_quant and plan.quantization in FOUR_BIT,
        "kbit_prepare": plan.kbit_prepare and quantized,
        "use_reentrant": plan.reentrant,
    }
    if full:
        bare = Adapter()
        update |= {"rank": bare.rank, "alpha": bare.alpha, "target_modules": bare.targets, "use_rslora": False, "adapter_dtype": bare.dtype}
        update |= {"lora_dropout": bare.dropout}
    if not plan.autocast:
        update["autocast_dtype"] = DType.FP16 if plan.base_dtype is DType.FP16 else DType.BF16
    return plan.model_copy(update=update)
