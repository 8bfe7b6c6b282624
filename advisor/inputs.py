"""What a caller gives by name becomes a value: a model, a card, a request, a plan."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.on_demand import Progress, silent
from advisor.values import GpuSpec, ModelSpec, Plan, Request


def plan_for(model: ModelSpec, gpu: GpuSpec | None, options: Mapping[str, object]) -> Plan:
    """The one plan that the options describe; what is left out gets the stack's default."""
    from advisor.ladder import plan_from_request

    return plan_from_request(model, gpu, as_request(options, gpu))


def as_model(model: str | ModelSpec, progress: Progress = silent) -> ModelSpec:
    """The model of that name. Parameters that neither its tables nor its profile tell are counted, where the extra `torch` is there."""
    if isinstance(model, ModelSpec):
        return model
    from advisor.hub import load_model

    found = load_model(model)
    if found.tables is not None or found.params_built is not None:
        return found
    from advisor.dryrun import counted

    return counted(found, progress)


def as_gpu(gpu: str | GpuSpec | None, use_calibrations: bool = True) -> GpuSpec:
    """The card, with what calibrations on it found. A GpuSpec is taken as it is."""
    if isinstance(gpu, GpuSpec):
        return gpu
    from advisor.calibration.store import with_calibrations

    card = _load_card(gpu)
    return with_calibrations(card) if use_calibrations else card


def _load_card(name: str | None) -> GpuSpec:
    from advisor.host import CPU, this_cpu

    if name is not None and name.strip().lower() == CPU:
        return this_cpu()
    from advisor.devices import load_gpu

    return load_gpu(name)


def as_request(options: Mapping[str, object], gpu: GpuSpec | None = None) -> Request:
    """The options as a request; of a cloud's machine that was named, all cards are used where nobody says how many."""
    from advisor.ladder import request_from

    return request_from(options, gpu)


def in_machine(gpu: str | GpuSpec | None, use_calibrations: bool, options: Mapping[str, object]) -> GpuSpec | None:
    """The card in the machine that the options speak of, if there is one."""
    from advisor.ladder.request import on_machine

    if gpu is None:
        return None
    card = as_gpu(gpu, use_calibrations)
    return on_machine(card, as_request(options, card))
