"""The hooks inside axolotl, LLaMA-Factory and ms-swift, on what their own validation hands over. `.ci/frameworks` makes the environments.

Each test is skipped where its framework is not installed; under FRAMEWORK=NAME that framework must be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import DoesNotFitError
from advisor.values import Fit

transformers = pytest.importorskip("transformers")


def need(framework: str, module: str) -> Any:
    """The framework's module. Skips where it is not installed, unless this environment is made for it."""
    if os.environ.get("FRAMEWORK") == framework:
        return __import__(module, fromlist=["_"])
    return pytest.importorskip(module, exc_type=ImportError)


# ------------------------------------------------------------------------------------------------------------------ axolotl

AXOLOTL: dict[str, Any] = {
    "base_model": "NousResearch/Llama-3.2-1B",
    "load_in_4bit": True,
    "adapter": "qlora",
    "lora_r": 32,
    "lora_alpha": 16,
    "lora_target_linear": True,
    "sequence_len": 2048,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_epochs": 1,
    "optimizer": "adamw_8bit",
    "learning_rate": 2e-4,
    "bf16": True,
    "gradient_checkpointing": True,
    "flash_attention": True,
    "datasets": [{"path": "x", "type": "alpaca"}],
    "plugins": ["advisor.hooks.axolotl.AdvisorPlugin"],
    "output_dir": "out",
}


def validated(settings: dict[str, Any]) -> Any:
    """As axolotl's command validates a file, on a card of compute capability 8.0."""
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    capabilities = {"bf16": True, "n_gpu": 1, "compute_capability": "sm_80"}
    return validate_config(DictDefault(settings), capabilities=capabilities, env_capabilities={"torch_version": "2.9.0"})


@pytest.fixture
def axolotl_plugins() -> Any:
    base = need("axolotl", "axolotl.integrations.base")
    plugins = base.PluginManager.get_instance()
    if not plugins.plugins:
        plugins.register("advisor.hooks.axolotl.AdvisorPlugin")
    return plugins


def test_axolotl_takes_the_options_of_the_plugin(axolotl_plugins: Any) -> None:
    from axolotl.integrations.config import merge_input_args

    assert "advisor" in merge_input_args()[1].model_fields


def test_axolotl_is_stopped_as_told(axolotl_plugins: Any) -> None:
    cfg = validated({**AXOLOTL, "sequence_len": 500_000, "advisor": {"gpu": "1GiB", "on_misfit": "raise"}})
    with pytest.raises(DoesNotFitError, match="QLoRA does not fit"):
        axolotl_plugins.pre_model_load(cfg)


def test_axolotl_is_warned_otherwise(axolotl_plugins: Any) -> None:
    with pytest.warns(UserWarning, match="QLoRA does not fit"):
        axolotl_plugins.pre_model_load(validated({**AXOLOTL, "sequence_len": 500_000, "advisor": {"gpu": "1GiB"}}))


def test_axolotl_goes_on_where_it_fits(axolotl_plugins: Any) -> None:
    cfg = validated({**AXOLOTL, "advisor": {"gpu": "80GB", "on_misfit": "raise"}})
    before = dict(cfg)
    axolotl_plugins.pre_model_load(cfg)
    assert dict(cfg) == before
    (plugin,) = axolotl_plugins.plugins.values()
    assert plugin.report.fit is Fit.FITS
    assert isinstance(plugin.add_callbacks_post_trainer(cfg, None)[0], transformers.TrainerCallback)


@pytest.mark.parametrize("gpu", ["rtx 4900", "0GB"])
def test_a_mistyped_card_ends_no_training_of_axolotl(gpu: str, axolotl_plugins: Any) -> None:
    cfg = validated({**AXOLOTL, "advisor": {"gpu": gpu, "on_misfit": "raise"}})
    with pytest.warns(UserWarning, match="advisor: no pre-flight"):
        axolotl_plugins.pre_model_load(cfg)
    (plugin,) = axolotl_plugins.plugins.values()
    with pytest.warns(UserWarning, match="advisor: no comparison"):
        assert list(plugin.add_callbacks_post_trainer(cfg, None)) == []


