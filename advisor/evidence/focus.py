"""Which run to go on from: the one named; else the newest where it broke; else the cheapest that reaches the target; else the cheapest
rung that no other beats beyond the noise, and on it the better score."""

from __future__ import annotations

from advisor.evidence.alike import same_but
from advisor.evidence.identity import canonical
from advisor.evidence.losses import is_broken
from advisor.evidence.view import COST, View
from advisor.values import Method
from advisor.values.evidence import Facts, RunFacts


def view_of(facts: Facts) -> View:
    """Return the facts as the gates read them, every run spelled in one way."""
    known = canonical(facts)
    return View(known, focus_of(View(known)))


def focus_of(view: View) -> RunFacts | None:
    """Return the run to go on from; None where there is none."""
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
    reaching = [run for run in scored if _reaches(view, run)]
    best = max(scored, key=lambda run: view.score(run) or 0.0)
    unbeaten = reaching or [run for run in scored if run is best or not view.beats(run, best)]
    cheapest = min(COST[run.method] for run in unbeaten)
    return _of_one_rung(view, [run for run in unbeaten if COST[run.method] == cheapest])


def _of_one_rung(view: View, runs: list[RunFacts]) -> RunFacts:
    """The better score among runs of one rank; a higher rank must lead by a standard error."""
    found: RunFacts | None = None
    for rank in sorted({run.rank or 0 for run in runs}):
        best = max((run for run in runs if (run.rank or 0) == rank), key=lambda run: view.score(run) or 0.0)
        difference = None if found is None else view.compare(found, best)
        if difference is None or difference.leads:
            found = best
    assert found is not None
    return found


def _reaches(view: View, run: RunFacts) -> bool:
    """At the target, unless the target was taken from this run."""
    score = view.score(run)
    return view.target is not None and score is not None and (score > view.target or (score == view.target and run.method.has_adapter))


def _failed(run: RunFacts) -> bool:
    """The newest run did not end: that is what the question is about."""
    return run.oom or (run.score is None and (run.diverged or is_broken(run)))


def _candidates(view: View) -> list[RunFacts]:
    """Without controls: runs on a part of the data, full fine-tuning beside adapters, one 16-bit twin of a 4-bit run.

    One that reaches the target is no control. A full run that beats a tuned adapter is believed where the doors are (R12).
    """
    runs = [run for run in view.facts.runs if not run.oom]
    whole = max((run.data_fraction for run in runs), default=1.0)
    kept = [run for run in runs if run.data_fraction == whole]
    if any(run.method.has_adapter for run in kept):
        kept = [run for run in kept if run.method is not Method.FULL or _reaches(view, run)]
    sixteen = [run for run in kept if not run.method.is_quantized]
    twin = sixteen[0] if len(sixteen) == 1 else None
    if twin is not None and not _reaches(view, twin) and any(is_twin(run, twin) for run in kept):
        kept = [run for run in kept if run is not twin]
    return kept


def is_twin(quantised: RunFacts, control: RunFacts) -> bool:
    """The same run on a 16-bit base."""
    pairs = {(Method.QLORA, Method.LORA), (Method.QDORA, Method.DORA)}
    same_data = quantised.data_fraction == control.data_fraction
    return (quantised.method, control.method) in pairs and same_data and same_but(quantised, control, "method", "quantization", "init")
