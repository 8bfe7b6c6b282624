"""The answer on one screen: what was understood, the verdict, every rung, where the memory goes, why, and what next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from advisor.render import page, words
from advisor.render.bars import Bar, bars
from advisor.render.page import Column, Look, Part
from advisor.units import format_count, format_size, gib
from advisor.values import Advice, Rung

if TYPE_CHECKING:
    from rich.text import Text


_NAME: tuple[Column, ...] = (("rung", "left"),)
_ROOM: tuple[Column, ...] = (
    ("fits", "left"),
    ("low", "right"),
    ("expected", "right"),
    ("high", "right"),
    ("headroom", "right"),
    ("longest\nsequence", "right"),
    ("largest\nbatch", "right"),
)
_TRAINING: tuple[Column, ...] = (
    ("trained\nparams", "right"),
    ("share", "right"),
    ("base", "left"),
    ("step time\n× LoRA", "right"),
    ("adapter\nfile", "right"),
    ("mergeable", "left"),
)
_TIMES: tuple[Column, ...] = (("seconds per step", "right"), ("tokens per s", "right"), ("hours", "right"), ("USD", "right"))


def advice(answer: Advice, look: Look) -> str:
    """`answer` as a screen of text."""
    return page.draw(_parts(answer, look), look)


def _parts(answer: Advice, look: Look) -> Iterator[Part]:
    yield _understood(answer, look)
    yield page.bullets(answer.assumptions, look)
    yield page.heading("Verdict")
    yield page.paragraph(answer.verdict.sentence, look, style="bold green" if answer.chosen else "bold yellow")
    yield from _tables(answer, look)
    if answer.chosen:
        yield from _chosen(answer, answer.chosen, look)
    yield from _reasons(answer, look)
    yield from _next(answer, look)


def _understood(answer: Advice, look: Look) -> Text:
    model, gpu = answer.model, answer.gpu
    cards = "" if answer.n_gpus == 1 else f"{answer.n_gpus} × "
    shape = f"{format_count(model.params)} parameters, {model.layers} layers, {words.size(model.weights_16bit_bytes)} in 16 bit"
    return page.entries(
        [
            ("model", f"{model.id}: {shape} ({model.architecture})"),
            ("gpu", f"{cards}{gpu.name}: {words.size(gpu.usable_bytes)} usable{' each' if cards else ''}"),
        ],
        look,
        style="bold",
    )


def _tables(answer: Advice, look: Look) -> Iterator[Part]:
    """One table where it fits, two under each other where it does not. A third one only when times were asked for."""
    per_card = " per GPU" if answer.n_gpus > 1 else ""
    yield page.heading(f"Rungs of the ladder, peak in GiB{per_card} ({words.size(answer.gpu.usable_bytes)} usable)")
    if look.wide:
        yield page.table(_NAME + _ROOM + _TRAINING, [(_name(answer, rung), *_room(rung), *_training(rung)) for rung in answer.rungs])
    else:
        yield page.table(_NAME + _ROOM, [(_name(answer, rung), *_room(rung)) for rung in answer.rungs])
        yield page.blank()
        yield page.table(_NAME + _TRAINING, [(_name(answer, rung), *_training(rung)) for rung in answer.rungs])
    yield page.entries([("step time", _sources(answer))], look, style="dim")
    if any(rung.step_time for rung in answer.rungs):
        yield page.blank()
        yield page.table(_NAME + _TIMES, _times(answer))


def _name(answer: Advice, rung: Rung) -> Text:
    from rich.text import Text

    chosen = rung is answer.chosen
    return Text(f"{'*' if chosen else ' '} {rung.plan.method.label}", style="bold" if chosen else "")


def _room(rung: Rung) -> tuple[str | Text, ...]:
    from rich.text import Text

    return (
        Text(words.FIT_WORDS[rung.fit], style=words.FIT_STYLES[rung.fit]),
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
        format_count(rung.trainable_params),
        words.share(rung.trainable_share),
        rung.base_precision,
        words.span(rung.relative_step_time),
        saved,
        rung.mergeable,
    )


def _times(answer: Advice) -> Iterator[tuple[str | Text, ...]]:
    for rung in answer.rungs:
        if (time := rung.step_time) is not None:
            hours, usd = (words.loose_span(bounds) if bounds else "-" for bounds in (time.hours, time.usd))
            yield _name(answer, rung), words.loose_span(time.seconds_per_step), words.loose_span(time.tokens_per_s), hours, usd


def _sources(answer: Advice) -> str:
    return "; ".join(dict.fromkeys(rung.relative_step_time.source for rung in answer.rungs))


def _chosen(answer: Advice, rung: Rung, look: Look) -> Iterator[Part]:
    memory = rung.memory
    yield page.heading(
        f"Where the {gib(memory.expected_bytes)} GiB of {rung.plan.method.label} go (peak in {memory.peak_phase.value.replace('_', ' ')})"
    )
    parts = [Bar(term.term.value.replace("_", " "), term.bytes) for term in memory.terms if term.bytes]
    parts += [Bar("allocator slack", memory.reserved_slack_bytes), Bar("CUDA context", memory.context_bytes)]
    free = [Bar("free", rung.headroom_bytes, empty=True)] if rung.headroom_bytes > 0 else []
    yield bars([*sorted(parts, key=lambda bar: -bar.bytes), *free], answer.gpu.usable_bytes, look)
    if rung.changes:
        yield page.heading("Changed to make it fit")
        yield page.bullets([f"{change.what}: {change.cost}" for change in rung.changes], look)


def _reasons(answer: Advice, look: Look) -> Iterator[Part]:
    others = [(rung.plan.method.label, rung.why_not) for rung in answer.rungs if rung is not answer.chosen and rung.why_not]
    if others:
        yield page.heading("Why not the others" if answer.chosen else "Why none")
        yield page.entries(_grouped(others), look)
    yield page.heading("Quality ceiling")
    yield page.entries(_grouped([(rung.plan.method.label, _quality(rung)) for rung in answer.rungs]), look)
    if answer.would_change:
        yield page.heading("What would change the answer")
        yield page.bullets(answer.would_change, look)
    if answer.findings:
        yield page.heading("Findings")
        yield page.entries([(finding.id, f"{finding.message} {finding.hint}".strip()) for finding in answer.findings], look)


def _grouped(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rungs of which the same is said, said once."""
    labels: dict[str, list[str]] = {}
    for label, body in rows:
        labels.setdefault(body, []).append(label)
    return [(", ".join(names), body) for body, names in labels.items()]


def _quality(rung: Rung) -> str:
    return f"{rung.quality} [{', '.join(rung.quality_evidence)}]" if rung.quality_evidence else rung.quality


def _next(answer: Advice, look: Look) -> Iterator[Part]:
    yield page.heading("Next experiment" if answer.exit_code == 0 else "Next")
    yield page.paragraph(answer.next_experiment, look)
    if answer.snippet:
        yield page.heading("The plan that was priced")
        yield page.Verbatim(answer.snippet)
