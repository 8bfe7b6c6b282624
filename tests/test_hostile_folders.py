"""Three folders of someone else's, hostile in everything at once: a downloaded adapter, a model's folder, and a pull request.

Whatever is asked about them changes nothing, runs nothing and shows nothing but text.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from advisor.cli.run import LONGEST_ERROR, run

ESCAPES = "\x1b[2J\x1b]0;PWN\x07\u202e\x9b"
CODE = "' + str(__import__('os').system('touch ran')) + '"
SHELL = "$(touch ran)`touch ran`"
TAG = "!!python/object/apply:os.system ['touch ran']"
MERGE_BOMB = "a: &a {x: 1}\nm0: &m0 {<<: [*a, *a]}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 27))
ANNOTATION = "x%0A::error::injected\n::error file=a::injected\r::warning::injected"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
RUNS = "from pathlib import Path\nPath('ran').touch()\n"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


class Touches:
    """A pickle that leaves a file behind where it is opened."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def adapter(folder: Path) -> None:
    folder.mkdir()
    module = f"base_model.model.{ESCAPES}{MARKUP}q"
    header = {
        f"{module}.lora_A.weight": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]},
        f"{module}.lora_B.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [128, 256]},
        "__metadata__": {"format": ESCAPES},
    }
    head = json.dumps(header).encode()
    values = struct.pack("<64f", *(((7 * n) % 11 - 5) / 8 for n in range(64)))
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + values)
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["q"],
        "base_model_name_or_path": ESCAPES + CODE + SHELL,
        "auto_mapping": {"base_model_class": CODE, "parent_library": "ran"},
        "revision": ANNOTATION,
        "rank_pattern": {},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Touches()))
    (folder / "training_args.bin").write_bytes(pickle.dumps(Touches()))
    (folder / "README.md").write_text(f"---\nbase_model: {TAG}\n{MERGE_BOMB}---\n{MARKUP}\n", encoding="utf-8")
    (folder / "trainer_state.json").symlink_to("/dev/zero")
    for name in ("modeling.py", "sitecustomize.py", "conftest.py", "ran.py"):
        (folder / name).write_text(RUNS, encoding="utf-8")


def model(folder: Path) -> None:
    folder.mkdir()
    own = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    config = {
        **LLAMA,
        "auto_map": own,
        "architectures": ["LlamaForCausalLM"],
        "_name_or_path": ESCAPES + MARKUP,
        "transformers_version": ESCAPES,
        "hidden_act": "silu",
        "custom": CODE,
        "tokenizer_class": SHELL,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touches()))
    (folder / "model.safetensors").symlink_to("/dev/zero")
    (folder / "tokenizer_config.json").symlink_to("/dev/zero")
    for name in ("modeling.py", "sitecustomize.py", "__init__.py"):
        (folder / name).write_text(RUNS, encoding="utf-8")


