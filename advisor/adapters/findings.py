"""What the numbers of an adapter say, and what must not be read from them. Ids are stable; evidence is in profiles/methods/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.units import format_share
from advisor.values.adapter import AdapterReport, ModuleState, ModuleUpdate, TruncationTest
from advisor.values.advice import Finding, Level

UNUSED_ENERGY = 0.95
"""Half the rank keeps this share or more: the run does not use its rank. Gate R9 of the method notes, from P1: 0.3 points lost."""
FULL_ENERGY = 0.80
"""Half the rank keeps this share or less: the rank is in full use. The same gate, from P1: 2.8 points lost."""
NAMED = 3
"""How many modules a sentence names before it counts the rest."""

CALIBRATION = "one published curve lost 0.3, 1.4, 2.8 and 8.8 points at 0.95, 0.9, 0.8 and 0.5 of the energy"


def findings(report: AdapterReport, begins_with_zero_b: bool, changes_base: bool) -> Iterator[Finding]:
    """In the order in which they matter."""
    yield from _broken(report)
    yield from _untrained(report, begins_with_zero_b)
    yield from _start(report, begins_with_zero_b, changes_base)
    yield from _rank_use(report)
    yield from _magnitudes(report)


def names(modules: Sequence[ModuleUpdate]) -> str:
    shown = ", ".join(module.name for module in modules[:NAMED])
    return shown if len(modules) <= NAMED else f"{shown} and {len(modules) - NAMED} more"


def _broken(report: AdapterReport) -> Iterator[Finding]:
    broken = report.in_state(ModuleState.NOT_FINITE)
    if broken:
        yield Finding(
            id="adapter-not-finite",
            level=Level.ERROR,
            message=f"{len(broken)} of {len(report.modules)} modules hold NaN or infinity: {names(broken)}",
            hint="the run diverged: lower the learning rate and train again; nothing can be read from this adapter",
            numbers={"modules": len(broken)},
            evidence=("LR11",),
        )


def _untrained(report: AdapterReport, begins_with_zero_b: bool) -> Iterator[Finding]:
    untrained, faint = report.in_state(ModuleState.UNTRAINED), report.in_state(ModuleState.FAINT)
    if untrained:
        every = len(untrained) == len(report.modules)
        yield Finding(
            id="adapter-untrained",
            level=Level.ERROR if every else Level.WARNING,
            message=f"{'every module is' if every else f'{len(untrained)} of {len(report.modules)} modules are'} untrained "
            f"({'B is zero' if begins_with_zero_b else 'the update is zero'}): {names(untrained)}",
            hint="they got no gradient: look at the labels and masks, frozen or unused layers, and whether this is the trained checkpoint",
            numbers={"modules": len(untrained)},
        )
    if faint:
        yield Finding(
            id="adapter-faint",
            level=Level.WARNING,
            message=f"{len(faint)} of {len(report.modules)} modules moved less than a thousandth of the middle one: {names(faint)}",
            hint="layers that the loss does not reach, or experts that are not routed to",
            numbers={"modules": len(faint)},
        )


def _start(report: AdapterReport, begins_with_zero_b: bool, changes_base: bool) -> Iterator[Finding]:
    if changes_base:
        yield Finding(
            id="adapter-holds-base",
            level=Level.WARNING,
            message=f"with init_lora_weights={report.init} the product begins as a part of the base weight: the spectrum is mostly not "
            "what was learned, and an untrained module does not show",
            hint="save it converted (peft: path_initial_model_for_weight_conversion) and inspect that",
        )
    elif not begins_with_zero_b:
        yield Finding(
            id="adapter-starts-nonzero",
            level=Level.INFO,
            message=f"with init_lora_weights={report.init} the product does not begin at zero: an untrained module does not show",
        )


def _rank_use(report: AdapterReport) -> Iterator[Finding]:
    kept, test = report.energy_at_half_rank, report.test
    if kept is None or test is None or report.in_state(ModuleState.NOT_FINITE):
        return
    if kept >= UNUSED_ENERGY:
        id, reading = "adapter-rank-unused", "this run does not use its rank, so capacity is unlikely to bind"
    elif kept <= FULL_ENERGY:
        id, reading = "adapter-rank-used", "the rank is in use, which is normal and alone proves nothing"
    else:
        id, reading = "adapter-rank-open", "neither clearly unused nor clearly in full use"
    yield Finding(
        id=id,
        level=Level.INFO,
        message=f"half the rank holds {kept:.3f} of the energy: {reading} ({CALIBRATION})",
        numbers={"rank": test.rank, "energy_kept": kept},
        evidence=("P1", "P2", "P3"),
    )


def _magnitudes(report: AdapterReport) -> Iterator[Finding]:
    if not report.method.is_dora:
        return
    known = [(module, module.magnitude) for module in report.modules if module.magnitude is not None]
    if not known:
        yield Finding(
            id="dora-drift-unknown",
            level=Level.INFO,
            message="how far DoRA's magnitudes moved is not known: they began at the norms of the base weights, which are not at hand",
            hint="--base FOLDER reads those norms from the base model's safetensors",
        )
        return
    mean = sum(drift.mean_abs for _, drift in known) / len(known)
    module, most = max(known, key=lambda entry: entry[1].max_abs)
    missing = len(report.modules) - len(known)
    unknown = f"; not known for {missing} modules" if missing else ""
    yield Finding(
        id="dora-drift",
        level=Level.INFO,
        message=f"DoRA's magnitudes moved by {format_share(mean, 2)} of the base norm on average, at most {format_share(most.max_abs, 2)} "
        f"({module.name}){unknown}; no source was found that reads from it whether DoRA helps",
        numbers={"mean_abs": mean, "max_abs": most.max_abs},
        evidence=("P5",),
    )


def truncation_test(report: AdapterReport) -> TruncationTest | None:
    """Cut to half the rank and evaluate again; None where there is no update, or the rank is 1."""
    kept = report.energy_at_half_rank
    if kept is None:
        return None
    rank = max(module.rank for module in report.modules) // 2
    return TruncationTest(
        rank=rank,
        energy_kept=kept,
        command=f"advise inspect {report.path} --truncate {rank}",
        then="evaluate both on the same items and record both with their items: within one standard error, the rank is not the limit; "
        "more than two worse, it is in full use and may be",
    )


def caveats(report: AdapterReport) -> Iterator[Finding]:
    """What a spectrum cannot tell."""
    said = [
        (
            "spectrum-not-too-small",
            "that the rank is too small: a spectrum in full use is the normal case (about 12 of 16 directions)",
            ("P3",),
        ),
        (
            "spectrum-not-comparable",
            "anything across runs of another alpha, learning rate, length or method: effective rank moves with alpha at equal accuracy",
            ("P2",),
        ),
        (
            "spectrum-not-a-choice",
            "which rank to train with: a rank picked from a spectrum passed in 0 of 3 seeds of one tool's own validation; the test decides",
            ("P4",),
        ),
        (
            "spectrum-not-after-quantisation",
            "how much is learning, where the base was quantised: the adapter also repairs the quantisation error",
            ("P4",),
        ),
    ]
    if any(module.spectrum is not None for module in report.modules):
        for id, text, evidence in said:
            yield Finding(id=id, level=Level.INFO, message=text, evidence=evidence)
