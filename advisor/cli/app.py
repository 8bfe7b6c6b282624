"""`advise` itself, and the list of its subcommands. Each hands back an Answer; `advisor.cli.run` prints it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.once import OnceEach
from advisor.cli.options import SHOWN_PANEL, GpuNames, Html, Json, ModelNameOrNone, NoCalibration, ignoring, no_color, takes_plan_options
from advisor.cli.pages import refuse_page, with_report
from advisor.errors import InvalidInputError

if TYPE_CHECKING:
    from advisor.values import Advice

SUBCOMMANDS = {
    "estimate": "advisor.cli.commands",
    "trace": "advisor.cli.commands",
    "fit": "advisor.cli.question_commands",
    "sweep": "advisor.cli.question_commands",
    "explain": "advisor.cli.explain_commands",
    "models": "advisor.cli.commands",
    "gpus": "advisor.cli.commands",
    "compare": "advisor.cli.commands",
    "accuracy": "advisor.cli.commands",
    "next": "advisor.cli.evidence_commands",
    "record": "advisor.cli.run_commands",
    "runs": "advisor.cli.run_commands",
    "inspect": "advisor.cli.run_commands",
    "check": "advisor.cli.check_commands",
    "config": "advisor.cli.check_commands",
    "calibrate": "advisor.cli.calibrate_commands",
    "ui": "advisor.cli.ui_commands",
}
"""Name of a subcommand and of its function, and the module of that function: loaded when it is asked for."""

_SETTINGS: dict[str, Any] = {
    "add_completion": False,  # the group alone has it
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class _Helpful:
    """Mixed into a command or a group of them: its help is drawn as every other screen."""

    def get_help(self, ctx: Any) -> str:
        from advisor.cli.help import help_of

        return screen(help_of(self, ctx)).rstrip("\n")


class _Command(OnceEach, _Helpful, TyperCommand):
    def flagged(self, options: dict[str, Any], rest: list[str], args: list[str]) -> list[str]:
        """`advise estimate llama-70b 80GB --rank 8` with the flags of model and card, where the command has no words of its own."""
        names = [name for name in ("model", "gpu") if not options.get(name)]
        own = {parameter.name: parameter.param_type_name for parameter in self.params}
        if "argument" in own.values() or not {*names} <= {*own} or not 0 < len(rest) <= len(names):
            return args
        flags = [word for name, value in zip(names, rest, strict=False) for word in (f"--{name}", value)]
        at = next((at for at in range(len(args) - len(rest), -1, -1) if args[at : at + len(rest)] == rest), None)
        return args if at is None else [*args[:at], *flags, *args[at + len(rest) :]]


class _OnDemand(Mapping[str, Any]):
    """The subcommands by name, each made when it is first looked up: typer takes 4 ms to read the options of one."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            single = typer.Typer(**_SETTINGS)
            single.command(name, cls=_Command)(getattr(import_module(SUBCOMMANDS[name]), name))
            command = self._made[name] = get_command(single)
            command.params.append(no_color())
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in SUBCOMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(SUBCOMMANDS)

    def __len__(self) -> int:
        return len(SUBCOMMANDS)


class _Group(OnceEach, _Helpful, TyperGroup):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.commands = _OnDemand()  # type: ignore[assignment]  # typer only reads it
        self.params.append(no_color())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args or ctx.resilient_parsing else ["--help"])

    def flagged(self, options: dict[str, Any], rest: list[str], args: list[str]) -> list[str]:
        """`advise llama-70b 80GB --rank 8` with the flags that are left out before model and card; `advise help` as --help."""
        if not rest or rest[0] in self.commands:
            return args
        if rest[0] == "help":
            return [*rest[1:2], "--help"]
        if not options.get("model") and _near(rest[0], self.commands):  # a slip of the finger: the group says so
            return args
        before = args[: len(args) - len(rest)]
        flag = "--gpu" if options.get("model") else "--model"
        return [*(before[:-1] if before[-1:] == ["--"] else before), flag, *rest]


def _near(word: str, commands: Iterable[str]) -> bool:
    import difflib

    return bool(difflib.get_close_matches(word, [*commands], n=1, cutoff=0.8))


app = typer.Typer(cls=_Group, **{**_SETTINGS, "add_completion": True})


