"""The task's head: what is trained on a model's body, the same in every tier."""

from __future__ import annotations

import json
from typing import Any

import pytest

from advisor.architectures import headed, spec_from_config
from advisor.errors import UnsupportedError
from advisor.hub import load_model
from advisor.memory import adapter_params, estimate_memory, trainable_params
from advisor.stacks import default_plan, echo_defaults
from advisor.values import Head, Method, ModelSpec, Plan
from advisor.values.request import Request

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def small(model_type: str, **more: Any) -> ModelSpec:
    config = {**SMALL, "model_type": model_type, "tie_word_embeddings": False, **more}
    return spec_from_config(config, id=model_type, source="small")


# (model, head asked for, head trained)
FIRST = [
    ("llama-3.2-1b", None, Head.LM),
    ("bert-base", None, Head.CLASSIFICATION),  # its config names BertForMaskedLM
    ("bge-large", None, Head.CLASSIFICATION),  # BertModel
    ("bert-base", Head.MLM, Head.MLM),
    ("llama-3.2-1b", Head.CLASSIFICATION, Head.CLASSIFICATION),
]


@pytest.mark.parametrize(("name", "asked", "trained"), FIRST)
def test_which_head_is_trained(name: str, asked: Head | None, trained: Head) -> None:
    model = load_model(name)
    plan = default_plan(Method.LORA, model, None, Request(head=asked))
    assert headed(model, plan).head is trained


def test_a_classifier_has_as_many_labels_as_its_config_names() -> None:
    model = small("bert", architectures=["BertForSequenceClassification"], id2label={str(i): str(i) for i in range(7)})
    plan = default_plan(Method.FULL, model, None, Request())
    assert (plan.labels, headed(model, plan).labels) == (7, 7)
    assert default_plan(Method.FULL, model, None, Request(labels=3)).labels == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"head": "embedding"}, "knows no loss of an embedding"), ({"head": "mlm"}, "there are lm, classification, tokens")],
)
def test_a_head_that_is_not_priced_is_refused_with_what_there_is(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        estimate_memory(load_model("llama-3.2-1b"), Plan(**settings))


def test_a_classifier_holds_no_scores_of_words() -> None:
    model = load_model("llama-3.2-1b")
    whole, classifier = (
        estimate_memory(model, Plan(head=head, seq_len_tokens=512, micro_batch_size=8)).peak_allocated_bytes
        for head in (Head.LM, Head.CLASSIFICATION)
    )
    logits_fp32 = 4 * 512 * 8 * model.vocab_size  # one of several copies
    assert whole - classifier > logits_fp32


def test_assumed_heads_are_said() -> None:
    said = echo_defaults(load_model("bert-base"), None, Request())
    assert any(line.startswith("head: classification") and "2 labels" in line for line in said)
    assert not any(line.startswith("head") for line in echo_defaults(load_model("llama-3.2-1b"), None, Request()))


PEFT_CASES = [
    ("bert", Head.CLASSIFICATION),
    ("bert", Head.MLM),
    ("bert", Head.TOKENS),
    ("roberta", Head.CLASSIFICATION),
    ("modernbert", Head.CLASSIFICATION),
    ("llama", Head.CLASSIFICATION),
    ("llama", Head.TOKENS),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model_type", "head"), PEFT_CASES)
def test_trained_parameters_beside_a_head_are_those_that_peft_trains(model_type: str, head: Head) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from advisor.dryrun import meta_model
    from advisor.dryrun.recorder import Recorder

    model, plan = small(model_type), Plan(head=head, rank=4, labels=5)
    built = meta_model.build(model, plan, Recorder("meta"))
    trained = {name: parameter.numel() for name, parameter in built.model.named_parameters() if parameter.requires_grad}
    assert sum(trained.values()) == adapter_params(model, plan) == trainable_params(model, plan), json.dumps(trained)
