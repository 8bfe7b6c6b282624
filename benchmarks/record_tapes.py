"""Record the tapes that the wheel ships, family by family: `python benchmarks/record_tapes.py [ID …]`.

What is there already is left alone, so that it can be interrupted and run again; `--anew` records it again. Hours for all models.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor.architectures import SUPPORTED
from advisor.dryrun.dry_run import LIBRARY_ERRORS
from advisor.dryrun.families import NotOneFamily, declared_config, defaults_of, of_kind
from advisor.errors import UnsupportedError
from advisor.hub import load_model, search_models
from advisor.stacks import default_plan
from advisor.tape import shipped
from advisor.tape.dimensions import FREEDOMS, Likeness, likeness
from advisor.tape.sizes import Shape
from advisor.tape.written import NotRepeatable
from advisor.values import Method, ModelSpec, Optimizer, Phase, Plan, Request

# What an answer asks for first, and what it tries where that does not fit (advisor/ladder/moves.py, `STEPS`).
REQUESTS = (
    Request(checkpointing=True),
    Request(checkpointing=False),
    Request(checkpointing=True, kbit_prepare=False),
    Request(checkpointing=True, optimizer=Optimizer.ADAMW_8BIT),
    Request(checkpointing=True, kbit_prepare=False, optimizer=Optimizer.ADAMW_8BIT),
)


def kinds_of(model: ModelSpec) -> Iterator[Plan]:
    """The kinds of plan that ship, each once, those that are asked for first before the others."""
    found: dict[Plan, None] = {}
    for request in REQUESTS:
        for method in Method:
            try:
                found[shipped.reference(default_plan(method, model, None, request))] = None
            except UnsupportedError as error:
                print(f"{model.id}: {method.label}: {error}", file=sys.stderr)
    yield from found


def family_of(model: ModelSpec, content: dict[str, Any]) -> int:
    """The number of the model's family, which is entered first where it is new."""
    model_type = content["model_type"]
    found = shipped.families(model_type)
    first = next(kinds_of(model))
    for number, family in enumerate(found):
        head = shipped.head_of(shipped.path_of(model_type, number, first, True))
        if family.id == model.id or (head and likeness(family.config, content, {}, head.groups, head.depth)):
            return number
    shipped.write_families(model_type, (*found, shipped.Family(model.id, content, FREEDOMS[0])), defaults_of(model_type))
    return len(found)


def record(model: ModelSpec, anew: bool) -> None:
    """Record what is missing of the model's family."""
    content = declared_config(model)
    number, model_type = family_of(model, content), content["model_type"]
    for plan in kinds_of(model):
        family = shipped.families(model_type)[number]
        path = shipped.path_of(model_type, number, plan, True)
        told = f"{model.id} ({model_type} {number}) {plan.method.label}{', checkpointed' if plan.gradient_checkpointing else ''}"
        if family.id != model.id or (path.exists() and not anew):
            continue
        started = time.monotonic()
        try:
            made = of_kind(model, plan, None, lambda said: print(f"  {said}", file=sys.stderr), family.freedom)
        except (NotOneFamily, NotRepeatable, *LIBRARY_ERRORS) as error:
            print(f"{told}: {type(error).__name__}: {str(error).splitlines()[0][:160]}", flush=True)
            continue
        shipped.write(path, shipped.Head(made.groups, made.depth, {}), made.tapes, rank_of(plan))
        if made.freedom < family.freedom:
            others = shipped.families(model_type)
            lowered = (*others[:number], family._replace(freedom=made.freedom), *others[number + 1 :])
            shipped.write_families(model_type, lowered, shipped.defaults(model_type))
        print(
            f"{told}: {len(made.tapes)} tapes of freedom {made.freedom}, {path.stat().st_size:,} bytes, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    enter_members(model_type)


SAME = 1e-4
"""Share of a model's weights by which buffers differ. Judgement: a dimension that a config class rounds moves a hundred times as much."""


def enter_members(model_type: str) -> None:
    """Say in each file of a type which models of profiles it speaks for: those whose weights the family's formulas count right."""
    others = [load_model(row.id) for row in search_models() if row.model_type == model_type]
    contents = {shipped.digest_of_config(json.loads(other.config_json)): (other, declared_config(other)) for other in others}
    for number, family in enumerate(shipped.families(model_type)):
        full = next(plan for plan in kinds_of(load_model(family.id)) if plan.method is Method.FULL)
        counted = shipped.path_of(model_type, number, full, True)
        head = shipped.head_of(counted)
        if head is None:
            continue
        right = {
            digest
            for digest, (other, content) in contents.items()
            if (alike := likeness(family.config, content, {}, head.groups, head.depth)) and _weighs(counted, alike, other, full)
        }
        for plan in kinds_of(load_model(family.id)):
            path = shipped.path_of(model_type, number, plan, True)
            head = shipped.head_of(path)
            if head is not None:
                found = {digest: likeness(family.config, contents[digest][1], {}, head.groups, head.depth) for digest in right}
                members = {digest: alike for digest, alike in found.items() if alike is not None}
                tapes = [shipped.family_at(path, place) for place in range(len(head.tapes))]
                shipped.write(path, head._replace(members=members), tapes, rank_of(plan))


def rank_of(plan: Plan) -> int | None:
    """The rank that a plan was recorded at."""
    return plan.rank if plan.method.has_adapter else None


def _weighs(path: Path, alike: Likeness, model: ModelSpec, plan: Plan) -> bool:
    """Whether the tape of a full fine-tuning holds as many weights as the model has: config classes may round what they are told."""
    tape = shipped.family_at(path, 0).of(alike.scales, alike.order)
    try:
        births = tape.at(Shape(*tape.regime.least[:2]), 0).births
    except ValueError as error:  # no whole number of bytes
        print(f"  {model.id}: {error}", file=sys.stderr)
        return False
    weights_bytes = sum(born.size_bytes for born in births if born.kind == "weights" and born.phase is Phase.LOAD)
    expected_bytes = model.params * plan.base_dtype.size_bytes
    if abs(weights_bytes - expected_bytes) > SAME * expected_bytes:
        print(f"  {model.id}: {weights_bytes:,} bytes of weights by the family's formulas, {expected_bytes:,} by its own", file=sys.stderr)
        return False
    return True


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("ids", nargs="*", help="models; all without tables where none is named")
    arguments.add_argument("--anew", action="store_true")
    given = arguments.parse_args()
    ids = given.ids or [row.id for row in search_models() if row.model_type not in SUPPORTED]
    for name in ids:
        record(load_model(name), given.anew)


if __name__ == "__main__":
    main()
