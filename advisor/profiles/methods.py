"""Row models of `profiles/methods/`: what is known about the methods.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from advisor.profiles.base import Row, Text

Number = Annotated[float, Field(allow_inf_nan=False)]
Ids = tuple[Text, ...]


class Fact(Row):
    """A published result and where it stands."""

    kind: Literal["fact"]
    id: Text
    theme: Text
    statement: Text
    value: Any = None
    unit: str = ""
    conditions: str = ""
    source: Text
    url: str = ""
    access: Annotated[str, Field(pattern=r"^(P|PC|A|X|S|D)\b")]
    """How the source was read (profiles/methods/README.md), with a word on it where one is needed."""
    confidence: Literal["high", "medium", "low"]
    caveat: str = ""


class Threshold(Row):
    """A number that rules compare with. `gate`: one of `advise next`."""

    kind: Literal["threshold", "gate"]
    id: Text
    value: Number
    meaning: Text
    source: Text
    evidence: Ids = ()
    judgement: bool


class Sentence(Row):
    """A sentence of the ladder, with {placeholders}."""

    kind: Literal["text"]
    id: Text
    text: Text
    evidence: Ids = ()
    source: str = ""


class Move(Row):
    """What a change of the set-up was measured to bring, in points of the metric that the conditions name."""

    kind: Literal["move"]
    id: Text
    low_points: Number
    high_points: Number
    conditions: Text
    evidence: Ids
    price: str


class Curve(Row):
    """A published response, read between its points."""

    kind: Literal["curve"]
    id: Text
    points: Annotated[tuple[tuple[Number, Number], ...], Field(min_length=2)]
    x: Text
    y: Text
    source: Text
    evidence: Ids


class Speed(Row):
    """A measured range that the counts of a step are turned into time with."""

    kind: Literal["speed"]
    id: Text
    low: Number
    high: Number
    unit: Text
    source: Text
    derived_from: Ids = ()
    evidence: Ids = ()
    judgement: bool
