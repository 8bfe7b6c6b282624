"""A run at hand that differs in one setting and is better: the setting is the limit, and nothing need be run to see it."""

from __future__ import annotations

from advisor.evidence.alike import differ_only
from advisor.evidence.result import HIGH, MEDIUM, Result, show_gap
from advisor.evidence.view import View
from advisor.values import Method
from advisor.values.next_step import Binding, Door

SETTINGS = {
    "precision": (Binding.OPTIMISATION_BUG, "R3"),
    "batch": (Binding.BATCH, "R7"),
    "targets": (Binding.TARGET_MODULES, "R6"),
}
"""What binds where a run that differs in this alone is better, and the rule that says so."""
WORDS = {"precision": "the type of its numbers", "batch": "its sequences per step", "targets": "its target modules"}
SMALL_UPDATES = (
    " Weights in bf16 alone lose updates of less than a few thousandths of their size: keep them in fp32, or take an optimizer with Kahan "
    "summation or stochastic rounding."
)
"""bf16 has eight bits of significand, so that less than a 512th to a 256th rounds away (meta-pytorch/torchtune issue 2254,
vllm-project/speculators pull request 765)."""


def setting_won(view: View) -> Result | None:
    """R3, R6, R7, measured: another run is better by two standard errors and differs in one of these settings alone."""
    run = view.run
    for other in view.facts.runs:
        for name, (binding, rule) in SETTINGS.items():
            alike = getattr(other, name) is not None and getattr(run, name) is not None and getattr(other, name) != getattr(run, name)
            difference = view.compare(run, other) if alike and differ_only(run, other, name) else None
            if difference is None or not difference.wins:
                continue
            lost_updates = name == "precision" and run.method is Method.FULL
            return Result(
                gate=rule,
                binding=binding,
                door=Door.STAY,
                confidence=HIGH if difference.items_known else MEDIUM,
                reason=f"run {other.label} differs from {run.label} in {WORDS[name]} alone and scores {show_gap(view, difference.delta)} "
                f"more ({difference.z:.1f} standard errors)",
                experiment=f"Go on from run {other.label}, which is at hand.{SMALL_UPDATES if lost_updates else ''}",
                go_on_from=other,
                evidence=("N1", "N7"),
            )
    return None
