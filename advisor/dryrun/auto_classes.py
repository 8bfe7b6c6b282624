"""Which of transformers' Auto classes builds a model: the one that has the class that config.json names, under the head that is trained."""

from __future__ import annotations

from typing import Any

from advisor.values import Head, ModelSpec

_OF_HEADS = {
    Head.MLM: ("AutoModelForMaskedLM",),
    Head.CLASSIFICATION: ("AutoModelForSequenceClassification",),
    Head.TOKENS: ("AutoModelForTokenClassification",),
    Head.EMBEDDING: ("AutoModel",),
    Head.LM: (
        "AutoModelForCausalLM",
        "AutoModelForImageTextToText",
        "AutoModelForMultimodalLM",
        "AutoModelForSeq2SeqLM",
        "AutoModelForSpeechSeq2Seq",
    ),
}
"""In the order in which they are tried (transformers 5.23 models/auto/modeling_auto.py)."""


def of(spec: ModelSpec, config: Any) -> tuple[Any, ...]:
    """Name the Auto classes to try for `spec`, the one that has its named architecture first; last that class itself, for a type that no
    Auto class knows by its config (Evolla)."""
    import transformers

    known = [getattr(transformers, name) for name in _OF_HEADS[spec.head] if hasattr(transformers, name)]
    named = getattr(transformers, spec.architecture, None) if spec.head is Head.LM else None
    own = (_ItsOwn(named),) if getattr(named, "config_class", None) is type(config) else ()
    return (*sorted(known, key=lambda auto_class: spec.architecture not in _names(auto_class, config)), *own)


class _ItsOwn:
    """A model's class, asked as an Auto class is."""

    def __init__(self, model_class: Any) -> None:
        self.from_config = model_class._from_config


def _names(auto_class: Any, config: Any) -> tuple[str, ...]:
    """Architectures that an Auto class builds from a config of that class."""
    mapping = auto_class._model_mapping
    if type(config) not in mapping:
        return ()
    found = mapping[type(config)]
    return tuple(each.__name__ for each in (found if isinstance(found, (list, tuple)) else (found,)))
