"""Outputs on meta tensors that are remembered are those that torch makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advisor.dryrun import meta_outputs
from advisor.dryrun.dry_run import trace
from advisor.hub import load_model
from advisor.values import Method, Plan, Quantization

_aten = torch.ops.aten


def _meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


CALLS = [
    (_aten.mul.Tensor, (_meta(4, 1, 6), _meta(3, 6))),
    (_aten.mul.Tensor, (_meta(4, 1, 6), _meta(3, 6, dtype=torch.float32))),
    (_aten.add.Tensor, (_meta(4, dtype=torch.int64), 1)),
    (_aten.add.Tensor, (_meta(4, dtype=torch.int64), 1.0)),
    (_aten.add.Tensor, (_meta(4, dtype=torch.int64), True)),
    (_aten.clone.default, (_meta(4, 6).t(),)),
    (_aten.cat.default, ([_meta(2, 3), _meta(2, 5)], 1)),
    (_aten.native_layer_norm.default, (_meta(2, 8), [8], None, None, 1e-5)),
    (_aten._unsafe_view.default, (_meta(4, 6), [24])),
    (_aten.t.default, (_meta(4, 6),)),
    (_aten.relu_.default, (_meta(4, 6),)),
]


def _told(out: Any) -> list[Any]:
    tensors = [out] if isinstance(out, torch.Tensor) else list(out)
    return [(type(each), each.shape, each.stride(), each.dtype, each.untyped_storage().nbytes()) for each in tensors]


@pytest.mark.parametrize(("operator", "arguments"), CALLS, ids=[f"{call[0]}-{number}" for number, call in enumerate(CALLS)])
def test_an_operator_asked_again_gives_what_torch_gives(operator: Any, arguments: Any) -> None:
    expected = operator(*arguments)
    for _ in range(3):
        out = meta_outputs.run(operator, arguments, {})
        assert _told(out) == _told(expected)
        of_arguments = {each.untyped_storage()._cdata for each in arguments if isinstance(each, torch.Tensor)}
        shared = {each.untyped_storage()._cdata for each in ([out] if isinstance(out, torch.Tensor) else out)} & of_arguments
        assert bool(shared) == (operator in (_aten._unsafe_view.default, _aten.t.default, _aten.relu_.default))


@pytest.mark.parametrize("method", [Method.LORA, Method.QLORA, Method.FULL])
@pytest.mark.sampled(2)
def test_a_recording_is_the_same_without_memory(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("smollm2-135m")
    quantization = Quantization.NF4 if method is Method.QLORA else None
    plan = Plan(method=method, quantization=quantization, micro_batch_size=3, seq_len_tokens=200, gradient_checkpointing=True)
    remembered = [trace(model, plan).stream for _ in range(2)]
    monkeypatch.setattr(meta_outputs, "run", lambda func, args, kwargs: func(*args, **kwargs))
    asked = trace(model, plan).stream
    for stream in remembered:
        assert (stream.events, stream.places) == (asked.events, asked.places)
        assert [(born.op, born.size_bytes) for born in stream.births] == [(born.op, born.size_bytes) for born in asked.births]
