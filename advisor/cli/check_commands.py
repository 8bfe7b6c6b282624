"""`advise check` and `advise config`: a trainer's own file read, and written. One call each, one screen."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from advisor.bounded import place
from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.files import write_new
from advisor.cli.options import GpuName, Html, Json, ModelName, takes_plan_options
from advisor.cli.pages import with_page
from advisor.errors import InvalidInputError
from advisor.shown import shown

FORMATS = ("text", "github")


def _text(metavar: str, help: str) -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=False)


def check(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The trainer's own file, or the script that starts it.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]", help="What a Python script is started with.", show_default=False)
    ] = None,
    gpu: GpuName = None,
    gpus: Annotated[str | None, _text("N", "How many equal GPUs.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Where the file names none, or an unknown one.")
    ] = None,
    stack: Annotated[str | None, _text("NAME", "Whose file it is, where it does not show.")] = None,
    stack_version: Annotated[str | None, _text("RELEASE", "Whose defaults count, instead of the installed ones.")] = None,
    seq_len: Annotated[str | None, _text("TOKENS", "Longest sequence, instead of the file's bound.")] = None,
    host_memory: Annotated[str | None, _text("SIZE", "Memory of each machine that holds the GPUs: 512GiB.")] = None,
    accelerate: Annotated[str | None, _text("FILE", "The launcher's configuration.")] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting, in the file's own name for it; repeat it.", show_default=False),
    ] = None,
    format: Annotated[str, _text("text|github", "Lines for a reader, or annotations for GitHub Actions.")] = "text",
    json: Json = False,
    html: Html = None,
) -> Answer:
    """Read a trainer's configuration: does it fit, and what is noticeable about it?

    advise check qlora.yml --gpu 24GB

    advise check train.sh --gpu "rtx 4090" --format github

    advise check train.py --gpu 24GB --set r=64 -- --batch_size 4

    Of axolotl, LLaMA-Factory, TRL, ms-swift, torchtune (YAML or JSON), transformers (TrainingArguments as JSON), a Python script, or a
    notebook.

    Exit code: 0 fits, 1 does not fit or would not start, 2 bad input, 3 cannot tell.
    """
    from advisor.configs import check
    from advisor.render import check as render

    if format not in FORMATS:
        raise InvalidInputError(f"--format {format}: must be {' or '.join(FORMATS)}")
    given = {
        "gpus": gpus,
        "model": model,
        "stack": stack,
        "stack_version": stack_version,
        "seq_len": seq_len,
        "host_memory": host_memory,
        "accelerate": accelerate,
        "set": tuple(set) if set else None,
        "arguments": tuple(arguments) if arguments else None,
    }
    report = check(config, gpu, **{name: value for name, value in given.items() if value is not None})
    lines = render.github(report) if format == "github" else screen(render.check(report))
    answer = Answer(as_json(report) if json else lines, report.exit_code)
    return with_page(html, f"Check of {report.config}", partial(render.check, report), answer)


@takes_plan_options
def config(
    options: dict[str, Any],
    model: ModelName,
    gpu: GpuName = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Where to write it; stdout if left out.", show_default=False)] = None,
) -> Answer:
    """Write the recommended plan as a framework's own file: trl, hf, axolotl or llamafactory.

    advise config --stack axolotl --model llama-3-8b --gpu 24GB --out qlora.yml

    Exit code: 0 written, 1 nothing fits, 2 bad input.
    """
    from advisor.configs.emit import emitted

    stack = options.pop("stack", None)
    if stack is None:
        raise InvalidInputError("--stack is missing: trl, hf, axolotl or llamafactory")
    written = emitted(model, gpu, stack, options)
    if written.advice.chosen is None:
        return Answer(f"{written.advice.verdict.sentence}\n", written.advice.exit_code)
    if out is None:
        return Answer(written.text)
    path = place(out)
    write_new(path, written.text, "--out", out)
    return Answer(f"{shown(str(path))}: {written.advice.verdict.sentence}\n", done=f"{path} is written")
