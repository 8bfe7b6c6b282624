"""What shows that a run did not train, or was not what was scored: curves that cannot be right, a score no better than the untuned model's
or far below another method's, modules that never moved."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.evidence.alike import differ_only
from advisor.evidence.focus import is_twin
from advisor.evidence.identity import same_length
from advisor.evidence.lr import gain_from, offset, prior
from advisor.evidence.result import HIGH, MEDIUM, show_score
from advisor.evidence.signatures import (
    HOLDS_ADAPTER,
    MOVED,
    NARROW,
    NUMBERS,
    Cure,
    known_text,
    learned_but_scores_nothing,
    of_curves,
)
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate
from advisor.ladder.learning_rate import show
from advisor.values import Task
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Confidence

CHECKS = (
    "labels and loss mask, chat template, end-of-sequence token, packing, that every adapter module moved (B is not zero), and that the "
    "model that is scored holds the adapter"
)
PERCENT = 100
ADDED = (
    "the end token is trained where the base does not know it: LoRA leaves the embedding and the head as they were unless modules_to_save "
    "names them"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong, what to check, and what is changed first; an empty cure: the rate may be too high or too low."""

    reason: str
    check: str
    cure: Cure | str
    sure: Confidence
    evidence: tuple[str, ...] = ()
    """Facts beside those of the learning rate."""


EVIDENCE = {
    **dict.fromkeys(("not-finite", "nan-at-once", "held-out-nan", "zero", "hidden-nan"), ("E4",)),
    **dict.fromkeys(("constant", "repeating", "unmoved"), ("E3",)),
    **dict.fromkeys(("summed", "apart", "at-uniform"), ("E5",)),
    **dict.fromkeys(("climbing", "spiking"), ("E6",)),
}
"""Facts behind each signature of a curve."""


def failure_of(view: View) -> Failure | None:
    """The first thing that is wrong with the run to go on from, the most telling first."""
    run = view.run
    for found in (curves(view, run), _no_better(view), _failed_rank(view), _untrained(view), _far_below_full(view), _known_text(view)):
        if found is not None:
            return found
    return None


def curves(view: View, run: RunFacts) -> Failure | None:
    vocabulary = view.facts.model.vocab_size if view.facts.model is not None else None
    found = of_curves(run, view.facts.runs, vocabulary, view.objective)
    if found is None:
        return None
    cure, check = cure_of(view, run, found.cure), found.check
    if cure == "precision" and NUMBERS not in check:
        check = NUMBERS
    why = _far_too_low(view, run) if found.cure == "lower" and cure != "lower" else ""
    return Failure(f"run {run.label}: {found.what}{_beside_16_bit(view, run)}{why}", check, cure, HIGH, EVIDENCE.get(found.name, ()))


def _far_too_low(view: View, run: RunFacts) -> str:
    """That a rate is low already, in words; empty where it is not."""
    known, rate = prior(view, run), run.learning_rate
    if known is None or rate is None or rate * gate("lr_doubt") > known.rate:
        return ""
    return f"; {show(rate)} is {offset(rate, known).words} the prior, so no lower rate cures it"


def cure_of(view: View, run: RunFacts, first: Cure) -> Cure:
    """Where the rate is far below what is usual, lowering it further cures nothing: then it is the type of the numbers, or the set-up."""
    known, rate = prior(view, run), run.learning_rate
    if first == "raise" and known is not None and rate is not None and rate > known.rate:
        return "lower"
    if first != "lower":
        return first
    far_below = known is not None and rate is not None and rate * gate("lr_window") <= known.rate
    narrow = run.precision in NARROW
    if narrow and (known is None or rate is None or rate < gate("lr_doubt") * known.rate):
        return "precision"
    if far_below:
        return "precision" if run.precision is None else "setup"
    return "lower"


def _beside_16_bit(view: View, run: RunFacts) -> str:
    """A 4-bit run beside one on a 16-bit base that learned: the fault is of the set-up."""
    if not run.method.is_quantized:
        return ""
    for other in view.facts.runs:
        losses = [point.loss for point in other.train_losses if point.is_finite]
        if not other.method.is_quantized and len(losses) > 1 and losses[-1] < gate("loss_learned") * losses[0]:
            return f", while run {other.label} learned on a 16-bit base: a fault of the 4-bit set-up, not the price of 4 bit"
    return ""


