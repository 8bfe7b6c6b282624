"""The calls of the public API: names or values in, one value out. The command line makes the same calls."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.bounded import place
from advisor.errors import AdvisorError
from advisor.inputs import as_gpu, as_model, as_request, in_machine, plan_for
from advisor.on_demand import Progress, answered, silent, telling
from advisor.values import Advice, Fit, GpuSpec, MemoryBreakdown, ModelSpec, Plan

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from advisor.accuracy import AccuracyReport
    from advisor.accuracy.snapshots import SnapshotReports
    from advisor.dryrun.dry_run import Trace
    from advisor.values.advice import TracedAdvice
    from advisor.values.calibration import CalibrationRun, CheckedAdvice
    from advisor.values.evidence import Facts
    from advisor.values.next_step import NextStep
    from advisor.values.options import Options
    from advisor.values.question import FitAnswer
    from advisor.values.request import Request
    from advisor.values.sweep import SweepReport


def advise(
    model: str | ModelSpec,
    gpu: str | GpuSpec | None = None,
    *,
    use_calibrations: bool = True,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Advice:
    """Which method for `model` on `gpu`, whether it fits, and what to try next.

    `model` is a name, a Hub id, a path of a config.json or a ModelSpec; `gpu` a name, a cloud's machine such as "g5.12xlarge", a size such
    as "80GB" or "79.2GiB", a GpuSpec, "cpu" for this machine's processor, or None for the local card. The options are the fields of
    `advisor.Request`: `rank=64`, `seq_len=4096`, `gpus=2` … What `calibrate` measured on that card is used unless `use_calibrations` is
    False. A model without tables is priced by recordings of its training step, which are made where they are missing (with the extra
    `torch`); `progress` is told of each.

    Raises an AdvisorError, one clear line, for what it cannot use.
    """
    spec, card = as_model(model, progress), as_gpu(gpu, use_calibrations)
    return advised(spec, card, as_request(options, card), (model, gpu, use_calibrations), progress)


def advised(
    spec: ModelSpec, card: GpuSpec, request: Request, asked: tuple[Any, Any, bool], progress: Progress = silent, *, record: bool = True
) -> Advice:
    """The ladder's answer to values, with the command that prices its plan again: `asked` for model and card, with calibrations or not.

    Training steps that are missing are recorded unless `record` is False. Raises as `advise` does.
    """
    from advisor import ladder

    answer = answered(lambda: ladder.advise(spec, card, request), progress, record=record)
    return answer.model_copy(update={"command": ladder.command_for(spec, card, answer.focus.plan, *asked)})


def estimate(
    model: str | ModelSpec,
    plan: Plan | None = None,
    gpu: str | GpuSpec | None = None,
    *,
    use_calibrations: bool = True,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> MemoryBreakdown:
    """Memory of one plan, by term and phase; bytes throughout.

    The plan is given, or made from options as in `advise`. A GPU matters for what its kernels and its context take, and adds
    the chance that it holds the plan. A model without tables is priced by a recording, as in `advise`.
    """
    from advisor.memory import estimate_memory

    spec, card = as_model(model, progress), in_machine(gpu, use_calibrations, options)
    asked = plan or plan_for(spec, card, options)
    return answered(lambda: estimate_memory(spec, asked, card), progress)


def trace(
    model: str | ModelSpec,
    plan: Plan | None = None,
    gpu: str | GpuSpec | None = None,
    *,
    use_calibrations: bool = True,
    **options: Unpack[Options],
) -> MemoryBreakdown:
    """The same memory, from the real step of the installed libraries on meta tensors. Needs the extra `torch`."""
    from advisor.dryrun import trace as dry_run

    spec, card = as_model(model), None if gpu is None else as_gpu(gpu, use_calibrations)
    return dry_run(spec, plan or plan_for(spec, card, options), gpu=card).breakdown


def calibrate(
    model: str | ModelSpec, plan: Plan | None = None, gpu: str | GpuSpec | None = None, *, progress: Progress = silent, **options: Any
) -> CalibrationRun:
    """Train a cut of the model, with random weights, for a few steps on the hardware at hand, and lay measured beside predicted.

    The plan is given, or made from options as in `advise`; `gpu` is what it is held against, by default the card that it ran on.
    Further options are those of `advisor.calibration.settings.Settings`: `device="cpu"`, `preflight=True`, `memory_limit="4GiB"` …
    However the child process ends, that is the result, with its phase. Needs the extra `torch`; the calling process loads none of it.
    """
    from advisor.calibration.run import calibrate as run
    from advisor.calibration.settings import split

    settings, rest = split(options)
    spec, card = as_model(model, progress), None if gpu is None else as_gpu(gpu, use_calibrations=False)
    return run(spec, plan or plan_for(spec, card, rest), card, settings, progress)


def advise_and_check(
    model: str | ModelSpec, gpu: str | GpuSpec | None, progress: Progress, *, use_calibrations: bool = True, **options: Any
) -> CheckedAdvice:
    """`advise`, and then `calibrate` of the rung that it recommends, held against the same card. What keeps the check from running is
    told beside the answer."""
    from advisor.calibration.run import calibrate as run
    from advisor.calibration.settings import split
    from advisor.values.calibration import CheckedAdvice

    settings, rest = split(options)
    spec, card = as_model(model, progress), as_gpu(gpu, use_calibrations)
    answer = advised(spec, card, as_request(rest, card), (model, gpu, use_calibrations), progress)
    if answer.chosen is None:
        return CheckedAdvice(advice=answer, check=None, problem="nothing fits, so that there is nothing to run")
    try:
        return CheckedAdvice(advice=answer, check=run(spec, answer.chosen.plan, card, settings, progress))
    except AdvisorError as error:
        return CheckedAdvice(advice=answer, check=None, problem=str(error))


def next_step(facts: Facts | Mapping[str, Any] | str | Path | None = None, *, ledger: str | Path | None = None, **more: Any) -> NextStep:
    """Which rung next, the constraint that binds, and the one experiment that decides it: a pure function of what was run.

    Facts are a value, a mapping or a JSON file of the same shape; left out, they are those of the `ledger`, by default the project's.
    `more` are fields of `Facts` that replace theirs: `gpu="80GB"`, `evaluation={"target": 0.5}`; `runs` are added as the newest ones.
    """
    from advisor import evidence
    from advisor.evidence.gather import gathered

    return answered(lambda: evidence.next_step(gathered(facts, ledger, more)))


def fit(
    model: str | ModelSpec | None,
    gpu: str | GpuSpec | None = None,
    *,
    use_calibrations: bool = True,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> FitAnswer:
    """A question asked backwards: one thing is unknown, and the answer is its best value that surely fits.

    The unknown is said in the place of its value: `seq_len="max"`, `batch_size="max"`, `gpus="min"`, `gpu="cheapest"` (among the cards that
    have a recorded rent; with `gpus="min"` too), `model="largest"` (among the models that have a profile). The other options are those of
    `estimate`, and "fits" means what it means there. Raises an AdvisorError, one clear line, for what it cannot use.
    """
    from advisor.backwards.ask import ask

    return ask(model, gpu, options, use_calibrations=use_calibrations, progress=progress)


def sweep(grid: str | Path, out: str | Path | None = None, *, progress: Progress = silent) -> SweepReport:
    """Price every combination of a grid (a YAML file: `advisor.sweeps.grid`) into `out`, a file that ends in .parquet, .csv, .jsonl or
    .json; the grid's name with .parquet if left out. What calibrations say of a card is left out. Needs the extra `sweep`.

    Raises an AdvisorError, one clear line, for what cannot be used; a combination without a price is a row with its reason.
    """
    from advisor.sweeps import need

    need()
    from advisor.sweeps.sweep import sweep as run

    path = place(grid)
    return run(path, path.parent / f"{path.stem or 'sweep'}.parquet" if out is None else place(out), progress)


class Priced(NamedTuple):
    """A plan with its price, what the names were taken to mean, and whether it fits the card, if there is one."""

    model: ModelSpec
    gpu: GpuSpec | None
    plan: Plan
    memory: MemoryBreakdown
    fit: Fit | None
    assumptions: tuple[str, ...]


def price(
    model: str | ModelSpec, gpu: str | GpuSpec | None = None, *, use_calibrations: bool = True, progress: Progress = silent, **options: Any
) -> Priced:
    """As `estimate`, with the plan that the options were taken to mean."""
    from advisor.memory import estimate_memory

    spec, card = as_model(model, progress), in_machine(gpu, use_calibrations, options)
    plan = plan_for(spec, card, options)
    return _priced(spec, card, plan, answered(lambda: estimate_memory(spec, plan, card), progress), options)


class HowToTrace(NamedTuple):
    """What a dry run can be told beside its plan."""

    lengths: tuple[int, ...] = ()
    """Tokens per row of each step, one step for each; two of the plan's length where it is empty."""
    peft_config: str | Path | None = None
    """An adapter_config.json or its directory: that adapter is run in place of the plan's own."""
    alloc_conf: str = ""
    """As in `PYTORCH_ALLOC_CONF`."""


