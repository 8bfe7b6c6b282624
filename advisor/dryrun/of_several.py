"""What of a model several cards trip over: classes of layers that it names and lacks, and towers that no batch goes through.

Sources are files of transformers 5.23 and accelerate 1.15.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advisor.dryrun.inputs import sees_text_alone
from advisor.memory.recorded import UNUSED, looks_for_unused
from advisor.memory.units import CARVES
from advisor.values import Plan, Sharding


def leaves_towers(base: Any, plan: Plan) -> bool:
    """Whether parts of the model get no gradient, because batches hold text alone."""
    return plan.images_per_row == 0 and sees_text_alone(base)


def classes_of_layers(base: Any) -> tuple[list[str], list[str]]:
    """The classes that the model names as its units, and which of them it lacks: a vision tower names those of its whole family
    (transformers modeling_utils.py `_no_split_modules`)."""
    named = sorted(getattr(base, "_no_split_modules", None) or ())
    there = {type(module).__name__ for module in base.modules()}
    return [name for name in named if name in there], [name for name in named if name not in there]


def name_layers(base: Any) -> None:
    """Leave the model the classes that it has: accelerate stops at another (utils/fsdp_utils.py `fsdp2_prepare_auto_wrap_policy`), and
    what is run is that with those of its layers named."""
    found, missing = classes_of_layers(base)
    if missing:
        base._no_split_modules = found


def remarks_of_several(base: Any, plan: Plan) -> Iterator[str]:
    """What is to be set so that the engine runs at all. Asked before `name_layers`."""
    found, missing = classes_of_layers(base)
    if plan.sharding.is_fsdp and plan.stack in CARVES and missing:
        yield f"accelerate stops at layer classes that this model lacks; set fsdp_transformer_layer_cls_to_wrap: {','.join(found)}"
    if plan.sharding is Sharding.DDP and not looks_for_unused(plan) and leaves_towers(base, plan):
        yield UNUSED
