"""Every script of examples/ runs as it stands, and says what it is for."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SHORT = 60
"""Lines that an example may have."""
LONG = pytest.mark.long
TRAINS = ("torch", "transformers", "peft")

# Script, the packages beyond the core that it needs, and words of what it prints.
SCRIPTS = [
    pytest.param("seventy_billion.py", (), ("QLoRA  fits", "advise estimate --model llama-70b"), id="the 70B question"),
    pytest.param("a_24_gb_card.py", (), ("gradient checkpointing on", "the longest sequence that fits"), id="a 24 GB card"),
    pytest.param("compare_gpus.py", (), ("L4: ", "A100 SXM4 80GB: "), id="four cards"),
    pytest.param("where_the_memory_goes.py", (), ("checkpointing True", "activations"), id="term by term"),
    pytest.param("sharded_plan.py", (), ("fsdp2 on 4 x h200", "the fewest that fit"), id="a sharded plan"),
    pytest.param("next_step.py", (), ("after 3 runs", "findings"), id="the ladder after three runs"),
    pytest.param("report.py", ("vl_convert",), ("report.html",), id="a report"),
    pytest.param(
        "preflight_trainer.py",
        TRAINS,
        ("trained 2 steps; before the first: fits", "stopped before the first step: "),
        id="pre-flight in Trainer",
    ),
    pytest.param(
        "preflight_trl.py",
        (*TRAINS, "trl"),
        ("on 24 GB: fits", "trained 2 steps; before the first: fits"),
        marks=LONG,
        id="pre-flight in TRL",
    ),
    pytest.param("calibrate_on_cpu.py", (*TRAINS, "accelerate"), ("backward: ", "done in "), marks=LONG, id="a calibration"),
]
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
IS_NO_SCRIPT = "tiny.py"


@pytest.mark.filterwarnings("ignore")  # the libraries' own: no GPU, deprecated names
@pytest.mark.parametrize(("name", "packages", "words"), SCRIPTS)
def test_an_example_runs(
    name: str, packages: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    for package in packages:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setattr(sys, "argv", [name, *_arguments(name, tmp_path)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    said = capfd.readouterr().out
    assert [word for word in words if word not in said] == []


def _arguments(name: str, folder: Path) -> list[str]:
    """A model that is smaller than the example's own, where real training takes long."""
    if name != "calibrate_on_cpu.py":
        return []
    (folder / "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    return [str(folder / "config.json")]


def test_every_script_is_in_the_table_and_short() -> None:
    scripts = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    assert set(scripts) == {str(row.values[0]) for row in SCRIPTS} | {IS_NO_SCRIPT}
    assert {name: lines for name, lines in scripts.items() if lines > SHORT} == {}
