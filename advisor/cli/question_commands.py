"""`advise fit`, a question asked backwards, and `advise sweep`, a whole grid of them. One call of the API each, one screen."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.options import GpuName, Html, Json, NoCalibration, ignoring, takes_plan_options
from advisor.cli.pages import with_page
from advisor.cli.progress import progress


@takes_plan_options
def fit(
    options: dict[str, Any],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="A name, a Hub id, the path of a config.json, or: largest.", show_default=False),
    ] = None,
    gpu: GpuName = None,
    no_calibration: NoCalibration = False,
    json: Json = False,
    html: Html = None,
) -> Answer:
    """Ask backwards: the longest sequence, the largest batch or model, the fewest or the cheapest cards that fit.

    advise fit --model llama-3.1-8b --method qlora --gpu 24GB --seq-len max

    advise fit --model llama-3.1-8b --method qlora --gpu 24GB --seq-len 4k --batch-size max

    advise fit --model llama-70b --method qlora --gpu cheapest --dataset-tokens 30M

    advise fit --model llama-70b --method lora --gpu h100 --gpus min --shard fsdp

    advise fit --model largest --method qlora --gpu 24GB

    One word takes the place of the value that is asked for; the other options are those of advise estimate.

    Exit code: 0 something fits, 1 nothing fits, 2 bad input, 3 cannot tell.
    """
    from advisor import api
    from advisor.render.fit import fit as fit_screen

    found = api.fit(model, gpu, progress=progress(), **ignoring(no_calibration), **options)
    answer = Answer(as_json(found) if json else screen(fit_screen(found)), found.exit_code)
    return with_page(html, "What fits", partial(fit_screen, found), answer)


def sweep(
    grid: Annotated[str, typer.Argument(metavar="SWEEP", help="The grid: options with their values, as YAML.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Ends in .parquet, .csv, .jsonl or .json; SWEEP with .parquet if left out.", show_default=False),
    ] = None,
    json: Json = False,
) -> Answer:
    """Price every combination of models, cards and plans into one table. Needs the extra `sweep`.

    advise sweep sweep.yaml --out plans.parquet

    The file holds options of advise estimate, each with one value or several:

    model: [llama-3.1-8b, qwen2.5-7b]

    gpu: [rtx 4090, h100]

    method: [lora, qlora]

    seq_len: {from: 512, to: 8192, step: 512}

    An interrupted sweep goes on where it was when it is started again.

    Exit code: 0 something fits, 1 nothing fits, 2 bad input, 3 cannot tell.
    """
    from advisor import api
    from advisor.render.sweep import sweep as sweep_screen

    report = api.sweep(grid, out, progress=progress())
    done = f"{report.out} is written"
    return Answer(as_json(report) if json else screen(sweep_screen(report)), report.exit_code, done=done)
