"""A GPU reference becomes a GpuSpec: a name, a cloud's machine, a marketed size, a literal size, or nothing for the local card.

The facts are rows of `profiles/gpus/` and `profiles/instances/`. What a name was taken to mean is echoed in `resolved_from`.
"""

from __future__ import annotations

from advisor.devices.cards import all_cards, key_of, spec_of
from advisor.devices.local import local_card
from advisor.devices.names import HELP, exactly_named, machine_named, otherwise_named
from advisor.devices.sizes import is_literal_size, is_marketed_size, of_literal_size, of_marketed_size
from advisor.errors import InvalidInputError
from advisor.values import GpuSpec

LOCAL = "local"
"""Names the local card, as no name does."""


def load_gpu(reference: str | None = None) -> GpuSpec:
    """The card that `reference` means.

    A name or alias in any case and punctuation ("rtx 4090", "A100-80GB"); a cloud's machine ("g5.12xlarge"), whose number of cards is
    then `gpus_of_machine`; a marketed size ("80GB": the smallest usable memory among cards sold so); a literal size ("79.2GiB", without
    speeds); None or "local": the local card's free memory now.

    Raises UnknownNameError with the nearest names, UnsupportedError for a card that is known and cannot be priced by its name, and
    InvalidInputError for what is no card.
    """
    text = LOCAL if reference is None else reference.strip()
    if not text:
        raise InvalidInputError(f"the GPU name is empty; {HELP}")
    if text.lower() == LOCAL:
        return local_card()
    if is_marketed_size(text):
        return of_marketed_size(text)
    named = exactly_named(text)
    if named is not None:
        return named
    return of_literal_size(text) if is_literal_size(text) else otherwise_named(text)


def search_gpus(text: str = "") -> tuple[GpuSpec, ...]:
    """Every card whose name, alias, vendor, architecture or class holds each word of `text`; all cards for an empty text.

    The name of a cloud's machine finds its card.
    """
    wanted = text.lower().split()
    found = []
    for card in all_cards():
        row = card.row
        fields = (card.name, row.vendor, row.architecture, row.segment, *row.aliases)
        haystack = " ".join((*fields, *(key_of(field) for field in fields))).lower()
        if all(word in haystack for word in wanted):
            found.append(spec_of(card, ""))
    machine = None if found else machine_named(text)
    return tuple(found) if machine is None else (machine,)