@app.callback(invoke_without_command=True)
@takes_plan_options
def advise(
    context: typer.Context,
    options: dict[str, Any],
    model: ModelNameOrNone = None,
    gpu: GpuNames = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Then check the recommended rung on the hardware at hand.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Then check the recommended rung by a dry run of the installed libraries.")
    ] = False,
    no_calibration: NoCalibration = False,
    json: Json = False,
    full: Annotated[
        bool, typer.Option("--full", help="Everything: quality ceilings, every finding, the code.", rich_help_panel=SHOWN_PANEL)
    ] = False,
    code: Annotated[
        bool, typer.Option("--code", help="The plan as Python that trains it, and nothing else.", rich_help_panel=SHOWN_PANEL)
    ] = False,
    html: Html = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The verdict alone, in one line.", rich_help_panel=SHOWN_PANEL)] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> Answer | None:
    """Which fine-tuning method for this model on this GPU, does it fit, and what to try next.

    advise llama-70b 80GB

    advise --model llama-70b --gpu "rtx 4090" --seq-len 4k --method qlora

    Exit code: 0 something fits, 1 nothing fits, 2 bad input, 3 cannot tell.
    """
    if version:
        return _version()
    if context.invoked_subcommand is not None:
        switches = {
            "json": json or None,
            "html": html,
            "full": full or None,
            "code": code or None,
            "quiet": quiet or None,
            "calibrate": calibrate or None,
            "trace": trace or None,
            "no_calibration": no_calibration or None,
        }
        given = {"model": model, "gpu": gpu, **switches, **options}
        _refuse_before(context.invoked_subcommand, given)
        return None
    if model is None:
        raise InvalidInputError("--model is missing; for example: advise --model llama-70b --gpu 80GB")
    from advisor import api
    from advisor.cli.progress import progress

    view = _one_of(json=json, full=full, code=code, quiet=quiet)
    checked = _one_of(calibrate=calibrate, trace=trace)
    refuse_page(html, bool(checked) or len(gpu or ()) > 1)
    if gpu is not None and len(gpu) > 1:
        return _side_by_side(model, gpu, {**ignoring(no_calibration), **options}, view or checked)
    card = gpu[0] if gpu else None
    if checked:
        return _held_against(model, card, {**ignoring(no_calibration), **options}, view, calibrate=calibrate)
    ask = partial(api.advise, model, card, progress=progress(), **ignoring(no_calibration), **options)
    return with_report(html, model, ask, partial(_shown, view=view), printed=view in ("", "full"))._replace(long=full)


def _one_of(**switches: bool) -> str:
    """The name of the switch that is on, or nothing. Raises InvalidInputError where several are."""
    given = [name for name, on in switches.items() if on]
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(f'--{name}' for name in given)}: give one of them")
    return "".join(given)


def _shown(answer: Advice, view: str) -> str:
    if view == "json":
        return as_json(answer)
    if view == "quiet":
        return f"{answer.verdict.sentence}\n"
    if view == "code":
        return f"# {answer.verdict.sentence}\n{answer.snippet}"
    if view == "full":
        from advisor.render.advice import advice

        return screen(advice(answer))
    from advisor.render.summary import summary

    return screen(summary(answer))


def _side_by_side(model: str, gpus: list[str], options: dict[str, Any], view: str) -> Answer:
    """Several cards, compared. Raises InvalidInputError for what is told of one card alone."""
    from advisor.cli.commands import compared

    if view not in ("", "json"):
        raise InvalidInputError(f"--{view} is of one card: give --gpu once; several equal cards are --gpus N")
    return compared([model], gpus, "", options, json=view == "json")


def _held_against(model: str, gpu: str | None, options: dict[str, Any], view: str, *, calibrate: bool) -> Answer:
    """The answer, checked by the hardware at hand or by a dry run."""
    if view in ("code", "quiet"):
        raise InvalidInputError(f"--{view} and {'--calibrate' if calibrate else '--trace'}: give one of them")
    if calibrate:
        from advisor.cli.calibrate_commands import checked_advice

        return checked_advice(model, gpu, options, view=view)
    from advisor.cli.commands import traced_advice

    return traced_advice(model, gpu, options, view=view)


def _version() -> Answer:
    from advisor import __version__

    return Answer(f"finetune-advisor {__version__}\n")


def _refuse_before(command: str, options: dict[str, Any]) -> None:
    """Options before a subcommand would be lost without a word."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise InvalidInputError(f"{flag} belongs after the subcommand: advise {command} {flag} …")
