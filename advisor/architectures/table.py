"""Which builder reads which model type."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from advisor.architectures.config import Config
from advisor.architectures.dense import build_dense
from advisor.architectures.dense_table import DENSE
from advisor.architectures.parts import Shape

SUPPORTED = (*DENSE,)
"""Model types that have a builder, the commonest first."""


def builder(model_type: str) -> Callable[[Config], Shape]:
    return partial(build_dense, traits=DENSE[model_type])
