"""What the page asks: the fields of its form, a question read from an address, and the address and command of a question."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from advisor.errors import InvalidInputError
from advisor.refusals import did_you_mean

LONGEST_VALUE = 200
"""Characters of one field. Judgement: the longest name of a model has 60, a list of modules to adapt twice as many."""
LONGEST_SHOWN = 40
MOST_CARDS = 12
"""Cards to lay side by side. Judgement: more rows than that are no comparison, and each costs its time."""
YES, NO = "yes", "no"
SWITCH = (YES, NO)
VIEWS = {
    "answer": "Answer",
    "terms": "Term by term",
    "figures": "Figures",
    "cards": "Side by side",
    "all": "Everything",
    "files": "Files and code",
}
"""What the page can show of an answer, and what it calls that."""


class Field(NamedTuple):
    """One option of `advise` as a field of the form."""

    name: str
    help: str
    panel: str
    """The heading that it stands under."""
    hint: str = ""
    """What a value looks like."""
    choices: tuple[str, ...] = ()
    """Its values, where those are a few words; SWITCH for what is on or off."""

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")


class Question(NamedTuple):
    """What was asked, as text: empty where the choice is left to the tool."""

    model: str = "llama-3.1-8b"
    gpu: str = "rtx 4090"
    beside: str = "t4, l4, rtx 4090, a100 80gb, h100"
    """Cards to lay side by side, with commas between."""
    show: str = "answer"
    """A name of VIEWS."""
    options: tuple[tuple[str, str], ...] = ()

    def given(self) -> dict[str, Any]:
        """Return the options as `advise` takes them. What is on or off is no text to it."""
        switched = {YES: True, NO: False}
        return {name: switched.get(value, value) for name, value in self.options}

    @property
    def cards(self) -> list[str]:
        """The cards to lay side by side. Raises InvalidInputError for too many or none."""
        names = [name.strip() for name in self.beside.split(",") if name.strip()]
        if not 0 < len(names) <= MOST_CARDS:
            raise InvalidInputError(f"side by side: name 1 to {MOST_CARDS} cards, with commas between")
        return names

    @property
    def query(self) -> str:
        """The question as the query of an address."""
        fields = {"model": self.model, "gpu": self.gpu, "beside": self.beside, "show": self.show}
        return urlencode([*fields.items(), *self.options])

    @property
    def command(self) -> str:
        """The same question as a command line."""
        asked = ["advise", "--model", self.model, "--gpu", self.gpu]
        if self.show == "cards":
            asked = ["advise", "compare", self.model, *(word for card in self.cards for word in ("--gpu", card))]
        return shlex.join([*asked, *_flags(self.options)])


_OWN = ("model", "gpu", "beside", "show")


def read_question(pairs: Iterable[tuple[str, str]], fields: Iterable[Field]) -> Question:
    """The question that the fields of an address hold. Raises InvalidInputError, one line, for what no form sends."""
    known = {field.name: field for field in fields}
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in known and name not in _OWN:
            raise InvalidInputError(f"{name[:LONGEST_SHOWN]}: there is no such field{did_you_mean(name, (*_OWN, *known))}")
        if name in given:
            raise InvalidInputError(f"{name}: give it once")
        if len(value) > LONGEST_VALUE:
            raise InvalidInputError(f"{name}: longer than {LONGEST_VALUE} characters")
        given[name] = value.strip()
    own = {name: given[name] for name in _OWN if name in given}
    if own.get("show", "answer") not in VIEWS:
        raise InvalidInputError(f"show {own['show'][:LONGEST_SHOWN]}: must be one of {', '.join(VIEWS)}")
    return Question(**own, options=tuple(_options(given, known)))


def _options(given: Mapping[str, str], known: Mapping[str, Field]) -> Iterator[tuple[str, str]]:
    """What was chosen, in the order of the form; a switch is `yes` or `no` in any case."""
    for name, field in known.items():
        value = given.get(name, "")
        if value and field.choices == SWITCH and value.lower() not in SWITCH:
            raise InvalidInputError(f"{name} {value[:LONGEST_SHOWN]}: must be {YES} or {NO}")
        if value:
            yield name, value.lower() if field.choices == SWITCH else value


def _flags(options: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Options as flags of the command line."""
    for name, value in options:
        flag = name.replace("_", "-")
        yield from {YES: (f"--{flag}",), NO: (f"--no-{flag}",)}.get(value, (f"--{flag}", value))
