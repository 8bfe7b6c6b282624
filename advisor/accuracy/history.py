"""The history of a card's allocator during one run: every allocation and free in order, each with where it was made, as a small file.

`benchmarks/on_card.py` writes one from `torch.cuda.memory._snapshot()` (torch 2.13 torch/cuda/memory.py says its form); a run on the CPU
writes one from the recorder's stream. This module knows both forms and loads no torch.
"""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError, model_validator

from advisor.accuracy.rows import Measurement
from advisor.errors import InvalidInputError
from advisor.refusals import one_line
from advisor.tape.stream import STEP, Stream
from advisor.user_files import write_whole
from advisor.values import Phase, Value
from advisor.values.vocabulary import Bytes

SUFFIX = ".history.json.gz"
FRAMES_KEPT = 4
"""Innermost Python frames that are kept of each allocation. Judgement: enough to reach the line of the model's code."""
_SEPARATOR = "|"


class Label(NamedTuple):
    """Where an allocation was made."""

    step: int
    """1 for the first; 0 before it."""
    phase: Phase
    module: str = ""
    """Module whose forward ran; empty outside of one."""
    site: str = ""
    """Python frames, innermost first: "modeling_llama.py:180 forward". Or the operator, where a recorder wrote the history."""


class Allocation(NamedTuple):
    size_bytes: int
    """As it was asked for."""
    label: int
    """Index of its label."""


class PhasePeak(Value):
    """The allocator's own counter: the most that it had allocated within a phase, over the steps of the history."""

    phase: Phase
    allocated_bytes: Bytes


class History(Value):
    """One run: what it was, what the allocator counted, and its events."""

    row: Measurement
    """The run, as `profiles/measurements/` says it."""
    config: dict[str, Any] | None = None
    """config.json of a model that has no profile."""
    steps: int
    """Optimizer steps that the events cover, from the first on."""
    peaks: tuple[PhasePeak, ...] = ()
    """Empty where nothing counts but the events themselves."""
    labels: tuple[Label, ...]
    allocations: tuple[Allocation, ...]
    events: tuple[int, ...]
    """+n for the n-th allocation, -n for its free; numbers count from 1."""
    segments: tuple[tuple[int, int], ...] = ()
    """(events before it, bytes): taken from the driver, or given back where negative."""
    made_by: Literal["allocator", "recorder"] = "allocator"

    @property
    def peak_reserved_bytes(self) -> int | None:
        """The most that was taken from the driver; None where nothing tells of it."""
        return max(accumulate(size for _, size in self.segments)) if self.segments else None

    @model_validator(mode="after")
    def _consistent(self) -> History:
        if any(not 1 <= abs(number) <= len(self.allocations) for number in self.events):
            raise ValueError("events: name an allocation that is not there")
        if any(not 0 <= entry.label < len(self.labels) for entry in self.allocations):
            raise ValueError("allocations: name a label that is not there")
        return self


class Events(NamedTuple):
    """The events of a history, before it is known what ran."""

    labels: tuple[Label, ...]
    allocations: tuple[Allocation, ...]
    events: tuple[int, ...]
    segments: tuple[tuple[int, int], ...] = ()


class _Table:
    """Labels in order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[Label, int] = {}

    def number(self, label: Label) -> int:
        return self._numbers.setdefault(label, len(self._numbers))

    @property
    def labels(self) -> tuple[Label, ...]:
        return tuple(self._numbers)


def metadata_of(step: int, phase: Phase, module: str) -> str:
    """What a run sets as the allocator's user metadata, for `from_snapshot` to read back."""
    return _SEPARATOR.join((str(step), phase.value, module))


class Beginning(NamedTuple):
    """When a phase of a step began."""

    time_us: int
    """Since the epoch, as the entries of a snapshot have it."""
    step: int
    phase: Phase


