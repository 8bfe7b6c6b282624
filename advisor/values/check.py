"""What a trainer's own configuration comes to on a card: the plan that it says, its price, and what was noticed."""

from __future__ import annotations

from pydantic import computed_field

from advisor.display import Shown
from advisor.values.advice import Finding, Fit, Level, ModelSummary
from advisor.values.card import GpuSpec
from advisor.values.memory import Computed, MemoryBreakdown
from advisor.values.plan import Plan
from advisor.values.vocabulary import SCHEMA_VERSION, Bytes, Stack


class CheckReport(Shown, Computed):
    """The answer to `advise check CONFIG`, and of every pre-flight."""

    schema_version: str = SCHEMA_VERSION
    config: str
    """The file that was read, or the trainer that was asked."""
    stack: Stack
    profile: str
    """The release whose defaults were used, and why that one."""
    model: ModelSummary
    gpu: GpuSpec | None
    """None: there is no card to hold it against."""
    plan: Plan
    memory: MemoryBreakdown
    """Of the plan alone, per card."""
    beside_bytes: Bytes = 0
    """What is trained whole beside the adapter: copies, gradients and states."""
    fit: Fit | None
    reason: str = ""
    """What is not priced and what that does to the verdict, in one line that names the settings; empty where everything is priced."""
    stops: str = ""
    """Why the training would not start; empty where nothing is known against it."""
    findings: tuple[Finding, ...] = ()
    assumptions: tuple[str, ...] = ()
    """What the file leaves out and what it was taken to be, one line each."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def low_bytes(self) -> int:
        return self.memory.low_bytes + self.beside_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def expected_bytes(self) -> int:
        """What one card must hold, as expected."""
        return self.memory.expected_bytes + self.beside_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def high_bytes(self) -> int:
        return self.memory.high_bytes + self.beside_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 fits, or there is no card · 1 does not fit, or would fail to start · 3 cannot tell."""
        if self.stops or any(finding.level is Level.ERROR for finding in self.findings):
            return 1
        return {None: 0, Fit.FITS: 0, Fit.DOES_NOT_FIT: 1, Fit.UNCERTAIN: 3}[self.fit]


class Comparison(Computed):
    """What was predicted before a training, beside what was measured at its end. Bytes of torch's allocator, without the CUDA context."""

    predicted_bytes: Bytes
    """Reserved, as expected."""
    low_bytes: Bytes
    high_bytes: Bytes
    measured_bytes: Bytes
    """`torch.cuda.max_memory_reserved()`."""
    measured_allocated_bytes: Bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def error_share(self) -> float:
        """Of the measured: positive where too much was predicted."""
        return (self.predicted_bytes - self.measured_bytes) / self.measured_bytes if self.measured_bytes else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def inside(self) -> bool:
        """The measured lies within the predicted interval."""
        return self.low_bytes <= self.measured_bytes <= self.high_bytes
