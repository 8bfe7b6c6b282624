"""Terms of the closed form against numbers that were counted, published or measured."""

import pytest

from advisor.hub import load_model
from advisor.memory import adapter_bytes, adapter_params, estimate_memory, trainable_params, weights_bytes
from advisor.memory.optimizer import state_bytes, step_temporary_bytes
from advisor.memory.weights import quantized_linear_bytes
from advisor.values import Linear, Optimizer, Phase, Plan, Quantization, Sharding, Stack, Term

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("model", "settings", "params", "source"),
    [
        ("meta-llama/Llama-3.2-3B", {"rank": 32, "target_modules": ("q_proj", "v_proj")}, 9_175_040, "peft method_comparison n_trainable"),
        ("meta-llama/Llama-3.2-3B", {"rank": 10, "target_modules": MLP}, 9_461_760, "peft method_comparison n_trainable"),
        (
            "meta-llama/Llama-3.2-3B",
            {"rank": 32, "target_modules": ("q_proj", "v_proj"), "method": "dora"},
            9_289_728,
            "peft method_comparison n_trainable",
        ),
        ("meta-llama/Llama-2-7b-hf", {"rank": 1}, 2_498_560, "LoRA parameters per rank, all linear layers [T7]"),
        ("meta-llama/Llama-3.1-8B", {"rank": 1}, 2_621_440, "LoRA parameters per rank, all linear layers [T7]"),
        ("meta-llama/Llama-3.1-8B", {"rank": 1, "target_modules": ATTENTION}, 851_968, "tinker-cookbook [T7]"),
    ],
)
def test_adapter_params(model, settings, params, source):
    assert adapter_params(load_model(model), Plan(**settings)) == params, source


def test_full_fine_tuning_trains_everything():
    model = load_model("meta-llama/Llama-3.1-8B")
    assert trainable_params(model, Plan(method="full")) == 8_030_261_248


@pytest.mark.parametrize(
    ("quantization", "double_quant", "expected"),
    [
        # 4096 x 14336 = 58,720,256 weights, by hand
        (Quantization.NF4, False, 29_360_128 + 917_504 * 4 + 64),  # half a byte each, fp32 per 64, 16 code values
        (Quantization.NF4, True, 29_360_128 + 917_504 + 3_584 * 4 + 1_028 + 64),  # uint8 per 64, fp32 per 256 of those
        (Quantization.INT8, True, 58_720_256 + 14_336 * 4),  # a byte each, fp32 per output row
    ],
)
def test_quantized_matrix(quantization, double_quant, expected):
    layer = Linear(name="up_proj", in_features=4096, out_features=14336)
    assert quantized_linear_bytes(layer, quantization, double_quant) == expected


def test_double_quantisation_saves_what_the_paper_says():
    """QLoRA section 3: 0.373 bits per parameter."""
    layer = Linear(name="up_proj", in_features=8192, out_features=28672)
    single, double = (quantized_linear_bytes(layer, Quantization.NF4, twice) for twice in (False, True))
    assert (single - double) * 8 / layer.weight_params == pytest.approx(0.373, abs=0.001)


# After loading and after attaching the adapter, RTX 4080 (DaoyuanLi2816/can-i-finetune-this benchmarks/results, 4 decimals of GiB)
RESTING = [
    ("Qwen/Qwen2.5-0.5B", {"method": "lora"}, 996_325_038, 1_005_022_347),
    ("Qwen/Qwen2.5-1.5B", {"method": "qlora", "quantization": "nf4", "kbit_prepare": True}, 1_620_491_161, 1_637_885_778),
    ("Qwen/Qwen2.5-7B", {"method": "qlora", "quantization": "nf4", "kbit_prepare": True}, 7_742_752_293, 7_783_124_985),
]


@pytest.mark.parametrize(("model", "settings", "loaded_bytes", "attached_bytes"), RESTING)
def test_resting_memory_as_measured(model, settings, loaded_bytes, attached_bytes):
    spec, plan = load_model(model), Plan(rank=16, target_modules=ATTENTION, **settings)
    weights = weights_bytes(spec, plan)
    assert weights == pytest.approx(loaded_bytes, rel=0.01)
    assert weights + adapter_bytes(spec, plan) == pytest.approx(attached_bytes, rel=0.01)


