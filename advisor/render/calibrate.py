"""What the hardware said: measured beside predicted, phase by phase and term by term, and what follows for the plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from advisor.render import words
from advisor.render.advice import advice
from advisor.render.blocks import BLANK, Block, Column, Heading, Span, Text, bullets, entries, paragraph, table
from advisor.render.summary import summary
from advisor.units import MIB, format_difference, format_share
from advisor.values import Term
from advisor.values.calibration import Calibration, CalibrationRun, CheckedAdvice, Ending, PhaseMeasurement, Point
from advisor.values.memory import MOVING_TERMS

if TYPE_CHECKING:
    from advisor.calibration.store import Reading

_ENDINGS = {
    Ending.DONE: "Ran to the end",
    Ending.OUT_OF_MEMORY: "Out of memory",
    Ending.MEMORY_LIMIT: "Stopped at its memory limit",
    Ending.TIME_LIMIT: "Stopped at its time limit",
    Ending.KILLED: "Killed",
    Ending.INTERRUPTED: "Interrupted",
    Ending.FAILED: "Failed",
}
GIGA = 10**9
TERA = 10**12


def calibration_run(found: CalibrationRun) -> Iterator[Block]:
    """`found` as a screen."""
    if found.calibration is not None:
        yield entries(_understood(found.calibration), "bold")
    else:
        yield entries([("plan", words.plan(found.plan))], "bold")
    yield BLANK
    yield paragraph(_ending(found), "bold green" if found.ending is Ending.DONE else "bold red")
    yield from _measured(found.points)
    if found.calibration is not None:
        yield from _rates(found.calibration)
        yield from _follows(found)
        yield from _notes(found.calibration)
    if found.calibration is not None and found.stored_at:
        kept = f"Kept as {found.calibration.id}: later answers for {found.calibration.hardware.card} use it, --no-calibration ignores it."
        yield BLANK
        yield paragraph(kept, "dim")


def checked(found: CheckedAdvice, full: bool = False) -> Iterator[Block]:
    """The answer's own screen, and the check under it."""
    yield from advice(found.advice) if full else summary(found.advice)
    yield Heading("Checked on this hardware")
    if found.check is None:
        yield paragraph(f"Not checked: {found.problem}", "bold yellow")
    else:
        yield from calibration_run(found.check)


def record(calibration: Calibration) -> Iterator[Block]:
    """A record as a screen."""
    yield entries(_understood(calibration), "bold")
    yield from _measured(calibration.points)
    yield from _rates(calibration)
    yield from _notes(calibration)


def listing(readings: Sequence[Reading], folder: str) -> Iterator[Block]:
    """A line for each record, and a word on each file that is none, or is not used."""
    known = [reading.calibration for reading in readings if reading.calibration is not None]
    if known:
        columns = [Column("id"), Column("model"), Column("method"), Column("shapes", ">"), Column("worst", ">"), Column("card")]
        yield table(columns, map(_row, known))
    else:
        yield paragraph(f"no calibrations in {folder}")
    ignored = [f"{reading.path.name} {reading.problem}" for reading in readings if reading.problem]
    yield bullets(ignored)


def _row(calibration: Calibration) -> tuple[str, ...]:
    worst = max((abs(_error(entry)) for point in calibration.points for entry in point.phases), default=0.0)
    method = calibration.plan.method.label
    model = calibration.model.rpartition("/")[2]
    return (calibration.id, model, method, str(len(calibration.points)), format_share(worst, 1), calibration.hardware.card)


def _ending(found: CalibrationRun) -> str:
    text = _ENDINGS[found.ending]
    if found.ended_in:
        text += f" in {found.ended_in}"
    text += f" after {found.seconds:.0f} s"
    if found.message:
        text += f": {found.message}"
    if found.ending is not Ending.DONE and not found.points:
        text += "; nothing was measured, and no record was written"
    elif found.ending is not Ending.DONE:
        text += f"; {len(found.points)} shapes were measured before, and no record was written"
    return words.advised(text, found.hint)


def _understood(calibration: Calibration) -> Iterator[tuple[str, str]]:
    hardware = calibration.hardware
    yield "model", f"{calibration.model}: {calibration.model_layers} layers, random weights"
    yield "plan", words.plan(calibration.plan)
    processes = f", {hardware.processes} processes ({hardware.distributed})" if hardware.processes > 1 else ""
    yield "ran on", f"{hardware.card} ({hardware.backend}; {hardware.driver}){processes}"
    yield "libraries", ", ".join(f"{name} {version}" for name, version in calibration.versions.items())


def _measured(points: Sequence[Point]) -> Iterator[Block]:
    if not points:
        return
    yield Heading("Measured beside predicted, highest moment of each phase, in MiB")
    columns = [Column("shape"), Column("phase"), *(Column(name, ">") for name in ("measured", "predicted", "off", "dry run"))]
    yield table(columns, [row for point in points for row in _phases(point)])
    widest = max(points, key=lambda point: point.peak_bytes)
    yield Heading(f"Term by term at the peak of {_shape(widest)} ({words.phase(widest.peak.phase)}), in MiB")
    columns = [Column("term"), *(Column(name, ">") for name in ("measured", "predicted", "off"))]
    yield table(columns, _terms(widest.peak))


