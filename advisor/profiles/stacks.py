"""Row models of `profiles/stacks/`: what is known about the training frameworks.

Without `from __future__ import annotations`, as all that the main command loads (see `advisor.values`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from advisor.profiles.base import Date, Row, Text

StackName = Literal["hf", "trl", "plain", "axolotl", "llamafactory", "ms-swift", "torchtune"]
"""As `advisor.values.Stack` names them (tested)."""


class NotPriced(Row):
    """Why a setting moves memory, which way, and how far at most."""

    way: Literal["up", "down", "either"]
    why: Text
    unless: tuple[Any, ...] = ()
    """Values that leave memory alone; texts may be patterns such as `*ForCausalLM`."""
    when_off: bool = False
    """It moves memory where it is switched off."""
    touches: Literal["training", "moving", "layers", "loss"] | None = None
    """What it may lower: gradients and states and all that a step makes; all that a step makes; that but for the logits; the logits.
    Left out: everything."""
    divides: bool = False
    """Its value is the number of parts that memory is divided into at most."""
    adds_hidden: Annotated[int, Field(ge=0)] | None = None
    """What it may add at most, in fp32 tensors of the hidden states. Left out: nothing bounds it."""


class Neutral(Row):
    """Settings that leave memory alone, and why."""

    why: Text
    names: Text
    """With spaces between; `group.name` inside a group, `group.*` for all of one."""


class Keys(Row):
    """Settings of a framework's files that no reader asks for: those that leave memory alone, and those that move it."""

    kind: Literal["keys"]
    stack: StackName | Literal["peft"]
    source: Text
    recorded: Date
    neutral: tuple[Neutral, ...]
    not_priced: dict[Text, NotPriced]


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


class Dropped(Row):
    """A setting that a framework took up to a release, and refuses since: a file that sets it was written for that one or an earlier."""

    kind: Literal["dropped"]
    stack: StackName
    key: Text
    before: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]
    """First release that refuses it."""
    last: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]
    """Last release that takes it."""
    source: Text


class TrainerSettings(Row):
    """Settings that a trainer has and supervised fine-tuning has not, and names of its losses, with spaces between."""

    settings: Text
    losses: Text = ""


class Trainers(Row):
    """The other trainers of a library."""

    kind: Literal["trainers"]
    stack: StackName
    source: Text
    recorded: Date
    trainers: dict[Text, TrainerSettings]


class OtherJob(Row):
    """A setting that says that the job is another one than supervised fine-tuning."""

    kind: Literal["job"]
    stack: StackName
    key: Text
    """`group.name` inside a group."""
    job: Text
    """As it is named; {} stands for the setting's value."""
    unless: tuple[Text, ...] = ()
    """Values that are supervised fine-tuning."""
    matches: tuple[Text, ...] = ()
    """Patterns of the values that are the other job; left out, every one."""
    source: Text


class Idle(Row):
    """A setting without which the framework trains nothing."""

    kind: Literal["idle"]
    stack: StackName
    needs: Text
    why: Text
    source: Text


class OtherFramework(Row):
    """By which settings a file of a framework that is not read is known: one of `any_of` and all of `all_of`."""

    kind: Literal["foreign"]
    label: Text
    all_of: str
    any_of: Text
    source: Text


ReleaseNumber = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]


class EngineDefault(Row):
    """What an engine that shares a model over cards does where nobody says: who holds fp32 masters, which checkpoints, which FSDP."""

    kind: Literal["masters", "reentrant", "fsdp"]
    engines: tuple[Literal["ddp", "fsdp1", "fsdp2", "zero1", "zero2", "zero3"], ...] | None = None
    """Left out: every engine, and none."""
    stack: StackName | None = None
    mixed: bool | None = None
    """The trainer's mixed precision is on."""
    quantized: bool | None = None
    adapter: bool | None = None
    since: Annotated[ReleaseNumber | None, Field(alias="from")] = None
    """First release that does so: of accelerate for masters, else of the stack's package."""
    before: ReleaseNumber | None = None
    value: bool | Literal["none", "lifted", "copied", "fsdp1", "fsdp2"]
    source: Text


class DeepSpeedFile(Row):
    """A DeepSpeed configuration that a framework brings with it, so that it need not lie beside the file that names it."""

    kind: Literal["deepspeed"]
    stack: StackName
    names: Text
    """As files name it, with spaces between."""
    zero_optimization: dict[str, int | bool | str | dict[str, bool | str]]
    """The group of that name, as far as it decides memory."""
    source: Text
    recorded: Date


class LigerTypes(Row):
    """Model types that Liger's kernels are put into, with spaces between; the setting that asks for them passes over all others."""

    kind: Literal["liger"]
    stack: StackName | None = None
    """A stack that goes by a list of its own; left out, Liger's own list."""
    model_types: Text
    source: Text
    recorded: Date


JobRow = Annotated[Trainers | OtherJob | Idle | OtherFramework, Field(discriminator="kind")]
ReleaseRow = Annotated[Release | Dropped, Field(discriminator="kind")]
KeysOrBuilders = Annotated[Keys | BuilderNames, Field(discriminator="kind")]
