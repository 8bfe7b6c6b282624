"""ms-swift: its defaults, its arguments (YAML, JSON or `swift sft` in a script) as a plan. Read in ms-swift 4.6."""

from __future__ import annotations

from advisor.errors import UnsupportedError
from advisor.stacks import trainer_arguments as common
from advisor.stacks.facts import Default, StackDefaults
from advisor.stacks.fields import Fields
from advisor.stacks.hf import HF, PEFT_ADAPTER_FP32
from advisor.stacks.reading import Adapter, Around, Batch, Cards, Loop, Reading, Way, Weights, assemble
from advisor.stacks.sharing import cards_of
from advisor.stacks.stored import as_stored
from advisor.stacks.trainer_arguments import Notes
from advisor.stacks.words import dtype_named, saved_dtype
from advisor.values.plan import ALL_LINEAR
from advisor.values.vocabulary import DType, Loss, Quantization, Stack

CHECKPOINTING = "ms-swift 4.6 trainers/arguments.py: gradient_checkpointing=True"
AUTOCAST = "ms-swift 4.6 arguments/base_args/model_args.py: bf16 or fp16 of the Trainer follows the type of the weights"

MS_SWIFT = StackDefaults(
    stack=Stack.MS_SWIFT,
    label="ms-swift",
    package="ms-swift",
    version="4.6",
    optimizer=HF.optimizer,
    loss=Default(Loss.FULL, "ms-swift 4.6 trainers/seq2seq_trainer.py: the loss of transformers"),
    losses=(Loss.FULL, Loss.IN_PLACE, Loss.FUSED),
    adapter_dtype=Default(DType.FP32, PEFT_ADAPTER_FP32),
    quantized_adapter_dtype=Default(DType.FP32, PEFT_ADAPTER_FP32),
    kbit_prepare=Default(False, "ms-swift 4.6 pipelines/train/tuner.py: the helper of peft is not called"),
    checkpointing=Default(True, CHECKPOINTING),
    quantized_checkpointing=Default(True, CHECKPOINTING),
    autocast=Default(True, AUTOCAST),
    full_autocast=Default(True, AUTOCAST),
    logits_alive_in_backward=HF.logits_alive_in_backward,
    kv_cache_in_outputs=HF.kv_cache_in_outputs,
    weights_dtype=Default(None, "ms-swift 4.6 model/utils.py get_default_torch_dtype: the type that config.json states"),
    lora_dropout=Default(0.05, "ms-swift 4.6 arguments/tuner_args.py: lora_dropout=0.05"),
)

RANK, ALPHA, EFFECTIVE_BATCH = 8, 32.0, 16
"""arguments/tuner_args.py: lora_rank, lora_alpha; trainers/arguments.py: accumulation that makes 16 sequences."""

SPELLINGS = {
    **common.SPELLINGS,
    "seq-len": "max_length: {}",
    "rank": "lora_rank: {}",
    "alpha": "lora_alpha: {}",
    "target-modules": "target_modules: {}",
    "attention": "attn_impl: {}",
    "precision": "torch_dtype: {}",
    "fused-loss": "use_liger_kernel: true",
}
"""How its files say what a hint names as an option of ours; and how they switch on checkpointing and a loss in pieces."""


def model_of(fields: Fields) -> str | None:
    """Up to ms-swift 2 a model_type is one model's (qwen2-vl-7b-instruct); since 3 it is a family's, and `model` names the model."""
    return fields.text("model", "model_id_or_path", "model_type")


