"""R8: 4 bit answers to memory and to nothing else. Where it is measured to cost, or no longer needed, the way leads back to LoRA."""

from __future__ import annotations

from advisor.evidence.focus import is_twin
from advisor.evidence.noise import Difference
from advisor.evidence.pricing import fits_surely
from advisor.evidence.published import move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, accept, next_run, show_gap
from advisor.evidence.view import View
from advisor.values import Method
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, NextRun

BACK = "The ladder climbs from LoRA to QLoRA; the evidence takes this step for memory alone, and back as soon as memory allows (Q4, Q5)."
LOFTQ = "loftq"


def control_of(view: View, run: RunFacts) -> tuple[RunFacts, Difference] | None:
    """The 16-bit run that differs from a 4-bit one in nothing else, and what it gained."""
    for other in view.facts.runs:
        difference = view.compare(run, other) if is_twin(run, other) else None
        if difference is not None:
            return other, difference
    return None


def four_bit_costs(view: View) -> Result | None:
    """R8, measured: a 16-bit control beats the run."""
    if not view.run.method.is_quantized:
        return None
    control = control_of(view, view.run)
    if control is None or not control[1].wins:
        return None
    other, difference = control
    reason = (
        f"run {other.label}, the same on a 16-bit base, scores {show_gap(view, difference.delta)} more ({difference.z:.1f} standard errors)"
    )
    return _back(view, reason, HIGH)


def four_bit_suspected(view: View) -> Result | None:
    """R8, likely: arithmetic or code at a size where 4 bit was measured to cost points, or only the arithmetic falls short."""
    run = view.run
    if not run.method.is_quantized or control_of(view, run) is not None or run.init.lower() == LOFTQ:
        return None
    if not (view.is_small and view.is_arithmetic) and not _only_here(view):
        return None
    return _back(
        view, f"run {run.label} has a 4-bit base, which costs 2 to 5 points on arithmetic at this size; no 16-bit control was run", MEDIUM
    )


def four_bit_needless(view: View) -> Result | None:
    """R8: the 16-bit base fits the card, so that 4 bit buys nothing."""
    run = view.run
    if not run.method.is_quantized or control_of(view, run) is not None:
        return None
    if fits_surely(view, _sixteen(run)) is not True:
        return None
    return _back(
        view, f"run {run.label} has a 4-bit base although the 16-bit one fits the card: 4 bit then costs time and buys nothing", LOW
    )


def _only_here(view: View) -> bool:
    """Other benchmarks are where they should be, so that what is missing is what 4 bit takes (fact Q6)."""
    others = [other for other in view.facts.other_scores if other.target is not None]
    reached = [other for other in others if (view.level(other.score) or 0) >= (view.level(other.target) or 0) - view.noise.floor]
    return bool(others) and len(reached) == len(others)


def _sixteen(run: RunFacts) -> NextRun:
    method = Method.DORA if run.method.is_dora else Method.LORA
    return next_run(run, method=method, quantization=None, init="" if run.init.lower() == LOFTQ else run.init)


def _back(view: View, reason: str, sure: Confidence) -> Result:
    """16-bit LoRA where the card may hold it; else the quantisation error is trained for from the start."""
    control = _sixteen(view.run)
    found = move("bf16")
    if fits_surely(view, control) is False:
        return Result(
            gate="R8",
            binding=Binding.QUANTISATION,
            door=Door.STAY,
            confidence=LOW if sure is not HIGH else MEDIUM,
            reason=f"{reason}; the 16-bit base does not fit the card",
            experiment="Initialise the adapter with LoftQ, which recovered 0.6 to 3.9 of 1.9 to 4.6 lost points, and keep that base with "
            "the adapter; or rent a larger card for one 16-bit control.",
            run=next_run(view.run, init=LOFTQ),
            accept=accept(view, "Keep LoftQ"),
            gain=found.gain,
            evidence=("Q5", "Q6"),
        )
    return Result(
        gate="R8",
        binding=Binding.QUANTISATION,
        door=Door(control.method.value),
        confidence=sure,
        reason=reason,
        experiment=f"Run 16-bit {control.method.label} once, everything else unchanged, as the control"
        + (", and go on from there." if sure is not HIGH else ": it is at hand, so go on from it."),
        run=control,
        accept=accept(view, f"Stay with {control.method.label}"),
        gain=found.gain,
        cost=found.price,
        evidence=("Q4", "Q5", "Q6", "Q7"),
        missing=() if fits_surely(view, control) is not None else ("model and card, to see whether the 16-bit base fits",),
        disagreement=BACK,
        is_door=True,
    )
