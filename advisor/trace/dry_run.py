"""The dry run: build, run a few steps under the recorder, replay, and say what was held when."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from advisor.trace import breakdown, compat, meta_model, optimizers, step
from advisor.trace.attention import pinned
from advisor.trace.breakdown import Holder
from advisor.trace.layout import Layout, lay_out
from advisor.trace.recorder import Recorder, Stream, collect_garbage
from advisor.values import Interval, MemoryBreakdown, ModelSpec, Phase, Plan

DEFAULT_CONTEXT_BYTES = 450 * 1024 * 1024
"""Middle of the 0.3 to 0.6 GiB that a CUDA context was seen to take; a judgement where no measurement of the card is at hand."""
DEFAULT_INTERVAL = Interval(low_factor=0.97, high_factor=1.05, source="judgement: errors seen on measured single-card runs")


@dataclass(frozen=True, slots=True)
class Trace:
    """What a dry run found."""

    breakdown: MemoryBreakdown
    stream: Stream
    layout: Layout
    layer_path: str

    @property
    def versions(self) -> dict[str, str]:
        return self.breakdown.versions

    def holders(self) -> tuple[Holder, ...]:
        """Modules and parameters that hold the peak, largest first."""
        return breakdown.holders(self.stream, self.layout, self.layout.top.event, self.layer_path)


def record(spec: ModelSpec, plan: Plan, lengths: tuple[int, ...], layers: int | None = None, peft_config: Any = None) -> tuple[Stream, str]:
    """Run one step per length on the meta device; the event stream and the path of the layers."""
    recorder = Recorder("meta", padding=plan.padding)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = meta_model.build(spec, plan, recorder, layers, peft_config)
        optimizer = optimizers.build(built.model, plan)
        recorder.watch(built.model)
        recorder.track_gradients(built.model)
        collect_garbage()
        loop = step.Loop(built, plan, optimizer, recorder)
        with pinned(plan.attention), recorder:
            for length in lengths:
                recorder.mark("step")
                loop.step(length)
    return recorder.close(), built.layer_path


def trace(spec: ModelSpec, plan: Plan, *, lengths: tuple[int, ...] = (), steps: int = 2, layers: int | None = None) -> Trace:
    """Dry-run `plan` for `steps` steps (or one step per entry of `lengths`)."""
    stream, layer_path = record(spec, plan, lengths or (plan.seq_len_tokens,) * steps, layers)
    return summarise(stream, layer_path)


def summarise(stream: Stream, layer_path: str) -> Trace:
    layout = lay_out(stream)
    memory = MemoryBreakdown(
        source="trace",
        versions=compat.versions(),
        phases=tuple(breakdown.phase_bytes(stream, layout, layout.peaks[phase], layer_path) for phase in Phase if phase in layout.peaks),
        reserved_slack_bytes=max(0, layout.peak_reserved_bytes - layout.top.allocated_bytes),
        context_bytes=DEFAULT_CONTEXT_BYTES,
        interval=DEFAULT_INTERVAL,
    )
    return Trace(memory, stream, layout, layer_path)


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One event, for finding out where a term differs."""

    event: int
    delta_bytes: int
    live_bytes: int
    op: str
    place: str
    phase: str
    term: str


def timeline(traced: Trace, *, at_least_bytes: int = 0, last_step: bool = True) -> list[TimelineRow]:
    """Every event of at least that size, in order, of the last step (or of all)."""
    stream = traced.stream
    sizes = traced.layout.block_bytes
    start = stream.marks[-1][0] if last_step and stream.marks else 0
    rows, live = [], 0
    for index, signed in enumerate(stream.events):
        number = abs(signed) - 1
        delta = sizes[number] if signed > 0 else -sizes[number]
        live += delta
        if index < start or abs(delta) < at_least_bytes:
            continue
        born = stream.births[number]
        term = breakdown.term_of(born, traced.layer_path).value
        rows.append(TimelineRow(index, delta, live, born.op, stream.places[index], stream.phases[index].value, term))
    return rows
