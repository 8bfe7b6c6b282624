"""A name becomes a card: a card's own names, a cloud's machines, and the line that refuses everything else with the nearest known."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from advisor import profiles
from advisor.devices.cards import Card, all_cards, cards_by_key, key_of, spec_of, usable_of, words_of
from advisor.errors import InvalidInputError, UnknownNameError, UnsupportedError
from advisor.profiles.gpus import InstanceProfile, UncoveredGpu
from advisor.units import format_size
from advisor.values import GpuSpec

HELP = "`advise gpus` lists every card; a size is written 80GB (a card sold so) or 79.2GiB (exactly that)"

_COUNT_FIRST = re.compile(r"^\s*(?P<count>\d{1,3})\s*[x×*]\s*(?P<card>.+)$", re.IGNORECASE)
_COUNT_LAST = re.compile(r"^\s*(?P<card>.+?)(?::|\s[x×*]|(?<=\d)[x×*]|(?<=gb)[x×*])\s*(?P<count>\d{1,2})\s*$", re.IGNORECASE)
_PREFIX = re.compile(r"^(ml\.|standard_)")
"""SageMaker names its machines ml.g5.xlarge, Azure's command line Standard_NC24ads_A100_v4."""
_MOST_LISTED = 6


class Machine(NamedTuple):
    """A cloud's machine: its name and how many cards of which kind it has."""

    row: InstanceProfile
    name: str

    @property
    def gpus(self) -> int:
        return self.row.gpus[self.name]


def exactly_named(text: str) -> GpuSpec | None:
    """The card that has `text` for its name or an alias; None where none has.

    Raises UnsupportedError with the reason for a card that is known and cannot be priced by its name.
    """
    card = cards_by_key().get(key_of(text))
    if card is not None:
        return spec_of(card, _echo(text, card))
    refused = refused_by_key().get(key_of(text))
    if refused is not None:
        raise _refusal(refused)
    return None


def otherwise_named(text: str) -> GpuSpec:
    """The card of a cloud's machine of that name, or the card that has every word of `text` and the fewest others.

    Raises UnknownNameError with the nearest names where none or several fit, and InvalidInputError where a number of cards is in the
    name.
    """
    machine = machine_named(text)
    if machine is not None:
        return machine
    for pattern in (_COUNT_FIRST, _COUNT_LAST):
        several = pattern.match(text)
        if several:
            card, count = several["card"].strip(), several["count"]
            raise InvalidInputError(f"{text!r}: name one card and say how many apart: --gpu {card!r} --gpus {count}")
    return _by_words(text)


def _by_words(text: str) -> GpuSpec:
    """The card that has every word and the fewest others; several equally near ones are listed, not guessed among.

    Cards that cannot be priced by their names count too: "AGX Orin" may be the one that is not known.
    """
    asked = set(words_of(text))
    known: list[tuple[frozenset[str], frozenset[str], Card | UncoveredGpu]] = [
        *((card.words, card.words | {f"{card.size_gb:g}", "gb"}, card) for card in all_cards()),
        *((frozenset(words_of(row.name)), frozenset(words_of(row.name)), row) for row in _refused()),
    ]
    holding = [(len(words - asked), found) for words, may_say, found in known if asked and asked <= may_say]
    fewest = min((others for others, _ in holding), default=0)
    nearest = [found for others, found in holding if others == fewest]
    if len(nearest) > 1:
        names = tuple(found.name for found in nearest[:_MOST_LISTED])
        more = f" and {len(nearest) - _MOST_LISTED} more" if len(nearest) > _MOST_LISTED else ""
        raise UnknownNameError(f"{text!r} fits several cards: {', '.join(names)}{more}; name one of them", names)
    if not nearest:
        raise _unknown(text)
    if isinstance(nearest[0], UncoveredGpu):
        raise _refusal(nearest[0])
    return spec_of(nearest[0], _echo(text, nearest[0]))


def _refusal(row: UncoveredGpu) -> UnsupportedError:
    return UnsupportedError(f"{row.name}: {row.why}; {row.instead}")


def _unknown(text: str) -> UnknownNameError:
    """Machines of a cloud have marks that no card has, and are compared with machines alone."""
    import difflib

    if re.search(r"[a-z]\d*[a-z]*\.\d*(xlarge|metal)|_v\d$|^[a-z]\d-", text.strip().lower()):
        close = difflib.get_close_matches(_machine_key(text), machines(), n=4, cutoff=0.6)
        names = tuple(machines()[key].name for key in close)
    else:
        close = difflib.get_close_matches(key_of(text), cards_by_key(), n=8, cutoff=0.6)
        names = tuple(dict.fromkeys(cards_by_key()[key].name for key in close))[:4]
    meant = f"; did you mean {', '.join(names)}?" if names else ";"
    return UnknownNameError(f"no card called {text!r}{meant} {HELP}", names)


def _echo(text: str, card: Card) -> str:
    usable = format_size(usable_of(card)[0])
    sizes = card.row.sold_with_gb
    if sizes and key_of(text) != key_of(card.name) and f"{card.size_gb}gb" not in key_of(text):
        return f"{text!r} = {card.name}, the smallest sold ({', '.join(map(str, sizes))} GB): {usable} usable"
    return f"{text!r} = {card.name}: {usable} usable"


@cache
def machines() -> dict[str, Machine]:
    return {_machine_key(name): Machine(row, name) for row in profiles.rows("instances", InstanceProfile) for name in row.gpus}


def _machine_key(text: str) -> str:
    return _PREFIX.sub("", text.strip().lower()).replace("_", "-").replace(" ", "-")


def machine_named(text: str) -> GpuSpec | None:
    """The card of a cloud's machine, with how many of them it has; None where no machine is called so."""
    machine = machines().get(_machine_key(text))
    if machine is None:
        return None
    card = cards_by_key().get(key_of(machine.row.card))
    if card is None:
        raise InvalidInputError(f"profiles/instances: {machine.row.family}: {machine.row.card} is no card of profiles/gpus")
    usable = format_size(usable_of(card)[0])
    holds = f"{text!r} = a machine of {machine.row.provider} with {machine.gpus} × {card.name}: {usable} usable"
    return spec_of(card, holds + (" on each" if machine.gpus > 1 else "")).model_copy(update={"gpus_of_machine": machine.gpus})


@cache
def _refused() -> tuple[UncoveredGpu, ...]:
    return profiles.rows("not_covered/gpus", UncoveredGpu)


@cache
def refused_by_key() -> dict[str, UncoveredGpu]:
    return {key_of(name): row for row in _refused() for name in (row.name, *row.aliases)}
