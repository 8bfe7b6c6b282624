"""Real training of one cut: the model with random weights, the stack's loop, through accelerate. Only the worker loads this module."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from advisor.calibration import losses
from advisor.calibration.backends import Backend
from advisor.dryrun import meta_model, optimizers
from advisor.dryrun.fused_head import ChunkedOutput, FusedOutput
from advisor.dryrun.load import DTYPES
from advisor.dryrun.recorder import Recorder, collect_garbage
from advisor.dryrun.shorten import ConfigCut
from advisor.dryrun.step import HF_MAX_GRAD_NORM
from advisor.errors import UnsupportedError
from advisor.memory.head import WHOLE_LOGITS
from advisor.values import Attention, DType, Loss, ModelSpec, Optimizer, Phase, Plan, Stack

LEARNING_RATE = 1e-5
"""Any would do: the weights are random."""
PADDED_SHARE = 8
"""Where the plan pads, one token of so many is padding (judgement: enough to make the libraries build the mask)."""


@dataclass(slots=True)
class Trainee:
    """A model that is ready to train, and what its loop needs."""

    accelerator: Any
    backend: Backend
    plan: Plan
    built: meta_model.MetaModel
    model: Any
    """As accelerate prepared it: what is called."""
    optimizer: Any
    states: optimizers.TorchOptimizer
    """The optimizer under accelerate's wrapper, whose states are told to the recorder."""
    recorder: Recorder | None
    at: Callable[[Phase], None]
    """Called when a phase begins."""
    kept: Any = None
    """What a plain loop's variables hold until the next forward is through."""


def mixed_precision(plan: Plan) -> str:
    """What Accelerator is asked for. The Trainer leaves autocast to it; a plain loop does its own."""
    if not plan.autocast or plan.stack is Stack.PLAIN:
        return "no"
    return plan.autocast_dtype.value


def build(accelerator: Any, backend: Backend, model: ModelSpec, plan: Plan, layers: int, at: Callable[[Phase], None]) -> Trainee:
    """Make the first `layers` of the model with random weights on the device, adapt them as the plan says, and prepare them."""
    recorder = Recorder(backend.device.type)
    real = plan.model_copy(update={"attention": Attention.SDPA}) if plan.attention is Attention.FLASH else plan
    shape = meta_model.Shape(ConfigCut(tuple(range(layers))), device=str(backend.device))
    built = meta_model.build(model, real, recorder, shape)
    if plan.attention is Attention.FLASH and _has_flash(backend):
        built.base.set_attn_implementation("flash_attention_2")
    if losses.is_real(plan, backend):
        losses.install(built.base, plan.loss)
    with recorder:
        prepared = accelerator.prepare(built.model, device_placement=[False])  # it was built in its place
    inner = _optimizer([parameter for parameter in prepared.parameters() if parameter.requires_grad], plan, backend)
    recorder.places.watch(built.model)
    recorder.track_gradients(built.model)
    return Trainee(accelerator, backend, plan, built, prepared, accelerator.prepare(inner), optimizers.TorchOptimizer(inner), recorder, at)


def notes(plan: Plan, backend: Backend) -> tuple[str, ...]:
    """Where the run differs from the plan."""
    found = []
    if plan.attention is Attention.FLASH and not _has_flash(backend):
        found.append("flash attention ran as torch's SDPA: flash-attn is not installed here")
    real = losses.is_real(plan, backend)
    if plan.loss is Loss.IN_PLACE and not real:
        found.append("the kernel that writes the gradient over the logits ran without its arithmetic: it needs Triton")
    if plan.loss not in WHOLE_LOGITS and not real:
        found.append("the loss in tiles runs with TRL's buffers and products, without the rest of its arithmetic")
    if plan.optimizer is Optimizer.ADAMW and backend.name == "cpu":
        found.append("AdamW ran in its foreach form, as on a card")
    return tuple(found)


def _has_flash(backend: Backend) -> bool:
    from importlib.util import find_spec

    return backend.name in ("cuda", "rocm") and find_spec("flash_attn") is not None


def _optimizer(parameters: list[Any], plan: Plan, backend: Backend) -> Any:
    """The real one, as transformers makes it for the plan's name (5.23 trainer_optimizer.py)."""
    kind = plan.optimizer
    if kind in (Optimizer.ADAMW, Optimizer.ADAMW_FUSED):
        fused = kind is Optimizer.ADAMW_FUSED
        return torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=fused, foreach=not fused)
    if kind is Optimizer.SGD:
        return torch.optim.SGD(parameters, lr=LEARNING_RATE, foreach=True)
    if kind is Optimizer.ADAFACTOR:
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=LEARNING_RATE, scale_parameter=False, relative_step=False)
    import bitsandbytes as bnb

    if kind in (Optimizer.PAGED_ADAMW_8BIT, Optimizer.PAGED_ADAMW_32BIT) and backend.name not in ("cuda", "xpu"):
        raise UnsupportedError(f"{kind.value}: bitsandbytes pages on CUDA and XPU only; try --optimizer {Optimizer.ADAMW_8BIT.value}")
    makers = {
        Optimizer.ADAMW_8BIT: bnb.optim.AdamW8bit,
        Optimizer.PAGED_ADAMW_8BIT: bnb.optim.PagedAdamW8bit,
        Optimizer.PAGED_ADAMW_32BIT: bnb.optim.PagedAdamW32bit,
        Optimizer.LION_32BIT: bnb.optim.Lion32bit,
        Optimizer.LION_8BIT: bnb.optim.Lion8bit,
    }
    return makers[kind](parameters, lr=LEARNING_RATE)


