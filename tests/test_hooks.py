"""Pre-flight inside real trainings on the CPU: it looks, warns or stops before the first step, and changes nothing."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import advisor
from advisor import CheckReport, DoesNotFitError, InvalidInputError, Method, Stack, UnsupportedError, preflight
from advisor.hooks.lengths import longest_example
from advisor.hooks.measured import comparison_of, note_of
from advisor.values import DType, Fit

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from advisor import AdvisorCallback  # noqa: E402  # loads transformers

TOO_SMALL, LARGE = "1GiB", "8GiB"
LONG = {"gpu": TOO_SMALL, "seq_len": 100_000}
TOKENS = 32


def model(adapter: bool = True, dtype: Any = torch.bfloat16, **changes: Any) -> Any:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=128,
    )
    base = transformers.LlamaForCausalLM(config).to(dtype)
    if not adapter:
        return base
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes}
    return peft.get_peft_model(base, peft.LoraConfig(**settings))


def data(tokens: int = TOKENS) -> list[dict[str, list[int]]]:
    return [{"input_ids": [1 + n] * tokens, "labels": [1 + n] * tokens} for n in range(8)]


def arguments(folder: Path, **changes: Any) -> Any:
    settings = {"per_device_train_batch_size": 2, "max_steps": 2, "report_to": [], "use_cpu": True, "save_strategy": "no"}
    return transformers.TrainingArguments(output_dir=str(folder), disable_tqdm=True, **{"logging_strategy": "no", **settings, **changes})


def trainer(folder: Path, callbacks: list[Any], adapter: bool = True, **changes: Any) -> Any:
    return transformers.Trainer(model=model(adapter), args=arguments(folder, **changes), train_dataset=data(), callbacks=callbacks)


def train(trainer: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|transformers|accelerate).*")
        trainer.train()


@contextmanager
def said() -> Iterator[Callable[[], list[str]]]:
    """Every warning, so that those of the libraries are no errors here."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield lambda: [str(warning.message) for warning in found]


def state_of(model: Any) -> Any:
    """Everything about a model that a pre-flight must leave alone."""
    parameters = [(name, value.dtype, value.device, value.requires_grad, value.grad is None) for name, value in model.named_parameters()]
    hooks = [(name, len(module._forward_hooks), len(module._forward_pre_hooks), module.training) for name, module in model.named_modules()]
    return parameters, hooks, {name: value.clone() for name, value in model.state_dict().items()}, model.config.to_dict()


def same(before: Any, after: Any) -> bool:
    tensors = all(torch.equal(value, after[2][name]) for name, value in before[2].items()) and before[2].keys() == after[2].keys()
    return tensors and (before[0], before[1], before[3]) == (after[0], after[1], after[3])


# ------------------------------------------------------------------------------------------------------------ the callback


def test_the_package_does_not_load_torch_for_the_callback_s_name() -> None:
    assert "AdvisorCallback" not in advisor.__all__
    assert issubclass(advisor.AdvisorCallback, transformers.TrainerCallback)


def test_a_training_that_fits_runs(tmp_path: Path) -> None:
    callback = AdvisorCallback(gpu=LARGE, on_misfit="raise")
    run = trainer(tmp_path, [callback])
    train(run)
    assert run.state.global_step == 2
    report = callback.report
    assert isinstance(report, CheckReport)
    assert report.fit is Fit.FITS
    assert (report.plan.method, report.plan.rank, report.plan.micro_batch_size) == (Method.LORA, 4, 2)
    assert (report.plan.base_dtype, report.plan.adapter_dtype) == (DType.BF16, DType.FP32)  # of the live model
    assert report.plan.seq_len_tokens == TOKENS  # of the data
    assert report.profile.startswith(f"transformers {transformers.__version__} (installed")


def test_a_training_that_does_not_fit_is_stopped_before_the_first_step(tmp_path: Path) -> None:
    run = trainer(tmp_path, [])
    run.add_callback(AdvisorCallback(**LONG, on_misfit="raise"))
    before = state_of(run.model)
    with pytest.raises(DoesNotFitError, match="LoRA does not fit") as caught:
        train(run)
    assert "\n" not in str(caught.value)
    assert run.state.global_step == 0
    assert run.optimizer is None or not run.optimizer.state
    assert same(before, state_of(run.model))


def test_it_stops_while_the_trainer_is_built_where_the_length_is_known(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="does not fit"):
        trainer(tmp_path, [AdvisorCallback(**LONG, on_misfit="raise")])


