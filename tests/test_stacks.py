"""The stacks' defaults against the installed libraries, and the plan that would be run first."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given, strategies as st

from advisor.architectures import spec_from_config
from advisor.devices import load_gpu
from advisor.errors import InvalidInputError
from advisor.hub import load_model
from advisor.ladder import plan_from_request, request_from
from advisor.stacks import HF, PLAIN, TRL, default_plan, defaults_of, echo_defaults
from advisor.values import Attention, DType, GpuSpec, Loss, Method, ModelSpec, Optimizer, Quantization, Request, Sharding, Stack

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tiny(**changes: object) -> ModelSpec:
    return spec_from_config(LLAMA | changes, id="tiny/llama", source="made by hand")


def card(**changes: object) -> GpuSpec:
    return GpuSpec.model_validate({"name": "card", "vendor": "nvidia", "usable_bytes": 8 << 30, "usable_source": "test"} | changes)


# --- defaults are what the installed libraries do -----------------------------------------------------------------------------


def test_defaults_of_the_trainer() -> None:
    transformers = pytest.importorskip("transformers")
    defaults = transformers.TrainingArguments(output_dir="unused", use_cpu=True)
    assert defaults.optim.value == HF.optimizer.value.value
    assert bool(defaults.gradient_checkpointing) is HF.checkpointing.value
    assert defaults.bf16 is HF.autocast.value
    assert defaults.use_cache is HF.kv_cache_in_outputs.value


def test_defaults_of_peft() -> None:
    peft = pytest.importorskip("peft")
    from peft.tuners.tuners_utils import cast_adapter_dtype

    prepare = inspect.signature(peft.prepare_model_for_kbit_training).parameters
    assert prepare["use_gradient_checkpointing"].default is HF.quantized_checkpointing.value
    assert inspect.signature(cast_adapter_dtype).parameters["autocast_adapter_dtype"].default is True
    assert HF.adapter_dtype.value is DType.FP32


def test_the_loss_of_transformers_upcasts_all_logits() -> None:
    pytest.importorskip("transformers")
    from transformers.loss.loss_utils import ForCausalLMLoss

    assert "logits = logits.float()" in inspect.getsource(ForCausalLMLoss)
    assert HF.loss.value is Loss.FULL


def test_defaults_of_trl() -> None:
    trl = pytest.importorskip("trl")
    defaults = trl.SFTConfig(output_dir="unused", use_cpu=True)
    assert defaults.optim.value == TRL.optimizer.value.value
    assert bool(defaults.gradient_checkpointing) is TRL.checkpointing.value
    assert defaults.bf16 is TRL.autocast.value
    assert defaults.loss_type in ("nll", "chunked_nll")


@pytest.mark.parametrize("stack", list(Stack))
def test_every_default_says_where_it_is_written(stack: Stack) -> None:
    defaults = defaults_of(stack)
    assert defaults.stack is stack
    for name in defaults.__slots__:
        value = getattr(defaults, name)
        if hasattr(value, "source"):
            assert len(value.source) > 20, name


def test_only_a_plain_loop_holds_logits_through_backward() -> None:
    assert [stack for stack in Stack if defaults_of(stack).logits_alive_in_backward.value] == [Stack.PLAIN]
    assert PLAIN.optimizer.value is Optimizer.ADAMW


# --- the first plan -------------------------------------------------------------------------------------------------------------

F, T = False, True
FIRST_PLANS = [
    # method, stack, quantization, kbit, checkpointing, autocast, adapter, loss
    ("lora", "hf", None, F, F, F, "fp32", "full"),
    ("qlora", "hf", "nf4", T, T, F, "fp32", "full"),
    ("dora", "hf", None, F, F, F, "fp32", "full"),
    ("full", "hf", None, F, F, F, "fp32", "full"),
    ("lora", "trl", None, F, T, T, "fp32", "chunked"),
    ("qdora", "trl", "nf4", F, T, T, "bf16", "chunked"),
    ("lora", "plain", None, F, F, F, "fp32", "full"),
    ("qlora", "plain", "nf4", T, T, F, "fp32", "full"),
]


@pytest.mark.parametrize("row", FIRST_PLANS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_first_plans(row: tuple[Any, ...]) -> None:
    method, stack, quantization, kbit, checkpointing, autocast, adapter, loss = row
    plan = default_plan(Method(method), tiny(), card(), Request(stack=Stack(stack)))
    assert plan.quantization == (quantization and Quantization(quantization))
    assert (plan.kbit_prepare, plan.gradient_checkpointing, plan.autocast) == (kbit, checkpointing, autocast)
    assert (plan.adapter_dtype, plan.base_dtype, plan.loss) == (DType(adapter), DType.BF16, Loss(loss))
    assert (plan.rank, plan.alpha, plan.target_modules) == (16, 32, ("all-linear",))
    assert (plan.micro_batch_size, plan.grad_accum_steps, plan.seq_len_tokens) == (1, 16, 512)  # the model has 512 positions


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("llama-3.1-8b", 2048),
        ("gpt2", 1024),
        ("bert-base-uncased", 512),
        ("openai/whisper-large-v2", 448),  # whisper/model.py: n_text_ctx of every size
        ("openai/whisper-tiny", 448),
    ],
)
def test_the_first_plan_keeps_to_the_model_s_positions(model: str, tokens: int) -> None:
    assert default_plan(Method.LORA, load_model(model), card(), Request()).seq_len_tokens == tokens


@pytest.mark.parametrize(
    ("method", "precision", "expected"),
    [
        # card without bf16: what is trained stays fp32, as the loss must be scaled
        ("lora", None, ("fp16", True, "fp16")),
        ("full", None, ("fp32", True, "fp16")),
        ("full", "bf16-amp", ("fp32", True, "bf16")),
        ("full", "fp32", ("fp32", False, "bf16")),
        ("lora", "bf16", ("bf16", False, "bf16")),
    ],
)
def test_precision_on_a_card_without_bf16(method: str, precision: str | None, expected: tuple[str, bool, str]) -> None:
    plan = default_plan(Method(method), tiny(), card(bf16_supported=False), request_from({"precision": precision}))
    assert (plan.base_dtype.value, plan.autocast, plan.autocast_dtype.value) == expected


@pytest.mark.parametrize(
    ("options", "micro", "accumulation"),
    [
        ({}, 1, 16),
        ({"batch_size": 4}, 4, 4),
        ({"batch_size": 64}, 64, 1),
        ({"grad_accum": 3}, 1, 3),
        ({"gpus": 4}, 1, 4),
        ({"gpus": 4, "batch_size": 4}, 4, 1),
    ],
)
def test_accumulation_fills_up_to_sixteen_sequences(options: dict[str, int], micro: int, accumulation: int) -> None:
    plan = default_plan(Method.LORA, tiny(), card(), request_from(options))
    assert (plan.micro_batch_size, plan.grad_accum_steps) == (micro, accumulation)
    assert plan.sharding is (Sharding.DDP if plan.n_gpus > 1 else Sharding.NONE)


def test_eager_attention_where_transformers_has_no_sdpa() -> None:
    assert default_plan(Method.LORA, load_model("gemma-2-9b"), card(), Request()).attention is Attention.EAGER
    assert default_plan(Method.LORA, load_model("llama-3-8b"), card(), Request()).attention is Attention.SDPA


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rank": st.integers(1, 32),
            "alpha": st.floats(0.1, 1e4),
            "batch_size": st.integers(1, 64),
            "seq_len": st.integers(1, 4096),
            "grad_accum": st.integers(1, 64),
            "optimizer": st.sampled_from(Optimizer),
            "checkpointing": st.booleans(),
            "attention": st.sampled_from(Attention),
            "loss": st.sampled_from(Loss),
            "stack": st.sampled_from(Stack),
            "target_modules": st.sets(st.sampled_from(LINEARS), min_size=1).map(tuple),
            "gpus": st.integers(1, 16),
        },
    ),
    st.sampled_from(Method),
)
def test_what_is_given_comes_back_unchanged(options: dict[str, Any], method: Method) -> None:
    plan = default_plan(method, tiny(), card(), request_from(options))
    names = {
        "batch_size": "micro_batch_size",
        "seq_len": "seq_len_tokens",
        "grad_accum": "grad_accum_steps",
        "checkpointing": "gradient_checkpointing",
        "gpus": "n_gpus",
    }
    assert {name: getattr(plan, names.get(name, name)) for name in options} == options


# --- limits -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "--rank 0: must be greater than 0"),
        ({"rank": 33}, "--rank 33: above the smallest matrix of tiny/llama that it would wrap (k_proj is 32 × 64); at most 32"),
        ({"rank": -1}, "--rank -1: must be greater than 0"),
        ({"alpha": 0}, "--alpha 0: must be greater than 0"),
        ({"alpha": float("nan")}, "--alpha nan: must be a finite number"),
        ({"batch_size": 0}, "--batch-size 0: must be greater than 0"),
        ({"seq_len": -5}, "--seq-len -5: must be greater than 0"),
        ({"seq_len": 10**12}, "--seq-len 1000000000000: must be less than or equal to 1000000000"),
        ({"seq_len": "two"}, "--seq-len two: must be a valid integer"),
        ({"gpus": 0}, "--gpus 0: must be greater than 0"),
        ({"optimizer": "adam"}, "--optimizer adam: must be 'adamw_torch', 'adamw_torch_fused'"),
        ({"target_modules": ""}, "--target-modules: name at least one layer"),
        ({"target_modules": "q_prj"}, "--target-modules: no linear layer of tiny/llama is called q_prj; there are q_proj, k_proj"),
        ({"target_modules": "q_proj,lm_head"}, "is called lm_head"),
        ({"method": "lora", "quantization": "nf4"}, "LoRA on a quantised base is called QLoRA; use --method qlora"),
        ({"method": "full", "quantization": "int8"}, "full fine-tuning trains 16- or 32-bit weights"),
        ({"colour": "red"}, "--colour: there is no such option"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        plan_from_request(tiny(), card(), request_from(options))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_limit_is_that_of_the_wrapped_matrices() -> None:
    assert plan_from_request(tiny(), card(), request_from({"rank": 64, "target_modules": "q_proj,o_proj"})).rank == 64


def test_full_fine_tuning_has_no_rank_to_exceed() -> None:
    assert plan_from_request(tiny(), card(), request_from({"method": "full", "rank": 4096})).method is Method.FULL


def test_gates_of_experts_do_not_limit_the_rank() -> None:
    model = load_model("qwen1.5-moe")
    assert any(linear.out_features == 1 for block in model.shape.blocks for linear in block.linears if linear.is_module)
    assert plan_from_request(model, card(), Request(rank=16)).rank == 16


@pytest.mark.parametrize(
    ("options", "method"),
    [({}, Method.LORA), ({"quantization": "fp4"}, Method.QLORA), ({"method": "qdora"}, Method.QDORA), ({"method": "full"}, Method.FULL)],
)
def test_the_one_plan_that_options_describe(options: dict[str, Any], method: Method) -> None:
    assert plan_from_request(tiny(), card(), request_from(options)).method is method


# --- the echo ---------------------------------------------------------------------------------------------------------------------


def test_every_default_is_echoed() -> None:
    text = "\n".join(echo_defaults(load_model("llama-70b"), load_gpu("80GB"), Request()))
    for part in (
        "transformers Trainer (hf)",
        "bf16",
        "adamw_torch_fused",
        "full loss",
        "sdpa attention",
        "rank 16",
        "alpha 32 (twice the rank)",
        "all linear layers",
        "nf4 with double quantisation",
        "micro-batch 1",
        "accumulation 16 (16 sequences per step)",
        "2,048 tokens",
        "starts off, on 4-bit bases on",
    ):
        assert part in text


def test_what_was_given_is_not_echoed() -> None:
    given = request_from(
        {
            "stack": "trl",
            "precision": "bf16",
            "optimizer": "sgd",
            "loss": "full",
            "attention": "eager",
            "rank": 8,
            "alpha": 8,
            "lora_dropout": 0.1,
            "target_modules": "q_proj",
            "quantization": "nf4",
            "batch_size": 1,
            "grad_accum": 1,
            "seq_len": 128,
            "checkpointing": True,
        }
    )
    assert echo_defaults(tiny(), card(), given) == ()


def test_fp16_is_said_aloud() -> None:
    assert any(
        "fp16 with loss scaling, as card has no bf16" in line for line in echo_defaults(tiny(), card(bf16_supported=False), Request())
    )
