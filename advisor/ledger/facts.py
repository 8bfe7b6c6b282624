"""The ledger as the facts that the next step is decided on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advisor.errors import AdvisorError, InvalidInputError
from advisor.ledger.book import Held, ledger_path, load
from advisor.names import tokens
from advisor.refusals import one_line
from advisor.values.card import GpuSpec
from advisor.values.evidence import AdapterFacts, EvaluationFacts, Facts, OtherScore, RunFacts
from advisor.values.model import ModelSpec
from advisor.values.run import Evaluation, RunRecord


def facts_from_ledger(path: str | Path | None = None, *, model: str = "", metric: str = "", current: str = "") -> Facts:
    """Return what the ledger at `path` knows of one project, as `facts_from_records`. Raises InvalidInputError where it holds no run."""
    place, held = recorded(path)
    return facts_from_records(place, held.runs, problem=held.problem, model=model, metric=metric, current=current)


def recorded(path: str | Path | None) -> tuple[Path, Held]:
    """Return where the ledger is, and what it holds. Raises InvalidInputError where it holds none."""
    place = ledger_path(path)
    held = load(place)
    if not held.runs:
        raise InvalidInputError(f"{place} holds no runs yet: record one with advise record")
    return place, held


def facts_from_records(
    place: Path, records: Sequence[RunRecord], *, model: str = "", metric: str = "", current: str = "", problem: str = ""
) -> Facts:
    """Return the records of one project as facts.

    `model` and `metric` choose among several; left out, they are those of the newest run that names one. `current` is the number of the
    run to go on from. What was read from one adapter, or scored on other benchmarks, is given for the current run, or for the only one.
    `problem` is what of the ledger could not be read.
    """
    model = model or _newest(records, "model") or ""
    same = {name: is_same_model(name, model) for record in records if (name := record.model) is not None and model}
    kept = [record for record in records if same.get(record.model or "", True)]
    left_out = ", ".join(sorted(name for name, is_same in same.items() if not is_same))
    others = f"{len(records) - len(kept)} runs of {left_out} are left out" if left_out else ""
    notes = tuple(filter(None, (problem, others)))
    metric = metric or _newest_metric(kept)
    return _facts(place, kept, model, metric, current).model_copy(update={"notes": notes})


def is_same_model(first: str, second: str) -> bool:
    """Whether two names are one model: its short name, its Hub id in any case, or the end of a path."""
    return first == second or tokens(first.rstrip("/").rpartition("/")[2]) == tokens(second.rstrip("/").rpartition("/")[2])


def _facts(place: Path, records: Sequence[RunRecord], model: str, metric: str, current: str) -> Facts:
    runs = [record for record in records if record.kind == "training" and _has_ended(record)]
    spec, note = _model(model)
    focus = next((run for run in runs if str(run.id) == current), runs[0] if len(runs) == 1 else None)
    known: dict[str, Any] = {
        "model": spec,
        "model_note": note,
        "gpu": _gpu(_newest(records, "gpu")),
        "n_gpus": _newest(records, "gpus") or 1,
        "task": _newest(records, "task"),
        "dataset_tokens": _newest(records, "dataset_tokens") or _unique_tokens(runs),
        "examples": _newest(records, "examples"),
        "evaluation": _evaluation(records, metric),
        "runs": tuple(_run(place, run, metric) for run in runs),
        "current": current,
    }
    if focus is not None:
        known |= {"adapter": _adapter(focus, metric), "other_scores": tuple(_others(focus, metric))}
    retained = _last(entry for record in records if record.kind == "base" for entry in record.evaluations if entry.retention)
    if retained is not None:
        known |= {"retention_base": retained.score, "retention_n": retained.n}
    try:
        return Facts(**known)
    except ValidationError as error:
        raise InvalidInputError(f"{place}: {one_line(error)}") from None


def _has_ended(record: RunRecord) -> bool:
    return not record.unfinished or bool(record.oom) or record.final_score is not None


def _newest(records: Sequence[RunRecord], field: str) -> Any:
    return next((value for record in reversed(records) if (value := getattr(record, field)) is not None), None)


def _newest_metric(records: Sequence[RunRecord]) -> str:
    return next((record.final_score.metric for record in reversed(records) if record.final_score is not None), "")


def _unique_tokens(runs: Sequence[RunRecord]) -> int | None:
    """Tokens seen, once over the data: of the newest whole run that counted them."""
    for run in reversed(runs):
        if run.tokens is not None and run.epochs is not None and run.data_fraction in (None, 1.0):
            return max(1, round(run.tokens / max(1.0, run.epochs)))
    return None


def _model(name: str) -> tuple[ModelSpec | None, str]:
    if not name:
        return None, ""
    from advisor.hub import load_model

    try:
        return load_model(name), ""
    except AdvisorError as error:
        return None, f"the shape of {name} is not known: {error}"


def _gpu(name: str | None) -> GpuSpec | None:
    if name is None:
        return None
    from advisor.devices import load_gpu

    try:
        return load_gpu(name)
    except AdvisorError:  # a card without a profile is no reason to refuse; memory is then not priced
        return None


def _evaluation(records: Sequence[RunRecord], metric: str) -> EvaluationFacts:
    scored = [(record, entry) for record in records for entry in record.evaluations if entry.metric == metric and not entry.retention]
    entries = [entry for _, entry in scored]
    base = _last(entry for record, entry in scored if record.kind == "base")
    return EvaluationFacts(
        metric=metric,
        n=_last(entry.n for entry in entries if entry.n is not None),
        standard_error=_last(entry.standard_error for entry in entries if entry.standard_error is not None),
        target=_last(entry.target for entry in entries if entry.target is not None),
        base=None if base is None else base.score,
        higher_is_better=entries[-1].higher_is_better if entries else True,
    )


def _last(values: Any) -> Any:
    found = list(values)
    return found[-1] if found else None


def _run(place: Path, record: RunRecord, metric: str) -> RunFacts:
    if record.method is None:
        raise InvalidInputError(f"{place}: run {record.label} has no method; say it with advise record --run {record.id} --method lora")
    final = _final(record, metric)
    right_or_wrong = final is not None and set(final.items) <= {0.0, 1.0}
    try:
        return RunFacts(
            id=str(record.id),
            method=record.method,
            rank=record.rank,
            alpha=record.alpha,
            use_rslora=bool(record.use_rslora),
            init=record.init or "",
            targets=record.target_modules,
            dropout=record.dropout,
            quantization=record.quantization,
            precision=record.precision,
            adapter_params=record.adapter_params,
            learning_rate=record.learning_rate,
            lr_tuned=bool(record.lr_tuned),
            batch=record.sequences_per_step,
            steps=record.steps,
            epochs=record.epochs,
            data_fraction=record.data_fraction or 1.0,
            seq_len=record.seq_len,
            micro_batch=record.batch_size,
            gradient_checkpointing=record.checkpointing,
            seed=record.seed,
            **_curves(record),
            **({} if final is None else {"score": final.score, "n": final.n}),
            **({"correct": tuple(map(bool, final.items)), "item_ids": final.item_ids} if final is not None and right_or_wrong else {}),
            scores_by_epoch=_by_epoch(record, metric),
            retention=_last(entry.score for entry in record.evaluations if entry.retention),
        )
    except ValidationError as error:
        raise InvalidInputError(f"{place}: run {record.label}: {one_line(error)}") from None


def _curves(record: RunRecord) -> dict[str, Any]:
    return {
        "train_losses": record.train_losses,
        "eval_losses": record.eval_losses,
        "diverged": record.has_diverged,
        "oom": bool(record.oom),
        "peak_bytes": record.peak_bytes,
    }


def _final(record: RunRecord, metric: str) -> Evaluation | None:
    return next((entry for entry in reversed(record.evaluations) if entry.metric == metric and entry.is_final), None)


def _by_epoch(record: RunRecord, metric: str) -> tuple[tuple[float, float], ...]:
    scores = {entry.epoch: entry.score for entry in record.evaluations if entry.metric == metric and entry.epoch is not None}
    final = _final(record, metric)
    if final is not None and record.epochs is not None:
        scores[record.epochs] = final.score
    return tuple(sorted(scores.items()))


def _adapter(record: RunRecord, metric: str) -> AdapterFacts | None:
    """What an inspection showed, with the score of the adapter cut to a lower rank."""
    cut = _last(entry for entry in record.evaluations if entry.truncated_rank is not None and entry.metric == metric)
    rank = record.adapter.rank if record.adapter is not None else record.rank
    if rank is None or (record.adapter is None and cut is None):
        return None
    known = record.adapter or AdapterFacts(rank=rank)
    return known if cut is None else known.model_copy(update={"truncated_rank": cut.truncated_rank, "truncated_score": cut.score})


def says_more(record: RunRecord, metric: str) -> bool:
    """Whether a run knows what belongs to it alone: how its adapter looks, or other scores than those of the metric."""
    return _adapter(record, metric) is not None or bool(_others(record, metric))


def _others(record: RunRecord, metric: str) -> Sequence[OtherScore]:
    last = {entry.metric: entry for entry in record.evaluations if entry.is_final}
    return [OtherScore(metric=name, score=entry.score, target=entry.target, n=entry.n) for name, entry in last.items() if name != metric]
