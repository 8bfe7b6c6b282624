"""Row model of `profiles/model_types.json`: what transformers builds of each model type (`benchmarks/model_types.py` writes it).

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Literal

from advisor.profiles.base import Date, Row, Text
from advisor.values.vocabulary import Positive

TextField = Literal["hidden_size", "vocab_size", "num_hidden_layers"]


class ModelTypeRow(Row):
    """A model type of transformers."""

    model_type: Text
    kind: Literal["decoder", "encoder", "image-text", "audio-text", "encoder-decoder", "speech"] | None = None
    """None: no class that trains on text builds it; `refused` says what it is for."""
    refused: Literal["vision", "sound", "series", "part"] | None = None
    auto_class: str = ""
    architecture: str = ""
    """The class that `auto_class` builds, such as "Gemma3ForConditionalGeneration"."""
    heads: dict[Literal["mlm", "classification", "tokens", "embedding"], Text] = {}
    """Other outputs that it can have, and their classes."""
    text_part: str = ""
    """Dotted path of the config of its decoder of text; empty where that is the config itself."""
    text_type: str = ""
    """Model type of that part where its config.json does not name one."""
    flat: bool = False
    """Its config takes that part's fields beside the other parts, too, where the file has no such part."""
    names: dict[TextField, Text] = {}
    """Fields under the names that the type gives them."""
    defaults: dict[TextField, Positive] = {}
    """What they are where config.json does not say: defaults of the class, of the text part."""
    sdpa: bool = True
    """transformers can compute its attention with torch's scaled_dot_product_attention (`_supports_sdpa` of the class)."""
    flash: bool = True
    """transformers can compute it with the flash-attention package (`_supports_flash_attn`)."""
    source: Text
    recorded: Date