def _shape(point: Point) -> str:
    return f"{point.layers} layers, {point.plan.micro_batch_size} × {point.plan.seq_len_tokens:,} tokens"


def _phases(point: Point) -> Iterator[tuple[Text, ...]]:
    for number, entry in enumerate(point.phases):
        traced = "-" if entry.traced_bytes is None else _mib(entry.traced_bytes)
        off = format_difference(_error(entry))
        yield (
            _shape(point) if number == 0 else "",
            words.phase(entry.phase),
            _mib(entry.measured_bytes),
            _mib(entry.predicted_bytes),
            off,
            traced,
        )
    if point.reserved_bytes is not None:
        predicted = point.predicted_reserved_bytes
        yield "", "reserved", _mib(point.reserved_bytes), _mib(predicted), format_difference(predicted / point.reserved_bytes - 1), "-"


def _error(entry: PhaseMeasurement) -> float:
    return entry.predicted_bytes / entry.measured_bytes - 1 if entry.measured_bytes else 0.0


def _terms(peak: PhaseMeasurement) -> Iterator[tuple[Text, ...]]:
    pairs = [(words.term(term), peak.of(term)) for term in Term if term not in MOVING_TERMS]
    moving = [(words.term(term), peak.of(term)) for term in Term if term in MOVING_TERMS]
    for name, (measured, predicted) in (*pairs, *moving, ("not seen as tensors", (peak.unseen_bytes, 0))):
        if measured or predicted:
            yield name, _mib(measured), _mib(predicted), ""
    off = format_difference(_error(peak))
    yield tuple(Span(cell, "bold") for cell in ("allocated", _mib(peak.measured_bytes), _mib(peak.predicted_bytes), off))


def _rates(calibration: Calibration) -> Iterator[Block]:
    timed = [point for point in calibration.points if point.timing is not None]
    if timed:
        yield Heading("Seconds, medians after a warm-up")
        columns = [Column("shape"), *(Column(name, ">") for name in ("forward", "backward", "step", "of steps"))]
        yield table(columns, map(_times, timed))
    rows = []
    if calibration.rates is not None:
        rates = calibration.rates
        rows.append(
            (
                "achieved",
                f"{words.number(rates.achieved_flop_per_s / TERA)} TFLOP/s; times by rates within {format_share(rates.error_share)}",
            )
        )
    if calibration.context_bytes is not None:
        rows.append(("context", f"{words.size(calibration.context_bytes)} of the process besides tensors"))
    if calibration.peak_rss_bytes:
        rows.append(("process", f"{words.size(calibration.peak_rss_bytes)} of host memory at its peak"))
    yield BLANK
    yield entries(rows)


def _times(point: Point) -> tuple[Text, ...]:
    timing = point.timing
    assert timing is not None
    numbers = (words.number(value) for value in (timing.forward_s, timing.backward_s, timing.optimizer_s))
    return (_shape(point), *numbers, str(timing.steps))


def _follows(found: CalibrationRun) -> Iterator[Block]:
    if found.calibrated is None:
        yield from _elsewhere(found)
        return
    yield Heading("What follows for the whole plan")
    rows = []
    for label, memory in (("before", found.predicted), ("after", found.calibrated)):
        rows.append(
            (label, f"{words.size(memory.low_bytes)} to {words.size(memory.high_bytes)}, {words.size(memory.expected_bytes)} expected")
        )
    rows.append(("interval", found.calibrated.interval.source))
    if found.step_time is not None:
        seconds = found.step_time.seconds_per_step
        rows.append(("step", f"{words.loose_span(seconds)} s ({seconds.source})"))
    yield entries(rows)
    if found.fit_after is not None and found.usable_bytes is not None:
        stands = "The verdict stands" if found.verdict_stands else "The verdict changes"
        style = f"bold {words.FIT_STYLES[found.fit_after]}"
        yield BLANK
        yield paragraph(f"{stands}: fits {words.size(found.usable_bytes)}: {words.FIT_WORDS[found.fit_after]}", style)


def _elsewhere(found: CalibrationRun) -> Iterator[Block]:
    """What a run that cannot speak for the card leaves: the formulas' error, and the verdict as it was."""
    if found.calibration is None or found.fit_before is None or found.usable_bytes is None:
        return
    worst = max(abs(_error(entry)) for point in found.points for entry in point.phases)
    said = (
        f"It ran on {found.calibration.hardware.card}, and the verdict is about {found.gpu}. The tensors lay within "
        f"{format_share(worst, 1)} of the prediction; the context, the allocator and the times of the {found.gpu} were not measured. "
        f"As predicted before: fits {words.size(found.usable_bytes)}: {words.FIT_WORDS[found.fit_before]}"
    )
    yield BLANK
    yield paragraph(said, f"bold {words.FIT_STYLES[found.fit_before]}")


def _notes(calibration: Calibration) -> Iterator[Block]:
    if calibration.notes:
        yield BLANK
        yield bullets(calibration.notes)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.1f}"
