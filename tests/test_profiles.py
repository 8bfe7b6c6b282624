"""Rows of profiles/: all of them stand, and one that a stranger wrote wrong is refused by file, row and field."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pydantic
import pytest

from advisor import profiles, schemas
from advisor.cli.run import run
from advisor.devices import cards, load_gpu, names, search_gpus
from advisor.errors import InvalidInputError
from advisor.hub import load_model, rows as hub_rows, search_models
from advisor.profiles.kinds import KINDS, row_type
from advisor.profiles.stacks import StackName
from advisor.values import Stack

REPOSITORY = Path(__file__).parent.parent
CACHED = (
    profiles.read,
    profiles.naming,
    hub_rows.covered_rows,
    hub_rows.all_rows,
    hub_rows.rows_by_words,
    cards.all_cards,
    cards.cards_by_key,
    names.machines,
    names._refused,
    names.refused_by_key,
)

MODEL: dict[str, Any] = {
    "id": "me/yi-test-1b",
    "config": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 320,
    },
    "source": "a page",
    "source_date": "2026-11-24",
}
GPU: dict[str, Any] = {
    "name": "Nova 9",
    "vendor": "NVIDIA",
    "class": "gaming",
    "architecture": "Nova",
    "marketed_gb": 24,
    "usable_mib": 23000,
    "bf16_supported": True,
    "sources": {"architecture, marketed_gb, bf16_supported": "a page", "usable_mib": "a printout"},
}


def forget() -> None:
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of profiles/ that a test may write into."""
    copy = tmp_path / "profiles"
    shutil.copytree(profiles.ROOT, copy)
    monkeypatch.setattr(profiles, "ROOT", copy)
    forget()
    yield copy
    monkeypatch.undo()
    forget()


def without(row: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in fields}


# ------------------------------------------------------------------------------------------------ the rows that there are


def test_every_row_stands() -> None:
    counts = schemas.check()
    assert set(counts) == {*KINDS, "measurements"}
    assert min(counts.values()) > 0
    assert counts["models"] == len(search_models())


@pytest.mark.skipif(pydantic.VERSION.split(".")[:2] != ["2", "14"], reason="pydantic's releases word schemas otherwise; 2.14 wrote these")
def test_schemas_are_those_of_the_row_models() -> None:
    """`python -m advisor.schemas` writes them anew."""
    written = {str(path.relative_to(profiles.ROOT)): text for path, text in schemas.schemas()}
    there = {str(path.relative_to(profiles.ROOT)): path.read_text(encoding="utf-8") for path in profiles.ROOT.rglob("*.schema.json")}
    assert written == there


def test_the_frameworks_of_the_row_models_are_those_of_the_vocabulary() -> None:
    assert get_args(StackName) == tuple(stack.value for stack in Stack)


def test_machines_have_known_cards_and_one_name_each() -> None:
    rows = profiles.rows("instances", row_type("instances"))
    machines = [machine for row in rows for machine in row.gpus]
    assert len({names._machine_key(machine) for machine in machines}) == len(machines)
    assert {row.card for row in rows} <= {card.name for card in cards.all_cards()}


# (kind, a row, the line)
TWICE = [
    ("models", MODEL | {"aliases": ["Llama-8B"]}, "profiles/models: 'llama-8b' is a name of meta-llama/Llama-3.1-8B and of me/yi-test-1b"),
    (
        "models",
        MODEL | {"same_config_ids": ["01-ai/Yi-6B"]},
        "'01-ai/yi-6b' is a name of 01-ai/Yi-6B and of me/yi-test-1b",
    ),
    ("gpus", GPU | {"aliases": ["T4"]}, "profiles/gpus: 't4' is a name of"),
    ("gpus", GPU | {"aliases": ["strix halo"]}, "profiles/gpus: 'strixhalo' is a name of Nova 9 and of Radeon 8060S (Strix Halo)"),
]


