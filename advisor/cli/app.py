"""The commands: parse, one call of the API, render. Each hands back an Answer; `advisor.cli.run` prints it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from advisor.cli.answer import Answer, as_json, exit_code_of, look_of_stdout
from advisor.cli.options import parse_lengths, takes_plan_options
from advisor.errors import InvalidInputError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelName = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME", help="A name, a Hub id, or the path of a config.json.", show_default=False)
]
GpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu", "-g", metavar="NAME", help='A card ("rtx 4090"), a size ("80GB", "79.2GiB"), or the local card.', show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the value itself.")]
Words = Annotated[list[str] | None, typer.Argument(metavar="[WORDS]", help="Words that the name must hold.", show_default=False)]


@app.callback(invoke_without_command=True)
@takes_plan_options
def advise(
    context: typer.Context,
    options: dict[str, Any],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="A name, a Hub id, or the path of a config.json.")
    ] = None,
    gpu: GpuName = None,
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
        _refuse_before(context.invoked_subcommand, {"model": model, "gpu": gpu, "json": json or None, **options})
        return None
    if model is None:
        raise InvalidInputError("--model is missing; for example: advise --model llama-70b --gpu 80GB")
    from advisor import api
    from advisor.render.advice import advice

    answer = api.advise(model, gpu, **options)
    return Answer(as_json(answer) if json else advice(answer, look_of_stdout()), answer.exit_code)


@app.command()
@takes_plan_options
def estimate(options: dict[str, Any], model: ModelName, gpu: GpuName = None, json: Json = False) -> Answer:
    """Price one plan: its memory by term and phase."""
    from advisor import api
    from advisor.render.estimate import estimate

    priced = api.price(model, gpu, **options)
    return Answer(as_json(priced.memory) if json else estimate(priced, look_of_stdout()), exit_code_of(priced.fit))


@app.command()
@takes_plan_options
def trace(
    options: dict[str, Any],
    model: ModelName,
    gpu: GpuName = None,
    lengths: Annotated[str, typer.Option(metavar="TOKENS", help="Steps of these lengths in turn: 230,485,683.", show_default=False)] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Say which modules hold what at the peak.")] = False,
    json: Json = False,
) -> Answer:
    """Price one plan by a dry run of the installed libraries, without a GPU and without weights."""
    from advisor import api
    from advisor.render import estimate as render

    priced, holders = api.dry_run(model, gpu, parse_lengths(lengths), **options)
    look = look_of_stdout()
    text = as_json(priced.memory) if json else render.explained(priced, holders, look) if explain else render.estimate(priced, look)
    return Answer(text, exit_code_of(priced.fit))


@app.command()
def models(words: Words = None, json: Json = False) -> Answer:
    """List the models that have a profile."""
    from advisor.hub import search_models
    from advisor.render.listings import models

    found = search_models(" ".join(words or ()))
    return Answer(as_json(found) if json else models(found, look_of_stdout()))


@app.command()
def gpus(words: Words = None, json: Json = False) -> Answer:
    """List the GPUs that have a profile."""
    from advisor.devices import search_gpus
    from advisor.render.listings import gpus

    found = search_gpus(" ".join(words or ()))
    return Answer(as_json(found) if json else gpus(found, look_of_stdout()))


@app.command()
def accuracy(json: Json = False, markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False) -> Answer:
    """Lay the predictions beside every measured run there is a profile of."""
    from advisor import api
    from advisor.render import accuracy as render

    report = api.accuracy()
    if json:
        return Answer(as_json(report))
    return Answer(render.markdown(report) if markdown else render.accuracy(report, look_of_stdout()))


def _version() -> Answer:
    from advisor import __version__

    return Answer(f"finetune-advisor {__version__}\n")


def _refuse_before(command: str, options: dict[str, Any]) -> None:
    """Options before a subcommand would be lost without a word."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise InvalidInputError(f"{flag} belongs after the subcommand: advise {command} {flag} …")
