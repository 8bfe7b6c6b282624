"""The runs of `benchmarks/on_card.py`, most telling first: a table of data, and how a row becomes a model and a plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from advisor.architectures import spec_from_config
from advisor.architectures.cut import first_layers
from advisor.hub import load_model
from advisor.stacks import default_plan
from advisor.values import GpuSpec, Method, ModelSpec, Plan
from advisor.values.request import Request


class Row(NamedTuple):
    """One run before it is a plan."""

    model: str
    method: str
    options: dict[str, Any]
    """In the words of `advise`'s options (`advisor.Request`)."""
    layers: int | None = None
    """Only the model's first so many."""
    history: bool = False
    """Keep the allocator's history: a few runs, each a file of up to a few MB."""
    group: str = "grid"
    needs: tuple[str, ...] = ()
    """Packages beyond torch, transformers, accelerate and peft."""

    @property
    def id(self) -> str:
        """Unique in the table: what --only looks in, and what tells that a run has its row."""
        options = dict(self.options)
        shape = f"{options.pop('batch_size')}x{options.pop('seq_len')}"
        words = [self.group, self.model.rpartition("/")[2], *([f"{self.layers}l"] if self.layers else []), self.method, shape]
        words += [_word(key, value) for key, value in options.items() if (key, value) != ("grad_accum", 1)]
        return re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower())


class Run(NamedTuple):
    """One run, ready to be made."""

    id: str
    model: ModelSpec
    """The whole model."""
    layers: int | None
    plan: Plan
    history: bool
    needs: tuple[str, ...]
    group: str
    config: dict[str, Any] | None = None
    """Of a model that was made small: it has no profile."""

    @property
    def ran(self) -> ModelSpec:
        return self.model if self.layers is None else first_layers(self.model, self.layers)


def _word(key: str, value: object) -> str:
    """ "eager", "rank 128", "no checkpointing"."""
    if isinstance(value, bool):
        return key if value else f"no {key}"
    return value if isinstance(value, str) else f"{key} {value}"


SMALL, MIDDLE, LARGE = "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B"
LLAMA_1B, LLAMA_8B, LLAMA_70B = "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B"
MOE, HYBRID, VISION = "Qwen/Qwen3-30B-A3B", "LiquidAI/LFM2-1.2B", "Qwen/Qwen2.5-VL-3B-Instruct"
QUANTISED = ("bitsandbytes",)
ON: dict[str, Any] = {"checkpointing": True}
OFF: dict[str, Any] = {"checkpointing": False}


def _shape(batch: int, tokens: int, **options: Any) -> dict[str, Any]:
    return {"batch_size": batch, "seq_len": tokens, "grad_accum": 1, **options}


