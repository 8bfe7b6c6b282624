"""Dry-run every supported model type and keep the peaks, so that a fast test holds the closed form against them without torch.

    python benchmarks/type_grid.py                 traces what tests/data/type_grid.json lacks (half an hour on one free core)
    python benchmarks/type_grid.py --again falcon  traces the rows of these types anew
    python benchmarks/type_grid.py --report 20     prints the largest errors of the closed form on the file as it is

Each type meets every method with and without checkpointing, eager attention, and the other heads that it can carry. The model has the
widths of a profile of the type, or of the type's config class where there is no profile, with as few layers as show every kind and a
smaller vocabulary and fewer experts, so that layers and head both weigh; its config is kept in the file. Rows are traced method by
method, so that a run that is stopped has seen every type.
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

from advisor.architectures import SUPPORTED, spec_from_config
from advisor.errors import AdvisorError
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.profiles import read
from advisor.stacks import default_plan
from advisor.values import Head, Method, ModelKind, ModelSpec, Plan
from advisor.values.request import Request

TARGET = Path(__file__).parent.parent / "tests" / "data" / "type_grid.json"
SHAPES = ((8, 512), (1, 2048))
"""Sequences and tokens of a micro-batch. Tensors of fewer tokens are of the size of the allocator's own rounding (a block is split only
where 1 MiB is left, c10/cuda/CUDACachingAllocator.cpp `should_split`), which hides what the formulas do."""
ENCODER_SHAPES = ((8, 512), (16, 256))
LEAST_PARAMS = 900_000_000
"""Of a profile that stands for its type, where there is one."""
VOCABULARY = 16_384
EXPERTS = 32
"""At most so many."""
REFUSED = "refused"
"""Key of a row that the installed libraries cannot run: the dry run's own words."""
SAID = {
    "ministral": {"head_dim": 128},
    "hunyuan_v1_dense": {"head_dim": 128},
    "dots1": {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2},
}
"""What released configs of a type say and its class default leaves out, although the model needs it."""
FIRST = (0, 4, 6, 5, 11, 12, 9, 1, 10)
"""Rows that find most faults: they are traced of every type before the others."""
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
_MORE_TOKENS = ("cls_token_id", "sep_token_id", "mask_token_id")


@cache
def profile_of(model_type: str) -> ModelSpec | None:
    """The smallest profile of the type from LEAST_PARAMS on, else the largest; None where there is none."""
    known = [load_model(row["id"]) for row in read("models") if row["config"].get("model_type") == model_type]
    large = [spec for spec in known if spec.params >= LEAST_PARAMS]
    return min(large, key=lambda spec: spec.params) if large else max(known, key=lambda spec: spec.params, default=None)


def config_of(model_type: str) -> dict[str, Any]:
    """The config that stands for the type, made small."""
    profile = profile_of(model_type)
    if profile is not None:
        values = dict(json.loads(profile.config_json))
    else:
        import transformers

        values = transformers.CONFIG_MAPPING[model_type]().to_dict() | SAID.get(model_type, {})
        values = {key: value for key, value in values.items() if value is not None} | {"model_type": model_type}
    return _small(values, spec_of(model_type, values))


