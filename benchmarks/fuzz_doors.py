"""Damaged inputs for every door of the command: each function lays files into a folder and says what `advise` is asked about them.

They begin as sound ones, out of the tests' own data, so that a fault lies deep enough to be reached.
"""

from __future__ import annotations

import copy
import importlib
import json
import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 7, 255, 4096, 2**31, 2**63, -(2**63), 10**12, 10**40, 10**400),
    *(float("nan"), float("inf"), float("-inf"), 1e308, 1e-308, 5e-324),
    *("", " ", "\n", "\x00", "\x1b[2J", "\u202e", "\ud800", "\x85", "é", "x" * 700, "~nobodyx/x", "/dev/zero", "..", "a/b", "-1", "1e999"),
    *("lora", "qlora", "full", "auto", "true", "bf16", "4k", "80GB", "none", "all-linear", "(a+)+b", "!!x", "%s", "${x}", "{x}"),
    *([], [[]], [None], [1, "x"], {}, {"": None}, {"a": {"b": []}}, [0] * 40, ["x"] * 3),
)
NAMES = (
    "x",
    "a b",
    "é",
    "x'y",
    'x"y',
    "-x",
    "--json",
    "x\ny",
    "x" * 300,
    "~nobodyx",
    ".",
    "..",
    "/dev/null",
    "no/where",
    "",
    "a\x1bb",
    "\u202e",
)
MODELS = ("llama-3.1-8b", "llama-70b", "qwen2.5-7b", "mixtral-8x7b", "gemma-3-1b", "llama-3.2-1b", "phi-4", "nobody/nothing", "llama")
CARDS = (
    "24GB",
    "24GB",
    "80GB",
    "rtx 4090",
    "rtx 4090",
    "h100",
    "h100",
    "a100 80gb",
    "t4",
    "79.2GiB",
    "g5.12xlarge",
    "mi300x",
    "0GB",
    "rtx",
)

Asked = list[str]
Door = Callable[[Random, Path], Asked]


@cache
def data(name: str) -> Any:
    return json.loads((ROOT / name).read_bytes())


# ------------------------------------------------------------------------------------------------------------------ damage


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to everything that lies in the value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, child in inside for way in ((*at, key), *places(child, (*at, key)))]


