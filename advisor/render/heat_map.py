"""A heat map of what fits: models down, cards across, the method that fits in each cell, readable without its colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advisor.render import words
from advisor.render.figures import figure
from advisor.units import gib
from advisor.values import Fit
from advisor.values.offer import Offer, SideBySide

_COLOURS = {Fit.FITS: "#2a9d5c66", Fit.UNCERTAIN: "#e0a80066", Fit.DOES_NOT_FIT: "#d1495b66", Fit.WOULD_NOT_START: "#8886"}
"""Half transparent, so that the text is read on a light page and on a dark one."""
_CELL_PIXELS = {"width": 84, "height": 34}
"""Judgement: the longest method with its length, "QDoRA 131,072", needs as much."""


def heat_map(found: SideBySide) -> str:
    """Return the figure as HTML. Raises MissingExtraError without the extra `report`."""
    caption = "What fits: models down, cards across by their memory; in a cell the method to run, and its longest sequence in tokens."
    return figure("fits", _spec(found), " ".join(_said(line) for line in found.offers), caption)


def _spec(found: SideBySide) -> dict[str, Any]:
    cards = [line.gpu.name for line in sorted(found.offers, key=lambda line: (line.gpu.usable_bytes, line.gpu.name))]
    models = [line.model for line in sorted(found.offers, key=lambda line: -line.params)]
    colours = {words.FIT_WORDS[fit]: colour for fit, colour in _COLOURS.items()}
    place = {
        "x": {
            "field": "card",
            "type": "nominal",
            "sort": [*dict.fromkeys(cards)],
            "title": None,
            "axis": {"orient": "top", "labelAngle": -30},
        },
        "y": {"field": "model", "type": "nominal", "sort": [*dict.fromkeys(models)], "title": None},
    }
    fill = {"field": "fits", "type": "nominal", "scale": {"domain": [*colours], "range": [*colours.values()]}, "title": "fits"}
    cells = {"mark": {"type": "rect", "stroke": "currentColor"}, "encoding": {**place, "color": fill, "description": {"field": "said"}}}
    labels = {"mark": {"type": "text", "aria": False}, "encoding": {**place, "text": {"field": "text"}}}
    sizes = {side: {"step": pixels} for side, pixels in _CELL_PIXELS.items()}
    return {**sizes, "data": {"values": [*_rows(found)]}, "layer": [cells, labels]}


def _rows(found: SideBySide) -> Iterator[dict[str, Any]]:
    for line in found.offers:
        fits = words.FIT_WORDS[line.fit]
        longest = words.tokens(line.max_seq_len_tokens)
        text = {Fit.FITS: f"{line.method.label} {longest}", Fit.UNCERTAIN: f"{line.method.label} ?"}.get(line.fit, fits)
        yield {"card": line.gpu.name, "model": line.model, "fits": fits, "text": text, "said": _said(line)}


def _said(line: Offer) -> str:
    size = f"up to {gib(line.high_bytes)} of {gib(line.gpu.usable_bytes)} GiB"
    return f"{line.model} on {line.gpu.name}: {words.FIT_WORDS[line.fit]}, {line.method.label}, {size}."
