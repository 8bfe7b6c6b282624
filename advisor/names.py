"""Names of models as people type them: tokens that ignore case and punctuation, and the rule for loose names.

"Llama-3.1-70B", "llama 3.1 70b" and "LLAMA_3.1_70B" have the same tokens: llama, 3.1, 70b. A dot or an underscore between two digits
is a decimal point ("phi-1_5" is phi 1.5); every other mark separates.
"""

from __future__ import annotations

import re
from collections import Counter

_DECIMAL = re.compile(r"(?<=\d)_(?=\d)")
_TOKEN = re.compile(
    r"a\d+(?:\.\d+)?b(?![a-z])"  # active parameters: a22b
    r"|\d+x\d+(?:\.\d+)?b(?![a-z])"  # experts: 8x7b
    r"|\d+(?:\.\d+)?[bmk](?![a-z])"  # sizes: 70b, 0.5b, 135m, 4k
    r"|\d+(?:\.\d+)?"  # versions: 3.1
    r"|[a-z]+"
)

_NOISE = "hf"
"""Says only that the files are in the Hugging Face format."""

FILLERS = frozenset({"instruct", "chat", "it", "base", "pt", "model"})
"""Words that name a variant of the same shape, or nothing: they are dropped when nothing matches with them."""


def tokens(text: str) -> tuple[str, ...]:
    return tuple(word for word in _TOKEN.findall(_DECIMAL.sub(".", text.lower())) if word != _NOISE)


def without_fillers(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in FILLERS)


def contains(words: tuple[str, ...], asked: tuple[str, ...]) -> bool:
    """Whether every asked word is among the words, as often as it was asked for."""
    return not Counter(asked) - Counter(words)
