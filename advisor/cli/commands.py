"""The subcommands: parse, one call of the API, render. Each hands back an Answer; `advisor.cli.run` prints it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from advisor.cli.answer import Answer, as_json, exit_code_of, look_of_stdout
from advisor.cli.options import GpuName, Json, ModelName, NoCalibration, ignoring, parse_lengths, takes_plan_options

Words = Annotated[list[str] | None, typer.Argument(metavar="[WORDS]", help="Words that the name must hold.", show_default=False)]


@takes_plan_options
def estimate(
    options: dict[str, Any], model: ModelName, gpu: GpuName = None, no_calibration: NoCalibration = False, json: Json = False
) -> Answer:
    """Price one plan: its memory by term and phase."""
    from advisor import api
    from advisor.render.estimate import estimate

    priced = api.price(model, gpu, **ignoring(no_calibration), **options)
    return Answer(as_json(priced.memory) if json else estimate(priced, look_of_stdout()), exit_code_of(priced.fit))


@takes_plan_options
def trace(
    options: dict[str, Any],
    model: ModelName,
    gpu: GpuName = None,
    lengths: Annotated[str, typer.Option(metavar="TOKENS", help="Steps of these lengths in turn: 230,485,683.", show_default=False)] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Say which modules hold what at the peak.")] = False,
    no_calibration: NoCalibration = False,
    json: Json = False,
) -> Answer:
    """Price one plan by a dry run of the installed libraries, without a GPU and without weights."""
    from advisor import api
    from advisor.render import estimate as render

    priced, holders = api.dry_run(model, gpu, parse_lengths(lengths), **ignoring(no_calibration), **options)
    look = look_of_stdout()
    text = as_json(priced.memory) if json else render.explained(priced, holders, look) if explain else render.estimate(priced, look)
    return Answer(text, exit_code_of(priced.fit))


def models(words: Words = None, json: Json = False) -> Answer:
    """List the models that have a profile."""
    from advisor.hub import search_models
    from advisor.render.listings import models

    found = search_models(" ".join(words or ()))
    return Answer(as_json(found) if json else models(found, look_of_stdout()))


def gpus(words: Words = None, json: Json = False) -> Answer:
    """List the GPUs that have a profile."""
    from advisor.devices import search_gpus
    from advisor.render.listings import gpus

    found = search_gpus(" ".join(words or ()))
    return Answer(as_json(found) if json else gpus(found, look_of_stdout()))


def accuracy(json: Json = False, markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False) -> Answer:
    """Lay the predictions beside every measured run there is a profile of."""
    from advisor import api
    from advisor.render import accuracy as render

    report = api.accuracy()
    if json:
        return Answer(as_json(report))
    return Answer(render.markdown(report) if markdown else render.accuracy(report, look_of_stdout()))
