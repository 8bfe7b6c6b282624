"""`advise record`, `advise runs`, `advise inspect`: one call of the API each, one screen."""

from __future__ import annotations

import inspect as signatures
import os
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from advisor.bounded import exists, place
from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.options import SWITCHES, TEXT_OPTIONS, Json
from advisor.errors import InvalidInputError

Ledger = Annotated[str | None, typer.Option(metavar="FILE", help="Ledger of runs; the project's if left out.", show_default=False)]

# Name of a field of RunRecord or Evaluation: (what the help shows for the value, the help). The flag is the name with dashes.
RECORD_TEXTS: dict[str, tuple[str, str]] = {
    "name": ("TEXT", "A name for the run."),
    "model": ("NAME", "The model that was trained."),
    "gpu": ("NAME", "The card that it ran on."),
    **TEXT_OPTIONS,
    "method": (TEXT_OPTIONS["method"][0], "How it was trained."),
    "alpha": ("X", "Scale of the adapter."),
    "learning_rate": ("X", "Highest learning rate of the schedule."),
    "lr_schedule": ("NAME", "linear, cosine, constant …"),
    "effective_batch": ("N", "Sequences per optimizer step, over all GPUs."),
    "steps": ("N", "Optimizer steps that were done."),
    "epochs": ("X", "Passes over the data."),
    "tokens": ("TOKENS", "Seen in training, all epochs together."),
    "examples": ("N", "Examples of the training set."),
    "data_fraction": ("X", "Share of the training set that was used, where not all."),
    "dropout": ("X", "Dropout of the adapter."),
    "init": ("NAME", "Initialisation of the adapter: pissa, olora …"),
    "seed": ("N", "Seed of the run."),
    "seconds": ("X", "Time of training."),
    "train_loss": ("X", "Training loss at the end; nan where it broke."),
    "eval_loss": ("X", "Evaluation loss at the end."),
    "metric": ("NAME", "What the score is."),
    "score": ("X", "The score; the mean of the items if left out."),
    "n": ("N", "Items that it was scored on."),
    "items": ("FILE", "Result of each item: JSON or JSON lines."),
    "standard_error": ("X", "Of the score, where it is known."),
    "target": ("X", "Score that would be good enough."),
    "truncated_rank": ("N", "The score is of the adapter cut to this rank."),
    "epoch": ("X", "The score was taken at this epoch, before the end."),
    "peak": ("SIZE", "Largest memory that was reserved, per GPU: 38.2GiB."),
    "peak_allocated": ("SIZE", "Largest memory that was allocated, per GPU."),
    "note": ("TEXT", "A remark."),
}
RECORD_SWITCHES: dict[str, str] = {
    **SWITCHES,
    "use_rslora": "The scale is alpha over the root of the rank.",
    "oom": "It ran out of memory.",
    "diverged": "Its loss broke.",
    "lr_tuned": "Its learning rate was swept.",
    "higher_is_better": "Which way the metric counts.",
    "retention": "The score is of a general benchmark: what was not forgotten.",
}


def _takes_record_options(command: Callable[..., Answer]) -> Callable[..., Answer]:
    """Adds the options to a command, which gets those that were given as the dictionary `given`."""

    @wraps(command)
    def with_options(**arguments: Any) -> Answer:
        given = {name: arguments.pop(name) for name in (*RECORD_TEXTS, *RECORD_SWITCHES)}
        return command(**arguments, given={name: value for name, value in given.items() if value is not None})

    own = [each for name, each in signatures.signature(command, eval_str=True).parameters.items() if name != "given"]
    texts = [
        _parameter(name, Annotated[str | None, typer.Option(_flag(name), metavar=metavar, help=help, show_default=False)])
        for name, (metavar, help) in RECORD_TEXTS.items()
    ]
    switches = [
        _parameter(name, Annotated[bool | None, typer.Option(f"{_flag(name)}/--no-{_flag(name)[2:]}", help=help, show_default=False)])
        for name, help in RECORD_SWITCHES.items()
    ]
    every = [each.replace(kind=signatures.Parameter.KEYWORD_ONLY) for each in (*own, *texts, *switches)]
    with_options.__dict__["__signature__"] = signatures.Signature(every)
    with_options.__annotations__ = {each.name: each.annotation for each in every}
    return with_options


