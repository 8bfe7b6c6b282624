"""Text that others wrote, made safe to print and to write into files: what cannot be seen stands as its escape."""

from __future__ import annotations

import json
import re
import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that move a cursor, turn the direction of the text, break a line, cannot be encoded or stand for nothing that is known
(Unicode 16, table 4-4)."""
_SUSPECT = re.compile(r"[^\x20-\x7e]")
_CUT = " […] "


def shown(text: str, also: str = "") -> str:
    r"""The text with \xNN, \uNNNN or \UNNNNNNNN for every character that cannot be seen; those of `also` stay as they are."""
    return _SUSPECT.sub(lambda found: found[0] if found[0] in also else _escape(found[0]), text)


def capped(text: str, most: int) -> str:
    """The text in at most `most` characters: its beginning and its end, which says what to do."""
    if len(text) <= most:
        return text
    end = most // 3
    return text[: most - end - len(_CUT)] + _CUT + text[len(text) - end :]


def quoted(text: str) -> str:
    r"""A literal in double quotes that Python and YAML read alike, as exactly this text.

    Both know \", \\, \b, \f, \n, \r, \t, \uNNNN and \UNNNNNNNN (Python reference, 2.4.1; YAML 1.1, 5.6), and nothing else is escaped.
    """
    return _SUSPECT.sub(lambda found: _long_escape(found[0]), json.dumps(text, ensure_ascii=False))


def json_shown(text: str) -> str:
    """A JSON text, in which a character that cannot be seen may stand within strings alone, with JSON's escapes for it."""
    return _SUSPECT.sub(lambda found: found[0] if found[0] in "\n" else _json_escape(found[0]), text)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN


def _escape(character: str) -> str:
    if not _is_unseen(character):
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else _long_escape(character)


def _long_escape(character: str) -> str:
    if not _is_unseen(character):
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _json_escape(character: str) -> str:
    if not _is_unseen(character):
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else json.dumps(character)[1:-1]
