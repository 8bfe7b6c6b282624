"""Rules about the method: what each costs beyond memory, and what it can be expected to return."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.ladder.knowledge import threshold
from advisor.ladder.situation import Situation
from advisor.stacks import stacked_targets
from advisor.units import format_size
from advisor.values import DType, Finding, Fit, Level, Method, Task

ARITHMETIC = (Task.MATH, Task.CODE)


def quantized_needlessly(s: Situation) -> Iterator[Finding]:
    """A 4-bit base was asked for although the 16-bit one fits."""
    asked = s.request.method
    if asked is None or not asked.is_quantized or s.rung(Method.LORA).fit is not Fit.FITS:
        return
    yield Finding(
        id="quantized-needlessly",
        level=Level.WARNING,
        message="LoRA on the 16-bit base fits this card too: 4 bit answers to memory and to nothing else",
        hint="--method lora",
        numbers={"lora_bytes": s.rung(Method.LORA).memory.expected_bytes},
        evidence=("Q5", "Q7", "Q8"),
    )


def quantized_price(s: Situation) -> Iterator[Finding]:
    """Dequantising costs time at every pass."""
    if s.chosen is None or not s.chosen.plan.method.is_quantized:
        return
    yield Finding(
        id="qlora-price",
        level=Level.INFO,
        message="4 bit costs time: 50 to 66 % more per step was measured on 7B models and short sequences",
        hint="the memory it frees may pay that back through larger micro-batches",
        numbers={"low_percent": 50, "high_percent": 66},
        evidence=("Q7", "Q8"),
    )


def quantized_arithmetic(s: Situation) -> Iterator[Finding]:
    """Small models lose points on arithmetic under 4 bit, and knowledge tests do not show it."""
    small = s.case.model.params < threshold("small_model_params")
    concerned = s.request.task is None or s.request.task in ARITHMETIC
    if s.chosen is None or not s.chosen.plan.method.is_quantized or not small or not concerned:
        return
    yield Finding(
        id="qlora-arithmetic",
        level=Level.WARNING if s.request.task in ARITHMETIC else Level.INFO,
        message="models of 8B and less lost 2 to 5 points on GSM8K under 4 bit; knowledge tests hide it",
        hint="score arithmetic apart, and run one 16-bit LoRA as a control where memory allows it",
        numbers={"low_points": 1.9, "high_points": 4.6},
        evidence=("Q4", "Q5", "Q6"),
    )


def dora_before_evidence(s: Situation) -> Iterator[Finding]:
    """DoRA is the door when the rank is the limit, which nothing has shown before a run."""
    if s.request.method is None or not s.request.method.is_dora:
        return
    yield Finding(
        id="dora-before-evidence",
        level=Level.WARNING,
        message="DoRA answers to a rank that is the limit, which no run has shown yet: its rank budget is LoRA's, its mean gain 0.1 points",
        hint="run LoRA with a learning-rate sweep first; it is the floor to measure DoRA from",
        numbers={"mean_gain_points": 0.13, "gain_points_low_rank": 0.65},
        evidence=("D2", "D15"),
    )


def dora_dropout(s: Situation) -> Iterator[Finding]:
    """peft's fast path for DoRA needs dropout off."""
    if s.request.method is None or not s.request.method.is_dora:
        return
    yield Finding(
        id="dora-dropout",
        level=Level.INFO,
        message="keep lora_dropout at 0: peft's fast DoRA path runs only without dropout",
        numbers={"lora_dropout": 0},
        evidence=("D5",),
    )


def dora_serving(s: Situation) -> Iterator[Finding]:
    """Unmerged DoRA renormalises every wrapped weight at each pass."""
    if s.chosen is None or not s.chosen.plan.method.is_dora:
        return
    yield Finding(
        id="dora-serving",
        level=Level.INFO,
        message="serve DoRA merged: unmerged inference took 139 % more time, or 41 % more memory with its cache",
        numbers={"time_percent": 139, "cached_memory_percent": 41},
        evidence=("D5",),
    )


def quantized_merge(s: Situation) -> Iterator[Finding]:
    """Merging in place rounds to 4 bit again (peft 0.21 tuners/lora/bnb.py warns about it)."""
    if s.chosen is None or not s.chosen.plan.method.is_quantized:
        return
    size = s.case.model.params * DType.BF16.size_bytes
    room = s.case.gpu.usable_bytes - s.chosen.memory.phases[0].allocated_bytes
    where = "" if size <= room else ", which the card does not hold beside the loaded base"
    yield Finding(
        id="qlora-merge",
        level=Level.INFO if size <= room else Level.WARNING,
        message=f"merge into a 16-bit copy of the dequantised base ({format_size(size)}{where}): merging in place rounds back to 4 bit "
        "and changes the scores",
        hint="keep the quantisation settings with the adapter: it was trained against exactly that base",
        numbers={"merged_bytes": size},
    )


def dora_without_experts(s: Situation) -> Iterator[Finding]:
    """DoRA's rungs wrap fewer matrices than LoRA's where experts are stacked."""
    left_out = stacked_targets(s.case.model, s.rung(Method.LORA).plan.target_modules)
    if not left_out:
        return
    yield Finding(
        id="dora-without-experts",
        level=Level.INFO,
        message=f"DoRA is priced without {', '.join(left_out)}: peft has no DoRA for stacked experts",
        hint="compare it with LoRA on the same targets",
    )
