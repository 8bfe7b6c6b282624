"""The command line: what it passes on, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import samples
from hypothesis import given, strategies as st

from advisor import Advice, Fit, MemoryBreakdown, Request, __version__, api, cli
from advisor.cli.options import SWITCHES, TEXT_OPTIONS, parse_lengths
from advisor.cli.run import run
from advisor.errors import InvalidInputError, MissingExtraError, UnknownNameError, UnsupportedError
from advisor.ladder import request_from
from advisor.values import Attention, Method, Optimizer, Precision, Quantization, Stack, Task

MAIN_JOB = ["--model", "llama-70b", "--gpu", "80GB"]


def answers(monkeypatch: pytest.MonkeyPatch, outcome: Advice | BaseException) -> list[dict[str, Any]]:
    """Replaces the API call; returns the list of what it was called with."""
    calls: list[dict[str, Any]] = []

    def advise(model: str, gpu: str | None = None, *, progress: Callable[[str], None], **options: Any) -> Advice:
        calls.append({"model": model, "gpu": gpu, **options})
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(api, "advise", advise)
    return calls


def only(*fits: Fit) -> Advice:
    return samples.advice().model_copy(update={"rungs": tuple(rung for rung in samples.advice().rungs if rung.fit in fits)})


def advise(
    *arguments: str, env: Mapping[str, str] | None = None, code: str = "from advisor.cli import main; main()"
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONUTF8": "1", **(env or {})}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, encoding="utf-8", env=environment)


# What is passed on


def test_every_option_of_a_request_is_an_option_of_the_command() -> None:
    assert set(TEXT_OPTIONS) | set(SWITCHES) == set(Request.model_fields)


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], {}),
        (["--rank", "64", "--alpha", "16"], {"rank": "64", "alpha": "16"}),
        (["--target-modules", "q_proj,v_proj"], {"target_modules": "q_proj,v_proj"}),
        (["--batch-size", "4", "--seq-len", "4096", "--grad-accum", "8"], {"batch_size": "4", "seq_len": "4096", "grad_accum": "8"}),
        (["--checkpointing"], {"checkpointing": True}),
        (["--no-checkpointing"], {"checkpointing": False}),
        (["--method", "qlora", "--quantization", "fp4"], {"method": "qlora", "quantization": "fp4"}),
        (["--gpus", "2", "--stack", "trl", "--loss", "chunked"], {"gpus": "2", "stack": "trl", "loss": "chunked"}),
        (
            ["--optimizer", "sgd", "--precision", "fp16", "--attention", "eager"],
            {"optimizer": "sgd", "precision": "fp16", "attention": "eager"},
        ),
    ],
)
def test_options_are_passed_on_only_when_given(arguments: list[str], passed: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answers(monkeypatch, samples.advice())
    assert run([*MAIN_JOB, *arguments]) == 0
    assert calls == [{"model": "llama-70b", "gpu": "80GB", **passed}]


def test_without_gpu_the_local_card_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answers(monkeypatch, samples.advice())
    assert run(["--model", "llama-70b"]) == 0
    assert calls == [{"model": "llama-70b", "gpu": None}]


# How it ends


@pytest.mark.parametrize(
    ("outcome", "exit_code"),
    [
        (only(Fit.FITS, Fit.DOES_NOT_FIT), 0),
        (only(Fit.DOES_NOT_FIT), 1),
        (only(Fit.UNCERTAIN, Fit.DOES_NOT_FIT), 3),
        (InvalidInputError("--rank 0: must be positive"), 2),
        (UnknownNameError("no model 'lama'; did you mean llama-2-7b?", ("llama-2-7b",)), 2),
        (UnsupportedError("rwkv is not covered"), 2),
        (MissingExtraError("pip install 'finetune-advisor[torch]'"), 2),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("ours"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value) if isinstance(value, int) else "advice",
)
def test_exit_code(
    outcome: Advice | BaseException, exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, outcome)
    assert run(MAIN_JOB) == exit_code
    shown = capsys.readouterr()
    failed = isinstance(outcome, BaseException)
    assert bool(shown.err) is failed
    assert bool(shown.out) is not failed


def test_an_error_is_one_line_in_its_own_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers(monkeypatch, InvalidInputError("config.json: hidden_size:\n  must be positive"))
    assert run(MAIN_JOB) == 2
    assert capsys.readouterr().err == "error: config.json: hidden_size: must be positive\n"


@pytest.mark.parametrize("error", [ImportError("numpy was not found"), SystemError("returned NULL")])
def test_what_fails_since_an_interrupt_is_no_bug(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An extension module turns the interrupt of an import of its own into another error."""
    answers(monkeypatch, error)
    with pytest.raises(KeyboardInterrupt):
        cli._interrupt(signal.SIGINT, None)
    try:
        assert run(MAIN_JOB) == 130
    finally:
        cli._interrupts.clear()
    assert capsys.readouterr().err == "error: interrupted\n"
    assert run(MAIN_JOB) == 70


