"""Models and cards side by side: one line for each pair, best first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from advisor.devices import search_gpus
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.inputs import as_gpu, as_model, as_request
from advisor.ladder.fit import Case
from advisor.ladder.offers import COMPARED_TOKENS, offer
from advisor.on_demand import Progress, answered, silent
from advisor.values import Fit, GpuSpec, ModelSpec
from advisor.values.offer import Offer, Refused, SideBySide

_FITS = (Fit.FITS, Fit.UNCERTAIN, Fit.DOES_NOT_FIT)


def compare(
    models: Sequence[str | ModelSpec],
    gpus: Sequence[str | GpuSpec],
    /,  # the options have a `gpus` of their own, the number of cards
    *,
    use_calibrations: bool = True,
    record: bool = True,
    progress: Progress = silent,
    **options: Any,
) -> SideBySide:
    """What `advise` would choose of each model on each card, the models in their order, their cards best first.

    The options are those of `advise`, `record` as there. Raises an AdvisorError for a name that means nothing, and UnsupportedError where
    no pair is priced.
    """
    if not models or not gpus:
        raise InvalidInputError("name at least one model and one card to compare")
    offers: list[Offer] = []
    refused: list[Refused] = []
    cards = [as_gpu(gpu, use_calibrations) for gpu in gpus]
    requests = [as_request(options, card) for card in cards]
    for spec in (as_model(model, progress) for model in models):
        found: list[Offer] = []
        for number, (card, request) in enumerate(zip(cards, requests, strict=True)):
            progress(f"{spec.id} on {card.name} ({number + 1} of {len(cards)})")
            try:
                found.append(answered(partial(offer, Case(spec, card), request), progress, record=record))
            except UnsupportedError as error:
                refused.append(Refused(model=spec.id, gpu=card.name, reason=str(error)))
        offers += sorted(found, key=_rank)
    progress("")
    if not offers:
        raise UnsupportedError(refused[0].reason)
    asked = requests[0].dataset_tokens
    return SideBySide(offers=tuple(offers), refused=tuple(refused), dataset_tokens=asked or COMPARED_TOKENS, asked_tokens=asked is not None)


def rentable(words: str = "") -> tuple[GpuSpec, ...]:
    """Return the cards whose names hold the words; without words those for which a rent was recorded. None where nothing matches."""
    found = search_gpus(words)
    return found if words.strip() else tuple(card for card in found if card.prices)


def _rank(found: Offer) -> tuple[int, bool, float, int]:
    """What fits first; then the cheaper by the middle of its price, those without a price last; then the smaller card."""
    return _FITS.index(found.fit), found.middle_usd is None, found.middle_usd or 0.0, found.gpu.usable_bytes


def cheapest(found: SideBySide) -> Iterator[Offer]:
    """Yield of each model the first offer that fits."""
    for model in dict.fromkeys(line.model for line in found.offers):
        yield from [line for line in found.offers if line.model == model and line.fit is Fit.FITS][:1]