def read(fields: Fields, around: Around) -> Reading:
    """Arguments of `swift sft` as a plan."""
    notes = Notes()
    for name in ("model", "model_id_or_path", "model_type"):
        fields.raw(name)
    kind = fields.text("tuner_type", "train_type", "sft_type") or "lora"
    if kind not in ("lora", "full"):
        raise UnsupportedError(f"{fields.where}: tuner_type: {kind} cannot be priced; lora and full can")
    weights = as_stored(fields, around, _weights(fields, around, notes), notes)
    adapter = _adapter(fields, around)
    micro = fields.count(*common.MICRO_NAMES, "batch_size") or 1
    cards = _cards(fields, around, notes)
    accumulation = fields.count("gradient_accumulation_steps") or max(1, -(-EFFECTIVE_BATCH // (micro * cards.n)))
    packed = fields.count("packing_length")  # arguments/sft_args.py: packs to it, max_length where it is left out
    longest = packed if packed is not None and fields.flag("packing") else fields.count("max_length")
    seq = common.sequence(longest, around, notes, "max_length")
    optimizer = common.optimizer(fields, around, notes)
    checkpointing = common.checkpointing(fields, around, notes)
    loss = common.liger(fields, around, notes) or around.defaults.loss.value
    loop = Loop(optimizer, checkpointing, common.attention(fields, around, notes, "attn_impl"), loss, common.reentrant(fields, around))
    common.stored_as_bytes(fields, weights, cards, notes)
    saved = fields.names("modules_to_save") or ()
    batch = Batch(micro, seq, accumulation, _evaluation(fields))
    return Reading(
        plan=assemble(around, adapter if kind == "lora" else None, weights, batch, loop, cards),
        remarks=tuple(notes.remarks),
        modules_to_save=saved if kind == "lora" else (),
        learning_rate=fields.number("learning_rate"),
        taken=tuple(notes.taken),
    )


def _weights(fields: Fields, around: Around, notes: Notes) -> Weights:
    """The type of the weights decides the autocast, unless bf16 or fp16 says otherwise; fp32 weights run under fp16 autocast."""
    dtype = common.weights_dtype(fields.text("torch_dtype", "dtype"), saved_dtype(around.model), notes, "torch_dtype")
    follows = DType.BF16 if dtype is DType.BF16 else DType.FP16
    bf16, fp16 = fields.flag("bf16"), fields.flag("fp16")
    stated = bf16 is not None or fp16 is not None
    amp = common.autocast(fields, around) if stated else follows
    bits, method = fields.integer("quant_bits", "quantization_bit"), fields.text("quant_method")
    kind, double = fields.text("bnb_4bit_quant_type") or "nf4", fields.flag("bnb_4bit_use_double_quant")
    fields.raw("bnb_4bit_compute_dtype")
    if not bits:
        return Weights(dtype, amp)
    if (method or "bnb") != "bnb" or bits not in (4, 8):
        notes.unpriced(f"quant_method: {method}, {bits} bit", "is priced as bitsandbytes with 4 or 8 bit, whichever is above", Way.EITHER)
    return Weights(dtype, amp, Quantization.INT8 if bits > 4 else common.four_bit(fields, kind), double is not False)


def _adapter(fields: Fields, around: Around) -> Adapter:
    rank, alpha = fields.count("lora_rank") or RANK, fields.number("lora_alpha") or ALPHA
    targets = fields.names("target_modules", "lora_target_modules") or (ALL_LINEAR,)
    stated = fields.text("lora_dtype")
    dtype = (dtype_named(stated) if stated else None) or DType.FP32
    dora, rslora = bool(fields.flag("use_dora")), bool(fields.flag("use_rslora"))
    dropout = common.dropout(fields, around)
    return Adapter(rank, alpha, (ALL_LINEAR,) if ALL_LINEAR in targets else targets, dora, rslora, dtype, dropout)


def _cards(fields: Fields, around: Around, notes: Notes) -> Cards:
    """deepspeed and fsdp are files, or the short names zero2, zero3, zero3_offload, fsdp2 (swift/config)."""
    return cards_of(fields, around, notes)


def _evaluation(fields: Fields) -> int | None:
    """The evaluation strategy follows that of saving, where there is data for it."""
    size = fields.count("per_device_eval_batch_size") or 1
    has_data = fields.raw("val_dataset", "cached_val_dataset") is not None or (fields.number("split_dataset_ratio") or 0) > 0
    return size if has_data and fields.text("eval_strategy") != "no" else None
