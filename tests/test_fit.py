"""Questions asked backwards: answers agree with brute force over `estimate`, and say what one step more would need."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import cache
from math import sqrt
from typing import Any

import pytest
from hypothesis import given, strategies as st

from advisor import Fit, GpuSpec, InvalidInputError, ModelSpec, estimate, fit
from advisor.backwards.lengths import MOST_SEQUENCES
from advisor.backwards.search import Found, largest_fit
from advisor.cli.run import run
from advisor.devices import load_gpu, search_gpus
from advisor.hub import load_model, profile_spec, search_models
from advisor.ladder import plan_from_request, request_from
from advisor.ladder.fit import FAR_TOKENS
from advisor.render.fit import fit as screen
from advisor.render.terminal import Look, draw
from advisor.speed import step_time
from advisor.values.question import FitAnswer, Unknown

MODELS = (
    *("gpt2", "bert-base-uncased", "opt-1.3b", "pythia-1.4b", "tinyllama"),  # few positions: every length is tried
    *("gemma-2-2b", "gemma-3-1b", "mistral-7b-v0.1", "phi-3-mini-4k"),  # windows
    *("llama-3.1-8b", "qwen2.5-7b", "mixtral-8x7b"),
)
CARDS = ("rtx 3060", "t4", "rtx 4090", "a100 40gb", "h100", "10GiB", "1.5GiB", "2.2GiB")
EVERY = 2048
"""Numbers up to which each is tried; beyond them those around the answer and the kinks, and some at random."""


@cache
def model_of(name: str) -> ModelSpec:
    return load_model(name)


@cache
def card_of(name: str) -> GpuSpec:
    return load_gpu(name)


def options_of(draw: random.Random, model: ModelSpec) -> dict[str, Any]:
    options: dict[str, Any] = {
        "method": draw.choice(("lora", "qlora", "full")),
        "stack": draw.choice(("hf", "trl", "plain", "axolotl")),
        "optimizer": draw.choice(("adamw_torch", "adamw_8bit", "sgd")),
        "rank": draw.choice((4, 16, 64)),
    }
    optional = {"checkpointing": (True, False), "grad_accum": (1, 2, 16), "attention": ("sdpa", "eager"), "loss": ("full", "fused")}
    optional["padding"] = (True, False)
    for name, values in optional.items():
        if draw.random() < 0.5:
            options[name] = draw.choice(values)
    if "loss" in options and not _takes(model, options):
        del options["loss"]
    return options


def _takes(model: ModelSpec, options: dict[str, Any]) -> bool:
    """Whether the loop's kernels know the model."""
    try:
        plan_from_request(model, None, request_from(options))
    except InvalidInputError:
        return False
    return model.kind.value == "decoder"


def verdict(model: ModelSpec, card: GpuSpec, options: dict[str, Any]) -> Fit:
    """What `estimate` says: fits where the whole interval is within the card."""
    memory = estimate(model, gpu=card, use_calibrations=False, **options)
    if memory.high_bytes <= card.usable_bytes:
        return Fit.FITS
    return Fit.DOES_NOT_FIT if memory.low_bytes > card.usable_bytes else Fit.UNCERTAIN


def numbers(draw: random.Random, limit: int, near: Iterable[int]) -> list[int]:
    """Every number where there are few; else the first ones, all around those that matter, and some at random."""
    if limit <= EVERY:
        return [*range(1, limit + 1)]
    around = {number + step for number in near for step in range(-40, 41)}
    return sorted(n for n in {*range(1, 65), *around, limit, *(draw.randint(1, limit) for _ in range(60))} if 1 <= n <= limit)


def check_number(draw: random.Random, unknown: Unknown) -> None:
    model, card = model_of(draw.choice(MODELS)), card_of(draw.choice(CARDS))
    options = options_of(draw, model)
    if draw.random() < 0.3:
        options |= {"gpus": draw.choice((2, 5, 8)), "shard": draw.choice(("ddp", "fsdp1", "fsdp2", "zero1", "zero2", "zero3"))}
    if unknown is Unknown.SEQ_LEN:
        options["batch_size"] = draw.choice((1, 2, 7))
        limit = model.max_position_tokens or FAR_TOKENS
        kinks = {block.attention.window_tokens or 1 for block in model.shape.blocks}
    else:
        options["seq_len"] = draw.choice((64, 300, 512))
        limit, kinks = MOST_SEQUENCES, set(range(1, 17))
    answer = fit(model, card, use_calibrations=False, **{unknown.value: "max"}, **options)
    best, unsure = int(answer.value or 0), int(answer.uncertain_to or answer.value or 0)
    for number in numbers(draw, limit, {best, unsure, *kinks}):
        said = verdict(model, card, {**options, unknown.value: number})
        assert said is not Fit.FITS or number <= best
        assert said is Fit.DOES_NOT_FIT or number <= unsure
    if best:
        memory = estimate(model, gpu=card, use_calibrations=False, **{**options, unknown.value: best})
        assert answer.memory == memory
        assert memory.high_bytes <= card.usable_bytes
    assert answer.exit_code == (0 if best else 3 if unsure else 1)
    if best < limit:
        assert answer.beyond is not None
        more = estimate(model, gpu=card, use_calibrations=False, **{**options, unknown.value: best + 1})
        assert (answer.beyond.value, answer.beyond.high_bytes) == (str(best + 1), more.high_bytes)
        assert answer.beyond.phase is more.peak_phase
        assert answer.limited_by == "memory"
    else:
        assert answer.beyond is None
        assert answer.limited_by == ("model" if limit == model.max_position_tokens else "search")


