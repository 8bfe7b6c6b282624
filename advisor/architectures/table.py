"""Which builder reads which model type."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from advisor.architectures.config import Config
from advisor.architectures.decoder import build_decoder
from advisor.architectures.dense_table import DENSE
from advisor.architectures.moe_table import MOE
from advisor.architectures.parts import Shape

_LLAMA_LIKE = {**DENSE, **MOE}

SUPPORTED = (*_LLAMA_LIKE,)
"""Model types that have a builder, the commonest first."""


def builder(model_type: str) -> Callable[[Config], Shape]:
    return partial(build_decoder, traits=_LLAMA_LIKE[model_type])
