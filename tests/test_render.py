"""Whole screens, and the laws that every screen keeps. The records are made by hand: what computes them is tested elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import samples

from advisor.api import Priced
from advisor.hub import search_models
from advisor.render import page, words
from advisor.render.advice import advice
from advisor.render.bars import Bar, bars
from advisor.render.estimate import estimate
from advisor.render.listings import NOTHING_FOUND, gpus, models
from advisor.render.page import Look
from advisor.units import GIB
from advisor.values import Advice, Fit, Method, Plan, Quantization, Range, Verdict

Screen = Callable[[str, str], None]
LOOKS = [Look(width=width) for width in (80, 100, 131, 132, 140)]


def nothing_fits() -> Advice:
    rungs = tuple(rung for rung in samples.advice().rungs if rung.fit is Fit.DOES_NOT_FIT)
    verdict = Verdict(method=None, binding="memory", sentence="Nothing fits.")
    return samples.advice().model_copy(update={"rungs": rungs, "verdict": verdict, "snippet": ""})


def priced(fit: Fit | None = Fit.FITS) -> Priced:
    plan = Plan(method=Method.QLORA, quantization=Quantization.NF4)
    return Priced(samples.spec(), samples.gpu() if fit else None, plan, samples.memory(35.5), fit, ("sequences of 2,048 tokens",))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("advice-80.txt", advice(samples.advice(), Look(width=80))),
        ("advice-140.txt", advice(samples.advice(samples.step_time()), Look(width=140))),
        ("advice-80-ascii.txt", advice(samples.advice(), Look(width=80, unicode=False))),
        ("advice-80-nothing-fits.txt", advice(nothing_fits(), Look(width=80))),
        ("advice-80-two-gpus.txt", advice(samples.advice(n_gpus=2), Look(width=80))),
        ("estimate-80.txt", estimate(priced(), Look(width=80))),
        ("estimate-140-no-gpu.txt", estimate(priced(None), Look(width=140))),
    ],
)
def test_screen(name: str, text: str, matches_screen: Screen) -> None:
    matches_screen(name, text)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.width))
def test_no_line_is_wider_than_the_terminal_except_the_snippet(look: Look) -> None:
    screen = advice(samples.advice(samples.step_time()), look).replace(samples.SNIPPET, "")
    assert max(map(len, screen.splitlines())) <= look.width


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.width))
def test_every_rung_and_the_whole_snippet_are_on_the_screen(look: Look) -> None:
    screen = advice(samples.advice(), look)
    assert screen.endswith(samples.SNIPPET)
    for rung in samples.advice().rungs:
        assert re.search(rf"^[* ] {rung.plan.method.label}\b", screen, re.MULTILINE)


def test_the_chosen_rung_alone_is_marked() -> None:
    marked = [line.split()[1] for line in advice(samples.advice(), Look(width=140)).splitlines() if line.startswith("* ")]
    assert marked == ["QLoRA"]


def test_without_colour_there_is_no_escape_code() -> None:
    assert "\x1b" not in advice(samples.advice(), Look())


def test_colour_only_adds_escape_codes() -> None:
    coloured = advice(samples.advice(), Look(colour=True))
    assert "\x1b[1;32m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == advice(samples.advice(), Look())


def test_only_the_last_column_wraps() -> None:
    columns = [page.Column("a"), page.Column("b", ">"), page.Column("words")]
    rows = [("first", "10", "one two three four"), ("2", "9", "five")]
    drawn = page.draw(page.table(columns, rows, Look(width=20)), Look())
    assert drawn.splitlines() == [
        "a       b  words",
        "────────────────────",
        "first  10  one two",
        "           three",
        "           four",
        "2       9  five",
    ]


def test_ascii_screen_is_ascii_and_loses_no_sign() -> None:
    screen = advice(samples.advice(samples.step_time()), Look(unicode=False))
    assert screen.isascii()
    assert "?" not in screen


def test_the_same_said_of_several_rungs_is_said_once() -> None:
    screen = advice(samples.advice(), Look(width=140))
    assert screen.count("The 16-bit base alone is 131.4 GiB, more than the card.") == 1
    assert "LoRA, DoRA" in screen


def test_bar_lengths_are_shares_of_the_card() -> None:
    rows = [Bar("half", 40 * GIB), Bar("tenth", 8 * GIB), Bar("sliver", 1), Bar("rest", 32 * GIB, empty=True)]
    full, tenth, sliver, rest = (line[-1].text for line in bars(rows, 80 * GIB, Look(width=100)))
    assert len(full) == pytest.approx(5 * len(tenth), abs=3)
    assert (sliver, set(rest)) == ("▏", {"░"})


def test_a_bar_never_leaves_the_screen() -> None:
    text = page.draw(bars([Bar("far too much", 10_000 * GIB)], 80 * GIB, Look(width=80)), Look(width=80))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (words.size(0), "0.0 GiB"),
        (words.size(GIB), "1.0 GiB"),
        (words.size(1500 * GIB), "1500 GiB"),
        (words.size(80 * 2**20), "80.0 MiB"),
        (words.signed_gib(GIB), "+1.0"),
        (words.signed_gib(-GIB), "−1.0"),
        (words.number(0.1234), "0.123"),
        (words.number(12.34), "12.3"),
        (words.number(1840.2), "1,840"),
        (words.span(Range(low=1, high=1, source="")), "1.00"),
        (words.span(Range(low=1.35, high=1.66, source="")), "1.35–1.66"),
        (words.loose_span(Range(low=8.1, high=1200, source="")), "8.1–1,200"),
        (words.share(0.0029), "0.29 %"),
        (words.share(1), "100 %"),
        (words.tokens(None), "-"),
        (words.tokens(9216), "9,216"),
        (words.scaled(3_350_000_000_000, 10**9), "3,350"),
        (words.scaled(None, 10**9), "-"),
    ],
)
def test_words(made: str, expected: str) -> None:
    assert made == expected


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (
            Plan(),
            "LoRA rank 16, alpha 32, on all-linear; bf16; adamw_torch; 1 × 2,048 tokens, 1 accumulated; "
            "checkpointing on; sdpa attention; full loss; hf stack",
        ),
        (
            Plan(method=Method.QDORA, quantization=Quantization.NF4, target_modules=("q_proj", "v_proj"), autocast=True, n_gpus=2),
            "QDoRA rank 16, alpha 32, on q_proj, v_proj; nf4 double-quantised base, rest bf16 under bf16 autocast; adamw_torch; "
            "1 × 2,048 tokens, 1 accumulated; checkpointing on; sdpa attention; full loss; 2 cards (none); hf stack",
        ),
        (
            Plan(method=Method.FULL, gradient_checkpointing=False),
            "Full; bf16; adamw_torch; 1 × 2,048 tokens, 1 accumulated; checkpointing off; sdpa attention; full loss; hf stack",
        ),
    ],
)
def test_a_plan_in_one_line(plan: Plan, expected: str) -> None:
    assert words.plan(plan) == expected


def test_listings_say_so_when_nothing_matches() -> None:
    assert models((), Look()).strip() == NOTHING_FOUND
    assert gpus((), Look()).strip() == NOTHING_FOUND


def test_models_are_listed_with_kind_type_release_and_gate() -> None:
    narrow, wide = (models(search_models(words), Look(width=width)) for words, width in (("qwen3-4b 2507", 80), ("gemma-3-4b", 140)))
    assert re.search(r"^Qwen/Qwen3-4B-Instruct-2507 +4\.0 B  decoder, qwen3, 2025-07$", narrow, re.MULTILINE)
    assert re.search(r"^google/gemma-3-4b-it +4\.3 B +image-text +gemma3 +gated +gemma-3-4b", wide, re.MULTILINE)


@pytest.mark.parametrize("width", [80, 140])
def test_no_line_of_the_models_is_too_wide(width: int) -> None:
    assert max(map(len, models(search_models(), Look(width=width)).splitlines())) <= width


def test_gpu_listing_shows_what_has_no_source_as_a_dash() -> None:
    line = next(line for line in gpus((samples.gpu(),), Look()).splitlines() if "H100" in line)
    assert line.split() == ["NVIDIA", "H100", "80GB", "HBM3", "79.0", "-", "-", "-", "nvidia"]


def test_unknown_signs_become_question_marks_in_ascii() -> None:
    assert page.to_ascii("a → b × 2 — ☃") == "a -> b x 2 - ?"