# Every kind once, with the allocator's history: what these show is mended first.
WITH_HISTORY = (
    Row(SMALL, "lora", _shape(2, 1024, **OFF), history=True),
    Row(SMALL, "full", _shape(2, 1024, **ON), history=True),
    Row(SMALL, "qlora", _shape(2, 1024, **ON), history=True, needs=QUANTISED),
    Row(LLAMA_8B, "lora", _shape(1, 2048, **ON), history=True),
    Row(LLAMA_8B, "qlora", _shape(1, 2048, **ON), history=True, needs=QUANTISED),
    Row(LLAMA_1B, "full", _shape(2, 1024, precision="bf16-amp", **OFF), history=True),
    Row(SMALL, "dora", _shape(2, 1024, **OFF), history=True),
    Row(SMALL, "lora", _shape(2, 1024, attention="eager", **OFF), history=True),
    Row(SMALL, "lora", _shape(2, 1024, padding=True, **OFF), history=True),
    Row(SMALL, "lora", _shape(2, 1024, stack="trl", loss="chunked", **OFF), history=True, needs=("trl",)),
    Row(SMALL, "lora", _shape(2, 1024, loss="fused", **OFF), history=True, needs=("liger_kernel",)),
    Row(SMALL, "lora", _shape(2, 1024, lora_dropout=0.05, **OFF), history=True),
    Row(SMALL, "lora", _shape(2, 1024, reentrant=True, **ON), history=True),
    Row(MOE, "lora", _shape(1, 1024, target_modules="q_proj,k_proj,v_proj,o_proj", **ON), layers=4, history=True),
    Row(HYBRID, "lora", _shape(2, 1024, **OFF), history=True),
    Row(VISION, "lora", _shape(1, 1024, **ON), history=True),
)
ONE_THING_DIFFERENT = (
    *(Row(SMALL, "full", _shape(2, 1024, optimizer=name, **OFF)) for name in ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd")),
    *(
        Row(SMALL, "full", _shape(2, 1024, optimizer=name, **OFF), needs=QUANTISED)
        for name in ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit")
    ),
    Row(SMALL, "full", _shape(2, 1024, precision="bf16-amp", **ON)),
    Row(SMALL, "full", _shape(2, 1024, precision="fp32", **OFF)),
    Row(SMALL, "full", _shape(2, 1024, grad_accum=2, **OFF)),
    Row(SMALL, "full", _shape(2, 1024, reentrant=True, **ON)),
    Row(SMALL, "lora", _shape(2, 1024, grad_accum=2, **ON)),
    Row(SMALL, "lora", _shape(2, 1024, stack="plain", **OFF)),
    Row(SMALL, "lora", _shape(2, 1024, loss="in_place", **OFF), needs=("liger_kernel",)),
    Row(SMALL, "lora", _shape(2, 1024, rank=128, **ON)),
    Row(SMALL, "lora", _shape(2, 1024, lora_dropout=0.05, **ON)),
    Row(SMALL, "lora", _shape(2, 1024, padding=True, attention="eager", **OFF)),
    Row(SMALL, "qlora", _shape(2, 1024, kbit_prepare=True, **ON), needs=QUANTISED),
    Row(SMALL, "qlora", _shape(2, 1024, quantization="int8", **ON), needs=QUANTISED),
    Row(SMALL, "qdora", _shape(2, 1024, **OFF), needs=QUANTISED),
    Row(MOE, "full", _shape(1, 1024, **ON), layers=1),
    Row(MOE, "qlora", _shape(1, 1024, target_modules="q_proj,k_proj,v_proj,o_proj", **ON), layers=4, needs=QUANTISED),
    Row(LLAMA_70B, "qlora", _shape(1, 2048, **ON), layers=8, needs=QUANTISED),
    Row(LLAMA_70B, "lora", _shape(1, 2048, **ON), layers=8),
)
BY_SIZE = tuple(
    Row(model, method, _shape(batch, tokens, **checkpointing), needs=QUANTISED if method.startswith("q") else ())
    for (batch, tokens, checkpointing) in ((1, 2048, ON), (1, 1024, OFF), (4, 512, ON), (1, 8192, ON))
    for model in (MIDDLE, LLAMA_1B, LARGE, LLAMA_8B)
    for method in ("lora", "qlora", "dora", "qdora", "full")
    if not (method == "full" and model in (LARGE, LLAMA_8B) and not checkpointing["checkpointing"])
)
_TOLD = {row.id for row in (*WITH_HISTORY, *ONE_THING_DIFFERENT)}
ROWS = (*WITH_HISTORY, *ONE_THING_DIFFERENT, *(row for row in BY_SIZE if row.id not in _TOLD))
"""Boundaries are made from the card found, and run after the first part (`benchmarks/card/boundaries.py`)."""
SIDE_BY_SIDE = tuple(
    Row(model, method, _shape(batch, tokens, **ON), group="time", needs=QUANTISED if method.startswith("q") else ())
    for model, batch, tokens in ((LLAMA_1B, 4, 1024), (LLAMA_8B, 1, 2048))
    for method in ("lora", "qlora", "dora", "qdora", "full")
)
"""What --time times: methods of one model at one shape."""


def run_of(row: Row, gpu: GpuSpec | None, *, small: bool = False) -> Run:
    """The run that a row stands for on that card; `small` makes the model and the shape what a processor trains in a second.

    Raises an AdvisorError where the product does not know the model, or the options do not go together.
    """
    model = load_model(row.model)
    config = shrunk(json.loads(model.config_json)) if small else None
    if config is not None:
        model = spec_from_config(config, id=f"{row.model} [small]", source="benchmarks/card/grid.py")
    options = {**row.options, **({"batch_size": 1, "seq_len": SMALL_TOKENS} if small else {})}
    plan = default_plan(Method(row.method), model, gpu, Request.model_validate(options))
    return Run(row.id, model, None if small else row.layers, plan, row.history, row.needs, row.group, config)


SMALL_TOKENS = 32
_SMALL_VALUES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "moe_intermediate_size": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "max_window_layers": 2,
    "mrope_section": [2, 3, 3],
    "depth": 2,
    "num_heads": 4,
    "out_hidden_size": 64,
    "fullatt_block_indexes": [1],
}
"""Instead of a model's own: what a processor trains at once."""


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The same architecture, a few hundred thousand parameters; token ids that no longer exist go."""
    return {key: value for key, value in _smaller(config) if not key.endswith("_token_id")}


def _smaller(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value made small, in the configs of parts too; of a list with an entry a layer, the first kind of layer and the next."""
    layers = config.get("num_hidden_layers")
    for key, value in config.items():
        if isinstance(value, dict):
            yield key, shrunk(value)
        elif isinstance(value, list) and layers is not None and len(value) == layers:
            yield key, [value[0], next((kind for kind in value if kind != value[0]), value[0])]
        else:
            yield key, _SMALL_VALUES.get(key, value)
