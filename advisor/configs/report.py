"""From a reading to a report: names that match nothing are set aside, the plan is priced, the rules look at it."""

from __future__ import annotations

from advisor.configs.rules import findings
from advisor.configs.situation import Checked, beside_bytes
from advisor.ladder.answer import summary_of
from advisor.memory import estimate_memory
from advisor.stacks.reading import Reading
from advisor.stacks.targets import available_targets
from advisor.stacks.versions import Profile
from advisor.tiers import Tier, said_beside
from advisor.values import ALL_LINEAR, GpuSpec, ModelSpec, Plan
from advisor.values.check import CheckReport


def report_on(where: str, model: ModelSpec, gpu: GpuSpec | None, reading: Reading, profile: Profile) -> CheckReport:
    """The report on one plan, priced in closed form. Raises UnsupportedError for what that does not cover."""
    reading, missing, nothing = with_known_targets(model, reading)
    memory = estimate_memory(model, reading.plan, gpu)
    others = model.tables is not None  # each other plan of a model without tables would be another recording
    return report_with(where, Checked(model, gpu, reading, profile, memory, beside(model, reading), missing, nothing, others))


def report_with(where: str, checked: Checked) -> CheckReport:
    """The report on a plan whose price is known: by the closed form, or by a dry run."""
    model, gpu = checked.model, checked.gpu
    names = (*model.taken_as, *((gpu.resolved_from,) if gpu is not None and gpu.resolved_from else ()))
    return CheckReport(
        config=where,
        stack=checked.plan.stack,
        profile=checked.profile.line,
        model=summary_of(model),
        gpu=gpu,
        plan=checked.plan,
        memory=checked.memory,
        beside_bytes=checked.beside_bytes,
        fit=checked.fit,
        reason="; ".join(filter(None, (checked.settled.reason, *_said(checked)))),
        stops=_stops(checked),
        findings=findings(checked),
        assumptions=(*names, *checked.reading.taken),
    )


def _said(checked: Checked) -> tuple[str, ...]:
    """What the tier that priced the plan reads as something near it."""
    return said_beside(Tier.TRACE if checked.memory.source == "trace" else Tier.ESTIMATE, checked.plan)


def _stops(checked: Checked) -> str:
    """What ends the training before its first step."""
    said = [remark.text for remark in checked.reading.remarks if remark.stops]
    if checked.nothing_adapted:
        said.append(f"no linear layer is called {', '.join(checked.missing)}")
    return "; ".join(said)


def beside(model: ModelSpec, reading: Reading) -> int:
    return beside_bytes(model, reading.plan, reading.modules_to_save) if reading.plan.method.has_adapter else 0


def with_known_targets(model: ModelSpec, reading: Reading) -> tuple[Reading, tuple[str, ...], bool]:
    """The plan on the modules that the model has, the names that it does not have, and whether none was left."""
    plan = reading.plan
    if not plan.method.has_adapter or plan.target_modules == (ALL_LINEAR,) or model.tables is None:
        return reading, (), False
    available = available_targets(model)
    names = tuple(dict.fromkeys(name.rpartition(".")[2] or name for name in plan.target_modules))
    found = tuple(name for name in names if name in available)
    missing = tuple(name for name in names if name not in available and not _outside_blocks(name))
    update = {"target_modules": found or (ALL_LINEAR,)}
    kept: Plan = plan if found == plan.target_modules else plan.model_copy(update=update)
    return reading._replace(plan=kept), missing, not found


def _outside_blocks(name: str) -> bool:
    """Head and embeddings: peft can wrap them; an adapter there is small, and is not priced."""
    return name in ("lm_head", "embed_tokens", "wte", "embed_out", "score")
