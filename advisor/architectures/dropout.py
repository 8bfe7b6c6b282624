"""Dropout during training: most models since Llama have none, GPT-2, OPT and BERT drop one value in ten.

The names and defaults of the rates are those of transformers 5.23, models/<type>/configuration_<type>.py; a rate of 0 costs nothing
(`at::dropout` returns its input, aten/src/ATen/native/Dropout.cpp, torch 2.13).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.architectures.config import Config
from advisor.architectures.parts import Shape
from advisor.values import Block


class _Rate(NamedTuple):
    key: str
    default: float = 0.0


class _Rates(NamedTuple):
    residual: _Rate | None = None
    attention: _Rate = _Rate("attention_dropout")
    embedding: _Rate | None = None
    halves: Literal["mlp", "both"] = "both"
    """Which halves of a layer the residual rate is applied to."""


_GPT2 = _Rates(_Rate("resid_pdrop", 0.1), _Rate("attn_pdrop", 0.1), _Rate("embd_pdrop", 0.1))
_GPTJ = _Rates(_Rate("resid_pdrop"), _Rate("attn_pdrop"), _Rate("embd_pdrop"))
_BERT = _Rates(_Rate("hidden_dropout_prob", 0.1), _Rate("attention_probs_dropout_prob", 0.1), _Rate("hidden_dropout_prob", 0.1))

_RATES = {
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": _Rates(_Rate("resid_dropout"), embedding=_Rate("embed_dropout")),
    "gpt_neox": _Rates(_Rate("hidden_dropout"), embedding=_Rate("hidden_dropout")),
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "opt": _Rates(_Rate("dropout", 0.1)),
    "xglm": _Rates(_Rate("dropout", 0.1), _Rate("attention_dropout", 0.1), _Rate("dropout", 0.1)),
    "bloom": _Rates(_Rate("hidden_dropout")),
    "falcon": _Rates(_Rate("hidden_dropout"), halves="mlp"),
    "persimmon": _Rates(_Rate("hidden_dropout"), halves="mlp"),
    "stablelm": _Rates(_Rate("hidden_dropout"), halves="mlp"),
    "phi": _Rates(_Rate("resid_pdrop"), embedding=_Rate("embd_pdrop")),
    "phi3": _Rates(_Rate("resid_pdrop")),
    "starcoder2": _Rates(_Rate("residual_dropout"), embedding=_Rate("embedding_dropout")),
    "seed_oss": _Rates(_Rate("residual_dropout", 0.1), _Rate("attention_dropout", 0.1)),
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": _Rates(_Rate("dropout", 0.1), _Rate("attention_dropout", 0.1), _Rate("dropout", 0.1), halves="mlp"),
    "modernbert": _Rates(embedding=_Rate("embedding_dropout")),
}


def drops_embedding(config: Config, model_type: str) -> bool:
    return _on(config, _RATES.get(model_type, _Rates()).embedding)


def with_dropout(config: Config, model_type: str, shape: Shape) -> tuple[Block, ...]:
    """The blocks, told which of their parts drop values."""
    rates = _RATES.get(model_type, _Rates())
    attention, residual = _on(config, rates.attention), _on(config, rates.residual)
    if not (attention or residual):
        return shape.blocks
    changed = {}
    for block in set(shape.blocks):
        shape_of_attention = block.attention.model_copy(update={"dropout": attention})
        changed[block] = block.model_copy(
            update={"attention": shape_of_attention, "residual_dropout": rates.halves if residual else "none"}
        )
    return tuple(changed[block] for block in shape.blocks)


def _on(config: Config, rate: _Rate | None) -> bool:
    return rate is not None and config.fraction(rate.key, default=rate.default) > 0
