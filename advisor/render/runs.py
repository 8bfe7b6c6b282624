"""The ledger as a table, one run as a list, and what was just recorded as a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.render import words
from advisor.render.blocks import Block, Column, Span, Text, bullets, entries, paragraph, table
from advisor.units import format_count, gib
from advisor.values.evidence import LossPoint
from advisor.values.run import Evaluation, RunRecord

NO_RUNS = "No runs are recorded here yet: advise record adds one."

_COLUMNS = (
    Column("#", ">"),
    Column("run"),
    Column("learning\nrate", ">"),
    Column("epochs", ">"),
    Column("train\nloss", ">"),
    Column("eval\nloss", ">"),
    Column("score", ">"),
    Column("n", ">"),
    Column("peak\nGiB", ">"),
    Column("remarks"),
)


def runs(records: Sequence[RunRecord]) -> Iterator[Block]:
    """One line a run: losses are the last ones, the score the last of the whole adapter at the end."""
    if not records:
        yield paragraph(NO_RUNS)
        return
    metrics = {record.final_score.metric for record in records if record.final_score is not None}
    models = {record.model for record in records if record.model}
    yield table(_COLUMNS, [_row(record, len(metrics) > 1, len(models) > 1) for record in records])
    same = [f"score: {metric}" for metric in metrics if len(metrics) == 1 and metric]
    same += [f"model: {model}" for model in models if len(models) == 1]
    if same:
        yield paragraph("; ".join(same), "dim")


def _row(record: RunRecord, name_metric: bool, name_model: bool) -> tuple[Text, ...]:
    final = record.final_score
    remarks = [*_states(record), record.name, record.model or "" if name_model else "", final.metric if final and name_metric else ""]
    return (
        str(record.id or "-"),
        _method(record),
        _rate(record),
        "-" if record.epochs is None else f"{record.epochs:.3g}",
        _last(record.train_losses),
        _last(record.eval_losses),
        "-" if final is None else f"{final.score:.4g}",
        "-" if final is None or final.n is None else str(final.n),
        "-" if record.peak_bytes is None else gib(record.peak_bytes),
        Span("; ".join(filter(None, remarks)), "yellow" if _states(record) else ""),
    )


def _method(record: RunRecord) -> str:
    if record.kind == "base":
        return "untuned"
    name = record.method.label if record.method is not None else "?"
    return name if record.rank is None else f"{name} r{record.rank}"


def _rate(record: RunRecord) -> str:
    return "-" if record.learning_rate is None else f"{record.learning_rate:.3g}"


def _last(points: Sequence[LossPoint]) -> str:
    return f"{points[-1].loss:.3f}" if points else "-"


def _states(record: RunRecord) -> list[str]:
    states = {
        "out of memory": record.oom,
        "diverged": record.has_diverged,
        "unfinished": record.unfinished and not record.oom,
        "untrained modules": record.adapter is not None and record.adapter.untrained_modules,
    }
    return [name for name, holds in states.items() if holds]


def run(record: RunRecord) -> Iterator[Block]:
    """Everything that is known of one run."""
    yield entries(_known(record), "bold")


def _known(record: RunRecord) -> Iterator[tuple[str, str]]:
    yield "run", f"{record.label}, recorded {record.recorded_at or 'now'}"
    if _states(record):
        yield "state", ", ".join(_states(record))
    yield "method", _method(record)
    for field, value in record.model_dump(mode="json", exclude_defaults=True).items():
        if field not in _SHOWN_OTHERWISE:
            yield field.replace("_bytes", "").replace("_", " "), _value(field, value)
    for name, points in (("train losses", record.train_losses), ("eval losses", record.eval_losses)):
        if points:
            yield name, f"{len(points)} points, from {points[0].loss:.4g} to {points[-1].loss:.4g} at step {points[-1].step:g}"
    for evaluation in record.evaluations:
        yield "score", _score(evaluation)
    if record.adapter is not None:
        half = record.adapter.energy_at_half
        yield "adapter", "untrained" if half is None else f"half the rank holds {half:.3f} of the energy"
    for note in record.notes:
        yield "note", note


_SHOWN_OTHERWISE = frozenset(
    {"id", "recorded_at", "name", "kind", "method", "rank", "plan", "train_losses", "eval_losses", "evaluations", "adapter", "notes"}
    | {"oom", "diverged", "unfinished"}
)


def _value(field: str, value: object) -> str:
    if field.endswith("_bytes") and isinstance(value, int):
        return words.size(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, int) and not isinstance(value, bool) and field in ("tokens", "dataset_tokens", "adapter_params"):
        return format_count(value)
    return str(value)


def _score(evaluation: Evaluation) -> str:
    parts = [f"{evaluation.metric or 'score'} {evaluation.score:.4g}"]
    parts += [f"on {evaluation.n:,} items" if evaluation.n else "on an unknown number of items"]
    parts += ["with each item's result"] if evaluation.items else []
    parts += [f"at epoch {evaluation.epoch:g}"] if evaluation.epoch is not None else []
    parts += [f"cut to rank {evaluation.truncated_rank}"] if evaluation.truncated_rank is not None else []
    parts += [f"target {evaluation.target:g}"] if evaluation.target is not None else []
    parts += ["retention"] if evaluation.retention else []
    return ", ".join(parts)


def recorded(records: Sequence[RunRecord], ledger: str) -> Iterator[Block]:
    """What was stored, and what should be known of it."""
    for record in records:
        yield paragraph(f"Run {record.label} in {ledger}: {_summary(record)}.")
        yield bullets(_remarks(record))


def _summary(record: RunRecord) -> str:
    final = record.final_score
    parts = [_method(record)]
    parts += [f"learning rate {_rate(record)}"] if record.learning_rate is not None else []
    parts += [f"{record.steps:,} steps"] if record.steps is not None else []
    parts += [f"train loss {_last(record.train_losses)}"] if record.train_losses else []
    parts += [f"eval loss {_last(record.eval_losses)}"] if record.eval_losses else []
    parts += [_score(final)] if final is not None else []
    return "; ".join([*parts, *_states(record)])


def _remarks(record: RunRecord) -> Iterator[str]:
    broken = next((point for point in (*record.train_losses, *record.eval_losses) if not point.is_finite), None)
    if broken is not None:
        yield f"the loss is {broken.loss} at step {broken.step:g}: kept as it is, the run counts as diverged"
    if record.kind == "training" and record.method is None:
        yield f"the method is not known: say it with advise record --run {record.id} --method lora"
    final = record.final_score
    if final is not None and final.n is None:
        yield f"how many items the score stands on is not known: advise record --run {record.id} with --metric, --score and --n"
    yield from record.notes