def check_number_of_cards(draw: random.Random) -> None:
    model = model_of(draw.choice(("llama-3.1-8b", "mixtral-8x7b", "gemma-2-2b", "qwen2.5-7b")))
    card, shard = card_of(draw.choice(CARDS)), draw.choice(("fsdp2", "zero3", "ddp", None))
    options = {**options_of(draw, model), "method": draw.choice(("lora", "full"))}
    answer = fit(model, card, gpus="min", use_calibrations=False, shard=shard, **options)
    found = next((n for n in range(1, 65) if verdict(model, card, {**options, **_on(n, shard)}) is Fit.FITS), None)
    assert answer.value == (None if found is None else str(found))


def _on(number: int, shard: str | None) -> dict[str, Any]:
    return {"gpus": number, "shard": shard or "fsdp2"} if number > 1 else {"gpus": 1}


def check_cheapest(draw: random.Random) -> None:
    model = model_of(draw.choice(("llama-3.1-8b", "gemma-2-2b", "mixtral-8x7b")))
    options = {**options_of(draw, model), "seq_len": draw.choice((256, 1024, 4096))}
    answer = fit(model, "cheapest", use_calibrations=False, **options)
    costs = {}
    for card in (card for card in search_gpus() if card.prices):
        if verdict(model, card, options) is Fit.FITS:
            time = step_time(model, plan_from_request(model, card, request_from(options)), card, 10**6)
            if time is not None and time.usd is not None:
                costs[card.name] = sqrt(time.usd.low * time.usd.high)
    assert answer.value == min(costs, key=lambda name: (costs[name], name)) if costs else answer.exit_code != 0


KINDS: tuple[Callable[[random.Random], None], ...] = (
    lambda draw: check_number(draw, Unknown.SEQ_LEN),
    lambda draw: check_number(draw, Unknown.BATCH_SIZE),
    check_number_of_cards,
    check_cheapest,
)


@pytest.mark.parametrize("seed", [*range(60), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(60, 1000))])
def test_answers_agree_with_brute_force_over_estimate(seed: int) -> None:
    draw = random.Random(seed)
    draw.choices(KINDS, weights=(9, 9, 3, 1))[0](draw)


@pytest.mark.parametrize(("gpu", "method"), [("24GB", "qlora"), ("10GiB", "full")])
def test_no_larger_known_model_fits(gpu: str, method: str) -> None:
    answer, card = fit("largest", gpu, method=method, seq_len=512, use_calibrations=False), load_gpu(gpu)
    rows = sorted(search_models(), key=lambda row: (-(row.params or 0), row.id))
    specs = (profile_spec(row) for row in rows)
    fitting = (spec for spec in specs if spec.tables is not None and _fits(spec, card, {"method": method, "seq_len": 512}))
    assert answer.value == next(fitting).id


def _fits(model: ModelSpec, card: GpuSpec, options: dict[str, Any]) -> bool:
    from advisor import AdvisorError

    try:
        return verdict(model, card, options) is Fit.FITS
    except AdvisorError:
        return False


@given(st.lists(st.integers(2, 300), max_size=5), st.integers(1, 300), st.data())
def test_the_search_is_that_of_every_number(kinks: list[int], limit: int, data: st.DataObject) -> None:
    """Whatever fits between two kinks: from each on up to a number of its own."""
    starts = sorted({1, *(kink for kink in kinks if kink <= limit)})
    sizes = {start: (data.draw(st.integers(0, 300)), data.draw(st.integers(0, 300))) for start in starts}

    def verdict(number: int) -> Fit:
        start = max(start for start in starts if start <= number)
        fits, may = sizes[start]
        return Fit.FITS if number - start < fits else Fit.UNCERTAIN if number - start < fits + may else Fit.DOES_NOT_FIT

    every = range(1, limit + 1)
    fits = max((number for number in every if verdict(number) is Fit.FITS), default=0)
    may = max((number for number in every if verdict(number) is not Fit.DOES_NOT_FIT), default=0)
    assert largest_fit(verdict, limit, kinks) == Found(fits, may)


# ------------------------------------------------------------------------------------------------------------- trades

ASKED = [
    # what is asked, and changes that must be among the rows
    ({"model": "llama-3.1-8b", "gpu": "rtx 4090", "method": "qlora", "seq_len": "max"}, ("checkpointing", "fused", "8bit", "sequences")),
    ({"model": "llama-3.1-8b", "gpu": "h100", "method": "lora", "seq_len": 2048, "batch_size": "max"}, ("fused", "4 bit")),
    ({"model": "llama-3.1-8b", "gpu": "h100", "method": "full", "gpus": "min"}, ("checkpointing", "8bit", "fused")),
    ({"model": "qwen2.5-7b", "gpu": "cheapest", "method": "dora", "checkpointing": True}, ("fused", "4 bit")),
]