def _no_better(view: View) -> Failure | None:
    """Not clearly above the untuned model."""
    score, base = view.current_score, view.base
    if score is None or base is None or score > base + gate("base_z") * view.error(view.run):
        return None
    below = score < base
    shown = f"{show_score(view, score)}, {'below' if below else 'no better than'} the untuned model's {show_score(view, base)}"
    reason = f"run {view.run.label} scores {shown}"
    if score == base and score and not _far_too_low(view, view.run):
        exactly = f"run {view.run.label} scores exactly what the untuned model does, {show_score(view, base)}: it may not have been there"
        return Failure(exactly, f"{HOLDS_ADAPTER}; then {MOVED}", "evaluation", MEDIUM, ("E3",))
    wrong = learned_but_scores_nothing(view.run)
    if wrong is not None:
        return Failure(f"{reason}; {wrong.what}", wrong.check, wrong.cure, MEDIUM)
    return Failure(reason, CHECKS, "lower" if below else "", HIGH if below and view.items_known else MEDIUM)


def _failed_rank(view: View) -> Failure | None:
    """The next rank up, at the same learning rate, gained more than any capacity explains: this one had failed to train (fact C11)."""
    run = view.run
    for other in view.facts.runs:
        if run.rank is None or other.rank is None or not run.rank < other.rank <= gate("rank_step") * run.rank:
            continue
        difference = view.compare(run, other)
        if not differ_only(run, other, "rank", "alpha") or difference is None or not view.noise.shares:
            continue
        if difference.delta > gate("rank_jump") and difference.wins:
            reason = (
                f"rank {other.rank} scores {100 * difference.delta:.0f} points more at the same learning rate: more than any capacity "
                f"explains, so rank {run.rank} failed to train"
            )
            return Failure(reason, CHECKS, "", MEDIUM)
    return None


def _far_below_full(view: View) -> Failure | None:
    """A run of the same length without adapters, or with others, is better by more than rate, rank or method were ever measured to cost:
    something that it trains is not trained here, or not loaded (QwenLM/Qwen3 issue 1064, an end token beside a frozen head)."""
    run, known = view.run, prior(view, view.run)
    if known is None or run.learning_rate is None or not view.noise.shares or view.objective != "sft" or not run.method.has_adapter:
        return None
    if view.facts.task is Task.KNOWLEDGE:
        return None
    rate = gain_from(offset(run.learning_rate, known)).points.high / PERCENT
    for other in view.facts.runs:
        difference = view.compare(run, other)
        alike = other.method is not run.method and other.data_fraction == run.data_fraction and same_length(run, other)
        if difference is None or not alike or is_twin(run, other):
            continue
        if difference.wins and difference.delta > gate("method_most") + rate:
            reason = (
                f"run {other.label} scores {PERCENT * difference.delta:.0f} points more: more than a rate like this, a rank or a method "
                "was ever measured to cost, so a fault of the set-up"
            )
            return Failure(
                reason, f"{HOLDS_ADAPTER}; that {ADDED}; and that both runs are prompted alike", "evaluation", MEDIUM, ("E1", "E3")
            )
    return None


def _known_text(view: View) -> Failure | None:
    """Running text that was predicted to the letter in its first pass; a score above the untuned model's says that it was learned."""
    score, base = view.current_score, view.base
    scored = score is not None and (base is None or score > base + gate("base_z") * view.error(view.run))
    found = None if scored or view.facts.task is Task.EXTRACTION or view.objective != "sft" else known_text(view.run)
    return None if found is None else Failure(f"run {view.run.label}: {found.what}", found.check, found.cure, MEDIUM)


def _untrained(view: View) -> Failure | None:
    names = view.facts.adapter.untrained_modules if view.facts.adapter is not None else ()
    if not names:
        return None
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    which = "that module" if len(names) == 1 else "those modules"
    return Failure(f"the update of {shown} is zero: {which} did not train", MOVED, "setup", HIGH, ("E3",))
