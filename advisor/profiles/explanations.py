"""Row model of `profiles/explanations.json`: what the words and ids on the screens mean, and what to do about them."""

from typing import Annotated, Literal

from pydantic import Field

from advisor.profiles.base import Row, Text


class ExplanationRow(Row):
    """A finding, a memory term, a phase, a gate of `advise next`, an exit code, or a word of the glossary."""

    kind: Literal["finding", "term", "phase", "gate", "exit code", "word"]
    id: Text
    """As the screens show it."""
    also: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Other words for it."""
    meaning: Text
    do: str = ""
    """What a reader can do about it; empty where nothing is to be done."""
    evidence: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Ids of facts in profiles/methods/."""
    source: str = ""
    """Where else it stands: a library's file and release, a paper's section."""
