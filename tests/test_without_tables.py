"""Models whose types have no tables: known by their config as transformers reads it, and answered without a guess at their matrices."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from samples import price_by

from advisor import profiles
from advisor.api import advise, as_model
from advisor.architectures import SUPPORTED, headed, kind_of_type, spec_from_config
from advisor.checkpoints import check_trainable, stacks_experts
from advisor.configs import check, report, situation
from advisor.devices import load_gpu
from advisor.errors import UnsupportedError
from advisor.hub import ModelRow, load_model, profile_spec, search_models
from advisor.ladder import fit, rungs, search
from advisor.ladder.search import make_fit
from advisor.memory import estimate_memory, replayed
from advisor.memory.params import known_adapter_params, known_trainable_params
from advisor.memory.replayed import NotRecorded
from advisor.profiles.model_types import ModelTypeRow
from advisor.stacks import check_rank, check_targets, default_plan, echo_defaults, first_seq_len
from advisor.tape import store
from advisor.tape.kinds import kind_of
from advisor.tiers import Tier, refuse_unread
from advisor.user_files import CACHE
from advisor.values import Fit, GpuSpec, Head, MemoryBreakdown, Method, ModelKind, ModelSpec, Plan, Request

WITHOUT = [row for row in search_models() if row.model_type not in SUPPORTED]
IDS = [row.id for row in WITHOUT]
ONE_STACK = ("decoder", "encoder", "image-text", "audio-text")
ENCODER_LAYERS = {**dict.fromkeys(("bart", "m2m_100", "whisper"), "encoder_layers"), **dict.fromkeys(("t5", "mt5"), "num_layers")}
PRICED_LIKE = load_model("llama-3.2-1b")


def stand_in(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
    """Any price: what is tested is what the ladder says beside it."""
    return estimate_memory(PRICED_LIKE, plan.model_copy(update={"head": None}), gpu)


@pytest.fixture
def no_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ladder without tapes: prices are stood in for, and what an adapter trains is then not known."""
    price_by(monkeypatch, stand_in)
    monkeypatch.setattr(fit, "may_fit", lambda case, plan: True)
    monkeypatch.setattr(fit, "least_bytes", lambda model, plan, gpu: stand_in(model, plan, gpu).expected_bytes)
    monkeypatch.setattr(rungs, "known_trainable_params", lambda model, plan, gpu: model.params if plan.method is Method.FULL else None)


# (model, options, class in the snippet): one of each kind, and what the rules look at
ANSWERED: list[tuple[str, dict[str, Any], str]] = [
    ("lfm2-1.2b", {}, "Lfm2ForCausalLM"),
    ("gemma-3-4b", {"rank": 128, "dataset_tokens": 5_000_000}, "Gemma3ForConditionalGeneration"),
    ("voxtral-mini", {}, "VoxtralForConditionalGeneration"),
    ("t5-base", {"task": "math"}, "T5ForConditionalGeneration"),
    ("t5-base", {"head": "classification"}, "T5ForSequenceClassification"),
    ("whisper-small", {"method": "full"}, "WhisperForConditionalGeneration"),
    ("deberta-v3-base", {}, "DebertaV2ForSequenceClassification"),
    ("deberta-v3-base", {"head": "tokens", "labels": 9}, "DebertaV2ForTokenClassification"),
    ("granite-4.0-h-tiny", {"target_modules": ("q_proj", "v_proj"), "attention": "flash"}, "GraniteMoeHybridForCausalLM"),
    ("qwen3.5-35b-a3b", {"gpus": 2}, "Qwen3_5MoeForConditionalGeneration"),
]


TIMED = ("gemma-3-4b", "voxtral-mini")
"""Their decoder of text has tables (tests/test_text_parts.py)."""


