"""What a plan needs: bytes by term and phase, and the interval beside them."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, computed_field, model_validator

from advisor.display import Shown
from advisor.values.vocabulary import SCHEMA_VERSION, Bytes, Phase, Term, Value


class Computed(Value):
    """A value with computed fields: they are printed, and when its JSON is read back they are recomputed rather than trusted."""

    @model_validator(mode="before")
    @classmethod
    def _drop_computed(cls, data: Any) -> Any:
        computed = cls.model_computed_fields
        if not isinstance(data, dict) or computed.keys().isdisjoint(data):
            return data
        return {key: value for key, value in data.items() if key not in computed}


MOVING_TERMS = frozenset({Term.ACTIVATIONS, Term.LOGITS, Term.TEMPORARIES})


class TermBytes(Value):
    """Bytes of one term at the moment of a phase's peak."""

    term: Term
    bytes: Bytes
    detail: str = ""


class PhaseBytes(Computed):
    """The highest moment of one phase: its terms add up to what the allocator holds then."""

    phase: Phase
    terms: tuple[TermBytes, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def allocated_bytes(self) -> int:
        return sum(term.bytes for term in self.terms)


class Interval(Value):
    """Margins beside an estimate, as shares of the bytes that the allocator reserves."""

    low_share: Annotated[float, Field(ge=0, le=1)]
    high_share: Annotated[float, Field(ge=0)]
    context_bytes: Bytes = 0
    """Margin of the CUDA context on either side, where it was not measured on the card."""
    source: str


def highest_bytes(expected_bytes: int, reserved_bytes: int, interval: Interval) -> int:
    """The most that a process may hold which is expected to reserve `reserved_bytes`."""
    return expected_bytes + int(reserved_bytes * interval.high_share) + interval.context_bytes


def lowest_bytes(expected_bytes: int, reserved_bytes: int, interval: Interval, given_back_bytes: int) -> int:
    """The least, where the allocator can give `given_back_bytes` of idle segments back."""
    margin_bytes = max(int(reserved_bytes * interval.low_share), given_back_bytes)
    return max(0, expected_bytes - margin_bytes - interval.context_bytes)


class HostMemory(Computed):
    """Memory of one node's host: what all processes on it hold. Pages of files that the system may drop are not counted."""

    processes: Annotated[int, Field(gt=0)]
    """Cards of the node, each with a process of its own."""
    load: tuple[TermBytes, ...]
    """At the highest moment of loading."""
    training: tuple[TermBytes, ...]
    """In the optimizer's step."""
    rounding_bytes: Bytes = 0
    """What page-locked buffers take beyond their tensors: their sizes are rounded up to powers of two."""
    available_bytes: Bytes | None = None
    """What the machine has, where it was said."""
    mends: str = ""
    """The setting under which loading holds less."""
    passing_bytes: Bytes = 0
    """What such a machine has in any case where activations alone rest there: the weights pass through it (judgement)."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def load_bytes(self) -> int:
        return sum(term.bytes for term in self.load)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def training_bytes(self) -> int:
        return sum(term.bytes for term in self.training) + self.rounding_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_bytes(self) -> int:
        return max(self.load_bytes, self.training_bytes)

    @property
    def lacks(self) -> bool:
        """The machine has less than its processes take."""
        return self.available_bytes is not None and self.peak_bytes > self.available_bytes

    @property
    def is_open(self) -> bool:
        """More rests on the host than passed through it, and nobody said what the machine has: a plan that fits its cards may die of it."""
        return self.available_bytes is None and self.training_bytes > self.passing_bytes


class MemoryBreakdown(Shown, Computed):
    """Memory of one plan on one card. Peak is the largest phase, never a sum of phases."""

    schema_version: str = SCHEMA_VERSION
    source: Literal["estimate", "trace", "calibrated"]
    versions: dict[str, str] = {}
    """Library versions that the number speaks for."""
    phases: tuple[PhaseBytes, ...]
    reserved_slack_bytes: Bytes
    """What the caching allocator holds beyond the live tensors at the peak: unfilled segments and fragments."""
    context_bytes: Bytes
    """CUDA context of the process, outside the allocator."""
    communicator_bytes: Bytes = 0
    """Of NCCL or RCCL between several cards, outside the allocator."""
    interval: Interval
    fit_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """At least this likely the card holds it, by the errors on measured runs; None without a card."""
    usable_bytes: Bytes | None = None
    """What the card lets the process have; None without a card."""
    host: HostMemory | None = None
    """Of a node that holds several cards; None on one card."""
    notes: tuple[str, ...] = ()

    @cached_property
    def _peak(self) -> PhaseBytes:
        return max(self.phases, key=lambda phase: phase.allocated_bytes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_phase(self) -> Phase:
        return self._peak.phase

    @computed_field  # type: ignore[prop-decorator]
    @property
    def terms(self) -> tuple[TermBytes, ...]:
        """The terms alive at the peak."""
        return self._peak.terms

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_allocated_bytes(self) -> int:
        """Comparable to `torch.cuda.max_memory_allocated()`."""
        return self._peak.allocated_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_reserved_bytes(self) -> int:
        """Comparable to `torch.cuda.max_memory_reserved()`."""
        return self.peak_allocated_bytes + self.reserved_slack_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def process_bytes(self) -> int:
        """Comparable to the process's line in nvidia-smi."""
        return self.peak_reserved_bytes + self.context_bytes + self.communicator_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def expected_bytes(self) -> int:
        """What the card must hold: the process, as expected."""
        return self.process_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def moving_bytes(self) -> int:
        """What is made and freed within a step at the peak, with the allocator's slack: the part that an estimate can get wrong."""
        return sum(term.bytes for term in self.terms if term.term in MOVING_TERMS) + self.reserved_slack_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def low_bytes(self) -> int:
        """The least it may hold. On a card that is short of memory: where it may still run, because before it fails the allocator gives its
        idle segments back and tries again (torch c10/cuda/CUDACachingAllocator.cpp, release_cached_blocks)."""
        is_short = self.usable_bytes is not None and self.high_bytes > self.usable_bytes
        return lowest_bytes(self.expected_bytes, self.peak_reserved_bytes, self.interval, self.reserved_slack_bytes if is_short else 0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def high_bytes(self) -> int:
        return highest_bytes(self.expected_bytes, self.peak_reserved_bytes, self.interval)
