"""A tape that speaks for a family of models: events recorded once, sizes as formulas in the models' dimensions, any number of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import NamedTuple

from advisor.tape import columns
from advisor.tape.compile import NotOneFormula, Recording, of_any_length, regime_of, repetition
from advisor.tape.growth import Fitting, Growth, Point, Product, in_blocks
from advisor.tape.packing import Part
from advisor.tape.peaks import Growing, Peaks
from advisor.tape.sizes import Size
from advisor.tape.stream import LOADED, QUANTISED, WARM_UP, Birth
from advisor.tape.tape import WORKSPACE, Tape

Scales = tuple[Fraction, ...]


class WarmUp(NamedTuple):
    """The block that transformers takes for the whole model before it loads one quantised: what its weights will take."""

    formula: int
    """Its place among the formulas."""
    share: Fraction
    """What a quantised weight counts of its bytes in 16 or 32 bit."""


@dataclass(frozen=True)
class FamilyTape:
    """The tape of a family's first model, and how its sizes grow with the models' dimensions."""

    tape: Tape
    growths: tuple[Growth, ...]
    """Of each formula of the tape."""
    warm_up: WarmUp | None = None

    def of(self, scales: Scales, order: tuple[int, ...] | None = None) -> Tape:
        """The tape of a model whose dimensions are larger by `scales`, and whose layers are of that order (`Cut.order`), or of the first
        model's. Raises ValueError where a size would be no whole number of bytes."""
        tape = self.tape
        formulas = [growth.of(scales) for growth in self.growths]
        deep = tape.repetition
        if order is not None and deep.order:
            deep = replace(deep, order=order)
        made = replace(tape, formulas=tuple(formulas), repetition=deep)
        if self.warm_up is not None:
            formulas[self.warm_up.formula] = Size((_warm_up_bytes(made, self.warm_up.share), 0, 0, 0, 0, 0))
        return replace(made, formulas=tuple(formulas))

    def peaks_of(self, scales: Scales, order: tuple[int, ...] | None, rank: int | None) -> Peaks:
        """The most that can be alive at once in the step of such a model, for every rank; `scales` are without the rank's. `rank` is the
        one that the family was recorded at, None where its plans have none.

        Raises ValueError where what a rank adds is no multiple of it.
        """
        tape = self.of(scales if rank is None else (*scales, Fraction(1)), order)
        sizes = [*map(Growing, tape.formulas)]
        if rank is not None:
            for number, growth in enumerate(self.growths):
                if self.warm_up is None or number != self.warm_up.formula:
                    sizes[number] = Growing(*growth.by_rank(scales, rank))
        return tape.peaks_in(sizes)


def _warm_up_bytes(tape: Tape, share: Fraction) -> int:
    """Of all weights of the whole model."""
    total = Fraction(0)
    stream = tape.stream
    for run, times in tape.repetition.times().items():
        for signed in stream.events[run.start : run.stop]:
            op = stream.births[signed - 1].op if signed > 0 else ""
            if op in (LOADED, QUANTISED):
                total += times * tape.formulas[tape.formula_of[signed - 1]].factors[0] * (share if op == QUANTISED else 1)
    return floor(total)


def grown(recordings: Sequence[Recording], scales: Sequence[Scales], share: Fraction, versions: Mapping[str, str]) -> FamilyTape:
    """The tape of a family, from recordings of models whose dimensions are larger than the first's by `scales`. `share` is what a quantised
    weight counts in the loader's warm-up.

    Raises NotOneFormula where the recordings differ in more than their sizes, or where a size follows no formula; NotRepeatable where the
    short model's do not stand for the whole.
    """
    first = recordings[0]
    structure = first.structure
    if any(recording.structure != structure for recording in recordings[1:]):
        raise NotOneFormula("the recordings differ in their events")
    points = [Point(recording.shape, scale) for recording, scale in zip(recordings, scales, strict=True)]
    deep = repetition(first)
    growths, formula_of, warm_up = _growths(recordings, points, share)
    dimensions = len(scales[0])
    ones = (Fraction(1),) * dimensions
    births = [replace(born, size_bytes=0) for born in first.stream.births]
    notes = tuple(of_any_length(note, first.shape) for note in first.stream.notes)
    tape = Tape(
        stream=replace(first.stream, births=births, notes=notes),
        formula_of=formula_of,
        formulas=tuple(growth.of(ones) for growth in growths),
        repetition=deep,
        layer_path=first.layer_path,
        regime=regime_of([recording.shape for recording in recordings]),
        versions=dict(versions),
    )
    family = FamilyTape(tape, growths, warm_up)
    _check_warm_up(family, recordings, scales)
    return replace(family, tape=family.of(ones))