@pytest.mark.parametrize(("name", "options", "architecture"), ANSWERED, ids=[f"{row[0]}-{number}" for number, row in enumerate(ANSWERED)])
@pytest.mark.usefixtures("no_recordings")
def test_the_ladder_leaves_unsaid_what_it_does_not_know(name: str, options: dict[str, Any], architecture: str) -> None:
    answer = advise(name, "rtx-4090" if "gpus" not in options else "80GB", **options)
    for rung in answer.rungs:
        assert (rung.step_time is not None) == (name in TIMED)
        assert (rung.relative_step_time is not None) == (name in TIMED or rung.plan.method is Method.LORA)
        if rung.plan.method.has_adapter:
            assert (rung.trainable_params, rung.trainable_share, rung.adapter_bytes) == (None, None, None)
    assert answer.chosen is not None
    assert f"import {architecture}" in answer.snippet
    compile(answer.snippet, "snippet.py", "exec")
    assert not {finding.id for finding in answer.findings} & {
        "experts-in-16-bit",
        "math-attention",
        "capacity-suspect",
        "targets-without-mlp",
    }


@pytest.mark.usefixtures("no_recordings")
def test_other_stacks_settings_for_images_are_not_written() -> None:
    assert advise("gemma-3-4b", "80GB", stack="axolotl").snippet.startswith("# settings of axolotl for image-text models are not written")
    assert "base_model: LiquidAI/LFM2-1.2B" in advise("lfm2-1.2b", "80GB", stack="axolotl").snippet


def test_without_a_recorded_step_the_answer_says_what_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE.variable, str(tmp_path))
    with pytest.raises(NotRecorded, match=r"whisper-tiny: no recording of this training step .* pip install 'finetune-advisor\[torch\]'"):
        estimate_memory(load_model("whisper-tiny"), Plan())


def test_nothing_is_counted_and_nothing_refused_by_name() -> None:
    model, plan = load_model("gemma-3-4b"), Plan(rank=4096, alpha=1, target_modules=("no_such_proj",))
    check_targets(model, plan.target_modules)
    check_rank(model, plan.target_modules, plan.rank)
    assert known_adapter_params(model, plan) is None
    assert known_trainable_params(model, Plan(method=Method.FULL)) == model.params == 4_300_079_472


# (model, head, its class or None where transformers has none)
HEADS = [
    ("t5-base", Head.TOKENS, "T5ForTokenClassification"),
    ("nomic-embed-text-v1.5", Head.MLM, "NomicBertForMaskedLM"),
    ("whisper-tiny", Head.CLASSIFICATION, None),
    ("lfm2-1.2b", Head.MLM, None),
]


@pytest.mark.parametrize(("name", "head", "architecture"), HEADS)
def test_other_heads_have_their_class_and_no_count(name: str, head: Head, architecture: str | None) -> None:
    model = load_model(name)
    if architecture is None:
        with pytest.raises(UnsupportedError, match=f"^--head {head.value}: transformers has none for {model.model_type} models; there are"):
            headed(model, Plan(head=head))
    else:
        other = headed(model, Plan(head=head, labels=3))
        assert (other.architecture, other.head, other.params_built) == (architecture, head, None)


# (name, whether its layers' experts are stacked)
EXPERTS = [("qwen3.5-35b-a3b", True), ("llama-4-scout", True), ("gemma-3-4b", False), ("jamba", True), ("granite-4.0-h-1b", False)]


@pytest.mark.parametrize(("name", "stacked"), EXPERTS)
def test_experts_are_told_by_the_config(name: str, stacked: bool) -> None:
    assert stacks_experts(load_model(name)) is stacked


def test_a_4_bit_checkpoint_trains_on_it_unless_it_holds_experts() -> None:
    check_trainable(load_model("unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit"))
    with pytest.raises(UnsupportedError, match="expert by expert"):
        check_trainable(load_model("unsloth/Qwen3.5-35B-A3B-bnb-4bit"))


# ---------------------------------------------------------------------------------------------- against transformers


