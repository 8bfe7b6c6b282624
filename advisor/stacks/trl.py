"""TRL's SFTTrainer: its defaults, the YAML of `trl sft` as a plan, a plan as that YAML. Read in trl 1.16."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.errors import InvalidInputError
from advisor.stacks import trainer_arguments as common
from advisor.stacks.facts import FOUR_BIT, Default, StackDefaults
from advisor.stacks.fields import Fields
from advisor.stacks.hf import HF
from advisor.stacks.reading import Adapter, Around, Batch, Loop, Reading, Way, Weights, assemble
from advisor.stacks.sharing import cards_of
from advisor.stacks.stored import as_stored
from advisor.stacks.trainer_arguments import MICRO_BATCH, Notes
from advisor.stacks.words import PEFT_TARGETS, saved_dtype
from advisor.stacks.write import Line, number, rate_setting, setting
from advisor.stacks.write_sharing import sharing_lines
from advisor.values.model import ModelSpec
from advisor.values.plan import ALL_LINEAR, Plan
from advisor.values.vocabulary import Attention, DType, Loss, Method, Quantization, Sharding, Stack

CHECKPOINTING = "trl 1.16 trainer/base_config.py: gradient_checkpointing=True"
AUTOCAST = "trl 1.16 trainer/base_config.py: bf16 becomes True unless fp16 is set, which autocasts"

TRL = StackDefaults(
    stack=Stack.TRL,
    label="TRL SFTTrainer",
    package="trl",
    version="1.16",
    optimizer=HF.optimizer,
    loss=Default(
        Loss.CHUNKED,
        "trl >= 1.7 trainer/sft_config.py: chunked_nll; in trl 1.16 'nll' does the same, in tiles of 32,768 vocabulary entries",
    ),
    losses=(Loss.CHUNKED, Loss.FUSED),
    adapter_dtype=HF.adapter_dtype,
    quantized_adapter_dtype=Default(
        DType.BF16, "trl 1.16 trainer/sft_trainer.py: adapters of a quantised model are cast to bf16 (DoRA's magnitudes are left out)"
    ),
    kbit_prepare=Default(False, "trl 1.16 trainer/sft_trainer.py: not called since trl pull request 4335"),
    checkpointing=Default(True, CHECKPOINTING),
    quantized_checkpointing=Default(True, CHECKPOINTING),
    autocast=Default(True, AUTOCAST),
    full_autocast=Default(True, AUTOCAST),
    logits_alive_in_backward=Default(
        False, "trl 1.16 trainer/sft_trainer.py: the fused head returns log-probabilities, there are no logits"
    ),
    kv_cache_in_outputs=Default(False, "trl 1.16 trainer/sft_trainer.py compute_loss: use_cache=False"),
    weights_dtype=Default(DType.FP32, "trl 1.16 trainer/model_config.py: dtype='float32' of the command line"),
    lora_dropout=Default(0.05, "trl 1.16 trainer/model_config.py: lora_dropout=0.05"),
)

RANK, ALPHA, MAX_LENGTH = 16, 32, 1024
"""trainer/model_config.py: lora_r, lora_alpha; trainer/sft_config.py: max_length."""

_DTYPE_NAMES = {DType.BF16: "bfloat16", DType.FP16: "float16", DType.FP32: "float32"}
_ATTENTION_NAMES = {Attention.SDPA: "sdpa", Attention.FLASH: "flash_attention_2", Attention.EAGER: "eager"}

SPELLINGS = {
    **common.SPELLINGS,
    "seq-len": "max_length: {}",
    "rank": "lora_r: {}",
    "alpha": "lora_alpha: {}",
    "target-modules": "lora_target_modules: {}",
    "no-kbit-prepare": "trl 0.26 or later, which does not call it,",
    "attention": "attn_implementation: {}",
    "precision": "dtype: {}",
    "fused-loss": "trl 1.7 and later compute it in chunks; use_liger_kernel: true fuses it",
}
"""How its files say what a hint names as an option of ours; and how they switch on checkpointing and a loss in pieces."""


def model_of(fields: Fields) -> str | None:
    return fields.text("model_name_or_path")


def read(fields: Fields, around: Around) -> Reading:
    """A YAML of `trl sft --config` as a plan."""
    notes = Notes()
    fields.raw("model_name_or_path")
    adapter, weights = _adapter(fields, around), as_stored(fields, around, _weights(fields, around, notes), notes)
    if adapter is not None and weights.quantization is not None:
        adapter = adapter._replace(dtype=around.defaults.quantized_adapter_dtype.value)
    elif adapter is not None and weights.dtype is not DType.FP32:
        adapter = adapter._replace(dtype=around.defaults.adapter_dtype.value)
    micro = fields.count(*common.MICRO_NAMES) or MICRO_BATCH
    accumulation = fields.count("gradient_accumulation_steps") or 1
    batch = Batch(micro, _length(fields, around, notes), accumulation, common.evaluation(fields))
    checkpointing = common.checkpointing(fields, around, notes)
    loop = Loop(
        common.optimizer(fields, around, notes),
        checkpointing,
        _attention(fields, around, notes),
        loss_of(fields, around, notes),
        common.reentrant(fields, around),
        common.away(fields, checkpointing, notes),
    )
    saved = fields.names("lora_modules_to_save") or ()
    cards = cards_of(fields, around, notes)
    common.stored_as_bytes(fields, weights, cards, notes)
    return Reading(
        plan=assemble(around, adapter, weights, batch, loop, cards),
        remarks=tuple(notes.remarks),
        modules_to_save=saved if adapter is not None else (),
        learning_rate=fields.number("learning_rate"),
        taken=tuple(notes.taken),
    )


def _attention(fields: Fields, around: Around, notes: Notes) -> Attention:
    """By `model_init_kwargs`, which is handed to the model as it stands, else by the command's own argument."""
    inner = fields.group("model_init_kwargs")
    return common.attention(inner if inner.has("attn_implementation") else fields, around, notes)


