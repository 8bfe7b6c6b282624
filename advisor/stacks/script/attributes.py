"""Attributes of values: read, and set."""

from __future__ import annotations

from advisor.stacks.script.defaults import TABLES
from advisor.stacks.script.machine import Change, Machine
from advisor.stacks.script.values import (
    ABSENT,
    OBJECT,
    OPEN,
    PLAIN,
    SCOPE,
    Bound,
    Box,
    Function,
    Name,
    Unknown,
    UserClass,
    Value,
    class_slot,
    library_base,
)

MODEL = Name("*model")
"""Makes the box of a loaded model; slots that begin with a star say how it was loaded and changed."""
PARAMETERS = Name("*parameters")
"""Makes the box that stands for parameters of a model, one or all."""
_INTEGERS = frozenset(["torch.uint8", "torch.int8", "torch.int16", "torch.int32", "torch.int64", "torch.bool"])


def attribute(machine: Machine, holder: Value, name: str, line: int) -> Value:
    """`holder.name`."""
    if isinstance(holder, Unknown):
        return holder
    if isinstance(holder, Name):
        if name == "is_floating_point":
            return holder.dotted not in _INTEGERS
        if (holder.dotted, name) == ("sys", "argv"):
            return machine.new_list(("script.py", *(machine.start.arguments or ())), line)
        return Name(f"{holder.dotted}.{name}")
    if isinstance(holder, UserClass):
        return _of_class(machine, holder, holder, name, line)
    if isinstance(holder, Box) and holder.kind == OBJECT:
        return _of_object(machine, holder, name, line)
    if isinstance(holder, Box) and holder.kind == SCOPE:
        return holder.slots.get(name, Unknown(f"{name} is not in that module", line))
    if name in ("value", "name") and isinstance(holder, PLAIN):
        return holder  # a member of an enumeration of the script
    return Bound(holder, name, line)


def _of_class(machine: Machine, cls: UserClass, holder: Value, name: str, line: int) -> Value:
    found = class_slot(cls, name)
    if isinstance(found, Function) and _is_property(found):
        return machine.call(found, [holder], {}, line)
    if isinstance(found, Function):
        return Bound(holder, name, line, found) if isinstance(holder, Box) or _is_classmethod(found) else found
    if found is not ABSENT:
        return found
    if name in ("__name__", "__qualname__"):
        return cls.name
    return _default(library_base(cls), name, line, holder)


def _is_property(function: Function) -> bool:
    return _decorated(function, ("property", "cached_property"))


def _is_classmethod(function: Function) -> bool:
    return _decorated(function, ("classmethod",))


def _decorated(function: Function, names: tuple[str, ...]) -> bool:
    return any(getattr(node, "id", "") in names for node in getattr(function.node, "decorator_list", []))


def _of_object(machine: Machine, holder: Box, name: str, line: int) -> Value:
    if name in holder.slots:
        return holder.slots[name]
    if isinstance(holder.of, UserClass):
        return _of_class(machine, holder.of, holder, name, line)
    if holder.of == PARAMETERS and name == "data":
        return holder
    if holder.of == MODEL and name in ("config", "generation_config"):
        machine.write(holder, name, machine.new_object(Name("transformers.PretrainedConfig"), {}, line))
        return holder.slots[name]
    if holder.of == MODEL and name in ("base_model", "model", "module", "pretrained_model"):
        return holder
    if holder.made_by == "signature" and name == "parameters":
        return holder
    if name == "__dict__":
        return machine.call(Name("vars"), [holder], {}, line)
    if name == "__class__":
        return holder.of
    if OPEN in holder.slots:
        return holder.slots[OPEN]
    return _default(holder.of, name, line, holder)


def _default(of: Value, name: str, line: int, holder: Value) -> Value:
    table = TABLES.get(of.leaf) if isinstance(of, Name) else None
    return table[name] if table is not None and name in table else Bound(holder, name, line)


def set_attribute(machine: Machine, holder: Value, name: str, value: Value, line: int) -> None:
    """`holder.name = value`. What is set on the unknown is lost."""
    if isinstance(holder, UserClass):
        machine.write(holder.slots, name, value)
    elif isinstance(holder, Box) and holder.of == PARAMETERS:
        changed(machine, holder, name, value, line)
    elif isinstance(holder, Box) and holder.kind == OBJECT:
        machine.write(holder, name, value)


def changed(machine: Machine, parameters: Box, what: str, value: Value, line: int) -> None:
    """Notes what is done to parameters of a model."""
    model = parameters.slots.get("*model")
    if isinstance(model, Box):
        condition = " and ".join((*machine.conditions, str(parameters.slots.get("*which", ""))))
        machine.seen.changes.append(Change(model, what, value, condition, line))
