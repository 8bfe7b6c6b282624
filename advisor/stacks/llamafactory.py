"""LLaMA-Factory: its defaults, its YAML as a plan, a plan as its YAML. Read in llamafactory 0.9.5.

It lifts what is trained to fp32 unless `pure_bf16` is on, so that `bf16: true` with full fine-tuning keeps fp32 weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from advisor.checkpoints import packed
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.stacks import trainer_arguments as common
from advisor.stacks.facts import FOUR_BIT, Default, StackDefaults
from advisor.stacks.fields import Fields
from advisor.stacks.first_plan import first_attention
from advisor.stacks.hf import HF
from advisor.stacks.liger import passed_over
from advisor.stacks.reading import Adapter, Around, Batch, Cards, Loop, Reading, Way, Weights, assemble
from advisor.stacks.sharing import cards_of
from advisor.stacks.stored import LLAMAFACTORY_EXPANDS, as_stored
from advisor.stacks.trainer_arguments import MICRO_BATCH, Notes
from advisor.stacks.words import saved_dtype
from advisor.stacks.write import Line, number, rate_setting, setting
from advisor.stacks.write_sharing import sharing_lines
from advisor.values.plan import ALL_LINEAR, Plan
from advisor.values.vocabulary import Attention, DType, Loss, Method, Quantization, Sharding, Stack

LIFTED = "llamafactory 0.9.5 model/adapter.py: what is trained is cast to fp32 (and peft does so under pure_bf16)"

LLAMAFACTORY = StackDefaults(
    stack=Stack.LLAMAFACTORY,
    label="LLaMA-Factory",
    package="llamafactory",
    version="0.9.5",
    optimizer=HF.optimizer,
    loss=Default(Loss.FULL, "llamafactory 0.9.5 train/sft/trainer.py: the loss of transformers"),
    losses=(Loss.FULL, Loss.FUSED),
    adapter_dtype=Default(DType.FP32, LIFTED),
    quantized_adapter_dtype=Default(DType.FP32, LIFTED),
    kbit_prepare=Default(False, "llamafactory 0.9.5 model/model_utils/checkpointing.py: only norms are lifted, on upcast_layernorm"),
    checkpointing=Default(True, "llamafactory 0.9.5 hparams/model_args.py: disable_gradient_checkpointing=False"),
    quantized_checkpointing=Default(True, "llamafactory 0.9.5 hparams/model_args.py: disable_gradient_checkpointing=False"),
    autocast=Default(True, "llamafactory 0.9.5: bf16 sets the type of the weights and the Trainer's autocast"),
    full_autocast=Default(False, "llamafactory 0.9.5 hparams/parser.py: pure_bf16 keeps 16-bit weights, and does not autocast"),
    logits_alive_in_backward=HF.logits_alive_in_backward,
    kv_cache_in_outputs=Default(False, "llamafactory 0.9.5 model/model_utils: use_cache is off under checkpointing and in training"),
    weights_dtype=Default(None, "llamafactory 0.9.5 extras/misc.py infer_optim_dtype: the type of the saved weights, if the card has it"),
)

RANK, CUTOFF_LEN = 8, 2048
"""hparams/finetuning_args.py: lora_rank=8; hparams/data_args.py: cutoff_len=2048."""

_ATTENTION_NAMES = {Attention.SDPA: "sdpa", Attention.FLASH: "fa2", Attention.EAGER: "disabled"}
_ATTENTIONS = {"sdpa": Attention.SDPA, "fa2": Attention.FLASH, "fa3": Attention.FLASH, "disabled": Attention.EAGER}

SPELLINGS = {
    **common.SPELLINGS,
    "seq-len": "cutoff_len: {}",
    "rank": "lora_rank: {}",
    "alpha": "lora_alpha: {}",
    "target-modules": "lora_target: {}",
    "attention": "flash_attn: {}",
    "precision": "{}: true",
    "checkpointing": "disable_gradient_checkpointing: false",
    "fused-loss": "enable_liger_kernel: true",
}
"""How its files say what a hint names as an option of ours; and how they switch on checkpointing and a loss in pieces."""


def model_of(fields: Fields) -> str | None:
    return fields.text("model_name_or_path")


def read(fields: Fields, around: Around) -> Reading:
    """A LLaMA-Factory YAML as a plan."""
    notes = Notes()
    fields.raw("model_name_or_path")
    kind = fields.text("finetuning_type") or "lora"
    if kind not in ("lora", "full"):
        raise UnsupportedError(f"{fields.where}: finetuning_type: {kind} cannot be priced; lora and full can")
    stage = fields.text("stage") or "sft"
    if stage not in ("sft", "pt"):
        notes.unpriced(f"stage: {stage}", "holds more than one sequence or model; priced as supervised fine-tuning", Way.UP)
    cards = cards_of(fields, around, notes)
    stated = _weights(fields, around, kind == "full" and not lifts_itself(cards.sharding), notes)
    weights = as_stored(fields, around, stated, notes)
    cutoff = common.sequence(fields.count("cutoff_len") or CUTOFF_LEN, around, notes, "cutoff_len")
    micro = fields.count(*common.MICRO_NAMES) or MICRO_BATCH
    batch = Batch(micro, cutoff, fields.count("gradient_accumulation_steps") or 1, _evaluation(fields))
    liger = _liger(fields, around, notes)
    _engine(fields, around, cards, weights, kind == "lora", notes)
    stated_reentrant = fields.flag("use_reentrant_gc")  # overridden under FSDP2: model/model_utils/checkpointing.py
    loop = Loop(
        optimizer=common.optimizer(fields, around, notes),
        checkpointing=_checkpointing(fields, around, notes),
        attention=_attention(fields, around, notes),
        loss=Loss.FUSED if liger else around.defaults.loss.value,
        use_reentrant=None if cards.sharding is Sharding.FSDP2 else stated_reentrant,
    )
    adapter = _adapter(fields, around)
    return Reading(
        plan=assemble(around, adapter if kind == "lora" else None, weights, batch, loop, cards),
        remarks=tuple(notes.remarks),
        modules_to_save=fields.names("additional_target") or (),
        learning_rate=fields.number("learning_rate"),
        taken=tuple(notes.taken),
    )


def lifts_itself(sharding: Sharding) -> bool:
    """Whether LLaMA-Factory leaves it to the engine to lift what is trained: to ZeRO-3 alone (model/adapter.py `init_adapter`)."""
    return sharding is Sharding.ZERO3


def _engine(fields: Fields, around: Around, cards: Cards, weights: Weights, lora: bool, notes: Notes) -> None:
    """What holds under an engine alone. model/model_utils/quantization.py `configure_quantization` stops there for most storages;
    accelerate is 1.11 at most (the requirements of 0.9.5)."""
    stored = around.model.checkpoint_format
    if stored is not None and stored.method not in LLAMAFACTORY_EXPANDS and cards.sharding.shards_weights:
        raise InvalidInputError(
            f"{fields.where}: {around.model.id} is stored in {stored.label}, which LLaMA-Factory does not train under FSDP or ZeRO-3; "
            "name the 16-bit weights, or leave the engine out"
        )
    if lora and cards.sharding is Sharding.FSDP2 and weights.autocast is not None:
        notes.unpriced("FSDP2", "accelerate 1.11 lifts frozen weights to fp32 too; priced in their own type", Way.UP)


def _weights(fields: Fields, around: Around, lifted: bool, notes: Notes) -> Weights:
    """hparams/parser.py: the compute type is that of bf16, pure_bf16 or fp16, else of the saved weights; it is loaded in it.

    `lifted`: every weight is trained, and made fp32 unless pure_bf16 is on.
    """
    pure = bool(fields.flag("pure_bf16"))
    amp = common.autocast(fields, around)
    loaded = DType.BF16 if pure else amp or _inferred(around)
    bits, kind = fields.integer("quantization_bit"), fields.text("quantization_type") or "nf4"
    method, double = fields.text("quantization_method") or "bnb", fields.flag("double_quantization")
    trained = loaded if not lifted or pure else DType.FP32
    if bits is None:
        return Weights(trained, amp)
    if method.lower() not in ("bnb", "bitsandbytes") or bits not in (4, 8):
        notes.unpriced(
            f"quantization_method: {method}, {bits} bit", "is priced as bitsandbytes with 4 or 8 bit, whichever is above", Way.EITHER
        )
    if bits > 4:
        return Weights(loaded, amp, Quantization.INT8)
    return Weights(loaded, amp, common.four_bit(fields, kind), double is not False)


def _inferred(around: Around) -> DType:
    """extras/misc.py `infer_optim_dtype`: bf16 where the weights and the card have it, else fp16."""
    return DType.BF16 if around.bf16 and saved_dtype(around.model) in (DType.BF16, None) else DType.FP16


def _evaluation(fields: Fields) -> int | None:
    """As the Trainer evaluates, and once after training on `do_eval` (train/sft/workflow.py)."""
    size = fields.count("per_device_eval_batch_size") or MICRO_BATCH
    return common.evaluation(fields) or (size if fields.flag("do_eval") else None)


def _liger(fields: Fields, around: Around, notes: Notes) -> bool:
    """Whether Liger computes the loss (model/model_utils/liger_kernel.py `apply_liger_kernel`)."""
    if not fields.flag("enable_liger_kernel"):
        return False
    why = passed_over(around.model, Stack.LLAMAFACTORY)
    if why:
        notes.taken.append(f"enable_liger_kernel: {why}")
    return not why


def _adapter(fields: Fields, around: Around) -> Adapter:
    rank = fields.count("lora_rank") or RANK
    alpha = fields.integer("lora_alpha") or 2 * rank
    targets = fields.names("lora_target") or ("all",)
    dora, rslora = bool(fields.flag("use_dora")), bool(fields.flag("use_rslora"))
    dropout = common.dropout(fields, around)
    return Adapter(rank, alpha, (ALL_LINEAR,) if targets == ("all",) else targets, dora, rslora, dropout=dropout)


def _checkpointing(fields: Fields, around: Around, notes: Notes) -> bool:
    off = fields.flag("disable_gradient_checkpointing")
    fields.raw("gradient_checkpointing")
    return around.defaults.checkpointing.value if off is None else not off


def _attention(fields: Fields, around: Around, notes: Notes) -> Attention:
    stated = fields.raw("flash_attn")
    if isinstance(stated, bool):  # up to 0.6 it is a switch (hparams/model_args.py: flash_attn: bool)
        return Attention.FLASH if stated else first_attention(around.model)
    stated = fields.text("flash_attn")
    if stated is None or stated.lower() == "auto":
        return first_attention(around.model)
    found = _ATTENTIONS.get(stated.lower())
    if found is None:
        raise InvalidInputError(f"{fields.where}: flash_attn is {stated!r}; it must be auto, disabled, sdpa, fa2 or fa3")
    return found


def write(plan: Plan, model: str, learning_rate: str, defaults: StackDefaults) -> Iterator[Line]:
    """The settings of the plan. What LLaMA-Factory has no setting for is found by reading them again (`emit`)."""
    full = plan.method is Method.FULL
    yield from (setting("model_name_or_path", model), "", "stage: sft", "do_train: true")
    yield setting("finetuning_type", "full" if full else "lora")
    if not full:
        yield from _write_adapter(plan)
    pure = plan.base_dtype is DType.BF16 and not plan.autocast
    if pure:
        yield setting("pure_bf16", True)
    elif plan.autocast:
        yield setting("bf16" if plan.autocast_dtype is DType.BF16 else "fp16", True)
    yield ""
    yield setting("cutoff_len", plan.seq_len_tokens)
    yield setting("per_device_train_batch_size", plan.micro_batch_size)
    yield setting("gradient_accumulation_steps", plan.grad_accum_steps)
    yield setting("disable_gradient_checkpointing", not plan.gradient_checkpointing)
    yield setting("flash_attn", _ATTENTION_NAMES.get(plan.attention, "auto"))
    yield setting("optim", plan.optimizer.value)
    yield rate_setting(learning_rate)
    if plan.loss is Loss.FUSED:
        yield setting("enable_liger_kernel", True)
    yield from sharing_lines(plan, defaults)
    yield from ("", "dataset: yours  # a name in dataset_info.json", "template: default  # the model's", "output_dir: out")


def _write_adapter(plan: Plan) -> Iterator[Line]:
    if plan.quantization is not None and not packed(plan.quantization):
        four = plan.quantization in FOUR_BIT
        yield setting("quantization_bit", 4 if four else 8)
        if four:
            yield setting("quantization_type", plan.quantization.value)
            yield setting("double_quantization", plan.double_quant)
    yield setting("lora_rank", plan.rank)
    yield setting("lora_alpha", number(plan.alpha))
    yield setting("lora_dropout", number(plan.lora_dropout))
    yield setting("lora_target", "all" if plan.target_modules == (ALL_LINEAR,) else ",".join(plan.target_modules))
    if plan.method.is_dora:
        yield setting("use_dora", True)
    if plan.use_rslora:
        yield setting("use_rslora", True)
