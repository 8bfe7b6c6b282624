"""Lay a dry run's events beside the history that a card's allocator kept of the same run, and explain what their peaks differ by.

Events are aligned section by section (a step's forward, backward, update) by size, as the allocator rounds it, and order. What then is
left over on one side is an allocation that this side alone makes; what both make in another order is paired by size. The peak's difference
is the sum of what one side alone holds there, of what both make and one side keeps longer, and of blocks that were larger than asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import computed_field

from advisor.accuracy import history as histories
from advisor.accuracy.history import Events, History
from advisor.accuracy.pairing import Moment, Pairing, Side, pair
from advisor.accuracy.plans import plan_of
from advisor.accuracy.tiers import traced_run
from advisor.errors import UnsupportedError
from advisor.tape.breakdown import module_name, term_of
from advisor.tape.stream import Birth
from advisor.values import ModelSpec, Phase, Value
from advisor.values.memory import Computed

if TYPE_CHECKING:
    from advisor.dryrun.dry_run import Trace

CARD_ALONE, TRACE_ALONE = "on the card alone", "in the dry run alone"
LONGER_ON_CARD, LONGER_IN_TRACE = "lives longer on the card", "lives longer in the dry run"
BLOCKS = "blocks larger than asked for"


class Place(NamedTuple):
    """Where allocations of one kind were made."""

    phase: Phase
    module: str
    """Layers of a kind together; empty outside of modules."""
    site: str
    """Operator in a dry run, Python frames on a card."""
    near: str = ""
    """For what the card alone makes: the operator and module of the dry run just before the first of them."""


class Difference(Value):
    """Allocations of one kind that one side alone makes, over the whole history."""

    where: str
    place: Place
    count: int
    bytes: int
    largest_bytes: int


class PeakPart(Value):
    """One reason why the peaks differ."""

    why: str
    term: str
    """What the dry run takes it for; empty for what it does not know."""
    place: Place | None
    count: int
    bytes: int
    """Card less dry run."""


class PhaseBeside(Computed):
    """Highest allocated moment of one phase on both sides."""

    phase: Phase
    card_bytes: int
    trace_bytes: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def relative_error(self) -> float:
        """Dry run over card, less one."""
        return self.trace_bytes / self.card_bytes - 1 if self.card_bytes else 0.0


class SnapshotReport(Value):
    """One run: its dry run beside the card's own history."""

    id: str
    model: str
    method: str
    gpu: str
    versions: dict[str, str]
    traced_versions: dict[str, str]
    allocations_on_card: int
    allocations_in_trace: int
    matched: int
    """Allocations that both make in the same order."""
    moved: int
    """Allocations that both make in one section, in another order."""
    phases: tuple[PhaseBeside, ...]
    card_reserved_bytes: int | None
    trace_reserved_bytes: int
    peak_phase: Phase
    """The card's; the parts explain the difference of both sides' highest moments in it."""
    parts: tuple[PeakPart, ...]
    """Largest first; they add up to the difference."""
    differences: tuple[Difference, ...]
    """Largest first."""


class NotCompared(Value):
    """A history that has no dry run beside it."""

    id: str
    reason: str


class SnapshotReports(Value):
    """What `advise accuracy --snapshots` found."""

    reports: tuple[SnapshotReport, ...]
    not_compared: tuple[NotCompared, ...]


def reports(folder: str | Path, progress: Callable[[str], None] = lambda _: None) -> SnapshotReports:
    """Compare every history in `folder` with a dry run of its plan under the installed libraries, made now.

    Raises InvalidInputError where a file is none or none is there; a plan that the dry run does not run is listed with the reason.
    """
    found: list[SnapshotReport] = []
    refused: list[NotCompared] = []
    for path in histories.files_in(Path(folder)):
        progress(f"{path.name.removesuffix(histories.SUFFIX)} …")
        held = histories.read(path)
        try:
            found.append(compare(held, traced_for(held)))
        except UnsupportedError as error:
            refused.append(NotCompared(id=_id_of(held), reason=str(error)))
    progress("")
    return SnapshotReports(reports=tuple(found), not_compared=tuple(refused))


def _id_of(held: History) -> str:
    """The run's id in the grid, where it has one: the row's own is long."""
    return str(held.row.stated.get("run", held.row.id))


def traced_for(held: History) -> Trace:
    """The dry run of the plan that a history is of, for as many steps."""
    from advisor.devices import load_gpu

    row = held.row.model_copy(update={"loop": held.row.loop.model_copy(update={"steps": held.steps})})
    gpu = load_gpu(row.card) if row.card else None
    return traced_run(row, _model(held), plan_of(row), gpu)


def _model(held: History) -> ModelSpec:
    from advisor.architectures import spec_from_config
    from advisor.hub import load_model

    if held.config is not None:
        return spec_from_config(held.config, id=held.row.model, source="the history's own config")
    return load_model(held.row.same_shape_as or held.row.model)


