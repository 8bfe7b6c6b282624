"""Reads YAML that a person or another program wrote, through a safe loader within limits; the error is one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from advisor.errors import InvalidInputError, MissingExtraError

LARGEST_BYTES = 1_000_000
"""Of a file or a front matter. Judgement: the largest published configuration of any of the frameworks is under 20 kB."""
MOST_NODES = 100_000
"""Values after the aliases are written out. Judgement, as above; it stops alias bombs."""
LONGEST_NUMBER = 100
"""Characters of a number. Judgement; PyYAML's numbers to the base of 60 take quadratic time."""
DEEPEST = 50
"""Judgement: configurations nest four or five levels."""

_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
"""As huggingface_hub finds it in a card (2.4, repocard.py REGEX_YAML_BLOCK), here at the very beginning alone."""


def parse_yaml(text: str, where: str) -> tuple[Any, tuple[str, ...]]:
    """The value of a YAML text, and the keys of its top that stand twice; `where` names it in the error.

    Raises InvalidInputError, one line, for what is no YAML, builds an object, or goes beyond the limits above.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("reading YAML needs PyYAML: pip install pyyaml") from error
    if _depth(text) > DEEPEST:
        raise InvalidInputError(f"{where} nests deeper than {DEEPEST} levels: that is beyond what is read")
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, ()
            _check_size(node, where)
            return loader.construct_document(node), tuple(_duplicates(node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise InvalidInputError(f"{where} is not valid YAML: {_problem(error)}") from None
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise InvalidInputError(f"{where} is not valid YAML: {' '.join(str(error).split())[:120]}") from None
    except RecursionError:
        raise InvalidInputError(f"{where} nests too deeply: that is beyond what is read") from None
    except (ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:
        # values that the constructors of PyYAML fall over: a date of month 13, an alias inside itself, an unhashable key
        raise InvalidInputError(f"{where} is not valid YAML: {' '.join(str(error).split())[:120] or type(error).__name__}") from None


def front_matter(text: str, where: str) -> Any:
    """What the YAML between the two lines `---` at a text's beginning holds; None where there is none."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return None
    if len(found[1]) > LARGEST_BYTES:
        raise InvalidInputError(f"{where} begins with more YAML than is read")
    return parse_yaml(found[1], where)[0]


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


def _check_size(top: Any, where: str) -> None:
    """Counts values as if every alias were written out, each shared node once."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Any) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise InvalidInputError(f"{where}: an anchor holds itself; that is beyond what is read")
        open_nodes.add(id(node))
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise InvalidInputError(f"{where}: a number of {len(node.value):,} characters; that is beyond what is read")
        total = 1 + sum(map(size, _children(node)))
        open_nodes.discard(id(node))
        sizes[id(node)] = total
        if total > MOST_NODES:
            raise InvalidInputError(f"{where}: its aliases stand for more than {MOST_NODES:,} values; that is beyond what is read")
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
