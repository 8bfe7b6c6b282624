"""R8: 4 bit answers to memory and to nothing else. Where it is measured to cost, or no longer needed, the way leads back to LoRA."""

from __future__ import annotations

from advisor.evidence.focus import is_twin
from advisor.evidence.noise import Difference
from advisor.evidence.pricing import fits_surely
from advisor.evidence.published import move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate
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
    """R8, measured: a 16-bit control beats the run, by what 4 bit was ever measured to cost or by so much that it must be a fault."""
    run = view.run
    control = control_of(view, run) if run.method.is_quantized else None
    if control is None or not control[1].wins:
        return None
    other, difference = control
    lost = f"{show_gap(view, difference.delta)} more ({difference.z:.1f} standard errors)"
    reason = f"run {other.label}, the same on a 16-bit base, scores {lost}"
    if view.noise.shares and difference.delta > gate("quantised_most"):
        return _fault(view, run, other, reason)
    return Result(
        gate="R8",
        binding=Binding.QUANTISATION,
        door=Door(other.method.value),
        confidence=HIGH if difference.items_known else MEDIUM,
        reason=reason,
        experiment=f"Go on from run {other.label}, which is at hand.",
        go_on_from=other,
        gain=move("bf16").gain,
        evidence=("Q4", "Q5", "Q6", "Q7"),
        disagreement=BACK,
        is_door=True,
    )


def _fault(view: View, run: RunFacts, other: RunFacts, reason: str) -> Result:
    """More than 4 bit ever cost: something that the 16-bit run trains is not trained, or not loaded, under 4 bit (PEFT issue 902)."""
    most = move("bf16").gain.points.high
    return Result(
        gate="R8",
        binding=Binding.OPTIMISATION_BUG,
        door=Door.STAY,
        confidence=MEDIUM,
        reason=f"{reason}: more than the {most:g} points that 4 bit was ever measured to cost, so a fault of the 4-bit set-up, not its "
        "price",
        experiment="Check, before any further run: tokens that were added (an end token learned in 16 bit and lost in 4 bit has an "
        "embedding and a head that are not trained or not saved: modules_to_save), the type of the embedding and the head, the compute "
        f"dtype, and that the adapter is evaluated on the base it was trained on. Until it is found, go on from run {other.label}.",
        evidence=("Q4", "Q5"),
        disagreement=BACK,
    )


def four_bit_suspected(view: View) -> Result | None:
    """R8, likely: arithmetic or code at a size where 4 bit was measured to cost points, or only the arithmetic falls short."""
    run = view.run
    if not run.method.is_quantized or control_of(view, run) is not None or run.init.lower() == LOFTQ:
        return None
    if not (view.is_small and view.is_arithmetic) and not _only_here(view):
        return None
    reason = f"run {run.label} has a 4-bit base, which costs 2 to 5 points on arithmetic at this size; no 16-bit control was run"
    return _back(view, reason, MEDIUM, gate("odds_quantised"))


def four_bit_needless(view: View) -> Result | None:
    """R8: the 16-bit base fits the card, so that 4 bit buys nothing."""
    run = view.run
    if not run.method.is_quantized or control_of(view, run) is not None:
        return None
    if fits_surely(view, _sixteen(run)) is not True:
        return None
    reason = f"run {run.label} has a 4-bit base although the 16-bit one fits the card: 4 bit then costs time and buys nothing"
    return _back(view, reason, LOW, gate("odds_quantised_needless"))


def _only_here(view: View) -> bool:
    """Other benchmarks are where they should be, so that what is missing is what 4 bit takes (fact Q6)."""
    others = [other for other in view.facts.other_scores if other.target is not None]
    reached = [other for other in others if (view.level(other.score) or 0) >= (view.level(other.target) or 0) - view.noise.floor]
    return bool(others) and len(reached) == len(others)


def _sixteen(run: RunFacts) -> NextRun:
    method = Method.DORA if run.method.is_dora else Method.LORA
    return next_run(run, method=method, quantization=None, init="" if run.init.lower() == LOFTQ else run.init)


def _back(view: View, reason: str, sure: Confidence, odds: float) -> Result:
    """16-bit LoRA where the card may hold it; else the quantisation error is trained for from the start."""
    control = _sixteen(view.run)
    found = move("bf16")
    if fits_surely(view, control) is False:
        return Result(
            gate="R8",
            binding=Binding.QUANTISATION,
            door=Door.STAY,
            confidence=LOW,
            reason=f"{reason}; the 16-bit base does not fit the card",
            experiment="Initialise the adapter with LoftQ, which recovered 0.6 to 3.9 of 1.9 to 4.6 lost points, and keep that base with "
            "the adapter; or rent a larger card for one 16-bit control.",
            run=next_run(view.run, init=LOFTQ),
            keep="Keep LoftQ",
            gain=found.gain,
            odds=odds,
            evidence=("Q5", "Q6"),
        )
    return Result(
        gate="R8",
        binding=Binding.QUANTISATION,
        door=Door(control.method.value),
        confidence=sure,
        reason=reason,
        experiment=f"Run 16-bit {control.method.label} once, everything else unchanged, as the control, and go on from the better of the "
        "two.",
        run=control,
        keep=f"Call 4 bit the limit and stay with {control.method.label} for its score",
        gain=found.gain,
        odds=odds,
        cost=found.price,
        evidence=("Q4", "Q5", "Q6", "Q7"),
        missing=() if fits_surely(view, control) is not None else ("model and card, to see whether the 16-bit base fits",),
        disagreement=BACK,
        is_door=True,
    )
