"""One spelling for each set-up: runs that say the same in other words are one and the same to every comparison.

Target modules are leaf names or "all-linear", initialisations are peft's words, a rate that a trainer logged is the configured one, and
what only one run says is taken for the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from advisor.stacks.targets import available_targets
from advisor.values import ALL_LINEAR, ModelSpec, Quantization
from advisor.values.evidence import Facts, RunFacts

SAME_RATE = 0.05
"""Share by which two learning rates may differ and be one. Judgement: the highest *logged* rate of a cosine schedule was up to 3.5 % below
the configured one (TRL, 76 steps), and two rates that anybody compares are further apart."""
SAME_LENGTH = 0.05
"""The same for epochs: a trainer's count ends on a fraction."""
_Known = TypeVar("_Known")
EVERY_LINEAR = (
    frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),  # Llama and its kin
    frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),  # GPT-NeoX, Falcon, Bloom
)
"""All linear layers of a block, by name, for models whose shape is not known (transformers 5.23, modeling_*.py)."""
DEFAULT_INITS = frozenset({"", "true", "default", "kaiming", "none"})
"""peft 0.21 tuners/lora/config.py `init_lora_weights`: True is its own initialisation."""
_PATTERN = re.compile(r"[\\|()\[\]*+?^$]")
_WORD = re.compile(r"[A-Za-z_]\w*")


def canonical(facts: Facts) -> Facts:
    """Return the facts with every run spelled in one way."""
    adapters = [run for run in facts.runs if run.method.has_adapter]
    spelled = {run.targets: canonical_targets(run.targets, facts.model) for run in adapters}
    targets = _only(spelled.values())
    batch, precision = _only(run.batch for run in facts.runs), _only(run.precision for run in facts.runs)
    alphas: dict[int | None, set[float]] = {}
    for run in adapters:
        alphas.setdefault(run.rank, set()).update([run.alpha] if run.alpha is not None else [])
    rates = _configured([run.learning_rate for run in facts.runs if run.learning_rate is not None])
    runs = []
    for run in facts.runs:
        changes: dict[str, object] = {
            "batch": run.batch or batch,
            "precision": run.precision or precision,
            "learning_rate": None if run.learning_rate is None else rates[run.learning_rate],
        }
        if run.method.has_adapter:
            changes |= {
                "targets": spelled[run.targets] or targets,
                "alpha": run.alpha or _only(alphas[run.rank]),
                "init": "" if run.init.lower() in DEFAULT_INITS else run.init.lower(),
                "quantization": run.quantization or (Quantization.NF4 if run.method.is_quantized else None),
            }
        runs.append(run.model_copy(update=changes))
    return facts.model_copy(update={"runs": tuple(runs)})


def _only(values: Iterable[_Known | None]) -> _Known | None:
    """The one value that is known; None where runs differ, or none says it."""
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None


def _configured(rates: Sequence[float]) -> dict[float, float]:
    """Each rate with the roundest of those that are the same as it."""
    groups: list[list[float]] = []
    for rate in sorted(set(rates)):
        if groups and rate <= groups[-1][0] * (1 + SAME_RATE):
            groups[-1].append(rate)
        else:
            groups.append([rate])
    return {rate: min(group, key=lambda each: (len(f"{each:.6g}"), -each)) for group in groups for rate in group}


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


def same_length(first: RunFacts, second: RunFacts) -> bool:
    """Whether two runs passed over their data equally often; a run that does not say is taken to have."""
    if first.epochs is None or second.epochs is None:
        return True
    return abs(first.epochs - second.epochs) <= SAME_LENGTH * max(first.epochs, second.epochs)
