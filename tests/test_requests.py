"""From options to a request: the machine that is spoken of, what contradicts itself, and the line that says so."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.devices import load_gpu
from advisor.errors import InvalidInputError
from advisor.hub import load_model
from advisor.ladder import plan_from_request, request_from
from advisor.ladder.request import check_request, of_machine, on_machine
from advisor.units import GIB
from advisor.values import GpuSpec, Method, Request

CARD = GpuSpec(name="card", vendor="NVIDIA", usable_bytes=24 * GIB, usable_source="test")


@pytest.mark.parametrize(
    ("known_bytes", "asked", "host_bytes"), [(None, None, None), (7, None, 7), (None, "64GiB", 64 * GIB), (7, "1GB", 10**9)]
)
def test_the_machine_s_memory_is_what_is_said_of_it(known_bytes: int | None, asked: str | None, host_bytes: int | None) -> None:
    card = CARD.model_copy(update={"host_bytes": known_bytes})
    assert on_machine(card, Request(host_memory=asked)).host_bytes == host_bytes


@pytest.mark.parametrize(
    ("gpu", "asked", "cards"),
    [("g5.12xlarge", None, 4), ("g5.12xlarge", 2, 2), ("g5.12xlarge", 1, 1), ("a10g", None, None), ("a10g", 3, 3), (None, None, None)],
)
def test_a_cloud_s_machine_is_used_whole(gpu: str | None, asked: int | None, cards: int | None) -> None:
    """AWS lists four A10G in g5.12xlarge."""
    card = None if gpu is None else load_gpu(gpu)
    assert of_machine(Request(gpus=asked), card).gpus == cards
    assert request_from({} if asked is None else {"gpus": asked}, card).gpus == cards


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 2}, "--epochs: hours and USD are those of a data set"),
        ({"price": 2}, "--price: hours and USD"),
        ({"budget": 2}, "--budget: hours and USD"),
        ({"method": "full", "quantization": "nf4"}, "--quantization nf4: full fine-tuning trains 16- or 32-bit weights"),
        ({"method": "lora", "quantization": "int8"}, "--quantization int8: LoRA on a quantised base is called QLoRA; use --method qlora"),
        ({"method": "dora", "quantization": "nf4"}, "use --method qdora"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_request(Request(**options))
    assert str(refused.value).startswith(words) or words in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 2, "dataset_tokens": 1000},
        {"price": 2, "budget": 5, "dataset_tokens": 1000},
        {"dataset_tokens": 1000},
        {"method": "qlora", "quantization": "nf4"},
        {"quantization": "nf4"},
        {"method": "full"},
    ],
    ids=str,
)
def test_what_goes_together_is_taken(options: dict[str, Any]) -> None:
    check_request(Request(**options))


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, Method.LORA),
        ({"quantization": "nf4"}, Method.QLORA),
        ({"method": "full"}, Method.FULL),
        ({"method": "qdora", "quantization": "nf4"}, Method.QDORA),
    ],
    ids=str,
)
def test_a_quantised_base_makes_it_qlora(options: dict[str, Any], method: Method) -> None:
    assert plan_from_request(load_model("llama-3-8b"), CARD, Request(**options)).method is method


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rnak": 8}, "--rnak: there is no such option"),
        ({"rank": 0}, "--rank 0: must be greater than 0"),
        ({"rank": "x" * 41}, f"--rank {'x' * 40}: must be a valid integer"),
        ({"target_modules": ()}, "--target-modules: name at least one layer, or all-linear"),
        ({"method": "lroa"}, "--method lroa: "),
        ({"optimizer": "galore_adamw"}, "--optimizer galore_adamw: "),
    ],
    ids=str,
)
def test_the_first_wrong_option_is_named_in_a_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        request_from(options)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
