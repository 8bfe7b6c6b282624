"""Refuses an option that is given twice: the parser alone would take the last and lose the first without a word."""

from __future__ import annotations

from collections import Counter
from typing import Any

from advisor.errors import InvalidInputError


class OnceEach:
    """Mixed into a command or a group of them: an option that takes one value is given once, a switch said one way."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options, rest, given = self.make_parser(ctx).parse_args(args=list(args))  # type: ignore[attr-defined]
        flagged = self.flagged(options, rest, args)
        if flagged != args:
            return self.parse_args(ctx, flagged)
        for parameter, times in Counter(given).items():
            flag = _flag(parameter)
            if times > 1 and flag:
                several = "; several equal cards are --gpus N" if flag == "--gpu" else ""
                raise InvalidInputError(f"{flag} is given {times} times: give it once{several}")
        left: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        return left

    def flagged(self, options: dict[str, Any], rest: list[str], args: list[str]) -> list[str]:
        """The arguments with what goes without saying said, given what the parser makes of them: a command's own are whole."""
        return args


def _flag(parameter: Any) -> str:
    """The longest name of an option that takes one value, or that switches on and off; empty for others."""
    one_value = getattr(parameter, "multiple", True) is False and not getattr(parameter, "count", False)
    plain_flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
    return max(parameter.opts, key=len) if one_value and not plain_flag else ""