def test_it_warns_and_goes_on_unless_told_otherwise(tmp_path: Path) -> None:
    with said() as warned:
        run = trainer(tmp_path, [AdvisorCallback(**LONG)])
    assert any(text.startswith("advisor: ") and "LoRA does not fit" in text for text in warned())
    train(run)
    assert run.state.global_step == 2


def test_told_to_ignore_it_only_looks(tmp_path: Path) -> None:
    callback = AdvisorCallback(**LONG, on_misfit="ignore")
    train(trainer(tmp_path, [callback]))
    assert callback.report is not None
    assert callback.report.exit_code == 1


@pytest.mark.parametrize("price", ["estimate", "trace"])
@pytest.mark.parametrize("adapter", [True, False])
def test_the_live_model_and_the_random_state_are_left_as_they_were(adapter: bool, price: str, tmp_path: Path) -> None:
    run = trainer(tmp_path, [], adapter)
    random.seed(3)
    torch.manual_seed(3)
    before, numbers, floats = state_of(run.model), random.getstate(), torch.get_rng_state()
    arguments_before = run.args.to_dict()
    report = preflight(run, gpu=LARGE, price=price)
    assert report.memory.source.startswith("trace" if price == "trace" else "estimate")
    assert report.plan.method is (Method.LORA if adapter else Method.FULL)
    assert same(before, state_of(run.model))
    assert random.getstate() == numbers
    assert torch.equal(torch.get_rng_state(), floats)
    assert run.args.to_dict() == arguments_before
    assert not torch.is_autocast_enabled("cpu")


def test_training_with_and_without_the_callback_ends_in_the_same_weights(tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [AdvisorCallback(gpu=LARGE, price="trace")]):
        run = trainer(tmp_path, callbacks, seed=7)
        train(run)
        ends.append(state_of(run.model))
    assert same(*ends)


def test_estimate_and_trace_speak_of_the_same_training(tmp_path: Path) -> None:
    run = trainer(tmp_path, [])
    estimate, trace = (preflight(run, gpu=LARGE, price=price) for price in ("estimate", "trace"))
    assert estimate.plan == trace.plan
    assert estimate.low_bytes <= trace.expected_bytes <= estimate.high_bytes


def test_a_model_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    callback = AdvisorCallback(gpu=LARGE, on_misfit="raise", seq_len=16)
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=64))
    with said() as warned:
        transformers.Trainer(model=mamba, args=arguments(tmp_path), train_dataset=data(), callbacks=[callback])
    assert any(text.startswith("advisor: no pre-flight: ") and "a bug" not in text for text in warned())
    assert callback.report is None


