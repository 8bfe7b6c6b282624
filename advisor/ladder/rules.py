"""The rules in their order. A rule is a plain function of the situation that yields findings; ids are stable."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from advisor.ladder import rules_capacity, rules_memory, rules_method, rules_setup
from advisor.ladder.situation import Situation
from advisor.values import Finding

Rule = Callable[[Situation], Iterable[Finding]]

RULES: tuple[Rule, ...] = (
    rules_memory.fit_uncertain,
    rules_memory.fits_tightly,
    rules_memory.rank_no_cure,
    rules_memory.kbit_upcast,
    rules_memory.attention_by_math,
    rules_memory.quantized_not_smaller,
    rules_memory.experts_in_16_bit,
    rules_memory.full_on_one_card,
    rules_memory.full_in_pure_16_bit,
    rules_memory.interval_wide,
    rules_memory.estimate_notes,
    rules_memory.batch_room,
    rules_method.quantized_needlessly,
    rules_method.quantized_price,
    rules_method.quantized_arithmetic,
    rules_method.dora_before_evidence,
    rules_method.dora_dropout,
    rules_method.dora_serving,
    rules_method.dora_without_experts,
    rules_method.quantized_merge,
    rules_capacity.rank_high,
    rules_capacity.alpha_small,
    rules_capacity.capacity_ratio,
    rules_capacity.reinforcement_learning,
    rules_setup.seq_beyond_positions,
    rules_setup.bf16_unsupported,
    rules_setup.fp16_weights_trained,
    rules_setup.batch_high,
    rules_setup.targets_without_mlp,
    rules_setup.loss_not_in_stack,
    rules_setup.attention_unsupported,
)


def findings(situation: Situation) -> tuple[Finding, ...]:
    """What every rule noticed, in the order of the rules."""
    return tuple(finding for rule in RULES for finding in rule(situation))
