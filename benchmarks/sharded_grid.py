"""Dry-run a grid of plans on several cards and keep the peaks, so that a fast test holds the closed form against them without torch.

    python benchmarks/sharded_grid.py             traces what tests/data/sharded_grid.json lacks (half an hour on one free core)
    python benchmarks/sharded_grid.py --again     traces every row anew
    python benchmarks/sharded_grid.py --report 20 prints the largest errors of the closed form on the file as it is

Models are cut to their first layers: a layer repeats (tests/test_trace_several.py), and with few layers the units around them, the
embeddings and the head, weigh as much as the layers. Every model meets every method; the other settings rotate through the grid, with
periods that share no divisor, so that each value of each setting meets each model and method.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from advisor.architectures import spec_from_config
from advisor.errors import AdvisorError
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.stacks.engines import masters_of
from advisor.values import Method, ModelSpec, Phase, Plan, Sharding, Stack

TARGET = Path(__file__).parent.parent / "tests" / "data" / "sharded_grid.json"
LAYERS = 4
MODELS = (
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen2.5-7B",
    "Qwen/Qwen3-4B",
    "mistralai/Mistral-7B-v0.1",
    "google/gemma-2-9b",
    "Qwen/Qwen3-30B-A3B",
    "allenai/OLMo-2-1124-7B",
)
"""Untied and tied ends, biases, soft-capped logits, experts, norms of heads."""
ENGINES = ("fsdp2", "fsdp2", "fsdp1", "fsdp2", "ddp", "fsdp2", "fsdp1")
CARDS = (2, 8, 7, 4, 64)
SHAPES = ((1, 2048), (4, 1024), (1, 512))
"""Micro-batch and sequence."""
ACCUMULATION = (1, 1, 2, 1, 4)
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
STACKS = ("hf", "hf", "plain")
"""Units of accelerate, which reduces at the last micro-batch; units of torch, reduced at each."""
TURNS = 4
"""Plans per model and method."""


@cache
def spec_of(model: str) -> ModelSpec:
    """The first layers of a model."""
    whole = load_model(model)
    config = {"model_type": whole.model_type, "architectures": [whole.architecture], **json.loads(whole.config_json)}
    short = {key: value[:LAYERS] if isinstance(value, list) and len(value) == whole.layers else value for key, value in config.items()}
    return spec_from_config({**short, "num_hidden_layers": LAYERS}, id=f"{model}, {LAYERS} layers", source="benchmarks/sharded_grid.py")


def plans() -> Iterator[tuple[str, Plan]]:
    """The grid, in a fixed order."""
    for number, (model, method, turn) in enumerate(product(MODELS, Method, range(TURNS))):
        yield model, _plan(spec_of(model), method, number + turn)


def _plan(spec: ModelSpec, method: Method, number: int) -> Plan:
    sharding, stack = Sharding(ENGINES[number % len(ENGINES)]), Stack(STACKS[number % len(STACKS)])
    micro_batch, seq_len = SHAPES[(number // 2) % len(SHAPES)]
    mixed = number % 4 < 2
    settings: dict[str, Any] = {"method": method, "quantization": "nf4" if method.is_quantized else None}
    if method.has_adapter and spec.shape.blocks[0].mlp.kind == "moe":
        settings["target_modules"] = ("q_proj", "k_proj", "v_proj", "o_proj")
    if method.has_adapter and sharding is Sharding.FSDP1:
        settings["adapter_dtype"] = "bf16"  # one unit, one type
    masters = masters_of(sharding, stack, mixed=mixed, quantized=method.is_quantized) if sharding.is_fsdp else "none"
    return Plan(
        **settings,
        autocast=mixed,
        masters=masters,
        sharding=sharding,
        n_gpus=CARDS[number % len(CARDS)],
        stack=stack,
        optimizer=OPTIMIZERS[(number // 5) % len(OPTIMIZERS)],
        micro_batch_size=micro_batch,
        seq_len_tokens=seq_len,
        grad_accum_steps=ACCUMULATION[(number // 3) % len(ACCUMULATION)],
        gradient_checkpointing=(number // 4) % 3 < 2,
    )


def measure(spec: ModelSpec, plan: Plan) -> dict[str, Any]:
    """What the dry run finds of the phases, in bytes allocated; or its refusal."""
    from advisor.dryrun import trace

    try:
        memory = trace(spec, plan).breakdown
    except AdvisorError as error:
        return {"refused": str(error)}
    return {"allocated_bytes": {phase.phase.value: phase.allocated_bytes for phase in memory.phases}}


def read_grid() -> list[dict[str, Any]]:
    return list(json.loads(TARGET.read_text(encoding="utf-8"))) if TARGET.exists() else []


def error_of(row: dict[str, Any]) -> tuple[float, str]:
    """Error of the closed form on the peak, and by phase in words."""
    memory = estimate_memory(spec_of(row["model"]), Plan(**row["plan"]))
    traced = {Phase(name): size for name, size in row["allocated_bytes"].items()}
    parts = [f"{phase.phase.value} {phase.allocated_bytes / traced[phase.phase] - 1:+.2%}" for phase in memory.phases]
    return memory.peak_allocated_bytes / max(traced.values()) - 1, ", ".join(parts)


def write(again: bool) -> None:
    """Trace the rows that the file lacks, saving after each."""
    kept = {} if again else {_key(row["model"], row["plan"]): row for row in read_grid() if "refused" not in row}
    rows: list[dict[str, Any]] = []
    for number, (model, plan) in enumerate(plans(), start=1):
        said = plan.model_dump(mode="json", exclude_defaults=True)
        start = time.monotonic()
        found = kept.get(_key(model, said)) or {"model": model, "plan": said, **measure(spec_of(model), plan)}
        rows.append(found)
        said_of = found["refused"] if "refused" in found else "{:+.2%} ({})".format(*error_of(found))
        sys.stdout.write(f"{number}  {time.monotonic() - start:.0f} s  {said_of}  {model}  {said}\n")
        sys.stdout.flush()
        _save(rows)


def _key(model: str, plan: dict[str, Any]) -> str:
    return json.dumps((model, plan), sort_keys=True)


def _save(rows: list[dict[str, Any]]) -> None:
    TARGET.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


def report(shown: int) -> None:
    rows = [(*error_of(row), row) for row in read_grid() if "refused" not in row]
    rows.sort(key=lambda found: -abs(found[0]))
    sizes = [abs(error) for error, *_ in rows]
    sys.stdout.write(f"{len(rows)} plans: median {median(sizes):.2%}, 95th {sizes[len(sizes) // 20]:.2%}, worst {sizes[0]:.2%}\n")
    for error, parts, row in rows[:shown]:
        sys.stdout.write(f"{error:+.2%} ({parts})  {row['model']}  {row['plan']}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=int, metavar="N", help="print the N largest errors on the file as it is")
    parser.add_argument("--again", action="store_true", help="trace every row anew")
    arguments = parser.parse_args()
    write(arguments.again) if arguments.report is None else report(arguments.report)


if __name__ == "__main__":
    main()
