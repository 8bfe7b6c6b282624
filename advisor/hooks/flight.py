"""`advisor.preflight`: the check on a trainer that is built, or on what would be loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from advisor.checkpoints import format_of
from advisor.configs.files import card_of, model_of_name
from advisor.configs.report import beside, report_with, with_known_targets
from advisor.configs.situation import Checked
from advisor.errors import DoesNotFitError, InvalidInputError, UnsupportedError
from advisor.hooks import jobs, live
from advisor.hooks.lengths import longest_example
from advisor.ladder.request import options_as
from advisor.memory import estimate_memory
from advisor.memory.optimizer import FP32_BYTES, MOMENTS, trained_bytes_per_param
from advisor.memory.params import known_adapter_params
from advisor.stacks import hf_arguments
from advisor.stacks.fields import Fields
from advisor.stacks.keys import unread_remarks
from advisor.stacks.reading import Around, Launch, Reading, Remark, Way
from advisor.stacks.stored import kernel_remarks
from advisor.stacks.towers import tower_remarks
from advisor.stacks.versions import Profile, profile_of
from advisor.values import Fit, GpuSpec, Level, MemoryBreakdown, ModelSpec, Plan, Stack, Value
from advisor.values.check import CheckReport
from advisor.values.request import Length

WHERE = "the trainer"


class PreflightOptions(Value):
    """How a pre-flight looks, and what it does about what it sees."""

    gpu: str | GpuSpec | None = None
    """The card; the local one if left out."""
    on_misfit: Literal["warn", "raise", "ignore"] = "warn"
    """What to do where the training does not fit, or would not start."""
    price: Literal["estimate", "trace"] = "estimate"
    """By the closed form, or by a dry run of the installed libraries on meta tensors."""
    seq_len: Length | None = None
    """Tokens of the longest sequence."""
    stack: Stack | None = None


class Flight(NamedTuple):
    """What is checked: the model's shape, what is said of it, and how to look."""

    spec: ModelSpec
    live: live.Live
    options: PreflightOptions
    dataset: Any = None


def preflight(subject: Any, args: Any = None, peft_config: Any = None, **options: Any) -> CheckReport:
    """Whether a training fits before its first step. Warns, or raises DoesNotFitError with `on_misfit="raise"`; changes nothing.

    `preflight(trainer)` looks at a Trainer (transformers, TRL and what is built on them) with its loaded model. Before anything is
    loaded, `preflight("org/model", args, peft_config)` takes the model's name, its path, its config or its ModelSpec, with the
    TrainingArguments (or a mapping of them) and the LoraConfig; `quantization_config` and `dtype` are what `from_pretrained` would get.
    Other options are the fields of `PreflightOptions`: `gpu="rtx 4090"`, `price="trace"`, `seq_len=4096`.

    Raises an AdvisorError for what cannot be read or priced.
    """
    loading: dict[str, Any] = {name: options.pop(name) for name in ("quantization_config", "dtype") if name in options}
    chosen = options_as(PreflightOptions, options, flags=False)
    if hasattr(subject, "args") and hasattr(subject, "model"):
        model = live.inner_of(subject.model)
        spec = live.spec_of(model)
        found = live.live_of(subject.model, subject.args, spec, trainer=subject)
        flight = Flight(spec, found, chosen, getattr(subject, "train_dataset", None))
    else:
        jobs.refuse_other_objectives(args)
        planned = _planned(args, peft_config, loading)
        flight = Flight(_loaded_with(_spec(subject), planned.settings), planned, chosen)
    return fly(flight)


def fly(flight: Flight) -> CheckReport:
    """The report, after warning or raising as told."""
    report = report_of(flight)
    act(report, flight.options.on_misfit)
    return report


