"""The dry run: build, run a few steps under the recorder, replay, and say what was held when."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from advisor.allocator.caching import DEFAULT_CONFIG, AllocatorConfig
from advisor.dryrun import compat, meta_model, optimizers, sharded, step
from advisor.dryrun.activations import on_the_host
from advisor.dryrun.adapters import names_layers
from advisor.dryrun.answers import told_in_python
from advisor.dryrun.attention import pinned
from advisor.dryrun.autocast import MetaAutocast, answering
from advisor.dryrun.isolation import libraries_untouched
from advisor.dryrun.load import DTYPES
from advisor.dryrun.mixers import mixing
from advisor.dryrun.of_several import remarks_of_several
from advisor.dryrun.recorder import Recorder, collect_garbage
from advisor.dryrun.remarks import SPREAD_EVENLY, remarks
from advisor.dryrun.shorten import ConfigCut
from advisor.errors import UnsupportedError
from advisor.memory.calibrated import narrowed
from advisor.memory.chance import with_chance
from advisor.memory.replayed import breakdown_of
from advisor.memory.runtime import HANDLES, has_flash, workspace_bytes
from advisor.tape import breakdown
from advisor.tape.breakdown import Holder, Replay
from advisor.tape.layout import Layout, lay_out
from advisor.tape.repeat import repeat
from advisor.tape.store import installed
from advisor.tape.stream import EMPTY_CACHE, STEP, Stream
from advisor.tape.written import NotRepeatable
from advisor.values import GpuSpec, MemoryBreakdown, ModelSpec, Plan


@dataclass(frozen=True, slots=True)
class Trace:
    """What a dry run found."""

    breakdown: MemoryBreakdown
    stream: Stream
    layout: Layout
    layer_path: str

    @property
    def versions(self) -> dict[str, str]:
        return self.breakdown.versions

    def holders(self) -> tuple[Holder, ...]:
        """Modules and parameters that hold the peak, largest first."""
        return breakdown.holders(self.stream, self.layout, self.layout.top.event, self.layer_path)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a dry run is run; what is run stands in the plan."""

    lengths: tuple[int, ...]
    """Tokens per row of each step's batches: one step per entry."""
    layers: int | None = None
    """Cut the model to its first so many layers."""
    repeat_layers: bool = True
    """Trace a cut and repeat its middle; False traces every layer."""
    peft_config: Any = None
    """A peft config to use instead of the plan's LoRA fields."""
    empty_cache_every_steps: int = 0
    """Steps between `torch.cuda.empty_cache()` calls; 0 for never."""
    allocator: AllocatorConfig = DEFAULT_CONFIG
    """What `PYTORCH_ALLOC_CONF` says."""
    gpu: GpuSpec | None = None
    """Whose workspaces, context and measurements count."""
    torch_has_flash: bool = True
    """torch was built with its flash kernel. Windows builds are not (pytorch pull request 186343 turned it on there in 2026)."""
    zero_grad_first: bool = False
    """The loop calls `zero_grad` at the start of a step, so that gradients live between steps."""
    clips: bool = False
    """A plain loop clips its gradients by their norm, as the Trainer does by default."""
    keep_outputs: bool = True
    """A plain loop's outputs live until the next step has made its own; False where a step is a function of its own."""


def record(spec: ModelSpec, plan: Plan, settings: Settings) -> tuple[Stream, str]:
    """Run one step per length on the meta device; the event stream and the path of the layers."""
    whole = (
        settings.layers is not None
        or not settings.repeat_layers
        or names_layers(settings.peft_config)
        or sharded.spans_layers(plan)
        or plan.offloads_activations
    )
    found = None if whole else meta_model.whole_model_cut(spec, plan)
    if found is not None:
        cut, shape = found
        stream, layer_path = record_shape(spec, plan, settings, shape)
        try:
            repeated = repeat(stream, cut, layer_path)
            repeated.notes = stream.notes
            return repeated, layer_path
        except NotRepeatable:
            pass  # layers differ in what they did: the whole model is traced instead
    first = None if settings.layers is None else ConfigCut(tuple(range(settings.layers)))
    return record_shape(spec, plan, settings, meta_model.Shape(first))


def record_shape(spec: ModelSpec, plan: Plan, settings: Settings, shape: meta_model.Shape) -> tuple[Stream, str]:
    recorder = Recorder("meta", padding=plan.padding)
    recorder.workspace_bytes = workspace_bytes(settings.gpu) // HANDLES
    with warnings.catch_warnings(), _silent(), sharded.cards_of(plan, recorder):
        warnings.simplefilter("ignore")
        host = Recorder("meta") if sharded.arrives_unit_by_unit(plan) else recorder
        built = meta_model.build(spec, plan, host, shape, settings.peft_config)
        of_several = (*remarks_of_several(built.base, plan),)
        sharded.wrap(built, plan, recorder)
        plan = sharded.computed(plan)
        with (
            pinned(plan.attention, settings.torch_has_flash and has_flash(settings.gpu)) as attention,
            _autocast(plan, recorder, attention) as casting,
            mixing(built.base, plan.mixers, spec.id) as mixed,
            told_in_python(recorder.known),
            on_the_host(built.model, plan) as around,
        ):
            stream = _run_steps(built, plan, settings, recorder, casting, around)
    spread = (SPREAD_EVENLY,) if recorder.known.spread else ()
    stream.notes = (*remarks(built.base, plan), *mixed, *spread, *of_several)
    return stream, built.layer_path


