"""Records the tape of a plan's kind: the dry run at a few shapes, compiled."""

from __future__ import annotations

import gc
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from advisor.tape.compile import NotOneFormula, Recording, compiled
from advisor.tape.cut import Cut
from advisor.tape.kinds import kind_of
from advisor.tape.sampling import Bounds, between, samples, wide
from advisor.tape.sizes import Shape
from advisor.tape.store import installed
from advisor.tape.tape import Tape
from advisor.tape.written import NotRepeatable
from advisor.trace import dry_run, meta_model
from advisor.trace.isolation import libraries_untouched
from advisor.values import GpuSpec, ModelSpec, Plan

STEPS = 2
"""As many as the dry run plays unless it is told otherwise: the second finds the optimizer's states."""
LONGEST_TOKENS = 1 << 17
"""How long sequences a tape speaks for where the model states no limit. Judgement."""
TOTAL_THRESHOLDS = (3072, 4096)
"""Tokens of a batch at which a kernel or a loss goes another way: `embedding_dense_backward_cuda` (advisor/trace/kernels.py) and the tiles
of the fused loss (advisor/trace/fused_head.py). They save recordings; what decides is whether the recordings agree."""
_LENGTHS = re.compile(r"window|chunk|original_max_position")
"""Names of a config's lengths at which attention goes another way."""


def tape_of(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None, progress: Callable[[str], None] = lambda _: None) -> Tape:
    """The widest tape that speaks for `plan`: for all that may be asked of the model, or as far as the next threshold, or for its shape.

    Raises what the libraries raise for a model that they cannot run.
    """
    recorder = _Recordings(model, plan, gpu, progress)
    shape = Shape(plan.micro_batch_size, plan.seq_len_tokens)
    everything = wide(shape, model.max_position_tokens or LONGEST_TOKENS)
    none: frozenset[int] = frozenset()
    thresholds = ((none, TOTAL_THRESHOLDS[:1]), (none, TOTAL_THRESHOLDS), (_lengths(model), TOTAL_THRESHOLDS))
    narrower = [between(shape, everything, lengths, frozenset(totals)) for lengths, totals in thresholds]
    with _quick():
        for bounds in dict.fromkeys((everything, *narrower)):
            tape = recorder.tape(shape, bounds)
            if tape is not None:
                return tape
        return recorder.alone(shape)


class _Recordings:
    """Recordings of one kind of plan, made once for each shape."""

    def __init__(self, model: ModelSpec, plan: Plan, gpu: GpuSpec | None, progress: Callable[[str], None]) -> None:
        self._model, self._gpu, self._progress = model, gpu, progress
        self._plan = kind_of(plan)
        self._made: dict[Shape, Recording] = {}
        self._cut: tuple[Cut | None, meta_model.Shape] | None = None

    def tape(self, shape: Shape, bounds: Bounds) -> Tape | None:
        """One for all of `bounds`; None where the recordings there are not of one regime."""
        for more in (0, 1):  # some sizes have a term more, which one recording more tells
            made = []
            for other in samples(shape, bounds, more):
                try:
                    made.append(self.at(other))
                except dry_run.LIBRARY_ERRORS:
                    if other == shape:
                        raise
                    return None  # longer, say, than the model has positions
                if made[-1].structure != made[0].structure:
                    return None
            with suppress(NotOneFormula):
                return self._compiled(made)
        return None

    def alone(self, shape: Shape) -> Tape:
        """One for that shape alone."""
        return self._compiled([self.at(shape)])

    def _compiled(self, made: list[Recording]) -> Tape:
        try:
            return compiled(made, installed())
        except NotRepeatable:  # layers differ in what they did: the whole model is recorded instead
            self._cut, self._made = (None, meta_model.WHOLE), {}
            return compiled([self.at(recording.shape) for recording in made], installed())

    def at(self, shape: Shape) -> Recording:
        if shape not in self._made:
            self._progress(f"recording {self._model.id}: the training step of {shape.rows} x {shape.tokens:,} tokens, on meta tensors …")
            self._made[shape] = self._record(shape)
        return self._made[shape]

    def _record(self, shape: Shape) -> Recording:
        plan = self._plan.model_copy(update={"micro_batch_size": shape.rows, "seq_len_tokens": shape.tokens})
        settings = dry_run.Settings(lengths=(shape.tokens,) * STEPS, gpu=self._gpu)
        if self._cut is None:
            self._cut = meta_model.whole_model_cut(self._model, plan) or (None, meta_model.WHOLE)
        cut, built = self._cut
        with libraries_untouched(plan.quantization is not None):
            stream, layer_path = dry_run.record_shape(self._model, plan, settings, built)
        return Recording(shape, stream, layer_path, cut)


def _lengths(model: ModelSpec) -> frozenset[int]:
    """Lengths of the config at which attention may go another way."""

    def found(content: Any, name: str = "") -> Iterator[int]:
        if isinstance(content, dict):
            for key, value in content.items():
                yield from found(value, key)
        elif isinstance(content, int) and _LENGTHS.search(name):
            yield content

    return frozenset(found(json.loads(model.config_json)))


@contextmanager
def _quick() -> Iterator[None]:
    """Collections look at what the recordings make, not at all that the libraries hold."""
    gc.collect()
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()
