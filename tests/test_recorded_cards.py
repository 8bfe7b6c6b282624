"""Several cards of models without tables: recordings and what stands beside them, held against fresh dry runs of the engines."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.architectures import spec_from_config
from advisor.dryrun import trace
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.memory.loading import buckets_reduced, copies_sent
from advisor.memory.recorded import UNUSED
from advisor.memory.replayed import NotRecorded
from advisor.on_demand import answered
from advisor.tape.kinds import digest_of, kind_of
from advisor.tape.tape import Beside
from advisor.units import MIB
from advisor.values import MemoryBreakdown, ModelSpec, Plan

SMALL = {"micro_batch_size": 1, "seq_len_tokens": 256}


def small(name: str, **fields: Any) -> ModelSpec:
    """A known model with other numbers in its config."""
    spec = load_model(name)
    config = {"model_type": spec.model_type, "architectures": [spec.architecture], **json.loads(spec.config_json), **fields}
    found = spec_from_config(config, id=f"small {name}", source="cut")
    return found.model_copy(update={"params_built": spec.params_built})


T5 = small("t5-small", num_layers=3, num_decoder_layers=3)
LFM = small("lfm2-1.2b", num_hidden_layers=6, layer_types=["conv", "conv", "full_attention"] * 2)
DDP, FSDP = {"n_gpus": 2, "sharding": "ddp"}, {"n_gpus": 4, "sharding": "fsdp2"}

# Each is recorded at one shape, and held against a fresh dry run at another. A recording of shards is that run. Beside a replica's step
# stand buffers that the allocator may give a block that is up to a MiB larger; where it finds room for them decides a segment.
EXACT, BESIDE = (0, 0.0), (2 * MIB, 0.05)
PLANS = [
    (T5, {"method": "lora", **DDP}, BESIDE),
    (LFM, {"method": "full", **DDP, "grad_accum_steps": 2}, BESIDE),
    (LFM, {"method": "full", **FSDP, "grad_accum_steps": 4, "n_gpus": 7}, EXACT),
    (LFM, {"method": "full", **FSDP, "autocast": True, "masters": "lifted"}, EXACT),
    (LFM, {"method": "lora", **FSDP, "sync_each_batch": True, "grad_accum_steps": 2}, EXACT),
]


def priced(model: ModelSpec, plan: Plan) -> MemoryBreakdown:
    return answered(lambda: estimate_memory(model, plan))


@pytest.mark.long
@pytest.mark.parametrize(("model", "settings", "off"), PLANS)
def test_as_a_fresh_dry_run_of_the_engine(model: ModelSpec, settings: dict[str, object], off: tuple[int, float]) -> None:
    plan = Plan.model_validate({**SMALL, **settings})
    priced(model, plan)
    longer = plan.model_copy(update={"seq_len_tokens": 512})
    found, run = priced(model, longer), trace(model, longer).breakdown
    assert found.peak_allocated_bytes == pytest.approx(run.peak_allocated_bytes, rel=0, abs=off[0])
    assert found.peak_reserved_bytes == pytest.approx(run.peak_reserved_bytes, rel=off[1], abs=0)
    assert found.communicator_bytes == run.communicator_bytes > 0


def test_the_host_holds_a_model_for_each_process() -> None:
    """transformers loads one in each, which makes two whole ones of 16-bit weights on a machine of two cards."""
    plan = Plan.model_validate({**SMALL, "method": "full", **DDP})
    host = priced(T5, plan).host
    assert host is not None
    assert host.processes == 2
    resting = next(term.bytes for term in priced(T5, plan).phases[-1].terms if term.term.value == "weights")
    assert host.load_bytes == 2 * resting


def test_a_bare_model_with_idle_towers_says_what_ddp_stops_at() -> None:
    """The gemma's tower sees no image, and a Trainer does not look for idle parameters of a bare model that checkpoints."""
    gemma = load_model("gemma-3-4b")
    plan = Plan.model_validate({"method": "full", "seq_len_tokens": 2048, "grad_accum_steps": 8, "optimizer": "adamw_torch_fused", **DDP})
    assert UNUSED in priced(gemma, plan).notes
    assert UNUSED not in priced(gemma, plan.model_copy(update={"gradient_checkpointing": False})).notes


def test_one_card_is_recorded_for_all_replicas_and_each_number_of_shards_for_itself() -> None:
    """And plans of one card keep the names that shipped recordings have."""
    one, two, four = (Plan.model_validate({"n_gpus": n, "sharding": s}) for n, s in ((1, "none"), (2, "ddp"), (4, "ddp")))
    assert digest_of(kind_of(one), True) == digest_of(kind_of(two), True) == digest_of(kind_of(four), True)
    shards = {digest_of(kind_of(Plan.model_validate({"n_gpus": n, "sharding": "fsdp2"})), True) for n in (2, 4, 8)}
    assert len(shards | {digest_of(kind_of(one), True)}) == 4
    accumulated = [kind_of(Plan.model_validate({**FSDP, "grad_accum_steps": steps})).grad_accum_steps for steps in (1, 2, 3, 16)]
    assert accumulated == [1, 2, 3, 3]


def test_without_a_recording_the_kind_that_is_missing_is_named() -> None:
    with pytest.raises(NotRecorded) as missing:
        estimate_memory(T5, Plan.model_validate({**SMALL, **FSDP, "rank": 3}))
    assert missing.value.plan.sharding.value == "fsdp2"


# torch/csrc/distributed/c10d/reducer.cpp `compute_bucket_assignment_by_size`, by hand: the tensor that reaches the limit is the last.
@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ([("a", MIB // 2)], [MIB // 2]),
        ([("a", MIB), ("a", MIB), ("a", 24 * MIB)], [MIB, 25 * MIB]),
        ([("a", 10 * MIB), ("a", 24 * MIB), ("a", 24 * MIB), ("a", MIB)], [10 * MIB, 48 * MIB, MIB]),
        ([("a", 10 * MIB), ("b", 10 * MIB), ("a", 30 * MIB)], [10 * MIB, 10 * MIB, 30 * MIB]),
    ],
)
def test_buckets_are_filled_as_the_reducer_fills_them(tensors: list[tuple[str, int]], found: list[int]) -> None:
    assert buckets_reduced(tensors) == found


def test_one_tensor_is_sent_as_it_lies() -> None:
    assert copies_sent([("a", 300 * MIB), ("a", 200 * MIB), ("a", 100 * MIB)]) == [0, 300 * MIB]


def test_nothing_beside_a_step_is_the_step() -> None:
    assert not any(Beside())
