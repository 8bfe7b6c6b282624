"""`advise next`: where its facts come from, what it refuses, what it prints."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_next_step import CASES, step

from advisor import Facts, InvalidInputError, NextStep, api
from advisor.cli.run import run
from advisor.render.next_step import next_step
from advisor.render.terminal import Look, draw
from advisor.values.next_step import Binding

ORCA = {
    "model": "llama-2-7b",
    "task": "math",
    "evaluation": {"n": 500, "target": 0.26},
    "runs": [{"method": "qlora", "rank": 64, "learning_rate": 1e-5, "score": 0.118}],
}
FLAGS = [
    *("--model", "llama-2-7b", "--task", "math", "--items", "500", "--target", "0.26"),
    *("--method", "qlora", "--rank", "64", "--learning-rate", "1e-5", "--score", "0.118"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project directory without a ledger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADVISE_LEDGER", raising=False)


def written(data: Any, name: str = "facts.json") -> str:
    Path(name).write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return name


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> NextStep:
    assert run(["next", *arguments, "--json"]) == 0
    return NextStep.model_validate_json(capsys.readouterr().out)


def test_flags_a_file_and_a_mapping_are_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    from_flags, from_file = shown(capsys, *FLAGS), shown(capsys, "--facts", written(ORCA))
    assert (
        from_flags == from_file == api.next_step(ORCA) == api.next_step(Facts.model_validate(ORCA | {"model": api.as_model("llama-2-7b")}))
    )


def test_flags_go_beyond_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    answer = shown(capsys, "--facts", written(ORCA), "--target", "0.119", "--gpu", "24GB")
    assert answer.binding is Binding.EVALUATION_NOISE
    assert answer.price is not None
    assert answer.price.fit is not None


def test_a_run_given_by_flags_is_the_newest(capsys: pytest.CaptureFixture[str]) -> None:
    answer = shown(capsys, "--facts", written(ORCA), "--method", "qlora", "--rank", "64", "--oom")
    assert answer.binding is Binding.MEMORY


def test_what_was_seen_can_be_said_in_flags(capsys: pytest.CaptureFixture[str]) -> None:
    lora = ("--model", "llama-2-7b", "--method", "lora", "--rank", "16", "--learning-rate", "2e-4")
    assert "is NaN or infinite" in shown(capsys, *lora, "--losses", "2.0, 1.9,nan").reason
    assert shown(capsys, *lora, "--losses", "2.0,1.2,1,0.8", "--eval-losses", "2,1.5,1.9,2.4").binding is Binding.DATA_OVERFIT
    assert "end token" in shown(capsys, *lora, "--complaint", "never-stops").next_experiment
    for refused in (("--losses", "2.0,low"), ("--complaint", "wobbles")):
        assert run(["next", *lora, *refused]) == 2
        told = capsys.readouterr().err
        assert refused[1].split(",")[-1] in told
        assert told.count("\n") == 1


def test_without_facts_the_projects_ledger_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    from advisor import record

    record(model="llama-2-7b", method="lora", rank=16, learning_rate=1e-5, evaluations=[{"metric": "accuracy", "score": 0.2, "n": 1000}])
    answer = shown(capsys, "--target", "0.4")
    assert answer.binding is Binding.LEARNING_RATE
    assert shown(capsys, "--ledger", "advise-runs.sqlite", "--target", "0.4") == answer


def test_a_ledger_without_the_model_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from advisor import record

    record(model="llama-2-7b", method="lora", rank=16)
    assert run(["next", "--model", "qwen3-4b"]) == 2
    assert "holds no run of qwen3-4b" in capsys.readouterr().err


def test_a_model_alone_gets_its_first_run(capsys: pytest.CaptureFixture[str]) -> None:
    answer = shown(capsys, "--model", "llama-3.1-8b", "--gpu", "80GB", "--dataset-tokens", "100000000")
    assert answer.run is not None
    assert (answer.gate, answer.run.rank, len(answer.run.learning_rates)) == ("R0", 64, 3)


BASE = {"method": "lora", "rank": 16}

REFUSED: list[tuple[str, Any, str]] = [
    ("no method", {"runs": [{"rank": 16}]}, "runs[0].method: is missing"),
    ("score that is not a number", {"runs": [BASE | {"score": math.nan}]}, "runs[0].score"),
    ("target that is not a number", {"evaluation": {"target": math.inf}}, "evaluation.target"),
    ("rate that is not a number", {"runs": [BASE | {"learning_rate": math.nan}]}, "runs[0].learning_rate"),
    ("rate below zero", {"runs": [BASE | {"learning_rate": -1e-4}]}, "greater than 0"),
    ("rate in words", {"runs": [BASE | {"learning_rate": "fast"}]}, "'fast'"),
    ("method that does not exist", {"runs": [{"method": "adalora"}]}, "'adalora'"),
    ("task that does not exist", {"task": "juggling"}, "'juggling'"),
    ("field that does not exist", {"runs": [BASE | {"lr": 1e-4}]}, "runs[0].lr: there is no such field"),
    (
        "loss with more",
        {"runs": [BASE | {"train_losses": [{"step": 1, "loss": 2, "lr": 3}]}]},
        "train_losses[0].lr: there is no such field",
    ),
    ("no items", {"evaluation": {"n": 0}}, "evaluation.n"),
    ("epochs without steps", {"runs": [BASE | {"epochs": 1e9, "steps": 1}]}, "1e+09 epochs in 1 steps; drop `epochs` or `steps`"),
    (
        "target below the untuned model",
        {"evaluation": {"target": 0.1, "base": 0.9, "n": 100}, "runs": [BASE | {"score": 0.4}]},
        "reaches the target (0.1) below the untuned model (0.9)",
    ),
    ("score without memory", {"runs": [BASE | {"oom": True, "score": 0.5}]}, "ran out of memory and yet has a score"),
    ("quantised LoRA", {"runs": [BASE | {"quantization": "nf4"}]}, "set method to qlora"),
    ("quantised full fine-tuning", {"runs": [{"method": "full", "quantization": "nf4"}]}, "does not train quantised weights"),
    ("full fine-tuning with a rank", {"runs": [{"method": "full", "rank": 16}]}, "has no rank"),
    ("items and their number", {"runs": [BASE | {"n": 3, "correct": [True, False]}]}, "holds 2 items"),
    ("items and their names", {"runs": [BASE | {"correct": [True, False], "item_ids": ["a"]}]}, "1 item_ids for 2 items"),
    ("items and their score", {"runs": [BASE | {"score": 0.9, "correct": [True, False]}]}, "50.0 % of the items"),
    ("two runs of one name", {"runs": [BASE | {"id": "a"}, BASE | {"id": "a"}]}, "two runs are called a"),
    ("current run that is not there", {"runs": [BASE | {"id": "a"}], "current": "b"}, "no run is called b"),
    ("shares and percentages", {"evaluation": {"target": 50}, "runs": [BASE | {"score": 0.4}]}, "set unit to share or percent"),
    ("neither share nor percentage", {"runs": [BASE | {"score": 153}]}, "set unit to raw"),
    ("beyond its unit", {"unit": "percent", "runs": [BASE | {"score": 153}]}, "between 0 and 100"),
    ("fewer tokens than examples", {"dataset_tokens": 10, "examples": 100}, "less than one each"),
    ("card that does not exist", {"gpu": "etch a sketch"}, "etch a sketch"),
    ("list instead of facts", [1, 2], "not a JSON object"),
    ("half a file", '{"runs": [', "is not valid JSON"),
    ("empty file", "", "is empty"),
]


@pytest.mark.parametrize(("data", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_true_is_refused_in_one_line_and_left_as_it_was(data: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(data)
    before = Path(path).read_bytes()
    assert run(["next", "--facts", path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert message in err
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to go on from"),
        (["--facts", "missing.json"], "missing.json"),
        (["--facts", "a.json", "--ledger", "b.sqlite"], "give one of them"),
        (["--rank", "16"], "runs[0].method: is missing"),
        (["--method", "lora", "--rank", "many"], "'many'"),
        (["--method", "lora", "--score", "nan"], "runs[0].score"),
    ],
)
def test_flags_are_refused_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["next", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_losses_that_are_not_numbers_are_a_fact_and_not_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    broken = BASE | {"learning_rate": 2e-4, "train_losses": [[10, 2.0], [20, math.nan], [30, math.inf]], "eval_losses": [math.nan]}
    answer = shown(capsys, "--facts", written({"model": "llama-2-7b", "runs": [broken]}))
    assert answer.binding is Binding.OPTIMISATION_BUG
    assert "NaN or infinite from step 20" in answer.reason


def test_an_unknown_model_costs_only_what_needs_its_shape(capsys: pytest.CaptureFixture[str]) -> None:
    answer = shown(capsys, "--facts", written(ORCA | {"model": "mysterious-9b"}))
    assert answer.binding is Binding.LEARNING_RATE
    assert answer.price is None
    assert any("mysterious-9b" in line for line in answer.missing)


def test_the_api_refuses_what_the_command_refuses() -> None:
    with pytest.raises(InvalidInputError, match="ran out of memory and yet has a score"):
        api.next_step({"runs": [BASE | {"oom": True, "score": 0.5}]})


def test_the_command_waits_for_no_heavy_library() -> None:
    code = "import sys; from advisor.cli.run import run; run(sys.argv[1:]); print('loaded', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code, "next", *FLAGS], capture_output=True, text=True, encoding="utf-8", check=True)
    loaded = set(done.stdout.rpartition("loaded ")[2].split())
    assert "advisor" in loaded
    assert loaded & {"torch", "transformers", "peft", "numpy", "scipy", "huggingface_hub", "pynvml"} == set()


# What is printed


def test_screen(matches_screen: Callable[[str, str], None]) -> None:
    answer = step(**ORCA, gpu="A100 80GB", dataset_tokens=30_000_000)
    matches_screen("next-80.txt", draw(next_step(answer), Look(width=80)))


@pytest.mark.parametrize("facts", [case[1] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("width", [80, 140])
def test_every_answer_reads_within_the_terminal(facts: dict[str, Any], width: int) -> None:
    answer = step(**facts)
    screen = draw(next_step(answer), Look(width=width))
    assert max(map(len, screen.splitlines())) <= width
    assert "\x1b" not in screen
    unwrapped = " ".join(screen.split())
    assert answer.next_experiment in unwrapped
    for change in answer.config_diff:
        assert change.setting in unwrapped
    draw(next_step(answer), Look(width=width, unicode=False)).encode("ascii")


def test_the_help_names_every_source_of_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["next", "--help"]) == 0
    text = capsys.readouterr().out
    assert {"--facts", "--ledger", "--method", "--target", "--json"} <= set(text.replace(",", " ").split())
