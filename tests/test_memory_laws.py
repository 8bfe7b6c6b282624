"""Laws of the closed form, for any decoder and any plan."""

from hypothesis import given, settings, strategies as st

from advisor.architectures import spec_from_config
from advisor.hub import load_model
from advisor.memory import estimate_memory, weights_bytes
from advisor.memory.params import block_adapter_params
from advisor.values import (
    ALL_LINEAR,
    Attention,
    DType,
    Loss,
    MemoryBreakdown,
    Method,
    Optimizer,
    Plan,
    Quantization,
    Sharding,
    Shift,
    Stack,
    Term,
)

MODEL_TYPES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text", "phi3", "olmo2", "granite", "cohere", "starcoder2", "mixtral")


@st.composite
def models(draw, least_layers=1):
    heads = draw(st.sampled_from((4, 8, 16)))
    config = {
        "model_type": draw(st.sampled_from(MODEL_TYPES)),
        "hidden_size": 64 * heads,
        "intermediate_size": draw(st.integers(2, 40)) * 64,
        "num_hidden_layers": draw(st.integers(least_layers, 40)),
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from((heads, heads // 2, heads // 4))),
        "head_dim": 64,
        "vocab_size": draw(st.integers(1, 200)) * 1000,
        "tie_word_embeddings": draw(st.booleans()),
    }
    return spec_from_config(config, id="any", source="drawn")


@st.composite
def plans(draw):
    method = draw(st.sampled_from(Method))
    quantization = draw(st.sampled_from((Quantization.NF4, Quantization.FP4, Quantization.INT8))) if method.is_quantized else None
    return Plan(
        method=method,
        rank=draw(st.integers(1, 64)),
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj") if method.is_dora else (ALL_LINEAR,),
        quantization=quantization,
        double_quant=draw(st.booleans()),
        kbit_prepare=quantization is not None and draw(st.booleans()),
        base_dtype=draw(st.sampled_from(DType)),
        autocast=draw(st.booleans()),
        adapter_dtype=draw(st.sampled_from((DType.FP32, DType.BF16))),
        optimizer=draw(st.sampled_from(Optimizer)),
        micro_batch_size=draw(st.integers(1, 8)),
        seq_len_tokens=draw(st.integers(16, 8192)),
        grad_accum_steps=draw(st.integers(1, 4)),
        gradient_checkpointing=draw(st.booleans()),
        attention=draw(st.sampled_from(Attention)),
        padding=draw(st.booleans()),
        loss=draw(st.sampled_from(Loss)),
        shift=draw(st.sampled_from(Shift)),
        eval_micro_batch_size=draw(st.sampled_from((None, 4))),
        stack=draw(st.sampled_from(Stack)),
    )


def peak(model, plan, **changes):
    return estimate_memory(model, plan.model_copy(update=changes)).peak_allocated_bytes


@given(models(), plans())
def test_peak_grows_with_batch_sequence_and_rank(model, plan):
    before = peak(model, plan)
    assert peak(model, plan, micro_batch_size=plan.micro_batch_size + 1) >= before
    assert peak(model, plan, seq_len_tokens=plan.seq_len_tokens + 64) >= before
    assert peak(model, plan, rank=plan.rank + 1) >= before


@given(models(least_layers=3), plans())
def test_checkpointing_never_raises_the_peak(model, plan):
    """From three layers on: a checkpoint holds the layers' inputs and recomputes one layer, which in a model of one or two layers is
    no less than keeping them all (a few kilobytes more, in truth too)."""
    training = plan.model_copy(update={"eval_micro_batch_size": None})
    assert peak(model, training, gradient_checkpointing=True) <= peak(model, training, gradient_checkpointing=False)


@given(models(), plans())
def test_four_bit_weights_are_smaller(model, plan):
    lora = Plan(method=Method.LORA, base_dtype=plan.base_dtype)
    qlora = Plan(method=Method.QLORA, base_dtype=plan.base_dtype, quantization=Quantization.NF4)
    assert weights_bytes(model, qlora) <= weights_bytes(model, lora)


@given(models(), plans())
def test_dora_needs_no_less_than_lora(model, plan):
    method = {Method.DORA: Method.LORA, Method.QDORA: Method.QLORA}.get(plan.method)
    if method:
        assert peak(model, plan) >= peak(model, plan, method=method)


@given(models(), plans())
def test_interval_holds_the_estimate_and_json_round_trips(model, plan):
    breakdown = estimate_memory(model, plan)
    assert 0 <= breakdown.low_bytes <= breakdown.expected_bytes <= breakdown.high_bytes
    assert MemoryBreakdown.model_validate_json(breakdown.model_dump_json()) == breakdown


@given(models(), plans())
def test_peak_is_the_largest_phase_and_the_sum_of_its_terms(model, plan):
    breakdown = estimate_memory(model, plan)
    assert breakdown.peak_allocated_bytes == max(phase.allocated_bytes for phase in breakdown.phases)
    assert breakdown.peak_allocated_bytes == sum(term.bytes for term in breakdown.terms)
    assert all(term.bytes > 0 for phase in breakdown.phases for term in phase.terms)


@given(models(), plans(), st.integers(2, 8))
def test_sharding_never_raises_weights_or_states(model, plan, cards):
    sharded = estimate_memory(model, plan.model_copy(update={"n_gpus": cards, "sharding": Sharding.FSDP2}))
    whole = estimate_memory(model, plan)

    def of(breakdown, term):
        return sum(item.bytes for item in breakdown.phases[-1].terms if item.term is term)

    for term in (Term.GRADIENTS, Term.OPTIMIZER, Term.ADAPTER):
        assert of(sharded, term) <= of(whole, term)


@given(models(), plans(), st.integers(1, 4))
@settings(max_examples=50)
def test_only_tokens_matter_without_attention_scores(model, plan, batch):
    """(2 x b, s) = (b, 2 x s) wherever no score matrix is made: flash attention without padding."""
    flash = plan.model_copy(update={"attention": Attention.FLASH, "padding": False, "seq_len_tokens": 512, "eval_micro_batch_size": None})
    assert peak(model, flash, micro_batch_size=2 * batch) == peak(model, flash, micro_batch_size=batch, seq_len_tokens=1024)


def test_a_model_that_is_loaded_again_weighs_the_same() -> None:
    """What one copy of a model was priced with is kept, and speaks for another that equals it: DDP deals out its layers' adapters."""
    plan = Plan(method=Method.LORA, n_gpus=2, sharding="ddp")
    first = load_model("llama-3.2-1b")
    again = type(first).model_validate_json(first.model_dump_json())
    assert again == first
    assert again is not first
    assert block_adapter_params(first, plan) == block_adapter_params(again, plan) != (0,)
    assert estimate_memory(first, plan) == estimate_memory(again, plan)
