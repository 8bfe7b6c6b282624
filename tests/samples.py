"""Records made by hand, so that screens and exit codes are tested without the parts that compute them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from advisor.ladder import fit
from advisor.units import GIB
from advisor.values import (
    Advice,
    AttentionShape,
    Block,
    Change,
    Finding,
    Fit,
    GpuSpec,
    Interval,
    Level,
    Linear,
    MemoryBreakdown,
    Method,
    MlpShape,
    ModelShape,
    ModelSpec,
    ModelSummary,
    Phase,
    PhaseBytes,
    Plan,
    Quantization,
    Range,
    Rung,
    StepTime,
    Term,
    TermBytes,
    Verdict,
)

USABLE_BYTES = 79 * GIB


def price_by(monkeypatch: pytest.MonkeyPatch, estimate: Callable[[ModelSpec, Plan, GpuSpec], MemoryBreakdown]) -> None:
    """Put another estimate in the place of the ladder's own."""
    monkeypatch.setattr(fit, "estimate_memory", estimate)
    monkeypatch.setattr(fit, "has_totals", lambda case, plan: False)


def gpu() -> GpuSpec:
    return GpuSpec(
        name="NVIDIA H100 80GB HBM3",
        vendor="nvidia",
        usable_bytes=USABLE_BYTES,
        usable_source="nvidia-smi",
        resolved_from="80GB = the smallest usable capacity among cards sold so",
    )


def memory(weights_gib: float, activations_gib: float = 4, optimizer_gib: float = 1) -> MemoryBreakdown:
    def phase(phase: Phase, **gibs: float) -> PhaseBytes:
        return PhaseBytes(phase=phase, terms=tuple(TermBytes(term=Term[name], bytes=round(gib * GIB)) for name, gib in gibs.items()))

    return MemoryBreakdown(
        source="estimate",
        versions={"transformers": "5.23.0", "peft": "0.21.2"},
        phases=(
            phase(Phase.LOAD, WEIGHTS=weights_gib, TEMPORARIES=0.5),
            phase(Phase.FORWARD, WEIGHTS=weights_gib, OPTIMIZER=optimizer_gib, ACTIVATIONS=activations_gib / 2, LOGITS=1),
            phase(Phase.BACKWARD, WEIGHTS=weights_gib, OPTIMIZER=optimizer_gib, ACTIVATIONS=activations_gib, LOGITS=2),
            phase(Phase.OPTIMIZER_STEP, WEIGHTS=weights_gib, OPTIMIZER=optimizer_gib, GRADIENTS=0.4, TEMPORARIES=0.4),
        ),
        reserved_slack_bytes=GIB // 2,
        context_bytes=GIB // 2,
        interval=Interval(low_share=0.3, high_share=0.7, source="residuals of 41 measured runs"),
    )


def rung(method: Method, weights_gib: float, why_not: str = "", step_time: StepTime | None = None) -> Rung:
    breakdown = memory(weights_gib, optimizer_gib=400 if method is Method.FULL else 1)
    fit = Fit.FITS if breakdown.high_bytes <= USABLE_BYTES else Fit.DOES_NOT_FIT if breakdown.low_bytes > USABLE_BYTES else Fit.UNCERTAIN
    full = method is Method.FULL
    return Rung(
        plan=Plan(method=method, quantization=Quantization.NF4 if method.is_quantized else None),
        memory=breakdown,
        fit=fit,
        headroom_bytes=USABLE_BYTES - breakdown.expected_bytes,
        changes=(Change(what="gradient checkpointing on", cost="one more forward pass, about a third more time"),)
        if fit is Fit.FITS
        else (),
        trainable_params=70_553_706_496 if full else 207_093_760,
        trainable_share=1 if full else 0.00293,
        base_precision="nf4 + bf16" if method.is_quantized else "bf16",
        relative_step_time=Range(low=1, high=1, source="LoRA is the unit")
        if method is Method.LORA
        else Range(low=1.35, high=1.66, source="published overhead of 4-bit dequantisation [Q7, Q8]"),
        step_time=step_time,
        quality="equal to full fine-tuning while the data fits the adapter",
        quality_evidence=("C1", "Q4"),
        adapter_bytes=None if full else 828_375_040,
        mergeable="nothing to merge" if full else "yes, after dequantising" if method.is_quantized else "yes",
        max_seq_len_tokens=9216 if fit is Fit.FITS else None,
        max_micro_batch_size=5 if fit is Fit.FITS else None,
        why_not=why_not,
    )


SNIPPET = """from peft import LoraConfig

peft_config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")  # longer than 80: never wrapped
"""


def advice(step_time: StepTime | None = None, n_gpus: int = 1) -> Advice:
    return Advice(
        model=ModelSummary(
            id="meta-llama/Llama-3.1-70B",
            architecture="LlamaForCausalLM",
            params=70_553_706_496,
            layers=80,
            hidden_size=8192,
            weights_16bit_bytes=141_107_412_992,
            source="profile",
        ),
        gpu=gpu(),
        n_gpus=n_gpus,
        assumptions=("llama-70b is taken as meta-llama/Llama-3.1-70B, the newest 70B of the family", "sequences of 2,048 tokens"),
        verdict=Verdict(
            method=Method.QLORA,
            binding="memory",
            sentence="QLoRA. Memory is the constraint that binds: 16-bit weights alone are 131.4 GiB of a 79.0 GiB card.",
        ),
        rungs=(
            rung(Method.LORA, 131.4, "The 16-bit base alone is 131.4 GiB, more than the card.", step_time),
            rung(Method.QLORA, 35.5, step_time=step_time),
            rung(Method.DORA, 131.4, "The 16-bit base alone is 131.4 GiB, more than the card.", step_time),
            rung(Method.QDORA, 67.0, "It costs a third more time and the rank is not yet the limit.", step_time),
            rung(Method.FULL, 131.4, "Weights, gradients and moments need 8 bytes a parameter.", step_time),
        ),
        findings=(Finding(id="memory.binds", level=Level.INFO, message="The base weights decide.", hint="Rent two cards to use LoRA."),),
        would_change=("LoRA fits from 2 × 80 GB (68.3 GiB a card under full sharding).", "Above 9,216 tokens this stops fitting."),
        next_experiment="Run QLoRA at three learning rates (1e-4, 2e-4, 4e-4) before touching the rank.",
        snippet=SNIPPET,
    )


def step_time() -> StepTime:
    def bounds(low: float, high: float) -> Range:
        return Range(low=low, high=high, source="roofline")

    return StepTime(seconds_per_step=bounds(8.1, 12.44), tokens_per_s=bounds(1316, 2022), hours=bounds(1.4, 2.1), usd=bounds(3.9, 5.8))


def spec() -> ModelSpec:
    block = Block(
        count=80,
        linears=(Linear(name="q_proj", in_features=8192, out_features=8192),),
        attention=AttentionShape(heads=64, kv_heads=8, head_dim=128, v_head_dim=128),
        mlp=MlpShape(kind="gated", intermediate_size=28672, activation="silu"),
        norm="rms",
    )
    return ModelSpec(
        id="meta-llama/Llama-3.1-70B",
        model_type="llama",
        architecture="LlamaForCausalLM",
        hidden_size=8192,
        vocab_size=128256,
        layers=80,
        tables=ModelShape(blocks=(block,), embedding_params=1, head_params=1),
        config_json="{}",
        source="made by hand",
    )
