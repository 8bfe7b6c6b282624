"""The next experiment in one sentence: the cheapest run that decides something."""

from __future__ import annotations

from advisor.ladder.first_run import first_run
from advisor.ladder.flips import Flip
from advisor.ladder.knowledge import evidence, say, threshold
from advisor.ladder.learning_rate import recipe_of, show, sweep_of
from advisor.ladder.situation import Situation
from advisor.values import ALL_LINEAR, Method, Plan, Task


def next_experiment(situation: Situation, known_flips: tuple[Flip, ...]) -> str:
    """A three-point learning-rate sweep of the chosen rung; where nothing fits, the way to a card that does."""
    rung = situation.chosen
    if rung is None:
        opening = next((flip.sentence for flip in known_flips if flip.opens), None)
        return say("next.nothing", flip=opening) if opening else say("next.nowhere")
    plan, request = rung.plan, situation.request
    if request.dataset_tokens is not None and plan.method is not Method.FULL:
        return _sized(situation, plan)
    rates = sweep_of(situation.case.model, plan, situation.request.task)
    return say(
        "next.full" if plan.method is Method.FULL else "next.run",
        method=plan.method.label,
        rank=plan.rank,
        alpha=f"{plan.alpha:g}",
        targets=_targets(plan),
        batch=plan.micro_batch_size * plan.grad_accum_steps * plan.n_gpus,
        low=show(rates.low),
        mid=show(rates.mid),
        high=show(rates.high),
        share=round(100 * threshold("sweep_data_share")),
    )


def _targets(plan: Plan) -> str:
    return "all linear layers" if plan.target_modules == (ALL_LINEAR,) else ", ".join(plan.target_modules)


def _sized(situation: Situation, plan: Plan) -> str:
    """The first run, sized to the data."""
    request = situation.request
    first = first_run(situation.case.model, plan.method, request.task, request.dataset_tokens)
    rates = sweep_of(situation.case.model, plan, request.task)
    return say(
        "next.sized",
        method=plan.method.label,
        rank=plan.rank,
        alpha=f"{plan.alpha:g}",
        targets=_targets(plan),
        batch=plan.micro_batch_size * plan.grad_accum_steps * plan.n_gpus,
        low=show(rates[0]),
        mid=show(rates[1]),
        high=show(rates[2]),
        share=f"{100 * first.share:.2g} %",
        epochs="one pass" if first.epochs in (None, 1) else f"{first.epochs:g} epochs",
        steps=f"{first.pilot_steps:,}",
    )


def experiment_evidence(situation: Situation) -> tuple[str, ...]:
    """Ids of the facts that its learning rates and its sweep stand on."""
    if situation.chosen is None:
        return ()
    if situation.request.task is Task.RL:
        return ("LR11", "LR21")
    sized = "next.run" if situation.request.dataset_tokens is None else "next.sized"
    names = evidence("next.full" if situation.chosen.plan.method is Method.FULL else sized)
    unused = "LR16" if recipe_of(situation.case.model) else "LR3"
    return tuple(name for name in names if name != unused)
