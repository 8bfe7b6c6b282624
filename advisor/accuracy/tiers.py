"""The two ways to predict a measured run: the closed form, and the dry run under that run's own library versions.

A dry run speaks for the libraries that are installed, so that old runs are traced each under its own (`benchmarks/trace_measured.py`)
and what came out is kept in `profiles/measurements/traced/`, one file per set of versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advisor import profiles
from advisor.accuracy.rows import Measurement
from advisor.bounded import children, is_folder, place
from advisor.dryrun import peft_config_of, trace
from advisor.errors import UnsupportedError
from advisor.json_files import read_json
from advisor.memory import estimate_memory
from advisor.memory.chance import with_chance
from advisor.memory.intervals import interval, interval_of
from advisor.memory.kinds import FREED, KEPT, Kind, kind_of
from advisor.memory.runtime import context_of
from advisor.memory.slack import kept_logits_bytes
from advisor.values import GpuSpec, MemoryBreakdown, ModelSpec, PhaseBytes, Plan, Stack, Value

if TYPE_CHECKING:
    from advisor.dryrun.dry_run import Trace

CLOSED_FORM = "estimate"
DRY_RUN = "trace"


@dataclass(frozen=True, slots=True)
class MeasuredPlan:
    """A measured run with everything that a prediction of it needs, at one length."""

    row: Measurement
    model: ModelSpec
    plan: Plan
    gpu: GpuSpec


class Traced(Value):
    """What a dry run of a measured run found, at one length."""

    id: str
    seq_len_tokens: int
    versions: dict[str, str]
    phases: tuple[PhaseBytes, ...]
    reserved_slack_bytes: int


def closed_form(ran: MeasuredPlan) -> MemoryBreakdown:
    """Raises UnsupportedError for an adapter that no plan says."""
    if ran.row.peft_config:
        raise UnsupportedError(f"{ran.row.id}: {ran.row.peft_config['peft_type']} is not one of the priced methods")
    memory = estimate_memory(ran.model, ran.plan, ran.gpu)
    own = interval(CLOSED_FORM, kind_of_run(ran, memory), memory.interval.context_bytes)
    less = 0 if ran.row.loop.keep_outputs else not_kept_bytes(ran.model, ran.plan)
    return memory.model_copy(update={"interval": own, "reserved_slack_bytes": memory.reserved_slack_bytes - less})


def not_kept_bytes(model: ModelSpec, plan: Plan) -> int:
    """What the closed form counts for outputs that a loop of one's own keeps, to be taken off where one does not."""
    return kept_logits_bytes(model, plan, plan.micro_batch_size * plan.seq_len_tokens)


def kind_of_run(ran: MeasuredPlan, memory: MemoryBreakdown) -> Kind:
    """The kind of what ran, with what its loop did that no plan says. A dry run under other versions than the run's own is of theirs; the
    closed form names none, so that its prediction is of the kind that the run's libraries make it."""
    kind = kind_of(ran.model, ran.plan, ran.gpu, memory.versions or ran.row.versions)
    return with_outputs(kind, ran.plan, ran.row.loop.keep_outputs)


def with_outputs(kind: Kind, plan: Plan, keep_outputs: bool) -> Kind:
    """`kind`, knowing what a loop of one's own does with its outputs."""
    return kind._replace(outputs=KEPT if keep_outputs else FREED) if plan.stack is Stack.PLAIN else kind


def dry_run(ran: MeasuredPlan, progress: Callable[[str], None] = lambda _: None) -> MemoryBreakdown:
    """Under the installed libraries. A run that mixed lengths is traced up to the one that was read.

    Raises UnsupportedError for settings that a dry run does not run: several cards, for one.
    """
    return traced_run(ran.row, ran.model, ran.plan, ran.gpu, progress).breakdown


def traced_run(
    row: Measurement, model: ModelSpec, plan: Plan, gpu: GpuSpec | None, progress: Callable[[str], None] = lambda _: None
) -> Trace:
    """The dry run of what a row says that ran, in its loop; of a cut where the row is of one."""
    loop = row.loop
    lengths = tuple(length for length in loop.lengths_tokens if length <= plan.seq_len_tokens)
    return trace(
        model,
        plan,
        progress=progress,
        peft_config=peft_config_of(row.peft_config, row.id) if row.peft_config else None,
        gpu=gpu,
        layers=row.layers,
        lengths=lengths if len(lengths) > 1 else (),
        **loop.model_dump(exclude={"lengths_tokens"}),
    )


Recorded = Mapping[tuple[str, int], Traced]


def recorded_in(rows: str | Path | None = None) -> Recorded:
    """The dry runs that `benchmarks/trace_measured.py` left beside a file of rows, or beside those of `profiles/measurements/`."""
    folder = profiles.ROOT / "measurements" / "traced" if rows is None else place(rows).parent / "traced"
    found = [Traced.model_validate(row) for path in _json_files(folder) for row in read_json(path)]
    return {(row.id, row.seq_len_tokens): row for row in found}


def _json_files(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in children(folder) if path.suffix == ".json") if is_folder(folder) else ()


def recorded_dry_run(recorded: Recorded, ran: MeasuredPlan) -> MemoryBreakdown:
    """As it was found. Raises UnsupportedError for a run that was not traced."""
    found = recorded.get((ran.row.id, ran.plan.seq_len_tokens))
    if found is None:
        raise UnsupportedError(f"{ran.row.id}: no dry run is recorded")
    memory = MemoryBreakdown(
        source="trace",
        versions=found.versions,
        phases=found.phases,
        reserved_slack_bytes=found.reserved_slack_bytes,
        context_bytes=context_of(ran.gpu.compute_capability).context_bytes,
        interval=interval_of(DRY_RUN, ran.model, ran.plan, ran.gpu, found.versions),
    )
    return with_chance(memory, ran.model, ran.plan, ran.gpu)
