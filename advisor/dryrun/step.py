"""The training step as each stack writes it: which tensors are still alive when is percents of the peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from advisor.dryrun import compat, optimizers
from advisor.dryrun.fused_head import ChunkedOutput, FusedOutput
from advisor.dryrun.inputs import batch
from advisor.dryrun.meta_model import MetaModel
from advisor.dryrun.recorder import Recorder
from advisor.dryrun.sharded import LocalParameters, micro_step
from advisor.memory.evaluation import evaluated
from advisor.memory.head import WHOLE_LOGITS
from advisor.memory.peak import ending_of
from advisor.values import Phase, Plan, Sharding, Stack

Optimizer = optimizers.StateOnly | optimizers.TorchOptimizer

DISTINCT_MICRO_STEPS = 2
"""Of an accumulation: the first finds no gradients, the second does, and every later one is like the second; on several cards the last
one, which reduces them, is a third kind."""
HF_MAX_GRAD_NORM = 1.0
"""`TrainingArguments.max_grad_norm` (transformers 5.23): the Trainer clips unless it is 0."""


@dataclass(slots=True)
class Loop:
    """A training loop between its steps. `kept` is what its variables still hold when the next step begins."""

    built: MetaModel
    plan: Plan
    trained: LocalParameters
    optimizer: Optimizer
    recorder: Recorder
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    zero_grad_first: bool = False
    """Gradients are set to None at the start of the next step rather than at the end of this one."""
    keep_outputs: bool = True
    """The plain loop's `outputs` variable holds the last step's logits until the next forward is through. False: a step is a function."""
    clips: bool = False
    """A plain loop clips its gradients by their norm."""
    kept: Any = None
    around: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """What a micro-batch runs in."""

    def step(self, seq_len_tokens: int) -> None:
        """One optimizer step: its micro-batches, clipping where the stack clips, the update, and the gradients set to None."""
        if self.zero_grad_first:
            self.optimizer.zero_grad()
        micro_steps = min(self.plan.grad_accum_steps, DISTINCT_MICRO_STEPS + (self.plan.sharding is not Sharding.NONE))
        for number in range(1, micro_steps + 1):
            self.recorder.begin(Phase.FORWARD)
            inputs = self._batch(self.plan.micro_batch_size, seq_len_tokens)
            with self.around, micro_step(self.built, self.plan, last=number == micro_steps):
                _MICRO_STEPS.get(self.plan.stack, _hf)(self, inputs)
            if not self.keep_outputs:
                self.kept = None
            del inputs
        self.recorder.begin(Phase.OPTIMIZER_STEP)
        self.trained.take_gradients()
        if self.clips or self.plan.stack is not Stack.PLAIN:
            _clip([parameter.grad for parameter in self.trained.parameters if parameter.grad is not None])
        self.optimizer.step()
        optimizers.label_states(self.optimizer, self.recorder)
        if not self.zero_grad_first:
            self.optimizer.zero_grad()

    def _batch(self, rows: int, seq_len_tokens: int) -> dict[str, Any]:
        return batch(self.built.base, self.plan, (rows, seq_len_tokens), self.built.is_classifier, self.recorder)

    @torch.no_grad()
    def evaluate(self, rows: int, seq_len_tokens: int) -> None:
        """One step of an evaluation for its loss alone (transformers 5.23 trainer.py, `prediction_step`)."""
        self.recorder.begin(Phase.EVALUATION)
        self.built.model.eval()
        inputs = self._batch(rows, seq_len_tokens)
        with _evaluated_forward(self.built.base, self.plan):
            if self.plan.stack is Stack.PLAIN:
                self.kept = _call_plainly(self, inputs)
            else:
                _hf_compute_loss(self, inputs)
        self.built.model.train()


@contextmanager
def _evaluated_forward(base: Any, plan: Plan) -> Iterator[None]:
    """The model's own forward, where the stack's loss is another in evaluation than in training."""
    ending = ending_of(plan)
    if evaluated(ending, plan.stack) == ending:
        yield
        return
    installed = base.__dict__.pop("forward")
    try:
        yield
    finally:
        base.forward = installed


@torch.no_grad()
def _clip(gradients: list[Any]) -> None:
    """torch 2.13 nn/utils/clip_grad.py, `clip_grad_norm_` with its foreach path (which refuses to be asked for on meta)."""
    by_dtype: dict[torch.dtype, list[Any]] = {}
    for gradient in gradients:
        by_dtype.setdefault(gradient.dtype, []).append(gradient)
    norms = [norm for group in by_dtype.values() for norm in torch._foreach_norm(group, 2.0)]
    total = torch.linalg.vector_norm(torch.stack(norms), 2.0)
    scale = torch.clamp(HF_MAX_GRAD_NORM / (total + 1e-6), max=1.0)
    for group in by_dtype.values():
        torch._foreach_mul_(group, scale)


def _plain(loop: Loop, inputs: dict[str, Any]) -> None:
    """`outputs = model(...); outputs.loss.backward()`: the logits live through backward, and until the next step's are there."""
    loop.kept = outputs = _call_plainly(loop, inputs)
    loop.recorder.begin(Phase.BACKWARD)
    outputs.loss.backward()


def _call_plainly(loop: Loop, inputs: dict[str, Any]) -> Any:
    with loop.autocast():
        if loop.plan.loss not in WHOLE_LOGITS:
            inputs = {**inputs, "num_items_in_batch": 1}
        return loop.built.model(**inputs)


def _hf(loop: Loop, inputs: dict[str, Any]) -> None:
    """transformers 5.23 trainer.py, `training_step`: `compute_loss` returns the loss alone, so the outputs die before backward."""
    loss = _hf_compute_loss(loop, inputs)
    loop.recorder.begin(Phase.BACKWARD)
    loss.backward()


def _hf_compute_loss(loop: Loop, inputs: dict[str, Any]) -> Any:
    if not loop.built.is_classifier and compat.takes_loss_kwargs(loop.built.base):
        inputs = {**inputs, "num_items_in_batch": torch.ones((), dtype=torch.int64, device=loop.recorder.device_type)}
    with loop.autocast():
        outputs = loop.built.model(**inputs)
    if isinstance(outputs, FusedOutput):
        return outputs.loss
    if loop.plan.autocast:
        # accelerate 1.15 utils/operations.py, convert_outputs_to_fp32
        logits = outputs.logits
        outputs.logits = tuple(chunk.float() for chunk in logits) if isinstance(logits, tuple) else logits.float()
        outputs.loss = outputs.loss.float()
        del logits
    return outputs.loss if isinstance(outputs, ChunkedOutput) else outputs["loss"]


def _trl(loop: Loop, inputs: dict[str, Any]) -> None:
    """trl 1.16 trainer/sft_trainer.py, `compute_loss` inside the Trainer's step."""
    _hf(loop, inputs)


_MICRO_STEPS: dict[Stack, Callable[[Loop, dict[str, Any]], None]] = {Stack.PLAIN: _plain, Stack.HF: _hf, Stack.TRL: _trl}
