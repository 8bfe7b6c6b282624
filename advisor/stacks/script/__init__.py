"""The settings of a Python training script or notebook, followed in its text and never run.

`values` is what is computed with, `machine` the state, `expressions` and `statements` follow the syntax tree, `library` knows what calls
of transformers, peft, trl and Unsloth mean, `parsers` the command line; `job` finds the training and `settings` says it.
"""

from __future__ import annotations

import ast
from pathlib import Path

from advisor.errors import InvalidInputError, UnsupportedError
from advisor.stacks.script.interpreter import follow
from advisor.stacks.script.job import job_of
from advisor.stacks.script.machine import Start
from advisor.stacks.script.settings import Settings, settings_of
from advisor.stacks.script.text import code_of
from advisor.stacks.syntax import tree_of

__all__ = ["ENDINGS", "Settings", "Start", "parse_script"]

ENDINGS = (".py", ".ipynb")


def parse_script(text: str, path: Path, start: Start | None = None) -> Settings:
    """What the script trains with, as settings under the names that `hf_arguments` reads; `path` names it in errors.

    Raises InvalidInputError for what is no Python, UnsupportedError, one line that names it, for a training that is not priced.
    """
    try:
        tree = tree_of(code_of(text, path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f" at line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise InvalidInputError(f"{path} is no valid Python{place}") from None
    where = str(path)
    try:
        seen, module = follow(tree, start or Start(), str(path.parent))
        settings = settings_of(job_of(seen, tree, where), seen, module, where)
    except (InvalidInputError, UnsupportedError) as error:
        raise error if where in str(error) else type(error)(f"{where}: {error}") from None
    if start is None or start.arguments is None:
        note = ("command line: none was given, so the script's own defaults count (after --, or --set, say others)",)
        settings = settings._replace(taken=(*settings.taken, *(note if _reads_arguments(tree) else ())))
    return settings


def _reads_arguments(tree: ast.Module) -> bool:
    called = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return any(name.startswith("parse_") for name in called) or bool(called & {"cli", "Fire"})
