"""A small project with a known limit: a frozen network, a teacher that differs from it by a known rank, and students trained with peft.

Items are random vectors, their labels the teacher's classes. What is limited is chosen: the rank of the student's adapter, its learning
rate, the amount of data, or the number of items that it is scored on. Everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from advisor import RunFacts
from advisor.values import Method
from advisor.values.evidence import LossPoint

INPUTS, HIDDEN, CLASSES = 32, 64, 10
BATCH = 64
LOGGED = 20
"""Losses that a run logs."""
LARGE_EVALUATION = 4000


@dataclass(frozen=True)
class Task:
    """The frozen network, the teacher, and the data. `teacher_rank` is the rank of what has to be learned."""

    seed: int
    teacher_rank: int
    examples: int
    items: int

    @cached_property
    def base(self) -> Any:
        torch.manual_seed(self.seed)
        return _network()

    @cached_property
    def teacher(self) -> Any:
        torch.manual_seed(self.seed)
        teacher = _network()
        generator = torch.Generator().manual_seed(1000 + self.seed)
        with torch.no_grad():
            for layer in (teacher.first, teacher.second):
                left = torch.randn(layer.out_features, self.teacher_rank, generator=generator)
                right = torch.randn(self.teacher_rank, layer.in_features, generator=generator)
                update = left @ right
                layer.weight += update * (layer.weight.norm() / update.norm())
        return teacher

    def sample(self, count: int, stream: int) -> tuple[Any, Any]:
        """Inputs and the teacher's classes."""
        generator = torch.Generator().manual_seed(10_000 * stream + self.seed)
        inputs = torch.randn(count, INPUTS, generator=generator)
        with torch.no_grad():
            return inputs, self.teacher(inputs).argmax(dim=1)

    @cached_property
    def held_out(self) -> tuple[Any, Any]:
        return self.sample(self.items, stream=2)

    def base_score(self) -> float:
        inputs, labels = self.sample(LARGE_EVALUATION, stream=3)
        with torch.no_grad():
            return float((self.base(inputs).argmax(dim=1) == labels).float().mean())


@dataclass(frozen=True)
class Setup:
    """What is chosen for one run."""

    rank: int
    learning_rate: float
    steps: int = 1000
    data_fraction: float = 1.0
    seed: int = 0
    method: Method = Method.LORA

    @property
    def alpha(self) -> float:
        return 2 * self.rank


def train(task: Task, setup: Setup, name: str) -> RunFacts:
    """One run, with its losses and the result of every held-out item."""
    examples = max(1, round(task.examples * setup.data_fraction))
    inputs, labels = (part[:examples] for part in task.sample(task.examples, stream=1))
    model = _adapted(task, setup)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=setup.learning_rate, weight_decay=0.0)
    steps = max(LOGGED, round(setup.steps * setup.data_fraction))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(setup.seed)
    train_losses, eval_losses, recent = [], [], []
    for step in range(1, steps + 1):
        batch = torch.randint(examples, (min(BATCH, examples),), generator=generator)
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append(float(loss.detach()))
        if step % (steps // LOGGED) == 0:
            train_losses.append(LossPoint(step=step, loss=sum(recent) / len(recent)))
            eval_losses.append(LossPoint(step=step, loss=_loss(model, task.held_out)))
            recent = []
    correct = _correct(model, task.held_out)
    return RunFacts(
        id=name,
        method=setup.method,
        rank=setup.rank,
        alpha=setup.alpha,
        targets=("all-linear",),
        learning_rate=setup.learning_rate,
        batch=min(BATCH, examples),
        steps=steps,
        epochs=steps * BATCH / examples,
        data_fraction=setup.data_fraction,
        seed=setup.seed,
        score=sum(correct) / len(correct),
        correct=correct,
        train_losses=tuple(train_losses),
        eval_losses=tuple(eval_losses),
    )


def _network() -> Any:
    model = nn.Sequential()
    model.add_module("first", nn.Linear(INPUTS, HIDDEN))
    model.add_module("bend", nn.Tanh())
    model.add_module("second", nn.Linear(HIDDEN, HIDDEN))
    model.add_module("bend_again", nn.Tanh())
    model.add_module("head", nn.Linear(HIDDEN, CLASSES))
    with torch.no_grad():
        for layer in (model.first, model.second, model.head):
            layer.weight.mul_(3.0)  # torch's first weights are small: the classes would hardly differ
    return model


def _adapted(task: Task, setup: Setup) -> Any:
    torch.manual_seed(setup.seed)
    base = _network()
    base.load_state_dict(task.base.state_dict())
    config = LoraConfig(r=setup.rank, lora_alpha=setup.alpha, target_modules=["first", "second"], use_dora=setup.method is Method.DORA)
    return get_peft_model(base, config)


def _loss(model: Any, data: tuple[Any, Any]) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(data[0]), data[1]))


def _correct(model: Any, data: tuple[Any, Any]) -> tuple[bool, ...]:
    with torch.no_grad():
        return tuple((model(data[0]).argmax(dim=1) == data[1]).tolist())
