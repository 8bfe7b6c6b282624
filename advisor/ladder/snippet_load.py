"""The part of a snippet that loads the checkpoint, however it is stored, in the types of the plan."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.architectures import LABEL_MODULES
from advisor.checkpoints import PACKED, expanded_by, packed, trained_as
from advisor.ladder.snippet_parts import call, text, torch_dtype
from advisor.units import format_size
from advisor.values import Attention, DType, ModelKind, ModelSpec, Plan, Quantization, Sharding, Stack

NO_REENTRANT = {"use_reentrant": False}
"""Checkpointing without re-entrant autograd, as torch advises; frozen inputs then need no hook."""

_ATTENTION = {
    Attention.SDPA: "sdpa",
    Attention.MEM_EFFICIENT: "sdpa",
    Attention.FLASH: "flash_attention_2",
    Attention.EAGER: "eager",
}


def quantization_classes(model: ModelSpec, plan: Plan) -> list[str]:
    """transformers' classes of the quantisation settings that the snippet makes."""
    classes = [expanded_by(model)] if expanded_by(model) else []
    if plan.quantization is not None and packed(plan.quantization):
        classes.append(PACKED[plan.quantization])
    elif plan.quantization is not None and trained_as(model) is None:
        classes.append("BitsAndBytesConfig")
    return classes


def needs_os(model: ModelSpec, plan: Plan) -> bool:
    written_out = plan.quantization is not None and bool(expanded_by(model))
    return written_out or (_is_placed(plan) and plan.sharding is Sharding.DDP)


def _is_placed(plan: Plan) -> bool:
    """Whether loading puts the model on its card: bitsandbytes quantises there, and a loop of one's own has no Trainer to move it."""
    return (plan.quantization is not None or plan.stack is Stack.PLAIN) and not plan.sharding.shards_weights


def pads_by_tokenizer(model: ModelSpec) -> bool:
    """Whether the model must be told its padding: a decoder's score is read at the last token before it."""
    return model.labels is not None and model.kind is ModelKind.DECODER


def load_lines(model: ModelSpec, plan: Plan, auto: str) -> Iterator[str]:
    """From the checkpoint to the base model, frozen or not, prepared as the plan says. `auto`: transformers' class."""
    yield f"seq_len = {plan.seq_len_tokens}  # cut or pack every example to this many tokens"
    source = text(model.id)
    settings = {"dtype": torch_dtype(plan.base_dtype), "attn_implementation": text(_ATTENTION[plan.attention])}
    if model.labels is not None:
        settings["num_labels"] = text(model.labels)
    if expanded_by(model) and plan.quantization is not None:
        yield from _written_out(model, auto)
        source = "folder"
    made = _quantization(model, plan)
    if made:
        yield f"quantization = {made}"
        settings["quantization_config"] = "quantization"
    if _is_placed(plan):
        settings["device_map"] = text({"": 0}) if plan.n_gpus == 1 else '{"": int(os.environ["LOCAL_RANK"])}'
    yield f"model = {call(f'{auto}.from_pretrained', settings, source)}"
    yield "model.config.use_cache = False"
    if pads_by_tokenizer(model):
        yield f"tokenizer = AutoTokenizer.from_pretrained({source})"
        yield "model.config.pad_token_id = tokenizer.pad_token_id  # the score is read at the last token before the padding"
    if plan.kbit_prepare:
        checkpointing = {"use_gradient_checkpointing": text(plan.gradient_checkpointing)}
        if plan.gradient_checkpointing:
            checkpointing["gradient_checkpointing_kwargs"] = text(NO_REENTRANT)
        yield f"model = {call('prepare_model_for_kbit_training', checkpointing, 'model')}"


def _written_out(model: ModelSpec, auto: str) -> Iterator[str]:
    """A 16-bit copy on the disk, once: transformers takes no second kind of quantisation for a stored one (5.23 quantizers/auto.py)."""
    stored = model.checkpoint_format
    label, size = stored.label if stored is not None else "", format_size(model.params * DType.BF16.size_bytes)
    yield f"# stored in {label}, while bitsandbytes quantises 16-bit weights: a copy of {size} is written once (disk and host memory)"
    yield f"folder = {text(model.id.rstrip('/').rpartition('/')[2] + '-16bit')}"
    yield "if not os.path.isdir(folder):"
    yield f"    expand = {expanded_by(model)}(dequantize=True)"
    yield f"    whole = {auto}.from_pretrained({text(model.id)}, dtype=torch.bfloat16, quantization_config=expand)"
    yield "    whole.save_pretrained(folder, save_original_format=False)"
    yield "    del whole"


def _quantization(model: ModelSpec, plan: Plan) -> str:
    """The quantisation settings as a call; empty where the checkpoint brings its own, or none are wanted."""
    if plan.quantization is None:
        return f"{expanded_by(model)}(dequantize=True)  # training needs 16-bit weights" if expanded_by(model) else ""
    if packed(plan.quantization) and model.checkpoint_format is not None:
        bits = {"bits": text(model.checkpoint_format.bits or 4)} if plan.quantization is Quantization.GPTQ else {}
        wanted = "gptqmodel and optimum" if plan.quantization is Quantization.GPTQ else "gptqmodel"
        return f"{call(PACKED[plan.quantization], {**bits, 'backend': text('auto_trainable')})}  # needs {wanted}"
    return "" if trained_as(model) is not None else call("BitsAndBytesConfig", _bitsandbytes(model, plan))


def _bitsandbytes(model: ModelSpec, plan: Plan) -> dict[str, str]:
    kept = {"llm_int8_skip_modules": text([*LABEL_MODULES])} if model.labels is not None else {}
    if plan.quantization is Quantization.INT8:
        return {"load_in_8bit": "True"} | kept
    assert plan.quantization is not None
    compute = plan.autocast_dtype if plan.autocast else plan.base_dtype
    settings = {
        "load_in_4bit": "True",
        "bnb_4bit_quant_type": text(plan.quantization.value),
        "bnb_4bit_use_double_quant": text(plan.double_quant),
        "bnb_4bit_compute_dtype": torch_dtype(compute),
    }
    if plan.sharding.shards_weights:
        settings["bnb_4bit_quant_storage"] = torch_dtype(plan.base_dtype)  # shards want one floating type throughout
    return settings | kept
