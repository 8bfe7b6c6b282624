"""The next experiment in one sentence: the cheapest run that decides something."""

from __future__ import annotations

from advisor.ladder.first_run import PILOTS, first_run, items_words, pilot_steps, within_budget
from advisor.ladder.flips import Flip
from advisor.ladder.knowledge import evidence, say, threshold
from advisor.ladder.learning_rate import recipe_of, show, sweep_of
from advisor.ladder.situation import Situation
from advisor.speed import paid_for, step_time
from advisor.units import format_rough_share, format_share
from advisor.values import ALL_LINEAR, Method, Plan, Task


def next_experiment(situation: Situation, known_flips: tuple[Flip, ...]) -> str:
    """A three-point learning-rate sweep of the chosen rung; where nothing fits, the way to a card that does."""
    rung = situation.chosen
    if rung is None:
        opening = next((flip.sentence for flip in known_flips if flip.opens), None)
        return say("next.nothing", flip=opening) if opening else say("next.nowhere")
    plan, request = rung.plan, situation.request
    rates = sweep_of(situation.case.model, plan, request.task)
    data = _on_data(situation, plan) if request.dataset_tokens is not None else _on_unknown_data(request.eval_items)
    name = "next.full" if plan.method is Method.FULL else "next.run" if request.dataset_tokens is None else "next.sized"
    return say(
        name,
        method=plan.method.label,
        rank=plan.rank,
        alpha=f"{plan.alpha:g}",
        targets="all linear layers" if plan.target_modules == (ALL_LINEAR,) else ", ".join(plan.target_modules),
        batch=plan.micro_batch_size * plan.grad_accum_steps * plan.n_gpus,
        low=show(rates.low),
        mid=show(rates.mid),
        high=show(rates.high),
        **data,
    )


def _on_unknown_data(eval_items: int | None) -> dict[str, str]:
    """The words that depend on the data, where nobody says how many they are."""
    share = f"at least {format_share(threshold('sweep_data_share'))}"
    return {"share": share, "held": "", "scored": _scored(eval_items)}


def _scored(eval_items: int | None) -> str:
    """What the evaluation can show, where its size is known."""
    return f", scored on a held-out set{items_words(eval_items)}" if eval_items else ""


def _on_data(situation: Situation, plan: Plan) -> dict[str, str]:
    """The same, sized to the data, to the items and to the budget."""
    model, gpu, request = situation.case.model, situation.case.gpu, situation.request
    tokens = request.dataset_tokens
    assert tokens is not None
    first = first_run(model, plan.method, request.task, tokens)
    share, held = first.share, ""
    if request.budget is not None:
        computed = max(1, round(tokens * share * (first.epochs or 1.0) * PILOTS))
        time = paid_for(step_time(model, plan, gpu, computed, usd_per_gpu_hour=request.price), plan, request.gpus)
        share, held = within_budget(share, time.usd.high if time is not None and time.usd is not None else None, request.budget)
    return {
        "share": format_rough_share(share),
        "epochs": "one pass" if first.epochs in (None, 1) else f"{first.epochs:g} epochs",
        "steps": f"{pilot_steps(tokens, share, first.epochs):,}",
        "held": held,
        "scored": _scored(request.eval_items),
        "items": "" if request.eval_items else items_words(None),
    }


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
