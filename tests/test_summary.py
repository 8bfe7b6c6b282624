"""The default answer: a screenful that ends in the verdict and in a command that prices exactly its plan."""

from __future__ import annotations

import json
import shlex
from functools import cache

import pytest

from advisor import api
from advisor.cli.run import run
from advisor.ladder import plan_from_request, request_from
from advisor.ladder.command import command_for
from advisor.render.advice import advice
from advisor.render.summary import summary
from advisor.render.terminal import Look, draw
from advisor.values import Advice, Fit

MOST_LINES = 35
QUESTIONS = {
    "the README's": "llama-70b 80GB",
    "a free card": "llama-3.1-8b t4",
    "a free card, a long guess": "gemma-2-9b t4 --dataset-tokens 2M --task math",
    "a home card": "qwen2.5-7b rtx-4090",
    "priced in dollars": "gpt-oss-20b h100 --dataset-tokens 30M",
    "nothing fits": "llama-405b a100",
    "nothing fits, as asked": "llama-70b 80GB --method full --optimizer adamw_torch",
    "cannot tell": "llama-3.1-8b 16.9GiB --method lora --checkpointing",
    "several cards": "llama-70b 80GB --gpus 4",
    "a cloud's machine": "llama-3.1-8b g5.12xlarge --seq-len 8k",
    "images and text, from a tape": "qwen2.5-vl-7b 4090",
    "an encoder": "modernbert-base t4 --seq-len 512 --batch-size 32",
    "experts": "mixtral-8x7b h100",
    "an AMD card": "qwen3-8b mi300x --stack trl",
    "every option": "llama-3.2-3b l4 --rank 64 --alpha 16 --target-modules q_proj,v_proj --loss chunked --padding --lora-dropout 0.1 "
    "--no-double-quant --quantization fp4 --method qdora --precision bf16-amp --attention flash --reentrant --grad-accum 3",
}


@cache
def asked(question: str) -> Advice:
    model, gpu, *options = question.split()
    given = iter(options)
    values: dict[str, object] = {}
    for flag in given:
        name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
        switch = name in ("checkpointing", "padding", "double_quant", "reentrant")
        values[name] = not flag.startswith("--no-") if switch else next(given)
    return api.advise(model, gpu, **values)


RECORDED = "images and text, from a tape"
"""The shipped tapes do not hold every change that the search tries: what is missing is recorded, which takes minutes."""
ASKED = [pytest.param(question, id=name, marks=pytest.mark.slow if name == RECORDED else ()) for name, question in QUESTIONS.items()]


@pytest.fixture(params=ASKED)
def answer(request: pytest.FixtureRequest) -> Advice:
    return asked(request.param)


