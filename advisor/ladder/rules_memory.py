"""Rules about memory: what makes the plan tight, what would and would not help."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.checkpoints import EXPERTS_IN_16_BIT
from advisor.ladder.fit import needs_recordings, price, price_or_none
from advisor.ladder.knowledge import threshold
from advisor.ladder.situation import Situation
from advisor.memory.runtime import has_flash
from advisor.stacks import stacked_targets
from advisor.units import format_count, format_size
from advisor.values import Attention, DType, Finding, Fit, Level, Masters, Method, Phase

MASTER_BYTES_PER_PARAM = 16
"""fp32 weights, gradients and two moments (fact F1)."""
HALF_BYTES_PER_PARAM = 8
"""The same four in 16 bit."""


FP32_BYTES = 4


def fit_uncertain(s: Situation) -> Iterator[Finding]:
    """The estimate's interval straddles the card."""
    rung = s.focus
    if rung.fit is not Fit.UNCERTAIN:
        return
    shorter = rung.max_seq_len_tokens
    yield Finding(
        id="fit-uncertain",
        level=Level.WARNING,
        message=f"{rung.plan.method.label} may or may not fit: the card lies inside the estimate's interval",
        hint=f"up to {shorter:,} tokens it surely fits" if shorter else "run one step on the card before relying on it",
        numbers={"low_bytes": rung.memory.low_bytes, "high_bytes": rung.memory.high_bytes, "usable_bytes": s.case.gpu.usable_bytes},
    )


def fits_tightly(s: Situation) -> Iterator[Finding]:
    """It fits, with little to spare even if the estimate is right."""
    rung, usable = s.focus, s.case.gpu.usable_bytes
    spare = usable - rung.memory.high_bytes
    if rung.fit is not Fit.FITS or spare >= threshold("headroom_tight") * usable:
        return
    yield Finding(
        id="fits-tightly",
        level=Level.WARNING,
        message=f"{rung.plan.method.label} fits with only {format_size(spare)} beyond the estimate's upper end",
        hint="keep other processes off the card, and evaluate with the same micro-batch and length as in training",
        numbers={"spare_bytes": spare, "usable_bytes": usable},
    )


