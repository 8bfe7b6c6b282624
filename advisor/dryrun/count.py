"""Count the parameters of a model as transformers builds it, on the meta device: no memory, no weights."""

from __future__ import annotations

from typing import Any

import torch

from advisor.dryrun.meta_model import config_of
from advisor.errors import UnsupportedError
from advisor.values import ModelSpec


def count(spec: ModelSpec) -> int:
    """Parameters of the class that `spec` names, tied tensors once. Raises UnsupportedError, one line, where it cannot be built."""
    with torch.device("meta"):
        try:
            model = _class_of(spec)._from_config(config_of(spec))
        except UnsupportedError:
            raise
        except Exception as error:  # a config that makes no model fails in as many ways as there are models
            reason = str(error).strip().splitlines() or [""]
            raise UnsupportedError(f"{spec.id}: transformers cannot build it: {type(error).__name__}: {reason[0][:200]}") from error
    return sum(parameter.numel() for parameter in model.parameters())


def _class_of(spec: ModelSpec) -> Any:
    import transformers

    found = getattr(transformers, spec.architecture, None)
    if found is None:
        raise UnsupportedError(f"{spec.id}: the installed transformers has no class {spec.architecture}; install a version that has it")
    return found
