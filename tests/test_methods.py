"""What profiles/methods/ holds: facts with their source, thresholds, and sentences that stand on facts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from advisor import profiles
from advisor.ladder import knowledge

PACKAGE = Path(__file__).parent.parent / "advisor"
SOURCE = "\n".join(path.read_text(encoding="utf-8") for room in ("ladder", "backwards") for path in sorted((PACKAGE / room).glob("*.py")))


def rows(kind: str) -> list[dict[str, Any]]:
    return [row for row in profiles.read("methods") if row.get("kind") == kind]


FACTS, THRESHOLDS, TEXTS = rows("fact"), rows("threshold"), rows("text")
SOUND = {row["id"] for row in FACTS if row["confidence"] in ("high", "medium")}


def test_every_fact_says_where_it_stands() -> None:
    assert len(FACTS) == 132
    for fact in FACTS:
        assert fact["statement"], fact["id"]
        assert fact["source"], fact["id"]
        assert fact["url"] or "D" in fact["access"], f"{fact['id']}: neither read somewhere nor derived"
        assert fact["confidence"] in ("high", "medium", "low"), fact["id"]


@pytest.mark.parametrize("kind", [FACTS, THRESHOLDS, TEXTS], ids=["facts", "thresholds", "texts"])
def test_ids_are_unique(kind: list[dict[str, Any]]) -> None:
    ids = [row["id"] for row in kind]
    assert sorted(set(ids)) == sorted(ids)


# Numbers that rules and sentences lean on, as the facts carry them.
@pytest.mark.parametrize(
    ("fact", "part"),
    [
        ("LR1", "9.8"),  # best LoRA learning rate over full fine-tuning's
        ("LR3", "0.781"),  # the recipe's power for Llama
        ("LR16", "2e-4"),  # QLoRA's tuned rate
        ("C8", "19.2/19.75/20.5/21.4"),  # rank 32 to 256: 1.3 points from 32 to 128
        ("D15", "+0.65"),  # DoRA's gain at low ranks
        ("D5", "+139 %"),  # unmerged DoRA
        ("Q7", "+50.5 % time"),
        ("Q8", "~66 % faster"),
        ("F1", "16 B/param"),
        ("B2", "flat for batch 32-128"),
        ("T1", "+3.1 pp"),
    ],
)
def test_facts_carry_the_numbers_that_are_quoted(fact: str, part: str) -> None:
    assert part in knowledge.fact(fact).statement


@pytest.mark.parametrize("row", THRESHOLDS, ids=lambda row: row["id"])
def test_thresholds_have_a_meaning_and_a_source(row: dict[str, Any]) -> None:
    assert row["meaning"]
    assert row["source"]
    assert row["judgement"] or row["evidence"], "neither judgement nor evidence"
    assert set(row["evidence"]) <= SOUND
    assert f'"{row["id"]}"' in SOURCE or f'"{row["id"].rsplit("_", 1)[0]}_' in SOURCE, "no rule reads it"


@pytest.mark.parametrize("row", TEXTS, ids=lambda row: row["id"])
def test_sentences_stand_on_sound_facts_and_are_said_somewhere(row: dict[str, Any]) -> None:
    assert set(row["evidence"]) <= SOUND
    stem = row["id"].rsplit(".", 1)[0]
    assert f'"{row["id"]}"' in SOURCE or f'f"{stem}.{{' in SOURCE, "nobody says it"


def test_every_sentence_that_is_said_exists() -> None:
    known = {row["id"] for row in TEXTS}
    said = set(re.findall(r'say\(\s*"([a-z_.]+)"', SOURCE))
    assert said
    assert said <= known


@pytest.mark.parametrize("method", ["lora", "qlora", "dora", "qdora", "full"])
def test_quality_is_words_with_evidence(method: str) -> None:
    assert knowledge.evidence(f"quality.{method}")
    assert "{" not in knowledge.say(f"quality.{method}")


def test_rules_cite_only_sound_facts() -> None:
    cited = {name for group in re.findall(r"evidence=\(([^)]*)\)", SOURCE) for name in re.findall(r'"([A-Z]+\d+)"', group)}
    assert len(cited) > 15
    assert cited <= SOUND
