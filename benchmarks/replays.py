"""Replay dry runs of the kinds of plan that the closed form prices: how far its reserved memory is off is read off them.

    python benchmarks/replays.py            adds what is missing to profiles/measurements/replays/kinds.json
    python benchmarks/replays.py --anew     traces all of it again, after a dry run has changed (minutes on two cores)

The closed form counts live tensors; what the caching allocator holds beside them it only approximates (`advisor/memory/peak.py`,
`_slack_bytes`), so that its intervals rest on the difference (`python -m advisor.accuracy` writes them). `grid.json` beside it is of
`benchmarks/trace_grid.py`. Every kind has about twenty models, because bounds are tried on models that were left out, and nine in ten of
them can lie inside the extremes of the others only where there are some nineteen others (`advisor/memory/conformal.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from advisor.errors import AdvisorError
from advisor.hub import load_model
from advisor.values import Method, Plan

TARGET = Path(__file__).parent.parent / "profiles" / "measurements" / "replays" / "kinds.json"

MODELS = (
    "Qwen/Qwen2.5-0.5B",
    "HuggingFaceTB/SmolLM2-360M",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen2.5-1.5B",
    "google/gemma-2-2b",
    "meta-llama/Llama-3.2-3B",
    "microsoft/Phi-3-mini-4k-instruct",
    "mistralai/Mistral-7B-v0.1",
    "meta-llama/Llama-3.1-8B",
)
MORE_MODELS = (
    "Qwen/Qwen3-0.6B",
    "google/gemma-3-1b-it",
    "LGAI-EXAONE/EXAONE-4.0-1.2B",
    "allenai/OLMo-2-0425-1B",
    "HuggingFaceTB/SmolLM2-1.7B",
    "google/gemma-2b",
    "ibm-granite/granite-3.3-2b-instruct",
    "HuggingFaceTB/SmolLM3-3B",
    "Qwen/Qwen2.5-3B",
    "Qwen/Qwen3-4B",
)
"""For the losses, which are kinds of their own and which the grid does not meet."""
MIXTURES = (
    "Qwen/Qwen1.5-MoE-A2.7B",
    "deepseek-ai/DeepSeek-V2-Lite",
    "moonshotai/Moonlight-16B-A3B",
    "openai/gpt-oss-20b",
    "baidu/ERNIE-4.5-21B-A3B-PT",
    "zai-org/GLM-4.7-Flash",
    "microsoft/Phi-3.5-MoE-instruct",
    "mistralai/Mixtral-8x7B-v0.1",
    "zai-org/GLM-4.5-Air",
    "openai/gpt-oss-120b",
    "mistralai/Mixtral-8x22B-v0.1",
    "MiniMaxAI/MiniMax-M2",
    "Qwen/Qwen3-235B-A22B",
    "deepseek-ai/DeepSeek-V2",
    "zai-org/GLM-4.5",
    "Qwen/Qwen3-Coder-480B-A35B-Instruct",
    "deepseek-ai/DeepSeek-V3",
)
"""Mixtures of experts, of every size; two more are in the grid."""
SHAPES = ((1, 1024), (2, 1024), (8, 1024), (1, 4096), (4, 512), (2, 2048))
"""Micro-batch and sequence."""
ATTENTION = ("mem_efficient", "eager", "flash")
METHODS = (Method.LORA, Method.QLORA, Method.FULL)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


WORDS: tuple[dict[str, Any], ...] = (
    {"loss": "chunked", "stack": "trl"},
    {"loss": "fused"},
    {"loss": "in_place"},
    {"loss": "chunked_output"},
)
"""Settings that are kinds of their own, each with the Trainer's loop and, as they are used, with fused attention."""
FREES: dict[str, Any] = {"keep_outputs": False}
Run = tuple[str, Plan, dict[str, Any]]
"""Model, plan, and how the dry run is run."""


