"""The outputs that transformers can put on a model's body, and the model under another head than its config's.

Source: the `MODEL_FOR_…_MAPPING`s of transformers 5.23 (models/auto/modeling_auto.py), `GenericForSequenceClassification` and
`GenericForTokenClassification` (modeling_layers.py).
"""

from __future__ import annotations

from functools import lru_cache

from advisor.architectures.config import MAX_WIDTH, Config
from advisor.architectures.parts import Shape
from advisor.architectures.refusals import types_of_transformers
from advisor.errors import UnsupportedError
from advisor.values import Head, HeadShape, ModelKind, ModelSpec, Plan

_DEFAULT_LABELS = 2
"""PreTrainedConfig.num_labels where the config has no id2label (configuration_utils.py)."""
_NO_CLASSIFIER = frozenset(
    (
        *("granite", "cohere", "cohere2", "ernie4_5", "internlm3", "apertus", "cwm", "vaultgemma", "jais2", "olmoe", "flex_olmo"),
        *("glm4_moe", "glm4_moe_lite", "solar_open", "minimax_m2", "ernie4_5_moe", "llama4_text", "granitemoe", "granitemoeshared"),
        *("youtu", "dots1", "codegen", "xglm"),
    )
)
_NO_TOKENS = (_NO_CLASSIFIER - {"apertus"}) | frozenset(
    ["olmo", "olmo2", "olmo3", "gemma3_text", "phimoe", "deepseek_v2", "minicpm3", "hunyuan_v1_dense", "gptj", "opt"]
)
"""Decoders that the mappings leave out."""
_PREFIXES = {"gemma3_text": "Gemma3Text"}
"""Beginnings of the class names, where the causal model's does not tell."""

LABEL_MODULES = ("score", "classifier", "pre_classifier")
"""Names of the linear layers that score labels. peft trains them whole (peft 0.21 utils/constants.py `SEQ_CLS_HEAD_NAMES`, and whatever
ends in such a name), and fails where "all-linear" adapts them too, as it does in token classifiers and DistilBERT: they are excluded."""


def heads_of(model_type: str, shape: Shape) -> tuple[HeadShape, ...]:
    """Every head of the type; the first is the one that a config without a word of it has."""
    return shape.heads or tuple(_decoder_heads(model_type, shape))


def _decoder_heads(model_type: str, shape: Shape) -> list[HeadShape]:
    """A decoder's classifiers have one linear layer, `score`, without a bias for sequences and with one for tokens."""
    width = shape.head_width or shape.trunk.hidden
    bias = int(shape.head_bias)
    body = shape.other_params - (shape.trunk.vocab * bias if shape.tied else 0)
    lm = HeadShape(
        head=Head.LM,
        architecture=shape.architecture,
        other_params=shape.other_params,
        params_per_output=0 if shape.tied else width + bias,
        bias=shape.head_bias,
        tied=shape.tied,
    )
    prefix = _PREFIXES.get(model_type) or shape.architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    found = [lm, HeadShape(head=Head.EMBEDDING, architecture=f"{prefix}Model", other_params=body, params_per_output=0)]
    if model_type not in _NO_CLASSIFIER:
        name = f"{prefix}ForSequenceClassification"
        found.append(HeadShape(head=Head.CLASSIFICATION, architecture=name, other_params=body, params_per_output=width, upcasts=False))
    if model_type not in _NO_TOKENS:
        name = f"{prefix}ForTokenClassification"
        found.append(
            HeadShape(head=Head.TOKENS, architecture=name, other_params=body, params_per_output=width + 1, bias=True, dropout=True)
        )
    return found


def named_head(config: Config, heads: tuple[HeadShape, ...]) -> HeadShape:
    """The head that config.json names, the first where it names none or another. A bare decoder counts as a language model."""
    named = config.raw("architectures")
    first = named[0] if isinstance(named, list) and named else None
    found = next((shape for shape in heads if shape.architecture == first), heads[0])
    return heads[0] if found.head is Head.EMBEDDING and heads[0].head is Head.LM else found


def labels_of(config: Config) -> int:
    """Classes that config.json names."""
    named = config.nested("id2label")
    return len(named) if named else config.count("num_labels", default=_DEFAULT_LABELS, limit=MAX_WIDTH)


def outputs_of(shape: HeadShape, vocab_size: int, labels: int) -> int:
    """How many words or labels the head scores."""
    if shape.head is Head.EMBEDDING:
        return 0
    return vocab_size if shape.head in (Head.LM, Head.MLM) else labels


def headed(model: ModelSpec, plan: Plan) -> ModelSpec:
    """The model under the head that `plan` trains. Raises UnsupportedError where transformers has no such head for it."""
    return _under(model, plan.head or model.first_head, plan.labels)


def head_shape(model: ModelSpec) -> HeadShape | None:
    """The shape of the head that the model has; None for a model whose heads are not known (a language model's is assumed)."""
    if model.tables is None:
        return None
    return next((shape for shape in model.tables.heads if shape.head is model.head), None)


@lru_cache(maxsize=256)
def _under(model: ModelSpec, head: Head, labels: int) -> ModelSpec:
    scores_labels = head in (Head.CLASSIFICATION, Head.TOKENS)
    if head is model.head and (not scores_labels or labels == model.labels):
        return model
    if model.tables is None:
        return _class_under(model, head, labels if scores_labels else None)
    shape = next((shape for shape in model.shape.heads if shape.head is head), None)
    if shape is None:
        known = ", ".join(found.head.value for found in model.shape.heads if found.head is not Head.EMBEDDING)
        raise UnsupportedError(f"--head {head.value}: no such head is known for {model.model_type} models as {model.id}; there are {known}")
    scored = outputs_of(shape, model.vocab_size, labels)
    tables = model.shape.model_copy(
        update={
            "head_params": shape.params_per_output * scored,
            "head_bias": shape.bias,
            "other_params": shape.other_params,
            "tied_embeddings": shape.tied,
        }
    )
    tables.__dict__.pop("params", None)  # pydantic copies what `cached_property` has kept, too
    named = {"architecture": shape.architecture, "head": head, "labels": labels if scores_labels else None}
    return model.model_copy(update={**named, "tables": tables})


def _class_under(model: ModelSpec, head: Head, labels: int | None) -> ModelSpec:
    """A model without tables under the class that transformers has for the head; its parameters under it are not counted."""
    row = types_of_transformers()[model.model_type]
    named = {**row["heads"], Head.LM.value: row["architecture"]} if row["kind"] != ModelKind.ENCODER.value else row["heads"]
    if head.value not in named:
        raise UnsupportedError(f"--head {head.value}: transformers has none for {model.model_type} models; there are {', '.join(named)}")
    return model.model_copy(update={"architecture": named[head.value], "head": head, "labels": labels, "params_built": None})
