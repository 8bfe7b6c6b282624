"""What the caching allocator holds idle at the peak: cached segments that no live tensor fills."""

from __future__ import annotations

from typing import NamedTuple

from advisor.memory.program import Program
from advisor.memory.tape import Size
from advisor.values import DType, Head, Loss, ModelKind, ModelSpec, PhaseBytes, Plan, Stack, Term


class Slack(NamedTuple):
    """Bytes that are reserved beyond the live ones, as a function of the batch.

    Tensors of the head and of the blocks differ so much in size that hardly any segment serves both: at the peak of the one, the
    segments of the other are cached and idle. So the slack is the lesser of the two transients.

    Optimizer states on the card settle in the segments that the head left, because they are made after the first backward; the head's
    next tensors then need segments of their own, which are idle when gradients and the step's temporaries come. So the slack is no less
    than what head and step both need, as far as states can settle. DeepSpeed makes its states before the first forward pass, when nothing
    has left a segment yet (DeepSpeed 0.19.8 runtime/zero/stage3.py and stage_1_and_2.py `initialize_optimizer_states`): none settle.

    Read off the replay of traced steps (torch c10/cuda/CUDACachingAllocator.cpp splits a segment where a smaller tensor fits), and off by
    what `advise accuracy` shows: the interval holds that.
    """

    heads: tuple[Size, ...]
    """Candidates for the highest that head and loss go."""
    blocks: tuple[Size, ...]
    """Candidates for the highest that one block goes."""
    settling_bytes: int
    """What the optimizer's step needs, as far as states can settle."""
    logits_bytes_per_token: int
    """16-bit logits whose segments are idle at the peak."""

    def at(self, tokens: int, pairs: int) -> int:
        """For a batch of `tokens` with `pairs` of them in the same sequence."""
        head = max(size.at(tokens, pairs) for size in self.heads)
        block = max(size.at(tokens, pairs) for size in self.blocks)
        return max(min(head, block), min(head, self.settling_bytes)) + self.logits_bytes_per_token * tokens


def slack_of(model: ModelSpec, plan: Plan, program: Program, step: PhaseBytes) -> Slack:
    """The slack of a plan; `step` is the optimizer's phase."""
    held = {term.term: term.bytes for term in step.terms}
    stepping = held.get(Term.GRADIENTS, 0) + held.get(Term.TEMPORARIES, 0)
    logits = dropped_logits_bytes(model, plan, 1) + kept_logits_bytes(model, plan, 1)
    settling = 0 if plan.sharding.is_zero else min(stepping, held.get(Term.OPTIMIZER, 0))
    return Slack(program.head_transients, program.block_transients, settling, logits)


def dropped_logits_bytes(model: ModelSpec, plan: Plan, tokens: int) -> int:
    """16-bit logits that the Trainer drops before backward: it keeps the loss alone (transformers 5.23 trainer.py, `compute_loss`), so that
    their segment is idle when the fp32 copy's gradients peak. A head in fp32 has no copy."""
    drops = plan.stack not in (Stack.PLAIN, Stack.TORCHTUNE)
    return _half_logits_bytes(model, plan, tokens) if drops else 0


def kept_logits_bytes(model: ModelSpec, plan: Plan, tokens: int) -> int:
    """A loop of one's own that keeps its outputs holds the 16-bit logits of the step before until it has the next: they lie in a segment
    of the fp32 copies' size, in place of which the next step needs another (4 bytes a logit)."""
    return 2 * _half_logits_bytes(model, plan, tokens) if plan.stack is Stack.PLAIN else 0


def _half_logits_bytes(model: ModelSpec, plan: Plan, tokens: int) -> int:
    decodes = model.kind is ModelKind.DECODER and plan.head in (None, Head.LM)
    half = not plan.kbit_prepare and (plan.autocast or plan.base_dtype is not DType.FP32)
    return tokens * model.vocab_size * DType.BF16.size_bytes if decodes and half and plan.loss is Loss.FULL else 0
