"""What the process holds besides tensors: the CUDA context, cuBLAS workspaces, and what the caching allocator keeps in hand."""

from __future__ import annotations

from advisor.units import MIB
from advisor.values import GpuSpec, Interval

CUBLAS_WORKSPACE_BYTES = 8_519_680
"""4096 KiB x 2 + 16 KiB x 8 (torch 2.13 aten/src/ATen/cuda/CublasHandlePool.cpp, default `CUBLAS_WORKSPACE_CONFIG`)."""
CUBLAS_WORKSPACE_HOPPER_BYTES = 32 * MIB
"""From compute capability 9.0 on (same file)."""
HANDLES = 2
"""Forward and backward run in threads of their own, each with a cuBLAS handle (torch/csrc/autograd/engine.cpp)."""


def workspace_bytes(gpu: GpuSpec | None) -> int:
    """cuBLAS workspaces, which count as allocated from the first matrix products of forward and of backward on."""
    capability = gpu.compute_capability if gpu else None
    hopper = capability is not None and float(capability) >= 9.0
    return HANDLES * (CUBLAS_WORKSPACE_HOPPER_BYTES if hopper else CUBLAS_WORKSPACE_BYTES)


CONTEXT_BYTES = 500 * MIB
INTERVAL = Interval(low_factor=0.93, high_factor=1.1, source="placeholder")