def test_the_kept_configuration_is_axolotls_own(axolotl_plugins: Any) -> None:
    """tests/data/axolotl_validated.json is what this release's validation makes of the same settings."""
    import json

    from advisor.hooks.axolotl import plain

    kept = json.loads((Path(__file__).parent / "data" / "axolotl_validated.json").read_text(encoding="utf-8"))
    made = {name: value for name, value in plain(validated({**AXOLOTL, "advisor": {}})).items() if value is not None}
    moved = {name for name in made.keys() | kept["validated"].keys() if str(made.get(name)) != str(kept["validated"].get(name))}
    assert {name for name in moved if not name.startswith(("dataset", "output"))} == set()


# ------------------------------------------------------------------------------------------------------------ LLaMA-Factory

QLORA = """\
model_name_or_path: meta-llama/Llama-3.2-1B
quantization_bit: 4
stage: sft
do_train: true
finetuning_type: lora
lora_target: all
dataset: alpaca_en_demo
template: llama3
cutoff_len: {length}
output_dir: out
per_device_train_batch_size: 1
bf16: true
"""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What LLaMA-Factory's own `run_exp` is called with."""
    tuner = need("llamafactory", "llamafactory.train.tuner")
    calls: list[Any] = []
    monkeypatch.setattr(tuner, "run_exp", lambda settings, callbacks: calls.append((settings, callbacks)))
    return calls


def test_llamafactory_is_stopped_as_told(trained: list[Any], tmp_path: Path) -> None:
    from advisor.hooks.llamafactory import run_exp

    (tmp_path / "qlora.yaml").write_text(QLORA.format(length=100_000), encoding="utf-8")
    with pytest.raises(DoesNotFitError, match="QLoRA does not fit"):
        run_exp(tmp_path / "qlora.yaml", gpu="8GiB", on_misfit="raise")
    assert trained == []


@pytest.mark.parametrize("length", [1024, 100_000])
def test_llamafactory_trains_with_the_callback(length: int, trained: list[Any], tmp_path: Path) -> None:
    """Its own parser takes the settings that it is called with."""
    from llamafactory.hparams.parser import _parse_train_args

    from advisor import AdvisorCallback
    from advisor.hooks.llamafactory import run_exp

    (tmp_path / "qlora.yaml").write_text(QLORA.format(length=length), encoding="utf-8")
    if length == 1024:
        run_exp(tmp_path / "qlora.yaml", gpu="80GB", on_misfit="raise")
    else:
        with pytest.warns(UserWarning, match="QLoRA does not fit"):
            run_exp(tmp_path / "qlora.yaml", gpu="8GiB")
    ((settings, callbacks),) = trained
    assert [type(callback) for callback in callbacks] == [AdvisorCallback]
    assert _parse_train_args({**settings, "bf16": False, "use_cpu": True})


def test_a_model_that_is_not_known_ends_no_training_of_llamafactory(trained: list[Any], tmp_path: Path) -> None:
    from advisor.hooks.llamafactory import run_exp

    (tmp_path / "qlora.yaml").write_text(QLORA.format(length=1024).replace("meta-llama/Llama-3.2-1B", "nobody/has-this"), encoding="utf-8")
    with pytest.warns(UserWarning, match="advisor: no pre-flight: .*nobody/has-this"):
        run_exp(tmp_path / "qlora.yaml", gpu="80GB", on_misfit="raise")
    assert len(trained) == 1


# ----------------------------------------------------------------------------------------------------------------- ms-swift


def test_inside_ms_swift(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = need("ms-swift", "swift.callbacks.mapping")
    from advisor.hooks import ms_swift

    monkeypatch.setenv("ADVISOR_GPU", "8GiB")
    ms_swift.register()
    callback = mapping.callbacks_map["advisor"](None, None)
    assert isinstance(callback, transformers.TrainerCallback)
