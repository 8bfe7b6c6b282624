"""Write profiles/model_types.json anew from the installed transformers: `python benchmarks/model_types.py`.

A row is a model type: the `AutoModel` class that builds it for training (transformers models/auto/modeling_auto.py, the tables
MODEL_FOR_…_MAPPING_NAMES) and the kind of model that this makes it; where its config keeps the decoder of text, under which names, and
with which class defaults (`PreTrainedConfig.get_text_config`, `attribute_map`). A type that no such class builds says what it is for.
"""

from __future__ import annotations

import datetime
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from advisor.values import Head, ModelKind

FILE = Path(__file__).parent.parent / "profiles" / "model_types.json"
BUILT_BY = (
    ("MODEL_FOR_IMAGE_TEXT_TO_TEXT", "AutoModelForImageTextToText", ModelKind.IMAGE_TEXT),
    ("MODEL_FOR_MULTIMODAL_LM", "AutoModelForMultimodalLM", ModelKind.AUDIO_TEXT),
    ("MODEL_FOR_SPEECH_SEQ_2_SEQ", "AutoModelForSpeechSeq2Seq", ModelKind.SPEECH),
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "AutoModelForSeq2SeqLM", ModelKind.ENCODER_DECODER),
    ("MODEL_FOR_MASKED_LM", "AutoModelForMaskedLM", ModelKind.ENCODER),
    ("MODEL_FOR_CAUSAL_LM", "AutoModelForCausalLM", ModelKind.DECODER),
    ("MODEL_FOR_SEQUENCE_CLASSIFICATION", "AutoModelForSequenceClassification", ModelKind.ENCODER),
    ("MODEL_FOR_TOKEN_CLASSIFICATION", "AutoModelForTokenClassification", ModelKind.ENCODER),
    ("MODEL_FOR_QUESTION_ANSWERING", "AutoModelForQuestionAnswering", ModelKind.ENCODER),
    ("MODEL_FOR_TEXT_ENCODING", "AutoModelForTextEncoding", ModelKind.ENCODER),
    ("MODEL_FOR_TEXT_TO_WAVEFORM", "AutoModelForTextToWaveform", ModelKind.AUDIO_TEXT),
)
"""Table of transformers, the class that reads it, and the kind of what it builds; the first table that has a type decides. Several hold
one type: Gemma 3 is also a causal LM there, BERT too, Bart a masked and a causal one."""
LISTENING = (ModelKind.SPEECH.value, ModelKind.ENCODER_DECODER.value)
FOR_WHAT = (
    ("sound", ("AUDIO", "CTC", "RNNT", "TDT", "SPECTROGRAM")),
    ("series", ("TIME_SERIES", "DECISION")),
    ("vision", ("IMAGE", "OBJECT", "SEGMENTATION", "DEPTH", "KEYPOINT", "VIDEO", "MASK_GENERATION", "BACKBONE", "RECOGNITION", "POSE")),
    ("vision", ("NORMAL", "POINTMAP", "VISUAL", "DOCUMENT", "RETRIEVAL")),
)
"""What a type without a row above is for, by the words of the tables that have it; in none of them, it is a part of other models."""
HEADS = (
    ("MODEL_FOR_MASKED_LM", Head.MLM),
    ("MODEL_FOR_SEQUENCE_CLASSIFICATION", Head.CLASSIFICATION),
    ("MODEL_FOR_TOKEN_CLASSIFICATION", Head.TOKENS),
    ("MODEL", Head.EMBEDDING),
)
"""Tables of the other outputs that a body can have."""
PROBE_VOCAB = 123_456
FIELDS = ("hidden_size", "vocab_size", "num_hidden_layers")


def tables() -> dict[str, dict[str, Any]]:
    end = "_MAPPING_NAMES"
    return {name.removesuffix(end): dict(getattr(modeling_auto, name)) for name in dir(modeling_auto) if name.endswith(end)}


