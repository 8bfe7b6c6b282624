"""Help as blocks: usage, what the command is for with its examples, and every option under its heading, with its default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advisor.cli.options import LOOP_PANEL, PANELS
from advisor.render.blocks import BLANK, Block, Code, Heading, entries, paragraph

COMMAND_PANELS = {
    "What fits": ("estimate", "trace", "gpus", "compare", "fit", "sweep", "models"),
    "With the trainer that you use": ("check", "config", "calibrate"),
    "After a run": ("record", "runs", "next", "inspect"),
}
"""Headings of the subcommands; those that stand in none come last."""
LAST_COMMANDS, LAST_OPTIONS = "To look up", "Other options"


def help_of(command: Any, ctx: Any) -> Iterator[Block]:
    """Usage, purpose with examples, options and subcommands under their headings."""
    yield paragraph(f"Usage: {' '.join([ctx.command_path, *command.collect_usage_pieces(ctx)])}", "bold")
    for text in (command.help or "").split("\n\n"):
        line = " ".join(text.split())
        yield BLANK
        yield Code(f"  {line}") if line.startswith("advise ") else paragraph(line)
    for title, parameters in _panels(command.get_params(ctx)).items():
        yield Heading(title)
        defaults = _defaults() if title in (*PANELS, LOOP_PANEL) else {}
        yield entries([row for row in (_row(parameter, ctx, defaults) for parameter in parameters) if row], "bold")
    yield from _commands(command, ctx)


def _row(parameter: Any, ctx: Any, defaults: dict[str, str]) -> tuple[str, str] | None:
    record = parameter.get_help_record(ctx)
    if record is None:
        return None
    label, text = record
    flags, _, metavar = label.rpartition(" ")
    if "|" in metavar:  # a few words: too long to stand beside the flag
        label, text = f"{flags} WORD", f"{text} One of {metavar.replace('|', ', ')}."
    default = defaults.get(parameter.name)
    return label, f"{text} [{default}]" if default else text


def _defaults() -> dict[str, str]:
    """What an option of a plan is where it is left out, on the first stack."""
    from advisor.stacks import defaults_of
    from advisor.stacks.first_plan import FIRST_EFFECTIVE_BATCH, FIRST_MICRO_BATCH, FIRST_RANK, FIRST_SEQ_LEN_TOKENS
    from advisor.values import Quantization, Stack

    stack = defaults_of(Stack.HF)
    return {
        "method": "all of them",
        "rank": str(FIRST_RANK),
        "target_modules": "all-linear",
        "batch_size": str(FIRST_MICRO_BATCH),
        "seq_len": f"{FIRST_SEQ_LEN_TOKENS:,}",
        "grad_accum": f"up to {FIRST_EFFECTIVE_BATCH} sequences a step",
        "optimizer": stack.optimizer.value.value,
        "loss": stack.loss.value.value,
        "quantization": Quantization.NF4.value,
        "precision": "bf16; fp16 on cards without it",
        "attention": "sdpa where the model has it",
        "stack": stack.stack.value,
    }


def _panels(parameters: list[Any]) -> dict[str, list[Any]]:
    """Parameters by their headings, in the order in which the headings are first met; those without one last."""
    panels: dict[str, list[Any]] = {}
    for parameter in parameters:
        title = getattr(parameter, "rich_help_panel", None) or LAST_OPTIONS
        panels.setdefault(title, []).append(parameter)
    return {**{title: found for title, found in panels.items() if title != LAST_OPTIONS}, LAST_OPTIONS: panels.get(LAST_OPTIONS, [])}


def _commands(command: Any, ctx: Any) -> Iterator[Block]:
    names = list(getattr(command, "commands", ()))
    placed = {name for panel in COMMAND_PANELS.values() for name in panel}
    panels = {**COMMAND_PANELS, LAST_COMMANDS: tuple(name for name in names if name not in placed)}
    for title, members in panels.items():
        rows = [(name, _summary(command.get_command(ctx, name))) for name in members if name in names]
        if rows:
            yield Heading(title)
            yield entries(rows, "bold")


def _summary(command: Any) -> str:
    """The first paragraph of its help."""
    return " ".join(str(command.help or "").split("\n\n")[0].split())
