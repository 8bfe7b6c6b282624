"""Tells which module runs: from forward hooks in forward, from autograd's sequence numbers in backward."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from advisor.tape.stream import BACKWARD_MARK


def unwrapped(name: str) -> str:
    """A module's name without the wrappers around it."""
    return name.removeprefix("module.").replace("_fsdp_wrapped_module.", "").removesuffix("._fsdp_wrapped_module")


class Places:
    """Follows the forward passes of a model's modules, and remembers which module made which autograd node."""

    def __init__(self) -> None:
        self.recomputations = 0
        """Times that a module's forward began inside backward: checkpointed blocks that ran again."""
        self._names: dict[int, str] = {}
        self._parameter_modules: dict[int, str] = {}
        self._stack: list[str] = []
        self._node_places: dict[int, str] = {}
        # On a card backward runs in a thread of its own, and autograd numbers its nodes by thread: those that a recomputation makes there
        # bear numbers of the forward's own nodes.
        self._recomputed_places: dict[int, str] = {}
        self._recomputing_tasks: set[int] = set()
        self._hooks: list[Any] = []
        self.around_forward: AbstractContextManager[Any] | None = None
        """Entered around every outermost module call, in forward and in recomputation."""

    def watch(self, model: torch.nn.Module) -> None:
        self.unwatch()
        self._names = {id(module): unwrapped(name) for name, module in model.named_modules()}
        self._parameter_modules = {id(each): unwrapped(name).rpartition(".")[0] for name, each in model.named_parameters()}
        register = torch.nn.modules.module
        self._hooks = [
            register.register_module_forward_pre_hook(self._enter),
            register.register_module_forward_hook(self._leave, always_call=True),
        ]

    def unwatch(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def in_forward(self) -> bool:
        return bool(self._stack)

    def _enter(self, module: torch.nn.Module, inputs: Any) -> None:
        if not self._stack:
            task = torch._C._current_graph_task_id()
            if task == -1:
                self._recomputing_tasks.clear()
            else:
                self.recomputations += 1
                self._recomputing_tasks.add(task)
                self._recomputed_places.clear()
            self._stack.append(self._names.get(id(module), ""))
            if self.around_forward is not None:
                self.around_forward.__enter__()
        else:
            self._stack.append(self._names.get(id(module), self._stack[-1]))

    def _leave(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()
            if not self._stack and self.around_forward is not None:
                self.around_forward.__exit__(None, None, None)

    def remember_node(self) -> None:
        """The newest autograd node belongs to the module that runs now (nodes count up as their operators begin)."""
        places = self._node_places if torch._C._current_graph_task_id() == -1 else self._recomputed_places
        places.setdefault(torch.autograd._get_sequence_nr() - 1, self._stack[-1])

    def current(self) -> str | None:
        """Module whose forward runs now, or (marked) whose autograd node does; None outside of both."""
        if self._stack:
            return self._stack[-1]
        node = torch._C._current_autograd_node()
        if node is None:
            return None
        variable = getattr(node, "variable", None)
        if variable is not None:
            return BACKWARD_MARK + self._parameter_modules.get(id(variable), "")
        # A task inside the one that recomputed is the backward of what was recomputed (reentrant checkpointing).
        nested = self._recomputing_tasks and torch._C._current_graph_task_id() not in self._recomputing_tasks
        places = self._recomputed_places if nested else self._node_places
        return BACKWARD_MARK + places.get(node._sequence_nr(), "")
