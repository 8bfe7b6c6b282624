"""Changes that make a plan take less memory, from what costs nothing to what costs most.

Lossless first (nothing is lifted to fp32, the loss fused into the head), then time (checkpointing, sharding, reduction in each
micro-batch, smaller micro-batches), then quality (8-bit optimizer states), and last what makes a step several times as long (offload to
a host whose memory is known). The rank is never lowered: an adapter is too small a part of the memory for that to cure anything
(facts Q2 and Q9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import NamedTuple

from advisor.checkpoints import unshardable
from advisor.ladder.fit import Case
from advisor.ladder.knowledge import say
from advisor.memory.host_memory import host_memory
from advisor.memory.runtime import has_triton
from advisor.memory.sharding import HOST_OPTIMIZERS
from advisor.memory.units import DEFERS
from advisor.stacks import defaults_of
from advisor.stacks.engines import shared
from advisor.stacks.liger import has_liger
from advisor.units import format_size
from advisor.values import Change, Head, Loss, Method, Offload, Optimizer, Plan, Sharding, Stack


class Move(NamedTuple):
    """Fields of a plan that are set anew, and the change in words."""

    update: dict[str, object]
    change: Change

    def applied(self, plan: Plan) -> Plan:
        return plan.model_copy(update=self.update)


class Step(NamedTuple):
    """One kind of change: the option that fixes it, and the moves that it offers from a plan, mildest first."""

    option: str
    moves: Callable[[Case, Plan], Iterator[Move]]


def without_accumulation(plan: Plan) -> Plan:
    """The same effective batch in one pass, so that no gradient waits whole for the next one."""
    whole = plan.micro_batch_size * plan.grad_accum_steps
    return plan.model_copy(update={"micro_batch_size": whole, "grad_accum_steps": 1})


def _drop_kbit(case: Case, plan: Plan) -> Iterator[Move]:
    if plan.kbit_prepare:
        yield Move({"kbit_prepare": False}, Change(what=say("change.kbit_prepare"), cost=say("cost.kbit_prepare")))


_LIGER_STACKS = (Stack.HF, Stack.LLAMAFACTORY, Stack.MS_SWIFT, Stack.AXOLOTL)
"""Stacks whose one setting puts Liger's fused loss in the place of all logits at once; TRL computes it in chunks unasked."""


def _fuse_loss(case: Case, plan: Plan) -> Iterator[Move]:
    """Of models with tables alone: of others each plan with another loss would be another recording."""
    if case.model.tables is None:
        return
    runs = plan.stack in _LIGER_STACKS and has_triton(case.gpu) and has_liger(case.model.model_type, plan.stack)
    head = plan.head or case.model.first_head
    if runs and plan.loss is Loss.FULL and head is Head.LM and Loss.FUSED in defaults_of(plan.stack).losses:
        yield Move({"loss": Loss.FUSED}, Change(what=say("change.loss"), cost=say("cost.loss")))


def _checkpoint(case: Case, plan: Plan) -> Iterator[Move]:
    if not plan.gradient_checkpointing:
        kind = "full" if plan.method is Method.FULL else "adapter"
        change = Change(what=say("change.checkpointing"), cost=say(f"cost.checkpointing.{kind}"))
        yield Move({"gradient_checkpointing": True}, change)


def _shard(case: Case, plan: Plan) -> Iterator[Move]:
    if plan.n_gpus > 1 and not plan.sharding.shards_weights and not unshardable(case.model, plan.quantization):
        change = Change(what=say("change.sharding", n=plan.n_gpus), cost=say("cost.sharding"))
        yield Move(_under(plan, Sharding.FSDP2), change)


def _under(plan: Plan, sharding: Sharding) -> dict[str, object]:
    """The fields that another engine sets anew."""
    under = shared(plan, sharding)
    return {"sharding": sharding, "masters": under.masters, "use_reentrant": under.use_reentrant}


def _reduce_each_batch(case: Case, plan: Plan) -> Iterator[Move]:
    """Where a Trainer's loop would carry whole gradients to the last micro-batch of a step."""
    if plan.sharding.is_fsdp and plan.grad_accum_steps > 1 and plan.stack in DEFERS and not plan.sync_each_batch:
        cost = say("cost.sync_each_batch", n=plan.grad_accum_steps)
        yield Move({"sync_each_batch": True}, Change(what=say("change.sync_each_batch"), cost=cost))