def _length(fields: Fields, around: Around, notes: Notes) -> int:
    """`max_length: null` does not cut; left out it is 1024."""
    length = fields.count("max_length", "max_seq_length")
    unbounded = fields.says_nothing("max_length")
    return common.sequence(length or (None if unbounded else MAX_LENGTH), around, notes, "max_length")


def _weights(fields: Fields, around: Around, notes: Notes) -> Weights:
    inner = fields.group("model_init_kwargs")
    stated = inner.text("dtype", "torch_dtype") or fields.text("dtype", "torch_dtype")
    unsaid = around.defaults.weights_dtype.value
    dtype = unsaid if stated is None and unsaid is not None else common.weights_dtype(stated, saved_dtype(around.model), notes)
    amp = common.autocast(fields, around, DType.BF16)
    eight, four = bool(fields.flag("load_in_8bit")), bool(fields.flag("load_in_4bit"))
    kind, double = fields.text("bnb_4bit_quant_type") or "nf4", bool(fields.flag("use_bnb_nested_quant"))
    if eight and four:
        raise InvalidInputError(f"{fields.where}: load_in_8bit and load_in_4bit are both on; one of them can be")
    quantization = Quantization.INT8 if eight else common.four_bit(fields, kind) if four else None
    return Weights(dtype, amp, quantization, double, around.defaults.kbit_prepare.value)


def _adapter(fields: Fields, around: Around) -> Adapter | None:
    rank, alpha = fields.count("lora_r") or RANK, fields.integer("lora_alpha") or ALPHA
    targets = fields.names("lora_target_modules")
    dora, rslora = bool(fields.flag("use_dora")), bool(fields.flag("use_rslora"))
    dropout = common.dropout(fields, around)
    if not fields.flag("use_peft"):
        return None
    return Adapter(rank, alpha, targets or default_targets(around.model, "lora_target_modules"), dora, rslora, dropout=dropout)


