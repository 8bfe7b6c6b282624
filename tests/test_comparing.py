"""Models and cards side by side: each line says what `advise` says of the pair, and the order is of use."""

from __future__ import annotations

import json
import re

import pytest

from advisor import api
from advisor.cli.run import run
from advisor.comparing import cheapest, compare, rentable
from advisor.errors import InvalidInputError, UnknownNameError, UnsupportedError
from advisor.ladder.offers import COMPARED_TOKENS
from advisor.render.comparison import comparison
from advisor.render.terminal import Look, draw
from advisor.values import Fit

PAIRS = [
    ("llama-3.1-8b", "t4", {}),
    ("llama-3.1-8b", "l4", {"seq_len": "8k"}),
    ("llama-3.1-8b", "rtx 4090", {"method": "dora"}),
    ("qwen3-8b", "h100", {"dataset_tokens": "30M"}),
    ("llama-3.1-8b", "h100", {"dataset_tokens": "400M"}),  # rank 256, as the data ask for
    ("llama-70b", "80GB", {"stack": "trl"}),
    ("llama-3.1-8b", "g5.12xlarge", {}),
    ("gpt-oss-20b", "a100", {}),
    ("llama-3.1-8b-awq", "rtx 3060", {}),
    ("modernbert-base", "t4", {"batch_size": 32}),
    ("llama-70b", "h100", {"gpus": 4, "shard": "fsdp2"}),
]


@pytest.mark.parametrize(("model", "gpu", "options"), PAIRS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_line_says_what_the_ladder_says(model: str, gpu: str, options: dict[str, object]) -> None:
    (line,) = compare([model], [gpu], **options).offers
    answer = api.advise(model, gpu, **options)
    rung = answer.chosen
    assert rung is not None
    assert (line.method, line.fit, line.n_gpus) == (rung.plan.method, rung.fit, rung.plan.n_gpus)
    assert (line.low_bytes, line.expected_bytes, line.high_bytes) == (
        rung.memory.low_bytes,
        rung.memory.expected_bytes,
        rung.memory.high_bytes,
    )
    assert (line.max_seq_len_tokens, line.seq_len_tokens) == (rung.max_seq_len_tokens, rung.plan.seq_len_tokens)
    assert line.changes == tuple(change.what for change in rung.changes)
    if "dataset_tokens" in options:
        assert line.step_time == rung.step_time


def test_what_does_not_fit_is_called_so_by_both() -> None:
    (line,) = compare(["llama-405b"], ["h100"]).offers
    assert line.fit is Fit.DOES_NOT_FIT
    assert api.advise("llama-405b", "h100").exit_code == 1
    assert line.max_seq_len_tokens is None


def test_the_order_is_fits_then_price() -> None:
    found = compare(["llama-3.1-8b"], [*rentable()][::3])
    order = [(line.fit is not Fit.FITS, line.fit is Fit.DOES_NOT_FIT) for line in found.offers]
    assert order == sorted(order)
    prices = [line.middle_usd for line in found.offers if line.fit is Fit.FITS and line.middle_usd is not None]
    assert prices == sorted(prices)
    (best,) = cheapest(found)
    assert best.middle_usd == prices[0]


def test_models_keep_their_order_and_each_has_its_best() -> None:
    found = compare(["qwen3-8b", "llama-3.1-8b"], ["l4", "rtx 4090"])
    assert [line.model for line in found.offers] == ["Qwen/Qwen3-8B"] * 2 + ["meta-llama/Llama-3.1-8B"] * 2
    assert [line.model for line in cheapest(found)] == ["Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B"]


def test_hours_are_of_the_tokens_that_were_asked_for_or_of_a_round_number_that_is_said() -> None:
    asked, guessed = (compare(["llama-3.1-8b"], ["h100"], **options) for options in ({"dataset_tokens": "30M"}, {}))
    assert (asked.dataset_tokens, asked.asked_tokens) == (30_000_000, True)
    assert (guessed.dataset_tokens, guessed.asked_tokens) == (COMPARED_TOKENS, False)
    assert "a guess" in draw(comparison(guessed), Look(width=140))
    assert "a guess" not in draw(comparison(asked), Look(width=140))


def test_a_card_whose_memory_nobody_read_is_marked() -> None:
    """RTX A4500's row of profiles/gpus has the marketed size alone; the T4's has a driver's total."""
    screen = draw(comparison(compare(["smollm2-135m"], ["rtx a4500", "t4"])), Look(width=140))
    assert re.search(r"^RTX A4500 ~ ", screen, re.MULTILINE)
    assert re.search(r"^Tesla T4  ", screen, re.MULTILINE)


def test_a_pair_that_is_not_priced_is_told_beside_the_others() -> None:
    found = compare(["llama-3.1-8b", "llama-3.1-8b-awq"], ["rtx 4090"], method="lora")
    assert [line.model for line in found.offers] == ["meta-llama/Llama-3.1-8B"]
    assert len(found.refused) == 1
    assert found.refused[0].reason in " ".join(draw(comparison(found), Look(width=140)).split())


@pytest.mark.parametrize("width", [80, 100, 120, 140])
def test_no_line_is_too_wide(width: int) -> None:
    for models in (["llama-3.1-8b"], ["llama-3.1-8b", "qwen3-8b"]):
        found = compare(models, [*rentable()][::4])
        assert max(map(len, draw(comparison(found), Look(width=width)).splitlines())) <= width


@pytest.mark.parametrize(
    "arguments",
    [
        ["llama-3.1-8b", "t4", "l4"],
        ["--model", "llama-3.1-8b", "--gpu", "t4", "--gpu", "l4"],
        ["compare", "llama-3.1-8b", "--gpu", "t4", "-g", "l4"],
    ],
)
def test_several_cards_are_compared_however_they_are_given(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [line["gpu"]["name"] for line in found["offers"]] == ["L4", "Tesla T4"][
        :: 1 if found["offers"][0]["gpu"]["name"] == "L4" else -1
    ]


def test_gpus_for_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gpus", "rtx", "40", "--for", "llama-3.1-8b", "--method", "qlora"]) == 0
    out = capsys.readouterr().out
    assert "RTX 4090" in out
    assert "LoRA *" not in out.replace("QLoRA *", "")
    assert out.splitlines()[-1].endswith("tokens.") or "by the middle of its price" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["gpus", "--rank", "8"], "--rank: say for which model, with --for MODEL"),
        (["gpus", "no", "such", "card", "--for", "llama-3.1-8b"], "no card's name holds"),
        (["llama-3.1-8b", "t4", "l4", "--full"], "--full is of one card"),
        (["llama-3.1-8b", "t4", "l4", "--trace"], "--trace is of one card"),
        (["compare", "llama-3.1-8b", "--gpu", "rtx 4091"], "rtx 4091"),
        (["compare", "lama-3.1-8b", "--gpu", "t4"], "did you mean"),
        (["compare"], "Missing argument"),
    ],
)
def test_what_cannot_be_compared_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert line in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(("models", "gpus", "error"), [([], ["t4"], InvalidInputError), (["llama-3.1-8b"], [], InvalidInputError)])
def test_nothing_to_compare(models: list[str], gpus: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        compare(models, gpus)


def test_names_that_mean_nothing() -> None:
    with pytest.raises(UnknownNameError):
        compare(["llama-3.1-8b"], ["t4", "rtx 4091"])
    with pytest.raises(UnsupportedError):
        compare(["llama-3.1-8b-awq"], ["rtx 4090"], method="lora")
