"""What a recording is: births and deaths of storages in order, each with its place."""

from __future__ import annotations

from dataclasses import dataclass, field

from advisor.values import Phase

BACKWARD_MARK = "~"
"""Prefix of a place when it is an autograd node of a module rather than the module's forward."""
EMPTY_CACHE = "empty_cache"
"""Mark of a `torch.cuda.empty_cache()` call."""
STEP = "step"
"""Mark of a step's beginning."""
LOADED = "loaded"
"""Operator of a weight that stays as it reaches the card, while a quantised model loads."""
GIVEN = "given"
"""Operator of a tensor that is there when the recording begins."""
QUANTISED = "loaded, then quantised"
"""Operator of a weight that is quantised on the card."""
WARM_UP = "caching_allocator_warmup"
"""Operator of the block that transformers takes for the whole model before it loads one."""


@dataclass(slots=True)
class Birth:
    """One storage: what made it, where, when, and (once known) what it is for."""

    size_bytes: int
    op: str
    place: str
    """Module path; prefixed with `BACKWARD_MARK` when born in an autograd node."""
    phase: Phase
    kind: str = ""
    """weights, adapter, gradients, optimizer_state, workspace, temporaries, input; empty: told from place and life."""
    owner: str = ""
    """Parameter (or module) that it belongs to, for weights, adapters, gradients, optimizer states and what is made from them."""
    died_in: str = ""
    died_phase: Phase | None = None

    def sized(self, size_bytes: int) -> Birth:
        """Copy it, of another size."""
        return Birth(size_bytes, self.op, self.place, self.phase, self.kind, self.owner, self.died_in, self.died_phase)


@dataclass(slots=True)
class Stream:
    """Births and deaths in order. `events[i]` is +id for a birth and -id for a death; ids count from 1."""

    births: list[Birth] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """Where each event happened, parallel to `events`."""
    phases: list[Phase] = field(default_factory=list)
    """Phase of each event, parallel to `events`."""
    marks: list[tuple[int, str]] = field(default_factory=list)
    """(event index, text): step boundaries, `empty_cache` calls."""

    notes: tuple[str, ...] = ()
    """What was run where something else could have been, one line each."""

    def add(self, signed_id: int, place: str, phase: Phase) -> None:
        self.events.append(signed_id)
        self.places.append(place)
        self.phases.append(phase)
