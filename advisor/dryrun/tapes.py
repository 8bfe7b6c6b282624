"""Records the tape of a plan's kind: the dry run at a few shapes, compiled."""

from __future__ import annotations

import gc
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

from advisor.dryrun import dry_run, meta_model
from advisor.dryrun.images import images_in
from advisor.dryrun.isolation import libraries_untouched
from advisor.memory.replayed import RECORDED_TOKENS
from advisor.tape.alike import Layered, NotAlike, resized
from advisor.tape.compile import NotOneFormula, Recording, compiled
from advisor.tape.cut import Cut, Kinds
from advisor.tape.kinds import kind_of
from advisor.tape.sampling import Bounds, between, samples, wide
from advisor.tape.sizes import Shape
from advisor.tape.store import installed
from advisor.tape.tape import Tape
from advisor.tape.written import NotRepeatable
from advisor.values import GpuSpec, ModelSpec, Plan

Made = TypeVar("Made")
_Which = tuple[Shape, int]
"""A shape, and the number of a variant."""

STEPS = 2
"""As many as the dry run plays unless it is told otherwise: the second finds the optimizer's states."""
TOTAL_THRESHOLDS = (3072, 4096)
"""Tokens of a batch at which a kernel or a loss goes another way: `embedding_dense_backward_cuda` (advisor/dryrun/kernels.py) and the tiles
of the fused loss (advisor/dryrun/fused_head.py). They save recordings; what decides is whether the recordings agree."""
_FROM = (re.compile(r"window|chunk"), 1)
_BEYOND = (re.compile(r"original_max_position"), 0)
"""Names of a config's lengths from which on attention needs a mask (transformers 5.23 masking_utils.py: none where `kv_length <
local_attention_size`), and beyond which its rotations differ (modeling_rope_utils.py: `seq_len > original_max_position_embeddings`)."""


def tape_of(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None, progress: Callable[[str], None] = lambda _: None) -> Tape:
    """The widest tape that speaks for `plan`: for all that may be asked of the model, or as far as the next threshold, or for its shape.

    Raises what the libraries raise for a model that they cannot run.
    """
    recorder = Recordings([Variant(model, kind_of(plan))], gpu, progress)
    shape = Shape(plan.micro_batch_size, plan.seq_len_tokens)
    with quick():
        return widest(recorder, shape, lambda made, _: _written_out(compiled(made, installed())))


def _written_out(tape: Tape) -> Tape:
    """The tape, once its short model stands for the whole. Raises NotRepeatable."""
    assert tape.events
    return tape


def widest(recorder: Recordings, shape: Shape, compile_: Callable[[list[Recording], list[Variant]], Made]) -> Made:
    """What is compiled of as wide a regime around `shape` as there is; for that shape alone, of all variants, where there is none."""
    model, plan, _ = recorder.variants[0]
    everything = wide(shape, model.max_position_tokens or RECORDED_TOKENS, _shortest_tokens(model, plan))
    none: frozenset[int] = frozenset()
    windows, lengths = _lengths(model, _FROM), _lengths(model, _FROM, _BEYOND)
    thresholds = ((windows, ()), (none, ()), (none, TOTAL_THRESHOLDS[:1]), (none, TOTAL_THRESHOLDS), (lengths, TOTAL_THRESHOLDS))
    for bounds in dict.fromkeys(between(shape, everything, of_rows, frozenset(totals)) for of_rows, totals in thresholds):
        made = recorder.among(shape, bounds, compile_)
        if made is not None:
            return made
    return recorder.compiled([recorder.at(shape, number) for number in range(len(recorder.variants))], [*recorder.variants], compile_)


class Variant(NamedTuple):
    """One of the models whose recordings make a tape together."""

    model: ModelSpec
    plan: Plan
    scales: tuple[Fraction, ...] = ()
    """By which its dimensions are larger than the first one's."""


class _Few(NamedTuple):
    """A recording of a few layers, and the kind of every layer of the model."""

    recording: Recording
    layered: Layered
    of_layer: tuple[int, ...]


