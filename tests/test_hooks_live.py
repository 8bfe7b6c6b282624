"""What a hook finds in a live trainer: its objective, its head, its adapters, its optimizer; and that it never ends or hangs a training."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from advisor import preflight
from advisor.errors import DoesNotFitError, UnsupportedError
from advisor.guard import guarded
from advisor.hooks import jobs, live
from advisor.hooks.configured import report_of
from advisor.hooks.flight import PreflightOptions
from advisor.values import Optimizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
trl = pytest.importorskip("trl")

from test_hooks import LARGE, TOO_SMALL, arguments, data, model, said, trainer  # noqa: E402

from advisor import AdvisorCallback  # noqa: E402  # loads transformers

# ------------------------------------------------------------------------------------------------------------- the objective

OTHER_OBJECTIVES = ("DPOConfig", "GRPOConfig", "KTOConfig", "RewardConfig", "RLOOConfig")
"""Arguments of trl 1.16's trainers beside SFTConfig (trl 1.16 trainer/__init__.py)."""


@pytest.mark.parametrize("name", OTHER_OBJECTIVES)
def test_another_objective_is_refused_by_its_arguments(name: str, tmp_path: Path) -> None:
    kind = getattr(trl, name)
    own = type("MyConfig", (kind,), {})
    for args in (object.__new__(kind), object.__new__(own)):
        with pytest.raises(UnsupportedError, match=rf"{name if type(args) is kind else 'MyConfig|' + name}.*not priced"):
            jobs.refuse_other_objectives(args)


def test_supervised_fine_tuning_is_not() -> None:
    own = type("MyConfig", (trl.SFTConfig,), {})
    for kind in (trl.SFTConfig, own, transformers.TrainingArguments, transformers.Seq2SeqTrainingArguments):
        jobs.refuse_other_objectives(object.__new__(kind))
    for kind in (trl.SFTTrainer, transformers.Trainer, type("Mine", (trl.SFTTrainer,), {})):
        jobs.refuse_other_objectives(None, object.__new__(kind))


def test_a_callback_inside_another_objective_says_so_and_stops_nothing(tmp_path: Path) -> None:
    args = trl.DPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[], max_length=100_000, loss_type=["sigmoid"], bf16=False)
    callback = AdvisorCallback(gpu=TOO_SMALL, on_misfit="raise")
    with said() as warned:
        callback.on_init_end(args, None, None, model=model())
        callback.on_train_begin(args, None, None, model=model())
    assert [text for text in warned() if text.startswith("advisor")] == [
        "advisor: no pre-flight: DPOConfig: this objective is not priced; supervised fine-tuning (SFTTrainer, Trainer) is"
    ]


def test_a_loss_of_ones_own_turns_the_verdict(tmp_path: Path) -> None:
    class Mine(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, **kwargs: Any) -> Any:
            return model(**inputs).loss

    run = Mine(model=model(), args=arguments(tmp_path), train_dataset=data())
    with said():
        report = preflight(run, gpu=LARGE, seq_len=32)
    assert report.exit_code == 3
    assert any("Mine computes the loss in its own way" in finding.message for finding in report.findings)


# ------------------------------------------------------------------------------------------------------------------ the head


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("LlamaForCausalLM", "lm"),
        ("GPT2LMHeadModel", "lm"),
        ("LlamaForSequenceClassification", "classification"),
        ("BertForMaskedLM", "mlm"),
        ("BertForTokenClassification", "tokens"),
    ],
)
def test_the_head_shows_in_the_class(kind: str, expected: str) -> None:
    assert jobs.head_of(object.__new__(getattr(transformers, kind))).value == expected


def test_a_head_that_is_not_priced_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="BertForQuestionAnswering: its head is not priced"):
        jobs.head_of(object.__new__(transformers.BertForQuestionAnswering))


def test_a_classifier_is_not_stopped_for_logits_that_it_never_makes(tmp_path: Path) -> None:
    """128,000 words at 2 x 4,096 positions would be 10 GiB of logits; a classifier makes two scores a row."""
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=128_000, pad_token_id=0
    )
    callback = AdvisorCallback(gpu="2GiB", on_misfit="raise", seq_len=4096)
    classifier = transformers.LlamaForSequenceClassification(config)
    with said():
        transformers.Trainer(model=classifier, args=arguments(tmp_path), train_dataset=data(), callbacks=[callback])
    assert callback.report is None or callback.report.exit_code == 0


# ------------------------------------------------------------------------------------------------------------- the model's walk


def test_a_model_that_is_its_own_module_does_not_hang() -> None:
    class Facade(torch.nn.Module):  # type: ignore[misc]
        @property
        def module(self) -> Any:
            return self

    facade = Facade()
    assert live.inner_of(facade) is facade


def test_a_model_over_two_devices_is_never_stopped(tmp_path: Path) -> None:
    spread = model()
    spread.base_model.model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    run = transformers.Trainer(model=spread, args=arguments(tmp_path), train_dataset=data())
    with said():
        report = preflight(run, gpu=TOO_SMALL, seq_len=100_000)
    assert report.exit_code == 3
    assert any("device_map spreads the model over 2 devices" in finding.message for finding in report.findings)


