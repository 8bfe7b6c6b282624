"""`advise` itself, and the list of its subcommands. Each hands back an Answer; `advisor.cli.run` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from advisor.cli.answer import Answer, as_json, look_of_stdout
from advisor.cli.once import OnceEach
from advisor.cli.options import GpuName, Json, NoCalibration, ignoring, takes_plan_options
from advisor.errors import InvalidInputError

SUBCOMMANDS = {
    "estimate": "advisor.cli.commands",
    "trace": "advisor.cli.commands",
    "fit": "advisor.cli.question_commands",
    "sweep": "advisor.cli.question_commands",
    "models": "advisor.cli.commands",
    "gpus": "advisor.cli.commands",
    "accuracy": "advisor.cli.commands",
    "next": "advisor.cli.evidence_commands",
    "record": "advisor.cli.run_commands",
    "runs": "advisor.cli.run_commands",
    "inspect": "advisor.cli.run_commands",
    "check": "advisor.cli.check_commands",
    "config": "advisor.cli.check_commands",
    "calibrate": "advisor.cli.calibrate_commands",
}
"""Name of a subcommand and of its function, and the module of that function: loaded when it is asked for."""

_SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class _Command(OnceEach, TyperCommand):
    pass


class _OnDemand(Mapping[str, Any]):
    """The subcommands by name, each made when it is looked up: typer takes 4 ms to read the options of one."""

    def __getitem__(self, name: str) -> Any:
        single = typer.Typer(**_SETTINGS)
        single.command(name, cls=_Command)(getattr(import_module(SUBCOMMANDS[name]), name))
        return get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(SUBCOMMANDS)

    def __len__(self) -> int:
        return len(SUBCOMMANDS)


class _Group(OnceEach, TyperGroup):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.commands = _OnDemand()  # type: ignore[assignment]  # typer only reads it


app = typer.Typer(cls=_Group, **_SETTINGS)


@app.callback(invoke_without_command=True)
@takes_plan_options
def advise(
    context: typer.Context,
    options: dict[str, Any],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="A name, a Hub id, or the path of a config.json.")
    ] = None,
    gpu: GpuName = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Then check the recommended rung on the hardware at hand.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Then check the recommended rung by a dry run of the installed libraries.")
    ] = False,
    no_calibration: NoCalibration = False,
    json: Json = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> Answer | None:
    """Which fine-tuning method for this model on this GPU, does it fit, and what to try next.

    advise --model llama-70b --gpu 80GB

    Exit code: 0 something fits, 1 nothing fits, 2 bad input, 3 cannot tell.
    """
    if version:
        return _version()
    if context.invoked_subcommand is not None:
        switches = {"json": json or None, "calibrate": calibrate or None, "trace": trace or None, "no_calibration": no_calibration or None}
        given = {"model": model, "gpu": gpu, **switches, **options}
        _refuse_before(context.invoked_subcommand, given)
        return None
    if model is None:
        raise InvalidInputError("--model is missing; for example: advise --model llama-70b --gpu 80GB")
    from advisor import api
    from advisor.cli.progress import progress
    from advisor.render.advice import advice

    if calibrate and trace:
        raise InvalidInputError("--calibrate and --trace: give one of them")
    if trace:
        from advisor.cli.commands import traced_advice

        return traced_advice(model, gpu, {**ignoring(no_calibration), **options}, json=json)
    if calibrate:
        from advisor.cli.calibrate_commands import checked_advice

        return checked_advice(model, gpu, {**ignoring(no_calibration), **options}, json=json)
    answer = api.advise(model, gpu, progress=progress(), **ignoring(no_calibration), **options)
    return Answer(as_json(answer) if json else advice(answer, look_of_stdout()), answer.exit_code)


def _version() -> Answer:
    from advisor import __version__

    return Answer(f"finetune-advisor {__version__}\n")


def _refuse_before(command: str, options: dict[str, Any]) -> None:
    """Options before a subcommand would be lost without a word."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise InvalidInputError(f"{flag} belongs after the subcommand: advise {command} {flag} …")
