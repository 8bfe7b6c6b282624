"""Records the tapes of a family: the dry run of one model and of others whose dimensions are multiples of its own, compiled together."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple

from advisor.dryrun import compat, dry_run, meta_model
from advisor.dryrun.tapes import Recordings, Variant, quick, widest
from advisor.memory.runtime import has_flash
from advisor.tape import shipped
from advisor.tape.compile import NotOneFormula, Recording
from advisor.tape.dimensions import FREEDOMS, Depth, Groups, factors_of, groups_of, scaled
from advisor.tape.family import FamilyTape, grown
from advisor.tape.kinds import kind_of
from advisor.tape.sampling import FEWEST_ALONE
from advisor.tape.sizes import Shape
from advisor.tape.store import installed
from advisor.tape.tape import Tape
from advisor.values import GpuSpec, ModelSpec, Plan

VARIANTS = 4
"""Models of a family that are recorded together: sums of two products, and two more that check them."""
ALONE = (2048, 512, 8192, 32768, 1024)
SEVERAL = ((2, 2048), (8, 512), (2, 512), (4, 8192))
"""Shapes that a shipped kind of plan speaks for, the most asked for first; a tape mostly speaks for all of one kind of them."""


class NotOneFamily(Exception):
    """A model whose dimensions are multiples of another's does otherwise, or its sizes follow no formula."""


class OfKind(NamedTuple):
    """The tapes of one kind of plan for a family of models."""

    freedom: int
    groups: Groups
    depth: Depth | None
    tapes: tuple[FamilyTape, ...]


def of_kind(model: ModelSpec, plan: Plan, gpu: GpuSpec | None, progress: Callable[[str], None], freest: int = FREEDOMS[0]) -> OfKind:
    """Tapes of a plan's kind for the family of `model`, as free in its dimensions as they can be, at most `freest`.

    Raises what the libraries raise for a model that they cannot run.
    """
    content, declared = full_config(model), declared_config(model)
    for freedom in (freedom for freedom in FREEDOMS if freedom <= freest):
        groups = groups_of(declared, freedom)
        if freedom and not groups:
            continue
        with quick(), suppress(NotOneFamily):
            return _recorded(model, content, kind_of(plan), freedom, groups, gpu, progress)
    raise NotOneFamily(f"{model.id}: its sizes follow no formula even in batch and length")


def _recorded(
    model: ModelSpec,
    content: dict[str, Any],
    plan: Plan,
    freedom: int,
    groups: Groups,
    gpu: GpuSpec | None,
    progress: Callable[[str], None],
) -> OfKind:
    recorder = Recordings([_variant(model, content, plan, groups, number) for number in range(VARIANTS)], gpu, progress)
    share = _share(plan)

    def compiled(made: list[Recording], of: list[Variant]) -> FamilyTape:
        try:
            return grown(made, [variant.scales for variant in of], share, installed())
        except NotOneFormula as error:
            if len(made) <= FEWEST_ALONE:
                raise  # one recording more may tell
            raise NotOneFamily(str(error)) from error

    longest = model.max_position_tokens
    shapes = [Shape(1, tokens) for tokens in ALONE] + [Shape(*shape) for shape in SEVERAL]
    _check_family(recorder, shapes[0], freedom)
    tapes: list[FamilyTape] = []
    for shape in shapes:
        if (longest is None or shape.tokens <= longest) and not any(tape.tape.regime.covers(shape) for tape in tapes):
            tapes.append(widest(recorder, shape, compiled))
    return OfKind(freedom, groups, _depth(recorder), tuple(tapes))


def _check_family(recorder: Recordings, shape: Shape, freedom: int) -> None:
    """Raises NotOneFamily where another model does otherwise at the same shape, or cannot be built."""
    if not freedom:
        return
    recorder.at(shape)
    try:
        alike = recorder.alike((shape, 0), (shape, 1))
    except dry_run.LIBRARY_ERRORS as error:
        raise NotOneFamily(str(error)) from error
    if not alike:
        raise NotOneFamily("other events")


def _variant(model: ModelSpec, content: dict[str, Any], plan: Plan, groups: Groups, number: int) -> Variant:
    """The model itself first, then others whose dimensions and rank are larger, each by a factor of its own."""
    ranked = plan.method.has_adapter
    if number == 0:
        return Variant(model, plan, (Fraction(1),) * (len(groups) + ranked))
    factors = factors_of((*groups, (("rank",),)), number)
    larger = scaled(content, groups, factors[: len(groups)])
    other = model.model_copy(update={"id": f"{model.id} x {number}", "config_json": json.dumps(larger)})
    if ranked:
        plan = plan.model_copy(update={"rank": plan.rank * factors[-1]})
    return Variant(other, plan, tuple(map(Fraction, factors[: len(groups) + ranked])))


def _share(plan: Plan) -> Fraction:
    """What a quantised weight counts of its bytes as it is loaded (advisor/dryrun/load.py, `warm_up_bytes`)."""
    return Fraction(compat.quantized_item_bytes(plan.quantization)) / plan.base_dtype.size_bytes


def _depth(recorder: Recordings) -> Depth | None:
    """Which layers were recorded, and where a config counts them; None where all were."""
    cut, shape = recorder.cut()
    if cut is None or shape.cut is None or not shape.cut.fields:
        return None
    return Depth(cut, shape.cut.holder or (), shape.cut.fields)


def full_config(model: ModelSpec) -> dict[str, Any]:
    """The model's config with everything that transformers fills in, as JSON can hold it."""
    content = meta_model.config_of(model).to_dict()
    return dict(json.loads(json.dumps(content, default=str)))


def declared_config(model: ModelSpec) -> dict[str, Any]:
    """As `full_config`, without the fields that its class does not declare, and which transformers therefore does not read."""

    def declared(config: Any, content: dict[str, Any]) -> dict[str, Any]:
        known = content
        with suppress(Exception):  # some configs cannot be made of nothing
            known = type(config)().to_dict()
        found = {}
        for name, value in content.items():
            part = getattr(config, name, None)
            if hasattr(part, "to_dict") and isinstance(value, dict):
                found[name] = declared(part, value)
            elif name in known:
                found[name] = value
        return found

    return declared(meta_model.config_of(model), full_config(model))


def shipped_for(model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> Tape | None:
    """Find the shipped tape of a model whose own config leaves out what its class fills in, or says it in older words; None where there
    is none."""
    filled_in = model.model_copy(update={"config_json": json.dumps(declared_config(model))})
    found = shipped.find(filled_in, plan, has_flash(gpu))
    return found and found.tape()


def defaults_of(model_type: str) -> dict[str, Any]:
    """What transformers sets where a config of that type leaves a field out; empty where it has no defaults."""
    from transformers import CONFIG_MAPPING

    with suppress(Exception):  # some configs cannot be made of nothing
        content = CONFIG_MAPPING[model_type]().to_dict()
        return dict(json.loads(json.dumps(content, default=str)))
    return {}
