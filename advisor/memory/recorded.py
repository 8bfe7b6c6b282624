"""Memory of a plan of a model without tables: its recorded step, with what several cards take beside it.

FSDP's step is recorded as one of its cards runs it. A replica of DDP runs the step of one card, whose recording is read, and holds
buckets beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from advisor.checkpoints import unshardable
from advisor.errors import UnsupportedError
from advisor.memory.calibrated import narrowed
from advisor.memory.chance import with_chance
from advisor.memory.host_memory import host_beside, said_of_host
from advisor.memory.loading import buckets_reduced, copies_sent
from advisor.memory.replayed import breakdown_of, of_other_releases, replay_of, tape_for
from advisor.memory.sharding import check_engine, check_offload
from advisor.memory.units import DEFERS
from advisor.values import GpuSpec, MemoryBreakdown, ModelSpec, PhaseBytes, Plan, Sharding, Term
from advisor.values.memory import HostMemory

if TYPE_CHECKING:
    from advisor.tape.tape import Beside, Tape


UNUSED = "what is trained gets no gradient in places, at which DDP stops; set ddp_find_unused_parameters: true"
"""Said of a bare model that checkpoints: a Trainer looks for such parameters everywhere else (transformers 5.23 trainer.py)."""


def looks_for_unused(plan: Plan) -> bool:
    """Whether the stack tells DDP to look for parameters that got no gradient, unasked."""
    return plan.stack in DEFERS and (plan.method.has_adapter or not plan.gradient_checkpointing)


def estimate_from_tape(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
    """Memory of `plan` on each card: the dry run's, replayed. Raises as `replayed.tape_for`."""
    _check(model, plan)
    beside = partial(_buckets_beside, plan=plan) if plan.sharding is Sharding.DDP else None
    replay = replay_of(model, plan, gpu, beside)
    memory = breakdown_of(replay, model, plan, gpu)
    host = _host(model, replay.phases, plan, gpu)
    notes = (*memory.notes, *of_other_releases(replay.versions), *_said(model, plan, gpu, host))
    memory = memory.model_copy(update={"host": host, "notes": notes})
    return with_chance(narrowed(memory, model, plan, gpu), model, plan, gpu)


def _said(model: ModelSpec, plan: Plan, gpu: GpuSpec | None, host: HostMemory | None) -> Iterator[str]:
    """What is to be said of several cards."""
    if host is not None and host.lacks:
        yield said_of_host(host)
    if plan.sharding is Sharding.DDP and not looks_for_unused(plan) and _idles(tape_for(model, plan, gpu), plan):
        yield UNUSED


LEAST_USED_SHARE = 0.999
"""Of what is trained, below which some of it gets no gradient. Judgement: buffers that nothing trains are no thousandth of a model."""


def _idles(tape: Tape, plan: Plan) -> bool:
    """Whether some of what is trained gets no gradient."""
    return tape.gradient_bytes < sum(size for _, size in _trained(tape, plan)) * LEAST_USED_SHARE


def _trained(tape: Tape, plan: Plan) -> list[tuple[str, int]]:
    from advisor.tape.tape import ADAPTER

    return [tensor for tensor in tape.parameters if tensor[0] == ADAPTER or not plan.method.has_adapter]


def _check(model: ModelSpec, plan: Plan) -> None:
    """Raises UnsupportedError for what an engine does not do, as `peak.priced_model` does for a model with tables."""
    why = unshardable(model, plan.quantization) if plan.sharding.shards_weights else ""
    if why:
        raise UnsupportedError(f"{plan.sharding.value}: {why}; use DDP, or train from the 16-bit weights")
    check_engine(plan)
    check_offload(plan)


def _buckets_beside(tape: Tape, plan: Plan) -> Beside:
    """What DDP holds beside one card's step: the flat copies in which it sends the weights, and then buckets for the gradients of all that
    is trained, whether the step makes them or not. Where it looks for no idle ones it begins with a single bucket, and cuts the others out
    of its place (nn/parallel/distributed.py `_ddp_init_helper`)."""
    from advisor.tape.tape import Beside

    copies = [size for size in copies_sent(tape.parameters) if size]
    if plan.quantization is not None:  # read by their names, and sent as the modules stand: the largest two may be neighbours
        copies.sort(reverse=True)
    buckets = buckets_reduced(_trained(tape, plan))
    looks = looks_for_unused(plan) or _idles(tape, plan)
    return Beside(tuple(copies), tuple(buckets) if looks else (sum(buckets),))


def _of(phase: PhaseBytes, term: Term) -> int:
    return sum(each.bytes for each in phase.terms if each.term is term)


def _host(model: ModelSpec, phases: Sequence[PhaseBytes], plan: Plan, gpu: GpuSpec | None) -> HostMemory | None:
    """Memory of the host of a full node; None on one card. Under FSDP a card never holds the whole model, whose parameters are counted."""
    if plan.n_gpus == 1:
        return None
    if plan.quantization is not None or not plan.sharding.shards_weights:
        return host_beside(max(_of(phase, Term.WEIGHTS) for phase in phases), plan, gpu)
    return host_beside(model.params * plan.base_dtype.size_bytes, plan, gpu)
