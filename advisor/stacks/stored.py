"""What a file's weights come to where the checkpoint itself is quantised: the storage decides, not the file."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.checkpoints import check_trainable, expanded_by, packed, stacks_experts
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.stacks.fields import Fields
from advisor.stacks.reading import Around, Remark, Way, Weights
from advisor.stacks.trainer_arguments import Notes
from advisor.values.checkpoint import CheckpointFormat
from advisor.values.model import ModelSpec
from advisor.values.plan import Plan
from advisor.values.vocabulary import DType, Quantization, Stack

LLAMAFACTORY_EXPANDS = ("mxfp4", "fp8")
"""Storages that LLaMA-Factory loads with `dequantize=True` unasked (0.9.5 model/model_utils/quantization.py `configure_quantization`)."""
_AXOLOTL_KEEPS = ("gptq", "awq")
"""Storages that axolotl loads adapters' bases by, whatever load_in_4bit says (0.19 loaders/model.py `_set_quantization_config`)."""


def as_stored(fields: Fields, around: Around, weights: Weights, notes: Notes) -> Weights:
    """The weights as the checkpoint's storage fixes them; unchanged for a checkpoint in 16 or 32 bit.

    Raises UnsupportedError for a storage that is not priced, InvalidInputError where transformers would stop at loading: it takes no
    second kind of quantisation for a stored one (5.23 quantizers/auto.py `merge_quantization_configs`).
    """
    stored = around.model.checkpoint_format
    asked = _asked_method(fields)
    if stored is None:
        if asked not in ("", "bitsandbytes"):
            raise UnsupportedError(f"{fields.where}: it quantises with {asked} on loading, which is not priced; bitsandbytes is")
        return weights
    check_trainable(around.model)
    if weights.quantization is not None and stored.method != "bitsandbytes":
        weights = _without_second(fields, around, weights, stored, notes)
    if stored.trained_as is None:
        _expanded(fields, around, stored, notes)
        return weights
    return _kept(fields, around, weights, stored, notes)


def kernel_remarks(plan: Plan) -> tuple[Remark, ...]:
    """What a price of GPTQ without checkpointing rests on: the kernel decides whether expanded weights are kept for backward."""
    if plan.quantization is not Quantization.GPTQ or plan.gradient_checkpointing:
        return ()
    text = "without checkpointing GPT-QModel 7.7 keeps every layer's expanded weights; kernels of older releases take less"
    return (Remark("not-priced", "gptq", text, "switch gradient checkpointing on", Way.DOWN),)


STACKS_EXPERTS = 5
"""First transformers whose models hold a layer's experts in one parameter, where bitsandbytes does not reach them (issue 1849)."""


def expert_remarks(model: ModelSpec, plan: Plan, transformers: tuple[int, ...] | None) -> tuple[Remark, ...]:
    """What the price of quantised Mixture-of-Experts rests on: transformers 4 held each expert as an `nn.Linear`, which goes to 4 bit.

    `transformers` is the release that trains, as far as it is known.
    """
    known = transformers is not None and transformers[0] >= STACKS_EXPERTS
    if not stacks_experts(model) or known or plan.quantization is None or plan.quantized_experts:
        return ()
    text = "experts are priced in 16 bit, as transformers 5 leaves them; transformers 4 quantised each as a module of its own"
    return (Remark("not-priced", "transformers", text, way=Way.DOWN),)


def _asked_method(fields: Fields) -> str:
    """`quant_method` of the settings that the file loads with; empty where it has none, or expands the weights to 16 bit."""
    stated = fields.raw("quantization_config")
    if not isinstance(stated, Mapping) or stated.get("dequantize"):
        return ""
    method = str(stated.get("quant_method") or "").lower()
    return "bitsandbytes" if method.startswith("bitsandbytes") else method


def _without_second(fields: Fields, around: Around, weights: Weights, stored: CheckpointFormat, notes: Notes) -> Weights:
    """LLaMA-Factory ignores its own setting for such a checkpoint (0.9.5 model/model_utils/quantization.py), axolotl for some; the others
    hand both to transformers, which stops (ms-swift's way there was not read to its end)."""
    stack = around.defaults.stack
    ignored = {Stack.LLAMAFACTORY: "quantization_bit", Stack.AXOLOTL: "load_in_4bit, load_in_8bit"}.get(stack)
    if ignored is None or (stack is Stack.AXOLOTL and stored.method not in _AXOLOTL_KEEPS):
        raise InvalidInputError(
            f"{fields.where}: quantises {around.model.id} with bitsandbytes, which is stored in {stored.label} already: transformers "
            "stops at loading; leave the 4- or 8-bit setting out, or name the 16-bit weights"
        )
    notes.taken.append(f"{ignored}: without effect on a checkpoint that is stored in {stored.label}")
    return weights._replace(quantization=None, double_quant=False, kbit_prepare=False)


def _expanded(fields: Fields, around: Around, stored: CheckpointFormat, notes: Notes) -> None:
    """Says what is taken for granted: weights that are expanded to 16 bit on loading."""
    loader = expanded_by(around.model)
    unasked = around.defaults.stack is Stack.LLAMAFACTORY and stored.method in LLAMAFACTORY_EXPANDS
    if unasked or _dequantizes(fields, loader, notes):
        return
    if stored.method == "mxfp4":
        text = f"the checkpoint is stored in {stored.label}, which transformers does not train: priced as expanded to 16 bit"
        notes.remark("checkpoint-format", "quantization_config", text, f"load it with {loader}(dequantize=True)")
        return
    why = f"cards that compute in it keep the weights so, unless {loader}(dequantize=True) loads them; priced as expanded to 16 bit"
    notes.unpriced(f"a checkpoint stored in {stored.label}", why, Way.DOWN)


def _dequantizes(fields: Fields, loader: str, notes: Notes) -> bool:
    """Whether the file loads with `dequantize=True`, by transformers' settings or axolotl's names for them."""
    stated = fields.raw("quantization_config")
    if isinstance(stated, Mapping):
        return bool(stated.get("dequantize"))
    named, settings = fields.text("model_quantization_config"), fields.group("model_quantization_config_kwargs")
    if named is None:
        return False
    whole = bool(settings.flag("dequantize"))
    if named != loader or not whole:
        notes.unpriced(f"model_quantization_config: {named}", "the base is quantised in a way that is not priced", Way.EITHER)
    return True


def _kept(fields: Fields, around: Around, weights: Weights, stored: CheckpointFormat, notes: Notes) -> Weights:
    helper = fields.flag("prepare_model_for_kbit_training")
    lifted = around.defaults.kbit_prepare.value if helper is None else helper
    dtype = weights.dtype
    if stored.trained_as is Quantization.AWQ and dtype is DType.BF16:
        dtype = DType.FP16  # transformers 5.23 quantizers/quantizer_awq.py `update_dtype`
        notes.taken.append("an AWQ checkpoint is loaded in fp16, whatever the file says")
    return weights._replace(
        dtype=dtype,
        quantization=stored.trained_as,
        double_quant=stored.double_quant,
        kbit_prepare=lifted and (helper is True or not packed(stored.trained_as)) and stored.trained_as is not Quantization.GPTQ,
    )