@pytest.mark.parametrize("row", WITHOUT, ids=IDS)
def test_what_is_read_is_what_transformers_reads(row: ModelRow) -> None:
    meta_model = pytest.importorskip("advisor.dryrun.meta_model")
    spec = profile_spec(row)
    try:
        text = meta_model.config_of(spec).get_text_config(decoder=True)
    except (ImportError, UnsupportedError) as error:
        pytest.skip(str(error))
    assert (spec.hidden_size, spec.vocab_size) == (text.hidden_size, text.vocab_size)
    assert spec.layers == (
        text.num_hidden_layers if row.kind in ONE_STACK else json.loads(spec.config_json)[ENCODER_LAYERS[row.model_type]]
    )


def test_kinds_are_those_of_the_tables() -> None:
    assert {row.id for row in search_models() if profile_spec(row).kind.value != kind_of_type(row.model_type)} == set()


def test_the_list_of_types_is_that_of_the_installed_transformers() -> None:
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    if __import__("transformers").__version__ != "5.23.0":
        pytest.skip("made from 5.23.0")
    rows = {row.model_type: row for row in profiles.rows("model_types", ModelTypeRow)}
    causal, images = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    assert [name for name in (*causal, *images) if rows[name].kind is None] == []
    only_images = {name for name in images if name not in causal}
    assert {rows[name].kind for name in only_images} <= {ModelKind.IMAGE_TEXT.value, ModelKind.DECODER.value}
    transformers = __import__("transformers")
    for name in ("mamba", "whisper", "gemma3", "lfm2", "deberta-v2", "t5"):
        built = getattr(transformers, rows[name].architecture)
        assert (rows[name].sdpa, rows[name].flash) == (built._supports_sdpa, built._supports_flash_attn)


