"""Every rung at every length of the curves, of which the reader chooses one: by two rows of buttons, and by CSS alone.

Each is priced and drawn beforehand; what is not chosen is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from advisor.ladder import classify
from advisor.render import words
from advisor.render.advice import parts_of
from advisor.render.blocks import Block, Heading, Stacked, paragraph
from advisor.render.html import body, text
from advisor.series import Curve, Point, Series
from advisor.values import Advice


def explore(answer: Advice, series: Series) -> tuple[str, str]:
    """Return the part of a page as HTML, and its rules as CSS; nothing where there are no curves."""
    curves = series.curves
    if not curves:
        return "", ""
    lengths = sorted({point.tokens for curve in curves for point in curve.points})
    plan = answer.focus.plan
    rungs = _buttons("rung", [curve.method.label for curve in curves], plan.method.label)
    tokens = _buttons("length", [f"{length:,}" for length in lengths], f"{plan.seq_len_tokens:,}")
    panels = "".join(_panels(curves, lengths, answer.gpu.usable_bytes))
    heading = body([Heading("Another rung, another length")])
    return f'{heading}<div class="explore">\n{rungs}{tokens}{panels}</div>\n', _rules(len(curves), len(lengths))


def _buttons(name: str, labels: Iterable[str], chosen: str) -> str:
    """One of several, as a row of radio buttons."""
    title = {"rung": "rung", "length": "tokens of a sequence"}[name]
    one = "".join(_button(name, f"{name}-{number}", label, label == chosen) for number, label in enumerate(labels))
    return f"<fieldset><legend>{title}</legend>\n{one}</fieldset>\n"


def _button(name: str, its_class: str, label: str, is_chosen: bool) -> str:
    checked = " checked" if is_chosen else ""
    return f'<label><input type="radio" name="{name}" class="{its_class}"{checked}><span>{text(label)}</span></label>\n'


def _panels(curves: tuple[Curve, ...], lengths: list[int], usable_bytes: int) -> Iterator[str]:
    """What each rung takes at each length, or that it has no price there."""
    for number, curve in enumerate(curves):
        points = {point.tokens: point for point in curve.points}
        for place, length in enumerate(lengths):
            point = points.get(length)
            said = (
                body(_panel(curve, point, usable_bytes)) if point else f"<p>{text(curve.method.label)} has no price at this length.</p>\n"
            )
            yield f'<div class="at at-{number}-{place}">\n{said}</div>\n'


def _panel(curve: Curve, point: Point, usable_bytes: int) -> Iterator[Block]:
    memory = point.memory
    fit = classify(memory, usable_bytes)
    size = f"{words.size(memory.expected_bytes)} expected, between {words.size(memory.low_bytes)} and {words.size(memory.high_bytes)}"
    said = f"{curve.method.label}, {point.tokens:,} tokens: {words.FIT_SENTENCES[fit]}, {size}, of {words.size(usable_bytes)}"
    yield paragraph(said, f"bold {words.FIT_STYLES[fit]}")
    yield Stacked(tuple(parts_of(memory)), usable_bytes, memory.low_bytes, memory.high_bytes)


def _rules(rungs: int, lengths: int) -> str:
    """Which panel is shown under which two buttons."""
    shown = ",".join(
        f".explore:has(.rung-{rung}:checked):has(.length-{length}:checked) .at-{rung}-{length}"
        for rung in range(rungs)
        for length in range(lengths)
    )
    return f".explore .at{{display:none}}{shown}{{display:block}}\n"
