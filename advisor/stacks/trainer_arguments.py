"""What transformers' TrainingArguments say, for every framework whose files are made of them.

Read in transformers 5.23 training_args.py; names that older releases had are understood too.
"""

from __future__ import annotations

from advisor.errors import InvalidInputError
from advisor.stacks.facts import FOUR_BIT
from advisor.stacks.fields import Fields
from advisor.stacks.first_plan import first_attention, first_seq_len
from advisor.stacks.liger import passed_over
from advisor.stacks.reading import NOTHING_STAYS, WEIGHTS_STAY, Around, Cards, Kept, Remark, Way, Weights
from advisor.stacks.words import ATTENTIONS, NEAREST, OPTIMIZERS, dtype_named
from advisor.values.vocabulary import Attention, DType, Loss, Optimizer, Quantization

MICRO_BATCH = 8
"""`per_device_train_batch_size` and `per_device_eval_batch_size` where they are left out."""

MICRO_NAMES = ("per_device_train_batch_size", "per_gpu_train_batch_size")
"""The second is the name of transformers 2 (training_args.py `train_batch_size`)."""

SPELLINGS = {
    "batch-size": "per_device_train_batch_size: {}",
    "grad-accum": "gradient_accumulation_steps: {}",
    "optimizer": "optim: {}",
    "checkpointing": "gradient_checkpointing: true",
}


class Notes:
    """Remarks and assumptions that readers gather as they go."""

    def __init__(self) -> None:
        self.remarks: list[Remark] = []
        self.taken: list[str] = []

    def remark(self, id: str, key: str, text: str, hint: str = "", way: Way | None = None) -> None:
        self.remarks.append(Remark(id, key, text, hint, way))

    def unpriced(self, key: str, why: str, way: Way, keeps: Kept = NOTHING_STAYS) -> None:
        self.remarks.append(Remark("not-priced", key, f"{key}: {why}", way=way, keeps=keeps))


def optimizer(fields: Fields, around: Around, notes: Notes, *names: str) -> Optimizer:
    """The named optimizer; one that is not priced counts as AdamW, and is said."""
    stated = fields.text(*(names or ("optim",)))
    if fields.flag("adafactor") and (stated is None or stated.startswith("adamw")):  # transformers 4 training_args.py __post_init__
        return Optimizer.ADAFACTOR
    if stated is None:
        return around.defaults.optimizer.value
    word = stated.lower().removeprefix("optimizernames.").replace("-", "_")
    known = OPTIMIZERS.get(word)
    if known is None and word in NEAREST:
        known = NEAREST[word]
        notes.unpriced(
            f"{fields.shown(names or ('optim',))}: {stated}", f"is priced as {known.value}, which keeps no less", Way.DOWN, WEIGHTS_STAY
        )
    if known is None:
        notes.unpriced(
            f"{fields.shown(names or ('optim',))}: {stated}", "is priced as adamw_torch, whose states it does not have", Way.EITHER
        )
    return known or Optimizer.ADAMW


def attention(fields: Fields, around: Around, notes: Notes, *names: str) -> Attention:
    stated = fields.text(*(names or ("attn_implementation",)))
    if stated is None:
        return first_attention(around.model)
    known = ATTENTIONS.get(stated.lower().split("@")[0])
    if known is None:
        notes.unpriced(f"{fields.shown(names or ('attn_implementation',))}: {stated}", "is priced as flash attention", Way.EITHER)
    return known or Attention.FLASH


def autocast(fields: Fields, around: Around, default: DType | None = None) -> DType | None:
    """Type of the autocast that bf16 and fp16 ask for; else the launcher's, else the default. Both at once do not start (`nonsense`)."""
    bf16, fp16 = fields.flag("bf16"), fields.flag("fp16")
    if bf16 or fp16:
        return DType.BF16 if bf16 else DType.FP16
    if around.launch.precision is not None:
        return None if around.launch.precision is DType.FP32 else around.launch.precision
    return default if bf16 is None else None


def weights_dtype(stated: str | None, saved: DType | None, notes: Notes, key: str = "dtype") -> DType:
    """Type that the weights are loaded in; `auto` is the one they were saved in."""
    if stated is None or stated.lower() == "auto":  # AUTO in ms-swift 2
        if saved is None:
            notes.taken.append(f"{key}: the model's config.json does not state a type; taken as bf16")
        return saved or DType.BF16
    found = dtype_named(stated)
    if found is None:
        raise InvalidInputError(f"{key} is {stated!r}; it must be bfloat16, float16, float32 or auto")
    return found


