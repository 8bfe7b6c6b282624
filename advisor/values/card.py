"""A card as a training process sees it."""

from typing import Annotated, Literal

from pydantic import Field

from advisor.values.vocabulary import Bytes, Phase, Positive, Term, Value


class Price(Value):
    """What a card rents for, as somebody recorded it."""

    provider: str
    usd_per_gpu_hour: Annotated[float, Field(gt=0)]
    date: str
    source: str


class Residual(Value):
    """How far measured lay from predicted in one phase, from the lowest to the highest of the shapes that were run."""

    phase: Phase
    term: Term | Literal["moving"]
    """`moving`: what a step makes and frees, as one."""
    low_share: float
    high_share: float
    """Of the bytes that were predicted for the term."""
    low_bytes: int
    high_bytes: int


SecondsPer = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StepRates(Value):
    """Rates that were achieved: seconds of a micro-batch are a sum over the layers, the head and passes.

    The counts are those of `advisor.speed.measured`. 0 where the shapes do not tell a part apart; the others then hold its time.
    """

    s_per_block_flop: SecondsPer
    s_per_head_flop: SecondsPer
    s_per_pass: SecondsPer
    s_per_optimizer_byte: SecondsPer
    error_share: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Largest error of these rates at the shapes that they come from."""
    achieved_flop_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """All FLOPs of the largest shape over all of its time."""


class CardCalibration(Value):
    """What a calibration run on a card tells later answers for it (`advise calibrate`)."""

    id: str
    created_at: str
    model: str
    model_type: str
    plan_kind: str
    """`Plan.kind` of what was run: residuals speak for plans of that kind."""
    shapes: Positive
    elsewhere: str = ""
    """Another card that it ran on; empty for this one."""
    versions: dict[str, str]
    residuals: tuple[Residual, ...]
    traced_residuals: tuple[Residual, ...]
    context_bytes: Bytes | None = None
    rates: StepRates | None = None


CARDS_OF_MACHINE = 8
"""Cards that NVLink or one bus joins, where no machine is named: NVIDIA's HGX boards, and the clouds' machines (profiles/instances)."""


class GpuSpec(Value):
    """A card as a training process sees it. `None` means that no sound source was found."""

    name: str
    vendor: str
    architecture: str | None = None
    compute_capability: str | None = None
    usable_bytes: Positive
    """What the driver lets one process allocate in total: the size that peaks are held against."""
    usable_source: str
    usable_is_read: bool = True
    """Somebody read it off such a card; else it follows from the size that the card is sold by."""
    bandwidth_bytes_per_s: int | None = None
    bf16_flop_per_s: int | None = None
    fp16_flop_per_s: int | None = None
    fp32_flop_per_s: int | None = None
    bf16_supported: bool = True
    unified_memory: bool = False
    link: Literal["fabric", "pcie"] | None = None
    """What joins the cards of one machine: NVLink or xGMI, or the bus alone."""
    link_bytes_per_s: int | None = None
    """Its line rate, per direction."""
    prices: tuple[Price, ...] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resolved_from: str = ""
    """One line for the reader: what was asked for and what it was taken to mean."""
    gpus_of_machine: Positive = 1
    """Cards of the cloud machine that was named: how many are used where nobody says."""
    host_bytes: Bytes | None = None
    """Memory of the machine that holds the cards, where it was said."""
    calibrations: tuple[CardCalibration, ...] = ()
    """Runs on this card in this user's data directory, newest first."""

    @property
    def most_of_machine(self) -> int:
        """Cards of one machine."""
        return max(CARDS_OF_MACHINE, self.gpus_of_machine)

    def calibrations_of(self, model_type: str, plan_kind: str) -> tuple[CardCalibration, ...]:
        """Those that speak for such a model and plan."""
        return tuple(entry for entry in self.calibrations if (entry.model_type, entry.plan_kind) == (model_type, plan_kind))