@dataclass(slots=True)
class StepSeconds:
    """Of one optimizer step, each phase summed over its micro-batches."""

    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0


class _Clock:
    """Says that a phase begins, tells the recorder, and takes the time of it with the device waited for."""

    def __init__(self, trainee: Trainee, observe: Callable[[Phase], None] | None) -> None:
        self.trainee = trainee
        self.observe = observe
        self.seconds: dict[Phase, float] = dict.fromkeys(Phase, 0.0)

    def run(self, phase: Phase, work: Callable[[], Any]) -> Any:
        trainee = self.trainee
        trainee.at(phase)
        if trainee.recorder is not None:
            trainee.recorder.begin(phase)
        began = time.perf_counter()
        result = work()
        trainee.backend.synchronise()
        self.seconds[phase] += time.perf_counter() - began
        if self.observe is not None:
            self.observe(phase)
        return result


def step(trainee: Trainee, observe: Callable[[Phase], None] | None = None) -> StepSeconds:
    """One optimizer step, as the stack writes it. `observe` is called after each phase."""
    clock, plan = _Clock(trainee, observe), trainee.plan
    for micro in range(plan.grad_accum_steps):
        last = micro == plan.grad_accum_steps - 1
        with nullcontext() if last else trainee.accelerator.no_sync(trainee.model):
            loss = clock.run(Phase.FORWARD, partial(_forward, trainee))
            clock.run(Phase.BACKWARD, partial(trainee.accelerator.backward, loss))
            del loss
    clock.run(Phase.OPTIMIZER_STEP, partial(_update, trainee))
    return StepSeconds(clock.seconds[Phase.FORWARD], clock.seconds[Phase.BACKWARD], clock.seconds[Phase.OPTIMIZER_STEP])


def _forward(trainee: Trainee) -> Any:
    plan = trainee.plan
    inputs = _batch(trainee)
    if plan.stack is Stack.PLAIN:
        outputs = _call_plainly(trainee, inputs)
        trainee.kept = outputs
        return outputs.loss
    if not trainee.built.is_classifier:
        inputs["num_items_in_batch"] = torch.ones((), dtype=torch.int64, device=trainee.backend.device)
    outputs = trainee.model(**inputs)
    return outputs.loss if isinstance(outputs, (ChunkedOutput, FusedOutput)) else outputs["loss"]


def _call_plainly(trainee: Trainee, inputs: dict[str, Any]) -> Any:
    plan = trainee.plan
    if plan.loss not in WHOLE_LOGITS:
        inputs["num_items_in_batch"] = 1
    if not plan.autocast:
        return trainee.model(**inputs)
    with torch.autocast(trainee.backend.device.type, dtype=DTYPES[plan.autocast_dtype]):
        return trainee.model(**inputs)


def _batch(trainee: Trainee) -> dict[str, Any]:
    """Random ids, with every label counted; padded at the end where the plan pads."""
    plan, device = trainee.plan, trainee.backend.device
    rows, tokens = plan.micro_batch_size, plan.seq_len_tokens
    words = trainee.built.base.get_input_embeddings().weight.shape[0]
    inputs = {
        "input_ids": torch.randint(0, words, (rows, tokens), device=device),
        "attention_mask": torch.ones((rows, tokens), dtype=torch.int64, device=device),
    }
    if plan.padding:
        inputs["attention_mask"][:, -max(tokens // PADDED_SHARE, 1) :] = 0
    inputs["labels"] = torch.zeros(rows, dtype=torch.int64, device=device) if trainee.built.is_classifier else inputs["input_ids"].clone()
    return inputs


def _update(trainee: Trainee) -> None:
    """Clipping where the stack clips, the update, and the gradients set to None."""
    if trainee.plan.stack is not Stack.PLAIN:
        trainee.accelerator.clip_grad_norm_(trainee.model.parameters(), HF_MAX_GRAD_NORM)
    trainee.optimizer.step()
    if trainee.recorder is not None:
        optimizers.label_states(trainee.states, trainee.recorder)
    trainee.optimizer.zero_grad()


def release(trainee: Trainee) -> None:
    """Let go of the model, so that the next cut begins with a clean device."""
    trainee.model = trainee.optimizer = trainee.states = trainee.built = trainee.kept = None  # type: ignore[assignment]
    trainee.accelerator.free_memory()
    collect_garbage()
    trainee.backend.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """torch says it in as many ways as it has allocators, and cuBLAS and cuDNN in their own (CUBLAS_STATUS_ALLOC_FAILED)."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = (
        "can't allocate memory",
        "not enough memory",
        "out of memory",
        "Cannot allocate memory",
        "std::bad_alloc",
        "STATUS_ALLOC_FAILED",
    )
    return isinstance(error, (RuntimeError, OSError)) and any(word in str(error) for word in words)


def dtype_supported(plan: Plan, backend: Backend) -> bool:
    """bf16 is everywhere but on cards before Ampere."""
    wants_bf16 = DType.BF16 in (plan.base_dtype, plan.autocast_dtype if plan.autocast else plan.base_dtype)
    return not wants_bf16 or backend.name != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