_TWO_STEPS = HowToTrace()


def dry_run(
    model: str | ModelSpec,
    gpu: str | GpuSpec | None = None,
    how: HowToTrace = _TWO_STEPS,
    *,
    progress: Progress = silent,
    use_calibrations: bool = True,
    **options: Any,
) -> tuple[Priced, Trace]:
    """As `price`, by the dry run: with what it recorded, and who holds the memory at its peak."""
    from advisor.allocator.alloc_conf import read_alloc_conf
    from advisor.dryrun import read_peft_config, trace as run

    spec, card = as_model(model, progress), None if gpu is None else as_gpu(gpu, use_calibrations)
    plan, allocator = plan_for(spec, card, options), read_alloc_conf(how.alloc_conf)
    adapter = None if how.peft_config is None else read_peft_config(how.peft_config, plan, options)
    settings = {"lengths": how.lengths, "gpu": card, "allocator": allocator, "peft_config": adapter}
    traced = run(spec, plan, progress=progress, **settings)
    priced = _priced(spec, card, plan, traced.breakdown, options)
    if adapter is not None:
        said = f"adapter: the {adapter.peft_type.value} of {how.peft_config}, in place of the rank, scale and modules of the plan"
        priced = priced._replace(assumptions=(*priced.assumptions, said))
    return priced, traced


