"""What a data collator hands to a model: text for most, the sound or the image that an encoder reads, and what the decoder is to say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from advisor.dryrun.images import TEXT_TOKEN, images_of, shapes_of, values_of, whole_numbers
from advisor.dryrun.recorder import Recorder
from advisor.errors import UnsupportedError
from advisor.images import RowOfImages
from advisor.values import Plan

Shapes = dict[str, tuple[int, ...]]

AUDIO_SECONDS = 30
"""Length of a recording: what Whisper's feature extractor pads to (transformers 5.23 models/whisper/feature_extraction_whisper.py,
`chunk_length`); of other speech models a judgement."""
FRAMES_PER_SECOND = 100
"""A log-mel frame each 10 ms (same file, `hop_length` of 160 samples at 16 kHz; Speech2Text and the Conformers likewise)."""
SAMPLES_PER_SECOND = 16_000


def batch(base: Any, plan: Plan, shape: tuple[int, int], labels_per_row: bool, recorder: Recorder) -> dict[str, torch.Tensor]:
    """Make the inputs of one forward pass of the transformers model `base`, of rows and tokens as in `shape`; the recorder is told what
    they hold.

    Raises UnsupportedError for a model that reads neither tokens nor sound nor an image of a size that its config names, and for images
    that take more tokens than a row has.
    """
    rows, seq_len_tokens = shape
    images = images_of(base, plan, seq_len_tokens)
    shapes = {**_read_by(base, rows, seq_len_tokens), "labels": (rows,) if labels_per_row else (rows, seq_len_tokens)}
    if base.config.model_type in _CODES:
        shapes |= _CODES[base.config.model_type](base.config, rows, seq_len_tokens)
    whole = set(_INTEGERS)
    if images is not None:
        shapes |= shapes_of(images, base, rows, seq_len_tokens)
        whole |= whole_numbers(images)
    inputs = {}
    for name, size in shapes.items():
        dtype = torch.int64 if name in whole else _dtype(base)
        values = partial(_values, base.config, images, name, size, dtype)
        if recorder.device_type == "meta":
            inputs[name] = torch.empty(size, dtype=dtype, device="meta")
            recorder.known.say(inputs[name], values)
        else:
            inputs[name] = values()
    return inputs


def _codes_as_rows(config: Any, rows: int, tokens: int) -> Shapes:
    """A row for each codebook (transformers 5.23 models/musicgen/modeling_musicgen.py, `MusicgenDecoder.forward`)."""
    return {"input_ids": (rows * config.num_codebooks, tokens), "labels": (rows, tokens, config.num_codebooks)}


def _codes_beside_text(config: Any, rows: int, tokens: int) -> Shapes:
    """A number for each codebook beside each token (models/kyutai_speech_to_text/modeling_kyutai_speech_to_text.py,
    `KyutaiSpeechToTextEmbeddings`)."""
    return {"input_ids": (rows, tokens, config.num_codebooks + 1)}


def _codes_said(config: Any, rows: int, tokens: int) -> Shapes:
    """Text is read, and codes are said (models/dia/processing_dia.py, `DiaProcessor.__call__` with output_labels)."""
    channels = config.decoder_config.num_channels
    return {"decoder_input_ids": (rows, tokens, channels), "labels": (rows * channels, tokens)}


_CODES: dict[str, Callable[[Any, int, int], Shapes]] = {
    "musicgen_decoder": _codes_as_rows,
    "musicgen_melody_decoder": _codes_as_rows,
    "kyutai_speech_to_text": _codes_beside_text,
    "dia": _codes_said,
}
"""Types whose batches hold the codes of sound."""


def _values(config: Any, images: RowOfImages | None, name: str, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """What a processor makes of images and of a text that fills the row: its last token ends it."""
    found = None if images is None else values_of(images, name, size, dtype)
    values = torch.full(size, TEXT_TOKEN, dtype=dtype) if found is None else found
    end = getattr(config.get_text_config() if hasattr(config, "get_text_config") else config, "eos_token_id", None)
    if name == "input_ids" and end is not None:
        values[..., -1].fill_(end[0] if isinstance(end, list) else end)
    return values


_INTEGERS = (
    "input_ids",
    "attention_mask",
    "qformer_input_ids",
    "mm_token_type_ids",
    "image_embeds_position_mask",
    "labels",
    "decoder_input_ids",
)


def _dtype(base: Any) -> torch.dtype:
    """Features are cast to the type of the weights that read them by the collator or the model."""
    return next(parameter.dtype for parameter in base.parameters() if parameter.is_floating_point())


def refuse_untrainable(base: Any, name: str) -> None:
    """Raises UnsupportedError for a class of transformers that no Trainer trains: without a forward pass, or without a loss."""
    if type(base).forward is torch.nn.Module.forward:
        raise UnsupportedError(f"{name}: it is several models without a forward pass of their own: train the part that thinks")
    takes = inspect.signature(type(base).forward).parameters
    if "labels" not in takes:
        raise UnsupportedError(f"{name}: {type(base).__name__} takes no labels and has no loss: no Trainer trains it by itself")


def _read_by(base: Any, rows: int, seq_len_tokens: int) -> Shapes:
    """Names and shapes of what the encoder, or the only tower, reads."""
    takes = inspect.signature(type(base).forward).parameters
    asks = {name for name, parameter in takes.items() if parameter.default is inspect.Parameter.empty}
    tokens = (rows, seq_len_tokens)
    text: Shapes = dict.fromkeys(("input_ids", "attention_mask"), tokens) if "input_ids" in takes else {}
    asked = _ASKED_FOR.get(base.config.model_type, set())
    text |= {name: (*tokens, width) for name, width in _WIDE_TOKENS.items() if name in asked}
    text |= dict.fromkeys((name for name in _TOKENS if name in asks | asked), tokens)
    first = getattr(base, "encoder", base).main_input_name if base.main_input_name == "inputs" else base.main_input_name
    needed = [
        name for name in _OTHERS if name in takes and (name in asks or _reads_images_first(base, name) or (not text and name == first))
    ]
    if not text and not needed:
        raise UnsupportedError(f"{type(base).__name__} reads {first}, which a dry run knows no size of")
    others = (_OTHERS[name](base.config, rows) for name in needed)
    return {key: shape for shapes in (text, *others) for key, shape in shapes.items()}


_TOKENS = ("qformer_input_ids", "mm_token_type_ids", "image_embeds_position_mask")
_ASKED_FOR = {"molmo2": {"mm_token_type_ids"}, "udop": {"bbox"}, "kosmos-2": {"image_embeds_position_mask"}} | {
    "git": {"pixel_values"},
    "idefics": {"pixel_values", "image_attention_mask"},
}
"""What a type's code raises without in training, though its signature has a default (transformers 5.23 models/molmo2/modeling_molmo2.py,
models/udop, models/kosmos2, models/idefics; models/git/modeling_git.py cuts the logits by the number of image tokens)."""
_WIDE_TOKENS = {"bbox": 4, "image_attention_mask": 1}
"""Numbers that a token has: the corners of its box on the page (models/udop/modeling_udop.py), and whether it sees each image of its row
(models/idefics/modeling_idefics.py)."""


def _reads_images_first(base: Any, name: str) -> bool:
    return name == base.main_input_name == "pixel_values" or name in _ASKED_FOR.get(base.config.model_type, set())


def reads_text(base: Any) -> bool:
    return "input_ids" in inspect.signature(type(base).forward).parameters


def sees_text_alone(base: Any) -> bool:
    """Whether the model has towers for images or sound that a batch of text leaves idle."""
    nested = (name for name in vars(base.config) if name.endswith("_config"))
    return any(word in name for name in nested for word in ("vision", "audio", "image", "video"))


def _frames(config: Any, rows: int) -> Shapes:
    """Log-mel frames: as many as Whisper's positions ask for (its encoder halves them), else `AUDIO_SECONDS` of them."""
    encoder = next((getattr(config, name) for name in ("encoder_config", "encoder") if hasattr(config, name)), config)
    mels = next((getattr(encoder, name) for name in ("num_mel_bins", "input_feat_per_channel") if hasattr(encoder, name)), None)
    if mels is None:
        raise UnsupportedError(f"{config.model_type}: its config names no number of mel bins")
    if hasattr(config, "max_source_positions") and hasattr(config, "num_mel_bins"):
        return {"input_features": (rows, mels, 2 * config.max_source_positions)}
    frames = AUDIO_SECONDS * FRAMES_PER_SECOND
    return {"input_features": (rows, frames, mels), "attention_mask": (rows, frames)}