@contextmanager
def _silent() -> Iterator[None]:
    """transformers warns of what a model's first step changes in its config, which is not about the user's training."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def record_on_cpu(spec: ModelSpec, plan: Plan, settings: Settings) -> tuple[Stream, str]:
    """Train for real on the CPU, with random weights, under the same recorder: what the dry run is checked against.

    Only for small models. CPU kernels are not pinned, so use eager attention to compare. A plan of several cards is trained by one of
    several processes, whose group is there.
    """
    recorder = Recorder("cpu")
    with warnings.catch_warnings(), sharded.cards_of(plan, recorder):
        warnings.simplefilter("ignore")
        built = meta_model.build(spec, plan, recorder, meta_model.Shape(device="cpu"), settings.peft_config)
        sharded.wrap(built, plan, recorder)
        plan = sharded.computed(plan)
        casting = partial(torch.autocast, "cpu", dtype=DTYPES[plan.autocast_dtype]) if plan.autocast else nullcontext
        return _run_steps(built, plan, settings, recorder, casting), built.layer_path


def _run_steps(built: meta_model.MetaModel, plan: Plan, settings: Settings, recorder: Recorder, casting: Any, around: Any = None) -> Stream:
    trained = sharded.LocalParameters(built.model, recorder)
    optimizer = optimizers.build(trained.parameters, plan)
    recorder.places.watch(built.model)
    recorder.track_gradients(built.model)
    collect_garbage()
    loop = step.Loop(built, plan, trained, optimizer, recorder, casting, settings.zero_grad_first, settings.keep_outputs, settings.clips)
    loop.around = around or loop.around
    try:
        with recorder:
            for number, length in enumerate(settings.lengths, start=1):
                recorder.mark(STEP)
                loop.step(length)
                if settings.empty_cache_every_steps and number % settings.empty_cache_every_steps == 0:
                    recorder.mark(EMPTY_CACHE)
            if plan.eval_micro_batch_size is not None:
                loop.evaluate(plan.eval_micro_batch_size, max(settings.lengths))
    finally:
        recorder.places.unwatch()
    return recorder.close()


@contextmanager
def _autocast(plan: Plan, recorder: Recorder, attention: Any) -> Iterator[Any]:
    """The context that the loop enters around its forward pass."""
    if not plan.autocast:
        with answering(None):
            yield nullcontext
        return
    mode = MetaAutocast(recorder, DTYPES[plan.autocast_dtype], attention)
    recorder.places.around_forward = mode
    with answering(mode):
        yield mode.forward


LIBRARY_ERRORS = (
    RuntimeError,
    AssertionError,
    AttributeError,
    NotImplementedError,
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    ImportError,
)
"""What library code raises when a model, a config or an adapter does not work together."""


@contextmanager
def library_errors(spec: ModelSpec) -> Iterator[None]:
    """Turn what library code raises into one line: an UnsupportedError with the reason."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        reason = compat.known_reason(error, spec.model_type) or f"{type(error).__name__}: {meta_model.first_line(error)}"
        raise UnsupportedError(f"{spec.id}: the installed libraries cannot run this step ({reason})") from error


def trace(spec: ModelSpec, plan: Plan, *, lengths: tuple[int, ...] = (), steps: int = 2, **settings: Any) -> Trace:
    """Dry-run `plan` for `steps` steps (or one step per entry of `lengths`). Further settings are those of `Settings`."""
    run = Settings(lengths=lengths or (plan.seq_len_tokens,) * steps, **settings)
    with library_errors(spec), libraries_untouched(plan.quantization is not None):
        stream, layer_path = record(spec, plan, run)
    traced = summarise(stream, layer_path, spec, plan, run.gpu, run.allocator)
    return replace(traced, breakdown=with_chance(narrowed(traced.breakdown, spec, plan, run.gpu), spec, plan, run.gpu))


def summarise(
    stream: Stream, layer_path: str, spec: ModelSpec, plan: Plan, gpu: GpuSpec | None = None, allocator: AllocatorConfig = DEFAULT_CONFIG
) -> Trace:
    layout = lay_out(stream, allocator)
    terms = [breakdown.term_of(born, layer_path) for born in stream.births]
    phases = breakdown.phases_of(stream.events, terms, layout)
    memory = breakdown_of(Replay(phases, layout.peak_reserved_bytes, installed(), stream.notes), spec, plan, gpu)
    return Trace(memory, stream, layout, layer_path)


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One event, for finding out where a term differs."""

    event: int
    delta_bytes: int
    live_bytes: int
    op: str
    place: str
    phase: str
    term: str


def timeline(traced: Trace, *, at_least_bytes: int = 0, last_step: bool = True) -> list[TimelineRow]:
    """Every event of at least that size, in order, of the last step (or of all)."""
    stream = traced.stream
    sizes = traced.layout.block_bytes
    start = stream.marks[-1][0] if last_step and stream.marks else 0
    rows, live = [], 0
    for index, signed in enumerate(stream.events):
        number = abs(signed) - 1
        delta = sizes[number] if signed > 0 else -sizes[number]
        live += delta
        if index < start or abs(delta) < at_least_bytes:
            continue
        born = stream.births[number]
        term = breakdown.term_of(born, traced.layer_path).value
        rows.append(TimelineRow(index, delta, live, born.op, stream.places[index], stream.phases[index].value, term))
    return rows
