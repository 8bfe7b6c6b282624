"""What a saved adapter shows: the update of every module, how its energy spreads over the rank, and what that does not tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from statistics import median
from typing import Annotated

from pydantic import Field, computed_field

from advisor.values.advice import Finding
from advisor.values.memory import Computed
from advisor.values.vocabulary import SCHEMA_VERSION, Bytes, Method, Positive, Value

Share = Annotated[float, Field(ge=0, le=1)]


class ModuleState(str, Enum):
    TRAINED = "trained"
    FAINT = "faint"
    """Its update is far below the other modules'."""
    UNTRAINED = "untrained"
    """B is zero, or was never moved: the module adds nothing."""
    NOT_FINITE = "not_finite"
    """The factors hold NaN or infinity."""


class Spectrum(Value):
    """Singular values σ of one update, and the usual one-number readings of them."""

    singular_values: tuple[float, ...]
    """Largest first, with the scale of the adapter in them; as many as the module's rank."""
    numerical_rank: int
    """How many stand above the rounding of the stored factors."""
    stable_rank: float
    """Σσ² / σ₁²."""
    effective_rank: float
    """exp(−Σ p ln p) with p = σ/Σσ (Roy and Vetterli, 2007)."""
    entropy_rank: float
    """exp(−Σ p ln p) with p = σ²/Σσ²."""
    rank_for_90: int
    """k90: the smallest rank that keeps 90 % of Σσ², the convention of peft's lora conversion."""
    rank_for_95: int


class MagnitudeDrift(Value):
    """How far DoRA's magnitudes went from the norms of the base weight's rows, where they began: m / ‖W‖ − 1 for each output."""

    mean: float
    mean_abs: float
    max_abs: float


class ModuleUpdate(Value):
    """The update that the adapter adds to one weight matrix: scale · B · A."""

    name: str
    """As in the model; an expert of a fused weight has its number in brackets."""
    kind: str
    """Its last name, such as q_proj."""
    layer: int | None = None
    rank: Positive
    in_features: Positive
    out_features: Positive
    scale: float
    """alpha / r, or alpha / √r with rsLoRA."""
    dtype: str
    """Of the stored factors, as safetensors names it."""
    a_norm: float | None
    b_norm: float | None
    update_norm: float | None
    """Frobenius norm of scale · B · A; None where it is not finite."""
    state: ModuleState
    spectrum: Spectrum | None
    """None where there is no update to read."""
    base_norm: float | None = None
    """Frobenius norm of the base weight; None where it is not known."""
    magnitude: MagnitudeDrift | None = None
    """DoRA's, where the base weight's norms are known."""

    def energy_at(self, rank: int) -> float:
        """Share of Σσ² that the `rank` largest singular values hold."""
        if self.spectrum is None:
            return 1.0
        squares = squares_of(self.spectrum.singular_values)
        return sum(squares[:rank]) / sum(squares)


def squares_of(values: Sequence[float]) -> list[float]:
    """The squares of the values, all of them over the same power of four, so that those of the largest neither vanish nor overflow."""
    _, exponent = math.frexp(max(values, default=0.0))
    return [math.ldexp(value, -exponent) ** 2 for value in values]


class EnergyKept(Value):
    """What is left of the update when every module is cut to one rank."""

    rank: Positive
    pooled: Share
    """Of the whole adapter: Σσ² over all modules."""
    median: Share
    """Of the middle module."""
    lowest: Share
    lowest_module: str


class TruncationTest(Value):
    """The free test of whether the rank is used: cut it, evaluate again, compare on the same items."""

    rank: Positive
    energy_kept: Share
    command: str
    then: str
    """What to do with the result."""


class AdapterReport(Computed):
    """What `adapter_config.json` and `adapter_model.safetensors` say, without the base weights."""

    schema_version: str = SCHEMA_VERSION
    path: str
    base_model: str | None
    method: Method
    """LoRA or DoRA. Whether the base was quantised does not stand in the adapter."""
    rank: Positive
    """As in the config; modules may have ranks of their own."""
    alpha: float
    use_rslora: bool
    init: str
    """`init_lora_weights` of the config."""
    modules: tuple[ModuleUpdate, ...]
    other_tensors: tuple[str, ...] = ()
    """Saved beside the factors: whole trained weights, biases."""
    params: Positive
    """Numbers in the factors, with DoRA's magnitudes."""
    file_bytes: Bytes
    energy: tuple[EnergyKept, ...] = ()
    """By rank, halving from the highest."""
    test: TruncationTest | None = None
    findings: tuple[Finding, ...] = ()
    cannot_tell: tuple[Finding, ...] = ()
    """What must not be read from these numbers."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def update_norm(self) -> float:
        """Frobenius norm of all updates together."""
        return float(sum(module.update_norm**2 for module in self.modules if module.update_norm is not None) ** 0.5)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def energy_at_half_rank(self) -> float | None:
        """Pooled share of Σσ² at half the rank; None where no module has an update, or the rank is 1."""
        return next((kept.pooled for kept in self.energy if kept.rank == max(module.rank for module in self.modules) // 2), None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median_effective_rank(self) -> float | None:
        ranks = [module.spectrum.effective_rank for module in self.modules if module.spectrum is not None]
        return median(ranks) if ranks else None

    def in_state(self, state: ModuleState) -> tuple[ModuleUpdate, ...]:
        return tuple(module for module in self.modules if module.state is state)


class TruncatedAdapter(Value):
    """An adapter of lower rank that was written."""

    schema_version: str = SCHEMA_VERSION
    path: str
    source: str
    rank: Positive
    alpha: float
    energy_kept: Share
    params: Positive
    params_before: Positive
    file_bytes: Bytes
