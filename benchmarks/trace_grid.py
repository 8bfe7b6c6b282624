"""Trace a grid of plans and keep the peaks, so that the fast tests hold the closed form against the dry run without torch.

    python benchmarks/trace_grid.py            writes profiles/measurements/replays/grid.json (about ten minutes on two cores)
    python benchmarks/trace_grid.py --report   prints the errors of the closed form on the file as it is

Every architecture meets every method; the other settings rotate through the grid, so that each value of each setting meets each
architecture several times without the full product of all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.values import Method, ModelSpec, Plan

TARGET = Path(__file__).parent.parent / "profiles" / "measurements" / "replays" / "grid.json"

MODELS = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.1-8B",
    "Qwen/Qwen2.5-1.5B",
    "Qwen/Qwen3-4B",
    "mistralai/Mistral-7B-v0.1",
    "google/gemma-2-2b",
    "google/gemma-3-1b-it",
    "microsoft/Phi-3-mini-4k-instruct",
    "allenai/OLMo-2-0425-1B",
    "bigcode/starcoder2-3b",
    "HuggingFaceTB/SmolLM2-1.7B",
    "Qwen/Qwen3-30B-A3B",
    "allenai/OLMoE-1B-7B-0924",
)
CHECKPOINTING = (True, False)
ATTENTION = ("flash", "mem_efficient", "eager")
SHAPES = ((1, 512), (1, 2048), (2, 1024), (4, 512), (1, 4096))
"""Micro-batch and sequence."""
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "sgd")
STACKS = ("hf", "plain")
OPTIONS: dict[str, Any] = {"keep_outputs": False}
"""How the dry run is run: a loop of one's own as a function whose outputs go when it returns."""
REPEATS = 3
"""Plans per model, method and checkpointing."""


def plans() -> Iterator[tuple[str, Plan]]:
    """The grid, in a fixed order."""
    for number, (model, method, checkpointing, turn) in enumerate(product(MODELS, Method, CHECKPOINTING, range(REPEATS))):
        spec = load_model(model)
        attention = ATTENTION[number % len(ATTENTION)] if spec.shape.blocks[0].attention.sdpa else "eager"
        micro_batch, seq_len = SHAPES[(number + turn) % len(SHAPES)]
        settings: dict[str, Any] = {"method": method, "quantization": "nf4" if method.is_quantized else None}
        if method.is_dora and spec.shape.blocks[0].mlp.kind == "moe":
            settings["target_modules"] = ("q_proj", "k_proj", "v_proj", "o_proj")
        stack = STACKS[number % len(STACKS)]
        yield (
            model,
            Plan(
                **settings,
                optimizer=OPTIMIZERS[(number // 3) % len(OPTIMIZERS)],
                micro_batch_size=micro_batch,
                seq_len_tokens=seq_len if attention != "eager" else min(seq_len, 1024),
                gradient_checkpointing=checkpointing,
                attention=attention,
                stack=stack,
                kbit_prepare=method.is_quantized and stack == "plain",
            ),
        )


def measure(model: ModelSpec, plan: Plan) -> dict[str, Any]:
    from advisor.dryrun import trace

    traced = trace(model, plan, **OPTIONS)
    return {
        "options": OPTIONS,
        "allocated_bytes": traced.breakdown.peak_allocated_bytes,
        "reserved_bytes": traced.breakdown.peak_reserved_bytes,
    }


def write() -> None:
    rows = []
    grid = list(plans())
    for number, (model, plan) in enumerate(grid, start=1):
        spec = load_model(model)
        rows.append({"model": model, "plan": plan.model_dump(mode="json", exclude_defaults=True), **measure(spec, plan)})
        error = estimate_memory(spec, plan).peak_allocated_bytes / rows[-1]["allocated_bytes"] - 1
        sys.stdout.write(f"{number}/{len(grid)}  {error:+.2%}  {model}  {rows[-1]['plan']}\n")
        sys.stdout.flush()
    lines = ",\n".join(json.dumps(row) for row in rows)
    TARGET.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def report() -> None:
    rows = json.loads(TARGET.read_text(encoding="utf-8"))
    errors = []
    for row in rows:
        predicted = estimate_memory(load_model(row["model"]), Plan(**row["plan"])).peak_allocated_bytes
        errors.append((abs(predicted / row["allocated_bytes"] - 1), row))
    errors.sort(key=lambda pair: pair[0])
    n = len(errors)
    sys.stdout.write(f"{n} plans: median {errors[n // 2][0]:.2%}, 95th {errors[int(n * 0.95)][0]:.2%}, worst {errors[-1][0]:.2%}\n")
    for error, row in errors[-12:]:
        sys.stdout.write(f"{error:.2%}  {row['model']}  {row['plan']}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="print the errors on the file as it is")
    report() if parser.parse_args().report else write()


if __name__ == "__main__":
    main()