def test_a_config_of_ones_own_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    fields = {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 1000, "intermediate_size": 512, "num_attention_heads": 4}
    config = {"model_type": "lfm2", "architectures": ["Lfm2ForCausalLM"], "num_key_value_heads": 2, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told: list[str] = []
    assert as_model(str(tmp_path), told.append).params == 2_618_112
    assert told[0].startswith("counting the parameters of")


def test_a_config_that_makes_no_model_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    config = {"model_type": "lfm2", "hidden_size": 7, "num_hidden_layers": 1, "vocab_size": 10, "layer_types": ["no_such_layer"]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UnsupportedError, match="transformers makes no lfm2 config of it") as caught:
        as_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_without_torch_the_count_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    spec = spec_from_config({"model_type": "lfm2"}, id="x", source="test")
    from advisor.dryrun import counted

    with pytest.raises(UnsupportedError, match=r"pip install 'finetune-advisor\[torch\]'"):
        _ = counted(spec).params


@pytest.mark.usefixtures("no_recordings")
def test_a_door_that_the_libraries_cannot_run_is_left_out_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """peft's DoRA does not wrap stacked experts, for one: the other rungs are answered."""

    def priced(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
        if plan.method.is_dora:
            raise UnsupportedError(f"{model.id}: the installed libraries cannot run this step (no DoRA here)")
        return stand_in(model, plan, gpu)

    price_by(monkeypatch, priced)
    answer = advise("gemma-3-4b", "80GB")
    assert [rung.plan.method.value for rung in answer.rungs] == ["lora", "qlora", "full"]
    assert [line.partition(":")[0] for line in answer.assumptions if "no DoRA here" in line] == ["without DoRA", "without QDoRA"]
    with pytest.raises(UnsupportedError, match="no DoRA here"):
        advise("gemma-3-4b", "80GB", method="dora")


def test_where_nothing_fits_several_cards_are_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run plays one card: what several take of a model without tables is not known, and the answer stands without it."""

    def priced(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
        refuse_unread(Tier.TRACE, plan)
        return stand_in(model, plan, gpu)

    price_by(monkeypatch, priced)
    monkeypatch.setattr(rungs, "known_trainable_params", lambda *_: None)
    monkeypatch.setattr(fit, "least_bytes", lambda model, plan, gpu: priced(model, plan, gpu).low_bytes)
    answer = advise("gemma-3-4b", "1GiB")
    assert answer.verdict.method is None
    assert answer.would_change
    assert [sentence for sentence in answer.would_change if "sharded" in sentence or "does not fit on up to" in sentence] == []


def test_lengths_that_the_libraries_cannot_run_end_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def least(model: ModelSpec, plan: Plan, gpu: GpuSpec) -> int:
        if plan.seq_len_tokens > 1024:
            raise UnsupportedError("more tokens than positions")
        return 0

    price_by(monkeypatch, stand_in)
    monkeypatch.setattr(fit, "least_bytes", least)
    case = fit.Case(load_model("gemma-3-4b"), load_gpu("rtx-4090"))
    assert fit.longest_seq(case, Plan(seq_len_tokens=512)) == 1024


def test_a_step_that_cannot_be_run_refuses_that_shape_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = load_model("whisper-tiny"), Plan(seq_len_tokens=128)
    longer = plan.model_copy(update={"seq_len_tokens": 4096})
    recorded = object()
    entry = SimpleNamespace(tape=lambda: recorded)
    monkeypatch.setattr(store, "find", lambda kind: iter([entry] if kind.shape.tokens == 128 else []))
    monkeypatch.setattr(replayed, "_unrunnable", {})
    with pytest.raises(NotRecorded) as missing:
        replayed.tape_for(model, longer)
    replayed.remember_refusal(missing.value, "more tokens than positions")
    with pytest.raises(UnsupportedError, match="more tokens than positions"):
        replayed.tape_for(model, longer)
    assert replayed.tape_for(model, plan) is recorded
    with pytest.raises(NotRecorded):
        replayed.tape_for(model, plan.model_copy(update={"seq_len_tokens": 256}))


VISION_YAML = """\
model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct
stage: sft
do_train: true
finetuning_type: lora
template: qwen2_vl
cutoff_len: 2048
bf16: true
"""


@pytest.mark.usefixtures("no_recordings")
def test_a_training_that_may_see_images_is_no_fit_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public run of such a file ran out of memory on this card (hiyouga/LLaMA-Factory, f-qwen25vl-7b-5090 of the field reports)."""
    monkeypatch.setattr(report, "estimate_memory", stand_in)
    monkeypatch.setattr(situation, "estimate_memory", stand_in)
    (tmp_path / "sft.yaml").write_text(VISION_YAML, encoding="utf-8")
    found = check(tmp_path / "sft.yaml", "rtx-5090")
    assert found.fit is Fit.UNCERTAIN
    assert any("images in its batches are not priced" in finding.message for finding in found.findings)


@pytest.mark.parametrize(("name", "said"), [("gemma-3-4b", "images"), ("voxtral-mini", "sounds"), ("lfm2-1.2b", ""), ("whisper-small", "")])
def test_the_answer_says_that_batches_are_of_text_alone(name: str, said: str) -> None:
    echoed = " ".join(echo_defaults(load_model(name), None, Request()))
    assert ("text alone, without " in echoed) == bool(said)
    assert said in echoed


# (model, its positions): under three names (transformers 5.23 models/*/configuration_*.py), and T5, whose positions are relative
POSITIONS = [("gemma-3n-e4b", 32768), ("whisper-large-v3", 448), ("databricks/dbrx-base", 32768), ("t5-base", None)]


@pytest.mark.parametrize(("name", "positions"), POSITIONS)
def test_a_first_plan_is_no_longer_than_a_model_has_positions(name: str, positions: int | None) -> None:
    model = load_model(name)
    assert model.max_position_tokens == positions
    assert first_seq_len(model) == min(2048, positions or 2048)


# (bytes a token, lengths that are asked of 512 tokens of a model without a limit on a card of 10^9 bytes, before the search)
ASKED = [(2_000_000, [512]), (10_000, [512, 131_072]), (1, [512, 131_072, 1_048_576])]


@pytest.mark.parametrize(("token_bytes", "asked"), ASKED)
def test_lengths_that_need_another_recording_are_asked_last(token_bytes: int, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def holds(case: fit.Case, plan: Plan) -> bool:
        seen.append(plan.seq_len_tokens)
        return plan.seq_len_tokens * token_bytes <= 10**9

    monkeypatch.setattr(fit, "fits", holds)
    monkeypatch.setattr(fit, "_largest_that_fits", lambda case, plan, limit, plan_of: 0)
    fit.longest_seq(fit.Case(load_model("t5-base"), load_gpu("rtx-4090")), Plan(seq_len_tokens=512))
    assert seen == asked


# (model, card, kinds of plan that are priced for each of LoRA, QLoRA and full fine-tuning)
TOO_LARGE = [("qwen2.5-vl-72b", "rtx-4090", (1, 1, 1)), ("gemma-3-27b", "80GB", (3, 1, 1)), ("gemma-3-27b", "rtx-4090", (1, 3, 1))]


@pytest.mark.parametrize(("name", "card", "kinds"), TOO_LARGE)
def test_a_rung_that_a_card_is_far_too_small_for_needs_one_recording(
    name: str, card: str, kinds: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices are those of a model with tables that does not fit either, so that every change is tried where none is skipped."""
    seen: dict[Method, set[Plan]] = {}

    def priced(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
        seen.setdefault(plan.method, set()).add(kind_of(plan))
        return estimate_memory(load_model("llama-3-70b"), plan, gpu)

    monkeypatch.setattr(fit, "estimate_memory", priced)
    monkeypatch.setattr(fit, "may_fit", lambda case, plan: False)
    monkeypatch.setattr(fit, "least_bytes", lambda model, plan, gpu: priced(model, plan, gpu).low_bytes)
    case = fit.Case(load_model(name), load_gpu(card))
    methods = (Method.LORA, Method.QLORA, Method.FULL)
    made = [make_fit(case, default_plan(method, case.model, case.gpu, Request()), frozenset()) for method in methods]
    assert tuple(len(seen[method]) for method in methods) == kinds
    monkeypatch.setattr(search, "looks_too_large", lambda case, plan: False)
    assert [make_fit(case, default_plan(method, case.model, case.gpu, Request()), frozenset()) for method in methods] == made


# (model, ranks that are priced where nothing fits): a lower one too where a shipped tape speaks for every rank
RANKS = [("gemma-3-27b", {16}), ("qwen2.5-vl-72b", {8, 16})]


@pytest.mark.parametrize(("name", "ranks"), RANKS)
@pytest.mark.usefixtures("no_recordings")
def test_what_a_lower_rank_would_save_is_not_recorded_for_a_remark(name: str, ranks: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()

    def priced(model: ModelSpec, plan: Plan, gpu: GpuSpec | None = None) -> MemoryBreakdown:
        seen.add(plan.rank)
        return stand_in(model, plan, gpu)

    monkeypatch.setattr(fit, "estimate_memory", priced)
    assert advise(name, "1GiB").verdict.method is None
    assert seen == ranks


@pytest.mark.usefixtures("no_recordings")
def test_a_rung_is_given_up_at_once_only_where_that_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller micro-batches hold gradients between them, so that they may take more; and what may fit is looked at step by step."""
    case, plan = fit.Case(load_model("gemma-3-27b"), load_gpu("rtx-4090")), Plan(gradient_checkpointing=False)
    frugal = search._most_frugal(case, plan, frozenset())
    assert frugal is not None
    assert (frugal.plan.gradient_checkpointing, frugal.plan.optimizer.value) == (True, "adamw_8bit")
    assert search._most_frugal(case, plan.model_copy(update={"micro_batch_size": 2}), frozenset()) is None
    assert search._most_frugal(case, plan.model_copy(update={"micro_batch_size": 2}), frozenset({"batch_size"})) is not None
    for verdict, given_up in ((Fit.DOES_NOT_FIT, True), (Fit.UNCERTAIN, False), (Fit.FITS, False)):
        monkeypatch.setattr(search, "_most_frugal", lambda *_, verdict=verdict: frugal._replace(fit=verdict))
        assert (search.make_fit(case, plan, frozenset({"seq_len"})).plan == frugal.plan) is given_up