@pytest.mark.parametrize(("asked", "changes"), ASKED)
def test_each_row_takes_less_and_names_the_one_change_to_the_next(asked: dict[str, Any], changes: tuple[str, ...]) -> None:
    answer = fit(**asked, use_calibrations=False)
    rows = answer.trades
    assert sum(row.asked for row in rows) == 1
    assert [row.plan for row in rows if row.asked] == [answer.plan]
    highs = [row.memory.high_bytes for row in rows]
    assert highs == sorted(set(highs), reverse=True)
    assert all(row.change and row.cost for row in rows[:-1])
    assert rows[-1].change == ""
    said = " ".join(row.change for row in rows)
    assert all(change in said for change in changes), said
    for row in rows:
        assert row.memory == estimate(answer.model.id if answer.model else "", row.plan, answer.gpu, use_calibrations=False)


def test_what_is_no_place_to_stay_is_said() -> None:
    """Of rows of one method and length the last is never beaten; a row is where a later one is as fast."""
    rows = fit("llama-3.1-8b", "rtx 4090", method="qlora", seq_len="max", use_calibrations=False).trades
    slow = [0.0 if row.step_time is None else row.step_time.tokens_per_s.low for row in rows]
    kinds = [(row.plan.method, row.plan.seq_len_tokens) for row in rows]
    for index, row in enumerate(rows):
        assert row.beaten == any(kinds[later] == kinds[index] and slow[later] >= slow[index] for later in range(index + 1, len(rows)))
    assert 0 < sum(row.beaten for row in rows) < len(rows)


def test_what_was_given_is_not_traded() -> None:
    answer = fit(
        "llama-3.1-8b", "rtx 4090", method="lora", batch_size="max", seq_len=512, checkpointing=True, optimizer="adamw_torch", loss="full"
    )
    fields = ("seq_len_tokens", "gradient_checkpointing", "optimizer", "loss")
    assert len({tuple(getattr(row.plan, name) for name in fields) for row in answer.trades}) == 1


# ----------------------------------------------------------------------------------------------------- what is asked, and shown

REFUSED = [
    ({"model": "llama-3.1-8b", "gpu": "24GB"}, "nothing is asked for: give one of seq_len='max'"),
    ({"model": "llama-3.1-8b", "gpu": "24GB", "seq_len": "max", "batch_size": "max"}, "seq_len='max' and batch_size='max': ask for one"),
    ({"model": "largest", "gpu": "cheapest"}, "gpu='cheapest' and model='largest': ask for one"),
    ({"model": None, "gpu": "24GB", "seq_len": "max"}, "model is missing"),
    ({"model": "llama-3.1-8b", "gpu": "24GB", "seq_len": "max", "batch_size": "many"}, "batch_size='many'"),
    ({"model": "llama-3.1-8b", "gpu": "24GB", "seq_len": "max", "seqlen": 5}, "seqlen: there is no such option"),
]


@pytest.mark.parametrize(("asked", "says"), REFUSED)
def test_refused_in_one_line(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        fit(**asked)
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


COMMANDS = [
    ("--model llama-3.1-8b --method qlora --gpu 24GB --seq-len max", 0),
    ("--model llama-3.1-8b --method lora --gpu 24GB --seq-len 512 --batch-size max", 3),
    ("--model llama-70b --method lora --gpu 24GB --seq-len max", 1),
    ("--model llama-3.1-8b --method full --gpu 80GB --gpus min", 0),
    ("--model llama-3.1-8b --method full --gpu cheapest", 0),
    ("--model llama-3.1-8b --gpu 24GB", 2),
]


@pytest.mark.parametrize(("arguments", "code"), COMMANDS)
def test_exit_code_and_json(arguments: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", *arguments.split(), "--no-calibration"]) == code
    text = capsys.readouterr().out
    assert run(["fit", *arguments.split(), "--no-calibration", "--json"]) == code
    if code == 2:
        return
    answer = FitAnswer.model_validate_json(capsys.readouterr().out)
    assert answer.exit_code == code
    assert " ".join(text.split()).endswith(answer.sentence)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_screen_keeps_to_the_terminal(width: int) -> None:
    for asked, _ in ASKED[:3]:
        text = draw(screen(fit(**asked, use_calibrations=False)), Look(width=width))
        assert max(map(len, text.splitlines())) <= width


def test_one_step_more_says_what_it_needs() -> None:
    answer = fit("llama-3.1-8b", "rtx 4090", method="qlora", seq_len="max", use_calibrations=False)
    assert answer.beyond is not None
    assert f"{int(answer.value or 0) + 1:,} need up to " in answer.sentence
    assert answer.beyond.high_bytes > answer.beyond.usable_bytes
    assert f"({answer.beyond.phase.value}: {answer.beyond.term.value.replace('_', ' ')})" in answer.sentence
