"""How many of transformers' model types the dry run answers, by the file that benchmarks/coverage_of_types.py wrote, and a sample anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import coverage_of_types as coverage

from advisor.tape.store import installed

pytestmark = pytest.mark.filterwarnings("ignore")

LEAST = {"CAUSAL_LM": 0.97, "IMAGE_TEXT_TO_TEXT": 0.93, "all types": 0.95}
"""Shares of types that are answered."""
KNOWN = {(row["table"], row["model_type"]): row for row in coverage.read()}
REFUSED = {
    # types → what of them cannot be run, or what to do
    ("blt",): "try a step on a card",
    ("gemma4_assistant", "gemma4_unified_assistant"): "train Gemma 4",
    ("gemma3n", "fast_vlm", "perception_lm"): "pip install pillow timm",
    ("layoutlmv2",): "needs detectron2 installed",
    ("diffusion_gemma", "pi0"): "takes no labels and has no loss",
    ("glm5_next",): "pools of tokens by a mark",
    ("qwen2_5_omni", "qwen3_omni_moe"): "train the part that thinks",
    ("voxtral_realtime",): "a piece of its sound with every token",
}
LIBRARY_WORDS = re.compile(r"\w+Error\b|NoneType|object has no attribute|Traceback|shape '|register_meta|0x[0-9a-f]|size of tensor")
"""Words of a library's error that tell a user nothing."""
SAMPLE = (
    ("CAUSAL_LM", "apertus"),
    ("CAUSAL_LM", "bamba"),
    ("CAUSAL_LM", "bigbird_pegasus"),
    ("CAUSAL_LM", "jetmoe"),
    ("CAUSAL_LM", "musicgen"),
    ("CAUSAL_LM", "qwen4_exp_text"),
    ("CAUSAL_LM", "xmod"),
    ("IMAGE_TEXT_TO_TEXT", "blip-2"),
    ("IMAGE_TEXT_TO_TEXT", "glm4v"),
    ("IMAGE_TEXT_TO_TEXT", "lfm2_vl"),
    ("IMAGE_TEXT_TO_TEXT", "paligemma"),
    ("MULTIMODAL_LM", "qwen2_audio"),
    ("SEQ_TO_SEQ_CAUSAL_LM", "t5"),
    ("SPEECH_SEQ_2_SEQ", "moonshine"),
    ("MASKED_LM", "modernbert"),
    ("SEQUENCE_CLASSIFICATION", "layoutlmv3"),
)
"""One of each way in which types differ."""


@pytest.mark.parametrize("name", LEAST)
def test_shares_of_types_answered(name: str) -> None:
    answered, count = coverage.shares()[name]
    assert answered / count >= LEAST[name]


def test_the_file_has_every_type() -> None:
    assert set(KNOWN) == {(row.table, row.model_type) for row in coverage.rows()}


@pytest.mark.parametrize(("model_type", "words"), [(name, words) for types, words in REFUSED.items() for name in types])
def test_every_refusal_says_why(model_type: str, words: str) -> None:
    said = [row["refused"] for row in KNOWN.values() if row["model_type"] == model_type]
    assert said
    for reason in said:
        assert words in reason
        assert "\n" not in reason
        assert not LIBRARY_WORDS.search(reason)


def test_no_other_type_is_refused() -> None:
    assert {row["model_type"] for row in KNOWN.values() if "refused" in row} == {name for types in REFUSED for name in types}


@pytest.mark.parametrize("key", SAMPLE, ids=lambda key: key[1])
@pytest.mark.sampled(4)
def test_a_sample_traced_anew(key: tuple[str, str]) -> None:
    known = KNOWN[key]
    found = coverage.outcome(coverage.Row(*(known[name] for name in coverage.Row._fields)))
    assert "refused" not in found
    if all(installed()[name] == version for name, version in coverage.versions().items()):
        assert found["allocated_bytes"] == known["allocated_bytes"]
