"""Facts that cannot all be true. Each refusal names the run and the fields, and says what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from advisor.units import format_share
from advisor.values.vocabulary import Method

if TYPE_CHECKING:
    from advisor.values.evidence import Facts, RunFacts

PERCENT = 100
LARGEST_BATCH = 10**6
"""Sequences of one optimizer step at most, where a run does not say them. Judgement."""
ROUNDING = 0.005
"""Scores are quoted to half a point or better; a score further than that from its own items contradicts them. Judgement."""


def check_run(run: RunFacts) -> None:
    """Raises ValueError where a run contradicts itself."""
    name, method = run.label, run.method
    if run.quantization is not None and method is Method.FULL:
        raise ValueError(f"run {name}: full fine-tuning does not train quantised weights; drop `quantization`")
    if run.quantization is not None and not method.is_quantized:
        raise ValueError(f"run {name}: {method.label} on a quantised base is called Q{method.label}; set method to q{method.value}")
    if run.oom and run.score is not None:
        raise ValueError(f"run {name}: it ran out of memory and yet has a score; drop `oom` or `score`")
    if method is Method.FULL and (run.rank is not None or run.use_rslora):
        raise ValueError(f"run {name}: full fine-tuning has no rank; drop `rank` and `use_rslora`")
    if run.item_ids and len(run.item_ids) != len(run.correct):
        raise ValueError(f"run {name}: {len(run.item_ids)} item_ids for {len(run.correct)} items of `correct`")
    if len(set(run.item_ids)) < len(run.item_ids):
        raise ValueError(f"run {name}: item_ids names an item twice")
    _check_epochs(run)
    if run.correct and run.n is not None and run.n != len(run.correct):
        raise ValueError(f"run {name}: n is {run.n}, but `correct` holds {len(run.correct)} items")


def _check_epochs(run: RunFacts) -> None:
    """A step sees at most one batch: so many epochs need as many examples."""
    if run.epochs is None or run.steps is None:
        return
    most = run.steps * (run.batch or LARGEST_BATCH)
    if run.epochs > most:
        raise ValueError(f"run {run.label}: {run.epochs:g} epochs in {run.steps:,} steps; drop `epochs` or `steps`")


def _check_target(facts: Facts) -> None:
    """A run below the untuned model that reaches the target all the same: then the target is not what is wanted."""
    base, target = facts.evaluation.base, facts.evaluation.target
    if base is None or target is None:
        return
    sign = 1 if facts.evaluation.higher_is_better else -1
    for run in facts.runs:
        if run.score is not None and sign * target <= sign * run.score < sign * base:
            raise ValueError(
                f"evaluation: run {run.label} ({run.score:g}) reaches the target ({target:g}) below the untuned model ({base:g}); "
                "set the target above `base`, or drop one of them"
            )


def check_facts(facts: Facts) -> None:
    """Raises ValueError where the runs contradict each other or the evaluation."""
    ids = [run.id for run in facts.runs if run.id]
    twice = next((name for name, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"runs: two runs are called {twice}; ids must be unique")
    if facts.current and facts.current not in ids:
        known = ", ".join(ids) or "no run has an id"
        raise ValueError(f"current: no run is called {facts.current} ({known})")
    _check_target(facts)
    scale = PERCENT if unit_of(facts) == "percent" else 1
    for run in facts.runs:
        _check_items(run, scale)
    if facts.dataset_tokens and facts.examples and facts.dataset_tokens < facts.examples:
        raise ValueError(f"dataset_tokens: {facts.dataset_tokens:,} tokens in {facts.examples:,} examples is less than one each")


def unit_of(facts: Facts) -> str:
    """ "share", "percent" or "raw"; read off the scores where it is not stated. Raises ValueError where they could be either."""
    if facts.unit is not None:
        _check_bounds(facts, facts.unit.value)
        return facts.unit.value
    scores = [score for _, score in _scores(facts)]
    if all(0 <= score <= 1 for score in scores):
        return "share"
    outside = next((score for score in scores if not 0 <= score <= PERCENT), None)
    if outside is not None:
        raise ValueError(f"unit: {outside:g} is neither a share nor a percentage; set unit to raw for other marks")
    small = next((score for score in scores if 0 < score < 1), None)
    if small is not None:
        large = max(scores)
        raise ValueError(f"unit: {small:g} reads as a share and {large:g} as a percentage; set unit to share or percent")
    return "percent"


def _check_bounds(facts: Facts, unit: str) -> None:
    limit = {"share": 1, "percent": PERCENT}.get(unit)
    if limit is None:
        return
    for name, score in _scores(facts):
        if not 0 <= score <= limit:
            raise ValueError(f"{name}: {score:g} is no {unit}; it must lie between 0 and {limit}")


def _check_items(run: RunFacts, scale: int) -> None:
    if not run.correct or run.score is None:
        return
    share = sum(run.correct) / len(run.correct)
    if abs(share - run.score / scale) > ROUNDING:
        raise ValueError(
            f"run {run.label}: score {run.score:g}, but {format_share(share, 1)} of the items in `correct` are right; drop one of them"
        )


def _scores(facts: Facts) -> Iterator[tuple[str, float]]:
    """Every score with where it stands."""
    for field in ("target", "base"):
        if (score := getattr(facts.evaluation, field)) is not None:
            yield f"evaluation.{field}", score
    for other in facts.other_scores:
        yield f"other_scores: {other.metric}", other.score
        if other.target is not None:
            yield f"other_scores: {other.metric} target", other.target
    if facts.retention_base is not None:
        yield "retention_base", facts.retention_base
    if facts.adapter is not None and facts.adapter.truncated_score is not None:
        yield "adapter.truncated_score", facts.adapter.truncated_score
    for run in facts.runs:
        for field in ("score", "retention"):
            if (score := getattr(run, field)) is not None:
                yield f"run {run.label}: {field}", score
        for point in run.lr_sweep:
            if point.score is not None:
                yield f"run {run.label}: lr_sweep", point.score
        for epoch in run.scores_by_epoch:
            yield f"run {run.label}: scores_by_epoch", epoch.score
