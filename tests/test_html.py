"""Results as HTML: well formed, escaped, without anything fetched, and of the same verdict as the screen."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

import advisor
from advisor import Advice, GpuSpec
from advisor.ladder.knowledge import sources
from advisor.render import html
from advisor.render.blocks import Bar, Bars, Block, Code, Column, Heading, Stacked, bullets, entries, paragraph, table, wide_or_narrow
from advisor.render.results import line, verdict_first
from advisor.render.style import DARK, LIGHT
from advisor.values import ModelSpec

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"
VOID = {"br", "meta", "link", "img", "hr", "input"}
FETCHING = {"src", "srcset", "data", "poster", "background", "action", "xlink:href"}


class Checked(HTMLParser):
    """Reads a page to its end; an element that is not closed in order is an error."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert name not in FETCHING or (value or "").startswith("#"), f"<{tag} {name}={value}>"
            assert not name.startswith("on"), f"<{tag} {name}>"
            if name == "href":
                assert tag == "a", tag
                self.links.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@cache
def advice(gpu: str = "t4") -> Advice:
    return advisor.advise("llama-3.1-8b", gpu)


def results() -> dict[str, Any]:
    answer = advice()
    return {
        "advice": answer,
        "nothing fits": advice("8GB"),
        "rung": answer.rungs[1],
        "memory": answer.rungs[0].memory,
        "fit": advisor.fit("llama-3.1-8b", "24GB", method="qlora", seq_len="max"),
        "next": advisor.next_step({"model": "llama-3.1-8b", "gpu": "24GB"}),
    }


@pytest.mark.parametrize("name", ["advice", "nothing fits", "rung", "memory", "fit", "next"])
def test_a_result_shows_its_verdict_first_in_a_cell_and_somewhere_by_print(name: str) -> None:
    value = results()[name]
    page = Checked(value._repr_html_())
    verdict = line(value)
    before = page.text.partition(verdict)[0]
    assert verdict in page.text
    assert len(before) <= len("Next step "), "nothing but a heading stands before the verdict"
    assert verdict in " ".join(str(value).split())
    assert "script" not in page.tags
    assert len(value._repr_html_()) < 100_000


def test_what_is_printed_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from advisor.cli.run import run

    run(["--model", "llama-3.1-8b", "--gpu", "t4"])
    assert capsys.readouterr().out == f"{advice()}\n"


def test_at_a_prompt_a_result_is_its_verdict() -> None:
    answer = advice()
    assert repr(answer) == f"Advice({answer.verdict.sentence!r})"
    assert [*answer.__rich_repr__()] == [answer.verdict.sentence]
    assert repr(answer.rungs[1]).startswith("Rung('QLoRA: fits, ")


def test_every_field_is_still_at_hand() -> None:
    assert Advice.model_validate_json(advice().model_dump_json()) == advice()


BLOCKS: list[Block] = [
    Heading(HOSTILE),
    paragraph(HOSTILE, "bold"),
    entries([(HOSTILE, HOSTILE)]),
    bullets([HOSTILE]),
    table([Column(HOSTILE)], [[HOSTILE]]),
    Bars((Bar(HOSTILE, 1),), 2),
    Stacked((Bar(HOSTILE, 1), Bar("b", 2)), 4, 2, 5),
    Code(HOSTILE, "python"),
    wide_or_narrow([paragraph(HOSTILE)], []),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_what_others_wrote_is_text_and_nothing_else(block: Block) -> None:
    drawn = html.fragment([block])
    page = Checked(drawn)
    assert "script" not in page.tags
    assert "<script>alert(1)</script>\"'&\\x1b[31m\\u202e" in page.text
    assert not re.search("[\x1b\u202e]", drawn)


def test_names_that_a_user_gives_are_escaped() -> None:
    card = GpuSpec(name=HOSTILE, vendor=HOSTILE, usable_bytes=23 * 2**30, usable_source=HOSTILE)
    spec = _spec().model_copy(update={"id": HOSTILE})
    page = Checked(advisor.advise(spec, card)._repr_html_())
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 2


def _spec() -> ModelSpec:
    from advisor.inputs import as_model

    return as_model("llama-3.2-1b")


def test_facts_in_brackets_link_to_their_sources() -> None:
    page = Checked(html.fragment([paragraph("shown elsewhere [Q4, Q5, ZZ9] and [sic]")]))
    assert page.links == [sources()["Q4"], sources()["Q5"]]
    assert page.text == "shown elsewhere [Q4, Q5, ZZ9] and [sic]"


@pytest.mark.parametrize(("expected", "low", "high", "card"), [(10, 8, 12, 16), (20, 18, 25, 16), (16, 16, 16, 16)])
def test_a_bar_of_parts_is_to_scale(expected: int, low: int, high: int, card: int) -> None:
    drawn = html.body([Stacked((Bar("a", expected - 4), Bar("b", 4)), card, low, high)])
    scale = max(card, high, expected)
    widths = [float(width) for width in re.findall(r'<i class="p\d" style="width:([\d.]+)%', drawn)]
    assert sum(widths) == pytest.approx(100 * expected / scale, abs=0.02)
    assert f'class="card" style="left:{100 * card / scale:.2f}%"' in drawn
    assert f'class="reach" style="left:{100 * low / scale:.2f}%;width:{100 * (high - low) / scale:.2f}%"' in drawn


def test_the_verdict_comes_first_with_its_heading() -> None:
    blocks = [paragraph("what"), Heading("Verdict"), paragraph("fits"), Code("advise")]
    assert verdict_first(blocks) == [Heading("Verdict"), paragraph("fits"), Code("advise"), paragraph("what")]
    assert verdict_first([Heading("Memory"), Code("advise")]) == [Heading("Memory"), Code("advise")]


@pytest.mark.parametrize(("colours", "ground"), [(LIGHT, "#ffffff"), (DARK, "#181818")])
def test_parts_of_bars_stand_out_from_the_page(colours: tuple[str, ...], ground: str) -> None:
    """WCAG 2.2, 1.4.11: at least 3 to 1."""
    assert all(contrast(colour, ground) >= 3 for colour in colours)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_memory_against_a_card_says_what_its_rung_says() -> None:
    words = {"fits": "Fits: ", "does_not_fit": "Does not fit: ", "uncertain": "May or may not fit: "}
    rungs = [*advice().rungs, *advice("16.9GiB").rungs]
    assert {rung.fit.value for rung in rungs} == {"fits", "does_not_fit", "uncertain"}
    assert [line(rung.memory).startswith(words[rung.fit.value]) for rung in rungs] == [True] * len(rungs)


def test_memory_without_a_card_is_its_size() -> None:
    assert line(advisor.estimate("llama-3.1-8b", method="lora")).endswith("GiB")