def from_snapshot(entries: Iterable[Mapping[str, Any]], beginnings: Sequence[Beginning] = ()) -> Events:
    """Events of one device's list of `_snapshot()["device_traces"]`, recorded from an empty allocator on.

    Frees count where they are requested, as in `memory_allocated`; frees of what was allocated before the recording are left out. Where
    entries bear no user metadata (older torch), step and phase are told by the time, from `beginnings` in their order, and no module is.
    """
    table, allocations, events, segments = _Table(), list[Allocation](), list[int](), list[tuple[int, int]]()
    live: dict[int, int] = {}
    label = Label(0, Phase.LOAD)
    for entry in entries:
        action, size = entry["action"], int(entry.get("size", 0))
        if action == "alloc":
            label = _label(entry, label, beginnings)
            allocations.append(Allocation(size, table.number(label)))
            live[entry["addr"]] = len(allocations)
            events.append(len(allocations))
        elif action in ("free_requested", "free", "free_completed"):
            number = live.pop(entry["addr"], None)
            if number is not None:
                events.append(-number)
        elif action in ("segment_alloc", "segment_map"):
            segments.append((len(events), size))
        elif action in ("segment_free", "segment_unmap"):
            segments.append((len(events), -size))
    return Events(table.labels, tuple(allocations), tuple(events), tuple(segments))


def _label(entry: Mapping[str, Any], before: Label, beginnings: Sequence[Beginning]) -> Label:
    """From the user metadata, else by the time, else step and phase are those of the allocation before."""
    site = " < ".join(_frame(frame) for frame in [*entry.get("frames", ())][:FRAMES_KEPT])
    step, found, rest = str(entry.get("user_metadata") or "").partition(_SEPARATOR)
    if not found:
        passed = bisect_right(beginnings, int(entry.get("time_us", 0)), key=lambda one: one.time_us)
        now = before if not passed else Label(beginnings[passed - 1].step, beginnings[passed - 1].phase)
        return now._replace(module="", site=site)
    phase, _, module = rest.partition(_SEPARATOR)
    return Label(int(step), Phase(phase), module, site)


def _frame(frame: Mapping[str, Any]) -> str:
    return f"{Path(str(frame['filename'])).name}:{frame['line']} {frame['name']}"


def from_stream(stream: Stream) -> Events:
    """The events that a recorder saw, as a history: module and operator stand for what a card's history tells by frames."""
    table = _Table()
    steps = [index for index, text in stream.marks if text == STEP]
    allocations: dict[int, Allocation] = {}
    events, step = list[int](), 0
    numbers: dict[int, int] = {}
    for index, signed in enumerate(stream.events):
        while step < len(steps) and steps[step] <= index:
            step += 1
        born = stream.births[abs(signed) - 1]
        if not born.size_bytes:
            continue  # an empty storage takes no memory, and no allocator tells of it
        if signed > 0:
            numbers[signed] = len(numbers) + 1
            allocations[signed] = Allocation(born.size_bytes, table.number(Label(step, born.phase, born.place, born.op)))
            events.append(numbers[signed])
        else:
            events.append(-numbers[-signed])
    return Events(table.labels, tuple(allocations.values()), tuple(events))


def write(history: History, path: Path) -> None:
    """Write the file, compressed; it is whole or not there."""
    write_whole(path, gzip.compress(history.model_dump_json(exclude_defaults=True).encode(), mtime=0))


def read(path: Path) -> History:
    """Raises InvalidInputError, one line that names the file, where it cannot be read or is none."""
    try:
        return History.model_validate_json(gzip.decompress(path.read_bytes()))
    except OSError as error:
        raise InvalidInputError(f"{path}: it cannot be read ({error}); `benchmarks/on_card.py` writes such files") from None
    except EOFError:
        raise InvalidInputError(f"{path}: it is cut off; run its line of `benchmarks/on_card.py` again") from None
    except ValidationError as error:
        raise InvalidInputError(f"{path}: it is no history of a run: {one_line(error)}") from None


def files_in(folder: Path) -> tuple[Path, ...]:
    """Histories of a folder and of those in it. Raises InvalidInputError where there are none."""
    found = tuple(sorted(folder.rglob(f"*{SUFFIX}")))
    if not found:
        raise InvalidInputError(f"{folder}: no file *{SUFFIX} is in it; `python benchmarks/on_card.py --out {folder}` writes them")
    return found
