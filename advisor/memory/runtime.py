"""What the process holds besides tensors. The CUDA context is data: `profiles/runtime/`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from advisor.profiles import read
from advisor.units import MIB
from advisor.values import GpuSpec, Plan

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


def has_triton(gpu: GpuSpec | None) -> bool:
    """Whether Triton compiles for the card: it does for NVIDIA's, AMD's and Intel's (triton 3.x backends; its XPU fork)."""
    return gpu is None or gpu.vendor not in ("CPU", "Apple")


class Context(NamedTuple):
    """The CUDA context of a process: outside the allocator, inside what nvidia-smi shows."""

    context_bytes: int
    margin_bytes: int


GROUPS_OF_HYBRID = 3
"""Hybrid sharding has a group of shards and one of replicas beside that of all processes (torch 2.13 distributed/device_mesh.py)."""


def communicators_of(plan: Plan, gpu: GpuSpec | None) -> Context:
    """What the collectives of the plan's groups take, and how far that may be off; nothing on one card."""
    if plan.n_gpus == 1 or not has_caching_allocator(gpu):
        return Context(0, 0)
    vendor = gpu.vendor if gpu is not None else None
    rows = [
        row
        for row in read("communicators")
        if row["vendor"] in (None, vendor) and (row["cards"] == "several" or plan.n_gpus == 2)  # of two cards the row of two speaks
    ]
    row = next((row for row in reversed(rows) if row["cards"] == "two"), rows[-1])
    groups = GROUPS_OF_HYBRID if plan.shard_group else 1
    return Context(row["communicator_bytes"] + (groups - 1) * row["further_bytes"], row["margin_bytes"] * groups)


@cache
def context_of(compute_capability: str | None) -> Context:
    """As measured on cards of that compute capability, else the default row."""
    rows = {row["compute_capability"]: row for row in read("runtime")}
    row = rows.get(compute_capability, rows[None])
    return Context(row["context_bytes"], row["margin_bytes"])
