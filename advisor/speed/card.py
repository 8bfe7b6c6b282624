"""Which of a card's peaks a plan computes at."""

from __future__ import annotations

from typing import NamedTuple

from advisor.speed.constants import bounds
from advisor.values import DType, GpuSpec, Plan


class Peaks(NamedTuple):
    flop_per_s: float
    bytes_per_s: float


class Rates(NamedTuple):
    """A card at work: its peaks times the share of them that is reached."""

    flop_per_s: float
    bytes_per_s: float
    dequantised_per_s: float
    """4- and 8-bit weights expanded a second."""


def peaks_of(plan: Plan, gpu: GpuSpec) -> Peaks | None:
    """The card's dense peak in the type that the matrix products run in; None where the profile does not hold it.

    fp32 products run without TF32: torch leaves it off (`torch.get_float32_matmul_precision()` is "highest", torch 2.13).
    """
    dtype = plan.autocast_dtype if plan.autocast else plan.base_dtype
    flop_per_s = {DType.BF16: gpu.bf16_flop_per_s, DType.FP16: gpu.fp16_flop_per_s, DType.FP32: gpu.fp32_flop_per_s}[dtype]
    if not flop_per_s or not gpu.bandwidth_bytes_per_s:
        return None
    return Peaks(float(flop_per_s), float(gpu.bandwidth_bytes_per_s))


def fastest(peaks: Peaks) -> Rates:
    return _rates(peaks, matmul_high=True, bandwidth_high=True, dequantisation_high=False)


def slowest(peaks: Peaks) -> Rates:
    return _rates(peaks, matmul_high=False, bandwidth_high=False, dequantisation_high=True)


def lopsided(peaks: Peaks) -> tuple[Rates, Rates]:
    """Products slow and bytes fast, and the other way round: the ends between which the ratio of two plans lies."""
    return (
        _rates(peaks, matmul_high=False, bandwidth_high=True, dequantisation_high=False),
        _rates(peaks, matmul_high=True, bandwidth_high=False, dequantisation_high=True),
    )


def _rates(peaks: Peaks, *, matmul_high: bool, bandwidth_high: bool, dequantisation_high: bool) -> Rates:
    matmul, bandwidth, dequantisation = bounds("matmul_utilisation"), bounds("bandwidth_utilisation"), bounds("dequantisation_bytes")
    return Rates(
        peaks.flop_per_s * (matmul.high if matmul_high else matmul.low),
        peaks.bytes_per_s * (bandwidth.high if bandwidth_high else bandwidth.low),
        peaks.bytes_per_s / (dequantisation.high if dequantisation_high else dequantisation.low),
    )