def report_of(flight: Flight) -> CheckReport:
    """The report alone."""
    gpu = card_of(flight.options.gpu)
    profile = profile_of(flight.options.stack or flight.live.stack, installed=live.loaded_versions())
    reading = _reading(flight, gpu, profile)
    reading, missing, nothing = with_known_targets(flight.spec, reading)
    reading, more_bytes = _held_adapters(flight, reading)
    memory, closed_form = _price(flight, reading.plan, gpu)
    beside_bytes = beside(flight.spec, reading) + more_bytes
    checked = Checked(flight.spec, gpu, reading, profile, memory, beside_bytes, missing, nothing, closed_form)
    return report_with(WHERE, checked)


def _price(flight: Flight, plan: Plan, gpu: GpuSpec | None) -> tuple[MemoryBreakdown, bool]:
    """The price that was asked for, and whether the closed form covers the model; where it does not, the dry run is asked."""
    try:
        estimate = estimate_memory(flight.spec, plan, gpu)
    except UnsupportedError:
        return traced(flight.spec, plan, gpu), False
    return (traced(flight.spec, plan, gpu) if flight.options.price == "trace" else estimate), True


def _reading(flight: Flight, gpu: GpuSpec | None, profile: Profile) -> Reading:
    settings = dict(flight.live.settings)
    longest = None
    if flight.options.seq_len is None and not any(settings.get(name) for name in hf_arguments.LENGTHS):
        longest = longest_example(flight.dataset)
        if longest is not None:
            settings["seq_len"] = longest.tokens
    around = Around(flight.spec, gpu, profile.defaults, Launch(n_gpus=flight.live.n_gpus), flight.options.seq_len)
    fields = Fields(settings, WHERE)
    reading = hf_arguments.read(fields, around)
    taken = (f"sequences of {longest.tokens:,} tokens: the longest of {longest.of}",) if longest is not None else ()
    remarks = (*reading.remarks, *(remark for remark in unread_remarks(profile.defaults.stack, fields) if remark.id == "not-priced"))
    head = {"head": flight.live.head, "labels": flight.live.labels or reading.plan.labels} if flight.live.head else {}
    plan = reading.plan.model_copy(update=head)
    remarks = (*remarks, *_live_remarks(flight.live), *kernel_remarks(plan), *tower_remarks(flight.spec, plan))
    return reading._replace(plan=plan, remarks=remarks, taken=(*reading.taken, *taken))


def _live_remarks(found: live.Live) -> Iterator[Remark]:
    """What only the loaded model shows, and what no price counts."""
    if found.partly_frozen:
        text = "some base weights are frozen: priced as if all of them were trained"
        yield Remark("not-priced", "requires_grad", text, way=Way.DOWN)
    if found.devices > 1:
        text = f"device_map spreads the model over {found.devices} devices: priced on one"
        yield Remark("not-priced", "device_map", text, way=Way.DOWN)
    if found.own_loss:
        text = f"{found.own_loss} computes the loss in its own way: priced as the trainer's own"
        yield Remark("not-priced", found.own_loss, text, way=Way.EITHER)


SAME_ADAPTER_SHARE = 0.005
"""Judgement: biases and magnitudes that the count by rank and targets leaves out are far below it."""


def _held_adapters(flight: Flight, reading: Reading) -> tuple[Reading, int]:
    """What the model's adapters hold beyond those of the plan, with gradients and states, in bytes; where they hold less, a remark.

    Ranks of their own (`rank_pattern`), some layers only, trained biases and further adapters all show in the count of elements.
    """
    held, planned = flight.live.adapter_params, known_adapter_params(flight.spec, reading.plan)
    if held is None or planned is None or abs(held - planned) <= SAME_ADAPTER_SHARE * planned:
        return reading, 0
    said = f"the model's adapters hold {held:,} parameters, rank and targets alone make {planned:,}"
    if held < planned:
        remark = Remark("not-priced", "peft_config", f"{said}: priced as those", way=Way.DOWN)
        return reading._replace(remarks=(*reading.remarks, remark)), 0
    per_param = trained_bytes_per_param(reading.plan) * 2 + MOMENTS[reading.plan.optimizer] * FP32_BYTES
    taken = (*reading.taken, f"{said}: the others are counted with gradients and states, without their activations")
    return reading._replace(taken=taken), (held - planned) * per_param


