"""The hand-written training loop of the plain stack, as source text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.ladder.snippet_parts import torch_dtype
from advisor.values import DType, Optimizer, Plan


class _Build(NamedTuple):
    """How an optimizer is made without a Trainer."""

    imports: tuple[str, ...]
    name: str
    settings: str = ""


_BITSANDBYTES = ("import bitsandbytes as bnb",)
OPTIMIZERS = {
    Optimizer.ADAMW: _Build((), "torch.optim.AdamW"),
    Optimizer.ADAMW_FUSED: _Build((), "torch.optim.AdamW", ", fused=True"),
    Optimizer.ADAMW_8BIT: _Build(_BITSANDBYTES, "bnb.optim.AdamW8bit"),
    Optimizer.PAGED_ADAMW_32BIT: _Build(_BITSANDBYTES, "bnb.optim.PagedAdamW32bit"),
    Optimizer.PAGED_ADAMW_8BIT: _Build(_BITSANDBYTES, "bnb.optim.PagedAdamW8bit"),
    Optimizer.LION_32BIT: _Build(_BITSANDBYTES, "bnb.optim.Lion32bit"),
    Optimizer.LION_8BIT: _Build(_BITSANDBYTES, "bnb.optim.Lion8bit"),
    Optimizer.ADAFACTOR: _Build(
        ("from transformers.optimization import Adafactor",), "Adafactor", ", scale_parameter=False, relative_step=False"
    ),
    Optimizer.SGD: _Build((), "torch.optim.SGD"),
}


def loop_lines(plan: Plan, learning_rate: str) -> Iterator[str]:
    """Optimizer and loop: `outputs` stays alive through backward, as priced."""
    build = OPTIMIZERS[plan.optimizer]
    if plan.gradient_checkpointing and not plan.kbit_prepare:
        yield 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})'
    if plan.n_gpus > 1:
        wrapper = "torch.distributed.fsdp.fully_shard, block by block" if plan.sharding.shards_weights else "DistributedDataParallel"
        yield f"# wrap the model here: {wrapper}"
    yield "trained = [parameter for parameter in model.parameters() if parameter.requires_grad]"
    yield f"optimizer = {build.name}(trained, lr={learning_rate}{build.settings})"
    scaled = plan.autocast and plan.autocast_dtype is DType.FP16
    if scaled:
        yield "scaler = torch.amp.GradScaler()"
    yield from ("", "", "def train(loader):")
    yield f"    for step, batch in enumerate(loader, 1):  # {plan.micro_batch_size} × {plan.seq_len_tokens} tokens with labels"
    indent = " " * 8
    if plan.autocast:
        yield f"{indent}with torch.autocast(model.device.type, dtype={torch_dtype(plan.autocast_dtype)}):"
    yield f"{indent}{'    ' if plan.autocast else ''}outputs = model(**batch)"
    loss = "outputs.loss" if plan.grad_accum_steps == 1 else f"outputs.loss / {plan.grad_accum_steps}"
    yield f"{indent}{f'scaler.scale({loss})' if scaled else f'({loss})'}.backward()"
    if plan.grad_accum_steps > 1:
        yield f"{indent}if step % {plan.grad_accum_steps} == 0:"
        indent += "    "
    yield from (f"{indent}scaler.step(optimizer)", f"{indent}scaler.update()") if scaled else (f"{indent}optimizer.step()",)
    yield f"{indent}optimizer.zero_grad()"
    yield from ("", "", "loader = ...  # yours: batches as the loop takes them, on the model's device", "train(loader)")
