"""TrainingArguments as JSON, with an adapter_config.json beside it, as a plan; and the settings of a Python script likewise.

The names are those of TrainingArguments, of the command lines of transformers' examples, of peft's LoraConfig and of
BitsAndBytesConfig: a script's calls are read into one such set of settings (`script.py`).
"""

from __future__ import annotations

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.stacks import trainer_arguments as common
from advisor.stacks.fields import Fields
from advisor.stacks.keys import unread_remarks
from advisor.stacks.reading import Adapter, Around, Batch, Loop, Reading, Way, Weights, assemble
from advisor.stacks.sharing import cards_of
from advisor.stacks.stored import as_stored
from advisor.stacks.trainer_arguments import MICRO_BATCH, Notes
from advisor.stacks.trl import default_targets, loss_of
from advisor.stacks.words import saved_dtype
from advisor.values.plan import ALL_LINEAR, Plan
from advisor.values.vocabulary import DType, Head, Loss, Quantization, Stack

LENGTHS = ("max_length", "max_seq_length", "block_size", "model_max_length", "seq_len")
PEFT_RANK, PEFT_ALPHA, PEFT_DROPOUT = 8, 8.0, 0.0
"""peft 0.21 tuners/lora/config.py: r=8, lora_alpha=8, lora_dropout=0.0."""
TRL_LENGTH = 1024
_SPLITTING = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of `device_map` that spread a model over all cards (accelerate 1.15 big_modeling.py)."""

SPELLINGS = {
    **common.SPELLINGS,
    "seq-len": "cut or pack to {} tokens",
    "rank": "r={}",
    "alpha": "lora_alpha={}",
    "target-modules": "target_modules={}",
    "no-kbit-prepare": "leaving the call out",
    "attention": "attn_implementation={}",
    "precision": "dtype={}",
    "loss": "use_liger_kernel for a fused loss; {}",
    "method": "{}",
    "fused-loss": "use_liger_kernel: true",
}
"""How its files say what a hint names as an option of ours; and how they switch on checkpointing and a loss in pieces."""


def model_of(fields: Fields) -> str | None:
    return fields.text("model_name_or_path") or fields.group("peft").text("base_model_name_or_path")


def read(fields: Fields, around: Around) -> Reading:
    """TrainingArguments, with what is known of model and adapter, as a plan."""
    notes = Notes()
    fields.raw("model_name_or_path")
    lora = fields.group("peft")
    adapter = _adapter(lora, around) if fields.has("peft") else None
    weights = as_stored(fields, around, _weights(fields, around, notes), notes)
    adapter = None if adapter is None else adapter._replace(dtype=_adapter_dtype(fields, around, weights))
    micro = fields.count(*common.MICRO_NAMES, "micro_batch_size") or _default_batch(around)
    saved = lora.names("modules_to_save") or ()
    notes.remarks.extend(unread_remarks(None, lora))
    lora.close()
    accumulation = fields.count("gradient_accumulation_steps") or 1
    batch = Batch(micro, _sequence(fields, around, notes), accumulation, common.evaluation(fields))
    by_helper = _by_helper(fields, around, weights)
    checkpointing = common.checkpointing(fields, around, notes) or by_helper
    loop = Loop(
        common.optimizer(fields, around, notes),
        checkpointing,
        common.attention(fields, around, notes),
        _loss(fields, around, notes),
        common.reentrant(fields, around),
    )
    if fields.flag("activation_offloading"):
        notes.unpriced("activation_offloading", "moves kept activations to the host", Way.DOWN)
    if fields.text("device_map") in _SPLITTING and (around.launch.n_gpus or 1) > 1:
        notes.unpriced("device_map", "splits the layers over the cards; priced as whole replicas", Way.DOWN)
    cards = cards_of(fields, around, notes)
    common.stored_as_bytes(fields.group("quantization_config") if fields.has("quantization_config") else fields, weights, cards, notes)
    plan = assemble(around, adapter, weights, batch, loop, cards)
    return Reading(
        plan=_with_head(plan, fields),
        remarks=tuple(notes.remarks),
        modules_to_save=saved,
        learning_rate=fields.number("learning_rate"),
        taken=tuple(notes.taken),
    )


def _with_head(plan: Plan, fields: Fields) -> Plan:
    """The plan with the head that the class of a script's model puts on it, and its classes."""
    head, labels = fields.text("head"), fields.count("labels")
    update = {"head": None if head is None else Head(head), "labels": labels}
    return plan.model_copy(update={name: value for name, value in update.items() if value is not None})


