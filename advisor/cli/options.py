"""The options that describe a plan, declared once for every command that takes them.

Each is read as text and validated by `Request`, so that the command line and the Python API refuse the same things in the same words.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Annotated, Any

import typer
from typer.main import get_command

from advisor.cli import completion
from advisor.errors import InvalidInputError
from advisor.values import Attention, Head, Loss, Method, Mixers, Optimizer, Quantization, Sharding, Stack
from advisor.values.request import Precision, Task, read_length


def _choices(words: type[Enum]) -> str:
    return "|".join(str(word.value) for word in words)


ASKED_PANEL, SHOWN_PANEL = "Question", "Answer"
"""Headings in the help, as PANELS."""
_MODEL: dict[str, Any] = {
    "metavar": "NAME",
    "help": "A name, a Hub id, or the path of a config.json.",
    "show_default": False,
    "autocompletion": completion.models,
    "rich_help_panel": ASKED_PANEL,
}
ModelName = Annotated[str, typer.Option("--model", "-m", **_MODEL)]
ModelNameOrNone = Annotated[str | None, typer.Option("--model", "-m", **_MODEL)]
GpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        "-g",
        metavar="NAME",
        help='A card ("rtx 4090"), a cloud\'s machine ("g5.12xlarge"), a size ("80GB", "79.2GiB"), or the local card.',
        show_default=False,
        autocompletion=completion.cards,
        rich_help_panel=ASKED_PANEL,
    ),
]
GpuNames = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        "-g",
        metavar="NAME",
        help='A card ("rtx 4090"), a cloud\'s machine ("g5.12xlarge"), a size ("80GB", "79.2GiB"), or the local card; '
        "given several times, they are compared.",
        show_default=False,
        autocompletion=completion.cards,
        rich_help_panel=ASKED_PANEL,
    ),
]
NoCalibration = Annotated[bool, typer.Option("--no-calibration", help="Ignore what `advise calibrate` measured on this card.")]
Json = Annotated[bool, typer.Option("--json", help="Print the value itself.", rich_help_panel=SHOWN_PANEL)]
Html = Annotated[
    str | None,
    typer.Option(
        "--html", metavar="FILE", help="Write the answer as a page, too: one file.", show_default=False, rich_help_panel=SHOWN_PANEL
    ),
]
# Name in Request: (what the help shows for the value, the help). The flag is the name with dashes.
TEXT_OPTIONS: dict[str, tuple[str, str]] = {
    "method": (_choices(Method), "Consider this method only."),
    "rank": ("N", "Rank of the adapter."),
    "alpha": ("X", "Scale of the adapter; twice the rank if left out."),
    "lora_dropout": ("SHARE", "Dropout of the adapter's inputs, from 0 to below 1."),
    "target_modules": ("NAMES", "Modules to adapt, as peft matches them: q_proj,v_proj or all-linear."),
    "batch_size": ("N", "Sequences per GPU and forward pass."),
    "seq_len": ("TOKENS", "Length of a sequence; 4k is 4,096."),
    "images": ("N", "Images in each sequence, for a model that sees; their tokens are among its length."),
    "image_size": ("WxH", "Their size in pixels: 1024x768."),
    "grad_accum": ("N", "Forward passes per optimizer step."),
    "optimizer": (_choices(Optimizer), "As transformers names it (adamw_bnb_8bit, too)."),
    "precision": (_choices(Precision), "Of the weights and the computation."),
    "quantization": (_choices(Quantization), "Of the frozen base, for QLoRA and QDoRA."),
    "attention": (_choices(Attention), "Which kernel computes attention."),
    "mixers": (_choices(Mixers), "Whose code runs state-space and linear-attention layers; in a dry run alone."),
    "head": (_choices(Head), "What is trained on the model's body; classification on an encoder if left out."),
    "labels": ("N", "Classes of a classifier."),
    "loss": (
        _choices(Loss),
        "How logits become a loss: all at once (the first three), in chunks, in the head.",
    ),
    "stack": (_choices(Stack), "Whose training loop runs."),
    "gpus": ("N", "How many equal GPUs; all of a cloud's machine if left out."),
    "shard": (_choices(Sharding), "What several GPUs share, and by which engine; replicas (ddp) first, if left out."),
    "offload": ("WHAT", "What rests on the host: optimizer, or optimizer,params, under ZeRO or FSDP; activations (TRL)."),
    "shard_group": ("N", "GPUs that share one model, with replicas beside them (FSDP's hybrid sharding); all if left out."),
    "host_memory": ("SIZE", "Of each machine that holds the GPUs, such as 512GiB: held against what its processes take."),
    "dataset_tokens": ("TOKENS", "Size of the training set; 30M is 30,000,000."),
    "epochs": ("X", "Passes over the training set, for hours and USD."),
    "price": ("USD", "What a card rents for an hour; the prices on record if left out."),
    "task": (_choices(Task), "What the data teaches."),
    "eval_items": ("N", "Held-out items that runs are scored on: what gain they can show."),
    "budget": ("USD", "What the runs of the first experiment may cost together."),
}
WORDS: dict[str, type[Enum]] = {
    "method": Method,
    "optimizer": Optimizer,
    "precision": Precision,
    "quantization": Quantization,
    "attention": Attention,
    "mixers": Mixers,
    "head": Head,
    "loss": Loss,
    "stack": Stack,
    "shard": Sharding,
    "task": Task,
}
"""What an option takes, where that is one of a few words."""
SWITCHES: dict[str, str] = {
    "checkpointing": "Recompute activations in the backward pass.",
    "reentrant": "Checkpointing with use_reentrant=True.",
    "sync_each_batch": "Reduce gradients in each micro-batch, which carries less of them and sends more.",
    "padding": "Batches hold padding, so that attention gets a mask.",
    "double_quant": "Quantise the quantisation constants too.",
    "kbit_prepare": "Call peft's prepare_model_for_kbit_training.",
}

PANELS = {
    "Method and adapter": ("method", "rank", "alpha", "lora_dropout", "target_modules"),
    "Data and batch": (
        "batch_size",
        "seq_len",
        "grad_accum",
        "padding",
        "images",
        "image_size",
        "dataset_tokens",
        "task",
        "eval_items",
        "budget",
    ),
    "Several cards": ("gpus", "shard", "offload", "shard_group", "sync_each_batch", "host_memory"),
}
"""Headings in the help; the options that stand in none are of the training loop."""
LOOP_PANEL = "Training loop and memory"

Command = Callable[..., Any]


def takes_plan_options(command: Command) -> Command:
    """Adds the options to a command, which gets those that were given as the dictionary `options`."""

    @wraps(command)
    def with_options(**arguments: Any) -> Any:
        options = {name: arguments.pop(name) for name in (*TEXT_OPTIONS, *SWITCHES)}
        return command(**arguments, options={name: value for name, value in options.items() if value is not None})

    own = [parameter for name, parameter in inspect.signature(command, eval_str=True).parameters.items() if name != "options"]
    parameters = [*own, *_text_parameters(), *_switch_parameters()]
    signature = inspect.Signature([parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters])
    # typer reads both: the signature for names and defaults, the annotations for the options.
    with_options.__dict__["__signature__"] = signature
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _text_parameters() -> list[inspect.Parameter]:
    return [
        _parameter(name, Annotated[str | None, typer.Option(_flag(name), metavar=metavar, help=help, **_shown(name))])
        for name, (metavar, help) in TEXT_OPTIONS.items()
    ]


def panel_of(name: str) -> str:
    """The heading that an option stands under."""
    return next((title for title, members in PANELS.items() if name in members), LOOP_PANEL)


def _shown(name: str) -> dict[str, Any]:
    """Where the help shows an option, and what a shell completes."""
    kind = WORDS.get(name)
    return {"show_default": False, "rich_help_panel": panel_of(name), "autocompletion": None if kind is None else completion.words(kind)}


def _switch_parameters() -> list[inspect.Parameter]:
    return [
        _parameter(
            name,
            Annotated[bool | None, typer.Option(f"{_flag(name)}/--no-{_flag(name)[2:]}", help=help, **_shown(name))],
        )
        for name, help in SWITCHES.items()
    ]


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _leave_colour_out(value: bool) -> None:
    if value:
        os.environ["NO_COLOR"] = "1"


NoColor = Annotated[
    bool,
    typer.Option(
        "--no-color",
        help="Without colour and links.",
        callback=_leave_colour_out,
        expose_value=False,
        is_eager=True,
        rich_help_panel=SHOWN_PANEL,
    ),
]


def no_color() -> Any:
    """The option of every command that leaves colour and links out, as NO_COLOR does, in the form that the installed typer gives it."""
    single = typer.Typer(add_completion=False)

    @single.command()
    def without(no_color: NoColor = False) -> None:
        """Only its option is used."""

    return get_command(single).params[0]


def ignoring(no_calibration: bool) -> dict[str, Any]:
    """What `--no-calibration` passes on."""
    return {"use_calibrations": False} if no_calibration else {}


def parse_lengths(text: str) -> tuple[int, ...]:
    """ "230,485,4k": tokens of each step."""
    lengths = [read_length(part.strip()) for part in text.split(",") if part.strip()]
    if any(length is None for length in lengths):
        raise InvalidInputError(f"--lengths {text}: write numbers of tokens with commas between, such as 230,485,683")
    return tuple(length for length in lengths if length is not None)
