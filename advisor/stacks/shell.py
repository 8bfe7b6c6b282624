"""Read a shell script as the simple commands that it would start, and run nothing.

Quotes over several lines, continued lines, variables with and without defaults, arrays, arithmetic and `expr` are followed (POSIX shell
command language, and bash's arrays). What only running the script would show is left open: `shown` is its text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from advisor.errors import InvalidInputError
from advisor.stacks.shell_values import OPEN, Values
from advisor.stacks.shell_words import ENDS_WORD, Words

_ASSIGNS = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_PREFIXES = ("export", "declare", "local", "readonly", "typeset")
_BRANCHES = {"if": 1, "case": 1, "while": 1, "until": 1, "for": 1, "fi": -1, "esac": -1, "done": -1}
_SILENT = ("then", "else", "elif", "do", "!", "{", "}", "function", "time", "[[", "]]")
_BLANK = re.compile(r"\s+")
MOST_COMMANDS = 5_000
MOST_VARIABLES = 200
"""Judgement: published training scripts have under a hundred of either."""


class ShellCommand(NamedTuple):
    """One command: its words, and the variables that are known when it starts."""

    words: tuple[str, ...]
    environment: dict[str, str]


def shown(word: str) -> str:
    """The word as the script has it."""
    return word.replace(OPEN, "")


def commands_of(text: str, path: Path) -> tuple[ShellCommand, ...]:
    """Every simple command in the order of the text. Raises InvalidInputError for open quotes and for what grows too large."""
    return tuple(_Reader(text, path).read())


class _Reader(Words):
    """The command that is being read, and those before it."""

    def __init__(self, text: str, path: Path, values: Values | None = None, depth: int = 0) -> None:
        super().__init__(text, path, values, depth)
        self._words: list[str] = []
        self._own: dict[str, str] = {}
        self._found: list[ShellCommand] = []
        self._loops: list[str] = []
        self._heredocs: list[str] = []

    def read(self) -> list[ShellCommand]:
        while self._at < len(self._text):
            sign = self._text[self._at]
            if sign in " \t\r\n" and not (self._words or self._own or self._loops or self._heredocs):
                blank = _BLANK.match(self._text, self._at)
                self._at = blank.end() if blank else self._at + 1
            elif sign in " \t\r" or self._text.startswith("\\\n", self._at) or self._text.startswith("\\\r\n", self._at):
                self._at += 1 if sign != "\\" else 2 + (self._text[self._at + 1] == "\r")
            elif sign == "#":
                self._to_end_of_line()
            elif sign in "\n;&|()":
                self._operator(sign)
            elif sign in "<>":
                self._redirection()
            elif not self._words and self._assignment():
                continue
            else:
                self._take(self.word())
        self._end()
        return self._found

    def commands_in(self, text: str) -> list[tuple[str, ...]]:
        return [command.words for command in _Reader(text, self._path, self._values, self._depth + 1).read()]

    def _take(self, words: list[str]) -> None:
        first = words[0] if len(words) == 1 and not self._words else ""
        if first in _BRANCHES:
            self._values.depth += _BRANCHES[first]
            self._loops = [first] if first in ("for", "case") else []
        elif first in _SILENT or first in _PREFIXES:
            return
        elif self._loops:
            self._words = []
            self._loop(words)
        else:
            self._words += words

    def _loop(self, words: list[str]) -> None:
        """Words after `for`: its variable stands for the one word of a list, or is left open."""
        self._loops += words

    def _end(self) -> None:
        if self._loops and self._loops[0] == "for" and len(self._loops) > 1:
            items = self._loops[3:]
            self._values.set(self._loops[1], items[0] if len(items) == 1 else f"{OPEN}${self._loops[1]}")
        self._loops = []
        if self._words:
            self._found.append(ShellCommand(tuple(self._words), {**self._values.known(), **self._own}))
        else:
            for name, value in self._own.items():
                self._values.set(name, value)
        if len(self._found) > MOST_COMMANDS or len(self._values.known()) + len(self._own) > MOST_VARIABLES:
            raise InvalidInputError(
                f"{self._path} has more than {MOST_COMMANDS:,} commands or {MOST_VARIABLES} variables: no training script"
            )
        self._words, self._own = [], {}

    def _operator(self, sign: str) -> None:
        self._end()
        self._at += 1
        if sign == "\n":
            for mark in self._heredocs:
                end = re.compile(rf"^\t*{re.escape(mark)}$", re.MULTILINE).search(self._text, self._at)
                self._at = end.end() if end else len(self._text)
            self._heredocs = []

    def _redirection(self) -> None:
        """`> file`, `2>&1`, `<<EOF`, `<(command)`: what is read or written is no word of the command."""
        if self._words and self._words[-1].isdecimal() and self._text[self._at - 1] in "0123456789":
            self._words.pop()
        here = re.compile(r"<<-?\s*(['\"]?)(\w+)\1").match(self._text, self._at)
        if here and not self._text.startswith("<<<", self._at):
            self._heredocs.append(here[2])
            self._at = here.end()
            return
        signs = re.compile(r"[<>]+[&|]?[ \t]*").match(self._text, self._at)
        self._at = signs.end() if signs else self._at + 1
        if self._text.startswith("(", self._at):
            self._at = self._closing(self._at, "(", ")") + 1
        elif self._at < len(self._text) and self._text[self._at] not in ENDS_WORD:
            self.word()

    def _to_end_of_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end

    def _assignment(self) -> bool:
        found = _ASSIGNS.match(self._text, self._at)
        if not found:
            return False
        self._at = found.end()
        if self._text.startswith("(", self._at):
            before = self._values.array(found[1]) if found[2] else ()
            self._values.set_array(found[1], (*before, *self._array()))
            return True
        value = " ".join(self.word(split=False)) if self._at < len(self._text) and self._text[self._at] not in ENDS_WORD else ""
        self._own[found[1]] = (self._values.text(found[1]) or "") + value if found[2] else value
        return True

    def _array(self) -> list[str]:
        self._at += 1
        words: list[str] = []
        while self._at < len(self._text) and self._text[self._at] != ")":
            if self._text[self._at] in " \t\r\n":
                self._at += 1
            elif self._text[self._at] == "#":
                self._to_end_of_line()
            elif self._text.startswith("\\\n", self._at):
                self._at += 2
            elif self._text[self._at] in ";&|<>(":
                self._at += 1
            else:
                words += self.word()
        self._at += 1
        return words
