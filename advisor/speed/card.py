"""A card at work: its peaks times the shares of them that published runs reached (rows of `profiles/rates/`)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from advisor import profiles
from advisor.speed.constants import bounds
from advisor.values import DType, GpuSpec, Loss, Plan

FUSING_LOSSES = (Loss.FUSED, Loss.IN_PLACE)
"""What brings these brings fused norms, rotations and activations too (Liger's `apply_liger_kernel_to_*`, FOAK, Unsloth)."""


class Peaks(NamedTuple):
    flop_per_s: float
    bytes_per_s: float


class Rates(NamedTuple):
    """A card at work."""

    product_flop_per_s: float
    attention_flop_per_s: float
    peak_bytes_per_s: float
    stream_bytes_per_s: float
    """In elementwise kernels."""
    optimizer_bytes_per_s: float
    """In the optimizer's, which no fused kernels of a model touch."""
    dequantised_per_s: float
    """4- and 8-bit weights expanded a second."""


class KernelFactors(NamedTuple):
    """What kernels change of a card's shares."""

    attention: float
    bandwidth: float


class Spread(NamedTuple):
    """Measured times over computed ones: most lie between."""

    low: float
    high: float


class CardShares(NamedTuple):
    """Shares of a card's peaks that runs reached, and how many sources say so."""

    family: str
    products: float
    attention: float
    bandwidth: float
    runs: int
    groups: tuple[str, ...]

    @property
    def sources(self) -> Literal["several", "one or none"]:
        """As rows of `profiles/rates/spread.json` say it: rates that one source alone gave were never tried on another."""
        return "several" if len(self.groups) > 1 else "one or none"


def peaks_of(plan: Plan, gpu: GpuSpec) -> Peaks | None:
    """The card's dense peak in the type that the matrix products run in; None where the profile does not hold it.

    fp32 products run without TF32: torch leaves it off (`torch.get_float32_matmul_precision()` is "highest", torch 2.13).
    """
    dtype = plan.autocast_dtype if plan.autocast else plan.base_dtype
    flop_per_s = {DType.BF16: gpu.bf16_flop_per_s, DType.FP16: gpu.fp16_flop_per_s, DType.FP32: gpu.fp32_flop_per_s}[dtype]
    if not flop_per_s or not gpu.bandwidth_bytes_per_s:
        return None
    return Peaks(float(flop_per_s), float(gpu.bandwidth_bytes_per_s))


def shares_of(gpu_name: str) -> CardShares:
    """Of the card's family; where no run of it is known, of the cards that are most like it."""
    rows = profiles.read("rates/cards")
    row = next((row for row in rows if gpu_name in row["cards"]), None)
    if row is not None:
        return CardShares(row["family"], *_shares(row), row["runs"], tuple(row["groups"]))
    like = next(row for row in rows if row["begins"] is not None and gpu_name.startswith(row["begins"]))
    return CardShares(like["family"], *_shares(like), 0, ())


def _shares(row: dict[str, Any]) -> tuple[float, float, float]:
    return float(row["products_share"]), float(row["attention_share"]), float(row["bandwidth_share"])


def every_card() -> tuple[CardShares, ...]:
    """The shares of each family, for answers that name no card."""
    return tuple(shares_of(row["cards"][0]) for row in profiles.read("rates/cards") if row["cards"])


def kernels_of(plan: Plan) -> str:
    return "fused" if plan.loss in FUSING_LOSSES else "eager"


def factors_of(kernels: str) -> KernelFactors:
    row = next(row for row in profiles.read("rates/kernels") if row["kernels"] == kernels)
    return KernelFactors(float(row["attention_factor"]), float(row["bandwidth_factor"]))


def rates_of(peaks: Peaks, shares: CardShares, factors: KernelFactors, dequantisation_bytes: float | None = None) -> Rates:
    """At `dequantisation_bytes` a 4- or 8-bit weight and pass; left out, in the middle of the published range."""
    ends = bounds("dequantisation_bytes")
    a_weight = dequantisation_bytes or (ends.low * ends.high) ** 0.5
    return Rates(
        product_flop_per_s=peaks.flop_per_s * shares.products,
        attention_flop_per_s=peaks.flop_per_s * shares.attention * factors.attention,
        peak_bytes_per_s=peaks.bytes_per_s,
        stream_bytes_per_s=peaks.bytes_per_s * shares.bandwidth * factors.bandwidth,
        optimizer_bytes_per_s=peaks.bytes_per_s * shares.bandwidth,
        dequantised_per_s=peaks.bytes_per_s / a_weight,
    )


def spread_of(shares: CardShares) -> Spread:
    row = next(row for row in profiles.read("rates/spread") if row["sources"] == shares.sources)
    return Spread(float(row["low"]), float(row["high"]))


def said_of(shares: CardShares) -> str:
    """Where the rates come from, for the reader."""
    if not shares.runs:
        return "no run of this card is known: rates of other cards, so the ranges are wide"
    sources = sorted({group.split(" · ")[0].split("/")[-1] for group in shares.groups})
    alone = "" if shares.sources == "several" else "; no other source confirms them, so the ranges are wide"
    return f"rates of {shares.runs} published run{'s' * (shares.runs > 1)} of {shares.family} cards ({', '.join(sources)}){alone}"
