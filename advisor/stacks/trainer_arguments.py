"""What transformers' TrainingArguments say, for every framework whose files are made of them.

Read in transformers 5.23 training_args.py; names that older releases had are understood too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from advisor.errors import AdvisorError, InvalidInputError
from advisor.json_files import is_file, read_object
from advisor.stacks.facts import FOUR_BIT
from advisor.stacks.fields import Fields
from advisor.stacks.first_plan import first_attention, first_seq_len
from advisor.stacks.reading import Around, Cards, Remark, Way
from advisor.stacks.words import ATTENTIONS, NEAREST, OPTIMIZERS, dtype_named
from advisor.values.vocabulary import Attention, DType, Optimizer, Quantization, Sharding

MICRO_BATCH = 8
"""`per_device_train_batch_size` and `per_device_eval_batch_size` where they are left out."""

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

    def unpriced(self, key: str, why: str, way: Way) -> None:
        self.remark("not-priced", key, f"{key}: {why}", way=way)


def optimizer(fields: Fields, around: Around, notes: Notes, *names: str) -> Optimizer:
    """The named optimizer; one that is not priced counts as AdamW, and is said."""
    stated = fields.text(*(names or ("optim",)))
    if stated is None:
        return around.defaults.optimizer.value
    word = stated.lower().removeprefix("optimizernames.").replace("-", "_")
    known = OPTIMIZERS.get(word)
    if known is None and word in NEAREST:
        known = NEAREST[word]
        notes.unpriced(f"{fields.shown(names or ('optim',))}: {stated}", f"is priced as {known.value}, which keeps no less", Way.DOWN)
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
    """Type of the autocast that bf16 and fp16 ask for; else the launcher's, else the default."""
    bf16, fp16 = fields.flag("bf16"), fields.flag("fp16")
    if bf16 and fp16:
        raise InvalidInputError(f"{fields.where}: bf16 and fp16 are both on; one of them can be")
    if bf16 or fp16:
        return DType.BF16 if bf16 else DType.FP16
    if around.launch.precision is not None:
        return None if around.launch.precision is DType.FP32 else around.launch.precision
    return default if bf16 is None else None


def weights_dtype(stated: str | None, saved: DType | None, notes: Notes, key: str = "dtype") -> DType:
    """Type that the weights are loaded in; `auto` is the one they were saved in."""
    if stated is None or stated == "auto":
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
    inner = fields.group("fsdp_config") if not isinstance(fields.raw("fsdp_config"), str) else Fields({}, fields.where)
    return bool(default if stated is None else stated) or bool(inner.flag("activation_checkpointing"))


def evaluation(fields: Fields) -> int | None:
    """Sequences per card in evaluation; None where nothing is evaluated during training."""
    strategy = fields.text("eval_strategy", "evaluation_strategy")
    size = fields.count("per_device_eval_batch_size")
    if strategy in (None, "no"):
        return None
    return size or MICRO_BATCH


def cards(fields: Fields, around: Around, notes: Notes) -> Cards:
    """Several cards and what they share, as the file, its DeepSpeed settings and the launcher say."""
    launch = around.launch
    fsdp = fields.raw("fsdp")
    options = " ".join(map(str, fsdp)) if isinstance(fsdp, list) else str(fsdp or "")
    sharded = launch.fsdp or (bool(options) and options.lower() not in ("false", "no_shard"))
    stage, offload = launch.zero_stage, launch.offload or "offload" in options
    stated = fields.raw("deepspeed")
    if stated:
        stage, offload = _deepspeed(stated, around.folder, notes)
    if fields.raw("fsdp_config") and not isinstance(fields.raw("fsdp_config"), str):
        offload = offload or bool(fields.group("fsdp_config").flag("offload_params", "fsdp_offload_params"))
    return shared(around, notes, sharded or stage == 3, stage, offload)


def shared(around: Around, notes: Notes, whole: bool, stage: int | None, offload: bool) -> Cards:
    """What `whole` (everything is sharded), a ZeRO stage and offloading come to on the cards that there are."""
    n_gpus = around.launch.n_gpus
    if offload:
        notes.unpriced("offload", "moves weights or states to the host, which is not priced", Way.DOWN)
    if stage in (1, 2) and not whole and (n_gpus or 2) > 1:
        what = "states" if stage == 1 else "gradients and states"
        notes.unpriced(f"ZeRO stage {stage}", f"shards {what}; priced as whole replicas", Way.DOWN)
    if n_gpus is None and (whole or stage in (1, 2)):
        text = "the file shards over several GPUs, and their number does not stand in it: priced on one"
        notes.remark("gpus-unknown", "gpus", text, "say it with --gpus N, or give the accelerate configuration", Way.DOWN)
    if (n_gpus or 1) == 1:
        return Cards()
    return Cards(n_gpus or 1, Sharding.FSDP2 if whole else Sharding.DDP)


_STAGE_IN_NAME = re.compile(r"(?:zero|z|stage)[_-]?(\d)", re.IGNORECASE)


def _deepspeed(stated: Any, folder: str, notes: Notes) -> tuple[int | None, bool]:
    """ZeRO stage and offloading of DeepSpeed settings: in place, in a file that can be read, or by the file's name."""
    if isinstance(stated, str):
        found = next((path for path in (Path(folder) / stated, Path(stated)) if is_file(path)), None)
        if found is None:
            number = _STAGE_IN_NAME.search(Path(stated).name)
            if number is None:
                notes.unpriced(f"deepspeed: {stated}", "the file is not here, so its ZeRO stage is not known", Way.DOWN)
                return None, False
            notes.taken.append(f"deepspeed: {stated} is not here; ZeRO stage {number[1]} by its name")
            return int(number[1]), "offload" in stated
        try:
            stated = read_object(found)
        except AdvisorError as error:
            raise InvalidInputError(f"deepspeed: {error}") from None
    if not isinstance(stated, dict):
        raise InvalidInputError("deepspeed: it must be a file or a group of settings")
    zero = stated.get("zero_optimization")
    settings = Fields(zero if isinstance(zero, dict) else {}, "deepspeed", "zero_optimization.")
    offload = any(settings.group(name).text("device") not in (None, "none") for name in ("offload_param", "offload_optimizer"))
    return settings.integer("stage"), offload
