"""What one card holds of a plan besides the tensors that its step makes: the shape in which every engine says it."""

from __future__ import annotations

from typing import NamedTuple

from advisor.values import Term


class Held(NamedTuple):
    """Bytes on one card, besides what the tapes make."""

    load: tuple[tuple[Term, int], ...]
    """The highest moment of loading and wrapping."""
    weights_bytes: int
    adapter_bytes: int
    states_bytes: int
    """Of the optimizer, with its fp32 copies of the parameters."""
    step_gradient_bytes: int
    """In the optimizer's step."""
    step_temporary_bytes: int
    gathered_bytes: int = 0
    """Weights that are whole in forward and backward, where the tapes do not say so themselves."""
    forward_bytes: int = 0
    """Gradients and their buffers through forward."""
    backward_bytes: int = 0
    """The same through backward, beside the gradients that it makes."""


def loaded_beside(extra: int, adapter: int, wrapping: int) -> tuple[tuple[Term, int], ...]:
    """What loading needs besides the weights is gone when the adapter is made, and the engine wraps the model after that."""
    return ((Term.TEMPORARIES, extra),) if extra > adapter + wrapping else ((Term.ADAPTER, adapter), (Term.TEMPORARIES, wrapping))