def _growths(
    recordings: Sequence[Recording], points: Sequence[Point], share: Fraction
) -> tuple[tuple[Growth, ...], tuple[int, ...], WarmUp | None]:
    """The different formulas, which each birth has, and which of them is the warm-up's."""
    fitting = Fitting(points)
    births = recordings[0].stream.births
    sizes = list(zip(*([born.size_bytes for born in recording.stream.births] for recording in recordings), strict=True))
    numbers: dict[tuple[int, ...], int] = {}
    growths: list[Growth] = []
    found: list[tuple[Growth, tuple[int, ...]]] = []
    unknown: dict[tuple[int, ...], Birth] = {}
    warm_up_sizes: tuple[int, ...] | None = None
    for born, at_points in zip(births, sizes, strict=True):
        if born.op == WARM_UP:
            warm_up_sizes = at_points
        elif born.kind != WORKSPACE and at_points not in numbers and at_points not in unknown:
            growth = fitting.fitted(at_points)
            if growth is None:
                unknown[at_points] = born
                continue
            numbers[at_points] = len(growths)
            growths.append(growth)
            found.append((growth, at_points))
    for at_points, born in unknown.items():
        growth = in_blocks(at_points, found)
        if growth is None:
            raise NotOneFormula(f"{born.op} in {born.place or born.owner}: its sizes {at_points} follow no formula")
        numbers[at_points] = len(growths)
        growths.append(growth)
    warm_up = None
    if warm_up_sizes is not None:
        warm_up = WarmUp(len(growths), share)
        growths.append(Growth(()))
    last = len(growths)

    def formula(born: Birth, at_points: tuple[int, ...]) -> int:
        if born.kind == WORKSPACE:
            return last
        return warm_up.formula if warm_up is not None and born.op == WARM_UP else numbers[at_points]

    return tuple(growths), tuple(formula(born, at_points) for born, at_points in zip(births, sizes, strict=True)), warm_up


def _check_warm_up(family: FamilyTape, recordings: Sequence[Recording], scales: Sequence[Scales]) -> None:
    """Raises NotOneFormula where the loader's block is not what the weights say."""
    if family.warm_up is None:
        return
    for recording, scale in zip(recordings, scales, strict=True):
        made = family.of(scale).formulas[family.warm_up.formula].factors[0]
        recorded = next(born.size_bytes for born in recording.stream.births if born.op == WARM_UP)
        if made != recorded:
            raise NotOneFormula(f"the loader's warm-up takes {recorded} bytes, not {made}")


def part_of(family: FamilyTape) -> Part:
    """The tape as it is written."""
    part = columns.part_of(family.tape)
    growths = [
        [
            growth.unit_bytes,
            growth.per,
            *([part.factor.numerator, part.factor.denominator, part.monomial, *part.powers] for part in growth.parts),
        ]
        for growth in family.growths
    ]
    warm_up = family.warm_up and [family.warm_up.formula, family.warm_up.share.numerator, family.warm_up.share.denominator]
    return Part({**part.facts, "growths": growths, "warm_up": warm_up}, part.columns)


def family_in(part: Part) -> FamilyTape:
    """The tape that `part_of` wrote. Raises ValueError, TypeError, KeyError or IndexError for anything else."""
    growths = tuple(
        Growth(tuple(Product(Fraction(of[0], of[1]), of[2], tuple(of[3:])) for of in products), unit_bytes, per)
        for unit_bytes, per, *products in part.facts["growths"]
    )
    warm_up = part.facts["warm_up"] and WarmUp(part.facts["warm_up"][0], Fraction(*part.facts["warm_up"][1:]))
    return FamilyTape(columns.tape_in(part), growths, warm_up)
