"""Writes a tape as facts and columns of whole numbers, and reads it back: what is kept in a file or shipped in the wheel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

from advisor.tape.packing import Part
from advisor.tape.sizes import Size
from advisor.tape.stream import Birth, Stream
from advisor.tape.tape import Regime, Tape
from advisor.tape.written import Name, NotRepeatable, Repetition, Run
from advisor.values import Phase

_PHASES = tuple(Phase)
_ORIGIN = ("op", "place", "kind", "owner", "died_in", "phase", "died_phase")
"""What is told of a birth beside its size: texts and phases by their numbers, -1 for the phase of a storage that does not die."""


class _Numbered:
    """What is written once, and named by its number."""

    def __init__(self) -> None:
        self.found: dict[Any, int] = {}

    def number(self, thing: Any) -> int:
        return self.found.setdefault(thing, len(self.found))


def part_of(tape: Tape) -> Part:
    """The tape as it is written. Births that differ in their number alone are rows of one list; a death is told by how many births ago its
    storage was born."""
    stream, repetition = tape.stream, tape.repetition
    strings, origins = _Numbered(), _Numbered()
    columns: dict[str, Sequence[int]] = {
        "events": [*_ages(stream.events)],
        "places": [strings.number(place) for place in stream.places],
        "births": [origins.number(_row(born, strings)) for born in stream.births],
        "formula_of": tape.formula_of,
        "likes": [*_steps(name.like for name in repetition.names)],
        "layers": [name.layer for name in repetition.names],
        "relative": [name.relative for name in repetition.names],
    }
    columns |= {f"origin_{field}": column for field, column in zip(_ORIGIN, _turned(origins.found), strict=True)}
    facts = {
        "strings": [*strings.found],
        "phases": [[_PHASES.index(phase), len([*events])] for phase, events in groupby(stream.phases)],
        "marks": stream.marks,
        "formulas": [[*formula.factors, formula.divisor] for formula in tape.formulas],
        "runs": repetition.runs,
        "order": repetition.order,
        "notes": stream.notes,
        "layer_path": tape.layer_path,
        "regime": regime_as_list(tape.regime),
        "versions": dict(tape.versions),
    }
    return Part(facts, columns)


def _turned(rows: Iterable[tuple[int, ...]]) -> list[Sequence[int]]:
    return [*zip(*rows, strict=True)] or [()] * len(_ORIGIN)


def _row(born: Birth, strings: _Numbered) -> tuple[int, ...]:
    texts = [strings.number(text) for text in (born.op, born.place, born.kind, born.owner, born.died_in)]
    died_phase = -1 if born.died_phase is None else _PHASES.index(born.died_phase)
    return (*texts, _PHASES.index(born.phase), died_phase)


def tape_in(part: Part) -> Tape:
    """The tape that `part_of` wrote; `check` tells whether its lists belong together.

    Raises ValueError, TypeError, KeyError or IndexError for what cannot be a tape.
    """
    facts, columns = part
    strings = facts["strings"]
    if not all(isinstance(text, str) for text in strings):
        raise ValueError("strings: a text is none")
    births = _chosen(_origins(columns, strings), columns["births"])
    phases = [phase for number, count in map(_whole, facts["phases"]) for phase in [_PHASES[number]] * count]
    stream = Stream(
        births=births,
        events=_signed(columns["events"], len(births)),
        places=_chosen(strings, columns["places"]),
        phases=phases,
        marks=[(_natural(at), str(text)) for at, text in facts["marks"]],
        notes=tuple(map(str, facts["notes"])),
    )
    names = zip(accumulate(columns["likes"]), columns["layers"], map(bool, columns["relative"]), strict=True)
    return Tape(
        stream=stream,
        formula_of=tuple(columns["formula_of"]),
        formulas=tuple(Size(tuple(row[:-1]), row[-1]) for row in map(_whole, facts["formulas"])),
        repetition=Repetition(
            tuple(Run(*row) for row in map(_whole, facts["runs"])),
            tuple(map(Name._make, names)),
            tuple(_whole(facts["order"])),
        ),
        layer_path=str(facts["layer_path"]),
        regime=regime_in(facts["regime"]),
        versions={str(name): str(version) for name, version in facts["versions"].items()},
    )


def regime_as_list(regime: Regime) -> list[int]:
    """The shapes that a tape speaks for, as they are written."""
    return [*regime.least, *regime.most, regime.rest]


def regime_in(numbers: Any) -> Regime:
    """What `regime_as_list` wrote."""
    one, two, three, most_one, most_two, most_three, rest = _whole(numbers)
    return Regime((one, two, three), (most_one, most_two, most_three), rest)


def check(tape: Tape) -> Tape:
    """Return the tape. Raises ValueError where its lists do not belong together."""
    events, deep = len(tape.stream.events), tape.repetition
    runs = deep.runs
    whole = (
        len(tape.stream.places) == len(tape.stream.phases) == len(deep.names) == events,
        len(tape.formula_of) == len(tape.stream.births),
        all(0 <= number <= len(tape.formulas) for number in tape.formula_of),
        all(len(formula.factors) == 6 and formula.divisor > 0 for formula in tape.formulas),
        [run.start for run in runs] + [events] == [0] + [run.stop for run in runs],
        all(run.start < run.stop and -1 <= run.layer <= max(deep.order, default=-1) for run in runs),
    )
    if not all(whole):
        raise ValueError("a tape whose lists do not belong together")
    try:
        tape.events  # noqa: B018 (written out now, so that what does not belong together shows)
    except (NotRepeatable, IndexError) as error:
        raise ValueError(str(error)) from error
    return tape


def _origins(columns: Mapping[str, Sequence[int]], strings: list[str]) -> list[Birth]:
    """The different births, of no size."""
    texts = [_chosen(strings, columns[f"origin_{field}"]) for field in _ORIGIN[:5]]
    phases = _chosen([*_PHASES], columns["origin_phase"])
    died_phases = _chosen([None, *_PHASES], [number + 1 for number in columns["origin_died_phase"]])
    return [
        Birth(0, op, place, phase, kind, owner, died_in, died_phase)
        for op, place, kind, owner, died_in, phase, died_phase in zip(*texts, phases, died_phases, strict=True)
    ]


def _chosen(of: list[Any], numbers: Sequence[int]) -> list[Any]:
    """The rows that a column names."""
    if min(numbers, default=0) < 0:
        raise ValueError("a negative number is no place in a list")
    return [of[number] for number in numbers]


def _ages(events: Sequence[int]) -> Iterator[int]:
    """0 for a birth; for a death how many births ago, from 1."""
    births = 0
    for signed in events:
        if signed > 0:
            births += 1
            yield 0
        else:
            yield births + signed + 1


def _signed(ages: Sequence[int], storages: int) -> list[int]:
    births, events = 0, []
    for age in ages:
        if age == 0:
            births += 1
            events.append(births)
        elif 0 < age <= births:
            events.append(age - births - 1)
        else:
            raise ValueError("events: a storage dies that was not born")
    if births != storages:
        raise ValueError("events: a storage that is not there")
    return events


def _steps(values: Iterable[int]) -> Iterator[int]:
    """Differences from one value to the next, which repeat where the values do not."""
    before = 0
    for value in values:
        yield value - before
        before = value


def _whole(values: Any) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError("a list of whole numbers is none")
    return values


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no place in a list")
    return value
