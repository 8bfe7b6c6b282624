"""One reading beside its prediction, and the error that a run leaves to the intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import computed_field

from advisor.accuracy.intervals import Residual
from advisor.accuracy.rows import Metric
from advisor.memory.kinds import Kind
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
