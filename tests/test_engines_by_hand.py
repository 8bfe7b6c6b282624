"""What engines do to types and to loading, by hand: Llama 3.2 1B's published parameters, and what each library's source says of them."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import api
from advisor.memory import loading
from advisor.memory.dtypes import computing
from advisor.memory.host_memory import _of_fsdp
from advisor.memory.units import Unit, units_of
from advisor.memory.weights import is_stacked
from advisor.memory.zero import stepped_share, trained_part
from advisor.values import DType, Phase, Plan, Term

PARAMS = 1_235_814_400
ADAPTER = 8 * 16 * ((2048 + 2048) * 2 + (2048 + 512) * 2 + (2048 + 8192) * 3)
"""Rank 8 beside each matrix of its 16 layers: inputs and outputs of q and o, k and v, gate, up and down."""
LIFTED = {"base_dtype": "fp32", "autocast": True}
QLORA = {"method": "qlora", "quantization": "nf4", "base_dtype": "bf16"}


@pytest.mark.parametrize(
    ("options", "in_16_bit"),
    [
        ({}, False),
        (LIFTED, False),
        (QLORA, False),
        ({"sharding": "ddp", **LIFTED}, False),
        ({"sharding": "fsdp2"}, False),
        ({"sharding": "fsdp2", **LIFTED}, True),  # torch: MixedPrecisionPolicy.param_dtype
        ({"sharding": "fsdp1"}, False),
        ({"sharding": "fsdp1", **LIFTED}, True),
        ({"sharding": "fsdp1", **QLORA}, True),  # transformers 5.23 distributed/fsdp.py update_fsdp_plugin_peft
        ({"sharding": "fsdp2", **QLORA}, False),
        ({"sharding": "zero2"}, False),
        ({"sharding": "zero2", **LIFTED}, True),  # DeepSpeed 0.19 runtime/engine.py _configure_distributed_model
        ({"sharding": "zero2", "masters": "copied"}, True),
        ({"sharding": "zero3", "masters": "copied"}, True),
        ({"sharding": "ddp", **QLORA}, False),
    ],
    ids=str,
)
def test_which_engines_compute_in_a_type_of_their_own(options: dict[str, Any], in_16_bit: bool) -> None:
    plan = Plan(**{"method": "lora", "base_dtype": "bf16", "adapter_dtype": "fp32", "n_gpus": 2 if "sharding" in options else 1, **options})
    computed = computing(plan)
    if not in_16_bit:
        assert computed == plan
    else:
        assert (computed.base_dtype, computed.adapter_dtype, computed.autocast) == (DType.BF16, DType.BF16, False)
        assert not computed.kbit_prepare


@pytest.mark.parametrize(
    ("stack", "options", "adapter", "whole"),
    [
        # casts first: the weights, the adapter and its flat copy in 16 bit
        ("hf", LIFTED, 2 * ADAPTER, 2 * PARAMS + 2 * ADAPTER + 2 * ADAPTER),
        # llamafactory 0.9.5 model/patcher.py: on the card in fp32 before DeepSpeed casts it
        ("llamafactory", LIFTED, 2 * ADAPTER, 4 * PARAMS + 4 * ADAPTER),
        # nothing is cast: the fp32 adapter and its flat copy
        ("hf", {"base_dtype": "bf16"}, 4 * ADAPTER, 2 * PARAMS + 4 * ADAPTER + 4 * ADAPTER),
        ("llamafactory", {"base_dtype": "bf16"}, 4 * ADAPTER, 2 * PARAMS + 4 * ADAPTER + 4 * ADAPTER),
    ],
    ids=str,
)
def test_what_loading_holds_under_zero(stack: str, options: dict[str, Any], adapter: int, whole: int) -> None:
    plan = Plan(method="lora", rank=8, stack=stack, n_gpus=2, sharding="zero2", **options)
    (load,) = (phase for phase in api.estimate("llama-3.2-1b", plan).phases if phase.phase is Phase.LOAD)
    assert {term.term: term.bytes for term in load.terms}[Term.ADAPTER] == adapter
    assert load.allocated_bytes == whole


@pytest.mark.parametrize("stack", ["hf", "axolotl"])
def test_what_is_frozen_around_the_layers_has_no_gradient(stack: str) -> None:
    """Tied embeddings and the final norm: 128,256 words and one vector of 2,048, in 16 bit."""
    plan = Plan(method="lora", base_dtype="bf16", n_gpus=2, sharding="fsdp2", stack=stack)
    units = units_of(api.as_model("llama-3.2-1b"), plan)
    assert units.embedding.plus(units.tail) == Unit((128_256 * 2048 + 2048) * 2, 0, 0)


@pytest.mark.parametrize(
    ("limit", "largest"),
    [
        (10**9, PARAMS / 2 - 33 * 2048 / 2),  # all matrices in one group
        (0, 128_256 * 2048 / 2),  # a tensor each: the embeddings
    ],
)
def test_zero_3_steps_on_whole_tensors_until_a_limit(limit: float, largest: float) -> None:
    """stage3.py `_create_fp16_sub_groups`: a group ends with the tensor that reaches `sub_group_size`.
    Vectors are in a group of their own."""
    plan = Plan(method="full", n_gpus=2, sharding="zero3", masters="copied", deepspeed={"sub_group_params": int(limit)})
    assert stepped_share(api.as_model("llama-3.2-1b"), plan) == pytest.approx(largest / (PARAMS / 2), rel=1e-6)


@pytest.mark.parametrize(("masters", "copy_bytes"), [("none", 0), ("copied", 4 * PARAMS // 2)])
def test_zero_copies_in_fp32_where_the_parameters_are_16_bit(masters: str, copy_bytes: int) -> None:
    """runtime/zero/stage_1_and_2.py `single_partition_of_fp32_groups`: half of the parameters on each of two cards."""
    plan = Plan(method="full", base_dtype="bf16", n_gpus=2, sharding="zero2", masters=masters)
    assert trained_part(api.as_model("llama-3.2-1b"), plan).masters_bytes == copy_bytes


@pytest.mark.parametrize(("method", "resting"), [("full", False), ("lora", True)])
def test_there_is_an_adapter_on_the_host_where_one_is_trained(method: str, resting: bool) -> None:
    plan = Plan(
        method=method, base_dtype="bf16", n_gpus=2, sharding="fsdp2", offload=("optimizer", "params"), optimizer="adamw_torch_fused"
    )
    (adapter,) = [part for part in _of_fsdp(api.as_model("llama-3.2-1b"), plan) if part.term is Term.ADAPTER]
    assert all(size > 0 for size in adapter[1:]) if resting else adapter[1:] == (0, 0)


@pytest.mark.parametrize(
    ("tensors", "copied_bytes"),
    [
        ([("bf16", 10)], 0),  # one alone is sent as it lies
        ([("bf16", 10), ("bf16", 20)], 30),
        ([("bf16", 300), ("bf16", 20), ("bf16", 7)], 27),  # the first fills a bucket alone
        ([("bf16", 240), ("bf16", 20), ("bf16", 7), ("bf16", 5)], 260 + 12),  # two neighbours are under way at once
        ([("bf16", 10), ("fp32", 5), ("bf16", 20), ("fp32", 5)], 30 + 10),  # one bucket of each type
    ],
)
def test_buckets_of_weights_that_ddp_sends(tensors: list[tuple[str, int]], copied_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch/csrc/distributed/c10d/reducer.cpp `compute_bucket_assignment_by_size`; here a bucket is full at 250 bytes."""
    monkeypatch.setattr(loading, "_tensor_bytes", lambda *_: iter(tensors))
    monkeypatch.setattr(loading, "BROADCAST_BUCKET_BYTES", 250)
    assert loading._sent_at_once(api.as_model("llama-3.2-1b"), Plan()) == copied_bytes


def test_stacks_are_bare_parameters_of_several_experts() -> None:
    """Mixtral's config.json: 32 layers of 8 experts, three matrices each; its router is a bare parameter too, and no stack."""
    blocks = api.as_model("mixtral-8x7b").shape.blocks
    assert sum(x.weight_params * block.count for block in blocks for x in block.linears if is_stacked(x)) == 32 * 8 * 3 * 4096 * 14336
    bare = [x for block in blocks for x in block.linears if not x.is_module and not is_stacked(x)]
    assert {x.weight_params for x in bare} == {8 * 4096}
    one = bare[0]
    assert [is_stacked(one.model_copy(update={"is_module": True, "copies": copies})) for copies in (1, 8)] == [False, False]