def sequence(length: int | None, around: Around, notes: Notes, key: str) -> int:
    """Tokens of the longest sequence: the user's word, the file's, or a judgement that is said."""
    if around.seq_len is not None:
        if length is not None and length != around.seq_len:
            notes.taken.append(f"sequences of {around.seq_len:,} tokens, as asked for ({key} is {length:,})")
        return around.seq_len
    if length is not None:
        return length
    assumed = first_seq_len(around.model)
    text = f"{key} does not bound the sequences: priced with {assumed:,} tokens, while the longest example of the data decides"
    notes.remark("length-unbounded", key, text, f"set {key}, or say the longest example with --seq-len", Way.UP)
    return assumed


def four_bit(fields: Fields, kind: str) -> Quantization:
    found = {quantization.value: quantization for quantization in FOUR_BIT}.get(kind.lower())
    if found is None:
        raise InvalidInputError(f"{fields.where}: {kind!r} is no 4-bit type of bitsandbytes; it must be nf4 or fp4")
    return found


def checkpointing(fields: Fields, around: Around, notes: Notes) -> bool:
    default = around.defaults.checkpointing.value
    old, new = fields.flag("gradient_checkpointing"), fields.flag("activation_checkpointing")
    stated = new if old is None else old or bool(new)
    settings = fields.group("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
    if settings.integer("every_n_layers") not in (None, 1):
        notes.unpriced("every_n_layers", "checkpoints fewer layers than are priced", Way.UP)
    inner = fsdp_settings(fields).flag("activation_checkpointing", "fsdp_activation_checkpointing")
    return bool(default if stated is None else stated) or bool(inner) or around.launch.checkpointing


def away(fields: Fields, checkpointing: bool, notes: Notes, name: str = "activation_offloading") -> bool:
    """Whether checkpoints' inputs go to the host; without checkpoints everything that is kept does, which has no price."""
    asked = bool(fields.flag(name))
    if asked and not checkpointing:
        notes.unpriced(name, "moves kept activations to the host; priced as if they stayed", Way.DOWN)
    return asked and checkpointing


def reentrant(fields: Fields, around: Around) -> bool | None:
    """`use_reentrant` as the file says it; None where it leaves it to the stack."""
    if around.launch.checkpointing or fsdp_settings(fields).flag("activation_checkpointing", "fsdp_activation_checkpointing"):
        return False  # accelerate 1.15 accelerator.py: CheckpointImpl.NO_REENTRANT
    return fields.group("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs").flag("use_reentrant")


def fsdp_settings(fields: Fields) -> Fields:
    """The group `fsdp_config`; empty where it is a file's name."""
    return Fields({}, fields.where) if isinstance(fields.raw("fsdp_config"), str) else fields.group("fsdp_config")


def dropout(fields: Fields, around: Around) -> float:
    """Dropout of the adapter's inputs; the framework's own where it is left out."""
    stated = fields.number("lora_dropout")
    return around.defaults.lora_dropout.value if stated is None else stated


def liger(fields: Fields, around: Around, notes: Notes) -> Loss | None:
    """The loss that `use_liger_kernel` puts in the place of the framework's: the fused one, unless its settings say otherwise
    (transformers 5.23 integrations/liger.py hands them on; liger_kernel 0.8.5 transformers/monkey_patch.py: cross_entropy=False,
    fused_linear_cross_entropy=True). None where the framework's stays: Liger passes over models that it does not know."""
    on, settings = fields.flag("use_liger_kernel"), fields.group("liger_kernel_config")
    fused, in_place = settings.flag("fused_linear_cross_entropy"), settings.flag("cross_entropy")
    if not on:
        return None
    if why := passed_over(around.model, around.defaults.stack):
        notes.taken.append(f"use_liger_kernel: {why}")
        return None
    if fused is not False:
        return Loss.FUSED
    return Loss.IN_PLACE if in_place else None


def evaluation(fields: Fields) -> int | None:
    """Sequences per card in evaluation; None where nothing is evaluated during training."""
    strategy = fields.text("eval_strategy", "evaluation_strategy")
    size = fields.count("per_device_eval_batch_size")
    if strategy in (None, "no"):
        return None
    return size or MICRO_BATCH


def stored_as_bytes(fields: Fields, weights: Weights, cards: Cards, notes: Notes) -> None:
    """Remark on 4-bit weights that rest in uint8, bitsandbytes' default: FSDP shards floating types alone, so that they stay whole on each
    card (accelerate 1.15 utils/fsdp_utils.py `fsdp2_prepare_model`, "Excluding from FSDP2 sharding")."""
    storage = (fields.text("bnb_4bit_quant_storage") or "uint8").removeprefix("torch.")
    if cards.sharding.is_fsdp and weights.quantization in FOUR_BIT and storage in ("uint8", "int8"):
        notes.unpriced("bnb_4bit_quant_storage: uint8", "keeps 4-bit weights whole on each card; priced as sharded", Way.UP)
