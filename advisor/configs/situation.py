"""What the rules of a check look at."""

from __future__ import annotations

from typing import NamedTuple

from advisor.configs.verdict import Settled, settle
from advisor.ladder.fit import Case
from advisor.memory import estimate_memory
from advisor.memory.optimizer import FP32_BYTES, MOMENTS
from advisor.stacks.reading import Reading
from advisor.stacks.versions import Profile
from advisor.values import DType, Fit, GpuSpec, MemoryBreakdown, ModelSpec, Optimizer, Plan


class Checked(NamedTuple):
    """A reading with its price."""

    model: ModelSpec
    gpu: GpuSpec | None
    reading: Reading
    profile: Profile
    memory: MemoryBreakdown
    beside_bytes: int = 0
    missing: tuple[str, ...] = ()
    """Target modules of the file that the model does not have; the plan is priced without them."""
    nothing_adapted: bool = False
    """None of them is there: the plan is priced on all linear layers."""
    closed_form: bool = True
    """Other settings of the plan can be priced too."""

    @property
    def plan(self) -> Plan:
        return self.reading.plan

    @property
    def case(self) -> Case | None:
        return None if self.gpu is None else Case(self.model, self.gpu)

    @property
    def settled(self) -> Settled:
        """The verdict, by the price alone and after everything that is not priced, and why."""
        usable = None if self.gpu is None else self.gpu.usable_bytes
        return settle(self.model, self.plan, self.memory, self.reading.remarks, self.beside_bytes, usable)

    @property
    def priced_fit(self) -> Fit | None:
        """By the price alone."""
        return self.settled.priced_fit

    @property
    def fit(self) -> Fit | None:
        """The price's verdict, unless something that is not priced may turn it."""
        return self.settled.fit

    def saving(self, **changes: object) -> int:
        """What other settings of the same plan would save, in closed form on both sides."""
        before, after = (estimate_memory(self.model, plan, self.gpu) for plan in (self.plan, self.plan.model_copy(update=changes)))
        return before.expected_bytes - after.expected_bytes


def beside_bytes(model: ModelSpec, plan: Plan, modules_to_save: tuple[str, ...]) -> int:
    """Embeddings and head that are trained whole beside an adapter (peft 0.21 utils/other.py `ModulesToSaveWrapper`).

    Each gets a copy in its own type, which is trained: its gradient and the optimizer's states come on top. Other modules' names, such
    as norms, are small and count as nothing.
    """
    params = sum(_params_of(model, name) for name in dict.fromkeys(modules_to_save))
    item = plan.base_dtype.size_bytes if not plan.kbit_prepare else DType.FP32.size_bytes
    eight_bit = plan.optimizer in (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT, Optimizer.LION_8BIT)
    by_torch = plan.optimizer in (Optimizer.ADAMW, Optimizer.ADAMW_FUSED)
    state = MOMENTS[plan.optimizer] * (1 if eight_bit else item if by_torch else FP32_BYTES)
    return params * (2 * item + state)


_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
_HEADS = ("lm_head", "embed_out", "output", "score")


def _params_of(model: ModelSpec, name: str) -> int:
    leaf = name.rpartition(".")[2]
    if model.tables is None:
        return model.vocab_size * model.hidden_size if leaf in (*_EMBEDDINGS, *_HEADS) else 0
    if leaf in _EMBEDDINGS:
        return model.shape.embedding_params
    if leaf in _HEADS:
        return model.shape.head_params or (model.shape.embedding_params if model.shape.tied_embeddings else 0)
    return 0
