"""Read a question off the options, and answer it."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.backwards.answer import about_cards, about_models, about_number_of_cards, about_numbers
from advisor.backwards.question import Question, asked
from advisor.devices import search_gpus
from advisor.errors import InvalidInputError
from advisor.inputs import as_gpu, as_model, as_request
from advisor.ladder.request import OF_THE_HOST
from advisor.on_demand import Progress, answered, telling
from advisor.values import GpuSpec, ModelSpec
from advisor.values.question import FitAnswer, Unknown


def ask(
    model: str | ModelSpec | None,
    gpu: str | GpuSpec | None,
    options: Mapping[str, object],
    *,
    use_calibrations: bool,
    progress: Progress,
) -> FitAnswer:
    """The answer to `advisor.fit`. Raises an AdvisorError, one clear line, for what cannot be used."""
    unknown, fewest = asked({**options, "model": model, "gpu": gpu})
    given = {name: value for name, value in options.items() if not _is_unknown(name, unknown, fewest)}
    told = next((name for name in OF_THE_HOST if options.get(name)), None)
    if told is not None:
        raise InvalidInputError(f"--{told.replace('_', '-')}: advise fit does not look at the host; ask advise or advise estimate")
    if unknown is Unknown.MODEL:
        card = as_gpu(gpu, use_calibrations)
        with telling(progress, f"the largest model that fits {card.name} …"):
            return about_models(card, Question(unknown, as_request(given, card)))
    if model is None:
        raise InvalidInputError("--model is missing; for example: advise fit --model llama-3.1-8b --gpu 24GB --seq-len max")
    spec = as_model(model, progress)
    if unknown is Unknown.GPU:
        question = Question(unknown, as_request(given), fewest)
        cards = tuple(as_gpu(card.name, use_calibrations) for card in search_gpus() if card.prices)
        with telling(progress, f"{spec.id} on {len(cards)} cards …"):
            return answered(lambda: about_cards(spec, cards, question), progress)
    card = as_gpu(gpu, use_calibrations)
    question = Question(unknown, as_request(given, None if fewest else card), fewest)
    about = about_number_of_cards if unknown is Unknown.GPUS else about_numbers
    return answered(lambda: about(spec, card, question), progress)


def _is_unknown(name: str, unknown: Unknown, fewest: bool) -> bool:
    """Whether the option holds a word in place of its value."""
    return name == unknown.value or (fewest and name == Unknown.GPUS.value)
