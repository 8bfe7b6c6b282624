"""R7 and R13: how much of the gap is the data's, by a control on half of them, and where the ladder ends."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from advisor.evidence.alike import same_but
from advisor.evidence.capacity import tested_step
from advisor.evidence.gates_doors import reference
from advisor.evidence.losses import trend
from advisor.evidence.noise import Difference
from advisor.evidence.power import POWER_AIM, chance_of
from advisor.evidence.published import move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap, show_score
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.stacks.spelling import same_rate
from advisor.units import format_share
from advisor.values import Method
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Door


@dataclass(frozen=True, slots=True)
class Control:
    """A run on a part of the data that took as many steps and differs in nothing else."""

    run: RunFacts
    difference: Difference
    """What the whole data gained over it."""
    doublings: float

    @property
    def fourfold(self) -> float:
        """What four times the data come to: the score grows with the logarithm of the data (fact B10)."""
        return 2 * self.difference.delta / self.doublings


def control_of_data(view: View) -> Control | None:
    """The control on the largest part of the data that took as many steps as the run; where the epochs are not known they count as such.

    A run on half the data for as many epochs took half the steps: where it is worse, that says nothing of the data (one scored 0 of 300
    where the whole data reached 42 %, and six epochs on that same data all of them); where it is not, neither data nor steps were short.
    """
    run, found = view.run, []
    for other in view.facts.runs:
        alike = other.data_fraction < run.data_fraction and same_but(other, run) and same_rate(other.learning_rate, run.learning_rate)
        difference = view.compare(other, run) if alike else None
        if difference is not None and not (difference.leads and _took_fewer_steps(other, run)):
            found.append(Control(other, difference, log2(run.data_fraction / other.data_fraction)))
    return max(found, key=lambda control: control.run.data_fraction, default=None)


def _took_fewer_steps(control: RunFacts, run: RunFacts) -> bool:
    if control.epochs is None or run.epochs is None:
        return False
    return control.epochs * control.data_fraction < (1 - STEPS_ALIKE) * run.epochs * run.data_fraction


STEPS_ALIKE = 0.1
"""Share of the steps that a control may lack and be called as long. Judgement."""


def data_binds(view: View) -> Result | None:
    """R7. Less data is measurably worse, and four times as much would be worth most of the gap (fact B10)."""
    control = control_of_data(view)
    if control is None or not control.difference.wins or view.facts.no_more_data or trend(view.run.eval_losses) == "falling":
        return None
    if view.gap is not None and control.fourfold < gate("data_gap_share") * view.gap:
        return None
    difference = control.difference
    share = format_share(control.run.data_fraction)
    lost = f"{share} of the data scores {show_gap(view, difference.delta)} less, {difference.z:.1f} standard errors"
    sure = difference.items_known and control.run.epochs is not None
    return Result(
        gate="R7",
        binding=Binding.DATA,
        door=Door.STAY,
        confidence=HIGH if sure else MEDIUM,
        reason=f"{lost}: the score still grows with the data" + ("" if control.run.epochs else ", if both ran as many steps"),
        experiment="Collect more data of the same kind, four times as much if it can be had, and train the same set-up on it.",
        gain=move("data").gain,
        cost=move("data").price,
        evidence=("B8", "B10"),
    )


def half_data(view: View) -> Result | None:
    """R13. Nobody has measured what the data are worth: half of them, for as many steps."""
    run = view.run
    if view.facts.no_more_data or control_of_data(view) is not None:
        return None
    half = 0.5 * run.data_fraction
    epochs = None if run.epochs is None else 2 * run.epochs
    steps = f" for {epochs:g} epochs, which are as many steps" if epochs is not None else " for as many steps"
    return Result(
        gate="R13",
        binding=Binding.DATA,
        door=Door.STAY,
        confidence=LOW,
        reason=f"{closed_words(view)}; whether more data would help has not been measured",
        experiment=f"Run the half-data control: the same set-up on {format_share(half)} of the data{steps}. What the whole data gain over "
        "it is about what doubling them would gain again.",
        run=next_run(run, data_fraction=half, epochs=epochs),
        keep="Call the data the limit",
        gain=move("half_data").gain,
        odds=gate("odds_data"),
        cost=move("half_data").price,
        evidence=("B8", "B10", "LR8"),
        missing=("a run on half of the data",),
        disagreement=_ladder_end(view),
        is_door=True,
    )


def end_of_ladder(view: View) -> Result:
    """R13. No door is left that the evidence would open: data, as far as the control can tell, then the task itself."""
    control = control_of_data(view)
    said = _said_by(view, control)
    if control is not None and not view.facts.no_more_data and (control.difference.wins or not _could_see(view)):
        return Result(
            gate="R13",
            binding=Binding.DATA,
            door=Door.STAY,
            confidence=MEDIUM if control.difference.wins else LOW,
            reason=f"{closed_words(view)}; {said}",
            experiment="Collect more data of the same kind, four times as much if it can be had: of what is left it is the largest gain "
            "that is published. If none can be had, take a larger base model with LoRA, or change the task.",
            gain=move("data").gain,
            cost=move("data").price,
            evidence=("B8", "B10", "LR8"),
            disagreement=_ladder_end(view),
            is_door=True,
        )
    return Result(
        gate="R13",
        binding=Binding.CEILING,
        door=Door.STOP,
        confidence=MEDIUM,
        reason=f"{closed_words(view)}; {said}",
        experiment="Change the problem: a larger base model with LoRA, better prompts or retrieval, other data, a task cut into parts; "
        "or accept the score.",
        evidence=("B8", "B10", "LR8", "F11"),
        disagreement=_ladder_end(view),
        is_door=True,
    )


def _could_see(view: View) -> bool:
    """A control at this number of items would have shown what doubling the data usually gains."""
    chance = chance_of(view, move("half_data").gain)
    return chance is not None and chance.share >= POWER_AIM


def _said_by(view: View, control: Control | None) -> str:
    """What the control says, and what it cannot say: a null is no proof."""
    if view.facts.no_more_data:
        return "no more data can be had"
    if control is None:
        return "what more data would bring has not been measured"
    share, delta, z = f"{format_share(control.run.data_fraction)} of the data", control.difference.delta, control.difference.z
    if control.difference.wins:
        return f"{share} scores {show_gap(view, delta)} less, but four times the data would not close the gap"
    if _could_see(view):
        return f"{share} does as well ({show_gap(view, delta)}, {z:.1f} standard errors), so more of the same brings little"
    return (
        f"{share} scored {show_gap(view, delta)} less, {z:.1f} standard errors, which tells nothing: at this number of items the control "
        "shows a usual gain too rarely"
    )


def closed_words(view: View) -> str:
    """What is known to be closed, in one clause."""
    run, rho = view.run, view.rho(view.run.rank, view.run)
    step, full = tested_step(view), reference(view)
    tried = ""
    if full is not None and run.method is not Method.FULL:
        tried = f", and full fine-tuning scored {show_score(view, view.score(full) or 0.0)}"
    if step is not None:
        gained = show_gap(view, step.difference.delta) + (", within its noise" if step.difference.is_noise else "")
        return f"{step.ranks} {step.how} gained {gained}: rank is not the limit{tried}"
    if view.objective == "rl":
        return "in reinforcement learning rank is not the limit"
    if rho is not None and rho >= threshold("rho_ample") * 0.95:
        return f"rank {run.rank} has {rho:.2g} LoRA parameters per training token: rank is not the limit{tried}"
    return f"what is cheap is closed{tried}"


def _ladder_end(view: View) -> str:
    if view.run.method is Method.FULL or reference(view) is not None or view.objective == "rl":
        return ""
    return (
        "The ladder's last door is full fine-tuning; the evidence gives it 0 to 1 point over a tuned adapter on instruction data, less "
        "than data or a larger base model (C6, B8, B10)."
    )
