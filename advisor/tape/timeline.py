"""A recorded step as a trace file, which Perfetto and Chrome's about:tracing draw: memory by term, what is reserved, and the phases.

The format is Google's "Trace Event Format" (JSON object format: complete events "X", counters "C", instants "i" and metadata "M"). A
recording knows the order of what happens and not its time: one microsecond of the file is one event, a storage that is made or freed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from advisor.allocator.caching import DEFAULT_CONFIG, Allocator, AllocatorConfig, Block
from advisor.tape.breakdown import term_of
from advisor.tape.layout import stretches_of
from advisor.tape.stream import EMPTY_CACHE, STEP, Stream

_PROCESS, _PHASES = 1, 1
"""Numbers that group the rows: one process, and one thread whose slices are the phases."""
_CLOCK = "no time: one microsecond is one event of the recording, a storage that is made or freed"
_MARKS = {STEP: "a step begins", EMPTY_CACHE: "torch.cuda.empty_cache()"}


def timeline(stream: Stream, layer_path: str, config: AllocatorConfig = DEFAULT_CONFIG) -> dict[str, Any]:
    """Return the trace file of a recording, ready for JSON; counters are bytes.

    `layer_path` is that of the model's layers, `config` how torch's allocator is set.
    """
    return {"traceEvents": [*_names(), *_events(stream, layer_path, config)], "otherData": {"clock": _CLOCK, "unit": "bytes"}}


def _names() -> Iterator[dict[str, Any]]:
    for kind, name in (("process_name", "memory of one training step, dry-run"), ("thread_name", "phases")):
        yield {"name": kind, "ph": "M", "ts": 0, "pid": _PROCESS, "tid": _PHASES, "args": {"name": name}}


def _events(stream: Stream, layer_path: str, config: AllocatorConfig) -> Iterator[dict[str, Any]]:
    """Slices of the phases, marks, and a counter after every event."""
    terms = [term_of(born, layer_path).value for born in stream.births]
    held: Counter[str] = Counter(dict.fromkeys(terms, 0))
    allocator, blocks = Allocator(config), dict[int, Block]()
    for stretch in stretches_of(stream.phases, stream.marks):
        length = stretch.stop - stretch.start
        yield {"name": stretch.phase.value, "ph": "X", "ts": stretch.start, "dur": length, "pid": _PROCESS, "tid": _PHASES}
        for mark in stretch.marks:
            if mark == EMPTY_CACHE:
                allocator.empty_cache()
            yield {"name": _MARKS.get(mark, mark), "ph": "i", "s": "p", "ts": stretch.start, "pid": _PROCESS, "tid": _PHASES}
        for index in range(stretch.start, stretch.stop):
            signed = stream.events[index]
            number = abs(signed)
            if signed > 0:
                blocks[number] = allocator.malloc(stream.births[number - 1].size_bytes)
                held[terms[number - 1]] += blocks[number].size_bytes
            else:
                held[terms[number - 1]] -= blocks[number].size_bytes
                allocator.free(blocks.pop(number))
            yield _counter("allocated, by term", index, dict(held))
            yield _counter("reserved", index, {"reserved": allocator.reserved_bytes})


def _counter(name: str, index: int, values: dict[str, int]) -> dict[str, Any]:
    return {"name": name, "ph": "C", "ts": index, "pid": _PROCESS, "args": values}