# ------------------------------------------------------------------------------------------------------------ its adapters


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"rank_pattern": {"q_proj": 32}}, True),
        ({"layers_to_transform": [0], "target_modules": ["q_proj", "v_proj"]}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_the_adapters_hold_is_counted(changes: dict[str, Any], more: bool, tmp_path: Path) -> None:
    run = transformers.Trainer(model=model(**changes), args=arguments(tmp_path), train_dataset=data())
    report = preflight(run, gpu=LARGE, seq_len=32)
    assert (report.beside_bytes > 0) == more
    told = (*report.assumptions, *(finding.message for finding in report.findings))
    assert any("the model's adapters hold" in text for text in told)


def test_a_second_adapter_is_counted(tmp_path: Path) -> None:
    both = model()
    both.add_adapter("second", peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    run = transformers.Trainer(model=both, args=arguments(tmp_path), train_dataset=data())
    assert preflight(run, gpu=LARGE, seq_len=32).beside_bytes > 0


def test_an_ordinary_adapter_is_told_nothing_of(tmp_path: Path) -> None:
    report = preflight(trainer(tmp_path, []), gpu=LARGE, seq_len=32)
    assert report.beside_bytes == 0
    assert not any("adapters hold" in text for text in report.assumptions)


# ------------------------------------------------------------------------------------------------------------ its optimizer


def weights() -> list[Any]:
    return [torch.nn.Parameter(torch.zeros(2))]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: torch.optim.SGD(weights(), lr=0.1), "sgd"),
        (lambda: torch.optim.AdamW(weights(), fused=True), "adamw_torch_fused"),
        (lambda: torch.optim.AdamW(weights()), "adamw_torch"),
        (lambda: torch.optim.SGD(weights(), lr=0.1, momentum=0.9), "SGD"),
        (lambda: torch.optim.Adagrad(weights()), "Adagrad"),
        (lambda: None, None),
    ],
    ids=["sgd", "fused", "adamw", "momentum", "adagrad", "none"],
)
def test_the_optimizer_that_was_handed_over_counts(make: Any, word: str | None) -> None:
    assert jobs.optimizer_word(make()) == word


@pytest.mark.parametrize(
    "optim",
    [
        "adamw_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "lion_8bit",
        "lion_32bit",
        "adamw_torch",
        "adamw_torch_fused",
        "adafactor",
        "sgd",
    ],
)
def test_the_optimizer_that_the_trainer_makes_is_the_one_that_was_asked_for(optim: str, tmp_path: Path) -> None:
    """transformers makes one class of bitsandbytes' of several words."""
    pytest.importorskip("bitsandbytes")
    run = transformers.Trainer(model=model(), args=arguments(tmp_path, optim=optim), train_dataset=data())
    assert jobs.optimizer_word(run.create_optimizer()) == optim


def test_it_is_priced(tmp_path: Path) -> None:
    own = model()
    run = transformers.Trainer(
        model=own, args=arguments(tmp_path), train_dataset=data(), optimizers=(torch.optim.SGD(own.parameters(), lr=0.1), None)
    )
    assert preflight(run, gpu=LARGE, seq_len=32).plan.optimizer is Optimizer.SGD


# ----------------------------------------------------------------------------------------------------------------- the guard


class Hooked:
    @guarded("pre-flight", otherwise=7)
    def hook(self, error: Exception | None) -> int:
        if error is not None:
            raise error
        return 1


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RecursionError(), MemoryError(), OSError(28, "no space"), ImportError()])
def test_whatever_goes_wrong_inside_a_hook_is_a_warning(error: Exception) -> None:
    with pytest.warns(UserWarning, match="advisor: no pre-flight: a bug of finetune-advisor"):
        assert Hooked().hook(error) == 7


def test_a_misfit_alone_leaves_a_hook() -> None:
    with pytest.raises(DoesNotFitError):
        Hooked().hook(DoesNotFitError("too large"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Hooked().hook(None) == 1


@pytest.mark.parametrize("method", ["on_init_end", "on_train_begin", "on_train_end"])
def test_every_method_of_the_callback_is_guarded(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            if name == "local_process_index":
                return 0
            raise OSError(name)

    callback = AdvisorCallback(gpu=LARGE, on_misfit="raise", seq_len=16, ledger=True)
    callback.report = preflight(trainer(tmp_path, []), gpu=LARGE, seq_len=32) if method == "on_train_end" else None
    with said() as warned, monkeypatch.context() as broken:
        broken.setattr("advisor.hooks.callback.compare", lambda report: Broken().compared)
        getattr(callback, method)(Broken(), Broken(), None, model=Broken())
    assert any(text.startswith("advisor: ") for text in warned()), warned()


def test_a_mistyped_card_ends_no_training_of_ms_swift(monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.hooks.ms_swift import SwiftCallback

    monkeypatch.setenv("ADVISOR_GPU", "rtx 4900")
    monkeypatch.setenv("ADVISOR_ON_MISFIT", "raise")
    with pytest.warns(UserWarning, match="no pre-flight: .*4900"):
        callback = SwiftCallback(None, None)
    callback.on_init_end(None, None, None, model=object())
    assert callback.report is None


# ----------------------------------------------------------------------------------------- what a framework's validation hands over

VALIDATED = json.loads((Path(__file__).parent / "data" / "axolotl_validated.json").read_text(encoding="utf-8"))
"""axolotl adds what it switches on by itself: its LoRA kernels, parallel sizes of 1, vLLM's and TRL's defaults."""


def test_a_validated_configuration_of_axolotl_that_fits_says_so() -> None:
    report = report_of(VALIDATED["validated"], PreflightOptions(gpu="24GB"))
    assert report.plan.method.value == "qlora"
    assert report.exit_code == 0, [finding.message for finding in report.findings]


def test_one_that_is_far_too_large_is_a_firm_no() -> None:
    """Kernels of adapters and sizes of 1 cannot make terabytes fit."""
    report = report_of({**VALIDATED["validated"], "sequence_len": 500_000}, PreflightOptions(gpu="1GiB"))
    assert report.exit_code == 1, [finding.message for finding in report.findings]
