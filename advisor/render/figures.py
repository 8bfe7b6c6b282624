"""Figures of an answer as SVG: drawn by Vega-Lite through vl-convert, which needs neither a browser nor the network.

Of the charting libraries this one gives static SVG, which prints, stays sharp and needs no script in the page (Plotly brings 4 MB of it);
each mark's numbers are shown by the browser under the pointer. Colours are the page's variables, so that one picture serves light and dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import accumulate, pairwise
from typing import Any

from advisor.errors import MissingExtraError
from advisor.render import words
from advisor.render.advice import bar_parts
from advisor.render.style import PATTERNS
from advisor.series import Curve, Instant, Series
from advisor.shown import shown
from advisor.units import GIB, gib
from advisor.values import Advice

_WIDTH_PIXELS = 620
"""Judgement: with the legend it fits a page of A4 and a window of 800."""
_VEGA_LITE = "6.1"
_COLOURS = [f"var(--p{number})" for number in range(PATTERNS)]
_DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 4]]
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross"]
"""Of lines and points, so that they are told apart without colour."""
_INK, _FAINT = "currentColor", "#8884"
_CONFIG = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": _INK, "titleColor": _INK, "domainColor": _INK, "tickColor": _INK, "gridColor": _FAINT, "labelLimit": 200},
    "legend": {"labelColor": _INK, "titleColor": _INK},
    "header": {"labelColor": _INK, "titleColor": _INK},
    "text": {"color": _INK},
}
_LABELLED = re.compile(r'<(path|line|rect|text)((?: [^<>]*?)? aria-label="([^"]*)"[^<>]*?)/>')
_SMALL_SHARE = 0.03
"""Terms that are below this share of every rung are one, "rest" (judgement: they cannot be seen)."""
_LABELLED_SHARE = 0.12
"""Terms from this share of the axis on bear their name (judgement: "optimizer state" needs as much)."""
_REST = "rest"


def need() -> None:
    """Raise MissingExtraError where what draws figures is not installed."""
    try:
        import vl_convert  # noqa: F401
    except ImportError:
        raise MissingExtraError("a report's figures need vl-convert: pip install 'finetune-advisor[report]'") from None


def figures(answer: Advice, series: Series) -> Iterator[str]:
    """Yield the figures of an answer, each with what it says in words. Raises MissingExtraError without the extra `report`."""
    terms = "What each rung takes, by term, against the card's line; the line below each bar is the interval."
    yield figure("terms", _terms(answer), _terms_said(answer), terms)
    if series.curves:
        lengths = "Memory against the length of a sequence; the band is the interval, the dashed line the card."
        yield figure("lengths", _by_length(series.curves, answer), _by_length_said(series.curves, answer), lengths)
    if series.timeline:
        step = "Live tensors through the recorded steps of the plan, event by event, without the allocator's slack and the CUDA context."
        yield figure("step", _through(series.timeline, answer), _through_said(series.timeline), step)


def figure(name: str, spec: dict[str, Any], said: str, caption: str) -> str:
    """One figure; `said` is its text for who does not see it, `name` keeps its ids apart from the other figures'."""
    need()
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg({"config": _CONFIG, "width": _WIDTH_PIXELS, **spec}, vl_version=_VEGA_LITE)
    drawn = _LABELLED.sub(r"<\1\2><title>\3</title></\1>", drawn)
    drawn = drawn.replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")
    drawn = drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(shown(said))}" ', 1)
    return f'<figure>\n<div class="wide" tabindex="0">{drawn}</div>\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n'


def _gib(size_bytes: int) -> float:
    """For an axis in GiB."""
    return round(size_bytes / GIB, 3)


# ------------------------------------------------------------------------------------------------------ terms of every rung