def pull_request(folder: Path) -> None:
    folder.mkdir()
    sound = "adapter: lora\nlora_r: 8\nlora_alpha: 16\nsequence_len: 512\nmicro_batch_size: 1\n"
    files = {
        "away.yaml": sound + "base_model: ../../../../etc/passwd\n",
        "device.yaml": sound + "base_model: /dev/zero\n",
        "tag.yaml": sound + f"base_model: {TAG}\n",
        "bomb.yaml": MERGE_BOMB,
        "plugin.yaml": sound + f"base_model: meta-llama/Llama-3.2-1B\nplugins: [{json.dumps(CODE)}, ran.Plugin]\ndeepspeed: pipe\n",
        "annotation.yaml": sound + f"base_model: meta-llama/Llama-3.2-1B\noptimizer: {json.dumps(ANNOTATION)}\n",
        "field.yaml": sound + f"base_model: meta-llama/Llama-3.2-1B\n{json.dumps(ANNOTATION)}: 1\n",
        "escape.yaml": sound + f"base_model: {json.dumps(ESCAPES + MARKUP)}\n",
        "train.py": RUNS + f"from trl import SFTTrainer\nimport ran\nexec({RUNS!r})\nSFTTrainer(model={CODE!r}).train()\n",
        "train.sh": f"touch ran\n{SHELL}\naxolotl train plugin.yaml --x {SHELL}\n",
        "sweep.yaml": f"model: {TAG}\ngpu: 24GB\n",
        "ran.py": RUNS,
        "sitecustomize.py": RUNS,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    os.mkfifo(folder / "pipe")
    (folder / "accelerate.yaml").symlink_to("/dev/zero")


MODEL = f"./m{CODE}"
PLAN = ["--model", MODEL, "--gpu", "24GB"]

ASKED = {
    "d": [
        *(["inspect", "d"], ["inspect", "d", "--json"], ["inspect", "d", "--modules"], ["inspect", "d", "--base", "d"]),
        *(["inspect", "d", "--truncate", "2", "--out", "cut"], ["record", "d", "--ledger", "l.sqlite"], ["record", "d/README.md"]),
        *(["runs", "--ledger", "l.sqlite"], ["inspect", "d/adapter_model.bin"], ["estimate", "--model", "./d", "--method", "lora"]),
    ],
    "m": [
        *([*PLAN], [*PLAN, "--json"], [*PLAN, "--full"], ["estimate", *PLAN, "--method", "lora", "--html", "page.html"]),
        *(["config", "--stack", stack, *PLAN] for stack in ("hf", "axolotl", "llamafactory", "trl")),
        *(
            ["compare", MODEL, "--gpu", "24GB"],
            ["next", "--model", MODEL, "--method", "lora", "--rank", "8", "--score", "0.5", "--items", "9"],
        ),
    ],
    "p": [
        *(["check", f"p/{name}.yaml", *shown] for name in ("away", "device", "tag", "bomb", "escape") for shown in ([], ["--json"])),
        *(["check", f"p/{name}.yaml", "--gpu", "24GB", "--format", "github"] for name in ("plugin", "annotation", "field")),
        *(["check", f"p/{name}", "--gpu", "24GB"] for name in ("train.py", "train.sh", "pipe", "accelerate.yaml")),
        *(["check", "p/annotation.yaml", "--accelerate", "p/accelerate.yaml"], ["sweep", "p/sweep.yaml"]),
    ],
}


def state_of(folder: Path) -> dict[str, bytes | str | int]:
    """Everything below the folder, by name: bytes, or where a link leads."""
    found: dict[str, bytes | str | int] = {}
    for path in sorted(folder.rglob("*")):
        kept = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else path.stat().st_mode
        found[str(path.relative_to(folder))] = kept
    return found


@pytest.mark.parametrize(("kind", "arguments"), [(kind, arguments) for kind, many in ASKED.items() for arguments in many], ids=str)
def test_nothing_is_changed_nothing_runs_and_all_is_text(
    kind: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = MODEL[2:] if kind == "m" else kind
    {"d": adapter, "m": model, "p": pull_request}[kind](tmp_path / name)
    before = state_of(tmp_path / name)
    code = run(arguments)
    out, err = capsys.readouterr()
    assert code in (0, 1, 2, 3)
    assert all(one.isprintable() or one == "\n" for one in out + err)
    assert len(err) <= LONGEST_ERROR + len("error: \n")
    assert err.count("\n") == (code == 2)
    assert state_of(tmp_path / name) == before
    assert not [*tmp_path.rglob("ran")]
    if "github" in arguments:
        assert not [line for line in out.splitlines() if "injected" in line and not line.startswith(("::", "error: "))]
        assert "::error::injected" not in [line.strip() for line in out.splitlines()]
    if "--html" in arguments and code != 2:
        assert MARKUP not in (tmp_path / "page.html").read_text(encoding="utf-8")
    if "hf" in arguments and code == 0:
        assert not [node for node in ast.walk(ast.parse(out)) if isinstance(node, ast.Name) and node.id == "__import__"]
