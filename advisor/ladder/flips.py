"""What would change the answer, each as a number that was computed: an option let go, more cards, longer sequences, another card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from advisor.ladder.fit import SHORTEST_SEQ_TOKENS, Case, fits, largest, longest_seq, make_fit, price
from advisor.ladder.knowledge import say
from advisor.ladder.rungs import fixed_options
from advisor.ladder.situation import Situation
from advisor.stacks import default_plan
from advisor.units import format_size
from advisor.values import Fit, Method, Plan, Rung, Sharding

MOST_CARDS = 64
"""How far to search for a number of cards. Judgement: eight nodes of eight; whoever has more does not ask here."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A change of circumstances and what it does. `opens`: it makes something fit that does not fit now."""

    sentence: str
    opens: bool


def flips(situation: Situation) -> tuple[Flip, ...]:
    """In the order in which a reader would act on them."""
    s = situation
    return (*_let_go(s), *_shorter(s), *_more_cards(s), *_longer(s), *_other_card(s), *_evidence(s))


def cards_needed(case: Case, plan: Plan) -> int | None:
    """Fewest cards of this kind, beyond the plan's, on which the plan surely fits when everything is sharded; None up to the limit."""
    least = plan.n_gpus + 1
    sequences = plan.micro_batch_size * plan.grad_accum_steps * plan.n_gpus

    def too_few(extra: int) -> bool:
        n_gpus = least + extra - 1
        accumulation = max(1, sequences // (plan.micro_batch_size * n_gpus))
        shards = {"n_gpus": n_gpus, "sharding": Sharding.FSDP, "grad_accum_steps": accumulation}
        return not fits(case, plan.model_copy(update=shards))

    span = MOST_CARDS - least + 1
    if span <= 0:
        return None
    short = largest(span, too_few)
    return least + short if short < span else None


def _let_go(s: Situation) -> Iterator[Flip]:
    """The first of the options that the user fixed which alone keeps the plan from fitting."""
    if s.chosen is not None and s.chosen.fit is Fit.FITS:
        return
    method, fixed = s.focus.plan.method, fixed_options(s.request)
    for option in ("kbit_prepare", "checkpointing", "batch_size", "optimizer", "seq_len"):
        if option in fixed:
            freed = make_fit(s.case, default_plan(method, s.case.model, s.case.gpu, s.request), fixed - {option})
            if freed.fit is Fit.FITS:
                changes = ", ".join(change.what for change in freed.changes)
                yield Flip(say("flip.let_go", method=method.label, changes=changes), opens=True)
                return


def _shorter(s: Situation) -> Iterator[Flip]:
    """LoRA that fits, but only with sequences cut, where another rung was chosen for that."""
    lora = s.rung(Method.LORA)
    if s.request.method is None and s.chosen is not lora and lora.fit is Fit.FITS:
        yield Flip(say("flip.shorter", method=Method.LORA.label, seq=f"{lora.plan.seq_len_tokens:,}"), opens=False)


def _more_cards(s: Situation) -> Iterator[Flip]:
    """Rungs that do not fit, on several cards of the kind: the one asked for, else LoRA and full, QLoRA first when nothing fits."""
    asked_seq = max(rung.plan.seq_len_tokens for rung in s.rungs)
    frugal = () if s.chosen is not None else (Method.QLORA,)
    wanted = (*frugal, Method.LORA, Method.FULL) if s.request.method is None else (s.request.method,)
    for rung in map(s.rung, wanted):
        if rung.fit is Fit.FITS and rung.plan.seq_len_tokens == asked_seq:
            continue
        plan = _to_shard(s, rung)
        found = cards_needed(s.case, plan)
        one = plan.model_copy(update={"n_gpus": 1, "sharding": Sharding.NONE})
        values = {"method": rung.plan.method.label, "gpu": s.case.gpu.name, "size": format_size(price(s.case, one).memory.expected_bytes)}
        if found is None:
            yield Flip(say("flip.no_cards", limit=MOST_CARDS, **values), opens=False)
        else:
            yield Flip(say("flip.cards", n=found, **values), opens=True)


def _to_shard(s: Situation, rung: Rung) -> Plan:
    """The rung's plan at the length asked for, with checkpointing, and with the optimizer that it started from."""
    first = default_plan(rung.plan.method, s.case.model, s.case.gpu, s.request)
    checkpointing = True if s.request.checkpointing is None else s.request.checkpointing
    return first.model_copy(update={"gradient_checkpointing": checkpointing})


def _longer(s: Situation) -> Iterator[Flip]:
    """Where longer sequences end, and what checkpointing would add."""
    rung, limit = s.chosen, s.case.model.max_position_tokens
    if rung is None or rung.max_seq_len_tokens is None:
        return
    longest = rung.max_seq_len_tokens
    values = {"method": rung.plan.method.label, "seq": f"{longest:,}", "batch": rung.plan.micro_batch_size}
    if limit is not None and longest >= limit:
        yield Flip(say("flip.any_length", **values), opens=False)
    elif not rung.plan.gradient_checkpointing and s.request.checkpointing is None:
        further = longest_seq(s.case, rung.plan.model_copy(update={"gradient_checkpointing": True}))
        yield Flip(say("flip.longer_checkpointed", further=f"{further or longest:,}", **values), opens=False)
    elif longest >= SHORTEST_SEQ_TOKENS:
        yield Flip(say("flip.longer", **values), opens=False)


def _other_card(s: Situation) -> Iterator[Flip]:
    """How much memory moves the answer one rung down or up."""
    lora, qlora = s.rung(Method.LORA), s.rung(Method.QLORA)
    if s.chosen is None:
        smallest = min(s.rungs, key=lambda rung: rung.memory.high_bytes) if s.request.method is None else s.rung(s.request.method)
        size = format_size(smallest.memory.high_bytes)
        yield Flip(say("flip.any_card", method=smallest.plan.method.label, size=size), opens=True)
    elif s.request.method is None and s.chosen is lora:
        sizes = {"lora": format_size(lora.memory.high_bytes), "qlora": format_size(qlora.memory.high_bytes)}
        yield Flip(say("flip.smaller_card", **sizes), opens=False)
    elif s.request.method is None and lora.fit is not Fit.FITS:
        yield Flip(say("flip.larger_card", lora=format_size(lora.memory.high_bytes)), opens=True)


def _evidence(s: Situation) -> Iterator[Flip]:
    """What a run would have to show for the rank to be the limit."""
    if s.chosen is not None and s.chosen.plan.method in (Method.LORA, Method.QLORA):
        rank = s.chosen.plan.rank
        yield Flip(say("flip.rank", method=s.chosen.plan.method.label, rank=rank, higher=4 * rank), opens=False)