def first(architectures: str | tuple[str, ...]) -> str:
    return architectures if isinstance(architectures, str) else architectures[0]


def kernels(architecture: str) -> dict[str, bool]:
    """The kernels of attention that the class says it does not run (`PreTrainedModel._supports_…`)."""
    try:
        built_class = getattr(transformers, architecture)
    except (ImportError, AttributeError, RuntimeError):  # it needs a package that is not here
        return {}
    said = {"sdpa": built_class._supports_sdpa, "flash": built_class._supports_flash_attn}
    return {kernel: False for kernel, runs in said.items() if not runs}


def built(model_type: str, names: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The kind, class and architecture of a type, or what it is for."""
    for table, auto_class, kind in BUILT_BY:
        found = names[table].get(model_type)
        if found is not None:
            heads = {head.value: first(names[place][model_type]) for place, head in HEADS if model_type in names[place]}
            row = {"kind": kind.value, "auto_class": auto_class, "architecture": first(found), "heads": heads}
            return {**row, **kernels(first(found))}
    having = [name for name, types in names.items() if model_type in types]
    use = next((use for use, words in FOR_WHAT if any(word in name for word in words for name in having)), "part")
    return {"refused": use}


def place_of(config: Any, wanted: Any, before: str = "") -> str | None:
    """Dotted path of the config that is the decoder of text inside another; None where it is none of its parts."""
    for name in config.sub_configs or {}:
        part = getattr(config, name, None)
        if part is None:
            continue
        deeper = before + name if part is wanted else place_of(part, wanted, f"{before}{name}.")
        if deeper is not None:
            return deeper
    return None


def takes_flat_fields(model_type: str) -> bool:
    """Whether fields beside the parts go to the decoder of text, as in files from before it had a config of its own (Qwen2-VL)."""
    try:
        return bool(CONFIG_MAPPING[model_type](vocab_size=PROBE_VOCAB).get_text_config(decoder=True).vocab_size == PROBE_VOCAB)
    except Exception:  # as in `text_part`
        return False


def text_part(model_type: str) -> dict[str, Any]:
    """Where the config keeps the decoder of text, and its names and defaults; nothing where the class makes no config by itself."""
    try:
        config = CONFIG_MAPPING[model_type]()
        text = config.get_text_config(decoder=True)
    except Exception:  # a class that needs its parts' configs says so in a way of its own
        return {}
    place = None if text is config else place_of(config, text)
    part = text if place else config
    row: dict[str, Any] = {"text_part": place, "text_type": part.model_type} if place else {}
    if place and takes_flat_fields(model_type):
        row["flat"] = True
    names = {field: part.attribute_map[field] for field in FIELDS if field in part.attribute_map}
    defaults = {field: value for field in FIELDS if isinstance(value := getattr(part, field, None), int) and value > 0}
    return {**row, **({"names": names} if names else {}), **({"defaults": defaults} if defaults else {})}


def corrected(row: dict[str, Any]) -> dict[str, str]:
    """The kind where the table that has a type says another than its config: a decoder of text that listens among the encoder-decoders
    (Audio Flamingo 3), one without a part that sees among those of images (Mistral 4)."""
    parts = CONFIG_MAPPING[row["model_type"]].sub_configs
    if row.get("kind") in LISTENING and row.get("text_part") == "text_config":
        return {"kind": ModelKind.AUDIO_TEXT.value}
    if row.get("kind") == ModelKind.IMAGE_TEXT.value and not parts and row["architecture"].endswith("ForCausalLM"):
        return {"kind": ModelKind.DECODER.value}
    return {}


def rows() -> Iterator[dict[str, Any]]:
    names, today = tables(), datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    for model_type in sorted(CONFIG_MAPPING.keys()):
        origin = {"source": f"transformers {transformers.__version__}", "recorded": today}
        row = {"model_type": model_type, **built(model_type, names), **text_part(model_type), **origin}
        yield {**row, **corrected(row)}


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows())
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
