"""Every sentence of `advise next`, with real values: each place that builds one is reached, and what it builds reads as English."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from test_decision_threads import THREADS
from test_next_controls import ALL, TUNED, run
from test_next_step import CASES, climb

from advisor import NextStep, api

EVIDENCE = Path(__file__).parent.parent / "advisor" / "evidence"
BUILDERS = {"Result", "Failure", "Signature", "Finding"}

LLAMA = {"model": "llama-2-7b", "evaluation": {"n": 1319, "target": 0.6}}
NAN = float("nan")
LOW = {"train_losses": [2.0, 0.9, 0.5, 0.3], "eval_losses": [2.0, 1.0, 0.6, 0.5]}
LEARNS = [2.1, 1.6, 1.4, 1.3, 1.25, 1.22, 1.2]
QV = {
    "method": "lora",
    "rank": 32,
    "alpha": 64,
    "targets": "q_proj,v_proj",
    "learning_rate": 2e-4,
    "score": 0.4,
    "epochs": 1,
    "lr_tuned": True,
}


def lora(**more: Any) -> dict[str, Any]:
    return {"method": "lora", "rank": 16, "alpha": 32, "targets": ALL, "learning_rate": 2e-4, "epochs": 3} | more


def curve(*losses: float, **more: Any) -> dict[str, Any]:
    return LLAMA | {"runs": [lora(train_losses=list(losses), **more)]}


PILOTS = ((1e-4, 0.30), (3e-4, 0.36), (9e-4, 0.31))
FULL = run(None, 0.49, 2e-5, **TUNED)
CONTROL = run(16, 0.5, 2e-4, epochs=6, data_fraction=0.5)
MORE: list[dict[str, Any]] = [
    # curves
    curve(2.0, 1.5, NAN),
    curve(0.0, 0.0, 0.0),
    curve(2.0, 1.5, 0.0, 0.0),
    curve(2.1, 1.9, 2.3, 2.1, 1.9, 2.3),
    curve(11.2, 9.0, 8.0, 7.5),
    curve(2.0, 2.02, 1.98, 2.01),
    curve(2.0, 1.9, NAN, learning_rate=2e-5, precision="bf16"),
    curve(2.0, 1.9, NAN, precision="fp16"),
    LLAMA | {"task": "rl", "runs": [lora(train_losses=[0.0, 0.5, 40.0, 900.0])]},
    *(LLAMA | {"complaint": what, "runs": [lora()]} for what in ("never-stops", "repeats", "garbage", "like-base", "merged-differs")),
    LLAMA | {"runs": [lora(train_losses=LEARNS, id="plain"), lora(train_losses=LEARNS, use_rslora=True, id="rs")], "current": "rs"},
    {"model": "llama-2-7b", "evaluation": {"base": 0.2, "n": 1000, "target": 0.5}, "runs": [lora(score=0.21, **LOW)]},
    {"model": "llama-2-7b", "evaluation": {"base": 0.2, "n": 1000, "target": 0.5}, "runs": [lora(score=0.21)]},
    LLAMA | {"runs": [lora(score=0.5)], "adapter": {"rank": 16, "untrained_modules": ["q_proj", "v_proj", "k_proj", "o_proj"]}},
    LLAMA | {"runs": [lora(learning_rate=rate, diverged=True) for rate in (2e-4, 6.7e-5, 2.2e-5, 7.4e-6, 2.5e-6, 8.2e-7, 2.7e-7)]},
    # rates, scale, targets, lengths
    LLAMA | {"runs": [lora(score=0.4, learning_rate=None)]},
    LLAMA | {"runs": [lora(score=0.40, learning_rate=1e-4), lora(score=0.44, learning_rate=3e-4), lora(score=0.41, learning_rate=9e-4)]},
    LLAMA | {"runs": [lora(score=0.40, learning_rate=1e-4), *(lora(score=s, learning_rate=r, data_fraction=0.25) for r, s in PILOTS)]},
    LLAMA | {"runs": [lora(score=0.40, learning_rate=3e-5), *(lora(score=s, learning_rate=r, data_fraction=0.25) for r, s in PILOTS)]},
    LLAMA | {"runs": [lora(score=0.4, rank=64, alpha=64, use_rslora=True, learning_rate=3e-4)]},
    LLAMA | {"runs": [lora(score=0.40, alpha=16, learning_rate=1e-4), lora(score=0.40, alpha=64, learning_rate=3e-4)]},
    LLAMA | {"runs": [lora(score=0.4, epochs=32, lr_tuned=True)]},
    LLAMA | {"runs": [lora(score=0.4, steps=60, batch=16, lr_tuned=True)]},
    LLAMA | {"runs": [lora(score=0.50, epochs=1, lr_tuned=True), lora(score=0.56, epochs=2, lr_tuned=True)]},
    LLAMA
    | {
        "runs": [
            lora(score=0.5, epochs=10, lr_tuned=True, eval_losses=[2, 1.5, 1.2, 1.3, 1.5, 1.8], train_losses=[2, 1.5, 1.2, 1, 0.8, 0.5])
        ]
    },
    {"model": "llama-2-7b", "evaluation": {"n": 400, "target": 0.6}, "runs": [QV]},
    {"evaluation": {"n": 400, "target": 0.6}, "runs": [QV | {"epochs": 3}]},
    # 4 bit
    {"model": "llama-2-7b", "task": "math", "gpu": "12GB", "evaluation": {"target": 0.4, "n": 1319}}
    | {"runs": [run(64, 0.2, 2e-4, lr_tuned=True, epochs=3) | {"method": "qlora", "init": "loftq"}]},
    {"model": "llama-2-7b", "task": "math", "gpu": "12GB", "evaluation": {"target": 0.4, "n": 1319}}
    | {"runs": [run(64, 0.2, 2e-4, lr_tuned=True, epochs=3) | {"method": "qlora"}]},
    # doors
    climb(),
    climb(spare_runs=0, runs=[*climb()["runs"], run(16, 0.40, 2e-4, epochs=6, data_fraction=0.5)]),
    climb(spare_runs=0, runs=[*climb()["runs"], run(16, 0.499, 2e-4, epochs=6, data_fraction=0.5)]),
    climb(spare_runs=0, runs=[*climb()["runs"], CONTROL], serving="unmerged", gpu="24GB"),
    climb(spare_runs=0, runs=[*climb()["runs"], CONTROL, FULL]),
    climb(spare_runs=0, runs=[*climb()["runs"], CONTROL, FULL, lora(method="dora", score=0.5, lr_tuned=True)]),
    climb(spare_runs=0, runs=[*climb()["runs"], lora(method="dora", score=0.5, lr_tuned=True), FULL], no_more_data=True),
    climb(runs=[*climb()["runs"], run(None, 0.6, 2e-5, **TUNED)]),
    climb(spare_runs=2, evaluation={"target": 0.6, "n": 100}),
    climb(rank_cap=8, spare_runs=0, runs=[run(8, 0.5, 2e-4, **TUNED)]),
    climb(
        spare_runs=0,
        runs=[*climb()["runs"], CONTROL]
        + [run(None, s, r, epochs=3, data_fraction=0.25) for s, r in ((0.3, 6.7e-6), (0.4, 2e-5), (0.35, 6e-5))],
    ),
    LLAMA
    | {"dataset_tokens": 200_000_000, "runs": [run(8, 0.40, 2e-4, **TUNED), run(32, 0.40, 1e-4, **TUNED), run(32, 0.39, 5e-5, **TUNED)]},
    LLAMA | {"dataset_tokens": 200_000_000, "runs": [run(16, 0.4, 2e-4, id="low", **TUNED), run(64, 0.5, 1e-4, **TUNED)], "current": "low"},
    LLAMA
    | {
        "dataset_tokens": 200_000_000,
        "runs": [run(16, 0.4, 2e-4, **TUNED)],
        "adapter": {"rank": 16, "truncated_rank": 8, "truncated_score": 0.3},
    },
    LLAMA | {"dataset_tokens": 200_000_000, "runs": [run(16, 0.4, 2e-4, **TUNED)], "adapter": {"rank": 16, "energy_at_half": 0.98}},
    # noise and forgetting
    LLAMA | {"runs": [run(16, score, 2e-4, seed=seed, **TUNED) for seed, score in enumerate((0.582, 0.585, 0.578))]},
    LLAMA | {"complaint": "forgetting", "runs": [lora(score=0.7, retention=0.5)], "retention_base": 0.6, "retention_n": 5000},
    LLAMA | {"complaint": "forgetting", "runs": [lora(score=0.7, learning_rate=None, use_rslora=True)]},
    LLAMA
    | {
        "complaint": "forgetting",
        "runs": [lora(score=0.7), *(lora(score=0.69, learning_rate=rate) for rate in (6.7e-5, 2e-5))],
        "current": "",
    },
    {"task": "rl", "evaluation": {"n": 500, "base": 0.6, "target": 0.9}, "runs": [lora(rank=64, score=0.7, lr_tuned=True)]},
    {"model": "llama-2-7b", "dataset_tokens": 20_000_000_000, "gpu": "80GB"},
    {
        "model": "llama-2-7b",
        "dataset_tokens": 2_000_000_000,
        "evaluation": {"n": 1000, "target": 0.6},
        "runs": [run(16, 0.4, 1e-5, epochs=1)],
    },
]
EVERY = [*(facts for _, facts, *_ in CASES), *(thread["facts"] for thread in THREADS), *MORE]


def sentences(answer: NextStep) -> Iterator[str]:
    """Every text that was built for this answer."""
    yield answer.reason
    yield answer.next_experiment
    yield from (answer.cost, answer.disagreement)
    yield from answer.missing
    yield from answer.assumptions
    if answer.accept_if is not None:
        yield answer.accept_if.sentence
    if answer.then is not None:
        yield answer.then.sentence
    for finding in answer.findings:
        yield from (finding.message, finding.hint)


@cache
def answers() -> tuple[tuple[NextStep, ...], frozenset[tuple[str, int]]]:
    """All answers, and the lines of the evidence room that ran for them."""
    ran: set[tuple[str, int]] = set()

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            ran.add((Path(frame.f_code.co_filename).name, frame.f_lineno))
        return local

    def calls(frame: FrameType, event: str, _: Any) -> Any:
        return local if Path(frame.f_code.co_filename).parent == EVIDENCE else None

    before = sys.gettrace()
    sys.settrace(calls)
    try:
        found = tuple(api.next_step(facts) for facts in EVERY)
    finally:
        sys.settrace(before)
    return found, frozenset(ran)


def builders() -> Iterator[tuple[str, int, int]]:
    """Where a sentence is built: file, first and last line."""
    for path in sorted(EVIDENCE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILDERS:
                yield path.name, node.lineno, node.end_lineno or node.lineno


def test_every_place_that_builds_a_sentence_is_reached() -> None:
    _, ran = answers()
    places = list(builders())
    assert len(places) > 50
    assert [f"{name}:{first}" for name, first, last in places if not any((name, line) in ran for line in range(first, last + 1))] == []


MISTAKES = {
    "a value that is missing": r"\bNone\b|\bnan\b|\binf\b(?!init)",
    "an exponent of a format": r"e\+\d|e-0\d(?!\d)",
    "two blanks, or one before a mark": r"  | [,.;:)](?!\d)",
    "two marks": r"[,;:]\s*[,;:.]|(?<!\.)\.\.(?!\.)",
    "an article or a verb without its noun": r"\b(the|a|an|to|of|at|than|then)[.,;:)]",
    "one of many": r"(?<![.\d])1 (points|items|epochs|times|seeds|runs|repeats|steps)\b",
    "an empty list": r"\(\)|\[\]|: \.|: $",
    "the inside of a template": r"[{}]|<[A-Z]\w+\.",
    "a word twice": r"\b([a-z]{3,}) \1\b",
    "unless and only if at once": r"unless[^.;]*only if",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_sentence_reads_wrong(mistake: str) -> None:
    found = {text for answer in answers()[0] for text in sentences(answer) if re.search(MISTAKES[mistake], text)}
    assert found == set()


def test_brackets_close_and_experiments_are_sentences() -> None:
    for answer in answers()[0]:
        for text in sentences(answer):
            assert text.count("(") == text.count(")"), text
        assert answer.next_experiment[0].isupper(), answer.next_experiment
        assert answer.next_experiment.endswith("."), answer.next_experiment
        assert not answer.reason.endswith("."), answer.reason
