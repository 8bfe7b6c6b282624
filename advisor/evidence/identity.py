"""One spelling for each set-up: runs that say the same in other words are one and the same to every comparison.

Target modules are leaf names or "all-linear", initialisations are peft's words, a rate that a trainer logged is the configured one, and
what only one run says is taken for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from advisor.stacks.spelling import SAME_RATE, canonical_targets
from advisor.values import Quantization
from advisor.values.evidence import Facts, RunFacts

SAME_LENGTH = 0.05
"""Share by which the epochs of two runs may differ and be one number: a trainer's count ends on a fraction. Judgement."""
_Known = TypeVar("_Known")
DEFAULT_INITS = frozenset({"", "true", "default", "kaiming", "none"})
"""peft 0.21 tuners/lora/config.py `init_lora_weights`: True is its own initialisation."""


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


def same_length(first: RunFacts, second: RunFacts) -> bool:
    """Whether two runs passed over their data equally often; a run that does not say is taken to have."""
    if first.epochs is None or second.epochs is None:
        return True
    return abs(first.epochs - second.epochs) <= SAME_LENGTH * max(first.epochs, second.epochs)
