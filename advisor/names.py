"""Names of models as people type them: tokens that ignore case and punctuation, and the rule for loose names.

"Llama-3.1-70B", "llama 3.1 70b" and "LLAMA_3.1_70B" have the same tokens: llama, 3.1, 70b. A dot or an underscore between two digits
is a decimal point ("phi-1_5" is phi 1.5); every other mark separates.
"""

from __future__ import annotations

import re
from typing import NamedTuple

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

_SIZE_WORDS = frozenset({"nano", "micro", "tiny", "mini", "small", "base", "medium", "large", "huge", "xl", "xxl"})
_PARAMETERS = re.compile(r"(a|\d+x)?\d+(\.\d+)?[bm]")

_MARK = r"[-_. ]"
_FORMATS = (
    ("bnb", rf"(?:unsloth{_MARK})?bnb{_MARK}?(?:(?P<bits>[48]){_MARK}?bit|nf4)"),
    ("gptq", rf"gptq(?:{_MARK}?(?:int|w)?(?P<bits>[2348])(?:{_MARK}?bit|a16)?)?(?:{_MARK}(?:g?\d+g?|act{_MARK}?order|sym))*"),
    ("awq", rf"(?:w4a16{_MARK})?awq(?:{_MARK}?(?:int4|4{_MARK}?bit|w4a16|g?\d+g?|sym))*"),
    ("fp8", rf"fp8(?:{_MARK}(?:dynamic|static|block|kv|e4m3))*"),
    ("mxfp4", "mxfp4"),
    ("nvfp4", "nvfp4"),
)
"""Ends of names that say how a checkpoint's weights are stored, as repositories of the Hub spell them: Llama-3.2-1B-unsloth-bnb-4bit,
Qwen2.5-7B-Instruct-GPTQ-Int4, Llama-2-7B-AWQ, Meta-Llama-3.1-8B-Instruct-FP8-dynamic, Meta-Llama-3.1-405B-BNB-NF4-BF16."""
_STORED = tuple((method, re.compile(rf"{_MARK}+{pattern}$", re.IGNORECASE)) for method, pattern in _FORMATS)
_SAME_SHAPE = re.compile(rf"{_MARK}+(?:unsloth|hf|bf16|fp16|dequantized)$", re.IGNORECASE)
"""Ends of names that say who stored 16-bit weights, and how."""
_DEFAULT_BITS = {"bnb": 4, "gptq": 4, "awq": 4, "fp8": 8, "mxfp4": 4, "nvfp4": 4}


class NamedFormat(NamedTuple):
    """How a checkpoint's name says that its weights are stored."""

    method: str
    """bnb-4bit, bnb-8bit, gptq, awq, fp8, mxfp4 or nvfp4."""
    bits: int

    @property
    def label(self) -> str:
        """ "bitsandbytes 4-bit", "GPTQ 8-bit", "FP8"."""
        name = {"bnb": "bitsandbytes"}.get(self.method.partition("-")[0], self.method.upper())
        return name if self.method in ("fp8", "mxfp4", "nvfp4") else f"{name} {self.bits}-bit"


def tokens(text: str) -> tuple[str, ...]:
    return tuple(word for word in _TOKEN.findall(_DECIMAL.sub(".", text.lower())) if word != _NOISE)


def without_fillers(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in FILLERS)


def keeps_size(asked: tuple[str, ...], found: tuple[str, ...]) -> bool:
    """Whether the name that was found has every size that was asked for.

    "base" is a size where the name that was found says another (bge-base is not bge-large), else the variant before instruction tuning
    (qwen3-8b-base has the shape of qwen3-8b).
    """
    lost = _sizes(asked) - _sizes(found)
    return not lost or (lost == {"base"} and _sizes(found) <= _sizes(asked))


def _sizes(words: tuple[str, ...]) -> set[str]:
    return {word for word in words if word in _SIZE_WORDS or _PARAMETERS.fullmatch(word)}


def format_of_name(name: str) -> NamedFormat | None:
    """How the weights are stored, as the end of a checkpoint's name says it: ("gptq", 8) for "…-GPTQ-Int8"; None where it does not."""
    return _split(name)[1]


def without_format(name: str) -> str:
    """The name without what it says of the stored weights: "Llama-3.1-8B-unsloth-bnb-4bit" is "Llama-3.1-8B"."""
    return _split(name)[0]


def _split(name: str) -> tuple[str, NamedFormat | None]:
    rest, stored = name.strip(), None
    while True:
        rest = _SAME_SHAPE.sub("", rest)
        found = next(((method, match) for method, pattern in _STORED if (match := pattern.search(rest))), None)
        if found is None or found[1].start() == 0:
            return rest, stored
        method, match = found
        bits = int(match.groupdict().get("bits") or _DEFAULT_BITS[method])
        stored = stored or NamedFormat(f"bnb-{bits}bit" if method == "bnb" else method, bits)
        rest = rest[: match.start()]


def contains(words: tuple[str, ...], asked: tuple[str, ...]) -> bool:
    """Whether every asked word is among the words, as often as it was asked for."""
    return len(asked) <= len(words) and all(words.count(word) >= asked.count(word) for word in asked)