def test_a_bug_of_ours_shows_the_traceback_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers(monkeypatch, ZeroDivisionError("ours"))
    run(MAIN_JOB)
    assert "Traceback" in (err := capsys.readouterr().err)
    assert err.splitlines()[-1].startswith("error: this is a bug of finetune-advisor")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "80GB"], "error: --model is missing; for example: advise --model llama-70b --gpu 80GB"),
        (["--rnak", "3"], "error: No such option: --rnak"),
        (["estimat"], "error: No such command 'estimat'."),
        (["--model"], "error: Option '--model' requires an argument."),
        ([*MAIN_JOB, "estimate"], "error: --model belongs after the subcommand: advise estimate --model …"),
        (["--no-checkpointing", "models"], "error: --checkpointing belongs after the subcommand: advise models --checkpointing …"),
        (["estimate"], "error: Missing option '--model'"),
        (["models", "--rank", "3"], "error: No such option: --rank"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(message)
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--rank", "0"], "--rank"),
        (["--rank", "16.5"], "--rank"),
        (["--rank", "-3"], "--rank"),
        (["--rank", "100000"], "--rank"),
        (["--alpha", "nan"], "--alpha"),
        (["--batch-size", "0"], "--batch-size"),
        (["--seq-len", "1e99"], "--seq-len"),
        (["--seq-len", "999999999999999999999"], "--seq-len"),
        (["--grad-accum", "x"], "--grad-accum"),
        (["--gpus", "0"], "--gpus"),
        (["--method", "lorra"], "--method"),
        (["--precision", "int3"], "--precision"),
        (["--optimizer", "adam"], "--optimizer"),
        (["--quantization", "nf4", "--method", "full"], "--quantization"),
        (["--target-modules", "no_such_proj"], "--target-modules"),
        (["--target-modules", ","], "--target-modules"),
        (["--dataset-tokens", "-1"], "--dataset-tokens"),
        (["--stack", "keras"], "--stack"),
        (["--gpu", "rtx 4091"], "rtx 4091"),
        (["--gpu", "0GB"], "0GB"),
        (["--gpu", "-3GiB"], "-3GiB"),
        (["--model", "lama-70b"], "lama-70b"),
        (["--model", ""], "model"),
        (["--model", "/no/such/dir"], "/no/such/dir"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("command", [[], ["estimate"]], ids=["advise", "estimate"])
def test_bad_input_is_one_line_that_names_it(
    command: list[str], arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = [part for flag, name in zip(MAIN_JOB[::2], MAIN_JOB[1::2], strict=True) if flag not in arguments for part in (flag, name)]
    assert run([*command, *job, *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert names in shown.err


# (what is said twice, the line)
REPEATED = [
    (["--gpu", "24GB", "--gpu", "t4"], "--gpu is given 2 times: give it once; several equal cards are --gpus N"),
    (["-g", "24GB", "--gpu", "t4"], "--gpu is given 2 times: give it once; several equal cards are --gpus N"),
    (["--model", "llama-8b"], "--model is given 2 times: give it once"),
    (["--rank", "8", "--rank", "16", "--rank", "32"], "--rank is given 3 times: give it once"),
    (["--method", "lora", "--method", "lora"], "--method is given 2 times: give it once"),
    (["--checkpointing", "--no-checkpointing"], "--checkpointing is given 2 times: give it once"),
]


@pytest.mark.parametrize(("arguments", "line"), REPEATED, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
@pytest.mark.parametrize("command", [[], ["estimate"], ["trace"], ["config"]], ids=lambda command: " ".join(command) or "advise")
def test_an_option_that_is_given_twice_is_refused(
    command: list[str], arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not command and "--gpu" in arguments:
        pytest.skip("the main command compares several cards")
    assert run([*command, "--model", "llama-70b", *arguments]) == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_a_plain_switch_may_be_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gpus", "h100", "--json", "--json"]) == 0


# (option, as it is written, what it means)
WRITTEN = [
    ("method", "LoRA", Method.LORA),
    ("method", "QLoRA", Method.QLORA),
    ("method", "Full", Method.FULL),
    ("optimizer", "adamw_bnb_8bit", Optimizer.ADAMW_8BIT),
    ("optimizer", "adamw_hf", Optimizer.ADAMW),
    ("optimizer", "AdamW_Torch_Fused", Optimizer.ADAMW_FUSED),
    ("optimizer", "paged_adamw", Optimizer.PAGED_ADAMW_32BIT),
    ("optimizer", "lion", Optimizer.LION_32BIT),
    ("attention", "flash_attention_2", Attention.FLASH),
    ("attention", "SDPA", Attention.SDPA),
    ("precision", "bfloat16", Precision.BF16),
    ("precision", "BF16_AMP", Precision.BF16_AMP),
    ("quantization", "NF4", Quantization.NF4),
    ("stack", "LLaMA-Factory", Stack.LLAMAFACTORY),
    ("stack", "TRL", Stack.TRL),
    ("stack", "ms_swift", Stack.MS_SWIFT),
    ("stack", "transformers", Stack.HF),
    ("task", "Math", Task.MATH),
    ("seq_len", "4k", 4096),
    ("seq_len", "2K", 2048),
    ("seq_len", "4,096", 4096),
    ("seq_len", "4_096", 4096),
    ("seq_len", "1.5k", 1536),
    ("seq_len", "1M", 1_048_576),
    ("dataset_tokens", "30M", 30_000_000),
    ("dataset_tokens", "20B", 20_000_000_000),
    ("dataset_tokens", "1.1k", 1100),
    ("dataset_tokens", "1_000", 1000),
    ("rank", "1,024", 1024),
    ("gpus", "8", 8),
]


@pytest.mark.parametrize(("option", "written", "meant"), WRITTEN)
def test_options_take_the_words_and_numbers_that_people_write(option: str, written: str, meant: object) -> None:
    assert getattr(request_from({option: written}), option) == meant
    assert getattr(Request(**{option: written}), option) == meant


@given(st.integers(1, 10**9))
def test_marks_between_thousands_change_no_number(number: int) -> None:
    assert {request_from({"seq_len": text}).seq_len for text in (number, str(number), f"{number:,}", f"{number:_}")} == {number}


@given(st.integers(1, 10**5))
def test_a_thousand_tokens_of_a_length_are_1024_and_of_data_1000(thousands: int) -> None:
    request = request_from({"seq_len": f"{thousands}k", "dataset_tokens": f"{thousands}k"})
    assert (request.seq_len, request.dataset_tokens) == (thousands * 1024, thousands * 1000)


# (option, as it is written, words of the line)
NOT_TAKEN = [
    ("method", "lorra", "did you mean lora?"),
    ("method", "qdoar", "did you mean qdora?"),
    ("optimizer", "adamw_torch_fsued", "did you mean adamw_torch_fused?"),
    ("optimizer", "adamw_bnb_8bits", "did you mean adamw_bnb_8bit?"),
    ("optimizer", "muon", "adamw_torch_fused keeps no less"),
    ("optimizer", "adamw_torch_4bit", "adamw_8bit keeps no less"),
    ("stack", "axolottl", "did you mean axolotl?"),
    ("attention", "flashattention", "did you mean flash"),
    ("seq_len", "9" * 5000, "exceeded maximum size"),
    ("seq_len", "4kk", "must be a valid integer"),
    ("seq_len", "3B", "must be a valid integer"),
    ("seq_len", "4,09", "must be a valid integer"),
    ("seq_len", "1.0001k", "must be a valid integer"),
    ("rank", "4k", "must be a valid integer"),
    ("rank", "1__6", "must be a valid integer"),
    ("rank", True, "must be a valid integer"),
    ("gpus", "200,000", "must be less than or equal to 100000"),
    ("batchsize", 4, "there is no such option; did you mean batch_size?"),
]


@pytest.mark.parametrize(("option", "written", "words"), NOT_TAKEN)
def test_what_is_not_taken_is_offered_the_nearest(option: str, written: object, words: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(words)) as caught:
        request_from({option: written})
    assert str(caught.value).startswith(f"--{option.replace('_', '-')}")
    assert "\n" not in str(caught.value)


INTERRUPTED = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with the signal ignored
from advisor import api
api.advise = lambda *names, **options: os.kill(os.getpid(), signal.SIGINT)
from advisor.cli import main
main()
"""


@pytest.mark.parametrize(
    ("text", "lengths"),
    [("", ()), ("512", (512,)), ("230,485,683", (230, 485, 683)), (" 230 , 485,", (230, 485)), ("512,4k", (512, 4096))],
    ids=repr,
)
def test_lengths(text: str, lengths: tuple[int, ...]) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize("text", ["0", "-1", "12x", "1.5", "1,,0", "9" * 50])
def test_bad_lengths_are_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "--model", "llama-3.1-8b", "--lengths", text]) == 2
    assert capsys.readouterr().err.startswith(f"error: --lengths {text}: ")


def test_an_interrupt_ends_cleanly_in_a_real_process() -> None:
    done = advise(*MAIN_JOB, code=INTERRUPTED)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_a_reader_that_stops_early_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from advisor.cli import main; main()", "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


# What is printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"finetune-advisor {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["estimate", "--help"], ["models", "-h"], ["gpus", "-h"]], ids=" ".join)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert "Usage: advise" in capsys.readouterr().out


def test_json_is_the_same_advice() -> None:
    done = advise(*MAIN_JOB, "--json")
    assert done.returncode == 0
    assert Advice.model_validate_json(done.stdout) == api.advise("llama-70b", "80GB")
    assert json.loads(done.stdout)["schema_version"] == "2"


def test_estimate_json_has_the_promised_fields() -> None:
    done = advise("estimate", *MAIN_JOB, "--method", "qlora", "--json")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    promised = "peak_allocated_bytes peak_reserved_bytes process_bytes low_bytes expected_bytes high_bytes peak_phase terms phases source"
    assert set(promised.split()) <= set(data)
    assert MemoryBreakdown.model_validate(data) == api.estimate("llama-70b", gpu="80GB", method="qlora")


@pytest.mark.parametrize(("gpu", "exit_code"), [("8GB", 1), ("80GB", 0)])
def test_estimate_says_whether_it_fits(gpu: str, exit_code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "--model", "llama-3.1-8b", "--gpu", gpu, "--method", "lora", "--rank", "8"]) == exit_code
    assert "usable\n" in capsys.readouterr().out


def test_estimate_needs_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "--model", "llama-3.1-8b"]) == 0
    assert "CUDA context" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [MAIN_JOB, [*MAIN_JOB, "--json"], ["models"], ["gpus"], ["--help"]], ids=" ".join)
def test_a_terminal_that_is_not_utf8_gets_ascii(arguments: list[str]) -> None:
    done = advise(*arguments, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


@pytest.mark.parametrize("columns", ["20", "80", "140", "400"])
def test_the_screen_keeps_to_the_terminal(columns: str) -> None:
    shown = advise("gpus", "h100", env={"COLUMNS": columns}).stdout
    assert "H100" in shown
    assert max(map(len, shown.splitlines())) <= max(80, min(140, int(columns)))


@pytest.mark.parametrize("words", [["qwen", "7b"], []], ids=["qwen 7b", "all"])
def test_models_holds_every_word(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found
    assert all(word in json.dumps(row).lower() for row in found for word in words)


def test_accuracy_prints_every_scored_run(capsys: pytest.CaptureFixture[str]) -> None:
    reports = api.accuracy()
    assert run(["accuracy"]) == 0
    screen = capsys.readouterr().out
    readings = {(item.id, item.metric, item.seq_len_tokens) for report in reports for item in report.comparisons}
    assert len(re.findall(r"\d × \d", screen)) == len(readings)
    assert run(["accuracy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(report["tier"], report["unsafe_fits"]) for report in found] == [(report.tier, list(report.unsafe_fits)) for report in reports]


def test_accuracy_of_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["accuracy", "--rows", "nowhere.json"]) == 2
    assert capsys.readouterr().err == "error: nowhere.json cannot be read: there is no such file\n"


def test_gpus_json_are_specs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gpus", "rtx", "4090", "--json"]) == 0
    assert [card["name"] for card in json.loads(capsys.readouterr().out)] == [card.name for card in _cards("rtx 4090")]


def _cards(words: str) -> Any:
    from advisor.devices import search_gpus

    return search_gpus(words)
