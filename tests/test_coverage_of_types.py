"""How many of transformers' model types the dry run answers, by the file that benchmarks/coverage_of_types.py wrote, and a sample anew."""

from __future__ import annotations

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

LEAST = {"CAUSAL_LM": 0.92, "IMAGE_TEXT_TO_TEXT": 0.90, "all types": 0.88}
"""Shares of types that are answered."""
KNOWN = {(row["table"], row["model_type"]): row for row in coverage.read()}
SAMPLE = (
    ("CAUSAL_LM", "apertus"),
    ("CAUSAL_LM", "bamba"),
    ("CAUSAL_LM", "bigbird_pegasus"),
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


def test_every_refusal_says_why() -> None:
    refused = [row["refused"] for row in KNOWN.values() if "refused" in row]
    assert refused
    assert not [words for words in refused if len(words) < 40 or "\n" in words]


@pytest.mark.parametrize("key", SAMPLE, ids=lambda key: key[1])
def test_a_sample_traced_anew(key: tuple[str, str]) -> None:
    known = KNOWN[key]
    found = coverage.outcome(coverage.Row(*(known[name] for name in coverage.Row._fields)))
    assert "refused" not in found
    if all(installed()[name] == version for name, version in coverage.versions().items()):
        assert found["allocated_bytes"] == known["allocated_bytes"]