def compare(held: History, traced: Trace) -> SnapshotReport:
    """The two laid beside each other; the parts of the peak add up to what the peaks differ by, to the byte."""
    stream, layout = traced.stream, traced.layout
    card = Side(Events(held.labels, held.allocations, held.events))
    trace = Side(histories.from_stream(stream))
    births = [stream.births[signed - 1] for signed in stream.events if signed > 0 and stream.births[signed - 1].size_bytes]
    pairing = pair(card, trace)
    ours, theirs = card.peaks(), trace.peaks()
    counted = {peak.phase: peak.allocated_bytes for peak in held.peaks}
    whole_blocks = held.made_by == "allocator"
    phases = tuple(
        PhaseBeside(
            phase=phase,
            card_bytes=counted.get(phase, ours[phase].bytes),
            trace_bytes=layout.peaks[phase].allocated_bytes if whole_blocks else theirs[phase].bytes,
        )
        for phase in Phase
        if phase in ours and phase in theirs and phase in layout.peaks
    )
    top = max(phases, key=lambda entry: entry.card_bytes)
    explained = _Explained(card, trace, pairing, births, traced.layer_path)
    return SnapshotReport(
        id=_id_of(held),
        model=held.row.model,
        method=held.row.settings.method or "",
        gpu=held.row.gpu,
        versions=held.row.versions,
        traced_versions=traced.versions,
        allocations_on_card=len(card.sizes),
        allocations_in_trace=len(trace.sizes),
        matched=pairing.matched,
        moved=pairing.moved,
        phases=phases,
        card_reserved_bytes=held.peak_reserved_bytes,
        trace_reserved_bytes=layout.peak_reserved_bytes,
        peak_phase=top.phase,
        parts=explained.parts(ours[top.phase], theirs[top.phase], top),
        differences=explained.differences(),
    )


class _Explained:
    """Differences in words of the model."""

    def __init__(self, card: Side, trace: Side, pairing: Pairing, births: Sequence[Birth], layer_path: str) -> None:
        self.card, self.trace, self.births, self.layer_path = card, trace, births, layer_path
        self.pairing, self.to_card = pairing, pairing.to_card

    def on_card(self, number: int) -> Place:
        label = self.card.label(number)
        before = self.pairing.near.get(number)
        near = "" if before is None else " in ".join(filter(None, (self.births[before - 1].op, self.in_trace(before).module)))
        return Place(label.phase, module_name(label.module) if label.module else "", label.site, near)

    def in_trace(self, number: int) -> Place:
        born = self.births[number - 1]
        where = born.owner or born.place
        return Place(born.phase, module_name(where) if where else "", born.op)

    def term(self, number: int) -> str:
        return term_of(self.births[number - 1], self.layer_path).value

    def parts(self, ours: Moment, theirs: Moment, beside: PhaseBeside) -> tuple[PeakPart, ...]:
        """Every storage that one side holds at its peak and the other does not, by kind, and the blocks' surplus."""
        kinds = [*_grouped(self._held_alone(ours, theirs))]
        found = [PeakPart(why=why, term=term, place=place, count=len(sizes), bytes=sum(sizes)) for (why, term), place, sizes in kinds]
        surplus = (beside.card_bytes - ours.bytes) - (beside.trace_bytes - theirs.bytes)
        if surplus:
            found.append(PeakPart(why=BLOCKS, term="", place=None, count=0, bytes=surplus))
        return tuple(sorted(found, key=lambda part: (-abs(part.bytes), part.why, str(part.place))))

    def _held_alone(self, ours: Moment, theirs: Moment) -> Iterator[tuple[tuple[str, str], Place, int]]:
        """What one side holds at its peak and the other does not: why and term, place, card less dry run."""
        for number in sorted(ours.live):
            other = self.pairing.to_trace.get(number)
            if other is None:
                yield (CARD_ALONE, ""), self.on_card(number), self.card.size(number)
            elif other not in theirs.live:
                yield (LONGER_ON_CARD, self.term(other)), self.in_trace(other), self.card.size(number)
        for number in sorted(theirs.live):
            one = self.to_card.get(number)
            if one is None or one not in ours.live:
                why = TRACE_ALONE if one is None else LONGER_IN_TRACE
                yield (why, self.term(number)), self.in_trace(number), -self.trace.size(number)

    def differences(self) -> tuple[Difference, ...]:
        ours = [number for number in range(1, len(self.card.sizes) + 1) if number not in self.pairing.to_trace]
        theirs = [number for number in range(1, len(self.trace.sizes) + 1) if number not in self.to_card]
        alone = [
            *(((CARD_ALONE, ""), self.on_card(number), self.card.size(number)) for number in ours),
            *(((TRACE_ALONE, ""), self.in_trace(number), self.trace.size(number)) for number in theirs),
        ]
        found = [
            Difference(where=where, place=place, count=len(sizes), bytes=sum(sizes), largest_bytes=max(sizes))
            for (where, _), place, sizes in _grouped(alone)
        ]
        return tuple(sorted(found, key=lambda entry: (-entry.bytes, entry.where, str(entry.place))))


def _grouped(entries: Iterable[tuple[tuple[str, str], Place, int]]) -> Iterator[tuple[tuple[str, str], Place, list[int]]]:
    """Sizes of each kind; what is near is told of the first."""
    sizes: dict[tuple[tuple[str, str], Place], list[int]] = defaultdict(list)
    first: dict[tuple[tuple[str, str], Place], Place] = {}
    for kind, place, size in entries:
        key = (kind, place._replace(near=""))
        sizes[key].append(size)
        first.setdefault(key, place)
    for key, found in sizes.items():
        yield key[0], first[key], found
