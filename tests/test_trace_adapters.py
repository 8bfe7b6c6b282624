"""The dry run of adapters that name layers, that peft leaves in 16 bit, or that need what is not installed; and of too old libraries."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft

from advisor.dryrun import OLDEST, peft_config_of, refuse_older, trace
from advisor.dryrun.adapters import names_layers
from advisor.errors import UnsupportedError
from advisor.hub import load_model
from advisor.values import ModelSpec, Plan, Term

pytestmark = pytest.mark.filterwarnings("ignore")

LAYERS, HIDDEN, KEYS = 8, 256, 128


def tiny() -> ModelSpec:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": 352,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 1000,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    like = load_model("meta-llama/Llama-3.2-1B")
    return like.model_copy(update={"id": "tiny", "model_type": "llama", "config_json": json.dumps(config)})


def adapter_bytes(**content: object) -> int:
    traced = trace(tiny(), Plan(seq_len_tokens=64), peft_config=peft_config_of({"task_type": "CAUSAL_LM", **content}, "test"))
    return sum(term.bytes for term in traced.breakdown.terms if term.term is Term.ADAPTER)


LORA = {"peft_type": "LORA", "r": 4, "target_modules": ["k_proj"]}
ONE_LAYER = 4 * (HIDDEN + KEYS)
"""Parameters of rank 4 beside one k_proj."""
LAST = LAYERS - 1


# the adapter, its parameters by hand, their bytes each; peft casts what a tuner adds to fp32, and nothing else
@pytest.mark.parametrize(
    ("content", "parameters", "each_bytes"),
    [
        (LORA, LAYERS * ONE_LAYER, 4),
        (LORA | {"layers_to_transform": [LAST - 1, LAST]}, 2 * ONE_LAYER, 4),
        (LORA | {"target_modules": rf"model\.layers\.[{LAST - 2}-{LAST}]\.self_attn\.k_proj"}, 3 * ONE_LAYER, 4),
        (LORA | {"rank_pattern": {f"layers.{LAST}.self_attn.k_proj": 16}}, (LAYERS - 1 + 4) * ONE_LAYER, 4),
        ({"peft_type": "LN_TUNING", "target_modules": ["input_layernorm", "post_attention_layernorm"]}, LAYERS * 2 * HIDDEN, 2),
    ],
    ids=["every layer", "layers_to_transform", "layers in a pattern", "rank_pattern", "LN tuning"],
)
@pytest.mark.sampled(3)
def test_an_adapter_is_that_of_the_whole_model(content, parameters, each_bytes):
    assert adapter_bytes(**content) == parameters * each_bytes


def test_adaption_prompt_counts_its_layers():
    content = {"peft_type": "ADAPTION_PROMPT", "adapter_len": 4, "adapter_layers": LAYERS - 2}
    assert adapter_bytes(**content) > 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"target_modules": ["fc1", "w2", "dense_4h_to_h", "q_proj"]}, False),
        ({"target_modules": "all-linear"}, False),
        ({"target_modules": ["model.layers.3.q_proj"]}, True),
        ({"target_modules": r".*\.\d+\.q_proj"}, True),
        ({"layers_to_transform": [1]}, True),
        ({"rank_pattern": {"q_proj": 4}}, False),
        ({"alpha_pattern": {"^model.layers.0.q_proj": 4}}, True),
    ],
)
def test_which_adapters_name_layers(fields, named):
    assert names_layers(peft.LoraConfig(**fields)) is named
    assert not names_layers(None)


def test_an_adapter_that_needs_another_library_is_refused_in_one_line(monkeypatch):
    def missing(*_, **__):
        raise ImportError("AdaMSS needs scikit-learn")

    monkeypatch.setattr(peft, "get_peft_model", missing)
    with pytest.raises(UnsupportedError, match="scikit-learn") as caught:
        adapter_bytes(**LORA)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("installed", "refused"), [("4.45.2", True), ("4.47.1", True), ("4.48.0", False), ("5.23.0", False)])
def test_too_old_a_transformers_is_refused_before_it_is_imported(installed, refused, monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed if name == "transformers" else real(name))
    if not refused:
        refuse_older("transformers")
        return
    with pytest.raises(UnsupportedError, match=rf"transformers 4\.48 or newer, and {re.escape(installed)} is installed") as caught:
        trace(tiny(), Plan())
    assert "\n" not in str(caught.value)


def test_the_oldest_releases_are_those_of_the_package():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    for library, oldest in OLDEST.items():
        assert f'"{library}>={oldest}"' in text