@pytest.mark.parametrize(("kind", "row", "line"), TWICE)
def test_a_name_means_one_row(root: Path, kind: str, row: dict[str, Any], line: str) -> None:
    (root / kind / "zz.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=re.escape(line)):
        schemas.check()


# ------------------------------------------------------------------------------------------------ rows as CONTRIBUTING says


def examples() -> list[dict[str, Any]]:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


def test_a_model_as_contributing_says_just_works(root: Path) -> None:
    row = examples()[0]
    (root / "models" / "org.json").write_text(json.dumps([row]), encoding="utf-8")
    assert (load_model("org/name").id, load_model("ORG/Name").params_published) == ("org/name", row["params_published"])
    assert [found.id for found in search_models("org name")] == ["org/name"]
    assert run(["models", "org/name"]) == 0
    assert run(["estimate", "--model", "org/name"]) == 0


def test_a_card_as_contributing_says_just_works(root: Path) -> None:
    row = examples()[1]
    (root / "gpus" / "other.json").write_text(json.dumps([row]), encoding="utf-8")
    assert load_gpu("rtx 0000").usable_bytes == row["torch_total_mib"][0] * 2**20
    assert [card.name for card in search_gpus("rtx 0000")] == [row["name"]]
    assert run(["gpus", "0000"]) == 0


# ------------------------------------------------------------------------------------------------ rows that do not stand

# (the row, what the line says after file and row)
BAD_MODELS = [
    ({**MODEL, "parms_published": 5}, "parms_published: there is no such field; did you mean params_published?"),
    ({**MODEL, "alias": ["yi-t"]}, "alias: there is no such field; did you mean aliases?"),
    ({**MODEL, "aliases": "yi-t"}, "aliases 'yi-t': must be a valid"),
    ({**MODEL, "params_published": "1B"}, "params_published '1B': must be a valid integer"),
    ({**MODEL, "params_published_kind": "guessed"}, "params_published_kind 'guessed': must be 'exact', "),
    ({**MODEL, "source_date": "yesterday"}, "source_date 'yesterday': must match pattern"),
    ({**MODEL, "config": {"hidden_size": 64}}, "config.model_type is missing: paste the whole config.json"),
    (without(MODEL, "config"), "config is missing"),
    (without(MODEL, "source"), "source is missing"),
    (without(MODEL, "source_date"), "source_date is missing: when the source was made, or recorded: when it was transcribed"),
]
# (the row, what the line says after file and row)
BAD_GPUS = [
    ({**GPU, "bandwith_gb_per_s": 900}, "bandwith_gb_per_s: there is no such field; did you mean bandwidth_gb_per_s?"),
    ({**GPU, "bandwidth_gb_per_s": 900}, "sources: say where bandwidth_gb_per_s was read"),
    ({**GPU, "marketed_gb": "24"}, "marketed_gb '24': must be a valid integer"),
    ({**GPU, "usable_mib": -1}, "usable_mib '-1': must be greater than 0"),
    ({**GPU, "vendor": "Nvidia"}, "vendor 'Nvidia': must be 'NVIDIA', 'AMD', 'Intel' or 'Apple'"),
    ({**GPU, "prices": [{"provider": "x"}]}, "prices.0.usd_per_gpu_hour is missing"),
    (without(GPU, "sources"), "sources is missing"),
    (without(GPU, "class"), "class is missing"),
]


@pytest.mark.parametrize("ask", [lambda: load_model("yi-test-1b"), lambda: search_models("yi")], ids=["load", "list"])
@pytest.mark.parametrize(("row", "words"), BAD_MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_model_that_does_not_stand(root: Path, row: dict[str, Any], words: str, ask: Callable[[], object]) -> None:
    (root / "models" / "zz.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        ask()
    assert str(caught.value).startswith(f"profiles/models/zz.json: row 1 (me/yi-test-1b): {words}")


@pytest.mark.parametrize("ask", [lambda: load_gpu("nova 9"), lambda: search_gpus("nova")], ids=["load", "list"])
@pytest.mark.parametrize(("row", "words"), BAD_GPUS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_card_that_does_not_stand(root: Path, row: dict[str, Any], words: str, ask: Callable[[], object]) -> None:
    (root / "gpus" / "zz.json").write_text(json.dumps([GPU | {"name": "Nova 8"}, row]), encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        ask()
    assert str(caught.value).startswith(f"profiles/gpus/zz.json: row 2 (Nova 9): {words}")


# (the file's text, the line)
BAD_FILES = [
    ("[{]", "profiles/models/zz.json: it is not valid JSON: key must be a string at line 1 column 3"),
    (json.dumps(MODEL), "profiles/models/zz.json: it must be one JSON list of rows"),
    ('["yi"]', 'profiles/models/zz.json: row 1 must be an object, not "yi"'),
    (json.dumps([without(MODEL, "id")]), "profiles/models/zz.json: row 1: id is missing"),
]


@pytest.mark.parametrize(("text", "line"), BAD_FILES)
def test_a_file_that_does_not_stand(root: Path, text: str, line: str) -> None:
    (root / "models" / "zz.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        search_models()
    assert str(caught.value) == line


# (kind, change of its first row, words of the line)
BAD_ELSEWHERE = [
    ("instances/aws", {"gpus": {"g4dn.xlarge": 0}}, "row 1: gpus.g4dn.xlarge '0': must be greater than 0"),
    ("measurements/papers", {"loop": {"stesp": 3}}, "loop.stesp: there is no such field"),
    ("measurements/residuals/estimate", {"n": "many"}, "row 1 (estimate): n 'many': must be a valid integer"),
    ("methods/facts", {"confidence": "sure"}, "row 1 (N1): confidence 'sure': must be 'high', 'medium' or 'low'"),
    ("methods/texts", {"kind": "test"}, "kind 'test': must be 'text'"),
    ("methods/thresholds", {"valeu": 3}, "valeu: there is no such field; did you mean value?"),
    ("not_covered/gpus", {"why": ""}, "why '': must have at least 1 character"),
    ("not_covered/models", {"config": {}}, "config: there is no such field"),
    ("runtime/contexts", {"context_bytes": 1.5}, "row 1 (7.5): context_bytes '1.5': must be a valid integer"),
    (
        "stacks/keys",
        {"not_priced": {"x": {"way": "sideways", "why": "y"}}},
        "not_priced.x.way 'sideways': must be 'up', 'down' or 'either'",
    ),
    ("stacks/keys", {"kind": "kyes"}, "kind"),
    ("stacks/versions", {"before": "soon"}, "before 'soon': must match pattern"),
]


@pytest.mark.parametrize(("file", "change", "words"), BAD_ELSEWHERE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_row_of_any_other_folder_that_does_not_stand(root: Path, file: str, change: dict[str, Any], words: str) -> None:
    path = root / f"{file}.json"
    rows = json.loads(path.read_bytes())
    rows[0] |= change
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=re.escape(words)) as caught:
        schemas.check()
    assert str(caught.value).startswith(f"profiles/{file}.json: row 1")
    assert "\n" not in str(caught.value)


def test_a_file_of_a_kind_that_nobody_reads(root: Path) -> None:
    (root / "methods" / "hunches.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"profiles/methods/hunches\.json: no rows are kept there"):
        schemas.check()


# (file, field that its rows lack, the line): knowledge that every answer needs is not held against its model, but read with care
MISSING = [
    ("methods/texts", "text", "profiles/methods/texts.json: row 1 (quality.lora): text is missing"),
    ("methods/thresholds", "value", "profiles/methods/thresholds.json: row 1 (rank_high): value is missing"),
    ("runtime/contexts", "margin_bytes", "profiles/runtime/contexts.json: row 1 (7.5): margin_bytes is missing"),
]


@pytest.mark.parametrize(("file", "field", "line"), MISSING)
def test_a_missing_field_of_knowledge_is_named_when_it_is_used(root: Path, file: str, field: str, line: str) -> None:
    path = root / f"{file}.json"
    rows = [without(row, field) for row in json.loads(path.read_bytes())]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        [row[field] for row in profiles.read(file)]
    assert str(caught.value) == line


# (command line)
COMMANDS = [
    ["models"],
    ["models", "yi"],
    ["estimate", "--model", "yi-test-1b"],
    ["--model", "yi-test-1b", "--gpu", "80GB"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_the_command_line_says_it_in_one_line(root: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (root / "models" / "zz.json").write_text(json.dumps([{**MODEL, "nots": []}]), encoding="utf-8")
    assert run(arguments) == 2
    assert capsys.readouterr() == (
        "",
        "error: profiles/models/zz.json: row 1 (me/yi-test-1b): nots: there is no such field; did you mean notes?\n",
    )


def test_so_does_the_list_of_cards(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "gpus" / "zz.json").write_text(json.dumps([without(GPU, "sources")]), encoding="utf-8")
    assert run(["gpus"]) == 2
    assert capsys.readouterr() == ("", "error: profiles/gpus/zz.json: row 1 (Nova 9): sources is missing\n")
