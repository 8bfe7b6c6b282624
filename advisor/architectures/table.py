"""Which builder reads which model type."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from advisor.architectures import early, encoders, gpt
from advisor.architectures.config import Config
from advisor.architectures.decoder import build_decoder
from advisor.architectures.dense_table import DENSE
from advisor.architectures.moe_table import MOE
from advisor.architectures.parts import Shape

Builder = Callable[[Config], Shape]

_BUILDERS: dict[str, Builder] = {
    **{model_type: partial(build_decoder, traits=traits) for model_type, traits in {**DENSE, **MOE}.items()},
    "gpt2": gpt.gpt2,
    "gpt_bigcode": gpt.gpt_bigcode,
    "gpt_neo": gpt.gpt_neo,
    "gpt_neox": gpt.gpt_neox,
    "gptj": gpt.gptj,
    "codegen": gpt.codegen,
    "persimmon": gpt.persimmon,
    "opt": early.opt,
    "xglm": early.xglm,
    "bloom": early.bloom,
    "mpt": early.mpt,
    "falcon": early.falcon,
    "bert": encoders.bert,
    "roberta": encoders.roberta,
    "xlm-roberta": encoders.xlm_roberta,
    "camembert": encoders.camembert,
    "distilbert": encoders.distilbert,
    "modernbert": encoders.modernbert,
}

SUPPORTED = (*_BUILDERS,)
"""Model types that have a builder, the commonest first."""


def builder(model_type: str) -> Builder:
    return _BUILDERS[model_type]
