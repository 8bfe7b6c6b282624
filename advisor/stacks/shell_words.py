"""Words of a shell script: quotes, variables, arrays and arithmetic written out; what only running it would show is left open."""

from __future__ import annotations

import re
from pathlib import Path

from advisor.errors import InvalidInputError
from advisor.stacks.shell_values import OPEN, Values, arithmetic, of_expr

MOST_CHARACTERS = 1_000_000
"""Characters that all expansions make together. Judgement: the longest published training script is under 20 kB."""
DEEPEST = 20
"""How deep expansions stand inside each other. Judgement."""
ENDS_WORD = " \t\r\n;&|()<>"
_NAME = re.compile(r"\w+")
_UNKNOWN: list[str] = ["", ""]
"""Stands for what is left open, by identity."""


def is_open(word: str) -> bool:
    """A part of the word is decided by running the script."""
    return OPEN in word


class Words:
    """A place in the text, and the variables so far."""

    def __init__(self, text: str, path: Path, values: Values | None = None, depth: int = 0) -> None:
        self._text, self._path, self._at, self._depth = text, path, 0, depth
        self._values = values or Values()

    def commands_in(self, text: str) -> list[tuple[str, ...]]:
        """Words of each command of another text, with the variables so far."""
        raise NotImplementedError

    def word(self, split: bool = True) -> list[str]:
        """One word of the text as the words that it stands for."""
        done: list[str] = []
        now, started = "", False
        while self._at < len(self._text) and self._text[self._at] not in ENDS_WORD:
            sign = self._text[self._at]
            if sign in "\"'\\":
                now, started = now + self._quoted(sign, done), True
                if sign == '"' and done and done[-1] == OPEN:  # an array inside quotes, word by word
                    done.pop()
                    now = ""
            elif sign in "$`":
                pieces = self._expanded()
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
                pieces = self._expanded()
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

    def _expanded(self) -> list[str]:
        """What `$…` or a command in backticks stands for: one text, or the words of an array."""
        start = self._at
        pieces = self._substituted()
        self._values.made += sum(map(len, pieces)) + len(pieces)
        if self._values.made > MOST_CHARACTERS:
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
        if self._depth > DEEPEST:
            return f"{OPEN}{other}"
        return " ".join(type(self)(other, self._path, self._values, self._depth + 1).word(split=False)) if other else ""

    def _command(self, inside: str) -> list[str]:
        """`$(expr 8 / 2)` and `$(echo 4)`; every other command would have to be run."""
        if self._depth > DEEPEST or not inside.lstrip().startswith(("expr ", "echo ")):
            return _UNKNOWN
        found = self.commands_in(inside)
        words = found[0] if len(found) == 1 else ()
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


def _or_open(value: str | None) -> list[str]:
    return _UNKNOWN if value is None else [value]
