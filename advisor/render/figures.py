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
_SMALL_SHARE = 0.02
"""Terms that are below this share of the longest bar on every rung are one, "rest" (judgement: they cannot be seen)."""


def need() -> None:
    """Raise MissingExtraError where what draws figures is not installed."""
    try:
        import vl_convert  # noqa: F401
    except ImportError:
        raise MissingExtraError("a report's figures need vl-convert: pip install 'finetune-advisor[report]'") from None


def figures(answer: Advice, series: Series) -> Iterator[str]:
    """Yield the figures of an answer, each with what it says in words. Raises MissingExtraError without the extra `report`."""
    yield _figure(
        _terms(answer), _terms_said(answer), "What each rung takes, by term, against the card's line; the bracket is the interval."
    )
    if series.curves:
        caption = "Memory against the length of a sequence; the band is the interval, the dashed line the card."
        yield _figure(_by_length(series.curves, answer), _by_length_said(series.curves, answer), caption)
    if series.timeline:
        caption = "Live tensors through the recorded steps of the plan, event by event, without the allocator's slack and the CUDA context."
        yield _figure(_through(series.timeline, answer), _through_said(series.timeline), caption)


def _figure(spec: dict[str, Any], said: str, caption: str) -> str:
    """One figure; `said` is its text for who does not see it."""
    import vl_convert

    need()
    drawn: str = vl_convert.vegalite_to_svg({"config": _CONFIG, "width": _WIDTH_PIXELS, **spec}, vl_version=_VEGA_LITE)
    drawn = _LABELLED.sub(r"<\1\2><title>\3</title></\1>", drawn).replace(
        "<svg ", f'<svg role="img" aria-label="{escape(shown(said))}" ', 1
    )
    return f"<figure>\n{drawn}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def _gib(size_bytes: int) -> float:
    """For an axis in GiB."""
    return round(size_bytes / GIB, 3)


# ------------------------------------------------------------------------------------------------------ terms of every rung


def _terms(answer: Advice) -> dict[str, Any]:
    rows, names = [*_term_rows(answer)], [rung.plan.method.label for rung in answer.rungs]
    terms = [*dict.fromkeys(row["term"] for row in sorted(rows, key=lambda row: -row["GiB"]))]
    spans = [
        {"rung": rung.plan.method.label, "low": _gib(rung.memory.low_bytes), "high": _gib(rung.memory.high_bytes)} for rung in answer.rungs
    ]
    y = {"field": "rung", "type": "nominal", "sort": names, "title": None, "axis": {"grid": False}}
    bars = {
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 22, "stroke": "var(--ground,#fff)", "strokeWidth": 1},
        "encoding": {
            "y": y,
            "x": {"field": "GiB", "type": "quantitative", "stack": "zero", "title": "GiB"},
            "order": {"field": "place"},
            "color": {"field": "term", "type": "nominal", "scale": {"domain": terms, "range": _COLOURS}, "title": None},
            "description": {"field": "said"},
        },
    }
    interval = {
        "data": {"values": spans},
        "mark": {"type": "rule", "color": _INK, "strokeWidth": 2, "yOffset": 16},
        "encoding": {"y": y, "x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
    }
    return {"height": {"step": 44}, "layer": [bars, interval, _card_line(answer, "x")]}


def _term_rows(answer: Advice) -> Iterator[dict[str, Any]]:
    """One row a rung and term, the largest first, as every rung has them; what is small everywhere together."""
    longest = max(rung.memory.expected_bytes for rung in answer.rungs)
    parts = {rung.plan.method.label: {bar.label: bar.bytes for bar in bar_parts(rung)} for rung in answer.rungs}
    most: dict[str, int] = {}
    for held in parts.values():
        for label, size_bytes in held.items():
            most[label] = max(most.get(label, 0), size_bytes)
    named = sorted((label for label in most if most[label] >= _SMALL_SHARE * longest), key=lambda label: -most[label])[: PATTERNS - 1]
    for rung, held in parts.items():
        rest = sum(size_bytes for label, size_bytes in held.items() if label not in named)
        for place, (label, size_bytes) in enumerate([*((label, held.get(label, 0)) for label in named), ("rest", rest)]):
            yield {"rung": rung, "term": label, "place": place, "GiB": _gib(size_bytes), "said": f"{rung}, {label}: {gib(size_bytes)} GiB"}


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
    y = {"type": "quantitative", "title": "GiB", "scale": {"domain": [0, _ceiling(curves, answer)], "clamp": True}}
    color = {"field": "rung", "type": "nominal", "scale": {"domain": labels, "range": _COLOURS}, "title": None}
    line = {"y": {**y, "field": "GiB"}, "strokeDash": {"field": "rung", "scale": {"domain": labels, "range": _DASHES}, "title": None}}
    points = {"y": {**y, "field": "GiB"}, "shape": {"field": "rung", "scale": {"domain": labels, "range": _SHAPES}, "title": None}}
    shared = {"x": x, "color": color}
    return {
        "height": 320,
        "layer": [
            {
                "data": {"values": rows},
                "encoding": shared,
                "layer": [
                    {"mark": {"type": "area", "opacity": 0.15}, "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}},
                    {"mark": {"type": "line", "strokeWidth": 2}, "encoding": line},
                    {"mark": {"type": "point", "size": 28}, "encoding": {**points, "description": {"field": "said"}}},
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
            "x": {"field": "event", "type": "quantitative", "title": "event of the recording (a tensor is made or freed)"},
            "y": {"field": "GiB", "type": "quantitative", "title": "GiB alive"},
            "detail": {"field": "stretch"},
            "color": {"field": "phase", "type": "nominal", "scale": {"domain": phases, "range": _COLOURS}, "title": None},
        },
    }
    return {"height": 240, "layer": [area, _card_line(answer, "y")]}


def _through_said(timeline: tuple[Instant, ...]) -> str:
    top = max(timeline, key=lambda instant: instant.alive_bytes)
    return f"Live memory through the recorded steps: highest in {words.phase(top.phase)}, {gib(top.alive_bytes)} GiB."
