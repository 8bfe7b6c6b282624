"""Optimizers that hold on a meta device what the real ones hold on a card.

torch's own foreach and Adafactor's own code run as they are. The fused and the bitsandbytes kernels do not run on meta tensors: their
states are made with the same shapes and types, and their steps take no other memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from advisor.dryrun.recorder import Recorder
from advisor.values import Optimizer, Plan

BLOCK = 256
"""Elements that share one scale (bitsandbytes 0.50 optim/optimizer.py, init_state)."""
MIN_8BIT_ELEMENTS = 4096
"""Smaller tensors keep 32-bit states (min_8bit_size, same file)."""
PAGED_MIN_ELEMENTS = 100_000
"""Smaller states are not paged (get_state_buffer, same file); paged ones are managed memory outside torch's allocator."""
QMAP_BYTES = 1024
"""A quantisation map: 256 fp32 values, one per moment, shared by all tensors."""


class StateOnly:
    """An optimizer whose step only makes its states, once."""

    def __init__(self, parameters: list[Any], make: Callable[[Any], list[torch.Tensor]], shared: int = 0) -> None:
        self.parameters = parameters
        self.states: dict[int, list[torch.Tensor]] = {}
        self._make = make
        self._shared = shared
        self._held: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self) -> None:
        if not self._held and self._shared:
            self._held = [torch.empty(QMAP_BYTES // 4, device=self.parameters[0].device) for _ in range(self._shared)]
        for index, parameter in enumerate(self.parameters):
            if index not in self.states and parameter.grad is not None:
                self.states[index] = self._make(parameter)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state_tensors(self) -> list[torch.Tensor]:
        return self._held + [tensor for states in self.states.values() for tensor in states]


class TorchOptimizer:
    """A torch (or transformers) optimizer, run for real."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def step(self) -> None:
        self.inner.step()

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)

    def state_tensors(self) -> list[torch.Tensor]:
        return [value for state in self.inner.state.values() for value in state.values() if isinstance(value, torch.Tensor)]


def _fused_states(parameter: Any) -> list[torch.Tensor]:
    """step (0-d, on the card when fused) and two moments (torch 2.13 optim/adamw.py, _init_group)."""
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return [step, torch.zeros_like(parameter), torch.zeros_like(parameter)]


def _bitsandbytes_states(moments: int, eight_bit: bool, paged: bool) -> Callable[[Any], list[torch.Tensor]]:
    def make(parameter: Any) -> list[torch.Tensor]:
        elements, device = parameter.numel(), parameter.device
        small = elements < MIN_8BIT_ELEMENTS
        outside = paged and elements >= PAGED_MIN_ELEMENTS
        dtype = torch.float32 if small or not eight_bit else torch.uint8
        states = [] if outside else [torch.zeros_like(parameter, dtype=dtype) for _ in range(moments)]
        if dtype is torch.uint8:
            blocks = -(-elements // BLOCK)
            states += [torch.zeros(blocks, dtype=torch.float32, device=device) for _ in range(moments)]
        return states

    return make


def build(parameters: list[Any], plan: Plan) -> StateOnly | TorchOptimizer:
    """An optimizer of the trained parameters."""
    kind = plan.optimizer
    if kind is Optimizer.ADAMW:
        return TorchOptimizer(torch.optim.AdamW(parameters, lr=1e-4, foreach=True))
    if kind is Optimizer.SGD:
        return TorchOptimizer(torch.optim.SGD(parameters, lr=1e-4, foreach=True))
    if kind is Optimizer.ADAFACTOR:
        from transformers.optimization import Adafactor

        return TorchOptimizer(Adafactor(parameters, lr=1e-4, scale_parameter=False, relative_step=False))
    if kind is Optimizer.ADAMW_FUSED:
        return StateOnly(parameters, _fused_states)
    moments = 1 if kind in (Optimizer.LION_32BIT, Optimizer.LION_8BIT) else 2
    eight_bit = kind in (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT, Optimizer.LION_8BIT)
    paged = kind in (Optimizer.PAGED_ADAMW_8BIT, Optimizer.PAGED_ADAMW_32BIT)
    return StateOnly(parameters, _bitsandbytes_states(moments, eight_bit, paged), shared=moments if eight_bit else 0)


def label_states(optimizer: StateOnly | TorchOptimizer, recorder: Recorder) -> None:
    for tensor in optimizer.state_tensors():
        if tensor.device.type == recorder.device_type:
            recorder.label(tensor, "optimizer_state")
