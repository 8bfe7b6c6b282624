"""Which rung, which constraint binds, and why not the others. Before any run, only memory can move anybody off the floor."""

from __future__ import annotations

from advisor.checkpoints import refusal
from advisor.ladder.fit import Case
from advisor.ladder.knowledge import say
from advisor.memory.host_memory import said_of_host
from advisor.stacks import first_seq_len
from advisor.units import format_size
from advisor.values import Fit, Method, Request, Rung, Verdict

FIRST_CHOICES = (Method.LORA, Method.QLORA)
"""What may be chosen before any run. DoRA answers to a rank that was shown to be the limit, full fine-tuning to closed doors below:
both need evidence that nobody has yet (facts D2, D15, C6)."""


def decide(case: Case, request: Request, rungs: tuple[Rung, ...]) -> Verdict:
    """LoRA where it fits; QLoRA where only that does; the asked method where one was asked for. Says so where some cards stay idle."""
    verdict = _decided(case, request, rungs)
    asked = request.gpus or 1
    used = next((rung.plan.n_gpus for rung in rungs if rung.plan.method is verdict.method), asked)
    if used == asked:
        return verdict
    idle = say("verdict.fewer_cards", used=used, n=asked)
    return verdict.model_copy(update={"sentence": f"{verdict.sentence} {idle}"})


def _decided(case: Case, request: Request, rungs: tuple[Rung, ...]) -> Verdict:
    if request.method is not None:
        return _asked(case, request, rungs)
    asked_seq = asked_seq_len(case, request)
    rungs = tuple(rung for rung in rungs if rung.fit is not Fit.WOULD_NOT_START)
    choices = tuple(rung for rung in rungs if rung.plan.method in FIRST_CHOICES)
    whole = next((rung for rung in choices if rung.fit is Fit.FITS and rung.plan.seq_len_tokens == asked_seq), None)
    if whole is not None:
        return _whole(case, whole, choices[0])
    fitting = [rung for rung in choices if rung.fit is Fit.FITS]
    if fitting:
        cut = max(fitting, key=lambda rung: rung.plan.seq_len_tokens)
        sentence = say("verdict.shorter", method=cut.plan.method.label, seq=f"{cut.plan.seq_len_tokens:,}", asked=f"{asked_seq:,}")
        return Verdict(method=cut.plan.method, binding="memory", sentence=sentence)
    smallest = min(choices, key=lambda rung: rung.memory.high_bytes)
    if smallest.fit is Fit.UNCERTAIN:
        return Verdict(method=smallest.plan.method, binding="memory", sentence=say("verdict.unsure", **_sizes(case, smallest)))
    smallest = min(rungs, key=lambda rung: rung.memory.expected_bytes)
    return Verdict(method=None, binding="memory", sentence=say("verdict.nothing", **_sizes(case, smallest)))


def why_not(case: Case, request: Request, rung: Rung, verdict: Verdict) -> str:
    """Why this rung was not chosen; empty for the chosen one."""
    method = rung.plan.method
    if method is verdict.method:
        return ""
    if rung.fit is Fit.WOULD_NOT_START:
        return refusal(case.model, method)
    if rung.memory.host is not None and rung.memory.host.lacks:
        return said_of_host(rung.memory.host)
    if method is request.method:
        return verdict.sentence
    sizes = _sizes(case, rung)
    if rung.fit is Fit.UNCERTAIN:
        return say("why_not.unsure", **sizes)
    if rung.fit is Fit.DOES_NOT_FIT:
        if rung.plan.quantization is None and base_bytes(case, rung) > case.gpu.usable_bytes:
            return say("why_not.weights", **sizes)
        tried = ", ".join(change.what for change in rung.changes)
        return say("why_not.no_fit", tried=tried, **sizes) if tried else say("why_not.no_fit_plain", **sizes)
    if rung.plan.seq_len_tokens < asked_seq_len(case, request):
        return say("why_not.shorter", seq=f"{rung.plan.seq_len_tokens:,}")
    if request.method is not None and method is Method.LORA:
        return say("why_not.lora", asked=request.method.label)
    return say(f"why_not.{method.value}")


def asked_seq_len(case: Case, request: Request) -> int:
    """Sequence length before any rung was cut to fit."""
    return request.seq_len or first_seq_len(case.model)


def base_bytes(case: Case, rung: Rung) -> int:
    """The base weights in the plan's type on one card."""
    whole = case.model.params * rung.plan.base_dtype.size_bytes
    return whole // rung.plan.n_gpus if rung.plan.sharding.shards_weights else whole


def _asked(case: Case, request: Request, rungs: tuple[Rung, ...]) -> Verdict:
    rung = next(rung for rung in rungs if rung.plan.method is request.method)
    sizes = _sizes(case, rung)
    asked = asked_seq_len(case, request)
    if rung.fit is Fit.FITS and rung.plan.seq_len_tokens < asked:
        sentence = say("verdict.asked_shorter", seq=f"{rung.plan.seq_len_tokens:,}", asked=f"{asked:,}", **sizes)
        return Verdict(method=rung.plan.method, binding="memory", sentence=sentence)
    if rung.fit is Fit.FITS:
        headroom = format_size(rung.headroom_bytes)
        return Verdict(method=rung.plan.method, binding="none", sentence=say("verdict.asked", headroom=headroom, **sizes))
    if rung.fit is Fit.UNCERTAIN:
        return Verdict(method=rung.plan.method, binding="memory", sentence=say("verdict.asked_unsure", **sizes))
    fitting = ", ".join(other.plan.method.label for other in rungs if other.fit is Fit.FITS and other.plan.seq_len_tokens == asked)
    others = say("verdict.others_fit", fitting=fitting) if fitting else say("verdict.none_fits")
    return Verdict(method=None, binding="memory", sentence=say("verdict.asked_no", others=others, **sizes))


def _whole(case: Case, chosen: Rung, floor: Rung) -> Verdict:
    stored = case.model.checkpoint_format
    if chosen.plan.method is not floor.plan.method:
        return Verdict(method=chosen.plan.method, binding="memory", sentence=say("verdict.qlora", reason=_reason(case, floor)))
    headroom = format_size(chosen.headroom_bytes)
    if chosen.plan.method.is_quantized and stored is not None:
        sentence = say("verdict.stored", stored=stored.label, headroom=headroom)
    else:
        sentence = say("verdict.lora", headroom=headroom)
    return Verdict(method=chosen.plan.method, binding="none", sentence=sentence)


def _reason(case: Case, floor: Rung) -> str:
    """What keeps the floor off the card."""
    if base_bytes(case, floor) > case.gpu.usable_bytes:
        return say("reason.weights", **_sizes(case, floor))
    if floor.fit is Fit.FITS:
        return say("reason.shorter", seq=f"{floor.plan.seq_len_tokens:,}")
    return say("reason.range", **_sizes(case, floor))


def _sizes(case: Case, rung: Rung) -> dict[str, str]:
    memory = rung.memory
    return {
        "method": rung.plan.method.label,
        "low": format_size(memory.low_bytes),
        "high": format_size(memory.high_bytes),
        "expected": format_size(memory.expected_bytes),
        "usable": format_size(case.gpu.usable_bytes),
        "bits": str(8 * rung.plan.base_dtype.size_bytes),
        "weights": format_size(base_bytes(case, rung)) + (" per card" if rung.plan.sharding.shards_weights else ""),
    }
