"""How fast the answers are. Outside the tests' pass and fail: run `python -m pytest benchmarks` and read the table.

Aims: an estimate at most 100 µs, a whole advice at most 60 ms. The cold command has a benchmark of its own, cold_start.py.
"""

from __future__ import annotations

import subprocess
import sys

from pytest_benchmark.fixture import BenchmarkFixture

from advisor import Plan, advise, estimate
from advisor.devices import load_gpu
from advisor.hub import load_model
from advisor.speed import step_time
from advisor.values import Method, Quantization


def test_estimate(benchmark: BenchmarkFixture) -> None:
    model, gpu, plan = load_model("llama-70b"), load_gpu("80GB"), Plan()
    benchmark(estimate, model, plan, gpu)


def test_advise(benchmark: BenchmarkFixture) -> None:
    model, gpu = load_model("llama-70b"), load_gpu("80GB")
    benchmark(advise, model, gpu)


def test_step_time(benchmark: BenchmarkFixture) -> None:
    plan = Plan(method=Method.QDORA, quantization=Quantization.NF4)
    benchmark(step_time, load_model("llama-3.1-8b"), plan, load_gpu("h100"), 10**7)


def test_load_gpu(benchmark: BenchmarkFixture) -> None:
    benchmark(load_gpu, "rtx 4090")


def test_load_model(benchmark: BenchmarkFixture) -> None:
    benchmark(load_model, "llama-70b")


def test_import(benchmark: BenchmarkFixture) -> None:
    def run() -> None:
        subprocess.run([sys.executable, "-c", "import advisor"], check=True)

    benchmark.pedantic(run, rounds=15, warmup_rounds=2)  # type: ignore[no-untyped-call]
