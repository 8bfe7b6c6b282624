"""Which run to go on from: the one named; else the newest where it broke; else the cheapest one that no other beats beyond the noise."""

from __future__ import annotations

from advisor.evidence.losses import is_broken
from advisor.evidence.view import COST, View, same_but
from advisor.values import Method
from advisor.values.evidence import Facts, RunFacts


def view_of(facts: Facts) -> View:
    """The facts as the gates read them."""
    return View(facts, focus_of(View(facts)))


def focus_of(view: View) -> RunFacts | None:
    runs = view.facts.runs
    if view.facts.current:
        return next(run for run in runs if run.id == view.facts.current)
    if not runs:
        return None
    if _failed(runs[-1]):
        return runs[-1]
    scored = [run for run in _candidates(view) if view.score(run) is not None]
    if not scored:
        return runs[-1]
    best = max(scored, key=lambda run: (view.score(run) or 0.0, -runs.index(run)))
    unbeaten = [run for run in scored if run is best or not view.beats(run, best)]
    return min(unbeaten, key=lambda run: (COST[run.method], run.rank or 0, -(view.score(run) or 0.0), runs.index(run)))


def _failed(run: RunFacts) -> bool:
    """The newest run did not end: that is what the question is about."""
    return run.oom or (run.score is None and (run.diverged or is_broken(run)))


def _candidates(view: View) -> list[RunFacts]:
    """Without controls: runs on a part of the data, a full fine-tuning beside adapters, one 16-bit twin of a 4-bit run."""
    runs = [run for run in view.facts.runs if not run.oom]
    whole = max((run.data_fraction for run in runs), default=1.0)
    kept = [run for run in runs if run.data_fraction == whole]
    if any(run.method.has_adapter for run in kept):
        kept = [run for run in kept if run.method is not Method.FULL]
    sixteen = [run for run in kept if not run.method.is_quantized]
    if len(sixteen) == 1 and any(is_twin(run, sixteen[0]) for run in kept):
        kept = [run for run in kept if run is not sixteen[0]]
    return kept


def is_twin(quantised: RunFacts, control: RunFacts) -> bool:
    """The same run on a 16-bit base."""
    pairs = {(Method.QLORA, Method.LORA), (Method.QDORA, Method.DORA)}
    same_data = quantised.data_fraction == control.data_fraction
    return (quantised.method, control.method) in pairs and same_data and same_but(quantised, control, "method", "quantization", "init")