def rank_no_cure(s: Situation) -> Iterator[Finding]:
    """Where memory binds: what a lower rank would save, next to what is missing."""
    short = next((rung for rung in s.rungs if rung.plan.method.has_adapter and rung.fit in (Fit.UNCERTAIN, Fit.DOES_NOT_FIT)), None)
    if s.verdict.binding != "memory" or short is None or needs_recordings(s.case.model):
        return
    rank = short.plan.rank
    lower = min(int(threshold("rank_check_step")), rank // 2)
    if lower < 1:
        return
    saved = short.memory.expected_bytes - price(s.case, short.plan.model_copy(update={"rank": lower})).totals.expected_bytes
    missing = short.memory.high_bytes - s.case.gpu.usable_bytes
    numbers = {"rank": rank, "lower_rank": lower, "saved_bytes": saved, "missing_bytes": missing}
    if saved < missing:
        message = f"a lower rank is no cure: rank {lower} instead of {rank} saves {format_size(saved)}, {format_size(missing)} are missing"
        yield Finding(id="rank-no-cure", level=Level.INFO, message=message, numbers=numbers, evidence=("Q2", "Q9"))
    else:
        message = (
            f"rank {rank} itself weighs: the adapter, its gradients and optimizer states take {format_size(saved)} beyond rank {lower}"
        )
        hint = "no published comparison gains beyond rank 256"
        yield Finding(id="rank-heavy", level=Level.WARNING, message=message, hint=hint, numbers=numbers, evidence=("C8", "C12"))


def kbit_upcast(s: Situation) -> Iterator[Finding]:
    """What peft's helper costs by lifting norms, embeddings and head to fp32."""
    plan = s.focus.plan
    if not plan.kbit_prepare:
        return
    without = price_or_none(s.case, plan.model_copy(update={"kbit_prepare": False}))
    extra = s.focus.memory.expected_bytes - without.totals.expected_bytes if without is not None else 0
    if extra <= 0:
        return
    heavy = extra >= threshold("headroom_tight") * s.case.gpu.usable_bytes
    yield Finding(
        id="kbit-upcast",
        level=Level.WARNING if heavy else Level.INFO,
        message=f"prepare_model_for_kbit_training costs {format_size(extra)}: embeddings, head, norms and hidden states become fp32",
        hint="--no-kbit-prepare leaves it out, as TRL does",
        numbers={"extra_bytes": extra},
    )


def attention_by_math(s: Situation) -> Iterator[Finding]:
    """Grouped queries for which SDPA has no fused kernel: on cards without flash, or made fp32 by lifted embeddings (torch before 2.14)."""
    if s.case.model.tables is None:
        return
    plan = s.focus.plan
    grouped = (block.attention for block in s.case.model.tables.blocks if block.attention.kv_heads != block.attention.heads)
    heads = next(grouped, None)
    if plan.attention is not Attention.SDPA or plan.padding or heads is None or not heads.sdpa:
        return
    if not has_flash(s.case.gpu):
        cause = "this card has no flash kernel (that takes compute capability 8.0): grouped heads"
        hint = "torch 2.14 or newer takes grouped heads in its mem-efficient kernel"
    elif plan.kbit_prepare and plan.quantization is not None and not plan.autocast:
        cause = "fp32 queries of grouped heads"
        hint = "--attention flash computes in 16 bit (needs flash-attn); --no-kbit-prepare keeps the hidden states in 16 bit"
    else:
        return
    scores_bytes = plan.micro_batch_size * heads.heads * plan.seq_len_tokens**2 * FP32_BYTES
    yield Finding(
        id="math-attention",
        level=Level.WARNING,
        message=f"{cause} fall to torch's math kernel: each of its score matrices takes {format_size(scores_bytes)}, "
        "four times that at twice the sequence",
        hint=hint,
        numbers={"score_matrix_bytes": scores_bytes},
    )


def quantized_not_smaller(s: Situation) -> Iterator[Finding]:
    """Quantising that saves nothing (bitsandbytes issues 1569 and 1849)."""
    lora, qlora = s.rung(Method.LORA), s.rung(Method.QLORA)
    same_shape = lora.plan.seq_len_tokens == qlora.plan.seq_len_tokens and lora.plan.micro_batch_size == qlora.plan.micro_batch_size
    same_loop = lora.plan.gradient_checkpointing == qlora.plan.gradient_checkpointing
    saved = lora.memory.expected_bytes - qlora.memory.expected_bytes
    if not (same_shape and same_loop) or saved >= threshold("quantized_saving") * lora.memory.expected_bytes:
        return
    loads_whole = qlora.plan.sharding.shards_weights and qlora.memory.peak_phase is Phase.LOAD
    why = "most of this model is not quantised, or is lifted to fp32"
    if loads_whole:
        why = "bitsandbytes makes the weights whole on each card before they are shared, and 16-bit ones come in parts"
    yield Finding(
        id="quantized-not-smaller",
        level=Level.WARNING,
        message=f"QLoRA saves {format_size(max(saved, 0))} of LoRA's {format_size(lora.memory.expected_bytes)}: {why}",
        hint="--no-kbit-prepare leaves the lifting out" if qlora.plan.kbit_prepare and not loads_whole else "",
        numbers={"lora_bytes": lora.memory.expected_bytes, "qlora_bytes": qlora.memory.expected_bytes},
    )


def experts_in_16_bit(s: Situation) -> Iterator[Finding]:
    """transformers 5 holds fused experts in bare 3-D parameters, which bitsandbytes leaves alone (bitsandbytes issue 1849).

    peft adapts some of them by adding the update to a copy of the weights (peft 0.21 lora/layer.py `ParamWrapper`).
    """
    plan, model = s.focus.plan, s.case.model
    if model.tables is None:
        return
    bare = sum(linear.weight_params * block.count for block in model.tables.blocks for linear in block.linears if not linear.is_module)
    if not bare or not plan.method.has_adapter or plan.quantized_experts:
        return
    size = format_size(bare * plan.base_dtype.size_bytes)
    quantised = f"stay in 16 bit ({size}) and " if plan.quantization else ""
    copied = bool(stacked_targets(model, plan.target_modules))
    adapted = "are adapted through a copy of a layer's experts in every pass" if copied else "get no adapter"
    quantiser = "axolotl's quantize_moe_experts puts them in 4 bit; " if plan.quantization else ""
    spare = "--target-modules q_proj,k_proj,v_proj,o_proj adapts attention alone and spares the copies"
    yield Finding(
        id="experts-not-modules",
        level=Level.WARNING if plan.quantization else Level.INFO,
        message=f"{format_count(bare)} parameters of experts are no nn.Linear modules in transformers 5: they {quantised}{adapted}",
        hint=quantiser + (spare if copied else "peft reaches them only through LoraConfig(target_parameters=…), which is not priced here"),
        numbers={"bare_params": bare, "bare_bytes": bare * plan.base_dtype.size_bytes},
    )


def full_on_one_card(s: Situation) -> Iterator[Finding]:
    """Full fine-tuning's bytes before any activation, where it does not fit."""
    rung, params = s.rung(Method.FULL), s.case.model.params
    if rung.fit is not Fit.DOES_NOT_FIT:
        return
    half, master = params * HALF_BYTES_PER_PARAM, params * MASTER_BYTES_PER_PARAM
    yield Finding(
        id="full-states",
        level=Level.INFO,
        message=f"full fine-tuning holds {format_size(half)} in pure 16 bit before any activation, {format_size(master)} with fp32 masters",
        hint="weights, gradients and two moments; an 8-bit optimizer halves the moments, several cards divide all of it",
        numbers={"pure_16bit_bytes": half, "fp32_master_bytes": master},
        evidence=("F1",),
    )


KAHAN_BYTES_PER_PARAM = 2
"""A bf16 number beside each bf16 weight that keeps what rounding leaves off (fact F13, its algorithm of Kahan summation)."""


def full_in_pure_16_bit(s: Situation) -> Iterator[Finding]:
    """Full fine-tuning without fp32 weights: what of its updates is lost, and what keeping them costs."""
    rung, gpu = s.rung(Method.FULL), s.case.gpu
    plan = rung.plan
    asked = s.request.method is Method.FULL
    if plan.base_dtype is not DType.BF16 or plan.masters is not Masters.NONE or (rung.fit is not Fit.FITS and not asked):
        return
    recorded = s.case.model.tables is None  # each other plan would be another recording
    whole = None if recorded else price_or_none(s.case, plan.model_copy(update={"base_dtype": DType.FP32, "autocast": True}))
    said = f"--precision bf16-amp keeps them: {format_size(whole.totals.expected_bytes)}, {_FITS[whole.fit]}; " if whole else ""
    kahan = rung.memory.expected_bytes + s.case.model.params * KAHAN_BYTES_PER_PARAM // (plan.n_gpus if plan.sharding.shards_weights else 1)
    yield Finding(
        id="full-pure-bf16",
        level=Level.WARNING if s.focus is rung else Level.INFO,
        message="full fine-tuning is priced with bf16 weights and no fp32 copy of them: small updates round away, "
        "and it may seem no better than an adapter",
        hint=f"{said}an optimizer with Kahan summation takes {format_size(kahan)}, one with stochastic rounding (torchao's "
        f"bf16_stochastic_round) no more than this plan; the card has {format_size(gpu.usable_bytes)}",
        numbers={"kahan_bytes": kahan, **({"fp32_weights_bytes": whole.totals.expected_bytes} if whole else {})},
        evidence=("F13",),
    )


_FITS = {Fit.FITS: "which fits", Fit.UNCERTAIN: "which may fit", Fit.DOES_NOT_FIT: "which does not fit"}


def interval_wide(s: Situation) -> Iterator[Finding]:
    """The estimate says of itself that it is unsure."""
    memory = s.focus.memory
    if memory.high_bytes < threshold("interval_wide") * memory.low_bytes:
        return
    yield Finding(
        id="interval-wide",
        level=Level.WARNING,
        message=f"the estimate spans {format_size(memory.low_bytes)} to {format_size(memory.high_bytes)}: {memory.interval.source}",
        numbers={"low_bytes": memory.low_bytes, "high_bytes": memory.high_bytes},
    )


def estimate_notes(s: Situation) -> Iterator[Finding]:
    """What the estimate has to say about itself."""
    for note in s.focus.memory.notes:
        if note == EXPERTS_IN_16_BIT and s.case.model.tables is not None:
            continue  # `experts_in_16_bit` counts them
        yield Finding(id="estimate-note", level=Level.INFO, message=note)


def batch_room(s: Situation) -> Iterator[Finding]:
    """Room for larger micro-batches with less accumulation: the same step, sooner done."""
    rung, plan = s.focus, s.focus.plan
    room = rung.max_micro_batch_size or 0
    if rung.fit is not Fit.FITS or plan.grad_accum_steps == 1 or room < threshold("batch_room") * plan.micro_batch_size:
        return
    total = plan.micro_batch_size * plan.grad_accum_steps
    best = max(size for size in range(1, min(room, total) + 1) if total % size == 0)
    if best <= plan.micro_batch_size:
        return
    yield Finding(
        id="batch-room",
        level=Level.INFO,
        message=f"micro-batches up to {room} fit: {best} with accumulation {total // best} is the same step in fewer passes",
        hint=f"--batch-size {best} --grad-accum {total // best}",
        numbers={"max_micro_batch_size": room, "micro_batch_size": best, "grad_accum_steps": total // best},
    )
