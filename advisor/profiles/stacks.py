"""Row models of `profiles/stacks/`: what is known about the training frameworks.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from advisor.profiles.base import Date, Row, Text

StackName = Literal["hf", "trl", "plain", "axolotl", "llamafactory", "ms-swift", "torchtune"]
"""As `advisor.values.Stack` names them (tested)."""


class NotPriced(Row):
    """Why a setting moves memory, and which way."""

    way: Literal["up", "down", "either"]
    why: Text
    unless: tuple[Any, ...] = ()
    """Values that leave memory alone."""


class Keys(Row):
    """Settings of a framework's files: those that are read or leave memory alone, and those that move it and are not priced."""

    kind: Literal["keys"]
    stack: StackName | Literal["peft"]
    source: Text
    recorded: Date
    known: Text
    """Names with spaces between."""
    not_priced: dict[Text, NotPriced]
    groups: dict[Text, Text] = {}
    """Settings that hold settings, and the names of the inner ones."""


class BuilderNames(Row):
    """Names of a framework's model builders, and the model that each builds."""

    kind: Literal["models"]
    stack: StackName
    source: Text
    recorded: Date
    models: dict[Text, Text]


class Release(Row):
    """What releases of a framework before `before` do otherwise than the one that its defaults were read in."""

    kind: Literal["version"]
    stack: StackName
    field: Text
    before: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]
    value: str | bool | None
    source: Text


KeysOrBuilders = Annotated[Keys | BuilderNames, Field(discriminator="kind")]
