"""Memory of a plan from a tape of its kind: what a dry run of it would say, to the byte, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from advisor.checkpoints import check_plan, expert_notes
from advisor.errors import UnsupportedError
from advisor.memory.intervals import interval_of
from advisor.memory.pools import TRACE
from advisor.memory.runtime import HANDLES, context_of, has_caching_allocator, has_flash, workspace_bytes
from advisor.tiers import Tier, refuse_unread, said_beside
from advisor.values import GpuSpec, MemoryBreakdown, ModelSpec, Plan

if TYPE_CHECKING:  # a model with tables is priced without a tape: the room is loaded where one is looked for
    from advisor.tape import shipped, store
    from advisor.tape.breakdown import Replay
    from advisor.tape.peaks import Peaks
    from advisor.tape.sizes import Shape
    from advisor.tape.stream import Stream
    from advisor.tape.tape import Beside, Tape


RECORDS = "pip install 'finetune-advisor[torch]' to make one"
"""What to do where a recording is missing."""


RECORDED_TOKENS = 1 << 17
"""How long sequences a recording speaks for where the model states no limit. Judgement."""


class NotRecorded(UnsupportedError):
    """No tape speaks for this plan of this model on such a card: its step is to be recorded, which needs torch."""

    def __init__(self, model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> None:
        super().__init__(
            f"{model.id}: no recording of this training step is at hand; the libraries that train make it: "
            "pip install 'finetune-advisor[torch]'"
        )
        self.model, self.plan, self.gpu = model, plan, gpu


_unrunnable: dict[tuple[str, Shape], str] = {}
"""Kinds and shapes that the libraries could not run when this process recorded them, and why."""


def remember_refusal(missing: NotRecorded, reason: str) -> None:
    """Keep why the libraries cannot run a step, so that what asks for it again is told, and may go on without it."""
    kind = kind_on(missing.model, missing.plan, missing.gpu)
    _unrunnable[kind.digest, kind.shape] = reason


def kind_on(model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> store.Kind:
    """Under which kind a plan's tape is kept."""
    from advisor.tape import store

    return store.Kind(model, plan, has_flash(gpu))


def tape_for(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> Tape:
    """The tape that speaks for a plan.

    Raises NotRecorded where there is none, UnsupportedError for settings that a dry run does not run and for steps that the libraries
    could not run.
    """
    tape = next(filter(None, (source.tape() for source in _sources(model, plan, gpu))), None)
    if tape is None:
        raise _missing(model, plan, gpu)
    return tape


def _sources(model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> Iterator[store.Entry | shipped.Found]:
    """The tapes that speak for a plan, none of which is read yet. Raises UnsupportedError for settings that a dry run does not run."""
    from advisor.tape import shipped, store

    refuse_unread(Tier.TAPE, plan)
    check_plan(model, plan.method, plan.quantization)
    yield from store.find(kind_on(model, plan, gpu))
    found = shipped.find(model, plan, has_flash(gpu))
    if found is not None:
        yield found


def _missing(model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> UnsupportedError:
    """Why no tape speaks for a plan: the libraries could not run its step, or nobody has recorded it."""
    kind = kind_on(model, plan, gpu)
    if (kind.digest, kind.shape) in _unrunnable:
        return UnsupportedError(_unrunnable[kind.digest, kind.shape])
    return NotRecorded(model, plan, gpu)


def replay_of(model: ModelSpec, plan: Plan, gpu: GpuSpec | None, beside: Callable[[Tape], Beside] | None = None) -> Replay:
    """What a plan takes, with what its engine holds `beside` the step: as it was found before, or else by replaying its tape. Raises as
    `tape_for`."""
    from advisor.tape import replays
    from advisor.tape.tape import NOTHING

    shape, workspace = _shape_of(plan), workspace_bytes(gpu) // HANDLES
    engine = "" if beside is None else plan.sharding.value
    for source in _sources(model, plan, gpu):
        kept = replays.find(source.name, shape, workspace, engine)
        if kept is not None:
            return kept
        tape = source.tape()
        if tape is not None:
            replay = tape.replay(shape, workspace, NOTHING if beside is None else beside(tape))
            replays.keep(source.name, shape, workspace, replay, engine)
            return replay
    raise _missing(model, plan, gpu)


def of_other_releases(recorded: Mapping[str, str]) -> tuple[str, ...]:
    """A line where other releases are installed than those that were recorded."""
    from advisor.tape.store import installed

    others = {name: version for name, version in installed().items() if recorded.get(name, version) != version}
    if not others:
        return ()
    were = ", ".join(f"{name} {recorded[name]}" for name in others)
    here = ", ".join(f"{name} {version}" for name, version in others.items())
    return (f"recorded under {were}; here are {here}: advise trace runs the step of those",)


def stream_of(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> Stream:
    """Return the recorded step at the plan's shape, event by event. Raises as `tape_for`."""
    return tape_for(model, plan, gpu).at(_shape_of(plan), workspace_bytes(gpu) // HANDLES)


def least_bytes(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> int:
    """Bytes that the process surely takes: what is alive at once as it was asked for, and the context. A matter of microseconds, so that
    searches need to look no closer where this is too much already. Raises as `tape_for`."""
    alive_bytes = _peaks_for(model, plan, gpu).bytes_at(_shape_of(plan), workspace_bytes(gpu) // HANDLES, plan.rank)
    return alive_bytes + context_of(gpu.compute_capability).context_bytes


def _peaks_for(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> Peaks:
    """What the tape of a plan says of its peaks; the tape itself is read only where its file does not say it."""
    for source in _sources(model, plan, gpu):
        peaks = source.peaks()
        if peaks is None and (tape := source.tape()) is not None:
            peaks = tape.peaks
        if peaks is not None:
            return peaks
    raise _missing(model, plan, gpu)


def _shape_of(plan: Plan) -> Shape:
    from advisor.tape.sizes import Shape

    return Shape(plan.micro_batch_size, plan.seq_len_tokens)


def trained_params(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> int:
    """Parameters that got a gradient in the recorded step; each has its parameter's type. Raises as `tape_for`."""
    kept_in = plan.adapter_dtype if plan.method.has_adapter else plan.base_dtype
    return tape_for(model, on_one_card(plan), gpu).gradient_bytes // kept_in.size_bytes


def on_one_card(plan: Plan) -> Plan:
    """The same step on a card that shares nothing."""
    from advisor.tape.kinds import CARDS

    return plan.model_copy(update={name: Plan.model_fields[name].default for name in CARDS})


def breakdown_of(replay: Replay, model: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> MemoryBreakdown:
    """A replay as memory of a plan on a card: with context and interval."""
    return MemoryBreakdown(
        source="trace",
        versions=dict(replay.versions),
        phases=replay.phases,
        reserved_slack_bytes=replay.slack_bytes if has_caching_allocator(gpu) else 0,
        context_bytes=context_of(gpu.compute_capability if gpu else None).context_bytes,
        interval=interval_of(TRACE, model, plan, gpu, replay.versions),
        notes=(*said_beside(Tier.TRACE, plan), *expert_notes(model, plan), *replay.notes),
    )
