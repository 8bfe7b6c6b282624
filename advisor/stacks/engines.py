"""What an engine that shares a model over several cards does by default: rows of profiles/stacks/engines.json, each with its source.

Of the rows that match, the last speaks: special ones stand after general ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from advisor.profiles import read
from advisor.stacks.facts import StackDefaults
from advisor.values.plan import Plan
from advisor.values.vocabulary import Masters, Sharding, Stack

Release = tuple[int, ...]


def masters_of(
    sharding: Sharding, stack: Stack, *, mixed: bool, quantized: bool, bf16_masters: bool = False, accelerate: Release | None = None
) -> Masters:
    """Who holds fp32 values of what is trained.

    `mixed`: the trainer's bf16 or fp16 is on; `bf16_masters`: DeepSpeed's `bf16_master_weights_and_grads`; `accelerate`: its release,
    None for the one that the rows were read in.
    """
    if bf16_masters and sharding.is_zero:
        return Masters.NONE
    found = _last("masters", {"engines": sharding.value, "stack": stack.value, "mixed": mixed, "quantized": quantized}, accelerate)
    return Masters.NONE if found is None else Masters(found)


def reentrant_of(defaults: StackDefaults, sharding: Sharding, *, adapter: bool) -> bool:
    """Whether checkpoints are reentrant where nobody says."""
    facts = {"engines": sharding.value, "stack": defaults.stack.value, "adapter": adapter}
    return bool(_last("reentrant", facts, _release(defaults)))


def fsdp_of(defaults: StackDefaults) -> Sharding:
    """Which FSDP a trainer's arguments mean without a version."""
    return Sharding(_last("fsdp", {"stack": defaults.stack.value}, _release(defaults)))


def deepspeed_file(stated: str, stack: Stack) -> Mapping[str, Any] | None:
    """The row of a DeepSpeed configuration that the framework brings with it, by the end of the path that names it."""
    rows = (row for row in read("stacks") if row["kind"] == "deepspeed" and row["stack"] == stack.value)
    path = f"/{stated.strip()}"
    return next((row for row in rows if any(path.endswith(f"/{name}") for name in row["names"].split())), None)


def shared(plan: Plan, sharding: Sharding) -> Plan:
    """`plan` under another engine, with the masters that it keeps by default, and with its checkpoints where the plan had the old one's."""
    masters = masters_of(sharding, plan.stack, mixed=plan.autocast, quantized=plan.quantization is not None)
    first, then = (_reentrant(engine, plan.stack, adapter=plan.method.has_adapter) for engine in (plan.sharding, sharding))
    reentrant = then if plan.use_reentrant == first else plan.use_reentrant
    return plan.model_copy(update={"sharding": sharding, "masters": masters, "use_reentrant": reentrant})


@cache
def _reentrant(sharding: Sharding, stack: Stack, *, adapter: bool) -> bool:
    """As the newest release of the stack has it by default."""
    return bool(_last("reentrant", {"engines": sharding.value, "stack": stack.value, "adapter": adapter}, None))


def _last(kind: str, facts: Mapping[str, object], release: Release | None) -> Any:
    rows = [row for row in read("stacks") if row["kind"] == kind and _matches(row, facts) and _speaks_for(row, release)]
    return rows[-1]["value"] if rows else None


def _matches(row: Mapping[str, Any], facts: Mapping[str, object]) -> bool:
    names = ("engines", "stack", "mixed", "quantized", "adapter")
    return all(
        facts.get(name) in row[name] if isinstance(row[name], list) else facts.get(name) == row[name] for name in names if name in row
    )


def _speaks_for(row: Mapping[str, Any], release: Release | None) -> bool:
    """Rows of older releases are left out where no release is named."""
    if release is None:
        return "before" not in row
    return ("before" not in row or release < _numbers(row["before"])) and ("from" not in row or release >= _numbers(row["from"]))


def _release(defaults: StackDefaults) -> Release | None:
    return _numbers(defaults.version) if defaults.version else None


def _numbers(version: str) -> Release:
    return tuple(map(int, version.split(".")))
