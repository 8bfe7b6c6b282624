"""One model on one card in a line: which method, does it fit, how long a sequence, and what the time costs."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from advisor.display import Shown
from advisor.frames import Framed, Row, scalars
from advisor.values.advice import Fit, StepTime, time_and_cost
from advisor.values.card import GpuSpec
from advisor.values.vocabulary import Bytes, Method, Positive, Value


class Offer(Value):
    """What `advise` would run first of a model on a card, with its price."""

    model: str
    params: Positive
    gpu: GpuSpec
    n_gpus: Positive = 1
    method: Method
    """The rung that is chosen; where nothing fits, the one that comes nearest."""
    fit: Fit
    low_bytes: Bytes
    expected_bytes: Bytes
    high_bytes: Bytes
    changes: tuple[str, ...] = ()
    """What was changed to make it fit."""
    seq_len_tokens: Positive
    """Of the plan: shorter than asked for where only that fits."""
    max_seq_len_tokens: int | None = None
    """Longest sequence that still surely fits."""
    dataset_tokens: Positive
    step_time: StepTime | None = None
    """For the data set's tokens; None where the card's speeds or the model's operations are not known."""
    usd_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Of all cards, by the lowest recorded price of one."""
    price_date: str = ""

    @property
    def middle_usd(self) -> float | None:
        """The geometric middle of what the data set costs: the ranges are wide, and as a factor as far down as up."""
        usd = None if self.step_time is None else self.step_time.usd
        return None if usd is None else (usd.low * usd.high) ** 0.5


class Refused(Value):
    """A model on a card that is not priced, and why."""

    model: str
    gpu: str
    reason: str


class SideBySide(Shown, Framed, Value):
    """Models and cards side by side, best first."""

    offers: tuple[Offer, ...]
    refused: tuple[Refused, ...] = ()
    dataset_tokens: Positive
    asked_tokens: bool
    """Whether the size of the data set was given, and is not taken for comparison alone."""

    def _frame_rows(self) -> Iterator[Row]:
        """One for each model on each card, best first."""
        for offer in self.offers:
            yield {
                **scalars(offer, "step_time"),
                "gpu": offer.gpu.name,
                "usable_bytes": offer.gpu.usable_bytes,
                **time_and_cost(offer.step_time),
            }

    @property
    def exit_code(self) -> int:
        """0 something fits · 1 nothing fits · 3 cannot tell."""
        fits = {offer.fit for offer in self.offers}
        return 0 if Fit.FITS in fits else 3 if Fit.UNCERTAIN in fits else 1