class Recordings:
    """Recordings of one kind of plan, made once for each shape and model.

    The first is of as many layers as show the order of events; of others a few layers are recorded where they tell all sizes.
    """

    def __init__(self, variants: Sequence[Variant], gpu: GpuSpec | None, progress: Callable[[str], None]) -> None:
        self.variants = variants
        self._gpu, self._progress = gpu, progress
        self._made: dict[_Which, Recording] = {}
        self._of_few: dict[_Which, _Few] = {}
        self._known: dict[_Which, Layered] = {}
        self._cuts: dict[int, tuple[Cut | None, meta_model.Shape]] = {}
        self._fews: dict[int, tuple[Kinds, meta_model.Shape] | None] = {}
        self.whole = False
        """Every layer is recorded, because those of a short model do not stand for them."""
        self.few_tell = True
        """A few layers tell the sizes of all."""

    def cut(self, number: int = 0) -> tuple[Cut | None, meta_model.Shape]:
        """How the model of that variant is cut."""
        if self.whole:
            return None, meta_model.WHOLE
        if number not in self._cuts:
            model, plan, _ = self.variants[number]
            self._cuts[number] = meta_model.whole_model_cut(model, plan) or (None, meta_model.WHOLE)
        return self._cuts[number]

    def among(self, shape: Shape, bounds: Bounds, compile_: Callable[[list[Recording], list[Variant]], Made]) -> Made | None:
        """What is compiled of recordings over all of `bounds`; None where they are not of one regime."""
        for more in (0, 1):  # some sizes have a term more, which one recording more tells
            made, of = [], []
            for position, other in enumerate(samples(shape, bounds, more)):
                number = position % len(self.variants)
                try:
                    if position and not self.alike((shape, 0), (other, number)):
                        return None
                    made.append(self.at(other, number))
                except dry_run.LIBRARY_ERRORS:
                    if position == 0:
                        raise
                    return None  # longer, say, than the model has positions
                of.append(self.variants[number])
            with suppress(NotOneFormula):
                return self.compiled(made, of, compile_)
        return None

    def compiled(self, made: list[Recording], of: list[Variant], compile_: Callable[[list[Recording], list[Variant]], Made]) -> Made:
        """What `compile_` makes of recordings; where layers differ in what they did, of recordings of the whole model instead."""
        try:
            return compile_(made, of)
        except NotRepeatable:
            self.whole, self._made, self._known = True, {}, {}
            return compile_(
                [self.at(recording.shape, self.variants.index(variant)) for recording, variant in zip(made, of, strict=True)], of
            )

    def alike(self, one: _Which, other: _Which) -> bool:
        """Whether the same happens at two shapes, in other sizes. Raises what the libraries raise."""
        few, elsewhere = self._few(*one), self._few(*other)
        if few is not None and elsewhere is not None:
            return few.recording.structure == elsewhere.recording.structure
        return self.at(*one).structure == self.at(*other).structure

    def at(self, shape: Shape, number: int = 0) -> Recording:
        """The recording of a variant at a shape. Raises what the libraries raise."""
        which = shape, number
        if which not in self._made:
            self._made[which] = self._told_by_few(which) or self._record(shape, number, *self.cut(number))
        return self._made[which]

    def _told_by_few(self, which: _Which) -> Recording | None:
        """The recording of a variant at a shape, from another that was made where the same happens; None where there is none."""
        for other in [*self._made]:
            few, elsewhere = self._few(*other), self._few(*which)
            if few is None or elsewhere is None or few.recording.structure != elsewhere.recording.structure:
                continue
            try:
                stream = resized(self._layered(other, few.of_layer), few.layered, elsewhere.recording.stream)
            except NotAlike:
                self.few_tell = False
                return None
            return replace(self._made[other], shape=which[0], stream=replace(stream, notes=elsewhere.recording.stream.notes))
        return None

    def _layered(self, which: _Which, of_layer: tuple[int, ...]) -> Layered:
        """A recording with the kinds of the layers that were recorded."""
        if which not in self._known:
            made = self._made[which]
            self._known[which] = Layered(
                made.stream, made.layer_path, of_layer if made.cut is None else [of_layer[layer] for layer in made.cut.layers]
            )
        return self._known[which]

    def _few(self, shape: Shape, number: int) -> _Few | None:
        """What a few layers of a variant do in one step at a shape; None where they do not tell what all do."""
        if not self.few_tell:
            return None
        if number not in self._fews:
            model, plan, _ = self.variants[number]
            self._fews[number] = meta_model.few_layers(model, plan)
        found = self._fews[number]
        cut = self.cut(number)[0]
        if found is None or (cut is not None and len(found[0].few) >= len(cut.layers)):
            self.few_tell = False
            return None
        if (shape, number) not in self._of_few:
            kinds, built = found
            made = self._record(shape, number, None, built, steps=1)
            layered = Layered(made.stream, made.layer_path, [kinds.of_layer[layer] for layer in kinds.few])
            self._of_few[shape, number] = _Few(made, layered, kinds.of_layer)
        return self._of_few[shape, number]

    def _record(self, shape: Shape, number: int, cut: Cut | None, built: meta_model.Shape, steps: int = STEPS) -> Recording:
        model, plan, _ = self.variants[number]
        self._progress(f"recording {model.id}: the training step of {shape.rows} x {shape.tokens:,} tokens, on meta tensors …")
        plan = plan.model_copy(update={"micro_batch_size": shape.rows, "seq_len_tokens": shape.tokens})
        settings = dry_run.Settings(lengths=(shape.tokens,) * steps, gpu=self._gpu)
        with libraries_untouched(plan.quantization is not None):
            stream, layer_path = dry_run.record_shape(model, plan, settings, built)
        return Recording(shape, stream, layer_path, cut)


def _shortest_tokens(model: ModelSpec, plan: Plan) -> int:
    """A sequence holds its images and a token of text."""
    found = images_in(meta_model.config_of(model).to_dict(), plan) if plan.images_per_row else None
    return 0 if found is None else found.tokens + 1


def _lengths(model: ModelSpec, *names: tuple[re.Pattern[str], int]) -> frozenset[int]:
    """Lengths of the config, of those names, up to which attention goes one way, and beyond which it may go another."""

    def found(content: Any, name: str = "") -> Iterator[int]:
        if isinstance(content, dict):
            for key, value in content.items():
                yield from found(value, key)
        elif isinstance(content, int):
            yield from (content - less for pattern, less in names if pattern.search(name))

    return frozenset(found(json.loads(model.config_json)))


@contextmanager
def quick() -> Iterator[None]:
    """Collections look at what the recordings make, not at all that the libraries hold."""
    gc.collect()
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()
