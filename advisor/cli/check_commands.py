"""`advise check` and `advise config`: a trainer's own file read, and written. One call each, one screen."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advisor.bounded import place
from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.files import write_new, write_together
from advisor.cli.options import GpuName, Html, Json, ModelName, takes_plan_options
from advisor.cli.pages import with_page
from advisor.errors import InvalidInputError
from advisor.shown import shown

if TYPE_CHECKING:
    from advisor.configs.emit import Named

FORMATS = ("text", "github")
SHELL = (".sh", ".bash")
"""Endings that are read as shell scripts (advisor/stacks/detect.py)."""


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
    out: Annotated[str | None, _text("FILE", "Where to write it; stdout if left out.")] = None,
    launch: Annotated[str | None, _text("FILE", "Write a script that starts it, with accelerate's and DeepSpeed's files beside.")] = None,
) -> Answer:
    """Write the recommended plan as a framework's own file: trl, hf, axolotl or llamafactory.

    advise config --stack axolotl --model llama-3-8b --gpu 24GB --out qlora.yml

    With --launch start.sh, what the cards share stands in accelerate.yaml (and deepspeed.json) beside the file, and not in it.

    Exit code: 0 written, 1 nothing fits, 2 bad input.
    """
    from advisor.configs.emit import emitted

    stack = options.pop("stack", None)
    if stack is None:
        raise InvalidInputError("--stack is missing: trl, hf, axolotl or llamafactory")
    names = None if launch is None else _names(out, launch)
    written = emitted(model, gpu, stack, options, names)
    if written.advice.chosen is None:
        return Answer(f"{written.advice.verdict.sentence}\n", written.advice.exit_code)
    if out is None:
        return Answer(written.text)
    path = place(out)
    if names is None:
        write_new(path, written.text, "--out", out)
    else:
        write_together(path.parent, written.files, "--launch")
    return Answer(f"{shown(str(path))}: {written.advice.verdict.sentence}\n", done=f"{path} is written")


def _names(out: str | None, launch: str) -> Named:
    """Names of the trainer's file and of the script. Raises InvalidInputError where they are not two files of one folder."""
    from advisor.configs.emit import Named
    from advisor.stacks.write_launch import ACCELERATE_FILE, DEEPSPEED_FILE

    if out is None:
        raise InvalidInputError("--launch starts a file: say with --out where to write that")
    training, script = place(out), place(launch)
    if training.parent != script.parent:
        raise InvalidInputError(f"--launch {launch}: it is written beside --out {out}; name it in the same folder")
    if script.suffix not in SHELL:
        raise InvalidInputError(f"--launch {launch}: name a file that ends in .sh")
    if len({training.name, script.name, ACCELERATE_FILE, DEEPSPEED_FILE}) < 4:
        raise InvalidInputError(f"--out {out}: the name is taken by one of the launcher's files; choose another")
    return Named(training.name, script.name)
