"""A compiled recording: the events of a training step, with sizes as formulas in micro-batch and length, and where they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from advisor.tape.breakdown import Replay, phases_of, term_of
from advisor.tape.layout import Layout, Stretch, lay_out_events, stretches_of
from advisor.tape.peaks import Growing, Peaks, peaks_of
from advisor.tape.sizes import Shape, Size
from advisor.tape.stream import GIVEN, LOADED, STEP, Stream
from advisor.tape.written import Repetition, Written, long_stream, write_out
from advisor.values import Phase, Term

GRID_TOKENS = 128
"""Kernels round lengths up to multiples of this at most (advisor/dryrun/kernels.py, `_flash_backward`), so that sizes are polynomials among
lengths that leave the same rest."""
WORKSPACE = "workspace"
"""Kind of the births whose size is the card's, not the shape's."""
GRADIENTS = "gradients"
WEIGHTS, ADAPTER = "weights", "adapter"
LENGTH = "{length}"
"""Stands in a note for the tokens of a row."""


@dataclass(frozen=True, slots=True)
class Regime:
    """The shapes that a tape speaks for: bounds of rows, of tokens a row and of tokens in all, all inclusive, each met by a recording.

    What a library or a kernel does otherwise from some size on, it does by one of the three; a shape between recordings that did
    the same lies on the same side of every such bound.
    """

    least: tuple[int, int, int]
    most: tuple[int, int, int]
    rest: int
    """Rest of the length modulo `GRID_TOKENS`."""

    def covers(self, shape: Shape) -> bool:
        sides = (shape.rows, shape.tokens, shape.total_tokens)
        inside = all(least <= side <= most for least, side, most in zip(self.least, sides, self.most, strict=True))
        return inside and shape.tokens % GRID_TOKENS == self.rest


class Beside(NamedTuple):
    """What something else than the step holds on the card: bytes of storages that are made once the model is loaded."""

    passing: tuple[int, ...] = ()
    """One after the other, each of which stays until the next but one is made."""
    staying: tuple[int, ...] = ()
    """To the end, for gradients."""


NOTHING = Beside()


@dataclass(frozen=True)
class Tape:
    """One training run of a few steps, for every shape of its regime and every card whose kernels are the same."""

    stream: Stream
    """The events of the short model; sizes are those of one shape."""
    formula_of: tuple[int, ...]
    """Which formula gives the size of each birth; one past the last for a workspace, whose size is the card's."""
    formulas: tuple[Size, ...]
    repetition: Repetition
    layer_path: str
    regime: Regime
    versions: Mapping[str, str]

    @cached_property
    def _written(self) -> Written:
        return write_out(self.stream, self.repetition)

    @cached_property
    def _stretches(self) -> tuple[Stretch, ...]:
        phases = self.stream.phases
        return stretches_of([phases[index] for index in self._written.sources], self._written.marks)

    @cached_property
    def _formulas_written(self) -> list[int]:
        return [self.formula_of[index] for index in self._written.births]

    @cached_property
    def _terms(self) -> list[Term]:
        """What each storage of the long stream is for."""
        terms: dict[int, Term] = {}  # a tape that was read has one object for all births that differ in their number alone
        for born in self.stream.births:
            if id(born) not in terms:
                terms[id(born)] = term_of(born, self.layer_path)
        short = [terms[id(born)] for born in self.stream.births]
        return [short[index] for index in self._written.births]

    @property
    def events(self) -> list[int]:
        """The long stream's events."""
        return self._written.events

    def _sizes(self, shape: Shape, workspace_bytes: int) -> list[int]:
        monomials = shape.monomials
        return [*(formula.at(monomials) for formula in self.formulas), workspace_bytes]

    def at(self, shape: Shape, workspace_bytes: int) -> Stream:
        """The stream of the whole model at a shape inside the regime, on a card whose cuBLAS handle takes `workspace_bytes`."""
        sizes = self._sizes(shape, workspace_bytes)
        births = [replace(born, size_bytes=sizes[index]) for born, index in zip(self.stream.births, self.formula_of, strict=True)]
        return long_stream(replace(self.stream, births=births), self._written)

    def lay_out(self, shape: Shape, workspace_bytes: int) -> Layout:
        """What `layout.lay_out` says of `at(shape, workspace_bytes)`."""
        sizes = self._sizes(shape, workspace_bytes)
        return lay_out_events(self.events, [sizes[index] for index in self._formulas_written], self._stretches)

    @cached_property
    def _loaded_at(self) -> int:
        """The event of the long stream before which the model is loaded."""
        phases = self.stream.phases
        return next(at for at, source in enumerate(self._written.sources) if phases[source] is not Phase.LOAD)

    @cached_property
    def _replays(self) -> dict[tuple[Shape, int, Beside], Replay]:
        return {}

    def replay(self, shape: Shape, workspace_bytes: int, beside: Beside = NOTHING) -> Replay:
        """What the stream at a shape takes, with what is `beside` it; kept, because an answer asks for the same plan several times."""
        key = (shape, workspace_bytes, beside)
        if key not in self._replays:
            sizes = self._sizes(shape, workspace_bytes)
            played = _Played(self.events, [sizes[index] for index in self._formulas_written], self._terms, self._stretches)
            if any(beside):
                played = self._with(played, beside)
            layout = lay_out_events(played.events, played.sizes, played.stretches)
            phases = phases_of(played.events, played.terms, layout)
            notes = tuple(note.replace(LENGTH, f"{shape.tokens:,}") for note in self.stream.notes)
            self._replays[key] = Replay(phases, layout.peak_reserved_bytes, self.versions, notes)
        return self._replays[key]

    def _with(self, played: _Played, beside: Beside) -> _Played:
        """The long stream with storages that are made when the model is loaded, and all that are made later numbered after them."""
        at = self._loaded_at
        before = sum(signed > 0 for signed in played.events[:at])
        added = [*_one_after_the_other(before, len(beside.passing))]
        more = len(beside.passing) + len(beside.staying)
        added += range(before + len(beside.passing) + 1, before + more + 1)
        later = (signed + more if signed > before else signed - more if signed < -before else signed for signed in played.events[at:])
        phases = [self.stream.phases[source] for source in self._written.sources]
        marks = [(index + len(added) if index >= at else index, text) for index, text in self._written.marks]
        return _Played(
            [*played.events[:at], *added, *later],
            [*played.sizes[:before], *beside.passing, *beside.staying, *played.sizes[before:]],
            [
                *played.terms[:before],
                *[Term.TEMPORARIES] * len(beside.passing),
                *[Term.GRADIENTS] * len(beside.staying),
                *played.terms[before:],
            ],
            stretches_of([*phases[:at], *[Phase.LOAD] * len(added), *phases[at:]], marks),
        )

    @cached_property
    def gradient_bytes(self) -> int:
        """Of all gradients that one step makes, which no shape changes."""
        stream, monomials = self.stream, Shape(*self.regime.least[:2]).monomials
        made_bytes = 0
        for run, times in self.repetition.times().items():
            for signed in stream.events[run.start : run.stop]:
                if signed > 0 and stream.births[signed - 1].kind == GRADIENTS:
                    made_bytes += times * self.formulas[self.formula_of[signed - 1]].at(monomials)
        steps = sum(mark == STEP for _, mark in stream.marks)
        return made_bytes // max(steps, 1)

    @cached_property
    def parameters(self) -> tuple[tuple[str, int], ...]:
        """Weights and adapters once the model is loaded, in the order in which they came: how each is held, in words, and its bytes without
        scales."""
        births, monomials = self.stream.births, Shape(*self.regime.least[:2]).monomials
        alive: dict[int, tuple[str, str, int]] = {}
        for signed, source in zip(self.events, self._written.sources, strict=True):
            if self.stream.phases[source] is not Phase.LOAD:
                break
            if signed < 0:
                alive.pop(-signed, None)
                continue
            number = self.stream.events[source] - 1
            born = births[number]
            if born.kind in (WEIGHTS, ADAPTER):
                held = born.kind if born.op in (LOADED, GIVEN) else born.op
                alive[signed] = born.owner, held, self.formulas[self.formula_of[number]].at(monomials)
        return tuple((held, size) for _, held, size in _largest_of_each(alive.values()))

    @cached_property
    def peaks(self) -> Peaks:
        """The most that can be alive at once, for every shape of the regime."""
        return self.peaks_in([*map(Growing, self.formulas)])

    def peaks_in(self, sizes: Sequence[Growing]) -> Peaks:
        """The same with other formulas, which may grow with the rank."""
        return peaks_of(self.events, self._formulas_written, sizes, Shape(*self.regime.least[:2]))

    def peak_bytes(self, shape: Shape, workspace_bytes: int) -> int:
        """Most bytes that are alive at once, as they were asked for: what a card allocates is never less."""
        return self.peaks.bytes_at(shape, workspace_bytes)


class _Played(NamedTuple):
    """A stream as an allocator plays it."""

    events: list[int]
    sizes: list[int]
    terms: list[Term]
    stretches: tuple[Stretch, ...]


def _one_after_the_other(before: int, count: int) -> Iterator[int]:
    """Births and deaths of `count` storages after the first `before`, of which two are there at a time."""
    for number in range(before + 1, before + count + 1):
        if number > before + 2:
            yield -(number - 2)
        yield number
    yield from (-number for number in range(max(before + 1, before + count - 1), before + count + 1))


def _largest_of_each(held: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, str, int]]:
    """The largest of consecutive storages of one owner: a matrix, of those that hold it and its scales."""
    for _, storages in groupby(held, key=itemgetter(0)):
        yield max(storages, key=itemgetter(2))
