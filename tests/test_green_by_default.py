"""Nothing of a configuration is dropped: change, rename or take away one setting, and the plan, a remark or the refusal is another."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from advisor.configs.files import CheckOptions, read_found
from advisor.errors import AdvisorError
from advisor.hub import load_model
from advisor.profiles import read as read_profiles
from advisor.stacks.detect import Opened
from advisor.stacks.keys import is_neutral, is_off
from advisor.values import Stack

DATA = Path(__file__).parent / "data" / "configs"
STACKS = {
    "axolotl": Stack.AXOLOTL,
    "llamafactory": Stack.LLAMAFACTORY,
    "ms_swift": Stack.MS_SWIFT,
    "torchtune": Stack.TORCHTUNE,
    "trl": Stack.TRL,
}
OTHER_JOBS = ("examples/llama-3/instruct-dpo-lora-8b.yml", "examples/train_lora/llama3_lora_dpo.yaml")
"""Refused before anything else of them is read."""
ROWS = [(stack, row) for name, stack in STACKS.items() for row in json.loads((DATA / f"{name}.json").read_bytes())]
PUBLISHED = [(stack, row) for stack, row in ROWS if row["path"] not in OTHER_JOBS]
IDS = [f"{stack.value}-{row['path'].removeprefix('examples/').removeprefix('recipes/configs/')}" for stack, row in PUBLISHED]
KEYS = [row for row in read_profiles("stacks") if row["kind"] == "keys"]
MODEL = load_model("llama-3-8b")
"""Stands in for every file's own: what is asked is whether a setting is read."""


NAMES = ("base_model", "model_name_or_path")


def outcome(stack: Stack, values: Mapping[str, Any]) -> object:
    """What the file is taken to mean, or why it is refused."""
    opened = Opened(stack, dict(values), "")
    try:
        read = read_found(opened, Path("train.yaml"), None, CheckOptions(gpus=2), MODEL)
    except AdvisorError as error:
        return str(error)
    return read.reading


def settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the model's name, which stands for itself; what a shell computes is taken as 8."""
    stated = row.get("settings") or row["arguments"]
    return {name: _unquoted(value) for name, value in stated.items() if name not in NAMES}


def _unquoted(value: Any) -> Any:
    """A word of a shell script as its command gets it."""
    if not isinstance(value, str):
        return value
    return "8" if value.startswith("$(") else " ".join(shlex.split(value)) if value.startswith('"') else value


def moving(stack: Stack, values: Mapping[str, Any]) -> Iterator[str]:
    """Settings that are on and are not proved to leave memory alone, those inside a group as `group.name`."""
    for name, value in values.items():
        if is_off(value) or is_neutral(stack, name) or (name == "model" and isinstance(value, str)):
            continue
        if isinstance(value, dict):
            inside = (f"{name}.{inner}" for inner in value if not is_off(value[inner]) and inner != "_component_")
            yield from (inner for inner in inside if not is_neutral(stack, inner))
        else:
            yield name


def changed(values: Mapping[str, Any], dotted: str, name: str | None, value: Any) -> dict[str, Any]:
    """The settings with one of them under another name or with another value; without it where the name is None."""
    outer, _, inner = dotted.partition(".")
    if inner:
        return {**values, outer: changed(values[outer], inner, name, value)}
    rest = {key: entry for key, entry in values.items() if key != outer}
    return rest if name is None else {**rest, name: value}


def others(value: Any) -> tuple[Any, ...]:
    """Other values of the same kind, of which at least one means something else."""
    text = str(value)
    if text.lower() in ("true", "false"):
        return (text.lower() == "false",)
    try:
        return (float(text) * 2, 0)
    except ValueError:
        return ("another_word", ["one_word", "another_word"], False)


def with_others(values: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    return (changed(values, name, name.rpartition(".")[2], value) for value in others(value_of(values, name)))


def value_of(values: Mapping[str, Any], dotted: str) -> Any:
    outer, _, inner = dotted.partition(".")
    return values[outer][inner] if inner else values[outer]


@pytest.mark.parametrize(("stack", "row"), PUBLISHED, ids=IDS)
def test_a_setting_that_is_renamed_is_noticed(stack: Stack, row: dict[str, Any]) -> None:
    values = settings_of(row)
    before = outcome(stack, values)
    names = [*moving(stack, values)]
    assert names
    same = [
        name for name in names if outcome(stack, changed(values, name, f"my_{name.rpartition('.')[2]}", value_of(values, name))) == before
    ]
    assert same == []


@pytest.mark.parametrize(("stack", "row"), PUBLISHED, ids=IDS)
def test_a_setting_with_another_value_is_noticed(stack: Stack, row: dict[str, Any]) -> None:
    """So that one that may be taken away unnoticed says what the framework does anyway."""
    values = settings_of(row)
    before = outcome(stack, values)
    same = [name for name in moving(stack, values) if all(outcome(stack, other) == before for other in with_others(values, name))]
    assert same == []


def test_no_setting_is_both_proved_neutral_and_said_to_move_memory() -> None:
    for row in KEYS:
        neutral = [name for entry in row["neutral"] for name in entry["names"].split()]
        assert len(neutral) == len(set(neutral)), row["stack"]
        assert not set(neutral) & set(row["not_priced"]), row["stack"]
        assert all(entry["why"] for entry in (*row["neutral"], *row["not_priced"].values()))
        assert {entry["way"] for entry in row["not_priced"].values()} <= {"up", "down", "either"}
        assert {entry.get("touches", "moving") for entry in row["not_priced"].values()} <= {"moving", "layers", "loss", "training"}