def _parameter(name: str, annotation: Any) -> signatures.Parameter:
    return signatures.Parameter(name, signatures.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@_takes_record_options
def record(
    given: dict[str, Any],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="A JSON file, a trainer_state.json, or a trainer's output folder.", show_default=False),
    ] = None,
    run: Annotated[
        int | None, typer.Option(metavar="N", help="Add to this run of the ledger instead of a new one.", show_default=False)
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="The score is of the untuned model.")] = False,
    ledger: Ledger = None,
    json: Json = False,
) -> Answer:
    """Store a run, or what became of it, in the project's ledger.

    advise record outputs/first --method qlora

    advise record --method lora --rank 16 --learning-rate 2e-4 --metric exact_match --score 0.482 --n 1319

    advise record --run 3 --metric exact_match --items results.jsonl

    advise record --base --metric exact_match --score 0.21 --n 1319
    """
    from advisor.ledger import ledger_path, record_all
    from advisor.render.runs import recorded

    fields = {**_fields(given), **({"kind": "base"} if base else {})}
    stored = record_all(source, run=run, ledger=ledger, **fields)
    place_of_all = str(ledger_path(ledger))
    done = f"{place_of_all} holds run {', '.join(str(entry.id) for entry in stored)}: do not record it again"
    if json:
        return Answer(as_json(stored if len(stored) > 1 else stored[0]), done=done)
    return Answer(screen(recorded(stored, place_of_all)), done=done)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The flags as fields: sizes in bytes, and one note as the first of several."""
    from advisor.units import parse_size

    fields = dict(given)
    for flag, field in (("peak", "peak_bytes"), ("peak_allocated", "peak_allocated_bytes")):
        if flag in fields:
            fields[field] = parse_size(fields.pop(flag))
    if "note" in fields:
        fields["notes"] = (fields.pop("note"),)
    items = fields.get("items")
    if items is not None and items.isdecimal() and not exists(place(items)):
        raise InvalidInputError(f"--items {items}: it is the file of the items' results; their number is --n {items}")
    return fields


def runs(
    number: Annotated[int | None, typer.Argument(metavar="[N]", help="Show this run alone.", show_default=False)] = None,
    ledger: Ledger = None,
    json: Json = False,
) -> Answer:
    """List the runs of the project's ledger."""
    from advisor.ledger import held
    from advisor.render import runs as render

    found, damaged, problem = held(ledger)
    if number is None:
        return Answer(as_json(found) if json else screen(render.runs(found)), problem=problem)
    chosen = next((entry for entry in found if entry.id == number), None)
    if chosen is None and any(entry.number == number for entry in damaged):
        raise InvalidInputError(problem)
    if chosen is None:
        raise InvalidInputError(
            f"there is no run {number}: {f'they are numbered up to {found[-1].id}' if found else 'none is recorded yet'}"
        )
    return Answer(as_json(chosen) if json else screen(render.run(chosen)))


def inspect(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER_DIR", help="Folder with adapter_config.json and adapter_model.safetensors.")],
    truncate: Annotated[
        int | None, typer.Option(metavar="R", help="Write the adapter cut to rank R, to be evaluated again.", show_default=False)
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to write it; ADAPTER_DIR-rR if left out.", show_default=False)
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The base model's safetensors: how far DoRA's magnitudes moved.", show_default=False),
    ] = None,
    modules: Annotated[bool, typer.Option("--modules", help="One line a module instead of one a kind.")] = False,
    json: Json = False,
) -> Answer:
    """Read a trained adapter: the size and the rank of its updates, what is untrained, what a lower rank would keep.

    advise inspect outputs/first

    advise inspect outputs/first --truncate 8 --out outputs/first-r8
    """
    from advisor.adapters import inspect_adapter, truncate_adapter
    from advisor.render import adapter as render

    # Before numpy is loaded: the matrices are small, and OpenBLAS's threads wait for each other longer than they work on them (three
    # times as long in all on two shared cores).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if truncate is None and out is not None:
        raise InvalidInputError("--out is where the truncated adapter goes; say its rank with --truncate R")
    if truncate is not None:
        written = truncate_adapter(adapter, truncate, out)
        return Answer(as_json(written) if json else screen(render.truncated(written)), done=f"{written.path} is written")
    report = inspect_adapter(adapter, base)
    return Answer(as_json(report) if json else screen(render.adapter(report, modules)))
