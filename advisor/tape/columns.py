"""Writes a tape as plain lists, and reads it back with every value checked: what is kept in a file or shipped in the wheel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from advisor.tape.sizes import Size
from advisor.tape.stream import Birth, Stream
from advisor.tape.tape import Regime, Tape
from advisor.tape.written import Name, NotRepeatable, Repetition, Run
from advisor.values import Phase

_PHASES = tuple(Phase)


class _Strings:
    """Texts by number: each is written once."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))


def as_columns(tape: Tape) -> dict[str, Any]:
    """The tape as JSON can hold it; a death is written as how many births ago its storage was born."""
    strings, stream = _Strings(), tape.stream
    births = [_row(born, strings) for born in stream.births]
    names = tape.repetition.names
    return {
        "events": [*_ages(stream.events)],
        "places": [strings.number(place) for place in stream.places],
        "phases": [*_steps(_PHASES.index(phase) for phase in stream.phases)],
        "marks": [[index, text] for index, text in stream.marks],
        "births": _columns(births, 7),
        "formula_of": list(tape.formula_of),
        "formulas": [[*formula.factors, formula.divisor] for formula in tape.formulas],
        "runs": [list(run) for run in tape.repetition.runs],
        "order": list(tape.repetition.order),
        "likes": [*_steps(name.like for name in names)],
        "layers": [name.layer for name in names],
        "relative": [int(name.relative) for name in names],
        "notes": list(stream.notes),
        "strings": list(strings.texts),
        "layer_path": tape.layer_path,
        "regime": [*tape.regime.least, *tape.regime.most, tape.regime.rest],
        "versions": dict(tape.versions),
    }


def _row(born: Birth, strings: _Strings) -> list[int]:
    texts = [strings.number(text) for text in (born.op, born.place, born.kind, born.owner, born.died_in)]
    died_phase = -1 if born.died_phase is None else _PHASES.index(born.died_phase)
    return [*texts, _PHASES.index(born.phase), died_phase]


def from_columns(data: dict[str, Any], trusted: bool = False) -> Tape:
    """The tape that `as_columns` wrote. Raises ValueError, TypeError, KeyError or IndexError for anything else; where it is `trusted`, for
    what is no tape at all."""
    strings = data["strings"]
    if not all(isinstance(text, str) for text in strings):
        raise ValueError("strings: a text is none")
    whole = _as_it_is if trusted else _whole
    births = [_birth(row, strings) for row in zip(*map(whole, data["births"]), strict=True)]
    events = [*_signed(whole(data["events"]), len(births))]
    phases = [_PHASES[number] for number in _naturals(_sums(whole(data["phases"])), trusted)]
    places = [strings[number] for number in _naturals(data["places"], trusted)]
    marks = [(_natural(at), str(text)) for at, text in data["marks"]]
    stream = Stream(births, events, places, phases, marks, tuple(map(str, data["notes"])))
    formulas = tuple(Size(tuple(row[:-1]), row[-1]) for row in map(whole, data["formulas"]))
    names = zip(_sums(whole(data["likes"])), whole(data["layers"]), map(bool, data["relative"]), strict=True)
    runs = tuple(Run(*row) for row in map(_whole, data["runs"]))
    tape = Tape(
        stream=stream,
        formula_of=tuple(whole(data["formula_of"])),
        formulas=formulas,
        repetition=Repetition(runs, tuple(map(Name._make, names)), tuple(_whole(data["order"]))),
        layer_path=str(data["layer_path"]),
        regime=regime_in(data),
        versions={str(name): str(version) for name, version in data["versions"].items()},
    )
    if not trusted:
        _check(tape)
    return tape


def regime_in(data: dict[str, Any]) -> Regime:
    """The shapes that a written tape speaks for."""
    regime = _whole(data["regime"])
    return Regime((regime[0], regime[1], regime[2]), (regime[3], regime[4], regime[5]), regime[6])


def _check(tape: Tape) -> None:
    """Raises ValueError where the lists do not belong together."""
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


def _birth(row: tuple[int, ...], strings: list[str]) -> Birth:
    op, place, kind, owner, died_in, phase, died_phase = row
    if min(row) < -1 or min(row[:6]) < 0:
        raise ValueError(f"{min(row)} is no place in a list")
    died = None if died_phase < 0 else _PHASES[died_phase]
    return Birth(0, strings[op], strings[place], _PHASES[phase], strings[kind], strings[owner], strings[died_in], died)


def _ages(events: Sequence[int]) -> Iterator[int]:
    """0 for a birth; for a death how many births ago, from 1."""
    births = 0
    for signed in events:
        if signed > 0:
            births += 1
            yield 0
        else:
            yield births + signed + 1


def _signed(ages: Sequence[int], storages: int) -> Iterator[int]:
    births = 0
    for age in ages:
        births += age == 0
        signed = births if age == 0 else -(births - age + 1)
        if not 0 < abs(signed) <= storages or age < 0:
            raise ValueError("events: a storage that is not there")
        yield signed


def _steps(values: Iterable[int]) -> Iterator[int]:
    """Differences from one value to the next, which repeat where the values do not."""
    before = 0
    for value in values:
        yield value - before
        before = value


def _sums(steps: Iterable[int]) -> Iterator[int]:
    total = 0
    for step in steps:
        total += step
        yield total


def _columns(rows: list[list[int]], width: int) -> list[list[int]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _whole(values: Any) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError("a list of whole numbers is none")
    return values


def _as_it_is(values: Any) -> Any:
    return values


def _naturals(values: Iterable[Any], trusted: bool) -> Iterable[int]:
    return values if trusted else map(_natural, values)


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no place in a list")
    return value
