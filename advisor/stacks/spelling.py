"""One spelling for what can be said in several ways: target modules, and a learning rate as it was set and as it was logged."""

from __future__ import annotations

import re

from advisor.stacks.targets import available_targets
from advisor.values import ALL_LINEAR, ModelSpec

SAME_RATE = 0.05
"""Share by which two learning rates may differ and be one. Judgement: the highest *logged* rate of a cosine schedule was up to 3.5 % below
the configured one (TRL, 76 steps), and two rates that anybody compares are further apart."""
EVERY_LINEAR = (
    frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),  # Llama and its kin
    frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),  # GPT-NeoX, Falcon, Bloom
)
"""All linear layers of a block, by name, for models whose shape is not known (transformers 5.23, modeling_*.py)."""
_PATTERN = re.compile(r"[\\|()\[\]*+?^$]")
_WORD = re.compile(r"[A-Za-z_]\w*")


def canonical_targets(targets: tuple[str, ...] | None, model: ModelSpec | None) -> tuple[str, ...] | None:
    """Return leaf names in order, or ("all-linear",) where they are all of the model's linear layers.

    Full module names (peft writes them for under twenty modules) lose their path; of a pattern (Unsloth, ms-swift) the names of modules
    that it speaks of are taken, without running it. A pattern that excludes something stays as it is.
    """
    if targets is None or targets == (ALL_LINEAR,):
        return targets
    known = frozenset(available_targets(model)) if model is not None else frozenset()
    names: set[str] = set()
    for target in targets:
        names |= _leaves(target, known)
    every = (known,) if known else EVERY_LINEAR
    if ALL_LINEAR in names or any(all_of <= names for all_of in every):
        return (ALL_LINEAR,)
    return tuple(sorted(names))


def _leaves(target: str, known: frozenset[str]) -> set[str]:
    if not _PATTERN.search(target):
        return {target.rpartition(".")[2]}
    spoken = set(_WORD.findall(target)) & (known or frozenset().union(*EVERY_LINEAR))
    return spoken if spoken and "(?!" not in target else {target}


def same_rate(first: float | None, second: float | None) -> bool:
    """Whether two learning rates are one within what a schedule's log and rounding leave."""
    if first is None or second is None:
        return first is second
    return abs(first - second) <= SAME_RATE * max(first, second)
