"""`advise calibrate`, and the check after `advise … --calibrate`. One call each, one screen."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.options import GpuName, Json, takes_plan_options
from advisor.cli.progress import progress
from advisor.errors import InvalidInputError


def _text(metavar: str, help: str) -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=False)


def _record(help: str) -> Any:
    return typer.Option(metavar="ID", help=help, show_default=False)


@takes_plan_options
def calibrate(
    options: dict[str, Any],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="A name, a Hub id, or the path of a config.json.")
    ] = None,
    gpu: GpuName = None,
    device: Annotated[str | None, _text("cpu", "Run on the processor; else what accelerate chooses.")] = None,
    preflight: Annotated[bool, typer.Option("--preflight", help="Run the whole model at the plan's own micro-batch.")] = False,
    processes: Annotated[str | None, _text("N", "Processes of one machine, without a configuration of accelerate.")] = None,
    accelerate_config: Annotated[str | None, _text("FILE", "accelerate's own configuration: DDP, FSDP, DeepSpeed.")] = None,
    memory_limit: Annotated[str | None, _text("SIZE", "Host memory that each process may take: 8GiB.")] = None,
    time_limit: Annotated[str | None, _text("SECONDS", "When it is ended; 600 if left out.")] = None,
    list: Annotated[bool, typer.Option("--list", help="List the records.")] = False,
    show: Annotated[str | None, _record("Show a record.")] = None,
    forget: Annotated[str | None, _record("Delete a record.")] = None,
    export: Annotated[str | None, _record("Print a record as rows for profiles/measurements/.")] = None,
    json: Json = False,
) -> Answer:
    """Train a cut of the model for a few steps on the hardware at hand, and lay measured beside predicted.

    advise calibrate --model smollm2-135m --method lora --device cpu

    Weights are random and nothing is downloaded. Later answers for this card use what was found.

    Exit code: 0 measured (and it fits), 1 out of memory or it does not fit, 2 bad input, 3 it broke off or cannot tell.
    """
    asked = {"--list": list or None, "--show": show, "--forget": forget, "--export": export}
    named = [name for name, value in asked.items() if value is not None]
    if len(named) > 1 or (named and model is not None):
        raise InvalidInputError(f"{' and '.join([*named, *(['--model'] if model else [])])}: give one of them")
    if named:
        return _of_records(named[0], asked[named[0]], json)
    if model is None:
        raise InvalidInputError("--model is missing; for example: advise calibrate --model smollm2-135m --device cpu")
    from advisor import api
    from advisor.render.calibrate import calibration_run

    own = {
        "device": device,
        "preflight": preflight,
        "processes": processes,
        "accelerate_config": accelerate_config,
        "memory_limit": memory_limit,
        "time_limit_s": time_limit,
    }
    found = api.calibrate(model, None, gpu, progress=progress(lines_elsewhere=True), **own, **options)
    return Answer(as_json(found) if json else screen(calibration_run(found)), found.exit_code)


def checked_advice(model: str, gpu: str | None, options: dict[str, Any], *, view: str) -> Answer:
    """`advise … --calibrate`: the answer, and what the hardware at hand says of its verdict."""
    from advisor import api
    from advisor.render.calibrate import checked

    found = api.advise_and_check(model, gpu, progress(lines_elsewhere=True), **options)
    return Answer(as_json(found) if view == "json" else screen(checked(found, full=view == "full")), found.exit_code, long=view == "full")


def _of_records(name: str, value: Any, json: bool) -> Answer:
    from advisor.calibration import export, store
    from advisor.render import calibrate as render

    if name == "--list":
        found = [store.read(path) for path in store.paths()]
        readings = [reading._replace(problem=reading.problem or store.stale(reading.calibration)) for reading in found]
        known = [reading.calibration for reading in readings if reading.calibration is not None]
        return Answer(as_json(known) if json else screen(render.listing(readings, str(store.folder()))))
    path = store.find(str(value))
    if name == "--forget":
        store.forget(path)
        return Answer(f"forgot {store.id_of(path)}\n")
    reading = store.read(path)
    if reading.calibration is None:
        raise InvalidInputError(f"{path} {reading.problem}; `advise calibrate --forget {store.id_of(path)}` deletes it")
    if name == "--export":
        return Answer(export.as_text(reading.calibration))
    return Answer(as_json(reading.calibration) if json else screen(render.record(reading.calibration)))
