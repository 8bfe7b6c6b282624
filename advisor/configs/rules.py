"""What is noticed about a configuration. A rule is a plain function of what was checked; ids are stable.

Rules of the ladder that speak of one plan are used as they are, with their hints in the framework's own words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from advisor.checkpoints import expanded_by, in_16_bit
from advisor.configs import rules_run
from advisor.configs.situation import Checked
from advisor.ladder import rules_capacity, rules_memory, rules_setup
from advisor.ladder.fit import price
from advisor.ladder.knowledge import threshold
from advisor.ladder.rungs import rung_of
from advisor.ladder.search import make_fit
from advisor.ladder.situation import Situation
from advisor.memory.head import WHOLE_LOGITS
from advisor.stacks import smallest_wrapped
from advisor.stacks.rooms import changed_settings, setting_for, spelled
from advisor.units import format_size
from advisor.values import Finding, Fit, Level, Loss, Method, ModelSpec, Plan, Quantization, Verdict
from advisor.values.run import options_of

Rule = Callable[[Checked], Iterable[Finding]]

_OF_THE_LADDER = (
    rules_memory.kbit_upcast,
    rules_memory.attention_by_math,
    rules_memory.experts_in_16_bit,
    rules_memory.interval_wide,
    rules_memory.estimate_notes,
    rules_capacity.rank_high,
    rules_capacity.alpha_small,
    rules_setup.seq_beyond_positions,
    rules_setup.bf16_unsupported,
    rules_setup.fp16_weights_trained,
    rules_setup.batch_high,
    rules_setup.targets_without_mlp,
    rules_setup.attention_unsupported,
)


def findings(checked: Checked) -> tuple[Finding, ...]:
    """What every rule noticed, in the order of the rules. Without a closed form only those speak that need no other price."""
    rules = RULES if checked.closed_form else (*(rule for rule in RULES if rule not in _PRICING),)
    return tuple(finding for rule in rules for finding in rule(checked))


def fits(c: Checked) -> Iterator[Finding]:
    """Whether it fits, barely fits, does not, or cannot be told, with what is not priced; what would make it fit."""
    if c.gpu is None or c.fit is None:
        return
    usable, low, high = c.gpu.usable_bytes, c.memory.low_bytes + c.beside_bytes, c.memory.high_bytes + c.beside_bytes
    expected, label, reason = c.memory.expected_bytes + c.beside_bytes, c.plan.method.label, c.settled.reason
    numbers = {"low_bytes": low, "expected_bytes": expected, "high_bytes": high, "usable_bytes": usable}
    size = f"{format_size(expected)} expected ({format_size(low)} to {format_size(high)}) of {format_size(usable)}"
    size = f"{size}; {reason}" if reason else size

    def found(id: str, level: Level, message: str, hint: str = "") -> Finding:
        return Finding(id=id, level=level, message=message, hint=hint, numbers=numbers)

    if c.fit is Fit.DOES_NOT_FIT:
        yield found("does-not-fit", Level.ERROR, f"{label} does not fit: {size}", _cure(c))
    elif c.fit is Fit.UNCERTAIN:
        where = "" if c.fit is not c.priced_fit else "; the card lies inside the estimate's interval"
        hint = "" if c.priced_fit is Fit.FITS else _cure(c)
        yield found("fit-uncertain", Level.WARNING, f"{label} may or may not fit: {size}{where}", hint)
    elif usable - high < threshold("headroom_tight") * usable:
        hint = "keep other processes off the card, and evaluate with the same batch and length as in training"
        message = f"{label} fits with only {format_size(usable - high)} beyond the estimate's upper end: {size}"
        yield found("fits-tightly", Level.WARNING, message, hint)
    else:
        yield found("fits", Level.INFO, f"{label} fits: {size}")


def _cure(c: Checked) -> str:
    """The cheapest changes that make it fit, as settings; else another method; else a card."""
    if c.case is None or not c.closed_form:
        return ""
    first = c.plan
    if first.eval_micro_batch_size is not None:
        first = first.model_copy(update={"eval_micro_batch_size": 1})
        memory = price(c.case, first).memory
        if first != c.plan and memory.high_bytes + c.beside_bytes <= c.case.gpu.usable_bytes:
            return f"fits where evaluation takes one sequence at a time ({format_size(memory.expected_bytes + c.beside_bytes)})"
    better = make_fit(c.case, first, frozenset())
    if better.fit is Fit.FITS and better.memory.high_bytes + c.beside_bytes <= c.case.gpu.usable_bytes:
        settings = changed_settings(first, better.plan) or tuple(change.what for change in better.changes)
        return f"fits with {'; '.join(settings)} ({format_size(better.memory.expected_bytes + c.beside_bytes)})"
    fitting = [plan for plan in _other_methods(c.model, better.plan) if price(c.case, plan).fit is Fit.FITS]
    if fitting:
        settings = changed_settings(first, fitting[0])
        how = f": {'; '.join(settings)}" if settings else ""
        return f"{fitting[0].method.label} fits ({format_size(price(c.case, fitting[0]).memory.expected_bytes)}){how}"
    return f"nothing smaller was found on this card; the most frugal plan tried takes up to {format_size(better.memory.high_bytes)}"


def _other_methods(model: ModelSpec, frugal: Plan) -> Iterator[Plan]:
    """LoRA and QLoRA with the same loop, for plans that are not QLoRA already; bitsandbytes quantises 16-bit checkpoints only."""
    from advisor.stacks import defaults_of

    defaults = defaults_of(frugal.stack)
    if frugal.method is Method.FULL:
        yield frugal.model_copy(update={"method": Method.LORA, "adapter_dtype": defaults.adapter_dtype.value})
    if frugal.quantization is None and not expanded_by(model):
        update = {"method": Method.QLORA, "quantization": Quantization.NF4, "double_quant": True, "kbit_prepare": False}
        yield frugal.model_copy(update={**update, "adapter_dtype": defaults.quantized_adapter_dtype.value})


def targets_match_nothing(c: Checked) -> Iterator[Finding]:
    """peft adapts what matches and says nothing of the rest; where nothing matches it stops."""
    if not c.missing:
        return
    from advisor.stacks.targets import available_targets

    listed = ", ".join(available_targets(c.model))
    names = ", ".join(c.missing)
    outcome = "nothing would be adapted, and peft stops" if c.nothing_adapted else "they are left out without a word"
    yield Finding(
        id="targets-match-nothing",
        level=Level.ERROR if c.nothing_adapted else Level.WARNING,
        message=f"no linear layer of {c.model.id} is called {names}: {outcome}",
        hint=f"there are {listed}",
        numbers={"missing": len(c.missing)},
    )


def rank_above_matrix(c: Checked) -> Iterator[Finding]:
    """A rank that the smallest wrapped matrix cannot carry."""
    if not c.plan.method.has_adapter:
        return
    smallest = smallest_wrapped(c.model, c.plan.target_modules)
    if smallest is None or c.plan.rank <= smallest.limit:
        return
    shape = f"{smallest.linear.out_features:,} × {smallest.linear.in_features:,}"
    yield Finding(
        id="rank-above-matrix",
        level=Level.WARNING,
        message=f"rank {c.plan.rank} is above what {smallest.linear.name} ({shape}) can carry: the surplus is trained and changes nothing",
        hint=f"at most {smallest.limit}",
        numbers={"rank": c.plan.rank, "limit": smallest.limit},
    )


def checkpointing_off(c: Checked) -> Iterator[Finding]:
    """What checkpointing would save."""
    if c.plan.gradient_checkpointing:
        return
    saved = c.saving(gradient_checkpointing=True)
    if saved <= 0:
        return
    yield Finding(
        id="checkpointing-off",
        level=Level.INFO if c.fit in (Fit.FITS, None) else Level.WARNING,
        message=f"gradient checkpointing is off: it would save {format_size(saved)}, for about a third more time",
        hint=setting_for(c.plan.stack, "checkpointing"),
        numbers={"saved_bytes": saved},
    )


def whole_logits(c: Checked) -> Iterator[Finding]:
    """What the logits of all tokens at once cost over a loss in chunks."""
    if c.plan.loss not in WHOLE_LOGITS:
        return
    saved = c.saving(loss=Loss.FUSED)
    if saved < threshold("headroom_tight") * c.memory.expected_bytes:
        return
    yield Finding(
        id="whole-logits",
        level=Level.INFO if c.fit in (Fit.FITS, None) else Level.WARNING,
        message=f"the logits of all tokens are made at once: a loss in chunks or fused into the head saves {format_size(saved)}",
        hint=setting_for(c.plan.stack, "fused-loss"),
        numbers={"saved_bytes": saved},
    )


def modules_to_save(c: Checked) -> Iterator[Finding]:
    """Embeddings or head that are trained whole beside the adapter."""
    if not c.reading.modules_to_save:
        return
    names = ", ".join(c.reading.modules_to_save)
    yield Finding(
        id="modules-to-save",
        level=Level.WARNING if c.beside_bytes else Level.INFO,
        message=f"{names} are trained whole beside the adapter: a copy, gradients and states, {format_size(c.beside_bytes)}",
        hint="needed only where tokens were added" if c.beside_bytes else "",
        numbers={"beside_bytes": c.beside_bytes},
    )


def quantized_needlessly(c: Checked) -> Iterator[Finding]:
    """A quantised base although the 16-bit one fits."""
    if c.case is None or c.plan.quantization is None or c.fit is not Fit.FITS:
        return
    method = Method.DORA if c.plan.method.is_dora else Method.LORA
    update = {"method": method, "quantization": None, "double_quant": False, "kbit_prepare": False}
    twin = price(c.case._replace(model=in_16_bit(c.case.model)), c.plan.model_copy(update=update))
    if twin.memory.high_bytes + c.beside_bytes > c.case.gpu.usable_bytes:
        return
    yield Finding(
        id="quantized-needlessly",
        level=Level.INFO,
        message=f"{method.label} on the 16-bit base fits this card too ({format_size(twin.memory.expected_bytes)}): 4 bit costs time",
        hint="quantise where memory asks for it, and not before",
        numbers={"unquantized_bytes": twin.memory.expected_bytes},
        evidence=("Q5", "Q7", "Q8"),
    )


def remarks(c: Checked) -> Iterator[Finding]:
    """What the file says and the plan does not."""
    for remark in c.reading.remarks:
        level = Level.ERROR if remark.stops else Level.WARNING
        yield Finding(id=remark.id, level=level, message=remark.text, hint=remark.hint)


def release(c: Checked) -> Iterator[Finding]:
    """What the release does otherwise than the one that the defaults were read in."""
    for source in c.profile.differs:
        yield Finding(id="release", level=Level.INFO, message=f"{c.profile.defaults.package} {c.profile.defaults.version}: {source}")


def of_the_ladder(c: Checked) -> Iterator[Finding]:
    """The ladder's rules, on this plan alone."""
    if c.case is None:
        return
    request = options_of(c.plan)
    rung = rung_of(c.case, request, price(c.case, c.plan), stretch=False)
    verdict = Verdict(method=c.plan.method, binding="none", sentence="")
    situation = Situation(c.case, request, (rung,), verdict)
    for rule in _OF_THE_LADDER:
        for finding in rule(situation):
            yield finding.model_copy(update={"hint": spelled(c.plan.stack, finding.hint)})


RULES: tuple[Rule, ...] = (
    fits,
    targets_match_nothing,
    rank_above_matrix,
    checkpointing_off,
    whole_logits,
    rules_run.dora_dropout,
    rules_run.experts_dropout,
    modules_to_save,
    rules_run.evaluation_larger,
    rules_run.host_loads,
    rules_run.saved_whole,
    quantized_needlessly,
    of_the_ladder,
    remarks,
    release,
)
_PRICING: tuple[Rule, ...] = (checkpointing_off, whole_logits, quantized_needlessly, of_the_ladder)
"""Rules that price other plans than the one that is checked."""