def test_load_peak_as_measured():
    """7B QLoRA on an RTX 4080: 8,832,707,618 B while embeddings and head are lifted to fp32 (same source)."""
    plan = Plan(method="qlora", quantization="nf4", kbit_prepare=True, target_modules=ATTENTION)
    breakdown = estimate_memory(load_model("Qwen/Qwen2.5-7B"), plan)
    load = next(phase for phase in breakdown.phases if phase.phase is Phase.LOAD)
    assert load.allocated_bytes == pytest.approx(8_832_707_618, rel=0.01)


def test_pure_16_bit_full_fine_tuning_is_four_times_the_weights():
    model = load_model("mistralai/Mistral-7B-v0.1")
    breakdown = estimate_memory(model, Plan(method="full", optimizer="adamw_torch_fused"))
    step = next(phase for phase in breakdown.phases if phase.phase is Phase.OPTIMIZER_STEP)
    resting = sum(term.bytes for term in step.terms if term.term in (Term.WEIGHTS, Term.GRADIENTS, Term.OPTIMIZER))
    assert resting == 4 * 2 * model.params


def test_foreach_adamw_makes_a_fifth_copy():
    """72,434,837,504 B at the optimizer step, A100, HF Trainer (fms-acceleration scripts/benchmarks/refs/a100_80gb.csv)."""
    plan = Plan(method="full", optimizer="adamw_torch", micro_batch_size=4, seq_len_tokens=4096, attention="flash")
    breakdown = estimate_memory(load_model("mistralai/Mistral-7B-v0.1"), plan)
    assert breakdown.peak_phase is Phase.OPTIMIZER_STEP
    assert breakdown.peak_allocated_bytes == pytest.approx(72_434_837_504, rel=0.001)


@pytest.mark.parametrize(
    ("optimizer", "bytes_per_param"),
    [("adamw_torch", 4), ("adamw_torch_fused", 4), ("paged_adamw_32bit", 0), ("lion_32bit", 4), ("sgd", 0), ("adamw_8bit", 2 + 8 / 256)],
)
def test_states_of_a_pure_16_bit_full_run(optimizer, bytes_per_param):
    model = load_model("meta-llama/Llama-3.1-8B")
    plan = Plan(method="full", optimizer=optimizer)
    assert state_bytes(model, plan) == pytest.approx(bytes_per_param * model.params, rel=0.002, abs=40_000_000)


def test_fused_and_8_bit_steps_make_nothing():
    model = load_model("meta-llama/Llama-3.1-8B")
    quiet = (Optimizer.ADAMW_FUSED, Optimizer.ADAMW_8BIT, Optimizer.LION_8BIT, Optimizer.SGD)
    assert [step_temporary_bytes(model, Plan(method="full", optimizer=optimizer)) for optimizer in quiet] == [0, 0, 0, 0]


def test_logits_that_outlive_the_forward_cost_their_size():
    model = load_model("Qwen/Qwen2.5-7B")
    settings = {"optimizer": "adamw_torch_fused", "micro_batch_size": 2, "seq_len_tokens": 2048}
    kept, freed = (estimate_memory(model, Plan(stack=stack, **settings)).peak_allocated_bytes for stack in (Stack.PLAIN, Stack.HF))
    assert kept - freed == 2 * 2048 * model.vocab_size * 2


def test_full_sharding_divides_what_rests():
    model = load_model("meta-llama/Llama-3.1-8B")
    one = Plan(method="full", optimizer="adamw_torch_fused")
    eight = one.model_copy(update={"n_gpus": 8, "sharding": Sharding.FSDP2})
    states = [next(t.bytes for t in estimate_memory(model, plan).phases[-1].terms if t.term is Term.OPTIMIZER) for plan in (one, eight)]
    assert states[1] == -(-states[0] // 8)


def test_ddp_doubles_the_gradients():
    model = load_model("meta-llama/Llama-3.1-8B")
    plan = Plan(method="full", optimizer="adamw_torch_fused", n_gpus=2, sharding=Sharding.DDP)
    step = estimate_memory(model, plan).phases[-1]
    one = estimate_memory(model, Plan(method="full", optimizer="adamw_torch_fused")).phases[-1]
    assert step.allocated_bytes - one.allocated_bytes == 2 * model.params


def test_one_token_has_a_price_where_gradients_alone_make_the_peak() -> None:
    """The first layer of a frozen base keeps less than the others do: at the end of its backward that was less than nothing."""
    plan = Plan(rank=4, seq_len_tokens=1, gradient_checkpointing=False, attention="eager", padding=True, stack=Stack.PLAIN)
    memory = estimate_memory(load_model("llama-3.1-8b"), plan)
    assert all(term.bytes > 0 for phase in memory.phases for term in phase.terms)