def test_the_default_answer_is_a_screenful(answer: Advice) -> None:
    drawn = draw(summary(answer), Look(width=100)).splitlines()
    assert sum(max(1, -(-len(line) // 100)) for line in drawn) <= MOST_LINES, "\n".join(drawn)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_wider_than_the_screen_but_the_command(answer: Advice, width: int) -> None:
    *lines, command = draw(summary(answer), Look(width=width)).splitlines()
    assert command == answer.command
    assert max(map(len, lines)) <= width


def test_both_screens_end_in_the_verdict_and_its_command(answer: Advice) -> None:
    for blocks in (summary(answer), advice(answer)):
        said = draw(blocks, Look(width=1000)).splitlines()
        assert said[-2:] == [answer.verdict.sentence, answer.command]


def test_every_rung_is_a_line_with_its_fit_and_its_interval(answer: Advice) -> None:
    lines = draw(summary(answer), Look(width=100)).splitlines()
    for rung in answer.rungs:
        line = next(line for line in lines if line[2:].startswith(f"{rung.plan.method.label} "))
        assert line.startswith("*") == (rung is answer.chosen)
        assert f"{rung.memory.expected_bytes / 2**30:,.1f}" in line.split()


def test_the_command_prices_exactly_the_plan(answer: Advice, capsys: pytest.CaptureFixture[str]) -> None:
    """Run as it stands, it gives the same memory to the byte, phase by phase, and the same verdict of fit."""
    program, *arguments = shlex.split(answer.command)
    assert (program, arguments[0]) == ("advise", "estimate")
    code = run([*arguments, "--json"])
    again = json.loads(capsys.readouterr().out)
    assert again["phases"] == json.loads(answer.focus.memory.model_dump_json())["phases"]
    assert (again["low_bytes"], again["expected_bytes"], again["high_bytes"]) == (
        answer.focus.memory.low_bytes,
        answer.focus.memory.expected_bytes,
        answer.focus.memory.high_bytes,
    )
    assert code == {Fit.FITS: 0, Fit.DOES_NOT_FIT: 1, Fit.UNCERTAIN: 3}[answer.focus.fit]


def test_the_questions_are_of_every_kind() -> None:
    fits = {asked(question).exit_code for name, question in QUESTIONS.items() if name != RECORDED}
    assert fits == {0, 1, 3}


@pytest.mark.parametrize(
    ("switch", "says", "leaves_out"),
    [
        ("--quiet", "needs more memory", "between"),
        ("-q", "needs more memory", "between"),
        ("--code", "get_peft_model", "between"),
        ("--full", "Quality ceiling", "--full"),
    ],
)
def test_views(switch: str, says: str, leaves_out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--model", "llama-70b", "--gpu", "80GB", switch]) == 0
    out = capsys.readouterr().out
    assert says in out
    assert leaves_out not in out


def test_the_quiet_answer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--model", "llama-70b", "--gpu", "80GB", "-q"])
    assert capsys.readouterr().out == f"{api.advise('llama-70b', '80GB').verdict.sentence}\n"


@pytest.mark.parametrize("gpu", ["80GB", "8GB"])
def test_the_code_is_python(gpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing fits, too: a comment says so."""
    run(["--model", "llama-70b", "--gpu", gpu, "--code"])
    compile(capsys.readouterr().out, "train.py", "exec")


@pytest.mark.parametrize("switches", [["--json", "--full"], ["--full", "-q"], ["--code", "--quiet"], ["--trace", "--code"]])
def test_two_views_are_refused(switches: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--model", "llama-70b", "--gpu", "80GB", *switches]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_calibration_that_was_ignored_is_ignored_again() -> None:
    assert "--no-calibration" not in api.advise("llama-70b", "80GB").command
    assert api.advise("llama-70b", "80GB", use_calibrations=False).command.endswith(" --no-calibration")


def test_names_are_quoted_for_the_shell() -> None:
    assert "--gpu 'rtx 4090'" in api.advise("qwen2.5-7b", "rtx 4090").command


# What a practitioner types is what the command says again: no option that the method's first plan has already, and none less.
ASKED = [
    {"method": "lora"},
    {"method": "qlora"},
    {"method": "full"},
    {"method": "dora", "rank": "64"},
    {"method": "lora", "rank": "8", "alpha": "32"},
    {"method": "lora", "target-modules": "q_proj,v_proj"},
    {"method": "lora", "lora-dropout": "0.1"},
    {"method": "lora", "batch-size": "4", "seq-len": "1000", "grad-accum": "2"},
    {"method": "qlora", "no-kbit-prepare": None},
    {"method": "qlora", "quantization": "fp4", "no-double-quant": None},
    {"method": "lora", "checkpointing": None, "optimizer": "adamw_8bit"},
    {"method": "lora", "precision": "fp16-amp"},
    {"method": "full", "gpus": "4", "shard": "fsdp2"},
    {"method": "lora", "loss": "fused", "stack": "axolotl"},
    {"method": "lora", "head": "classification", "labels": "3"},
]


@pytest.mark.parametrize("options", ASKED, ids=str)
def test_the_command_says_again_what_was_asked_and_nothing_else(options: dict[str, str | None]) -> None:
    fields = {
        name.removeprefix("no-").replace("-", "_"): (not name.startswith("no-")) if text is None else text for name, text in options.items()
    }
    model, gpu = api.as_model("llama-3-8b"), api.as_gpu("80GB")
    plan = plan_from_request(model, gpu, request_from(fields))
    opening, *typed = command_for(model, gpu, plan, "llama-3-8b", "80GB", calibrated=True).split(" --")
    assert [opening, *typed[:2]] == ["advise estimate", "model llama-3-8b", "gpu 80GB"]
    said = {name: text or None for name, _, text in (option.partition(" ") for option in typed[2:])}
    assert said == options
