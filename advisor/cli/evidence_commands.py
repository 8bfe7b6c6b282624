"""`advise next`: facts from a file, a ledger or flags, one call of the API, one screen."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Annotated, Any, NamedTuple

import typer

from advisor.cli.answer import Answer, as_json, screen
from advisor.cli.options import Html, Json
from advisor.cli.pages import with_page
from advisor.values import Method
from advisor.values.evidence import Complaint
from advisor.values.request import Precision, Task


class _Flag(NamedTuple):
    """Where a flag's value goes: the facts themselves, their evaluation, or the run that the flags describe."""

    place: str
    field: str
    metavar: str
    help: str


def _choices(words: Any) -> str:
    return "|".join(word.value for word in words)


FLAGS: dict[str, _Flag] = {
    "model": _Flag("facts", "model", "NAME", "The model: a name, a Hub id, or the path of a config.json."),
    "gpu": _Flag("facts", "gpu", "NAME", 'The card ("rtx 4090") or its size ("80GB"), for the price.'),
    "task": _Flag("facts", "task", _choices(Task), "What the data teaches."),
    "dataset_tokens": _Flag("facts", "dataset_tokens", "TOKENS", "Unique training tokens."),
    "metric": _Flag("evaluation", "metric", "NAME", "What the score is."),
    "items": _Flag("evaluation", "n", "N", "Held-out items that it is scored on."),
    "target": _Flag("evaluation", "target", "X", "Score that would be good enough."),
    "base_score": _Flag("evaluation", "base", "X", "Score of the untuned model."),
    "unit": _Flag("facts", "unit", "share|percent|raw", "Of every score; read off the scores if left out."),
    "current": _Flag("facts", "current", "ID", "Run to go on from."),
    "complaint": _Flag("facts", "complaint", _choices(Complaint), "What is wrong, where it is not the score."),
    "rank_cap": _Flag("facts", "rank_cap", "N", "Largest rank that serving allows."),
    "serving": _Flag("facts", "serving", "merged|unmerged", "How adapters are served."),
    "spare_runs": _Flag("facts", "spare_runs", "N", "Runs that may go to long shots."),
    "budget": _Flag("facts", "budget_usd", "USD", "What the first pilots may cost together."),
    "examples": _Flag("facts", "examples", "N", "Training examples."),
    "method": _Flag("run", "method", _choices(Method), "Method of a run, the newest one; the flags below belong to it."),
    "rank": _Flag("run", "rank", "N", "Its rank."),
    "alpha": _Flag("run", "alpha", "X", "Its alpha."),
    "learning_rate": _Flag("run", "learning_rate", "X", "Its learning rate."),
    "target_modules": _Flag("run", "targets", "NAMES", "Modules that it adapted: q_proj,v_proj or all-linear."),
    "batch": _Flag("run", "batch", "N", "Its sequences per optimizer step."),
    "steps": _Flag("run", "steps", "N", "Its optimizer steps."),
    "epochs": _Flag("run", "epochs", "X", "Its passes over the data."),
    "precision": _Flag("run", "precision", _choices(Precision), "Type of its weights and of its computation."),
    "losses": _Flag("run", "train_losses", "X,X,…", "Its training losses in order, equally spaced; nan where it broke."),
    "eval_losses": _Flag("run", "eval_losses", "X,X,…", "Its evaluation losses, likewise."),
    "score": _Flag("run", "score", "X", "Its score."),
}
SWITCHES: dict[str, _Flag] = {
    "oom": _Flag("run", "oom", "", "It ran out of memory."),
    "diverged": _Flag("run", "diverged", "", "Its loss broke."),
    "lr_tuned": _Flag("run", "lr_tuned", "", "Its learning rate was swept."),
    "no_more_data": _Flag("facts", "no_more_data", "", "Nothing can be collected beyond what there is."),
}


def _takes_flags(command: Callable[..., Answer]) -> Callable[..., Answer]:
    """Adds the flags to a command, which gets those that were given as the dictionary `given`."""

    @wraps(command)
    def with_flags(**arguments: Any) -> Answer:
        given = {name: arguments.pop(name) for name in (*FLAGS, *SWITCHES)}
        return command(**arguments, given={name: value for name, value in given.items() if value is not None})

    own = [each for name, each in inspect.signature(command, eval_str=True).parameters.items() if name != "given"]
    texts = [
        _parameter(name, Annotated[str | None, typer.Option("--" + name.replace("_", "-"), metavar=flag.metavar, help=flag.help)])
        for name, flag in FLAGS.items()
    ]
    switches = [
        _parameter(name, Annotated[bool | None, typer.Option("--" + name.replace("_", "-"), help=flag.help)])
        for name, flag in SWITCHES.items()
    ]
    every = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *texts, *switches)]
    with_flags.__dict__["__signature__"] = inspect.Signature(every)
    with_flags.__annotations__ = {each.name: each.annotation for each in every}
    return with_flags


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


@_takes_flags
def next(
    given: dict[str, Any],
    facts: Annotated[str | None, typer.Option(metavar="FILE", help="Facts as JSON.", show_default=False)] = None,
    ledger: Annotated[
        str | None, typer.Option(metavar="FILE", help="Ledger of runs; the project's if left out.", show_default=False)
    ] = None,
    json: Json = False,
    html: Html = None,
) -> Answer:
    """Which door next, the constraint that binds, and the one experiment that decides it.

    advise next --ledger advise-runs.sqlite

    advise next --facts facts.json --gpu 80GB

    advise next --model llama-2-7b --method qlora --rank 64 --learning-rate 1e-5 --score 0.118 --items 500 --target 0.26

    Exit code: 0 a recommendation, 2 bad input, 3 cannot tell.
    """
    from advisor import api
    from advisor.render.next_step import next_step

    answer = api.next_step(facts, ledger=ledger, **_fields(given))
    shown = Answer(as_json(answer) if json else screen(next_step(answer)), answer.exit_code)
    return with_page(html, "The next step", partial(next_step, answer), shown)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The flags as fields of Facts: one evaluation and, where any of its flags was given, one run."""
    places: dict[str, dict[str, Any]] = {"facts": {}, "evaluation": {}, "run": {}}
    for name, value in given.items():
        flag = FLAGS.get(name) or SWITCHES[name]
        places[flag.place][flag.field] = value
    fields = dict(places["facts"])
    if places["evaluation"]:
        fields["evaluation"] = places["evaluation"]
    if places["run"]:
        fields["runs"] = (places["run"],)
    return fields
