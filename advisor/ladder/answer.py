"""The whole answer: climb, decide, explain, and say what to try next. A pure function of model, card and request."""

from __future__ import annotations

from advisor.ladder.experiment import experiment_evidence, next_experiment
from advisor.ladder.first_run import with_sized_rank
from advisor.ladder.fit import Case
from advisor.ladder.flips import flips
from advisor.ladder.moves import visible_cards
from advisor.ladder.request import check_request, on_machine
from advisor.ladder.rules import findings
from advisor.ladder.rungs import climb
from advisor.ladder.situation import Situation
from advisor.ladder.snippet import snippet
from advisor.ladder.verdict import decide, why_not
from advisor.stacks import echo_defaults
from advisor.units import format_count
from advisor.values import Advice, DType, GpuSpec, ModelSpec, ModelSummary, Plan, Request


def advise(model: ModelSpec, gpu: GpuSpec, request: Request) -> Advice:
    """Every rung priced on the card, the verdict, what was noticed, what would change it, and the plan as code.

    With a method asked for, the answer holds that rung alone; the others are still priced, to say what fits instead.
    """
    check_request(request)
    gpu = on_machine(gpu, request)
    case, asked = Case(model, gpu), request
    request = with_sized_rank(model, asked)
    rungs, missing = climb(case, request)
    verdict = decide(case, request, rungs)
    situation = Situation(case, request, rungs, verdict)
    known_flips = flips(situation)
    shown = rungs if request.method is None else (situation.rung(request.method),)
    chosen = situation.chosen
    return Advice(
        model=summary_of(model),
        gpu=gpu,
        n_gpus=request.gpus or 1,
        assumptions=(
            *model.taken_as,
            *filter(None, (gpu.resolved_from,)),
            *_sized(asked, request),
            *missing,
            *echo_defaults(model, gpu, request),
        ),
        verdict=verdict,
        rungs=tuple(rung.model_copy(update={"why_not": why_not(case, request, rung, verdict)}) for rung in shown),
        findings=findings(situation),
        would_change=tuple(flip.sentence for flip in known_flips),
        next_experiment=next_experiment(situation, known_flips),
        next_evidence=experiment_evidence(situation),
        snippet=_started(request, chosen.plan) + snippet(model, chosen.plan, request.task) if chosen is not None else "",
    )


def _started(request: Request, plan: Plan) -> str:
    """How the plan is kept to its cards where there are more."""
    if plan.n_gpus == (request.gpus or 1):
        return ""
    return f"# start with {visible_cards(plan.n_gpus)}: {plan.n_gpus} of the {request.gpus} GPUs\n"


def _sized(asked: Request, request: Request) -> tuple[str, ...]:
    """That the rank was chosen by the data."""
    if asked.rank == request.rank or request.dataset_tokens is None:
        return ()
    return (f"rank: {request.rank}, sized to {format_count(request.dataset_tokens)} tokens",)


def summary_of(model: ModelSpec) -> ModelSummary:
    """What the answer says of the model."""
    return ModelSummary(
        id=model.id,
        architecture=model.architecture,
        params=model.params,
        layers=model.layers,
        hidden_size=model.hidden_size,
        weights_16bit_bytes=model.params * DType.BF16.size_bytes,
        source=model.source,
    )
