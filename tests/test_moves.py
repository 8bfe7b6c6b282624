"""Changes of a plan by hand: the same sequences in a step, whichever way they are dealt out."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.hub import load_model
from advisor.ladder.fit import Case
from advisor.ladder.flips import on_cards
from advisor.ladder.moves import STEPS, divisors, fewer_cards, moves_from, visible_cards, without_accumulation
from advisor.units import GIB
from advisor.values import GpuSpec, Optimizer, Plan, Sharding

HOST = GpuSpec(name="card", vendor="NVIDIA", usable_bytes=80 * GIB, usable_source="test", host_bytes=2048 * GIB)
CASE = Case(load_model("llama-3-8b"), GpuSpec(name="card", vendor="NVIDIA", usable_bytes=80 * GIB, usable_source="test"))


def plan_of(micro_batch: int, accumulated: int, cards: int = 1, sharding: str = "none", **options: Any) -> Plan:
    return Plan(
        micro_batch_size=micro_batch, grad_accum_steps=accumulated, n_gpus=cards, sharding=sharding, **{"method": "lora", **options}
    )


def moved(option: str, plan: Plan, case: Case = CASE) -> list[Plan]:
    every = frozenset(step.option for step in STEPS)
    return [move.applied(plan) for move in moves_from(case, plan, every - {option})]


@pytest.mark.parametrize(
    ("plan", "dealt"),
    [
        (plan_of(6, 2), [(3, 4), (2, 6), (1, 12)]),  # by divisors, 12 sequences in each
        (plan_of(5, 1), [(1, 5)]),
        (plan_of(1, 8), []),
        (plan_of(2, 4, 2, "fsdp2"), [(8, 1), (1, 8)]),  # sharded: whole gradients need not wait between passes
        (plan_of(2, 1, 2, "fsdp2"), [(1, 2)]),
        (plan_of(2, 4, 2, "ddp"), [(1, 8)]),
    ],
)
def test_micro_batches_of_the_same_step(plan: Plan, dealt: list[tuple[int, int]]) -> None:
    found = moved("batch_size", plan)
    assert [(one.micro_batch_size, one.grad_accum_steps) for one in found] == dealt
    assert {one.micro_batch_size * one.grad_accum_steps for one in found} <= {plan.micro_batch_size * plan.grad_accum_steps}


@pytest.mark.parametrize(("whole", "found"), [(1, [1]), (7, [7, 1]), (12, [12, 6, 4, 3, 2, 1]), (36, [36, 18, 12, 9, 6, 4, 3, 2, 1])])
def test_divisors_from_the_largest_on(whole: int, found: list[int]) -> None:
    assert divisors(whole) == found


def test_all_of_a_step_in_one_pass() -> None:
    whole = without_accumulation(plan_of(2, 4))
    assert (whole.micro_batch_size, whole.grad_accum_steps) == (8, 1)


@pytest.mark.parametrize(
    ("plan", "dealt"),
    [
        (plan_of(1, 2, 8, "fsdp2"), [(2, 8, Sharding.DDP), (1, 16, Sharding.NONE)]),  # 16 sequences
        (plan_of(2, 1, 3, "ddp"), [(2, 2, Sharding.DDP), (1, 3, Sharding.NONE)]),  # 6 sequences: no fewer, if two more
        (plan_of(1, 4, 2, "ddp"), [(1, 8, Sharding.NONE)]),
        (plan_of(1, 4), []),
    ],
)
def test_the_same_step_on_fewer_cards(plan: Plan, dealt: list[tuple[int, int, Sharding]]) -> None:
    found = list(fewer_cards(plan, frozenset()))
    assert [(one.n_gpus, one.grad_accum_steps, one.sharding) for one in (move.applied(plan) for move in found)] == dealt
    for move, (used, accumulated, _) in zip(found, dealt, strict=True):
        assert visible_cards(used) in move.change.what
        assert str(accumulated) in move.change.what
        assert str(plan.n_gpus - used) in move.change.cost
    assert list(fewer_cards(plan, frozenset({"shard"}))) == []


def test_cards_are_named_from_zero() -> None:
    assert visible_cards(3) == "CUDA_VISIBLE_DEVICES=0,1,2"


@pytest.mark.parametrize(
    ("synced", "fixed", "kept"), [(True, {"sync_each_batch"}, True), (True, set(), False), (False, {"sync_each_batch"}, False)]
)
def test_reducing_in_each_pass_is_kept_where_it_was_asked_for(synced: bool, fixed: set[str], kept: bool) -> None:
    plan = plan_of(1, 2, 8, "fsdp2", sync_each_batch=synced)
    assert {move.applied(plan).sync_each_batch for move in fewer_cards(plan, frozenset(fixed))} == {kept}


@pytest.mark.parametrize(
    ("plan", "cards", "accumulated", "sharding"),
    [
        (plan_of(1, 16), 8, 2, Sharding.FSDP2),
        (plan_of(2, 16), 3, 5, Sharding.FSDP2),  # 32 sequences, 6 at a time
        (plan_of(1, 4), 8, 1, Sharding.FSDP2),
        (plan_of(1, 4, 2, "zero3"), 4, 2, Sharding.ZERO3),
        (plan_of(1, 4, 2, "ddp"), 4, 2, Sharding.FSDP2),
    ],
)
def test_a_plan_on_more_cards(plan: Plan, cards: int, accumulated: int, sharding: Sharding) -> None:
    found = on_cards(plan, cards)
    assert (found.n_gpus, found.grad_accum_steps, found.sharding) == (cards, accumulated, sharding)


@pytest.mark.parametrize(
    ("option", "plan", "updates"),
    [
        ("kbit_prepare", plan_of(1, 1, method="qlora", quantization="nf4", kbit_prepare=True), {"kbit_prepare": False}),
        ("kbit_prepare", plan_of(1, 1), None),
        ("checkpointing", plan_of(1, 1, gradient_checkpointing=False), {"gradient_checkpointing": True}),
        ("checkpointing", plan_of(1, 1, gradient_checkpointing=True), None),
        ("shard", plan_of(1, 1), None),
        ("shard", plan_of(1, 1, 2, "ddp"), {"sharding": Sharding.FSDP2}),
        ("shard", plan_of(1, 1, 2, "fsdp2"), None),
        ("sync_each_batch", plan_of(1, 2, 2, "fsdp2"), {"sync_each_batch": True}),
        ("sync_each_batch", plan_of(1, 1, 2, "fsdp2"), None),
        ("sync_each_batch", plan_of(1, 2, 2, "ddp"), None),
        ("optimizer", plan_of(1, 1, optimizer="adamw_torch"), {"optimizer": Optimizer.ADAMW_8BIT}),
        ("optimizer", plan_of(1, 1, optimizer="adamw_torch_fused"), {"optimizer": Optimizer.ADAMW_8BIT}),
        ("optimizer", plan_of(1, 1, optimizer="sgd"), None),
        ("offload", plan_of(1, 1, 2, "fsdp2"), None),  # of a machine of which nothing is known
    ],
)
def test_each_change_is_offered_where_it_changes_something(option: str, plan: Plan, updates: dict[str, Any] | None) -> None:
    found = moved(option, plan)
    assert [{name: getattr(one, name) for name in updates or ()} for one in found] == ([updates] if updates else [])


@pytest.mark.parametrize(
    ("plan", "offered"),
    [
        (plan_of(1, 2, 2, "fsdp2"), True),
        (plan_of(1, 1, 2, "fsdp2"), False),  # the first pass is the last
        (plan_of(1, 2, 2, "zero3"), False),  # ZeRO's partitions are reduced in each pass anyway
        (plan_of(1, 2, 2, "ddp"), False),
        (plan_of(1, 2), False),
        (plan_of(1, 2, 2, "fsdp2", stack="torchtune"), False),  # its loop defers nothing
        (plan_of(1, 2, 2, "fsdp2", sync_each_batch=True), False),
    ],
)
def test_gradients_that_wait_for_the_last_pass_may_be_reduced_in_each(plan: Plan, offered: bool) -> None:
    assert [one.sync_each_batch for one in moved("sync_each_batch", plan)] == ([True] if offered else [])


@pytest.mark.parametrize(
    ("plan", "parts", "optimizer"),
    [
        (plan_of(1, 1, 2, "fsdp2", method="full"), ["optimizer", "params"], "adamw_torch"),
        (plan_of(1, 1, 2, "zero3", method="full"), ["optimizer", "params"], "adamw_torch"),
        (plan_of(1, 1, 2, "zero2", method="full"), ["optimizer"], "adamw_torch"),  # each card has the whole weights
        (plan_of(1, 1, 2, "zero2", method="full", optimizer="adamw_bnb_8bit"), ["optimizer"], "adamw_torch_fused"),  # runs on no host
        (plan_of(1, 1, 2, "ddp", method="full"), None, None),
    ],
)
def test_what_may_lie_in_the_host_s_memory(plan: Plan, parts: list[str] | None, optimizer: str | None) -> None:
    found = moved("offload", plan, Case(CASE.model, HOST))
    assert [[part.value for part in one.offload] for one in found] == ([parts] if parts else [])
    assert [one.optimizer for one in found] == ([Optimizer(optimizer)] if optimizer else [])
    assert moved("offload", plan) == []  # of a machine whose memory is not known
