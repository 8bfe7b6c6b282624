"""What the process holds besides tensors, and how far an estimate may be off.

The CUDA context and the residuals of measured runs are data: `profiles/runtime/`, `profiles/measurements/residuals/`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from advisor.profiles import read
from advisor.units import MIB
from advisor.values import GpuSpec, Interval, Plan, Stack

CUBLAS_WORKSPACE_BYTES = 8_519_680
"""4096 KiB x 2 + 16 KiB x 8 (torch 2.13 aten/src/ATen/cuda/CublasHandlePool.cpp, default `CUBLAS_WORKSPACE_CONFIG`)."""
CUBLAS_WORKSPACE_HOPPER_BYTES = 32 * MIB
"""From compute capability 9.0 on (same file)."""
HANDLES = 2
"""Forward and backward run in threads of their own, each with a cuBLAS handle (torch/csrc/autograd/engine.cpp)."""


def workspace_bytes(gpu: GpuSpec | None) -> int:
    """cuBLAS workspaces, which count as allocated from the first matrix products of forward and of backward on."""
    if gpu is not None and gpu.vendor in ("CPU", "Apple"):
        return 0
    capability = gpu.compute_capability if gpu else None
    hopper = capability is not None and float(capability) >= 9.0
    return HANDLES * (CUBLAS_WORKSPACE_HOPPER_BYTES if hopper else CUBLAS_WORKSPACE_BYTES)


FLASH_CAPABILITY = 8.0
"""torch 2.13 aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, check_sm_version: torch's own flash kernel needs sm80."""


def has_flash(gpu: GpuSpec | None) -> bool:
    """Whether torch's attention can choose its flash kernel on the card; an unknown card is taken to be a recent one."""
    capability = gpu.compute_capability if gpu is not None and gpu.vendor == "NVIDIA" else None
    return capability is None or float(capability) >= FLASH_CAPABILITY


def has_caching_allocator(gpu: GpuSpec | None) -> bool:
    """On the CPU torch hands memory back to the system's allocator at once."""
    return gpu is None or gpu.vendor != "CPU"


class Context(NamedTuple):
    """The CUDA context of a process: outside the allocator, inside what nvidia-smi shows."""

    context_bytes: int
    margin_bytes: int


@cache
def context_of(compute_capability: str | None) -> Context:
    """As measured on cards of that compute capability, else the default row."""
    rows = {row["compute_capability"]: row for row in read("runtime")}
    row = rows.get(compute_capability, rows[None])
    return Context(row["context_bytes"], row["margin_bytes"])


def interval_of(tier: str, plan: Plan, gpu: GpuSpec | None) -> Interval:
    """The tier's interval for this plan: that of the measured runs where one was like it, else the wide one."""
    kind = "seen" if gpu is not None and plan.stack is Stack.PLAIN and gpu.name in _measured_cards(tier) else "unseen"
    return _interval(tier, kind, context_of(gpu.compute_capability if gpu else None).margin_bytes)


def has_tier(tier: str) -> bool:
    """Whether measured runs have been predicted with that tier."""
    return any(row["tier"] == tier for row in read("measurements/residuals"))


@cache
def _interval(tier: str, kind: str, margin_bytes: int) -> Interval:
    return Interval(**{**_residuals(tier)[kind], "context_bytes": margin_bytes})


@cache
def _measured_cards(tier: str) -> frozenset[str]:
    """Cards of the measured runs; a group is "source · card"."""
    return frozenset(residual["group"].split(" · ")[1] for residual in _residuals(tier)["residuals"])


class ResidualShares(NamedTuple):
    """Errors of a tier on measured runs, smallest first, and the shares of the interval that they make."""

    errors: tuple[float, ...]
    low_share: float
    high_share: float


@cache
def residual_shares(tier: str) -> ResidualShares:
    """Of the tier, or of the closed form where measured runs have not been predicted with it."""
    row = _residuals(tier if has_tier(tier) else "estimate")
    return ResidualShares(tuple(sorted(r["share"] for r in row["residuals"])), row["seen"]["low_share"], row["seen"]["high_share"])


@cache
def _residuals(tier: str) -> dict[str, Any]:
    row = next((row for row in read("measurements/residuals") if row["tier"] == tier), None)
    if row is None:
        raise LookupError(f"profiles/measurements/residuals holds no row for the tier {tier!r}")
    return row