def _adapter(lora: Fields, around: Around) -> Adapter:
    lora.raw("base_model_name_or_path")
    kind = lora.text("peft_type") or "LORA"
    if kind.rpartition(".")[2].upper() != "LORA":
        raise UnsupportedError(f"{lora.where}: peft_type {kind} cannot be priced; LORA, with or without DoRA, can")
    stated = lora.raw("target_modules")
    names = lora.names("target_modules")
    if isinstance(stated, str) and any(sign in stated for sign in "*|\\^$()"):
        raise UnsupportedError(f"{lora.where}: target_modules is a pattern ({stated[:40]}); name the modules, or all-linear")
    targets = names or default_targets(around.model, "target_modules")
    rank, alpha = lora.count("r") or PEFT_RANK, lora.number("lora_alpha") or PEFT_ALPHA
    dora, rslora, dropout = bool(lora.flag("use_dora")), bool(lora.flag("use_rslora")), lora.number("lora_dropout") or PEFT_DROPOUT
    return Adapter(rank, alpha, (ALL_LINEAR,) if ALL_LINEAR in targets else targets, dora, rslora, dropout=dropout)


def _weights(fields: Fields, around: Around, notes: Notes) -> Weights:
    stated = fields.text("dtype", "torch_dtype") or fields.group("model_init_kwargs").text("dtype", "torch_dtype")
    unsaid = around.defaults.weights_dtype.value
    if stated is None and unsaid is not None and around.defaults.stack is not Stack.TRL:
        dtype = unsaid
    else:
        dtype = common.weights_dtype(stated, saved_dtype(around.model), notes)
    amp = common.autocast(fields, around, DType.BF16 if around.defaults.stack is Stack.TRL and around.defaults.autocast.value else None)
    bits = fields.group("quantization_config")
    source = bits if fields.has("quantization_config") else fields
    eight, four = bool(source.flag("load_in_8bit")), bool(source.flag("load_in_4bit"))
    kind = source.text("bnb_4bit_quant_type") or ("fp4" if four and source is bits else "nf4")
    double = bool(source.flag("bnb_4bit_use_double_quant", "use_bnb_nested_quant"))
    if eight and four:
        raise InvalidInputError(f"{fields.where}: load_in_8bit and load_in_4bit are both on; one of them can be")
    helper = fields.flag("prepare_model_for_kbit_training")
    if not (eight or four):
        return Weights(dtype, amp)
    lifted = around.defaults.kbit_prepare.value if helper is None else helper
    return Weights(dtype, amp, Quantization.INT8 if eight else common.four_bit(fields, kind), double, lifted)


def _adapter_dtype(fields: Fields, around: Around, weights: Weights) -> DType:
    """peft lifts 16-bit adapters to fp32 unless it is told not to; then they have the type of the weights."""
    stated = fields.text("adapter_dtype")
    if stated is not None:
        return common.weights_dtype(stated, None, Notes(), "adapter_dtype")
    if fields.flag("autocast_adapter_dtype") is False:
        return weights.dtype
    if weights.quantization is not None:
        return around.defaults.quantized_adapter_dtype.value
    return DType.FP32 if weights.dtype is DType.FP32 else around.defaults.adapter_dtype.value


def _default_batch(around: Around) -> int:
    return MICRO_BATCH if around.defaults.stack is not Stack.PLAIN else 1


def _sequence(fields: Fields, around: Around, notes: Notes) -> int:
    length = fields.count(*LENGTHS)
    if length is None and around.defaults.stack is Stack.TRL and not fields.says_nothing("max_length"):
        length = TRL_LENGTH
    return common.sequence(length, around, notes, "max_length" if around.defaults.stack is Stack.TRL else "the file")


def _by_helper(fields: Fields, around: Around, weights: Weights) -> bool:
    """`prepare_model_for_kbit_training` switches checkpointing on unless it is told not to."""
    stated = fields.flag("use_gradient_checkpointing")
    return weights.kbit_prepare and around.defaults.quantized_checkpointing.value and stated is not False


def _loss(fields: Fields, around: Around, notes: Notes) -> Loss:
    if around.defaults.stack is Stack.TRL:
        return loss_of(fields, around, notes)
    return common.liger(fields, around, notes) or around.defaults.loss.value
