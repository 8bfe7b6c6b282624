"""What the shape of a loss curve gives away: each signature is a plain function of curves, and names the check that tells.

Where a source is published it stands at the function; the shapes themselves are what the causes must do to a cross-entropy loss, whose
value for a uniform guess over V tokens is ln V.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isclose, isfinite, log
from typing import Literal

from advisor.evidence.alike import SETUP
from advisor.evidence.losses import FEWEST_POINTS, has_spiked, tail_mean
from advisor.ladder.knowledge import gate
from advisor.stacks.spelling import same_rate
from advisor.values import Precision
from advisor.values.evidence import LossPoint, RunFacts

Objective = Literal["sft", "dpo", "rl"]
Cure = Literal["lower", "raise", "precision", "setup", "evaluation"]
"""What is changed first: the learning rate, the type of the numbers, or, where no rate helps, the set-up or what scores it."""
EXACT = 1e-6
"""Relative difference below which two logged losses are one number: trainers round to four digits or more (transformers 5.23
Trainer.log)."""
WORDS = {"use_rslora": "rank-stabilised scaling", "init": "the initialisation", "batch": "the batch", "quantization": "the 4-bit base"}
WORDS |= {name: f"the {name.replace('_', ' ')}" for name in ("method", "rank", "targets", "precision", "learning_rate")}
"""Settings of a run as a sentence names them."""
LABELS = "the labels and the loss mask of one batch: decode the tokens whose label is not -100"
MOVED = "that the trained parameters move: requires_grad, the optimizer's parameter groups, and B of every adapter module (not zero)"
STEPS = "that the gradient is clipped and the rate warmed up, the type of the numbers (bf16, not fp16), and the batch at which it turned"
NUMBERS = "the type that the weights are loaded in: fp16 overflows at 65,504, bf16 does not, so load in bf16 or keep the weights in fp32"
KERNEL = "another attention kernel (attn_implementation eager or sdpa)"
"""hiyouga/LlamaFactory issue 8088, huggingface/transformers issues 28488 and 31997: neither type cured it, another kernel did."""
UNLABELLED = "for a batch without a single label, whose mean is nought divided by nought: a prompt that is cut or masked to its end"
HOLDS_ADAPTER = (
    "that the model that is scored holds the adapter: loaded from the folder that was trained (get_peft_model makes a fresh one), or "
    "merged into the base that it was trained on, with outputs of one prompt that change when it is switched off"
)
NARROW = (Precision.FP16, Precision.FP16_AMP)
"""Types that overflow where bf16 does not."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A curve that cannot be right, in words, the check that tells the cause, and what is changed first."""

    name: str
    what: str
    check: str
    cure: Cure


def not_finite(points: Sequence[LossPoint]) -> Signature | None:
    """NaN or infinity: the numbers overflowed, by a rate that is too high or a type that is too narrow. Before the first update it is
    neither: a mask that left no label made it in mlx-lm pull request 1355."""
    first = next((point for point in points if not point.is_finite), None)
    if first is None:
        return None
    if first is points[0] and 0 < first.step <= 1:
        what = "the loss is NaN or infinite at its first step, before anything was updated, so no learning rate made it so"
        return Signature("nan-at-once", what, f"{UNLABELLED}; then {NUMBERS}; then {KERNEL}", "setup")
    return Signature("not-finite", f"the loss is NaN or infinite from step {first.step:g} on", f"{NUMBERS}; then {KERNEL}", "lower")


def held_out_not_finite(run: RunFacts) -> Signature | None:
    """Evaluation alone gives NaN: examples without a label, or a type that overflows where no loss scaling helps (arielnlee/Platypus
    issue 14, modelscope/ms-swift issue 5580). A rate that was too high would have broken the training loss."""
    first = next((point for point in run.eval_losses if not point.is_finite), None)
    if first is None or not run.train_losses:
        return None
    what = f"the evaluation loss is NaN or infinite from step {first.step:g} on, while the training loss is a number"
    check = f"the evaluation set {UNLABELLED}; then {NUMBERS}"
    return Signature("held-out-nan", what, check, "precision" if run.precision in NARROW else "evaluation")


def zero(points: Sequence[LossPoint]) -> Signature | None:
    """A loss of exactly nothing: no token has a label, or NaN that the trainer logs as zero (transformers 5.23
    TrainingArguments.logging_nan_inf_filter, on by default)."""
    first = next((number for number, point in enumerate(points) if point.loss == 0), None)
    if first is None:
        return None
    if first > 0:
        what = f"the loss is exactly zero from step {points[first].step:g} on: NaN, which the trainer logs as zero"
        return Signature(
            "hidden-nan", what, f"with logging_nan_inf_filter=False where the first NaN comes; then {NUMBERS}; then {KERNEL}", "lower"
        )
    what = "the loss is exactly zero: no token has a label, or NaN is logged as zero"
    return Signature("zero", what, f"{LABELS}; with logging_nan_inf_filter=False whether it is NaN; then {NUMBERS}; then {KERNEL}", "setup")