def traced(spec: ModelSpec, plan: Plan, gpu: GpuSpec | None) -> MemoryBreakdown:
    """The dry run's price: meta copies of the model, so that the live one is not touched; the random state is put back."""
    import random

    import torch

    from advisor.dryrun import trace

    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            return trace(spec, plan, gpu=gpu).breakdown
        finally:
            random.setstate(state)


def act(report: CheckReport, on_misfit: str, stacklevel: int = 4) -> None:
    """Warns or raises where something is wrong. One line, with the numbers and what would help."""
    problem = problem_of(report)
    if problem is None or on_misfit == "ignore":
        return
    certain = report.exit_code == 1
    if on_misfit == "raise" and certain:
        raise DoesNotFitError(problem)
    warnings.warn(f"advisor: {problem}", UserWarning, stacklevel=stacklevel)


def problem_of(report: CheckReport) -> str | None:
    """The findings that speak against starting; None where none does."""
    unsure = report.fit is Fit.UNCERTAIN
    about = [
        finding
        for finding in report.findings
        if finding.level is Level.ERROR or (unsure and finding.id in ("fit-uncertain", "does-not-fit", "not-priced"))
    ]
    if not about:
        return None
    text = "; ".join(f"{finding.message}{f' ({finding.hint})' if finding.hint else ''}" for finding in about)
    return f"{report.model.id}: {text}"


def _spec(subject: Any) -> ModelSpec:
    if isinstance(subject, ModelSpec):
        return subject
    if isinstance(subject, str):
        return model_of_name(subject, "preflight")
    if hasattr(subject, "to_dict"):
        return live.spec_of_config(subject)
    if hasattr(subject, "config"):
        raise InvalidInputError("preflight takes a trainer, or the model's name with its arguments; a loaded model belongs to a trainer")
    raise InvalidInputError(f"preflight cannot read a {type(subject).__name__}: give a trainer, a model's name, or its config")


def _loaded_with(spec: ModelSpec, settings: Mapping[str, Any]) -> ModelSpec:
    """The model as a quantisation other than bitsandbytes' makes it on loading (GPTQConfig of a 16-bit checkpoint, say)."""
    stated = settings.get("quantization_config")
    if spec.checkpoint_format is not None or not isinstance(stated, Mapping) or not stated.get("quant_method"):
        return spec
    made = format_of(stated, WHERE)
    return spec if made is None or made.method == "bitsandbytes" else spec.model_copy(update={"checkpoint_format": made})


def _planned(args: Any, peft_config: Any, loading: Mapping[str, Any]) -> live.Live:
    """What would be loaded, by what it would be loaded with."""
    if args is None:
        raise InvalidInputError("preflight needs the training arguments: preflight(model, args, peft_config)")
    mapping = isinstance(args, Mapping)
    settings = dict(args) if mapping else live.settings_of(args)
    inner = settings.get("model_init_kwargs") or (None if mapping else getattr(args, "model_init_kwargs", None))
    quantization = loading.get("quantization_config") or (inner or {}).get("quantization_config")
    if quantization is not None:
        settings["quantization_config"] = live.quantization_settings(quantization)
    dtype = loading.get("dtype") or (inner or {}).get("dtype") or (inner or {}).get("torch_dtype")
    if dtype is not None:
        settings["dtype"] = str(dtype)
    if peft_config is not None:
        settings["peft"] = live.peft_settings(peft_config)
    attention = (inner or {}).get("attn_implementation")
    if attention:
        settings["attn_implementation"] = attention
    settings.pop("model_init_kwargs", None)
    stack = Stack.HF if mapping else live.stack_of(args)
    return live.Live(settings, stack, 1 if mapping else live.gpus_of(args))
