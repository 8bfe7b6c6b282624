"""Whose code runs layers without attention: a package's kernels on meta tensors, and nothing left behind of what stood in for Triton."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from test_trace_types import KINDS

from advisor.dryrun import trace
from advisor.dryrun.launch_free import STANDS_FOR, launch_free
from advisor.errors import UnsupportedError
from advisor.values import Mixers, Plan

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(importlib.util.find_spec(STANDS_FOR) is not None, reason="Triton is installed: nothing stands in for it"),
]

KERNELS = """
import torch
import triton
import triton.language as tl
from triton.runtime import driver


@triton.heuristics({"EVEN": lambda arguments: arguments["N"] % 2 == 0})
@triton.autotune(configs=[triton.Config({"BLOCK": 64}, num_warps=4)], key=["N"])
@triton.jit
def double_kernel(source, target, N, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, 2 * tl.load(source + at))


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, source):
        target = torch.empty_like(source)
        double_kernel[lambda meta: (triton.cdiv(source.numel(), meta["BLOCK"]),)](source, target, source.numel())
        ctx.save_for_backward(source)
        return target

    @staticmethod
    def backward(ctx, gradient):
        made = torch.empty_like(gradient)
        double_kernel[(1,)](gradient, made, gradient.numel())
        return made


def device():
    try:
        return driver.active.get_current_target().backend
    except Exception:
        return "cpu"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "kernels_of_a_test").mkdir()
    (tmp_path / "kernels_of_a_test" / "__init__.py").write_text(KERNELS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "kernels_of_a_test"


def test_a_triton_library_runs_on_meta_and_leaves_nothing(package: str) -> None:
    before, finders, compile_ = set(sys.modules), list(sys.meta_path), torch.compile
    with launch_free((package,)):
        library = importlib.import_module(package)
        source = torch.empty(4, 8, device="meta", requires_grad=True)
        library.Double.apply(source).sum().backward()
        assert source.grad is not None
        assert source.grad.shape == source.shape
        assert library.device() == "cpu"
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} & {STANDS_FOR, package}
    assert sys.meta_path == finders
    assert torch.compile is compile_
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(package)


def test_the_same_modules_come_back(package: str) -> None:
    with launch_free((package,)):
        first = importlib.import_module(package)
    with launch_free((package,)):
        assert importlib.import_module(package) is first


def test_the_stand_in_goes_with_an_error(package: str) -> None:
    with pytest.raises(KeyError), launch_free((package,)):
        raise KeyError
    assert STANDS_FOR not in sys.modules


GATED_DELTA_NET = KINDS["gated delta net"]


@pytest.mark.skipif(importlib.util.find_spec("fla") is not None, reason="flash-linear-attention is installed")
def test_kernels_that_are_not_installed() -> None:
    said = trace(GATED_DELTA_NET, Plan(seq_len_tokens=64)).breakdown.notes
    assert any("flash-linear-attention" in note and "not installed" in note for note in said)
    with pytest.raises(UnsupportedError, match=r"pip install.*flash-linear-attention"):
        trace(GATED_DELTA_NET, Plan(seq_len_tokens=64, mixers=Mixers.PACKAGES))
    torch_code = trace(GATED_DELTA_NET, Plan(seq_len_tokens=64, mixers=Mixers.TORCH)).breakdown
    assert torch_code.phases == trace(GATED_DELTA_NET, Plan(seq_len_tokens=64)).breakdown.phases
    assert any("own torch code" in note for note in torch_code.notes)
