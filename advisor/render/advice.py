"""The answer on one screen: what was understood, the verdict, every rung, where the memory goes, why, and what next."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.render import words
from advisor.render.blocks import BLANK, Bar, Bars, Block, Code, Column, Heading, Span, Text, entries, paragraph, table, wide_or_narrow
from advisor.units import format_count, format_size, gib
from advisor.values import Advice, Change, Fit, Level, MemoryBreakdown, Rung

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


def advice(answer: Advice) -> Iterator[Block]:
    """`answer` as a screen."""
    yield _understood(answer)
    yield from _tables(answer)
    if answer.chosen:
        yield from _memory(answer, answer.chosen)
    yield from _reasons(answer)
    yield from _next(answer)
    yield Heading("Verdict")
    yield from verdict(answer)


def _understood(answer: Advice) -> Block:
    model, gpu = answer.model, answer.gpu
    cards = "" if answer.n_gpus == 1 else f"{answer.n_gpus} × "
    shape = f"{words.model(model.id, model.params, model.layers)}, {words.size(model.weights_16bit_bytes)} in 16 bit ({model.architecture})"
    rows = [("model", shape), ("gpu", f"{cards}{gpu.name}: {words.size(gpu.usable_bytes)} usable{' each' if cards else ''}")]
    return entries([*rows, ("taken as", "; ".join(answer.assumptions))], "bold")


def _tables(answer: Advice) -> Iterator[Block]:
    """One table where it fits, two under each other where it does not. Another one only when times were asked for."""
    per_card = " per GPU" if answer.n_gpus > 1 else ""
    names = [rung_name(answer, rung) for rung in answer.rungs]
    rooms, trainings = [*map(_room, answer.rungs)], [*map(_training, answer.rungs)]
    yield Heading(f"Rungs of the ladder, peak in GiB{per_card} ({words.size(answer.gpu.usable_bytes)} usable)")
    whole = [(name, *room, *training) for name, room, training in zip(names, rooms, trainings, strict=True)]
    room = table(_NAME + _ROOM, [(name, *room) for name, room in zip(names, rooms, strict=True)])
    training = table(_NAME + _TRAINING, [(name, *training) for name, training in zip(names, trainings, strict=True)])
    yield wide_or_narrow([table(_NAME + _ROOM + _TRAINING, whole)], [room, BLANK, training])
    yield entries([("step time", _sources(answer))], "dim")
    if any(rung.step_time for rung in answer.rungs):
        yield BLANK
        yield table(_NAME + _TIMES, _times(answer))
        sources = dict.fromkeys(rung.step_time.seconds_per_step.source for rung in answer.rungs if rung.step_time)
        yield entries([("times from", "; ".join(sources))], "dim")


def rung_name(answer: Advice, rung: Rung) -> Span:
    """The rung's label, marked where it is the chosen one."""
    chosen = rung is answer.chosen
    return Span(f"{'*' if chosen else ' '} {rung.plan.method.label}", "bold" if chosen else "")


def _room(rung: Rung) -> tuple[Text, ...]:
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


def _times(answer: Advice) -> Iterator[tuple[Text, ...]]:
    for rung in answer.rungs:
        if (time := rung.step_time) is not None:
            hours = words.loose_span(time.hours) if time.hours else "-"
            usd = words.span(time.usd) if time.usd else "-"
            yield rung_name(answer, rung), words.loose_span(time.seconds_per_step), words.loose_span(time.tokens_per_s), hours, usd


def _sources(answer: Advice) -> str:
    """Where the step times come from, each source once."""
    sources = "; ".join(UNTIMED if rung.relative_step_time is None else rung.relative_step_time.source for rung in answer.rungs)
    return "; ".join(dict.fromkeys(sources.split("; ")))


def _memory(answer: Advice, rung: Rung) -> Iterator[Block]:
    memory = rung.memory
    yield Heading(f"Where the {gib(memory.expected_bytes)} GiB of {rung.plan.method.label} go (peak in {words.phase(memory.peak_phase)})")
    free = [Bar("free", rung.headroom_bytes, empty=True)] if rung.headroom_bytes > 0 else []
    yield Bars((*sorted(bar_parts(rung), key=lambda bar: -bar.bytes), *free), answer.gpu.usable_bytes)


def bar_parts(rung: Rung) -> Iterator[Bar]:
    """What the card holds at the peak, expected."""
    return parts_of(rung.memory)


def parts_of(memory: MemoryBreakdown) -> Iterator[Bar]:
    """The same of any memory: its terms, and what is held beside them."""
    yield from (Bar(words.term(term.term), term.bytes) for term in memory.terms if term.bytes)
    yield Bar("allocator slack", memory.reserved_slack_bytes)
    yield Bar("CUDA context", memory.context_bytes)
    if memory.communicator_bytes:
        yield Bar("communicators", memory.communicator_bytes)


def _reasons(answer: Advice) -> Iterator[Block]:
    fitting = [rung for rung in answer.rungs if rung.fit in (Fit.FITS, Fit.UNCERTAIN)]
    changes = [(rung.plan.method.label, "; ".join(map(_change, rung.changes))) for rung in fitting or answer.rungs]
    others = [(rung.plan.method.label, rung.why_not) for rung in answer.rungs if rung is not answer.chosen]
    yield from _section("Changed to make it fit" if fitting else "Tried, and still too large", _grouped(changes))
    yield from _section("Why not the others" if answer.chosen else "Why none", _grouped(others))
    yield from _section("Quality ceiling", _grouped([(rung.plan.method.label, _quality(rung)) for rung in answer.rungs]))
    yield from _section("What would change the answer", [("-", text) for text in answer.would_change])
    findings = [(_LEVEL_MARKS[finding.level] + finding.id, words.advised(finding.message, finding.hint)) for finding in answer.findings]
    yield from _section("Findings", findings)


def _change(change: Change) -> str:
    return f"{change.what} ({change.cost})"


def _section(title: str, rows: list[tuple[str, str]]) -> Iterator[Block]:
    if rows:
        yield Heading(title)
        yield entries(rows)


def _grouped(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rungs of which the same is said, said once; those of which nothing is said, left out."""
    labels: dict[str, list[str]] = {}
    for label, body in rows:
        if body:
            labels.setdefault(body, []).append(label)
    return [(", ".join(names), body) for body, names in labels.items()]


def _quality(rung: Rung) -> str:
    return cited(rung.quality, rung.quality_evidence)


def cited(text: str, evidence: tuple[str, ...]) -> str:
    """The text, and in brackets the facts that it stands on."""
    return f"{text} [{', '.join(evidence)}]" if evidence else text


def _next(answer: Advice) -> Iterator[Block]:
    yield Heading("Next experiment" if answer.exit_code == 0 else "Next")
    yield paragraph(cited(answer.next_experiment, answer.next_evidence))
    if answer.snippet:
        yield Heading("The plan that was priced")
        yield Code(answer.snippet, "python")


def verdict(answer: Advice) -> Iterator[Block]:
    """The verdict, and the command that prices its plan again."""
    yield paragraph(answer.verdict.sentence, "bold green" if answer.chosen else "bold yellow")
    if answer.command:
        yield Code(answer.command)
