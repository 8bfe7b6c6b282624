"""Which model types are not answered, and why."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from advisor import profiles
from advisor.architectures.config import Config
from advisor.errors import UnsupportedError

TRANSFORMERS = "5.23"
"""Release whose model types `profiles/model_types.json` lists."""

_OWN_CODE = f"is no model of transformers {TRANSFORMERS}: it runs on code of its own repository, which is neither run nor priced"
_OWN_CODE_TYPES = frozenset(
    (
        *("qwen", "internlm", "internlm2", "chatglm", "baichuan", "exaone", "mimo", "xverse", "phi3small", "phi3_v", "internvl_chat"),
        *("deepseek", "deepseek_vl_v2", "kimi_vl", "kimi_k2", "nemotron-nas", "orion", "aquila", "skywork", "btlm", "minicpm", "minicpmv"),
        *("kimi_k3", "minimax_m3"),
    )
)
_REFUSED = {
    "vision": "is a vision model, not a language model",
    "sound": "is a model of sounds without a language model: its losses (CTC, transducers, classes of sounds) are not priced",
    "series": "is a model of time series or decisions, not a language model",
    "part": "is a part of other models, or a model without a loss of its own that transformers' AutoModel classes train",
}


@cache
def types_of_transformers() -> dict[str, dict[str, Any]]:
    """Model type → its row of `profiles/model_types.json`."""
    return {row["model_type"]: row for row in profiles.read("model_types")}


def check_covered(config: Config, with_tables: Sequence[str]) -> str:
    """The model type, if it can be answered; an error that says why not otherwise."""
    if "model_type" not in config.values:
        raise config.bad("model_type", "is missing: this is no Hugging Face model config, or a truncated one")
    model_type = config.text("model_type", default="")
    if not model_type:
        raise config.bad("model_type", "is empty")
    if model_type in with_tables:
        return model_type
    row = types_of_transformers().get(model_type)
    if row is None:
        raise UnsupportedError(f"{config.where}: {_unknown(model_type)}")
    if "kind" not in row:
        raise UnsupportedError(f"{config.where}: {model_type} {_REFUSED[row['refused']]}")
    return model_type


def _unknown(model_type: str) -> str:
    if model_type in _OWN_CODE_TYPES:
        return f"{model_type} {_OWN_CODE}"
    return f"architecture {model_type!r} is no model type of transformers {TRANSFORMERS}; is it spelt as in the model's config.json?"
