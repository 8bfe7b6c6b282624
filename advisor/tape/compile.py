"""Makes a tape of recordings of one kind of plan at a few shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from advisor.tape.cut import Cut
from advisor.tape.repeat import repetition_of
from advisor.tape.sizes import Shape, Size, fitted
from advisor.tape.stream import Stream
from advisor.tape.tape import GRID_TOKENS, LENGTH, WORKSPACE, Regime, Tape
from advisor.tape.written import Repetition, unrepeated


@dataclass(frozen=True)
class Recording:
    """A stream recorded at one shape; of a short model, and how that was cut, or of the whole one."""

    shape: Shape
    stream: Stream
    layer_path: str
    cut: Cut | None

    @cached_property
    def structure(self) -> tuple[object, ...]:
        """All of the stream but its sizes."""
        stream = self.stream
        births = [(born.op, born.place, born.phase, born.kind, born.owner, born.died_in, born.died_phase) for born in stream.births]
        return (stream.events, stream.places, stream.phases, stream.marks, births, self.layer_path, self.cut)


class NotOneFormula(Exception):
    """The recordings are not of one regime: their events differ, or a size follows no formula."""


def repetition(recording: Recording) -> Repetition:
    """How the recording stands for the whole model. Raises NotRepeatable."""
    if recording.cut is None:
        return unrepeated(recording.stream)
    return repetition_of(recording.stream, recording.cut, recording.layer_path)


def compiled(recordings: Sequence[Recording], versions: Mapping[str, str]) -> Tape:
    """The tape that gives back each recording exactly, for all shapes within their bounds; a single recording, for
    its shape alone.

    Raises NotOneFormula where the recordings do not belong together, NotRepeatable where the short model's do not stand for the whole.
    """
    first = recordings[0]
    structure = first.structure
    if any(recording.structure != structure for recording in recordings[1:]):
        raise NotOneFormula("the recordings differ in their events")
    formulas, formula_of = _formulas(recordings)
    births = [replace(born, size_bytes=0) for born in first.stream.births]
    return Tape(
        stream=replace(first.stream, births=births, notes=tuple(of_any_length(note, first.shape) for note in first.stream.notes)),
        formula_of=formula_of,
        formulas=formulas,
        repetition=repetition(first),
        layer_path=first.layer_path,
        regime=regime_of([recording.shape for recording in recordings]),
        versions=dict(versions),
    )


def of_any_length(note: str, shape: Shape) -> str:
    """A note that names the length of its recording, written so that a replay names its own."""
    return note.replace(f"{shape.tokens:,} tokens", f"{LENGTH} tokens")


def _formulas(recordings: Sequence[Recording]) -> tuple[tuple[Size, ...], tuple[int, ...]]:
    """The different formulas, and which each birth has."""
    shapes = [recording.shape for recording in recordings]
    births = recordings[0].stream.births
    sizes = list(zip(*([born.size_bytes for born in recording.stream.births] for recording in recordings), strict=True))
    numbers: dict[tuple[int, ...], int] = {}
    formulas: list[Size] = []
    for born, of_shapes in zip(births, sizes, strict=True):
        if of_shapes in numbers or born.kind == WORKSPACE:
            continue
        formula = fitted(shapes, of_shapes) if len(shapes) > 1 else Size((of_shapes[0], 0, 0, 0, 0, 0))
        if formula is None:
            raise NotOneFormula(f"{born.op} in {born.place or born.owner}: its size follows no formula")
        numbers[of_shapes] = len(formulas)
        formulas.append(formula)
    last = len(formulas)
    formula_of = tuple(last if born.kind == WORKSPACE else numbers[of_shapes] for born, of_shapes in zip(births, sizes, strict=True))
    return tuple(formulas), formula_of


def regime_of(shapes: Sequence[Shape]) -> Regime:
    sides = [(shape.rows, shape.tokens, shape.total_tokens) for shape in shapes]
    rests = {shape.tokens % GRID_TOKENS for shape in shapes}
    if len(rests) > 1:
        raise NotOneFormula(f"lengths of different rests modulo {GRID_TOKENS}")
    least, most = (tuple(side(values) for values in zip(*sides, strict=True)) for side in (min, max))
    return Regime((least[0], least[1], least[2]), (most[0], most[1], most[2]), rests.pop())