def default_targets(model: ModelSpec, key: str) -> tuple[str, ...]:
    """What peft adapts when it is told nothing."""
    found = PEFT_TARGETS.get(model.model_type)
    if found is None:
        raise InvalidInputError(f"{key} is missing, and peft has no default for {model.model_type}; name the modules, or all-linear")
    return found


def loss_of(fields: Fields, around: Around, notes: Notes) -> Loss:
    """nll is what the release computes it by; Liger replaces it; what needs all logits counts as full."""
    kind, default = (fields.text("loss_type") or "").lower(), around.defaults.loss.value
    liger = common.liger(fields, around, notes)
    if liger is Loss.FUSED:
        return Loss.FUSED
    if kind == "chunked_nll":
        return Loss.CHUNKED
    if kind in ("", "nll"):
        chunks_by_nll = around.defaults.version_at_least(NLL_CHUNKS)
        found = default if not kind or chunks_by_nll else Loss.FULL
        return liger or found if found is Loss.FULL else found
    if kind != "dft":
        notes.unpriced(f"loss_type: {kind}", "is priced as a loss over all logits", Way.EITHER)
    return Loss.FULL


NLL_CHUNKS = (1, 15)
"""From trl 1.15 on `nll` is the chunked loss; up to 1.14 it is the whole one, and `chunked_nll` the default since 1.7 (sft_config.py)."""


def write(plan: Plan, model: str, learning_rate: str, defaults: StackDefaults) -> Iterator[Line]:
    """The settings of the plan. What `trl sft` has no setting for is found by reading them again (`emit`)."""
    yield setting("model_name_or_path", model)
    yield setting("dtype", _DTYPE_NAMES[plan.base_dtype])
    yield setting("attn_implementation", _ATTENTION_NAMES.get(plan.attention, "sdpa"))
    yield ""
    if plan.method is not Method.FULL:
        yield from _write_adapter(plan)
    yield setting("max_length", plan.seq_len_tokens)
    yield setting("per_device_train_batch_size", plan.micro_batch_size)
    yield setting("gradient_accumulation_steps", plan.grad_accum_steps)
    yield setting("gradient_checkpointing", plan.gradient_checkpointing)
    if plan.offloads_activations:
        yield setting("activation_offloading", True)
    yield setting("bf16", plan.autocast and plan.autocast_dtype is DType.BF16)
    yield setting("fp16", plan.autocast and plan.autocast_dtype is DType.FP16)
    yield setting("optim", plan.optimizer.value)
    yield rate_setting(learning_rate)
    if plan.loss is Loss.FUSED:
        yield setting("use_liger_kernel", True)
    elif plan.loss is not defaults.loss.value:
        yield setting("loss_type", "chunked_nll" if plan.loss is Loss.CHUNKED else "nll")
    yield from sharing_lines(plan, defaults)
    yield from ("", "dataset_name: yours", "output_dir: out")


def _write_adapter(plan: Plan) -> Iterator[Line]:
    yield setting("use_peft", True)
    yield setting("lora_r", plan.rank)
    yield setting("lora_alpha", number(plan.alpha))
    yield setting("lora_dropout", number(plan.lora_dropout))
    yield setting("lora_target_modules", ALL_LINEAR if plan.target_modules == (ALL_LINEAR,) else plan.target_modules)
    if plan.method.is_dora:
        yield setting("use_dora", True)
    if plan.use_rslora:
        yield setting("use_rslora", True)
    if plan.quantization in FOUR_BIT and plan.quantization is not None:
        yield setting("load_in_4bit", True)
        yield setting("bnb_4bit_quant_type", plan.quantization.value)
        yield setting("use_bnb_nested_quant", plan.double_quant)
        if plan.sharding is not Sharding.NONE:  # shards, of which the launcher's file may tell, want one floating type throughout
            yield setting("bnb_4bit_quant_storage", _DTYPE_NAMES[plan.base_dtype])
    elif plan.quantization is Quantization.INT8:
        yield setting("load_in_8bit", True)
    yield ""
