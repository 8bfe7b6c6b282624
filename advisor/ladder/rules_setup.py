"""Rules about the set-up: options that the card, the model or the stack does not go with."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.ladder.knowledge import threshold
from advisor.ladder.situation import Situation
from advisor.stacks import defaults_of, first_attention, targets
from advisor.values import Attention, DType, Finding, Level, Method, Precision


def seq_beyond_positions(s: Situation) -> Iterator[Finding]:
    """Longer sequences than the model was trained on."""
    seq, limit = s.focus.plan.seq_len_tokens, s.case.model.max_position_tokens
    if limit is None or seq <= limit:
        return
    yield Finding(
        id="seq-beyond-positions",
        level=Level.WARNING,
        message=f"{seq:,} tokens are beyond the {limit:,} positions that {s.case.model.id} was trained for",
        hint=f"--seq-len {limit}, or position scaling, which is not priced here",
        numbers={"seq_len_tokens": seq, "max_position_tokens": limit},
    )


def bf16_unsupported(s: Situation) -> Iterator[Finding]:
    """The card has no bf16 arithmetic."""
    plan, gpu = s.focus.plan, s.case.gpu
    if gpu.bf16_supported:
        return
    bf16 = DType.BF16 in (plan.base_dtype, plan.adapter_dtype) or (plan.autocast and plan.autocast_dtype is DType.BF16)
    yield Finding(
        id="bf16-unsupported",
        level=Level.WARNING,
        message=f"{gpu.name} has no bf16: "
        + ("this plan's bf16 is emulated or refused there" if bf16 else "the plan runs in fp16 with loss scaling"),
        hint="--precision fp16"
        if bf16 and plan.base_dtype is DType.BF16
        else "watch the loss scale in the first steps; fp16 overflows where bf16 does not",
        numbers={"usable_bytes": gpu.usable_bytes},
    )


def fp16_weights_trained(s: Situation) -> Iterator[Finding]:
    """Full fine-tuning of fp16 weights: torch's GradScaler refuses their gradients (torch 2.13 amp/grad_scaler.py)."""
    plan = s.focus.plan
    if plan.method is not Method.FULL or plan.base_dtype is not DType.FP16:
        return
    yield Finding(
        id="fp16-weights-trained",
        level=Level.WARNING,
        message="full fine-tuning of fp16 weights cannot scale its loss: torch refuses to unscale fp16 gradients",
        hint=f"--precision {Precision.FP16_AMP.value} keeps fp32 weights",
    )


def batch_high(s: Situation) -> Iterator[Finding]:
    """LoRA's results decay at large batches, whatever the rank."""
    plan = s.focus.plan
    sequences = plan.micro_batch_size * plan.grad_accum_steps * plan.n_gpus
    if not plan.method.has_adapter or sequences <= threshold("effective_batch_high"):
        return
    yield Finding(
        id="batch-high",
        level=Level.WARNING,
        message=f"{sequences} sequences per step: LoRA was at its best up to 128 and fell behind above, at any rank",
        hint="16 to 32 is a good first value",
        numbers={"sequences_per_step": sequences},
        evidence=("B1", "B2"),
    )


def targets_without_mlp(s: Situation) -> Iterator[Finding]:
    """Adapters on attention alone."""
    plan, model = s.focus.plan, s.case.model
    if not plan.method.has_adapter or s.request.target_modules is None or model.tables is None:
        return
    if any(linear.part != "attention" for _, linear, *_ in targets(model, plan.target_modules)):
        return
    yield Finding(
        id="targets-without-mlp",
        level=Level.WARNING,
        message="no adapter on the MLP: attention-only adapters lost about 3 points at equal parameters",
        hint="--target-modules all-linear",
        numbers={"lost_points": 3.1},
        evidence=("T1", "T2", "T3"),
    )


def loss_not_in_stack(s: Situation) -> Iterator[Finding]:
    """A loss that the stack does not compute by itself."""
    plan = s.focus.plan
    stack = defaults_of(plan.stack)
    if plan.loss in stack.losses:
        return
    yield Finding(
        id="loss-not-in-stack",
        level=Level.WARNING,
        message=f"{stack.label} has no {plan.loss.value} loss of its own: the price holds for code that adds it",
        hint=f"--loss {stack.loss.value.value} is what it runs",
    )


def attention_unsupported(s: Situation) -> Iterator[Finding]:
    """A kernel that transformers does not offer for the architecture."""
    asked, model = s.focus.plan.attention, s.case.model
    if asked is Attention.EAGER or (model.flash if asked is Attention.FLASH else model.sdpa):
        return
    yield Finding(
        id="attention-unsupported",
        level=Level.WARNING,
        message=f"transformers refuses {asked.value} attention for {s.case.model.model_type}",
        hint=f"--attention {first_attention(s.case.model).value} is what it runs",
    )