def plans() -> Iterator[Run]:
    """Every model with every method, loop and checkpointing; shapes, kernels and targets rotate. A loop of one's own is run in the open,
    and as a function whose outputs go when it returns. Some runs come up twice."""
    everything = product(MODELS, METHODS, ("plain", "hf"), (True, False), range(2))
    for number, (model, method, stack, checkpointing, turn) in enumerate(everything):
        place = number + turn, number // 2 + turn
        yield model, _plan(model, method, stack, checkpointing, place, bool(turn)), {}
        if stack == "plain":
            elsewhere = place[0] + 1 + number // 24, place[1] + 1
            for options in (FREES, {}):
                yield model, _plan(model, method, stack, checkpointing, elsewhere, bool(turn)), options
    in_turns = (*MODELS[::2], *MODELS[1::2], *MORE_MODELS)
    for words, (number, (model, method, checkpointing)) in product(WORDS, enumerate(product(in_turns, METHODS, (True, False)))):
        place = number + number // 6, 2 * (number // 2 % 2)  # flash or memory-efficient
        plan = _plan(model, method, "hf", checkpointing, place, bool(number % 4 // 2))
        yield model, Plan.model_validate(plan.model_dump() | words), {}
    for number, (model, method, stack, checkpointing) in enumerate(product(MIXTURES, METHODS, ("hf", "plain"), (True, False))):
        plan = _plan(model, method, stack, checkpointing, (number + number // 12, number // 2), model.startswith("microsoft/Phi"))
        yield model, plan, FREES if stack == "plain" else {}


def _plan(model: str, method: Method, stack: str, checkpointing: bool, place: tuple[int, int], some_targets: bool) -> Plan:
    micro_batch, seq_len = SHAPES[place[0] % len(SHAPES)]
    attention = ATTENTION[place[1] % len(ATTENTION)]
    settings: dict[str, Any] = {
        "method": method,
        "quantization": "nf4" if method.is_quantized else None,
        "micro_batch_size": micro_batch,
        "seq_len_tokens": min(seq_len, 2048) if attention == "eager" or not checkpointing else seq_len,
        "gradient_checkpointing": checkpointing,
        "attention": attention,
        "stack": stack,
        "kbit_prepare": method.is_quantized and stack == "plain",
        "base_dtype": "fp16" if stack == "plain" and method.has_adapter else "bf16",
    }
    if some_targets and method.has_adapter and not model.startswith("microsoft/Phi-3-mini"):
        settings["target_modules"] = TARGETS
    return Plan(**settings)


def replay(model: str, plan: Plan, options: dict[str, Any]) -> dict[str, Any]:
    from advisor.dryrun import trace

    memory = trace(load_model(model), plan, **options).breakdown
    return {
        "model": model,
        "plan": plan.model_dump(mode="json", exclude_defaults=True),
        "options": options,
        "allocated_bytes": memory.peak_allocated_bytes,
        "reserved_bytes": memory.peak_reserved_bytes,
    }


def key(model: str, plan: Plan, options: dict[str, Any]) -> tuple[str, Plan, str]:
    return model, plan, json.dumps(options)


def write(rows: list[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(row) for row in rows)
    unfinished = TARGET.with_suffix(".unfinished")
    unfinished.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    unfinished.replace(TARGET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anew", action="store_true", help="trace all of it again")
    kept = [] if parser.parse_args().anew or not TARGET.exists() else json.loads(TARGET.read_text(encoding="utf-8"))
    known = {key(row["model"], Plan(**row["plan"]), row["options"]): row for row in kept}
    rows: list[dict[str, Any]] = []
    for number, (model, plan, options) in enumerate({key(*run): run for run in plans()}.values(), start=1):
        found = known.get(key(model, plan, options))
        try:
            rows.append(found or replay(model, plan, options))
        except AdvisorError as error:
            sys.stderr.write(f"{number} {model}: {error}\n")
            continue
        if found is None:
            sys.stderr.write(f"{number} {rows[-1]}\n")
            write(rows)
    write(rows)


if __name__ == "__main__":
    main()
