"""Read a shell script as the simple commands that it would start, and run nothing.

Quotes over several lines, continued lines, variables with and without defaults, arrays, arithmetic and `expr` are followed (POSIX shell
command language, and bash's arrays). What only running the script would show is left open: `is_open` tells, `shown` is its text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from advisor.errors import InvalidInputError
from advisor.stacks.shell_values import OPEN, Values, arithmetic, of_expr

MOST_CHARACTERS = 1_000_000
"""Characters that all expansions make together. Judgement: the longest published training script is under 20 kB."""
_ASSIGNS = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_PREFIXES = ("export", "declare", "local", "readonly", "typeset")
_BRANCHES = {"if": 1, "case": 1, "while": 1, "until": 1, "for": 1, "fi": -1, "esac": -1, "done": -1}
_SILENT = ("then", "else", "elif", "do", "!", "{", "}", "function", "time", "[[", "]]")
_NAME = re.compile(r"\w+")
_BLANK = re.compile(r"\s+")
_ENDS_WORD = " \t\r\n;&|()<>"


class ShellCommand(NamedTuple):
    """One command: its words, and the variables as they stand when it starts."""

    words: tuple[str, ...]
    environment: dict[str, str]


def is_open(word: str) -> bool:
    """A part of the word is decided by running the script."""
    return OPEN in word


def shown(word: str) -> str:
    """The word as the script has it."""
    return word.replace(OPEN, "")


def commands_of(text: str, path: Path) -> tuple[ShellCommand, ...]:
    """Every simple command in the order of the text. Raises InvalidInputError for open quotes and for what grows too large."""
    return tuple(_Reader(text, path).read())


class _Reader:
    """A place in the text, the variables so far, and the command that is being read."""

    def __init__(self, text: str, path: Path, values: Values | None = None) -> None:
        self._text, self._path, self._at = text, path, 0
        self._values = values or Values()
        self._words: list[str] = []
        self._own: dict[str, str] = {}
        self._found: list[ShellCommand] = []
        self._loops: list[str] = []
        self._heredocs: list[str] = []
        self._made = 0

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
                self._take(self._word())
        self._end()
        return self._found

    # -------------------------------------------------------------------------------------------------- commands

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
            self._found.append(ShellCommand(tuple(self._words), {**self._values.texts(), **self._own}))
        else:
            for name, value in self._own.items():
                self._values.set(name, value)
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
        elif self._at < len(self._text) and self._text[self._at] not in _ENDS_WORD:
            self._word()

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
        value = " ".join(self._word(split=False)) if self._at < len(self._text) and self._text[self._at] not in _ENDS_WORD else ""
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
                words += self._word()
        self._at += 1
        return words

    # ----------------------------------------------------------------------------------------------------- words

    def _word(self, split: bool = True) -> list[str]:
        """One word of the text as the words that it stands for."""
        done: list[str] = []
        now, started = "", False
        while self._at < len(self._text) and self._text[self._at] not in _ENDS_WORD:
            sign = self._text[self._at]
            if sign in "\"'\\":
                now, started = now + self._quoted(sign, done), True
                if sign == '"' and done and done[-1] == OPEN:  # an array inside quotes, word by word
                    done.pop()
                    now = ""
            elif sign in "$`":
                pieces = self._expanded(quoted=False)
                parts = [part for piece in pieces for part in (piece.split() if split and not is_open(piece) else [piece])]
                for part in parts[:-1]:
                    done.append(now + part)
                    now = ""
                now, started = now + (parts[-1] if parts else ""), started or bool(parts)
            else:
                now, started = now + sign, True
                self._at += 1
        return [*done, now] if started and (now or not done) else done

    def _quoted(self, sign: str, done: list[str]) -> str:
        """What stands in quotes, or behind a backslash. The words of an array go to `done`, with a mark behind them."""
        if sign == "\\":
            self._at += 2
            return "" if self._text[self._at - 1 : self._at] == "\n" else self._text[self._at - 1 : self._at]
        if sign == "'":
            end = self._text.find("'", self._at + 1)
            if end < 0:
                raise InvalidInputError(f"{self._path}: the command cannot be read: no closing quotation")
            text, self._at = self._text[self._at + 1 : end], end + 1
            return text
        return self._double(done)

    def _double(self, done: list[str]) -> str:
        self._at += 1
        now = ""
        while self._at < len(self._text) and self._text[self._at] != '"':
            sign = self._text[self._at]
            if sign == "\\":
                following = self._text[self._at + 1 : self._at + 2]
                now += "" if following == "\n" else following if following in '"\\$`' else sign + following
                self._at += 2
            elif sign in "$`":
                pieces = self._expanded(quoted=True)
                if len(pieces) != 1:
                    done += [*pieces, OPEN]
                now += pieces[0] if len(pieces) == 1 else ""
            else:
                now += sign
                self._at += 1
        if self._at >= len(self._text):
            raise InvalidInputError(f"{self._path}: the command cannot be read: no closing quotation")
        self._at += 1
        return now

    def _expanded(self, quoted: bool) -> list[str]:
        """What `$…` or a command in backticks stands for: one text, or the words of an array."""
        start = self._at
        pieces = self._substituted()
        self._made += sum(map(len, pieces))
        if self._made > MOST_CHARACTERS:
            raise InvalidInputError(
                f"{self._path}: its variables stand for more than {MOST_CHARACTERS // 1000:,} kB; it is no training script"
            )
        return [f"{OPEN}{self._text[start : self._at]}"] if pieces is _UNKNOWN else pieces

    def _substituted(self) -> list[str]:
        text, at = self._text, self._at
        if text[at] == "`":
            end = text.find("`", at + 1)
            self._at = len(text) if end < 0 else end + 1
            return self._command(text[at + 1 : self._at - 1])
        if text.startswith("$((", at):
            end = self._closing(at + 1, "(", ")")
            self._at = end + 1
            return _or_open(arithmetic(text[at + 3 : end - 1], self._values))
        if text.startswith("$(", at):
            end = self._closing(at + 1, "(", ")")
            self._at = end + 1
            return self._command(text[at + 2 : end])
        if text.startswith("${", at):
            end = self._closing(at + 1, "{", "}")
            self._at = end + 1
            return self._parameter(text[at + 2 : end])
        name = _NAME.match(text, at + 1)
        if name is None:
            special = text[at + 1 : at + 2] in ("@", "*", "#", "?", "$", "!")
            self._at += 2 if special else 1
            return _UNKNOWN if special else ["$"]
        named = name[0] if not name[0][0].isdecimal() else name[0][0]
        self._at = at + 1 + len(named)
        return _or_open(self._values.text(named))

    def _parameter(self, inside: str) -> list[str]:
        """`${X}`, `${X:-4}`, `${X:+4}`, `${A[@]}`, `${A[0]}`, `${#A[@]}`; other forms are left open."""
        found = re.fullmatch(r"(#?)(\w+)(?:\[([^\]]*)\])?(?:(:?[-=+])(.*))?", inside, re.DOTALL)
        if found is None:
            return _UNKNOWN
        count, name, index, sign, other = found.groups()
        if index in ("@", "*") and self._values.is_array(name):
            items = list(self._values.array(name))
            return [str(len(items))] if count else items
        value = self._values.text(name, index)
        if count:
            return _UNKNOWN
        if sign is None:
            return _or_open(value)
        if sign.endswith("+"):
            return [self._text_of(other)] if value else [""]
        return [value] if value is not None and (value or ":" not in sign) else [self._text_of(other)]

    def _text_of(self, other: str) -> str:
        return " ".join(_Reader(other, self._path, self._values)._word(split=False)) if other else ""

    def _command(self, inside: str) -> list[str]:
        """`$(expr 8 / 2)` and `$(echo 4)`; every other command would have to be run."""
        if not inside.lstrip().startswith(("expr ", "echo ")):
            return _UNKNOWN
        found = _Reader(inside, self._path, self._values).read()
        words = found[0].words if len(found) == 1 else ()
        if not words or any(map(is_open, words)):
            return _UNKNOWN
        return [" ".join(words[1:])] if words[0] == "echo" else _or_open(of_expr(words[1:]))

    def _closing(self, at: int, opens: str, closes: str) -> int:
        """Where the bracket at `at` is closed."""
        depth = 0
        for place in range(at, len(self._text)):
            depth += (self._text[place] == opens) - (self._text[place] == closes)
            if depth == 0:
                return place
        raise InvalidInputError(f"{self._path}: the command cannot be read: no closing {closes}")


_UNKNOWN: list[str] = ["", ""]
"""Stands for what is left open, by identity."""


def _or_open(value: str | None) -> list[str]:
    return _UNKNOWN if value is None else [value]
