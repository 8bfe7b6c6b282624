"""One reading beside its prediction, and what many of them say: the errors behind the intervals, by grade, by the release that ran."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import computed_field

from advisor.accuracy.intervals import Residual, median
from advisor.accuracy.rows import Metric
from advisor.memory.kinds import Kind
from advisor.values import Value
from advisor.values.memory import Computed

OF_THE_ALLOCATOR = (Metric.RESERVED, Metric.ALLOCATED)
"""The context beside them is modelled apart, with a margin of its own."""


class Comparison(Computed):
    """One reading beside its prediction. `low_bytes` and `high_bytes` are the interval's shares applied to it."""

    id: str
    group: str
    grade: str
    model: str
    method: str
    gpu: str
    metric: Metric
    what: str
    seq_len_tokens: int
    micro_batch_size: int
    measured_bytes: int
    predicted_bytes: int
    reserved_bytes: int
    """What the allocator reserves by the prediction: what the interval's shares are of."""
    low_bytes: int
    high_bytes: int
    kind: Kind
    """What decides how far the prediction may be off."""
    alike: tuple[str, ...] = ()
    """Models of the same shape whose dry runs an interval may be made of."""
    versions: dict[str, str] = {}
    """Library versions that the prediction speaks for."""
    release: str = ""
    """Release of transformers that the run ran with, where its source states one."""
    apart: str = ""
    """Why it differs from the prediction, where that is known."""
    of_the_plan: bool = True
    """The run is of the plan that was priced: a scatter that is no error of the prediction still belongs into its interval."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def relative_error(self) -> float:
        """Predicted over measured, less one: negative when the prediction is too low."""
        return self.predicted_bytes / self.measured_bytes - 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def inside(self) -> bool:
        return self.low_bytes <= self.measured_bytes <= self.high_bytes


def residuals_of(comparisons: Iterable[Comparison], metrics: Sequence[Metric] = OF_THE_ALLOCATOR) -> tuple[Residual, ...]:
    """Measured less predicted as a share of the reserved bytes, one per run: of the first of `metrics` that the run has, at its longest
    sequence. Runs of another plan are left out."""
    best: dict[str, tuple[tuple[int, int], Comparison]] = {}
    for item in comparisons:
        if not item.of_the_plan or item.metric not in metrics:
            continue
        nearness = (metrics.index(item.metric), -item.seq_len_tokens)
        if item.id not in best or nearness < best[item.id][0]:
            best[item.id] = (nearness, item)
    return tuple(
        Residual(
            id=item.id,
            group=item.group,
            alike=item.alike,
            metric=item.metric.value,
            kind=item.kind,
            share=round((item.measured_bytes - item.predicted_bytes) / item.reserved_bytes, 5),
        )
        for _, item in best.values()
    )


class Summary(Value):
    """Errors of one metric over the rows of one grade, or of one major release."""

    grade: str
    """A, B, or A+B."""
    release: str = ""
    """Major release of transformers whose runs they are, "5.x"; empty for those of all."""
    metric: Metric
    n: int
    median_absolute_error: float
    worst_under: float
    """The most negative relative error; 0 when none is too low."""
    worst_over: float
    share_under: float
    """Share of rows whose prediction is below the measurement."""
    coverage: float
    """Share of rows whose interval holds the measurement."""


def summarise(comparisons: Sequence[Comparison]) -> tuple[Summary, ...]:
    """One summary per grade and metric that has rows, grade A first."""
    summaries = []
    for grade in ("A", "B"):
        for metric in Metric:
            chosen = [item for item in comparisons if (item.grade, item.metric) == (grade, metric)]
            if chosen:
                summaries.append(_summary(grade, metric, chosen))
    return tuple(summaries)


NOT_STATED = "not stated"


def by_release(comparisons: Sequence[Comparison]) -> tuple[Summary, ...]:
    """One summary per major release of transformers and metric, newest first: old libraries say little of today's."""
    names = {item.id: _major(item.release) for item in comparisons}
    summaries = []
    for name in sorted(set(names.values()), key=_newest_first):
        for metric in Metric:
            chosen = [item for item in comparisons if (names[item.id], item.metric) == (name, metric)]
            if chosen:
                summaries.append(_summary("A+B", metric, chosen, name))
    return tuple(summaries)


def _major(release: str) -> str:
    found = re.match(r"\d+", release)
    return f"{found[0]}.x" if found else NOT_STATED


def _newest_first(name: str) -> int:
    return 1 if name == NOT_STATED else -int(name.partition(".")[0])


def _summary(grade: str, metric: Metric, chosen: Sequence[Comparison], release: str = "") -> Summary:
    errors = [item.relative_error for item in chosen]
    return Summary(
        grade=grade,
        release=release,
        metric=metric,
        n=len(errors),
        median_absolute_error=median([abs(error) for error in errors]),
        worst_under=min(*errors, 0.0),
        worst_over=max(*errors, 0.0),
        share_under=sum(error < 0 for error in errors) / len(errors),
        coverage=sum(item.inside for item in chosen) / len(chosen),
    )