def _small(values: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """The first layers that show every kind, at least two; words and experts as in this file's constants."""
    kept = _kinds(spec)
    small = {key: value[:kept] if isinstance(value, list) and len(value) == spec.layers else value for key, value in values.items()}
    small |= {key: kept for key in _LAYER_COUNTS if key in values}
    small |= {key: min(values[key], EXPERTS) for key in _EXPERT_COUNTS if values.get(key)}
    small |= {key: number for number, key in enumerate(_TOKENS)} | {key: 3 for key in _MORE_TOKENS if key in values}
    if "attention_types" in values:
        small["attention_types"] = [[["global", "local"], kept // 2]]
    return small | {"vocab_size": VOCABULARY}


def _kinds(spec: ModelSpec) -> int:
    """How many first layers show every kind of layer; an even number."""
    seen, last, layers = set(), 1, 0
    for block in spec.shape.blocks:
        kind = block.model_copy(update={"count": 1})
        if kind not in seen:
            seen.add(kind)
            last = max(last, layers)
        layers += block.count
    return min(last + 2 - last % 2, spec.layers) if last > 1 else 2


def spec_of(model_type: str, config: dict[str, Any]) -> ModelSpec:
    return spec_from_config(config, id=model_type, source="tests/data/type_grid.json")


def plans(spec: ModelSpec) -> Iterator[Plan]:
    """The rows of one type, in a fixed order."""
    for number, (checkpointing, method) in enumerate(product((False, True), Method)):
        kbit = {"kbit_prepare": (number + checkpointing) % 2 == 0} if method.is_quantized else {}
        yield _plan(spec, method, number, checkpointing=checkpointing, **kbit)
    yield _plan(spec, Method.LORA, 0, checkpointing=False, attention="eager")
    for head in spec.shape.heads:
        if head.head not in (spec.first_head, Head.EMBEDDING):
            yield _plan(spec, Method.LORA, 0, checkpointing=True, head=head.head, labels=3)


def _plan(spec: ModelSpec, method: Method, number: int, **options: Any) -> Plan:
    """The first plan of transformers' Trainer, at the row's own sequences."""
    batch_size, seq_len = (ENCODER_SHAPES if spec.kind is ModelKind.ENCODER else SHAPES)[number % 2]
    seq_len = min(seq_len, spec.max_position_tokens or seq_len)
    return default_plan(method, spec, None, Request(seq_len=seq_len, batch_size=batch_size, grad_accum=1, **options))


def measure(spec: ModelSpec, plan: Plan) -> dict[str, Any]:
    """What the dry run finds: the peak by term, allocated and reserved; or its refusal."""
    from advisor.dryrun import trace

    try:
        memory = trace(spec, plan, keep_outputs=False).breakdown
    except AdvisorError as error:
        return {REFUSED: str(error)}
    return {
        "allocated_bytes": memory.peak_allocated_bytes,
        "reserved_bytes": memory.peak_reserved_bytes,
        "phase": memory.peak_phase.value,
        "terms": {term.term.value: term.bytes for term in memory.terms},
    }


def read_grid() -> dict[str, Any]:
    return dict(json.loads(TARGET.read_text(encoding="utf-8"))) if TARGET.exists() else {"types": {}}


def key_of(plan: dict[str, Any]) -> str:
    return json.dumps(plan, sort_keys=True)


def write(again: tuple[str, ...], types: tuple[str, ...]) -> None:
    """Add the rows that the file lacks, saving after each."""
    from advisor.tape.store import installed

    kept: dict[str, Any] = {name: held for name, held in read_grid()["types"].items() if name not in again}
    specs = {name: spec_of(name, kept[name]["config"] if name in kept else config_of(name)) for name in types or again or SUPPORTED}
    wanted = {name: [plan.model_dump(mode="json", exclude_defaults=True) for plan in plans(spec)] for name, spec in specs.items()}
    for name, spec in specs.items():
        held = kept.setdefault(name, {"config": json.loads(spec.config_json), "rows": []})
        held["rows"] = [row for row in held["rows"] if row["plan"] in wanted[name]]
    numbers = range(max(len(rows) for rows in wanted.values()))
    for number in (*FIRST, *(each for each in numbers if each not in FIRST)):
        for name, spec in specs.items():
            rows = kept[name]["rows"]
            if number >= len(wanted[name]) or wanted[name][number] in [row["plan"] for row in rows]:
                continue
            start = time.monotonic()
            rows.append({"plan": wanted[name][number], **measure(spec, Plan(**wanted[name][number]))})
            rows.sort(key=lambda row, name=name: wanted[name].index(row["plan"]))
            save(dict(installed()), {each: kept[each] for each in SUPPORTED if each in kept})
            sys.stdout.write(f"{number}  {name}  {time.monotonic() - start:.0f} s  {_error(spec, rows, wanted[name][number])}\n")
            sys.stdout.flush()


def _error(spec: ModelSpec, rows: list[dict[str, Any]], plan: dict[str, Any]) -> str:
    row = next(row for row in rows if row["plan"] == plan)
    try:
        predicted = estimate_memory(spec, Plan(**plan)).peak_allocated_bytes
    except AdvisorError as error:
        return f"{row.get(REFUSED, 'runs')} | {error}"
    return f"{row[REFUSED]} | answered" if REFUSED in row else f"{predicted / row['allocated_bytes'] - 1:+.2%}"


def save(versions: dict[str, str], types: dict[str, Any]) -> None:
    """One line a row, so that changes are readable."""
    parts = []
    for name, kept in types.items():
        rows = ",\n".join("    " + json.dumps(row) for row in kept["rows"])
        parts.append(f'  {json.dumps(name)}: {{"config": {json.dumps(kept["config"])}, "rows": [\n{rows}\n  ]}}')
    body = ",\n".join(parts)
    TARGET.write_text(f'{{"versions": {json.dumps(versions)},\n"types": {{\n{body}\n}}}}\n', encoding="utf-8")


def report(shown: int) -> None:
    """Errors of the closed form on the file, worst first."""
    errors, refused = [], []
    for name, kept in read_grid()["types"].items():
        spec = spec_of(name, kept["config"])
        for row in kept["rows"]:
            try:
                predicted = estimate_memory(spec, Plan(**row["plan"])).peak_allocated_bytes
            except AdvisorError as error:
                refused.append(f"{name} | {row.get(REFUSED, 'runs')} | {error}")
                continue
            if REFUSED in row:
                refused.append(f"{name} | {row[REFUSED]} | answered")
                continue
            errors.append((predicted / row["allocated_bytes"] - 1, name, row["plan"]))
    sizes = sorted(abs(error) for error, *_ in errors)
    sys.stdout.write(f"{len(errors)} rows: median {median(sizes):.3%}, worst {sizes[-1]:.2%}; {len(refused)} refused\n")
    for share, name, plan in sorted(errors, key=lambda row: -abs(row[0]))[:shown]:
        sys.stdout.write(f"{share:+.2%}  {name}  {plan}\n")
    sys.stdout.write("\n".join(dict.fromkeys(refused)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=int, metavar="N", help="print the N largest errors on the file as it is")
    parser.add_argument("--again", nargs="*", default=(), metavar="TYPE", help="trace these types anew")
    parser.add_argument("--types", nargs="*", default=(), metavar="TYPE", help="these types only")
    arguments = parser.parse_args()
    report(arguments.report) if arguments.report else write(tuple(arguments.again), tuple(arguments.types))


if __name__ == "__main__":
    main()