def advise_and_trace(
    model: str | ModelSpec, gpu: str | GpuSpec | None = None, progress: Progress = silent, *, use_calibrations: bool = True, **options: Any
) -> TracedAdvice:
    """`advise`, and then the dry run of the rung that it recommends. Raises UnsupportedError for what is not dry-run: DeepSpeed."""
    from advisor.dryrun import trace as run
    from advisor.ladder import classify
    from advisor.values.advice import TracedAdvice

    spec, card = as_model(model, progress), as_gpu(gpu, use_calibrations)
    answer = advised(spec, card, as_request(options, card), (model, gpu, use_calibrations), progress)
    if answer.chosen is None:
        return TracedAdvice(advice=answer, memory=None, fit=None)
    memory = run(spec, answer.chosen.plan, gpu=answer.gpu, progress=progress).breakdown
    return TracedAdvice(advice=answer, memory=memory, fit=classify(memory, answer.gpu.usable_bytes))


def _priced(spec: ModelSpec, card: GpuSpec | None, plan: Plan, memory: MemoryBreakdown, options: Mapping[str, object]) -> Priced:
    from advisor.ladder import classify
    from advisor.stacks import echo_defaults

    names = (*spec.taken_as, *((card.resolved_from,) if card is not None and card.resolved_from else ()))
    fit = None if card is None else classify(memory, card.usable_bytes)
    return Priced(spec, card, plan, memory, fit, (*names, *echo_defaults(spec, card, as_request(options, card))))


def accuracy(rows: str | Path | None = None, *, trace: bool = False, progress: Progress = silent) -> tuple[AccuracyReport, ...]:
    """Each tier beside every measured run: errors, intervals, and what it says of runs that failed. The closed form comes first.

    The runs are those of `profiles/measurements/`, or of the file `rows` in the same format. The dry run is the recorded one, under the
    versions that each run ran with (`benchmarks/trace_measured.py`); with `trace` it is made now, under the installed ones.
    """
    from advisor import accuracy as room

    measured = None if rows is None else room.read_measurements(rows)
    if trace:
        import_module("advisor.dryrun").need("torch", "transformers", "peft", "bitsandbytes")  # before the rows: they take minutes
    with telling(progress, "every measured run, by the closed form …"):
        reports = [room.accuracy(room.closed_form, room.CLOSED_FORM, rows=measured)]
    recorded = room.recorded_in(rows)
    if trace or recorded:
        dry_run = partial(room.dry_run, progress=progress) if trace else partial(room.recorded_dry_run, recorded)
        reports.append(room.accuracy(dry_run, room.DRY_RUN, rows=measured))
    return tuple(reports)


def snapshots(folder: str | Path, *, progress: Progress = silent) -> SnapshotReports:
    """Each history of a card's allocator in `folder` (`benchmarks/on_card.py` writes them) beside a dry run of its plan, made now.

    Raises InvalidInputError where there is none, or a file is none, and MissingExtraError without the extra `torch`.
    """
    from advisor.accuracy.snapshots import reports

    return reports(folder, progress)
