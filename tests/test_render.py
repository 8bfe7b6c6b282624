"""Whole screens, and the laws that every screen keeps. The records are made by hand: what computes them is tested elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import samples

from advisor.api import Priced
from advisor.hub import search_models
from advisor.ladder.knowledge import fact
from advisor.render import words
from advisor.render.advice import advice
from advisor.render.blocks import Bar, Bars, Block, Code, Column, Entries, Heading, Span, Stacked, entries, paragraph, table
from advisor.render.estimate import estimate
from advisor.render.listings import NOTHING_FOUND, gpus, models
from advisor.render.summary import summary
from advisor.render.terminal import Look, draw, readable
from advisor.units import GIB
from advisor.values import Advice, Fit, Masters, Method, Offload, Plan, Quantization, Range, Sharding, Verdict

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
        ("advice-80.txt", draw(advice(samples.advice()), Look(width=80))),
        ("advice-140.txt", draw(advice(samples.advice(samples.step_time())), Look(width=140))),
        ("advice-80-ascii.txt", draw(advice(samples.advice()), Look(width=80, unicode=False))),
        ("advice-80-nothing-fits.txt", draw(advice(nothing_fits()), Look(width=80))),
        ("advice-80-two-gpus.txt", draw(advice(samples.advice(n_gpus=2)), Look(width=80))),
        ("summary-100.txt", draw(summary(samples.advice(samples.step_time())), Look(width=100))),
        ("summary-80-nothing-fits.txt", draw(summary(nothing_fits()), Look(width=80))),
        ("summary-80-ascii.txt", draw(summary(samples.advice()), Look(width=80, unicode=False))),
        ("estimate-80.txt", draw(estimate(priced()), Look(width=80))),
        ("estimate-140-no-gpu.txt", draw(estimate(priced(None)), Look(width=140))),
    ],
)
def test_screen(name: str, text: str, matches_screen: Screen) -> None:
    matches_screen(name, text)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.width))
def test_no_line_is_wider_than_the_terminal_except_the_snippet(look: Look) -> None:
    screen = draw(advice(samples.advice(samples.step_time())), look).replace(samples.SNIPPET, "")
    assert max(map(len, screen.splitlines())) <= look.width


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.width))
def test_every_rung_and_the_whole_snippet_are_on_the_screen(look: Look) -> None:
    screen = draw(advice(samples.advice()), look)
    assert samples.SNIPPET in screen
    for rung in samples.advice().rungs:
        assert re.search(rf"^[* ] {rung.plan.method.label}\b", screen, re.MULTILINE)


def test_the_chosen_rung_alone_is_marked() -> None:
    marked = [line.split()[1] for line in draw(advice(samples.advice()), Look(width=140)).splitlines() if line.startswith("* ")]
    assert marked == ["QLoRA"]


def test_without_colour_there_is_no_escape_code() -> None:
    assert "\x1b" not in draw(advice(samples.advice()), Look())


def test_colour_only_adds_escape_codes() -> None:
    coloured = draw(advice(samples.advice()), Look(colour=True))
    assert "\x1b[1;32m" in coloured
    assert without_escapes(coloured) == draw(advice(samples.advice()), Look())


def without_escapes(text: str) -> str:
    """The text without styles (ECMA-48 SGR) and links (OSC 8)."""
    return re.sub(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\", "", text)


def test_facts_in_brackets_link_to_their_sources() -> None:
    coloured = draw([paragraph("the gap shrinks with size [Q7, Q8], not [Q999]")], Look(colour=True))
    links = re.findall(r"\x1b\]8;id=\d+;([^\x1b]*)\x1b\\(?:\x1b\[[0-9;]*m)*(\w+)", coloured)
    assert links == [(fact("Q7").url, "Q7"), (fact("Q8").url, "Q8")]


MARKUP = "[bold]not markup[/bold] [link=http://x]y[/link] :smile: \x1b[31m \u202e"


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(
    "block",
    [
        Heading(MARKUP),
        paragraph(MARKUP),
        entries([("label", MARKUP)]),
        Entries(((MARKUP, Span("text")),)),
        table([Column("header")], [(MARKUP,)]),
        table([Column(MARKUP), Column("")], [("", "")]),
        Bars((Bar(MARKUP, 1),), 2),
        Stacked((Bar(MARKUP, 1),), 2, 1, 1),
        Code(MARKUP),
        Code(MARKUP, "python"),
    ],
    ids=lambda block: type(block).__name__,
)
def test_what_others_wrote_is_text_and_nothing_else(block: Block, colour: bool) -> None:
    drawn = without_escapes(draw([block], Look(width=140, colour=colour)))
    assert "[bold]not markup[/bold] [link=http://x]y[/link] :smile: \\x1b[31m \\u202e" in drawn


def test_only_the_last_column_wraps() -> None:
    columns = [Column("a"), Column("b", ">"), Column("words")]
    rows = [("first", "10", "one two three four"), ("2", "9", "five")]
    drawn = draw([table(columns, rows)], Look(width=20))
    assert drawn.splitlines() == [
        "a       b  words",
        "────────────────────",
        "first  10  one two",
        "           three",
        "           four",
        "2       9  five",
    ]


def test_ascii_screen_is_ascii_and_loses_no_sign() -> None:
    screen = draw(advice(samples.advice(samples.step_time())), Look(unicode=False))
    assert screen.isascii()
    assert "?" not in screen


def test_the_same_said_of_several_rungs_is_said_once() -> None:
    screen = draw(advice(samples.advice()), Look(width=140))
    assert screen.count("The 16-bit base alone is 131.4 GiB, more than the card.") == 1
    assert "LoRA, DoRA" in screen


def test_bar_lengths_are_shares_of_the_card() -> None:
    rows = (Bar("half", 40 * GIB), Bar("tenth", 8 * GIB), Bar("sliver", 1), Bar("rest", 32 * GIB, empty=True))
    full, tenth, sliver, rest = (line.split()[-1] for line in draw([Bars(rows, 80 * GIB)], Look(width=100)).splitlines())
    assert len(full) == pytest.approx(5 * len(tenth), abs=3)
    assert (sliver, set(rest)) == ("▏", {"░"})


def stacked(expected: int, low: int, high: int) -> Stacked:
    """A bar of two parts, on a card of 80 GiB."""
    parts = (Bar("weights", expected * GIB - GIB // 4), Bar("adapter", GIB // 4))
    return Stacked(parts, 80 * GIB, low * GIB, high * GIB)


@pytest.mark.parametrize("block", [Bars((Bar("far too much", 10_000 * GIB),), 80 * GIB), stacked(10_000, 9_000, 11_000)])
def test_a_bar_never_leaves_the_screen(block: Block) -> None:
    assert max(map(len, draw([block], Look(width=80)).splitlines())) <= 80


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize(("expected", "low", "high"), [(40, 38, 44), (1, 0, 2), (79, 75, 85), (160, 150, 200)])
def test_a_bar_of_parts_is_to_scale_with_its_interval_and_the_card(expected: int, low: int, high: int, unicode: bool) -> None:
    """Columns are counted from the drawn text itself: GiB a column by the scale, rounded to half a column on each side."""
    bar, marks, *_ = draw([stacked(expected, low, high)], Look(width=100, unicode=unicode)).splitlines()
    gib_per_column = max(80, high) / 96
    taken = len(bar.replace("·", "").replace("│", "").strip(" .|"))
    assert taken * gib_per_column == pytest.approx(expected, abs=gib_per_column)
    start, end = (marks.index(sign) - 2 for sign in ("├┤" if unicode else "[]"))
    assert start * gib_per_column == pytest.approx(low, abs=gib_per_column)
    assert end * gib_per_column == pytest.approx(high, abs=gib_per_column)
    edge = (marks if high > 80 else bar).index("│" if unicode else "|") - 2
    assert edge * gib_per_column == pytest.approx(80, abs=gib_per_column)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (words.size(0), "0.0 GiB"),
        (words.size(GIB), "1.0 GiB"),
        (words.size(1500 * GIB), "1,500 GiB"),
        (words.size(80 * 2**20), "80.0 MiB"),
        (words.signed_gib(GIB), "+1.0"),
        (words.signed_gib(-GIB), "−1.0"),
        (words.number(0.1234), "0.123"),
        (words.number(12.34), "12.3"),
        (words.number(1840.2), "1,840"),
        (words.span(Range(low=1, high=1, source="")), "1.00"),
        (words.span(Range(low=1.35, high=1.66, source="")), "1.35–1.66"),
        (words.loose_span(Range(low=8.1, high=1200, source="")), "8.10–1,200"),
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
            Plan(method=Method.FULL, sharding=Sharding.ZERO3, masters=Masters.COPIED, offload=(Offload.OPTIMIZER,)),
            "Full; bf16; adamw_torch; 1 × 2,048 tokens, 1 accumulated; checkpointing on; sdpa attention; full loss; "
            "1 card (zero3, optimizer on the host); hf stack",
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
    assert draw(models(()), Look()).strip() == NOTHING_FOUND
    assert draw(gpus(()), Look()).strip() == NOTHING_FOUND


def test_models_are_listed_with_kind_type_release_and_gate() -> None:
    narrow, wide = (draw(models(search_models(words)), Look(width=width)) for words, width in (("qwen3-4b 2507", 80), ("gemma-3-4b", 140)))
    assert re.search(r"^Qwen/Qwen3-4B-Instruct-2507 +4\.0 B  decoder, qwen3, 2025-07$", narrow, re.MULTILINE)
    assert re.search(r"^google/gemma-3-4b-it +4\.3 B +image-text +gemma3 +gated +gemma-3-4b", wide, re.MULTILINE)


@pytest.mark.parametrize("width", [80, 140])
def test_no_line_of_the_models_is_too_wide(width: int) -> None:
    assert max(map(len, draw(models(search_models()), Look(width=width)).splitlines())) <= width


def test_gpu_listing_shows_what_has_no_source_as_a_dash() -> None:
    line = next(line for line in draw(gpus((samples.gpu(),)), Look()).splitlines() if "H100" in line)
    assert line.split() == ["NVIDIA", "H100", "80GB", "HBM3", "79.0", "-", "-", "-", "nvidia"]


def test_unknown_signs_become_question_marks_in_ascii() -> None:
    assert readable("a → b × 2 — ☃", Look(unicode=False)) == "a -> b x 2 - ?"
