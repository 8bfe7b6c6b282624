"""The answer on one screen: what was understood, the verdict, every rung, where the memory goes, why, and what next."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import page, words
from advisor.render.bars import Bar, bars
from advisor.render.page import BLANK, Cell, Column, Line, Look, Span
from advisor.units import format_count, format_size, gib
from advisor.values import Advice, Change, Fit, Level, Rung

_NAME = (Column("rung"),)
_ROOM = (
    Column("fits"),
    Column("low", ">"),
    Column("expected", ">"),
    Column("high", ">"),
    Column("headroom", ">"),
    Column("longest\nsequence", ">"),
    Column("largest\nbatch", ">"),
)
_TRAINING = (
    Column("trained\nparams", ">"),
    Column("share", ">"),
    Column("base"),
    Column("step time\n× LoRA", ">"),
    Column("adapter\nfile", ">"),
    Column("mergeable"),
)
_TIMES = (Column("seconds per step", ">"), Column("tokens per s", ">"), Column("hours", ">"), Column("USD", ">"))
UNTIMED = "not timed: the operations of this type of model are not counted"
_LEVEL_MARKS = {Level.INFO: "", Level.WARNING: "! ", Level.ERROR: "!! "}


def advice(answer: Advice, look: Look) -> str:
    """`answer` as a screen of text."""
    return page.draw(_lines(answer, look), look)


def _lines(answer: Advice, look: Look) -> Iterator[Line]:
    yield from _understood(answer, look)
    yield from page.heading("Verdict")
    yield from page.paragraph(answer.verdict.sentence, look, "bold green" if answer.chosen else "bold yellow")
    yield from _tables(answer, look)
    if answer.chosen:
        yield from _memory(answer, answer.chosen, look)
    yield from _reasons(answer, look)
    yield from _next(answer, look)


def _understood(answer: Advice, look: Look) -> list[Line]:
    model, gpu = answer.model, answer.gpu
    cards = "" if answer.n_gpus == 1 else f"{answer.n_gpus} × "
    shape = f"{words.model(model.id, model.params, model.layers)}, {words.size(model.weights_16bit_bytes)} in 16 bit ({model.architecture})"
    rows = [("model", shape), ("gpu", f"{cards}{gpu.name}: {words.size(gpu.usable_bytes)} usable{' each' if cards else ''}")]
    return page.entries([*rows, ("taken as", "; ".join(answer.assumptions))], look, "bold")


def _tables(answer: Advice, look: Look) -> Iterator[Line]:
    """One table where it fits, two under each other where it does not. Another one only when times were asked for."""
    per_card = " per GPU" if answer.n_gpus > 1 else ""
    names = [_name(answer, rung) for rung in answer.rungs]
    rooms, trainings = [*map(_room, answer.rungs)], [*map(_training, answer.rungs)]
    yield from page.heading(f"Rungs of the ladder, peak in GiB{per_card} ({words.size(answer.gpu.usable_bytes)} usable)")
    if look.wide:
        rows = [(name, *room, *training) for name, room, training in zip(names, rooms, trainings, strict=True)]
        yield from page.table(_NAME + _ROOM + _TRAINING, rows, look)
    else:
        yield from page.table(_NAME + _ROOM, [(name, *room) for name, room in zip(names, rooms, strict=True)], look)
        yield BLANK
        yield from page.table(_NAME + _TRAINING, [(name, *training) for name, training in zip(names, trainings, strict=True)], look)
    yield from page.entries([("step time", _sources(answer))], look, "dim")
    if any(rung.step_time for rung in answer.rungs):
        yield BLANK
        yield from page.table(_NAME + _TIMES, _times(answer), look)
        sources = dict.fromkeys(rung.step_time.seconds_per_step.source for rung in answer.rungs if rung.step_time)
        yield from page.entries([("times from", "; ".join(sources))], look, "dim")


def _name(answer: Advice, rung: Rung) -> Span:
    chosen = rung is answer.chosen
    return Span(f"{'*' if chosen else ' '} {rung.plan.method.label}", "bold" if chosen else "")


def _room(rung: Rung) -> tuple[Cell, ...]:
    return (
        Span(words.FIT_WORDS[rung.fit], words.FIT_STYLES[rung.fit]),
        gib(rung.memory.low_bytes),
        gib(rung.memory.expected_bytes),
        gib(rung.memory.high_bytes),
        words.signed_gib(rung.headroom_bytes),
        words.tokens(rung.max_seq_len_tokens),
        words.tokens(rung.max_micro_batch_size),
    )


def _training(rung: Rung) -> tuple[str, ...]:
    saved = "-" if rung.adapter_bytes is None else format_size(rung.adapter_bytes)
    return (
        "-" if rung.trainable_params is None else format_count(rung.trainable_params),
        "-" if rung.trainable_share is None else words.share(rung.trainable_share),
        rung.base_precision,
        "-" if rung.relative_step_time is None else words.span(rung.relative_step_time),
        saved,
        rung.mergeable,
    )


def _times(answer: Advice) -> Iterator[tuple[Cell, ...]]:
    for rung in answer.rungs:
        if (time := rung.step_time) is not None:
            hours = words.loose_span(time.hours) if time.hours else "-"
            usd = words.span(time.usd) if time.usd else "-"
            yield _name(answer, rung), words.loose_span(time.seconds_per_step), words.loose_span(time.tokens_per_s), hours, usd


def _sources(answer: Advice) -> str:
    """Where the step times come from, each source once."""
    sources = "; ".join(UNTIMED if rung.relative_step_time is None else rung.relative_step_time.source for rung in answer.rungs)
    return "; ".join(dict.fromkeys(sources.split("; ")))


def _memory(answer: Advice, rung: Rung, look: Look) -> Iterator[Line]:
    memory = rung.memory
    yield from page.heading(
        f"Where the {gib(memory.expected_bytes)} GiB of {rung.plan.method.label} go (peak in {words.phase(memory.peak_phase)})"
    )
    parts = [Bar(words.term(term.term), term.bytes) for term in memory.terms if term.bytes]
    parts += [Bar("allocator slack", memory.reserved_slack_bytes), Bar("CUDA context", memory.context_bytes)]
    free = [Bar("free", rung.headroom_bytes, empty=True)] if rung.headroom_bytes > 0 else []
    yield from bars([*sorted(parts, key=lambda bar: -bar.bytes), *free], answer.gpu.usable_bytes, look)


def _reasons(answer: Advice, look: Look) -> Iterator[Line]:
    fitting = [rung for rung in answer.rungs if rung.fit in (Fit.FITS, Fit.UNCERTAIN)]
    changes = [(rung.plan.method.label, "; ".join(map(_change, rung.changes))) for rung in fitting or answer.rungs]
    others = [(rung.plan.method.label, rung.why_not) for rung in answer.rungs if rung is not answer.chosen]
    yield from _section("Changed to make it fit" if fitting else "Tried, and still too large", _grouped(changes), look)
    yield from _section("Why not the others" if answer.chosen else "Why none", _grouped(others), look)
    yield from _section("Quality ceiling", _grouped([(rung.plan.method.label, _quality(rung)) for rung in answer.rungs]), look)
    yield from _section("What would change the answer", [("-", text) for text in answer.would_change], look)
    findings = [(_LEVEL_MARKS[finding.level] + finding.id, words.advised(finding.message, finding.hint)) for finding in answer.findings]
    yield from _section("Findings", findings, look)


def _change(change: Change) -> str:
    return f"{change.what} ({change.cost})"


def _section(title: str, rows: list[tuple[str, str]], look: Look) -> Iterator[Line]:
    if rows:
        yield from page.heading(title)
        yield from page.entries(rows, look)


def _grouped(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rungs of which the same is said, said once; those of which nothing is said, left out."""
    labels: dict[str, list[str]] = {}
    for label, body in rows:
        if body:
            labels.setdefault(body, []).append(label)
    return [(", ".join(names), body) for body, names in labels.items()]


def _quality(rung: Rung) -> str:
    return f"{rung.quality} [{', '.join(rung.quality_evidence)}]" if rung.quality_evidence else rung.quality


def _next(answer: Advice, look: Look) -> Iterator[Line]:
    yield from page.heading("Next experiment" if answer.exit_code == 0 else "Next")
    cited = f" [{', '.join(answer.next_evidence)}]" if answer.next_evidence else ""
    yield from page.paragraph(answer.next_experiment + cited, look)
    if answer.snippet:
        yield from page.heading("The plan that was priced")
        yield from page.verbatim(answer.snippet)
