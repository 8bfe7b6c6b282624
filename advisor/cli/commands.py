"""The subcommands: parse, one call of the API, render. Each hands back an Answer; `advisor.cli.run` prints it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from advisor.cli.answer import Answer, as_json, exit_code_of, screen
from advisor.cli.options import GpuName, Json, ModelName, NoCalibration, ignoring, parse_lengths, takes_plan_options
from advisor.cli.progress import progress
from advisor.errors import InvalidInputError

Words = Annotated[list[str] | None, typer.Argument(metavar="[WORDS]", help="Words that the name must hold.", show_default=False)]


@takes_plan_options
def estimate(
    options: dict[str, Any],
    model: ModelName,
    gpu: GpuName = None,
    versus_trace: Annotated[bool, typer.Option("--versus-trace", help="Lay the dry run of the same plan beside it.")] = False,
    no_calibration: NoCalibration = False,
    json: Json = False,
) -> Answer:
    """Price one plan: its memory by term and phase."""
    from advisor import api
    from advisor.render import estimate as render

    options = {**ignoring(no_calibration), **options}
    priced = api.price(model, gpu, progress=progress(), **options)
    if not versus_trace:
        return Answer(as_json(priced.memory) if json else screen(render.estimate(priced)), exit_code_of(priced.fit))
    traced, _ = api.dry_run(model, gpu, progress=progress(), **options)
    both = [priced.memory, traced.memory]
    return Answer(as_json(both) if json else screen(render.versus(priced, traced.memory)), exit_code_of(priced.fit))


@takes_plan_options
def trace(
    options: dict[str, Any],
    model: ModelName,
    gpu: GpuName = None,
    lengths: Annotated[str, typer.Option(metavar="TOKENS", help="Steps of these lengths in turn: 230,485,683.", show_default=False)] = "",
    peft_config: Annotated[
        str | None,
        typer.Option(
            "--peft-config", metavar="PATH", help="Any peft adapter: an adapter_config.json or its directory.", show_default=False
        ),
    ] = None,
    alloc_conf: Annotated[
        str,
        typer.Option("--alloc-conf", metavar="SETTINGS", help="As in PYTORCH_ALLOC_CONF: expandable_segments:True.", show_default=False),
    ] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Say which modules hold what at the peak.")] = False,
    no_calibration: NoCalibration = False,
    json: Json = False,
) -> Answer:
    """Price one plan by a dry run of the installed libraries, without a GPU and without weights."""
    from advisor import api
    from advisor.render import estimate as render

    options = {**ignoring(no_calibration), **options}
    how = api.HowToTrace(parse_lengths(lengths), peft_config, alloc_conf)
    priced, holders = api.dry_run(model, gpu, how, progress=progress(), **options)
    text = as_json(priced.memory) if json else screen(render.explained(priced, holders) if explain else render.estimate(priced))
    return Answer(text, exit_code_of(priced.fit))


def traced_advice(model: str, gpu: str | None, options: dict[str, Any], *, view: str) -> Answer:
    """`advise … --trace`: the answer, and what the dry run says of its verdict."""
    from advisor import api
    from advisor.render import traced as render

    found = api.advise_and_trace(model, gpu, progress(), **options)
    exit_code = found.advice.exit_code if found.memory is None else exit_code_of(found.fit)
    return Answer(
        as_json(found) if view == "json" else screen(render.traced_advice(found, full=view == "full")), exit_code, long=view == "full"
    )


def models(words: Words = None, json: Json = False) -> Answer:
    """List the models that have a profile."""
    from advisor.hub import search_models
    from advisor.render.listings import models

    found = search_models(" ".join(words or ()))
    return Answer(as_json(found) if json else screen(models(found)))


def gpus(words: Words = None, json: Json = False) -> Answer:
    """List the GPUs that have a profile."""
    from advisor.devices import search_gpus
    from advisor.render.listings import gpus

    found = search_gpus(" ".join(words or ()))
    return Answer(as_json(found) if json else screen(gpus(found)))


def accuracy(
    rows: Annotated[
        str | None,
        typer.Option("--rows", metavar="FILE", help="Other runs, in the format of profiles/measurements.", show_default=False),
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Make the dry runs anew, under the installed libraries.")] = False,
    snapshots: Annotated[
        str | None,
        typer.Option("--snapshots", metavar="DIR", help="Histories of a card's allocator, beside dry runs made now.", show_default=False),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
    json: Json = False,
) -> Answer:
    """Lay the predictions of both tiers beside every measured run there is a profile of.

    advise accuracy --snapshots out explains, event by event, where a dry run differs from a card (benchmarks/on_card.py writes out).
    """
    from advisor import api

    if snapshots is not None:
        return _snapshots(snapshots, alone=rows is None and not (trace or markdown), json=json)
    from advisor.render import accuracy as render

    reports = api.accuracy(rows, trace=trace, progress=progress())
    if json:
        return Answer(as_json(reports))
    return Answer(render.markdown(reports) if markdown else screen(render.accuracy(reports)))


def _snapshots(folder: str, *, alone: bool, json: bool) -> Answer:
    from advisor import api
    from advisor.render import snapshots as render

    if not alone:
        raise InvalidInputError("--snapshots stands alone, or with --json: leave --rows, --trace and --markdown out")
    reports = api.snapshots(folder, progress=progress())
    return Answer(as_json(reports) if json else screen(render.snapshots(reports)))
