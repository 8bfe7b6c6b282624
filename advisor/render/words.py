"""How a number reads: bytes, shares, ranges and fits as short text. Formatting only."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.units import GIB, format_count, format_share, format_size, gib
from advisor.values import Fit, Head, Offload, Phase, Plan, Range, Shift, Term

FIT_WORDS = {Fit.FITS: "yes", Fit.UNCERTAIN: "unsure", Fit.DOES_NOT_FIT: "no", Fit.WOULD_NOT_START: "other weights"}
FIT_SENTENCES = {
    Fit.FITS: "fits",
    Fit.UNCERTAIN: "may or may not fit",
    Fit.DOES_NOT_FIT: "does not fit",
    Fit.WOULD_NOT_START: "does not start from these weights",
}
FIT_STYLES = {Fit.FITS: "green", Fit.UNCERTAIN: "yellow", Fit.DOES_NOT_FIT: "red", Fit.WOULD_NOT_START: "red"}


def size(size_bytes: int) -> str:
    """ "38.4 GiB" with one digit; from a thousand GiB on without one."""
    return format_size(size_bytes, 0 if abs(size_bytes) >= 1000 * GIB else 1)


def signed_gib(size_bytes: int) -> str:
    return f"{'+' if size_bytes >= 0 else '−'}{gib(abs(size_bytes))}"


def number(value: float) -> str:
    """Three significant digits, with thousands apart: 0.913, 12.4, 1,840."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def span(bounds: Range, digits: int = 2) -> str:
    low, high = f"{bounds.low:.{digits}f}", f"{bounds.high:.{digits}f}"
    return low if low == high else f"{low}–{high}"


def loose_span(bounds: Range) -> str:
    """ "0.450–1.06", "1.80–4.26", "36.4–86.0": three significant digits, zeros among them, so that ends read as equally exact."""
    low, high = (f"{end:,.0f}" if abs(end) >= 100 else f"{end:#.3g}".rstrip(".") for end in (bounds.low, bounds.high))
    return low if low == high else f"{low}–{high}"


def share(fraction: float) -> str:
    """ "0.31 %": two significant digits below a percent, so that a small adapter does not read as 0."""
    return format_share(fraction, 0 if fraction >= 0.995 else 2)


def tokens(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def term(term: Term) -> str:
    return term.value.replace("_", " ")


def phase(phase: Phase) -> str:
    return phase.value.replace("_", " ")


def advised(message: str, hint: str) -> str:
    """What was noticed, and after an arrow what to do about it."""
    return f"{message} → {hint}" if hint else message


def model(model_id: str, params: int, layers: int) -> str:
    return f"{model_id}: {format_count(params)} parameters, {layers} layers"


def plan(plan: Plan) -> str:
    """The whole set-up in one line."""
    method = plan.method.label
    if plan.method.has_adapter:
        dropout = f", dropout {number(plan.lora_dropout)}" if plan.lora_dropout else ""
        method += f" rank {plan.rank}, alpha {number(plan.alpha)}{dropout}, on {', '.join(plan.target_modules)}"
    base = f"{plan.base_dtype.value}{f' under {plan.autocast_dtype.value} autocast' if plan.autocast else ''}"
    if plan.quantization is not None:
        base = f"{plan.quantization.value}{' double-quantised' if plan.double_quant else ''} base, rest {base}"
    tokens = f"{plan.seq_len_tokens:,} tokens{' with padding' if plan.padding else ''}"
    if plan.image_size_pixels:
        width, height = plan.image_size_pixels
        tokens += f" with {plan.images_per_row} image{'s' if plan.images_per_row > 1 else ''} of {width}x{height}"
    batch = f"{plan.micro_batch_size} × {tokens}, {plan.grad_accum_steps} accumulated"
    checkpointing = f"checkpointing {'on' if plan.gradient_checkpointing else 'off'}"
    if plan.offloads_activations:
        checkpointing += ", activations on the host"
    loss = f"{plan.loss.value} loss{f', shifted {plan.shift.value}' if plan.shift is not Shift.LABELS else ''}; "
    evaluation = f"evaluation of {plan.eval_micro_batch_size} sequences; " if plan.eval_micro_batch_size else ""
    cards = f"{plan.n_gpus} card{'s' if plan.n_gpus > 1 else ''}"
    shared = f"{cards} ({', '.join(sharing(plan))}); " if plan.has_engine else ""
    return (
        f"{method}; {base}; {plan.optimizer.value}; {batch}; {checkpointing}; "
        f"{plan.attention.value} attention; {_head(plan)}{loss}{evaluation}{shared}{plan.stack.value} stack"
    )


def sharing(plan: Plan) -> Iterator[str]:
    """How several cards share the plan's model, beyond the engine's defaults."""
    yield plan.sharding.value
    if plan.shard_group:
        yield f"in groups of {plan.shard_group}"
    if not plan.reshard_after_forward:
        yield "not resharded"
    if plan.sync_each_batch:
        yield "reduced in each micro-batch"
    moved = [part.value for part in plan.offload if part is not Offload.ACTIVATIONS]
    if moved:
        yield f"{' and '.join(moved)} on the host"
    if plan.loads_on_rank_0:
        yield "read by one process of each node"
    stated = plan.deepspeed.model_dump(exclude_defaults=True)
    if plan.sharding.is_zero and stated:
        yield " and ".join(f"{name.removesuffix('_params')} {value}" for name, value in stated.items())


def _head(plan: Plan) -> str:
    """Unsaid for the model's first head."""
    if plan.head is None:
        return ""
    labels = f" of {plan.labels} labels" if plan.head in (Head.CLASSIFICATION, Head.TOKENS) else ""
    return f"{plan.head.value} head{labels}; "


def scaled(value: int | None, unit: int) -> str:
    """A rate in its customary unit: GB/s, TFLOP/s; "-" where no source has it."""
    return "-" if value is None else number(value / unit)