def _terms(answer: Advice) -> dict[str, Any]:
    named = _named(answer)
    rows = [*_segments(answer, named)]
    longest = max([answer.gpu.usable_bytes, *(rung.memory.high_bytes for rung in answer.rungs)])
    wide = [row for row in rows if row["end"] - row["start"] >= _LABELLED_SHARE * _gib(longest)]
    spans = [
        {"rung": rung.plan.method.label, "low": _gib(rung.memory.low_bytes), "high": _gib(rung.memory.high_bytes)} for rung in answer.rungs
    ]
    y = {"field": "rung", "type": "nominal", "sort": [row["rung"] for row in spans], "title": None, "axis": {"grid": False}}
    bars = {
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 22, "stroke": "var(--on)", "strokeWidth": 1},
        "encoding": {
            "y": y,
            "x": {"field": "start", "type": "quantitative", "title": "GiB"},
            "x2": {"field": "end"},
            "color": {"field": "term", "type": "nominal", "scale": {"domain": [*named, _REST], "range": _COLOURS}, "title": None},
            "description": {"field": "said"},
        },
    }
    labels = {
        "data": {"values": wide},
        "mark": {"type": "text", "color": "var(--on)", "fontSize": 10, "clip": True, "aria": False},
        "encoding": {"y": y, "x": {"field": "middle", "type": "quantitative"}, "text": {"field": "term"}},
    }
    interval = {
        "data": {"values": spans},
        "mark": {"type": "rule", "color": _INK, "strokeWidth": 2, "yOffset": 16},
        "encoding": {"y": y, "x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
    }
    return {"height": {"step": 44}, "layer": [bars, labels, interval, _card_line(answer, "x")]}


def _named(answer: Advice) -> list[str]:
    """The terms that are seen on some rung, those of the largest share first."""
    most: dict[str, float] = {}
    for rung in answer.rungs:
        for bar in bar_parts(rung):
            most[bar.label] = max(most.get(bar.label, 0.0), bar.bytes / rung.memory.expected_bytes)
    seen = [label for label in most if most[label] >= _SMALL_SHARE]
    return sorted(seen, key=lambda label: -most[label])[: PATTERNS - 1]


def _segments(answer: Advice, named: list[str]) -> Iterator[dict[str, Any]]:
    """Where each named term of each rung begins and ends on its bar, and the others together."""
    for rung in answer.rungs:
        held, name, start = {bar.label: bar.bytes for bar in bar_parts(rung)}, rung.plan.method.label, 0
        rest = sum(size_bytes for label, size_bytes in held.items() if label not in named)
        for term, size_bytes in [*((label, held.get(label, 0)) for label in named), (_REST, rest)]:
            end = start + size_bytes
            said = f"{name}, {term}: {gib(size_bytes)} GiB"
            middle = _gib(start + size_bytes // 2)
            yield {"rung": name, "term": term, "start": _gib(start), "middle": middle, "end": _gib(end), "said": said}
            start = end


def _card_line(answer: Advice, channel: str) -> dict[str, Any]:
    """The card's usable memory, with its size beside it."""
    usable = _gib(answer.gpu.usable_bytes)
    place = {channel: {"field": "usable", "type": "quantitative"}}
    label = {"align": "left", "dx": 4, "baseline": "top", "y": -12} if channel == "x" else {"align": "left", "dy": -6, "x": 4}
    return {
        "data": {"values": [{"usable": usable, "label": f"the card: {gib(answer.gpu.usable_bytes)} GiB"}]},
        "encoding": place,
        "layer": [
            {"mark": {"type": "rule", "color": _INK, "strokeDash": [5, 3], "strokeWidth": 2}},
            {"mark": {"type": "text", **label}, "encoding": {"text": {"field": "label"}}},
        ],
    }


def _terms_said(answer: Advice) -> str:
    rungs = (
        f"{rung.plan.method.label} {gib(rung.memory.expected_bytes)} ({gib(rung.memory.low_bytes)} to {gib(rung.memory.high_bytes)})"
        for rung in answer.rungs
    )
    return f"Bars of GiB by rung: {', '.join(rungs)}; the card has {gib(answer.gpu.usable_bytes)}."


# ------------------------------------------------------------------------------------------------------ by length


def _by_length(curves: tuple[Curve, ...], answer: Advice) -> dict[str, Any]:
    labels = [curve.method.label for curve in curves]
    rows = [
        {
            "rung": curve.method.label,
            "tokens": point.tokens,
            "low": _gib(point.low_bytes),
            "GiB": _gib(point.expected_bytes),
            "high": _gib(point.high_bytes),
            "said": f"{curve.method.label}, {point.tokens:,} tokens: {gib(point.low_bytes)} to {gib(point.high_bytes)} GiB",
        }
        for curve in curves
        for point in curve.points
    ]
    x = {"field": "tokens", "type": "quantitative", "scale": {"type": "log", "base": 2, "nice": False}, "title": "tokens of a sequence"}
    x["axis"] = {"format": ",", "labelOverlap": True}
    y = {"type": "quantitative", "title": "GiB", "scale": {"domain": [0, _ceiling(curves, answer)]}}
    legend = {"symbolOpacity": 1, "symbolStrokeWidth": 2}
    color = {"field": "rung", "type": "nominal", "scale": {"domain": labels, "range": _COLOURS}, "title": None, "legend": legend}
    line = {
        "x": x,
        "color": color,
        "y": {**y, "field": "GiB"},
        "strokeDash": {"field": "rung", "scale": {"domain": labels, "range": _DASHES}, "title": None},
    }
    points = {
        "x": x,
        "color": color,
        "y": {**y, "field": "GiB"},
        "shape": {"field": "rung", "scale": {"domain": labels, "range": _SHAPES}, "title": None},
    }
    band = {"x": x, "y": {**y, "field": "low"}, "color": color}
    return {
        "height": 320,
        "layer": [
            {
                "data": {"values": rows},
                "layer": [
                    {"mark": {"type": "area", "opacity": 0.15, "clip": True}, "encoding": {**band, "y2": {"field": "high"}}},
                    {"mark": {"type": "line", "strokeWidth": 2, "clip": True}, "encoding": line},
                    {"mark": {"type": "point", "size": 28, "clip": True}, "encoding": {**points, "description": {"field": "said"}}},
                ],
            },
            _card_line(answer, "y"),
        ],
    }


def _ceiling(curves: tuple[Curve, ...], answer: Advice) -> float:
    """The top of the axis: twice the card, or less where no curve reaches it (judgement: beyond that nothing is decided)."""
    return min(2 * _gib(answer.gpu.usable_bytes), max(_gib(point.high_bytes) for curve in curves for point in curve.points) * 1.05)


def _by_length_said(curves: tuple[Curve, ...], answer: Advice) -> str:
    parts = []
    for curve in curves:
        fitting = [point.tokens for point in curve.points if point.high_bytes <= answer.gpu.usable_bytes]
        parts.append(f"{curve.method.label} {f'fits up to {max(fitting):,} tokens' if fitting else 'fits at no length'} of those drawn")
    return f"Memory against length: {'; '.join(parts)}."


# ------------------------------------------------------------------------------------------------------ through the step


def _through(timeline: tuple[Instant, ...], answer: Advice) -> dict[str, Any]:
    changed = (one.phase is not other.phase for one, other in pairwise(timeline))
    stretches = accumulate(changed, initial=0)
    rows: list[dict[str, Any]] = [
        {"event": instant.event, "phase": words.phase(instant.phase), "GiB": _gib(instant.alive_bytes), "stretch": stretch}
        for instant, stretch in zip(timeline, stretches, strict=True)
    ]
    phases = [*dict.fromkeys(row["phase"] for row in rows)]
    area = {
        "data": {"values": rows},
        "mark": {"type": "area", "interpolate": "step-after", "line": True},
        "encoding": {
            "x": {
                "field": "event",
                "type": "quantitative",
                "scale": {"nice": False},
                "title": "event of the recording (a tensor is made or freed)",
            },
            "y": {"field": "GiB", "type": "quantitative", "title": "GiB alive"},
            "detail": {"field": "stretch"},
            "color": {"field": "phase", "type": "nominal", "scale": {"domain": phases, "range": _COLOURS}, "title": None},
        },
    }
    return {"height": 240, "layer": [area, _card_line(answer, "y")]}


def _through_said(timeline: tuple[Instant, ...]) -> str:
    top = max(timeline, key=lambda instant: instant.alive_bytes)
    return f"Live memory through the recorded steps: highest in {words.phase(top.phase)}, {gib(top.alive_bytes)} GiB."
