"""Models of the profiles that have no tables run by their names: with what their class defaults lack, wrapped where peft wraps them.

`python -m benchmarks.coverage_of_profiles` runs them all.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from advisor.hub import load_model
from advisor.stacks.targets import first_targets
from benchmarks.coverage_of_profiles import problem


@pytest.mark.parametrize(
    "name",
    [
        "google-t5/t5-small",
        "tiiuae/Falcon-H1-0.5B-Instruct",
        pytest.param("google/flan-t5-base", marks=pytest.mark.long),
        pytest.param("state-spaces/mamba-130m-hf", marks=pytest.mark.long),
        pytest.param("tiiuae/falcon-mamba-7b", marks=pytest.mark.long),
        pytest.param("nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16", marks=pytest.mark.long),
        pytest.param("meta-llama/Llama-4-Scout-17B-16E-Instruct", marks=pytest.mark.long),
        pytest.param("deepseek-ai/DeepSeek-V4-Flash", marks=pytest.mark.long),
        pytest.param("zai-org/GLM-4.1V-9B-Thinking", marks=pytest.mark.long),
    ],
)
def test_a_step_runs_by_the_models_name(name: str) -> None:
    assert problem(load_model(name)) == ""


@pytest.mark.parametrize("name", ["tiiuae/Falcon-H1-0.5B-Instruct", "nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16", "state-spaces/mamba-130m-hf"])
def test_peft_refuses_no_first_target_of_mamba_layers(name: str) -> None:
    """By peft's own check (0.21 tuners/tuners_utils.py)."""
    tuners = pytest.importorskip("peft.tuners.tuners_utils")
    if not hasattr(tuners, "_check_lora_target_modules_mamba"):
        pytest.skip("this release of peft refuses none")
    model = load_model(name)
    about = SimpleNamespace(peft_type="LORA"), _WithConfig(model.model_type)
    for target in first_targets(model):
        tuners._check_lora_target_modules_mamba(*about, target)
    with pytest.raises(ValueError, match="incompatible"):
        tuners._check_lora_target_modules_mamba(*about, "out_proj")


class _WithConfig:
    def __init__(self, model_type: str) -> None:
        self.config = SimpleNamespace(model_type=model_type)


def test_what_cannot_be_run_says_why() -> None:
    assert "codes of sound" in problem(load_model("sesame/csm-1b"))
