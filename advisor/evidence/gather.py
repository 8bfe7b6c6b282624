"""Gather the facts that a next step is asked on: from a value, a file, or the ledger."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advisor.bounded import exists, place
from advisor.errors import InvalidInputError
from advisor.evidence.focus import view_of
from advisor.evidence.read import facts_from, read_facts, with_more
from advisor.ledger import ledger_path
from advisor.ledger.facts import facts_from_records, recorded, says_more
from advisor.values.evidence import Facts


def gathered(facts: Facts | Mapping[str, Any] | str | Path | None, ledger: str | Path | None, more: Mapping[str, Any]) -> Facts:
    """Facts as a value, a mapping or a file, or those of the ledger, with the fields of `more` in place of theirs.

    Raises InvalidInputError where there is nothing to go on from.
    """
    if facts is not None and ledger is not None:
        raise InvalidInputError("--facts and --ledger: give one of them")
    if facts is None and (ledger is not None or exists(ledger_path())):
        with _uncollected():
            return with_more(_of_ledger(ledger, more), more)
    if facts is None:
        if not more:
            raise InvalidInputError(
                "there is nothing to go on from: record a run with advise record, or give --facts, or a run by its flags"
            )
        return facts_from(more)
    given = facts if isinstance(facts, Facts) else facts_from(facts) if isinstance(facts, Mapping) else read_facts(place(facts))
    return with_more(given, more) if more else given


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage among values that are all kept: it would go through a ledger's again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _of_ledger(ledger: str | Path | None, more: Mapping[str, Any]) -> Facts:
    named = {"model": more.get("model", "") if isinstance(more.get("model", ""), str) else "", "metric": _metric(more)}
    place, held = recorded(ledger)
    facts = facts_from_records(place, held.runs, problem=held.problem, current=more.get("current", ""), **named)
    if named["model"] and not facts.runs:
        raise InvalidInputError(f"{place} holds no run of {named['model']}: name the model as it was recorded")
    if facts.current or len(facts.runs) == 1 or not any(says_more(record, facts.evaluation.metric) for record in held.runs):
        return facts
    focus = view_of(facts).focus
    if focus is None:
        return facts
    # What belongs to one run alone is that of the run to go on from, which only the evidence can choose.
    own = facts_from_records(place, [record for record in held.runs if str(record.id) == focus.id], current=focus.id, **named)
    return facts.model_copy(update={"adapter": own.adapter, "other_scores": own.other_scores})


def _metric(more: Mapping[str, Any]) -> str:
    return str(more.get("evaluation", {}).get("metric", ""))