def _offload(case: Case, plan: Plan) -> Iterator[Move]:
    """Only where the machine's memory is known: a plan that fits the cards and not their host dies all the same. Of models with tables
    alone: no recording has states or weights on the host."""
    if case.model.tables is None or case.gpu.host_bytes is None:
        return
    if plan.offloads_optimizer or not plan.sharding.shards_states or plan.quantization is not None:
        return
    optimizer = plan.optimizer if plan.optimizer in HOST_OPTIMIZERS else Optimizer.ADAMW_FUSED
    moved = (Offload.OPTIMIZER, Offload.PARAMS) if plan.sharding.shards_weights else (Offload.OPTIMIZER,)
    update: dict[str, object] = {"offload": tuple(sorted((*plan.offload, *moved))), "optimizer": optimizer}
    host = host_memory(case.model, plan.model_copy(update=update), case.gpu)
    if host is not None:
        what = say("change.offload", what=" and ".join(part.value for part in moved))
        yield Move(update, Change(what=what, cost=say("cost.offload", host=format_size(host.training_bytes))))


def _rebatch(case: Case, plan: Plan) -> Iterator[Move]:
    """The same effective batch otherwise: at once where engines hold whole gradients between passes, else in smaller micro-batches with as
    much more accumulation, by divisors of the old one."""
    old, accumulation = plan.micro_batch_size, plan.grad_accum_steps
    if plan.sharding.shards_weights and accumulation > 1:
        whole = old * accumulation
        what = say("change.micro_batch", old=old, new=whole, old_accum=accumulation, new_accum=1)
        yield Move({"micro_batch_size": whole, "grad_accum_steps": 1}, Change(what=what, cost=say("cost.whole_batch")))
    for new in divisors(old)[1:]:
        more = accumulation * (old // new)
        what = say("change.micro_batch", old=old, new=new, old_accum=accumulation, new_accum=more)
        yield Move({"micro_batch_size": new, "grad_accum_steps": more}, Change(what=what, cost=say("cost.micro_batch")))


def divisors(whole: int) -> list[int]:
    """What divides a number, the largest first; found below its root, as a file may ask for a thousand million sequences."""
    small = [number for number in range(1, isqrt(whole) + 1) if whole % number == 0]
    return sorted({*small, *(whole // number for number in small)}, reverse=True)


def _eight_bit_optimizer(case: Case, plan: Plan) -> Iterator[Move]:
    """AdamW alone has an 8-bit twin that leaves the recipe as it is."""
    if plan.optimizer in (Optimizer.ADAMW, Optimizer.ADAMW_FUSED) and not plan.offloads_optimizer:
        what = say("change.optimizer", old=plan.optimizer.value, new=Optimizer.ADAMW_8BIT.value)
        yield Move({"optimizer": Optimizer.ADAMW_8BIT}, Change(what=what, cost=say("cost.optimizer")))


STEPS = (
    Step("kbit_prepare", _drop_kbit),
    Step("loss", _fuse_loss),
    Step("checkpointing", _checkpoint),
    Step("shard", _shard),
    Step("sync_each_batch", _reduce_each_batch),
    Step("batch_size", _rebatch),
    Step("optimizer", _eight_bit_optimizer),
    Step("offload", _offload),
)
"""From the mildest to the costliest."""


def moves_from(case: Case, plan: Plan, fixed: frozenset[str]) -> Iterator[Move]:
    """Every change that may be made to `plan` first, of options that are not `fixed`."""
    for step in STEPS:
        if step.option not in fixed:
            yield from step.moves(case, plan)


FEWER_CARDS = (2, 1)
"""Numbers of cards on which each holds less for the exchange than on more: a group of two, and none (profiles/communicators.json)."""


def fewer_cards(plan: Plan, fixed: frozenset[str]) -> Iterator[Move]:
    """The same step on some of the cards: replicas again, with as much more accumulation. None where an engine was asked for."""
    if "shard" in fixed:
        return
    sequences = plan.micro_batch_size * plan.grad_accum_steps * plan.n_gpus
    for used in (number for number in FEWER_CARDS if number < plan.n_gpus):
        engine = _under(plan, Sharding.DDP if used > 1 else Sharding.NONE)
        accumulation = -(-sequences // (plan.micro_batch_size * used))
        synced = plan.sync_each_batch and "sync_each_batch" in fixed
        update = {**engine, "n_gpus": used, "grad_accum_steps": accumulation, "sync_each_batch": synced, "offload": ()}
        values = {"used": used, "n": plan.n_gpus, "visible": visible_cards(used)}
        what = say("change.fewer_cards", old=plan.grad_accum_steps, new=accumulation, **values)
        yield Move(update, Change(what=what, cost=say("cost.fewer_cards", idle=plan.n_gpus - used)))


def visible_cards(used: int) -> str:
    """What keeps a framework from taking all cards that it sees."""
    return f"CUDA_VISIBLE_DEVICES={','.join(map(str, range(used)))}"
