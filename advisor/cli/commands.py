"""The subcommands: parse, one call of the API, render. Each hands back an Answer; `advisor.cli.run` prints it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from advisor.cli.answer import Answer, as_json, exit_code_of, screen
from advisor.cli.files import timeline_place, write_timeline
from advisor.cli.options import GpuName, Html, Json, ModelName, NoCalibration, ignoring, parse_lengths, takes_plan_options
from advisor.cli.pages import refuse_page, with_page
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
    html: Html = None,
) -> Answer:
    """Price one plan: its memory by term and phase."""
    from advisor import api
    from advisor.render import estimate as render

    options = {**ignoring(no_calibration), **options}
    refuse_page(html, versus_trace)
    priced = api.price(model, gpu, progress=progress(), **options)
    if not versus_trace:
        answer = Answer(as_json(priced.memory) if json else screen(render.estimate(priced)), exit_code_of(priced.fit))
        return with_page(html, f"{priced.model.id} by {priced.plan.method.label}", partial(render.estimate, priced), answer)
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
    timeline: Annotated[
        str | None,
        typer.Option(
            "--timeline",
            metavar="FILE",
            help="Write what is held and reserved, event by event, as a trace for ui.perfetto.dev or Chrome's about:tracing.",
            show_default=False,
        ),
    ] = None,
    no_calibration: NoCalibration = False,
    json: Json = False,
) -> Answer:
    """Price one plan by a dry run of the installed libraries, without a GPU and without weights."""
    from advisor import api
    from advisor.render import estimate as render

    options = {**ignoring(no_calibration), **options}
    how = api.HowToTrace(parse_lengths(lengths), peft_config, alloc_conf)
    path = None if timeline is None else timeline_place(timeline)
    priced, found = api.dry_run(model, gpu, how, progress=progress(), **options)
    done = ""
    if path is not None and timeline is not None:
        write_timeline(path, found.stream, found.layer_path, how.alloc_conf, timeline)
        done = f"{path} is written"
    text = as_json(priced.memory) if json else screen(render.explained(priced, found.holders()) if explain else render.estimate(priced))
    return Answer(text, exit_code_of(priced.fit), done=done)


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


@takes_plan_options
def gpus(
    options: dict[str, Any],
    words: Words = None,
    model: Annotated[str | None, typer.Option("--for", metavar="MODEL", help="Which of them train this model, and at what price.")] = None,
    json: Json = False,
) -> Answer:
    """List the GPUs that have a profile; with --for MODEL what fits them, how long a sequence, hours and price.

    advise gpus rtx

    advise gpus --for llama-3.1-8b --dataset-tokens 30M

    Of a model, the cards that can be rented; with words, those that they name.
    """
    from advisor.devices import search_gpus
    from advisor.render.listings import gpus

    text = " ".join(words or ())
    if model is not None:
        return compared([model], None, text, options, json=json)
    if options:
        raise InvalidInputError(f"--{next(iter(options)).replace('_', '-')}: say for which model, with --for MODEL")
    found = search_gpus(text)
    return Answer(as_json(found) if json else screen(gpus(found)))


@takes_plan_options
def compare(
    options: dict[str, Any],
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="Names, Hub ids, or paths of a config.json.")],
    gpu: Annotated[
        list[str] | None, typer.Option("--gpu", "-g", metavar="NAME", help="A card or a size; repeat it.", show_default=False)
    ] = None,
    json: Json = False,
) -> Answer:
    """Lay models and cards side by side: what fits, how long a sequence, hours and price.

    advise compare llama-3.1-8b qwen3-8b --gpu l4 --gpu "rtx 4090"

    advise compare llama-70b --gpu h100 --gpu h200 --gpu a100

    Without --gpu, the cards that can be rented. Exit code: 0 something fits, 1 nothing fits, 2 bad input, 3 cannot tell.
    """
    return compared(models, gpu, "", options, json=json)


def compared(models: list[str], gpus: list[str] | None, words: str, options: dict[str, Any], *, json: bool) -> Answer:
    """The comparison of models on cards by name, or on those that can be rented."""
    from advisor.comparing import compare, rentable
    from advisor.render.comparison import comparison

    cards = gpus or rentable(words)
    if not cards:
        raise InvalidInputError(f"no card's name holds {words!r}; `advise gpus` lists every card")
    found = compare(models, cards, progress=progress(), **options)
    return Answer(as_json(found) if json else screen(comparison(found)), found.exit_code)


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
