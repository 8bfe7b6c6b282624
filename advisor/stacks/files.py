"""Reads a trainer's file into plain settings. YAML goes through a safe loader with limits; the error is one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from advisor.errors import InvalidInputError, MissingExtraError
from advisor.json_files import parse_json

LARGEST_BYTES = 1_000_000
"""Judgement: the largest published configuration of any of the frameworks is under 20 kB."""
MOST_NODES = 100_000
"""Values of a YAML file after its aliases are written out. Judgement, as above; it stops alias bombs."""
LONGEST_NUMBER = 100
"""Characters of a number. Judgement; PyYAML's numbers to the base of 60 take quadratic time."""
DEEPEST = 50
"""Judgement: configurations nest four or five levels."""

_YAML = (".yaml", ".yml")


class SettingsFile(NamedTuple):
    """What a file holds."""

    path: Path
    text: str
    values: dict[str, Any]
    duplicates: tuple[str, ...] = ()
    """Keys that stand twice: the last one counts, for the trainers as well."""


def read_text(path: Path) -> str:
    """The file's text, or one line that says why there is none."""
    try:
        if path.is_dir():
            raise InvalidInputError(f"{path} is a folder; name the configuration file in it")
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise InvalidInputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError as error:  # a NUL byte in the name
        raise InvalidInputError(f"{str(path)[:80]!r} is no file name: {error}") from None
    if len(raw) > LARGEST_BYTES:
        raise InvalidInputError(f"{path} is no training configuration: it is larger than {LARGEST_BYTES // 1000:,} kB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not text in UTF-8: it is no training configuration") from None


def read_settings(path: Path) -> SettingsFile:
    """A YAML or JSON file whose top is a mapping. A file without a known ending is read as YAML, of which JSON is a part."""
    return parse_settings(read_text(path), path)


def parse_settings(text: str, path: Path) -> SettingsFile:
    """The same of a text; `path` names it in errors."""
    duplicates: tuple[str, ...] = ()
    if path.suffix == ".json":
        values = parse_json(text, str(path))
    else:
        values, duplicates = _parse_yaml(text, path)
    if values is None:
        raise InvalidInputError(f"{path} is empty")
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path} holds a {type(values).__name__}, not settings by name")
    return SettingsFile(path, text, {str(key): value for key, value in values.items()}, duplicates)


def looks_like_settings(path: Path) -> bool:
    return path.suffix in (*_YAML, ".json")


def _parse_yaml(text: str, path: Path) -> tuple[Any, tuple[str, ...]]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("reading YAML needs PyYAML: pip install pyyaml") from error
    if _depth(text) > DEEPEST:
        raise InvalidInputError(f"{path} nests deeper than {DEEPEST} levels: it is no training configuration")
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, ()
            _check_size(node, path)
            return loader.construct_document(node), tuple(_duplicates(node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise InvalidInputError(f"{path} is not valid YAML: {_problem(error)}") from None
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise InvalidInputError(f"{path} is not valid YAML: {' '.join(str(error).split())[:120]}") from None
    except RecursionError:
        raise InvalidInputError(f"{path} nests too deeply: it is no training configuration") from None
    except (ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:
        # values that the constructors of PyYAML fall over: a date of month 13, an alias inside itself, an unhashable key
        raise InvalidInputError(f"{path} is not valid YAML: {' '.join(str(error).split())[:120] or type(error).__name__}") from None


def _problem(error: Any) -> str:
    """PyYAML's own words, shortened, and where."""
    problem = " ".join(str(error.problem or error.context or "it cannot be parsed").split())
    if problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    tag = re.search(r"tag '?(?:tag:yaml\.org,2002:)?(python/[^'\s]*|[^'\s]*)'?", problem)
    if tag and "constructor" in problem:
        problem = f"the tag !!{tag[1]} is not allowed" if tag[1].startswith("python/") else f"the tag {tag[1]} is not known"
    mark = error.problem_mark or error.context_mark
    return f"{problem}{f' at line {mark.line + 1}, column {mark.column + 1}' if mark else ''}"


def _depth(text: str) -> int:
    """How deep brackets nest at most, seen without a parser: PyYAML recurses once a level."""
    deepest = depth = 0
    for character in re.findall(r"[\[\]{}]", text):
        depth += 1 if character in "[{" else -1
        deepest = max(deepest, depth)
        depth = max(depth, 0)
    indents = max((len(line) - len(line.lstrip(" -?")) for line in text.splitlines()), default=0)
    return max(deepest, indents // 8 if indents > 8 * DEEPEST else 0)


def _check_size(top: Any, path: Path) -> None:
    """Counts values as if every alias were written out, each shared node once."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Any) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise InvalidInputError(f"{path}: an anchor holds itself; it is no training configuration")
        open_nodes.add(id(node))
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise InvalidInputError(f"{path}: a number of {len(node.value):,} characters; it is no training configuration")
        total = 1 + sum(map(size, _children(node)))
        open_nodes.discard(id(node))
        sizes[id(node)] = total
        if total > MOST_NODES:
            raise InvalidInputError(f"{path}: its aliases stand for more than {MOST_NODES:,} values; it is no training configuration")
        return total

    size(top)


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node.value, list):
        for entry in node.value:
            yield from entry if isinstance(entry, tuple) else (entry,)


def _duplicates(top: Any) -> Iterator[str]:
    seen: set[str] = set()
    for entry in top.value if isinstance(top.value, list) else ():
        key = entry[0].value if isinstance(entry, tuple) else None
        if isinstance(key, str):
            if key in seen and key != "<<":
                yield key
            seen.add(key)