def _samples(config: Any, rows: int) -> Shapes:
    return {"input_values": (rows, AUDIO_SECONDS * SAMPLES_PER_SECOND)}


def _pixels(config: Any, rows: int) -> Shapes:
    """One image of the size that the vision tower's config names, a row."""
    parts: tuple[Any, ...] = tuple(getattr(config, name, None) for name in ("vision_config", "encoder"))
    tower = next((part for part in parts if hasattr(part, "image_size")), config)
    if not hasattr(tower, "image_size"):
        raise UnsupportedError(f"{config.model_type}: it asks for an image beside the text, and its config names no size of images")
    size = tower.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return {"pixel_values": (rows, *_PICTURES.get(config.model_type, ()), getattr(tower, "num_channels", RGB), height, width)}


RGB = 3
_PICTURES = {"idefics": (1,), "instructblipvideo": (4,)}
"""Pictures in a row of the types that have an axis for them: the least, and the frames of a video (transformers 5.23
models/instructblipvideo/video_processing_instructblipvideo.py, `num_frames`)."""


def _patches(config: Any, rows: int) -> Shapes:
    """Pix2Struct: flattened patches, each with its row and column before its pixels (transformers 5.23
    models/pix2struct/image_processing_pix2struct.py, `extract_flattened_patches` and `max_patches`)."""
    vision = config.vision_config
    count, pixels = 2048, vision.patch_embed_hidden_size
    return {"flattened_patches": (rows, count, 2 + pixels), "attention_mask": (rows, count)}


_OTHERS: dict[str, Callable[[Any, int], Shapes]] = {
    "input_features": _frames,
    "input_values": _samples,
    "pixel_values": _pixels,
    "flattened_patches": _patches,
}
"""By the name of the argument: read by a model that takes no tokens, and by one that asks for it beside them."""
