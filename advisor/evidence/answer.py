"""The whole answer: the first gate that is open, what is behind it, and what the next experiment changes and costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from advisor.evidence.changes import changes
from advisor.evidence.findings import findings
from advisor.evidence.focus import view_of
from advisor.evidence.gates import open_gates
from advisor.evidence.power import acceptance
from advisor.evidence.pricing import price_of
from advisor.evidence.published import cite
from advisor.evidence.result import Result
from advisor.evidence.view import View
from advisor.values.evidence import Facts
from advisor.values.next_step import Binding, LaterDoor, NextStep


def next_step(facts: Facts) -> NextStep:
    """Return which door next, the constraint that binds, and the one experiment that decides it. A pure function of the facts."""
    view = view_of(facts)
    opened = tuple(open_gates(view))
    first = opened[0]
    there, planned = _onward(view, first)
    run, gain = planned.run, planned.gain
    found = findings(view)
    cited = (*first.evidence, *planned.evidence, *(name for finding in found for name in finding.evidence))
    return NextStep(
        rung=first.door,
        method=run.method if run is not None else None,
        binding=first.binding,
        gate=first.gate,
        confidence=first.confidence,
        reason=first.reason,
        current=there.focus.label if there.focus is not None else "",
        blocked_by=_blocked_by(opened),
        then=_then(opened),
        next_experiment=planned.experiment,
        run=run,
        config_diff=changes(there.focus, run) if run is not None else (),
        accept_if=acceptance(there, planned.keep, gain, run.seeds if run is not None else 1, planned.no_worse) if planned.keep else None,
        expected_gain=gain,
        cost=planned.cost,
        price=price_of(there, run) if run is not None else None,
        disagreement=first.disagreement,
        findings=found,
        missing=tuple(dict.fromkeys((*first.missing, *_unknown(view)))),
        assumptions=tuple(_assumptions(view)),
        facts=cite(cited),
    )


def _onward(view: View, first: Result) -> tuple[View, Result]:
    """The experiment, and the run that it starts from: where a run at hand settles the gate, what comes next from there."""
    if first.go_on_from is None:
        return view, first
    there = View(view.facts, first.go_on_from)
    after = next(result for result in open_gates(there) if result.go_on_from is None)
    return there, replace(after, experiment=f"{first.experiment} From there: {after.experiment}")


CHECKS = frozenset({"R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R14"})
"""Gates that must be closed before a costlier rung."""


def _blocked_by(opened: tuple[Result, ...]) -> tuple[Binding, ...]:
    """Open checks, in order."""
    checks = (result.binding for result in opened if result.gate in CHECKS and result.binding is not Binding.NONE)
    return tuple(dict.fromkeys(checks))


def _then(opened: tuple[Result, ...]) -> LaterDoor | None:
    """The door behind the checks, as far as the same facts can tell."""
    if opened[0].is_door:
        return None
    door = next((result for result in opened if result.is_door), None)
    return None if door is None else LaterDoor(rung=door.door, binding=door.binding, sentence=door.reason)


def _unknown(view: View) -> Iterator[str]:
    """What any answer would be surer with."""
    facts = view.facts
    if facts.model is None:
        yield f"the model's shape ({facts.model_note})" if facts.model_note else "the model"
    elif facts.model.tables is None:
        yield f"the matrices of {facts.model.id}, whose type has no tables: advise trace records what the run takes"
    if view.tokens is None and view.objective != "rl":
        yield "the number of unique training tokens"
    if view.target is None:
        yield "the score that would be good enough"
    if view.focus is None:
        return
    if view.base is None:
        yield "the score of the untuned model"
    if facts.gpu is None:
        yield "the card, for the price"


def _assumptions(view: View) -> Iterator[str]:
    facts = view.facts
    yield from facts.notes
    yield from facts.model.taken_as if facts.model is not None else ()
    if facts.gpu is not None and facts.gpu.resolved_from:
        yield facts.gpu.resolved_from
    if facts.unit is None and view.unit == "percent":
        yield "scores are read as percentages"
    if view.focus is not None and len(facts.runs) > 1 and not facts.current:
        yield f"it goes on from {view.focus.label}, the cheapest run that no other beats beyond the noise"
    if facts.dataset_tokens is None and view.tokens is not None:
        yield f"{view.tokens:,} training tokens, from examples times their mean length"
    if view.noise.shares and view.focus is not None:
        yield f"a run done again moves by {100 * view.noise.floor:g} point (N2); three repeats of one run would replace that"