def damaged(rng: Random, value: Any) -> Any:
    """A copy with one to four of its parts left out, filled with junk, laid elsewhere, wrapped or scaled; now and then a sound one."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        ways = places(value)
        if not ways:
            return rng.choice(JUNK)
        *above, key = rng.choice(ways)
        holder = value
        for step in above:
            holder = holder[step]
        _hurt(rng, value, holder, key)
    return value


def _hurt(rng: Random, whole: Any, holder: Any, key: Any) -> None:
    how = rng.choice(("junk", "junk", "junk", "drop", "swap", "wrap", "scale", "name"))
    if how == "drop":
        del holder[key]
    elif how == "swap":
        other = whole
        for step in rng.choice(places(whole)):
            other = other[step]
        holder[key] = copy.deepcopy(other)
    elif how == "wrap":
        holder[key] = rng.choice(([holder[key]], {"x": holder[key]}, str(holder[key])[:900]))
    elif how == "scale" and isinstance(holder[key], (int, float)) and not _huge(holder[key]):  # 10**400 and a half have no sum
        holder[key] = holder[key] * rng.choice((-1, 0, 2, 1000, 10**9)) + rng.choice((-1, 0, 0.5, 1))
    elif how == "name" and isinstance(holder, dict):
        holder[str(rng.choice(JUNK))[:60]] = holder.pop(key)
    else:
        holder[key] = copy.deepcopy(rng.choice(JUNK))


def hurt_bytes(rng: Random, raw: bytes) -> bytes:
    """The bytes with some cut, turned, doubled or put in."""
    content = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(content) + 1)
        to = min(len(content), at + rng.choice((1, 1, 4, 30)))
        how = rng.randrange(5)
        if how == 0:
            del content[at:]
        elif how == 1 and at < len(content):
            content[at] = rng.randrange(256)
        elif how == 2:
            content[at:at] = content[at:to] * rng.choice((1, 2, 50))
        elif how == 3:
            del content[at:to]
        else:
            content[at:at] = rng.choice(
                (b"\x00", b"{", b"[" * 300, b"]", b":", b"&a ", b"*a", b'"', b"\xff", b"\n", b"- ", b"!!x ", b"9" * 400, b"#")
            )
    return bytes(content)


def lay(rng: Random, path: Path, value: Any, yaml: bool = False) -> None:
    """Write the value, damaged, as JSON or YAML; one in five has its bytes hurt too."""
    import yaml as library

    path.parent.mkdir(parents=True, exist_ok=True)
    value = damaged(rng, value)
    raw = json.dumps(value).encode()
    if yaml and rng.random() < 0.5:
        raw = library.safe_dump(value, sort_keys=False).encode("utf-8", "surrogatepass")
    path.write_bytes(hurt_bytes(rng, raw) if rng.random() < 0.2 else raw)


# ------------------------------------------------------------------------------------------------------------------- doors


def model_config(rng: Random, folder: Path) -> Asked:
    names = sorted((ROOT / "profiles" / "models").glob("*.json"))
    rows = data(str(rng.choice(names).relative_to(ROOT)))
    lay(rng, folder / "m" / "config.json", rng.choice(rows)["config"])
    asked = rng.choice((["--model", "./m"], ["estimate", "--model", "./m", "--method", rng.choice(("lora", "qlora", "full"))]))
    return [*asked, "--gpu", rng.choice(CARDS), *rng.choice(([], ["--json"]))]


def trainer_file(rng: Random, folder: Path) -> Asked:
    stack = rng.choice(("axolotl", "llamafactory", "trl", "torchtune"))
    lay(rng, folder / "t.yaml", rng.choice(data(f"tests/data/configs/{stack}.json"))["settings"], yaml=True)
    shown = rng.choice(([], ["--json"], ["--format", "github"], ["--stack", stack], ["--model", rng.choice(MODELS)], ["--html", "p.html"]))
    return ["check", "t.yaml", "--gpu", rng.choice(CARDS), *shown]


def shell_script(rng: Random, folder: Path) -> Asked:
    row = rng.choice([row for row in data("tests/data/configs/ms_swift.json") if "$(" not in json.dumps(row["arguments"])])
    settings = damaged(rng, row["arguments"])
    words = [f"--{name} {_shell(value)}" for name, value in settings.items()] if isinstance(settings, dict) else [str(settings)]
    text = f"{row['command']} \\\n    " + " \\\n    ".join(words) + "\n"
    raw = text.encode("utf-8", "surrogatepass")
    (folder / "t.sh").write_bytes(hurt_bytes(rng, raw) if rng.random() < 0.3 else raw)
    return ["check", "t.sh", "--gpu", rng.choice(CARDS)]


def _shell(value: Any) -> str:
    words = value if isinstance(value, list) else [value]
    return " ".join(f"'{word}'" if isinstance(word, str) else str(word)[:500] if not _huge(word) else "9" * 400 for word in words)


def _huge(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > 10**300


@cache
def scripts() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((DATA / "scripts").glob("*.txt")))


def python_script(rng: Random, folder: Path) -> Asked:
    lines = rng.choice(scripts()).splitlines(keepends=True)
    for _ in range(rng.choice((0, 1, 2))):
        at = rng.randrange(len(lines))
        lines[at : at + 1] = rng.choice(([], [lines[at]] * 2, [hurt_bytes(rng, lines[at])], [rng.choice(lines)]))
    (folder / "train.py").write_bytes(b"".join(lines))
    return [
        "check",
        "train.py",
        "--gpu",
        rng.choice(CARDS),
        *rng.choice(([], ["--json"], ["--model", "llama-3.1-8b"], ["--", "--lr", "1"])),
    ]


def accelerate_file(rng: Random, folder: Path) -> Asked:
    (folder / "t.yaml").write_text(json.dumps(data("tests/data/configs/trl.json")[0]["settings"]), encoding="utf-8")
    lay(rng, folder / "a.yaml", rng.choice(data("tests/data/configs/accelerate.json"))["settings"], yaml=True)
    return ["check", "t.yaml", "--accelerate", "a.yaml", "--gpu", rng.choice(CARDS)]


OPTIONS = (
    *("--rank", "--alpha", "--lora-dropout", "--target-modules", "--batch-size", "--seq-len", "--images", "--image-size", "--grad-accum"),
    *(
        "--dataset-tokens",
        "--task",
        "--optimizer",
        "--precision",
        "--quantization",
        "--attention",
        "--mixers",
        "--head",
        "--labels",
        "--loss",
    ),
    *("--stack", "--epochs", "--price", "--gpus", "--shard", "--method"),
)
SOUND = {
    "--rank": "16",
    "--alpha": "32",
    "--lora-dropout": "0.05",
    "--target-modules": "q_proj,v_proj",
    "--batch-size": "2",
    "--seq-len": "4k",
    "--images": "1",
    "--image-size": "640x480",
    "--grad-accum": "4",
    "--dataset-tokens": "30M",
    "--task": "chat",
    "--optimizer": "adamw_8bit",
    "--precision": "bf16",
    "--quantization": "nf4",
    "--attention": "sdpa",
    "--mixers": "torch",
    "--head": "lm",
    "--labels": "3",
    "--loss": "chunked",
    "--stack": "trl",
    "--epochs": "2",
    "--price": "1.5",
    "--gpus": "2",
    "--shard": "fsdp2",
    "--method": "lora",
}
SWITCHES = ("checkpointing", "reentrant", "double-quant", "kbit-prepare", "padding")


def options(rng: Random) -> Asked:
    """Two to six options of a plan, one in three with junk."""
    given: Asked = []
    for name in rng.sample(OPTIONS, rng.randrange(2, 7)):
        given += [name, word(rng) if rng.random() < 0.3 else SOUND[name]]
    for name in rng.sample(SWITCHES, rng.randrange(2)):
        given.append(f"--{rng.choice(('', 'no-'))}{name}")
    return given


def word(rng: Random) -> str:
    """Junk as a shell hands it over: text without NUL."""
    junk = rng.choice(JUNK)
    text = "9" * 400 if _huge(junk) else str(junk)
    return rng.choice((text, text, "9" * 5000, f"{rng.randrange(-2, 10**6)}", f"{rng.uniform(-2, 2)}", "max", "min")).replace("\x00", "")


def command_line(rng: Random, folder: Path) -> Asked:
    model = rng.choice(MODELS) if rng.random() < 0.85 else word(rng)
    card = rng.choice(CARDS) if rng.random() < 0.85 else word(rng)
    command = rng.choice(("", "", "estimate", "estimate", "config", "fit", "compare", "gpus", "models", "explain"))
    if command in ("models", "explain"):
        return [command, rng.choice((word(rng), rng.choice(MODELS), "lora", "exit"))]
    if command == "compare":
        return [command, model, rng.choice(MODELS), "--gpu", card, *options(rng)[:4]]
    if command == "gpus":
        words = [] if rng.random() < 0.25 else [card]  # every card that can be rented takes most of a second
        return [command, *words, "--for", model, *options(rng)[:4]]
    asked = rng.choice((["--seq-len", "max"], ["--batch-size", "max"], ["--gpus", "min"])) if command == "fit" else []
    extra = ["--stack", rng.choice(("axolotl", "trl", "hf", word(rng)))] if command == "config" else rng.choice(([], ["--json"]))
    return [*([command] if command else []), "--model", model, "--gpu", card, *options(rng), *asked, *extra]


FACTS = {
    "model": "llama-2-7b", "gpu": "24GB", "task": "math", "dataset_tokens": 10**6, "n_gpus": 1, "rank_cap": 64, "spare_runs": 2,
    "evaluation": {"metric": "accuracy", "n": 500, "target": 0.7, "base": 0.2},
    "runs": [
        {"method": "lora", "rank": 16, "alpha": 32, "learning_rate": 2e-4, "score": 0.61, "epochs": 3, "steps": 300, "seq_len": 1024},
        {"method": "full", "learning_rate": 1e-5, "score": 0.66, "diverged": False, "oom": False},
        {"method": "qlora", "rank": 64, "score": 0.6, "train_losses": [[1, 2.0], [100, 0.4]]},
    ],
}  # fmt: skip


def facts(rng: Random, folder: Path) -> Asked:
    lay(rng, folder / "f.json", FACTS)
    return ["next", "--facts", "f.json", *rng.choice(([], ["--json"], ["--html", "p.html"], ["--target", word(rng)]))]


RUN = {
    "method": "lora",
    "rank": 8,
    "alpha": 16,
    "name": "first",
    "model": "llama-3.1-8b",
    "gpu": "24GB",
    "learning_rate": 1e-4,
    "score": 0.5,
    "n": 3,
    "metric": "accuracy",
    "steps": 10,
    "seconds": 30.5,
    "notes": ["a"],
    "train_losses": [[1, 2.0], [2, 1.5]],
    "evaluations": [{"metric": "accuracy", "score": 0.4, "n": 50, "epoch": 1.0}],
    "items": [1, 0, 0.5],
}
STATE = {
    "log_history": [
        {"loss": 2.5, "learning_rate": 2e-4, "step": 1, "epoch": 0.5},
        {"eval_loss": 2.1, "eval_accuracy": 0.5, "eval_runtime": 3.0, "eval_samples_per_second": 5.0, "step": 2, "epoch": 1.0},
    ],
    "global_step": 2,
    "epoch": 1.0,
    "max_steps": 2,
    "num_train_epochs": 1,
    "train_batch_size": 2,
    "best_metric": 0.5,
}
ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 16,
    "target_modules": ["q"],
    "base_model_name_or_path": "org/base",
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "lora_dropout": 0.1,
    "init_lora_weights": True,
    "use_dora": False,
}
CARD = (
    "---\nbase_model: org/base\ntags: [lora]\nmodel-index:\n- name: x\n  results:\n  - metrics:\n    - {type: acc, value: 0.5}\n---\n# x\n"
)


def record_source(rng: Random, folder: Path) -> Asked:
    if rng.random() < 0.5:
        lay(rng, folder / "run.json", RUN)
        source = "run.json"
    else:
        lay(rng, folder / "d" / "trainer_state.json", STATE)
        lay(rng, folder / "d" / "adapter_config.json", ADAPTER)
        (folder / "d" / "README.md").write_bytes(hurt_bytes(rng, CARD.encode()))
        source = "d"
    return ["record", source, "--ledger", "l.sqlite", *rng.choice(([], ["--json"], ["--score", word(rng)]))]


def items(rng: Random, folder: Path) -> Asked:
    lay(rng, folder / "i.json", rng.choice(([1, 0, 1, 0.5], [{"id": "a", "score": 1}, {"id": "b", "score": 0}], {"a": 1, "b": 0})))
    return ["record", "--method", "lora", "--items", "i.json", "--ledger", "l.sqlite"]


@cache
def ledger_bytes() -> bytes:
    import contextlib
    import io
    import tempfile

    from advisor.cli.run import run

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for number in range(4):
            (Path(folder) / "run.json").write_text(
                json.dumps({**RUN, "name": f"run {number}", "train_losses": [[1, 2.0 + number], [2, 1.5]]}), encoding="utf-8"
            )
            assert run(["record", f"{folder}/run.json", "--ledger", f"{folder}/l.sqlite"]) == 0
        return (Path(folder) / "l.sqlite").read_bytes()


def ledger(rng: Random, folder: Path) -> Asked:
    (folder / "l.sqlite").write_bytes(hurt_bytes(rng, ledger_bytes()))
    return [*rng.choice((["runs"], ["runs", "2"], ["next"], ["record", "--method", "lora", "--score", "0.5"])), "--ledger", "l.sqlite"]


def rows(rng: Random, folder: Path) -> Asked:
    whole = data(f"profiles/measurements/{rng.choice(('t4_fitcheck', 'boundaries', 'papers', 'torchtitan'))}.json")
    lay(rng, folder / "r.json", [rng.choice(whole)])
    return ["accuracy", "--rows", "r.json", *rng.choice(([], ["--json"]))]


FACTORS = {
    "base_model.model.q.lora_A.weight": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]},
    "base_model.model.q.lora_B.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [128, 256]},
}


def adapter(rng: Random, folder: Path) -> Asked:
    lay(rng, folder / "d" / "adapter_config.json", ADAPTER)
    header = json.dumps(damaged(rng, FACTORS) if rng.random() < 0.5 else FACTORS).encode()
    raw = struct.pack("<Q", len(header)) + header + bytes(rng.randrange(256) for _ in range(256))
    (folder / "d" / "adapter_model.safetensors").write_bytes(hurt_bytes(rng, raw) if rng.random() < 0.3 else raw)
    return ["inspect", "d", *rng.choice(([], ["--json"], ["--modules"], ["--truncate", "2"], ["--truncate", word(rng)], ["--base", "d"]))]


def sweep_file(rng: Random, folder: Path) -> Asked:
    grid = {
        "model": ["llama-3.2-1b", "gemma-3-1b"],
        "gpu": ["24GB", "h100"],
        "method": ["lora", "full"],
        "rank": [8, 16],
        "seq_len": rng.choice(([512, 1024], {"from": 512, "to": 2048, "step": 512})),
    }
    lay(rng, folder / "s.yaml", grid, yaml=True)
    return ["sweep", "s.yaml", "--out", rng.choice(("s.csv", "s.jsonl", "s.parquet", word(rng)[:60]))]


@cache
def calibration() -> Any:
    sys.path.insert(0, str(ROOT / "tests"))
    return json.loads(importlib.import_module("test_calibrate").a_record().model_dump_json())


def calibrations(rng: Random, folder: Path) -> Asked:
    """Records of this machine, which another program may have damaged."""
    lay(rng, folder / "data" / "calibrations" / "x.json", calibration())
    shown = (["calibrate", "--list"], ["calibrate", "--show", "x"], ["calibrate", "--export", "x"])
    return rng.choice((*shown, ["estimate", "--model", "llama-3.1-8b", "--method", "lora", "--gpu", "24GB"]))


def names(rng: Random, folder: Path) -> Asked:
    """Files that the command is told to write or to read, by names that no file should have."""
    name = rng.choice(NAMES)
    question = ["--model", "llama-3.2-1b", "--gpu", "24GB"]
    return rng.choice(
        (
            [*question, "--html", name],
            ["config", "--stack", "axolotl", *question, "--out", name],
            ["record", "--method", "lora", "--score", "0.5", "--ledger", name],
            ["check", name],
            ["inspect", name],
            ["sweep", name],
            ["next", "--ledger", name],
            ["--model", f"./{name}", "--gpu", "24GB"],
        )
    )


DOORS: dict[Door, int] = {
    model_config: 12,
    trainer_file: 16,
    shell_script: 4,
    python_script: 4,
    accelerate_file: 4,
    command_line: 12,
    facts: 10,
    record_source: 10,
    items: 3,
    ledger: 4,
    rows: 5,
    adapter: 8,
    sweep_file: 4,
    calibrations: 3,
    names: 3,
}
"""How many of a hundred inputs go to which door."""
