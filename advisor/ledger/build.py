"""Puts a run together from what several places say of it, each field once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from advisor.errors import InvalidInputError
from advisor.refusals import one_line
from advisor.stacks.spelling import canonical_targets, same_rate
from advisor.values.plan import Plan
from advisor.values.run import Evaluation, RunRecord, options_of

EVALUATION_FIELDS = frozenset(Evaluation.model_fields)
"""Given beside a run's own fields, they make one evaluation."""
_ALWAYS_ADDED = ("evaluations", "notes")
"""Lists that grow; of every other field there is one value."""


def run_from(fields: Mapping[str, Any], where: str = "") -> RunRecord:
    """A run from its fields by name, those of one evaluation among them. Raises one line that names the field.

    `train_loss` and `eval_loss` are the last value of a curve that is not known.
    """
    known = {name: value for name, value in fields.items() if value is not None}
    try:
        scored = {name: known.pop(name) for name in EVALUATION_FIELDS & set(known)}
        for short, curve in (("train_loss", "train_losses"), ("eval_loss", "eval_losses")):
            if short in known:
                known.setdefault(curve, [(known.get("steps") or 0, known.pop(short))])
        if scored:
            if not {"score", "items"} & set(scored):
                raise InvalidInputError(f"{where}{_first(scored)} is given without a score")
            others = known.get("evaluations", ())
            if not isinstance(others, (list, tuple)):
                raise InvalidInputError(f"{where}evaluations must be a list")
            known["evaluations"] = (*others, Evaluation.model_validate(scored))
        record = RunRecord.model_validate(known)
    except ValidationError as error:
        raise InvalidInputError(where + one_line(error)) from None
    return record if record.plan is None else with_plan(record, record.plan)


def _first(fields: Mapping[str, Any]) -> str:
    return sorted(fields)[0]


def with_plan(record: RunRecord, plan: Plan) -> RunRecord:
    """The record with the plan and the options that follow from it. Raises where an option says otherwise."""
    follows = options_of(plan)
    given = RunRecord(plan=plan, use_rslora=plan.use_rslora if plan.method.has_adapter else None, **_known(follows))
    return completed(record, given, f"plan of run {record.label}")


def _known(value: Any) -> dict[str, Any]:
    """Fields that differ from their default, which for every option is "not known"."""
    return {name: getattr(value, name) for name, field in type(value).model_fields.items() if getattr(value, name) != field.default}


def completed(record: RunRecord, more: RunRecord, where: str) -> RunRecord:
    """`record` with what only `more` knows; evaluations and notes of both. Raises where the two say different things."""
    update = _new_fields(record, more)
    for name, value in _known(more).items():
        had = getattr(record, name)
        if name not in update and name not in _ALWAYS_ADDED and not _is_same(name, had, value):
            raise InvalidInputError(f"{where}: {name} is {_shown(had)} there and {_shown(value)} here; a run keeps what it is")
    return _checked(record, update, where)


def _is_same(name: str, had: Any, value: Any) -> bool:
    """Whether two values of a field are one: a rate as it was set and as it was logged, target modules in two spellings."""
    if name == "learning_rate":
        return same_rate(had, value)
    if name == "target_modules":
        return canonical_targets(had, None) == canonical_targets(value, None)
    return repr(had) == repr(value)  # NaN equals itself in print only


def preferring(record: RunRecord, more: RunRecord, where: str) -> RunRecord:
    """As `completed`, but where the two say different things, `record` is right."""
    return _checked(record, _new_fields(record, more), where)


def _new_fields(record: RunRecord, more: RunRecord) -> dict[str, Any]:
    had, new = _known(record), _known(more)
    update = {name: value for name, value in new.items() if name not in had and name not in _ALWAYS_ADDED}
    for name in _ALWAYS_ADDED:
        if name in new:
            update[name] = (*getattr(record, name), *(entry for entry in new[name] if entry not in getattr(record, name)))
    return update


def _checked(record: RunRecord, update: Mapping[str, Any], where: str) -> RunRecord:
    try:
        return RunRecord.model_validate({**_known(record), **update})
    except ValidationError as error:
        raise InvalidInputError(f"{where}: {one_line(error)}") from None


def _shown(value: Any) -> str:
    return str(getattr(value, "value", value))[:60]
