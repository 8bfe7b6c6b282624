"""The dry run: against measured cards, against real training on the CPU, and the laws of its parts."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given, strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from advisor import api
from advisor.cli.run import run
from advisor.devices import load_gpu
from advisor.dryrun import timeline, trace
from advisor.dryrun.adapters import read_peft_config
from advisor.dryrun.dry_run import Settings, record_on_cpu, summarise
from advisor.dryrun.isolation import libraries_untouched
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.hub import load_model
from advisor.memory import estimate_memory
from advisor.tape.cut import find_cuts
from advisor.values import Attention, Fit, Loss, Method, ModelSpec, Optimizer, Phase, Plan, Stack, Term
from advisor.values.advice import TracedAdvice

pytestmark = pytest.mark.filterwarnings("ignore")

ATTENTION_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")
QWEN_15 = "Qwen/Qwen2.5-1.5B-Instruct"
MIB = 1024**2


def tiny(model_type: str = "llama", layers: int = 6, **more: object) -> ModelSpec:
    """A model small enough to train for real; only its config is read."""
    config = {
        "model_type": model_type,
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 1000,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        **more,
    }
    like = load_model("meta-llama/Llama-3.2-1B")
    return like.model_copy(update={"id": f"tiny-{model_type}", "model_type": model_type, "config_json": json.dumps(config)})


def since(library: str, release: str) -> pytest.MarkDecorator:
    """What older versions lack, or do otherwise than the row says."""
    old = tuple(map(int, version(library).split(".")[:2])) < tuple(map(int, release.split(".")))
    return pytest.mark.skipif(old, reason=f"{library} before {release}")


def plan(**settings: object) -> Plan:
    method = Method(settings.get("method", "lora"))
    quantization = {"quantization": "nf4"} if method.is_quantized else {}
    return Plan(**{"seq_len_tokens": 64, "micro_batch_size": 2, **quantization, **settings})


# -- against cards ----------------------------------------------------------------------------------------------------------------


# RTX 4080, transformers 5.8.1, torch 2.6 for Windows, which has no flash kernel (DaoyuanLi2816/can-i-finetune-this, as in
# profiles/measurements/rtx4080_can_i_finetune_this.json): bytes printed to four decimals of a GiB. The plain loop keeps its outputs.
@since("transformers", "5.0")
@pytest.mark.parametrize(
    ("model", "settings", "steps", "allocated_bytes", "reserved_bytes"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", {"seq_len_tokens": 1024}, 3, 3256014707, 4074742848),
        (QWEN_15, {"method": "qlora", "seq_len_tokens": 1024}, 3, 4339312833, 4678722624),
        (QWEN_15, {"method": "qlora", "seq_len_tokens": 4096}, 2, 12355332420, 14556288411),
        ("Qwen/Qwen2.5-7B-Instruct", {"method": "qlora", "seq_len_tokens": 1024}, 2, 10739887846, 12060697664),
    ],
)
@pytest.mark.sampled(3)
def test_peaks_measured_on_a_card(model: str, settings: dict[str, object], steps: int, allocated_bytes: int, reserved_bytes: int) -> None:
    asked = {
        "micro_batch_size": 1,
        "target_modules": ATTENTION_LINEARS,
        "optimizer": Optimizer.PAGED_ADAMW_8BIT,
        "stack": Stack.PLAIN,
        "kbit_prepare": settings.get("method") == "qlora",
        **settings,
    }
    found = trace(load_model(model), plan(**asked), steps=steps, torch_has_flash=False).breakdown
    assert found.peak_allocated_bytes == pytest.approx(allocated_bytes, rel=0.005)
    assert found.peak_reserved_bytes == pytest.approx(reserved_bytes, rel=0.01)
    assert found.peak_phase is Phase.BACKWARD


# -- against real training on the CPU -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("types", [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")])
def test_autocast_joins_tensors_in_the_type_that_torch_joins_them_in(types: tuple[str, str]) -> None:
    import torch

    from advisor.dryrun.autocast import _widest

    parts = [torch.zeros(2, dtype=getattr(torch, name)) for name in types]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        joined = torch.cat(parts)
    assert _widest((parts,), torch.bfloat16) is joined.dtype


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora"},
        {"method": "full"},
        {"method": "dora"},
        {"method": "qlora"},
        pytest.param({"method": "qdora"}, marks=[pytest.mark.long, since("bitsandbytes", "0.47")]),
        {"method": "qlora", "kbit_prepare": True},
        {"method": "lora", "gradient_checkpointing": False, "stack": "plain"},
        {"method": "full", "gradient_checkpointing": False, "autocast": True, "base_dtype": "fp32"},
        pytest.param({"method": "lora", "autocast": True}, marks=pytest.mark.long),
        pytest.param({"method": "lora", "stack": "trl", "loss": "chunked"}, marks=pytest.mark.long),
        pytest.param({"method": "full", "optimizer": "adafactor"}, marks=pytest.mark.long),
        pytest.param({"method": "lora", "grad_accum_steps": 2}, marks=pytest.mark.long),
        pytest.param({"method": "lora", "use_reentrant": True}, marks=pytest.mark.long),
        {"method": "lora", "stack": "plain", "zero_grad_first": True, "clips": True, "keep_outputs": False},
    ],
    ids=lambda settings: "-".join(f"{name}={value}" for name, value in settings.items()),
)
@pytest.mark.sampled(2)
def test_the_dry_run_equals_real_training(settings: dict[str, object]) -> None:
    loop = {name: value for name, value in settings.items() if name not in Plan.model_fields}
    asked = plan(attention=Attention.EAGER, **{name: value for name, value in settings.items() if name not in loop})
    steps = Settings(lengths=(64, 64), **loop)
    with libraries_untouched(asked.quantization is not None):
        real = summarise(*record_on_cpu(tiny(), asked, steps), tiny(), asked).breakdown
    dry = trace(tiny(), asked, lengths=(64, 64), **loop).breakdown
    assert dry.peak_allocated_bytes == pytest.approx(real.peak_allocated_bytes, rel=0.01)
    assert dry.peak_phase is real.peak_phase
    for found, held in zip(dry.phases, real.phases, strict=True):
        assert found.phase is held.phase
        assert found.allocated_bytes == pytest.approx(held.allocated_bytes, rel=0.01)


# -- repetition -------------------------------------------------------------------------------------------------------------------


FULL, PLAIN = {"method": "full"}, {"gradient_checkpointing": False, "stack": "plain"}


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        pytest.param("meta-llama/Llama-3.2-1B", {"method": "qdora"}, marks=pytest.mark.long),
        ("meta-llama/Llama-3.2-1B", FULL),
        pytest.param("google/gemma-2-2b", PLAIN, marks=[pytest.mark.long, since("transformers", "4.50")]),
        ("microsoft/Phi-3-mini-4k-instruct", FULL),
        ("allenai/OLMo-2-0425-1B", PLAIN),
        ("gpt2", {"method": "qlora"}),
        pytest.param("allenai/OLMoE-1B-7B-0924", {}, marks=[pytest.mark.long, since("transformers", "5.0")]),
        pytest.param("google/gemma-3-270m", PLAIN, marks=since("transformers", "5.0")),  # local layers, and global ones amid them
        pytest.param("ibm-granite/granite-4.0-h-350m", {}, marks=[pytest.mark.long, since("transformers", "5.0")]),  # of no period
        pytest.param("LiquidAI/LFM2-350M", {}, marks=[pytest.mark.long, since("transformers", "5.0")]),
    ],
)
@pytest.mark.sampled(2)
def test_repeated_layers_equal_the_whole_model(model: str, settings: dict[str, object]) -> None:
    spec = load_model(model)
    short = trace(spec, plan(**settings))
    whole = trace(spec, plan(**settings), repeat_layers=False)
    assert short.breakdown.phases == whole.breakdown.phases
    assert short.breakdown.peak_reserved_bytes == whole.breakdown.peak_reserved_bytes
    assert len(short.stream.events) == len(whole.stream.events)


@pytest.mark.parametrize(
    ("kinds", "kept"),
    [
        ("a" * 32, "aaaa"),
        ("d" + "m" * 30, "dmmmm"),
        ("ab" * 6 + "a", "abababa"),
        ("aab" * 8, "aabaabaab"),
        ("SSSSSF" * 5 + "SSSS", "SSFSSFSSFSSSS"),  # Gemma 3 4B
        ("LLLF" * 8, "LLLFLLLFLLF"),  # Qwen3.5 9B
        ("MMMMMAMMMMMMMMMAMMMMMMMMMAMMMMMMMMMAMMMM", "MMAMMAMMAMMMM"),  # Granite 4.0 h
        ("CCACCACCACACACAC", "CCACCACACAC"),  # LFM2 350M
    ],
)
def test_what_is_kept_of_a_models_layers(kinds: str, kept: str) -> None:
    cut = find_cuts(kinds)[0]
    assert "".join(kinds[layer] for layer in cut.layers) == kept


@given(st.text("abc", min_size=1, max_size=40))
@hypothesis.settings(max_examples=200, deadline=None)
def test_each_layer_has_one_of_its_kind_with_its_neighbours_that_stands_for_it(kinds: str) -> None:
    for cut in find_cuts(kinds):
        kept = "".join(kinds[layer] for layer in cut.layers)
        assert len(kept) < len(kinds)
        for whole, name in ((layer, cut.order[layer]) for layer in range(len(kinds))):
            assert f"^{kinds}$"[whole : whole + 3] == f"^{kept}$"[name : name + 3]
            assert (kinds[whole] in kinds[:whole]) == (kept[name] in kept[:name])
            assert (kinds[whole] in kinds[whole + 1 :]) == (kept[name] in kept[name + 1 :])


@pytest.mark.parametrize("kinds", ["a" * 4, "abcdefgh", ""])
def test_no_cut_where_it_saves_nothing(kinds: str) -> None:
    assert find_cuts(kinds) == ()


# -- laws -------------------------------------------------------------------------------------------------------------------------


def test_terms_add_up_and_the_timeline_ends_where_the_stream_does() -> None:
    traced = trace(tiny(), plan())
    for phase in traced.breakdown.phases:
        assert sum(term.bytes for term in phase.terms) == traced.layout.peaks[phase.phase].allocated_bytes
    assert sum(holder.bytes for holder in traced.holders()) == traced.breakdown.peak_allocated_bytes
    rows = timeline(traced, last_step=False)
    assert max(row.live_bytes for row in rows) == traced.breakdown.peak_allocated_bytes
    assert sum(row.delta_bytes for row in rows) == rows[-1].live_bytes


def peak(**settings: object) -> int:
    return trace(tiny(), plan(**settings)).breakdown.peak_allocated_bytes


@pytest.mark.long
def test_what_a_setting_does_to_the_peak() -> None:
    assert peak(seq_len_tokens=128) > peak()
    assert peak(micro_batch_size=4) > peak()
    assert peak(gradient_checkpointing=False, loss="chunked", stack="trl") > peak(loss="chunked", stack="trl")
    assert peak(stack="plain") > peak(stack="hf")
    assert peak(method="full") > peak(method="full", optimizer="sgd")
    assert peak(adapter_dtype="fp32") > peak(adapter_dtype="bf16")


@pytest.mark.long
def test_terms_of_a_plan() -> None:
    def terms(vocab_size: int = 1000, **settings: object) -> dict[Term, int]:
        return {term.term: term.bytes for term in trace(tiny(vocab_size=vocab_size), plan(**settings)).breakdown.terms}

    assert Term.ADAPTER not in terms(method="full")
    assert terms(method="qlora")[Term.WEIGHTS] < terms(method="lora")[Term.WEIGHTS]
    tiled, whole = ({"vocab_size": 100_000, "seq_len_tokens": 256, "loss": loss} for loss in (Loss.CHUNKED, Loss.FULL))
    assert terms(**tiled).get(Term.LOGITS, 0) < terms(**whole)[Term.LOGITS]
    assert terms(method="full", **whole)[Term.LOGITS] == pytest.approx(terms(**whole)[Term.LOGITS], rel=0.001)


def test_lengths_and_reserved_memory() -> None:
    short, long = trace(tiny(), plan(), lengths=(32, 32)), trace(tiny(), plan(), lengths=(32, 128, 64))
    assert long.breakdown.peak_allocated_bytes > short.breakdown.peak_allocated_bytes
    assert len(long.layout.step_reserved_bytes) == 3
    assert long.breakdown.peak_reserved_bytes >= long.breakdown.peak_allocated_bytes


def test_libraries_are_left_as_they_were() -> None:
    """A dry run in a notebook must not break real training after it."""
    import bitsandbytes as bnb
    import torch

    before = torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.softmax, torch.autocast, torch.is_autocast_enabled
    trace(tiny(), plan(method="qlora", autocast=True, attention="flash"))
    after = torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.softmax, torch.autocast, torch.is_autocast_enabled
    assert after == before
    packed, state = bnb.functional.quantize_4bit(torch.randn(64, 64), quant_type="nf4", compress_statistics=True)
    assert packed.device.type == state.absmax.device.type == "cpu"
    assert len(torch.nn.modules.module._global_forward_pre_hooks) == 0


# -- refusals and breadth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["no_such_type", pytest.param("mamba", marks=since("transformers", "5.0"))])
def test_what_cannot_be_traced_is_refused_in_one_line(model_type: str) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        trace(tiny(model_type), plan())
    assert f"tiny-{model_type}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("mistralai/Mixtral-8x7B-v0.1", marks=since("transformers", "5.0")),
        pytest.param("deepseek-ai/DeepSeek-V2-Lite", marks=[pytest.mark.long, since("transformers", "5.0")]),
        pytest.param("Qwen/Qwen3-30B-A3B", marks=[pytest.mark.long, since("transformers", "5.0")]),
        pytest.param("openai/gpt-oss-20b", marks=since("transformers", "5.0")),
        "bigscience/bloom-560m",
        "tiiuae/falcon-7b",
        pytest.param("google-bert/bert-base-uncased", marks=since("peft", "0.14")),
    ],
)
@pytest.mark.sampled(2)
def test_architectures_trace(model: str) -> None:
    spec = load_model(model)
    found = trace(spec, plan(seq_len_tokens=128)).breakdown
    assert found.peak_allocated_bytes > spec.params
    assert found.versions["transformers"]


# -- any peft adapter ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"peft_type": "IA3", "target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
        {"peft_type": "VERA", "r": 8, "target_modules": ["q_proj", "o_proj"]},
        pytest.param({"peft_type": "OFT", "oft_block_size": 16, "target_modules": ["q_proj"]}, marks=since("peft", "0.16")),
        {"peft_type": "LOHA", "r": 4, "target_modules": ["q_proj"]},
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4},
        {"peft_type": "LORA", "r": 4, "use_rslora": True, "target_modules": "all-linear"},
    ],
    ids=lambda content: content["peft_type"],
)
@pytest.mark.sampled(3)
def test_any_adapter(content: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"task_type": "CAUSAL_LM", **content}), encoding="utf-8")
    terms = {term.term: term.bytes for term in trace(tiny(), plan(), peft_config=read_peft_config(tmp_path)).breakdown.terms}
    assert terms[Term.ADAPTER] > 0
    assert terms[Term.OPTIMIZER] > 0


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"peft_type": "NO_SUCH"}'])
def test_adapter_configs_that_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"adapter_config\.json"):
        read_peft_config(path)


def test_an_adapter_that_does_not_match_the_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text('{"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": ["no_such_layer"]}', encoding="utf-8")
    with pytest.raises(UnsupportedError, match="no_such_layer"):
        trace(tiny(), plan(), peft_config=read_peft_config(path))


# The command line


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    output = capsys.readouterr()
    return code, output.out, output.err


SMALL = ("--model", "smollm2-135m", "--gpu", "24GB")


def test_the_verdict_is_held_against_the_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, screen, _ = printed(capsys, *SMALL, "--trace")
    assert code == 0
    assert "The verdict stands" in screen
    code, text, _ = printed(capsys, *SMALL, "--trace", "--json")
    found = TracedAdvice.model_validate_json(text)
    assert (code, found.stands, found.fit) == (0, True, Fit.FITS)
    assert found.advice.chosen is not None
    assert found.memory == api.trace("smollm2-135m", found.advice.chosen.plan, "24GB")
    assert found.memory.source == "trace"


def test_nothing_is_run_where_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = printed(capsys, "--model", "llama-70b", "--gpu", "8GB", "--trace", "--json")
    assert (code, json.loads(text)["memory"]) == (1, None)


def test_the_closed_form_beside_the_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = printed(capsys, "estimate", *SMALL, "--method", "lora", "--versus-trace", "--json")
    closed, traced = json.loads(text)
    assert (code, closed["source"], traced["source"]) == (0, "estimate", "trace")
    _, screen, _ = printed(capsys, "estimate", *SMALL, "--method", "lora", "--versus-trace")
    (row,) = [line.split() for line in screen.splitlines() if line.startswith("allocated  ")][-1:]
    assert row[1:3] == [f"{memory['peak_allocated_bytes'] / 2**30:.3f}" for memory in (closed, traced)]


def test_an_adapter_of_a_file_by_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    vera = {"peft_type": "VERA", "r": 64, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(vera), encoding="utf-8")
    code, screen, error = printed(capsys, "trace", *SMALL, "--peft-config", str(tmp_path), "--explain")
    assert (code, error) == (0, "")
    assert "VERA" in screen
    assert "model.layers.*." in screen
    assert "layers.0" not in screen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peft-config", "nowhere"), "error: peft config: nowhere cannot be read"),
        (("--peft-config", ".", "--rank", "4"), "error: --peft-config .: the file sets --rank"),
        (("--peft-config", ".", "--method", "full"), "error: --peft-config .: full fine-tuning trains no adapter"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_adapters_that_the_command_refuses(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, screen, error = printed(capsys, "trace", *SMALL, *arguments)
    assert (code, screen) == (2, "")
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_the_card_counts() -> None:
    """An H100's cuBLAS workspace is 32 MiB a handle, others' 8.125 MiB (torch 2.13 aten/src/ATen/cuda/CublasHandlePool.cpp)."""
    workspaces = {
        gpu: sum(term.bytes for term in api.trace("smollm2-135m", gpu=gpu, method="lora", seq_len=256).terms if term.term is Term.WORKSPACE)
        for gpu in ("h100", "a100")
    }
    assert workspaces == {"h100": 2 * 32 * 2**20, "a100": 2 * 8_519_680}


@since("transformers", "4.57")  # older ones expand grouped heads themselves (integrations/sdpa_attention.py)
@pytest.mark.parametrize("attention", [Attention.SDPA, Attention.MEM_EFFICIENT])
def test_without_a_flash_kernel_grouped_heads_fall_to_the_math_kernel(attention: Attention) -> None:
    """A T4 has none (compute capability 7.5), an L4 has; both tiers know."""
    model = load_model("meta-llama/Llama-3.2-1B")
    asked = plan(base_dtype="fp16", attention=attention, gradient_checkpointing=False, seq_len_tokens=512, micro_batch_size=1)
    turing, ada = load_gpu("T4"), load_gpu("L4")
    priced = [estimate_memory(model, asked, card).peak_allocated_bytes for card in (turing, ada)]
    traced = [trace(model, asked, gpu=card).breakdown.peak_allocated_bytes for card in (turing, ada)]
    assert priced == pytest.approx(traced, rel=0.01)
    scores_bytes = 32 * 512 * 512 * 4
    grown = traced[0] - traced[1]
    assert grown > 16 * scores_bytes if attention is Attention.SDPA else grown == 0  # each of the layers keeps its own