def constant(points: Sequence[LossPoint]) -> Signature | None:
    """The same number at every step: nothing that the loss depends on is trained."""
    losses = _finite(points)
    if len(losses) < FEWEST_POINTS or not all(_is(loss, losses[0]) for loss in losses):
        return None
    return Signature("constant", f"the loss is {losses[0]:g} at every step: nothing that it depends on is trained", MOVED, "setup")


def repeating(points: Sequence[LossPoint]) -> Signature | None:
    """The same numbers in the same order, epoch after epoch: the data pass by, and the weights stay."""
    losses = _finite(points)
    for period in range(2, len(losses) // 2 + 1):
        if all(_is(losses[index], losses[index % period]) for index in range(period, len(losses))):
            what = f"the losses repeat every {period} points to the last digit: the data pass by and the weights stay"
            return Signature("repeating", what, MOVED, "setup")
    return None


def at_uniform(points: Sequence[LossPoint], vocabulary: int | None) -> Signature | None:
    """The first loss is ln V or more: no better than a guess, so that labels, template or loaded weights are not the model's own."""
    losses = _finite(points)
    if vocabulary is None or not losses or losses[0] < gate("loss_uniform") * log(vocabulary):
        return None
    worse = "worse than" if losses[0] > log(vocabulary) else "no better than"
    what = f"the first loss, {losses[0]:.3g}, is {worse} guessing among the {vocabulary:,} tokens (ln V = {log(vocabulary):.3g})"
    check = f"that tokenizer, chat template and checkpoint belong together, and how the weights were loaded; then {LABELS}"
    if losses[0] >= gate("loss_summed") * log(vocabulary):
        check = f"{MEAN}; then {check}"
    return Signature("at-uniform", what, check, "setup")


MEAN = "that the logged loss is a mean over the labels: passes of an accumulated step that are added up and not averaged scale it"


def summed(run: RunFacts, others: Iterable[RunFacts]) -> Signature | None:
    """As many sequences per step in more passes, and a first loss that is higher in about that proportion: the passes are added up and
    not averaged (hiyouga/LlamaFactory issue 7443, transformers pull request 35438)."""
    losses = _finite(run.train_losses)
    if not losses or run.micro_batch is None or run.batch is None or losses[0] <= 0:
        return None
    for other in others:
        theirs = _finite(other.train_losses)
        if not theirs or other.batch != run.batch or other.micro_batch is None or theirs[0] <= 0:
            continue
        passes, loss = other.micro_batch / run.micro_batch, losses[0] / theirs[0]
        if passes < 1:
            passes, loss = 1 / passes, 1 / loss
        if passes >= 2 and loss > passes**SUMMED_POWER:
            what = f"its first loss is {losses[0]:.3g} beside {theirs[0]:.3g} of run {other.label}, with as many sequences per step in "
            what += f"micro-batches of {run.micro_batch} and {other.micro_batch}"
            return Signature("summed", what, f"{MEAN}, and so the gradient", "setup")
    return None


SUMMED_POWER = 0.6
"""Power of the passes that the loss must exceed: 32 against 2, 4 and 16 passes gave 21, 10 and 2 times the loss (LlamaFactory issue 7443).
Judgement: far above the scatter of two batches."""


def climbing(points: Sequence[LossPoint]) -> Signature | None:
    """The loss went down and came back up far beyond its scatter, or ended above its start: the steps are too long (facts LR6, LR7)."""
    losses = _finite(points)
    if len(losses) < FEWEST_POINTS:
        return None
    end, lowest, start = tail_mean(losses), min(losses), losses[0]
    if end < gate("climb_start") * start and not (end >= gate("climb_lowest") * lowest and 2 * end >= start):
        return None
    return Signature("climbing", f"the loss fell to {lowest:.3g} and ended at {end:.3g}, from {start:.3g} at its start", STEPS, "lower")


def apart(run: RunFacts, others: Iterable[RunFacts]) -> Signature | None:
    """Within the first steps a loss several times that of another run: one model begins alike on the same data whatever the method, so
    that prompts, labels or loaded weights are not the same (unslothai/unsloth issue 344, MuLabPKU/PiSSA issue 38)."""
    first = next((point for point in run.train_losses if point.is_finite), None)
    if first is None or not 0 < first.step <= EARLY:
        return None
    for other in others:
        theirs = next((point for point in other.train_losses if point.is_finite), None)
        faster = (run.learning_rate or 0) > 2 * (other.learning_rate or 0)
        if theirs is None or theirs.step != first.step or faster or not 0 < gate("loss_apart") * theirs.loss < first.loss:
            continue
        what = (
            f"its loss begins at {first.loss:.3g} where that of run {other.label} begins at {theirs.loss:.3g}: one model on the same data "
        )
        what += "begins alike, whatever the method"
        check = f"that prompts, chat template, base weights and attention kernel are those of the other run; then {LABELS}"
        return Signature("apart", what, check, "setup")
    return None


EARLY = 10
"""Step up to which a loss is that of the model as it was loaded. Judgement: warm-up is longer, and trainers log from there on."""


def known_text(run: RunFacts) -> Signature | None:
    """Within the first pass the loss of running text went to almost nothing: what is predicted stands in the prompt already, or the answers
    are all the same (huggingface/trl issue 834: the answer was left out). Answers of a label or a format may be that easy."""
    losses = [point for point in run.train_losses if point.is_finite]
    if len(losses) < FEWEST_POINTS or run.epochs is None:
        return None
    first_pass = [point.loss for point in losses if point.step * max(1.0, run.epochs) <= losses[-1].step]
    if len(first_pass) < FEWEST_POINTS or not 0 < first_pass[-1] < gate("loss_known"):
        return None
    what = f"the training loss fell to {first_pass[-1]:.2g} within the first pass over the data: no unseen text is that easy"
    check = "one batch, decoded: whether the answers stand in it, differ, and are not in the prompt already"
    return Signature("known-text", what, check, "setup")


def exploded(points: Sequence[LossPoint]) -> Signature | None:
    """In reinforcement learning a loss of many times one is the divergence from the reference, at a small weight: the policy is gone."""
    losses = _finite(points)
    if len(losses) < FEWEST_POINTS or tail_mean(losses) < EXPLODED * max(1.0, losses[0]):
        return None
    return Signature("spiking", f"the loss rose to {tail_mean(losses):.3g}: the policy left its reference for good", STEPS, "lower")


EXPLODED = 10
"""Loss of reinforcement learning, and times its first, from which that is said. Judgement: in runs that learn it stays below one."""


def spiking(run: RunFacts) -> Signature | None:
    """A jump without return, as the curve shows it or as it was told."""
    if not run.diverged and not has_spiked(run):
        return None
    return Signature("spiking", "the loss spiked and did not come back", STEPS, "lower")


def unmoved(points: Sequence[LossPoint]) -> Signature | None:
    """The loss ended where it began, within its scatter."""
    losses = _finite(points)
    if len(losses) < FEWEST_POINTS or losses[0] <= 0 or tail_mean(losses) < gate("loss_unmoved") * losses[0]:
        return None
    return Signature("unmoved", "the training loss ended where it began", f"{MOVED}; then {LABELS}", "raise")


def dead_flag(run: RunFacts, others: Iterable[RunFacts]) -> Signature | None:
    """Two runs of different set-ups have one and the same curve: the setting in which they differ never reached the training."""
    losses = _finite(run.train_losses)
    if len(losses) < FEWEST_POINTS or constant(run.train_losses) is not None:
        return None
    for other in others:
        theirs = _finite(other.train_losses)
        if other is run or len(theirs) != len(losses) or not all(map(_is, losses, theirs)):
            continue
        different = [name for name in SETUP if getattr(run, name) != getattr(other, name)]
        if not same_rate(run.learning_rate, other.learning_rate):
            different.append("learning_rate")
        if different:
            named = " and ".join(WORDS.get(name, name.replace("_", " ")) for name in different)
            what = f"its losses are those of run {other.label} to the last digit, although {named} is not the same"
            check = f"that {named} reaches the training: print adapter_config.json and the trainer's arguments as they were run"
            return Signature("dead-flag", what, check, "setup")
    return None


def learned_but_scores_nothing(run: RunFacts) -> Signature | None:
    """Both losses fell far and stayed low, so that the model fits the data and the score is of something else (method evidence, R7)."""
    train, held_out = _finite(run.train_losses), _finite(run.eval_losses)
    if min(len(train), len(held_out)) < FEWEST_POINTS:
        return None
    if tail_mean(train) > gate("loss_learned") * train[0] or tail_mean(held_out) > gate("loss_learned") * held_out[0]:
        return None
    check = f"{HOLDS_ADAPTER}; that the evaluation prompts as training did: chat template, an end token that is trained, and how answers "
    check += "are extracted"
    return Signature(
        "wrong-question", "both losses fell far, so the model fits the data, and the score shows nothing of it", check, "evaluation"
    )


def of_curves(run: RunFacts, others: Sequence[RunFacts], vocabulary: int | None, objective: Objective = "sft") -> Signature | None:
    """The first signature that the run's losses show, the most telling first.

    In reinforcement learning the loss is no measure: it may be zero, stand still or rise in a run that learns (huggingface/trl issue 3452,
    aburkov/theLMbook issue 6). That of preference tuning begins at ln 2 whatever the vocabulary, and may go to zero.
    """
    broken = not_finite(run.train_losses or run.eval_losses)
    if objective == "rl":
        return broken or exploded(run.train_losses) or (spiking(run) if run.diverged else dead_flag(run, others))
    if objective == "sft" and broken is None:
        broken = zero(run.train_losses) or held_out_not_finite(run)
    stands = constant(run.train_losses) or repeating(run.train_losses)
    level = (summed(run, others) or at_uniform(run.train_losses, vocabulary) or apart(run, others)) if objective == "sft" else None
    moves = climbing(run.train_losses) or spiking(run) or dead_flag(run, others) or unmoved(run.train_losses)
    return broken or stands or level or moves


def _finite(points: Sequence[LossPoint]) -> list[float]:
    return [point.loss for point in points if isfinite(point.loss)]


def _is(first: float, second: float) -> bool:
    return isclose(first, second, rel_tol=EXACT)