def test_a_bug_of_ours_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.hooks import callback as room

    monkeypatch.setattr(room, "report_of", lambda flight: 1 / 0)
    with said() as warned:
        trainer(tmp_path, [AdvisorCallback(gpu=LARGE, on_misfit="raise", seq_len=16)])
    assert any("a bug of finetune-advisor, ZeroDivisionError" in text for text in warned())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpu": "no such card"}, "no such card"),
        ({"on_misfit": "shout"}, "on_misfit shout: must be 'warn', 'raise' or 'ignore'"),
        ({"price": "guess"}, "price guess: must be 'estimate' or 'trace'"),
        ({"seq_len": 0}, "seq_len"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_options_that_mean_nothing_are_refused_where_they_are_given(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        AdvisorCallback(**options)


def test_what_is_not_priced_in_the_arguments_is_said(tmp_path: Path) -> None:
    report = preflight(trainer(tmp_path, [], auto_find_batch_size=True), gpu=LARGE)
    assert any(finding.id == "not-priced" and "auto_find_batch_size" in finding.message for finding in report.findings)


# ------------------------------------------------------------------------------------------------------- after the training


def test_prediction_and_measurement_go_into_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "runs.sqlite"
    callback = AdvisorCallback(gpu=LARGE, ledger=ledger)
    train(trainer(tmp_path, [callback], learning_rate=1e-4))
    (run,) = advisor.runs(ledger=ledger)
    assert (run.plan.rank, run.steps, run.learning_rate) == (4, 2, 1e-4)
    assert any("predicted" in note for note in run.notes)
    if not torch.cuda.is_available():
        assert callback.comparison is None  # nothing ran on a card
        assert run.peak_bytes is None


@pytest.mark.gpu
def test_on_a_card_the_measured_peak_is_laid_beside_the_predicted_one(tmp_path: Path) -> None:
    callback = AdvisorCallback(ledger=tmp_path / "runs.sqlite")
    trainer(tmp_path, [callback], use_cpu=False, bf16=True).train()
    assert callback.comparison is not None
    assert callback.comparison.measured_bytes > 0
    (run,) = advisor.runs(ledger=tmp_path / "runs.sqlite")
    assert run.peak_bytes == callback.comparison.measured_bytes
    assert any("measured" in note for note in run.notes)


def test_a_ledger_that_cannot_be_written_loses_no_training(tmp_path: Path) -> None:
    ledger = tmp_path / "runs.sqlite"
    ledger.write_text("no ledger")
    with said() as warned:
        run = trainer(tmp_path, [AdvisorCallback(gpu=LARGE, ledger=ledger)])
        run.train()
    assert run.state.global_step == 2
    (beside,) = tmp_path.glob("runs-run-*.json")
    assert any(f"the run is kept in {beside}" in text for text in warned())
    assert advisor.record(beside, ledger=tmp_path / "new.sqlite").steps == 2


def test_the_ledger_holds_the_whole_run(tmp_path: Path) -> None:
    """From its beginning on: losses, epochs, the rate as it was set, and its end; one that dies of too little memory is there too."""
    ledger = tmp_path / "runs.sqlite"
    train(trainer(tmp_path, [AdvisorCallback(gpu=LARGE, ledger=ledger)], learning_rate=1e-4, logging_strategy="steps", logging_steps=1))
    (run,) = advisor.runs(ledger=ledger)
    assert [point.step for point in run.train_losses] == [1, 2]
    assert run.epochs
    assert run.learning_rate == 1e-4  # the second step's was half of it
    assert not run.unfinished

    dying = trainer(tmp_path, [AdvisorCallback(gpu=LARGE, ledger=ledger), Dies()], learning_rate=1e-4)
    with pytest.raises(torch.OutOfMemoryError):
        dying.train()
    assert [run.unfinished for run in advisor.runs(ledger=ledger)] == [False, True]


class Dies(transformers.TrainerCallback):
    """A step that the card has no room for."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_was_measured_is_laid_beside_what_was_predicted(tmp_path: Path) -> None:
    report = preflight(trainer(tmp_path, []), gpu=LARGE)
    predicted = report.memory.peak_reserved_bytes
    inside, above = comparison_of(report, predicted, predicted), comparison_of(report, 4 * report.high_bytes, report.high_bytes)
    assert (inside.error_share, inside.inside) == (0.0, True)
    assert above.error_share < -0.5
    assert not above.inside
    assert inside.low_bytes <= inside.predicted_bytes <= inside.high_bytes
    assert "outside the interval" in note_of(report, above)
    assert "measured" not in note_of(report, None)


# ------------------------------------------------------------------------------------------------------- before it is loaded

LORA = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def test_before_anything_is_loaded(tmp_path: Path) -> None:
    args = arguments(tmp_path, bf16=True)
    report = preflight("meta-llama/Llama-3.1-8B", args, LORA, gpu="80GB", seq_len=2048, dtype="bfloat16")
    assert (report.plan.method, report.plan.autocast, report.fit) == (Method.LORA, True, Fit.FITS)
    four = preflight("llama-3.1-8b", args, LORA, gpu="24GB", seq_len=2048, quantization_config=FOUR_BIT, on_misfit="ignore")
    assert (four.plan.method, four.plan.double_quant) == (Method.QLORA, True)
    real = transformers.BitsAndBytesConfig(**FOUR_BIT, bnb_4bit_compute_dtype=torch.bfloat16)
    assert preflight("llama-3.1-8b", args, LORA, gpu="24GB", seq_len=2048, quantization_config=real, on_misfit="ignore").plan == four.plan
    full = preflight("llama-3.1-8b", args, gpu="24GB", seq_len=2048, on_misfit="ignore")
    assert (full.plan.method, full.exit_code) == (Method.FULL, 1)


def test_settings_may_be_a_mapping() -> None:
    settings = {"per_device_train_batch_size": 2, "bf16": True, "max_length": 512}
    report = preflight("llama-3.2-1b", settings, {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}, gpu="24GB")
    assert (report.plan.micro_batch_size, report.plan.seq_len_tokens, report.plan.rank) == (2, 512, 8)


def test_a_config_object_is_a_model(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=256)
    assert preflight(config, arguments(tmp_path), LORA, gpu=LARGE, seq_len=64).model.layers == 2


def test_it_raises_as_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="LoRA does not fit"):
        preflight("llama-70b", arguments(tmp_path, bf16=True), LORA, gpu="24GB", seq_len=512, on_misfit="raise")


@pytest.mark.parametrize(
    ("subject", "with_arguments", "words"),
    [
        ("llama-3.1-8b", False, "preflight needs the training arguments"),
        ("no-such/model-at-all-9b", True, "no-such/model-at-all-9b"),
        (3, True, "preflight cannot read a int"),
    ],
)
def test_what_preflight_refuses(subject: Any, with_arguments: bool, words: str, tmp_path: Path) -> None:
    with pytest.raises(advisor.AdvisorError, match=words):
        preflight(subject, arguments(tmp_path) if with_arguments else None, LORA, gpu=LARGE)


def test_a_model_without_its_trainer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="a loaded model belongs to a trainer"):
        preflight(model(), arguments(tmp_path), gpu=LARGE)


def test_another_adapter_than_lora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="IA3 cannot be priced"):
        preflight("llama-3.2-1b", arguments(tmp_path), peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]), gpu=LARGE)


# ------------------------------------------------------------------------------------------------------------ live models


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use_dora": True}, {"method": Method.DORA}),
        ({"use_rslora": True}, {"use_rslora": True}),
        ({"target_modules": ["q_proj", "v_proj"]}, {"target_modules": ("q_proj", "v_proj")}),
        ({"target_modules": r".*\.(q|k)_proj"}, {"target_modules": ("k_proj", "q_proj")}),  # the model shows what a pattern means
    ],
)
def test_the_live_adapter_counts(changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    run = transformers.Trainer(model=model(**changes), args=arguments(tmp_path), train_dataset=data())
    plan = preflight(run, gpu=LARGE).plan
    assert {name: getattr(plan, name) for name in expected} == expected


@pytest.mark.parametrize("checkpointing", [True, False])
def test_checkpointing_is_seen_under_both_of_its_names(checkpointing: bool, tmp_path: Path) -> None:
    run = trainer(tmp_path, [])
    name = "activation_checkpointing" if hasattr(run.args, "activation_checkpointing") else "gradient_checkpointing"
    setattr(run.args, name, checkpointing)
    assert preflight(run, gpu=LARGE).plan.gradient_checkpointing is checkpointing


def test_what_is_partly_frozen_is_said(tmp_path: Path) -> None:
    base = model(adapter=False)
    base.model.embed_tokens.requires_grad_(False)
    report = preflight(transformers.Trainer(model=base, args=arguments(tmp_path), train_dataset=data()), gpu=LARGE)
    assert any("some base weights are frozen" in finding.message for finding in report.findings)


def test_launchers_decide_where_the_arguments_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.hooks.live import settings_of

    args = arguments(tmp_path)
    assert "fsdp" not in settings_of(args)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert settings_of(args)["fsdp"] == "full_shard"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert settings_of(args)["deepspeed"] == {"zero_optimization": {"stage": 3}}


class Tokenises:
    """A data set that would do work when it is read."""

    def __getitem__(self, number: int) -> Any:
        raise AssertionError("it was read")

    def __len__(self) -> int:
        return 3


def test_the_longest_example_is_looked_for_only_where_looking_costs_nothing() -> None:
    longest = longest_example([{"input_ids": [1] * n} for n in (3, 9, 5)])
    assert longest is not None
    assert longest.tokens == 9
    assert longest_example(Tokenises()) is None
    assert longest_example([{"text": "hello"}]) is None
    assert longest_example([]) is None


# ------------------------------------------------------------------------------------------------------------ frameworks


def test_inside_trl(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets, tokenizers = pytest.importorskip("datasets"), pytest.importorskip("tokenizers")
    callback = AdvisorCallback(gpu=LARGE, on_misfit="raise")
    args = trl.SFTConfig(
        str(tmp_path),
        max_steps=2,
        use_cpu=True,
        report_to=[],
        max_length=TOKENS,
        per_device_train_batch_size=2,
        bf16=False,
        save_strategy="no",
    )
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[EOS]": 2}, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")
    examples = datasets.Dataset.from_list(data())
    run = trl.SFTTrainer(model(), args, train_dataset=examples, processing_class=tokenizer, callbacks=[callback])
    assert callback.report is not None  # the length is known when it is built
    assert (callback.report.stack, callback.report.plan.seq_len_tokens) == (Stack.TRL, TOKENS)
    run.train()
    assert run.state.global_step == 2
    assert callback.report.profile.startswith(f"trl {trl.__version__} (installed")
    small = AdvisorCallback(**LONG, on_misfit="raise")
    with pytest.raises(DoesNotFitError):
        trl.SFTTrainer(model(), args, train_dataset=examples, processing_class=tokenizer, callbacks=[small])


def test_options_of_ms_swift_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.hooks.ms_swift import options_from_environment

    assert options_from_environment() == {}
    monkeypatch.setenv("ADVISOR_ON_MISFIT", "raise")
    monkeypatch.setenv("ADVISOR_LEDGER", "1")
    assert options_from_environment() == {"on_misfit": "raise", "ledger": True}
