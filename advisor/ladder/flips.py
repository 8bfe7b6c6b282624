"""What would change the answer, each as a number that was computed: an option let go, more cards, longer sequences, another card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.checkpoints import unshardable
from advisor.ladder.fit import Case, fits, largest, longest_seq, may_fit, price
from advisor.ladder.knowledge import say, threshold
from advisor.ladder.moves import without_accumulation
from advisor.ladder.rungs import fixed_options
from advisor.ladder.search import SHORTEST_SEQ_TOKENS, changes_for, make_fit
from advisor.ladder.situation import Situation
from advisor.stacks import default_plan
from advisor.stacks.engines import shared
from advisor.units import format_size
from advisor.values import Fit, Method, Plan, Rung, Sharding

MOST_CARDS = 64
"""How far to search for a number of cards. Judgement: eight nodes of eight; whoever has more does not ask here."""


class Flip(NamedTuple):
    """A change of circumstances and what it does. `opens`: it makes something fit that does not fit now."""

    sentence: str
    opens: bool


def flips(situation: Situation) -> tuple[Flip, ...]:
    """In the order in which a reader would act on them."""
    s = situation
    return (*_let_go(s), *_shorter(s), *_more_cards(s), *_longer(s), *_other_card(s), *_evidence(s))


def on_cards(plan: Plan, n_gpus: int) -> Plan:
    """The plan with everything sharded over `n_gpus` cards, and as much less accumulation as there are more cards."""
    sequences = plan.micro_batch_size * plan.grad_accum_steps * plan.n_gpus
    accumulation = max(1, sequences // (plan.micro_batch_size * n_gpus))
    sharding = plan.sharding if plan.sharding.shards_weights else Sharding.FSDP2
    return shared(plan.model_copy(update={"n_gpus": n_gpus, "grad_accum_steps": accumulation}), sharding)


def cards_needed(case: Case, plan: Plan, at_hand: int = 1) -> int | None:
    """Fewest cards of this kind, beyond those at hand, on which the plan surely fits when everything is sharded; None up to the limit."""
    least = max(plan.n_gpus, at_hand) + 1
    span = MOST_CARDS - least + 1

    def falls_short(extra: int) -> bool:
        shared_out = on_cards(plan, least + extra - 1)
        return not any(may_fit(case, each) and fits(case, each) for each in (shared_out, without_accumulation(shared_out)))

    short = largest(span, falls_short)
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
    """How many cards of the kind hold the rungs that do not fit: the one asked for, else LoRA and full, QLoRA first when nothing fits."""
    asked_seq = max(rung.plan.seq_len_tokens for rung in s.rungs)
    wanted = (Method.LORA, Method.FULL) if s.request.method is None else (s.request.method,)
    short = (rung for rung in map(s.rung, wanted) if rung.fit is not Fit.FITS or rung.plan.seq_len_tokens < asked_seq)
    plans = [_to_shard(s, rung) for rung in short if _can_shard(s.case, rung)]
    at_hand = s.request.gpus or 1
    needed = [(plan, cards_needed(s.case, plan, at_hand)) for plan in plans]
    if s.chosen is None and s.request.method is None and _can_shard(s.case, s.rung(Method.QLORA)):
        frugal = _to_shard(s, s.rung(Method.QLORA))
        fewer = cards_needed(s.case, frugal, at_hand)
        if fewer is not None and fewer < (needed[0][1] or MOST_CARDS + 1):  # quantising saves nothing where most weights are bare experts
            needed.insert(0, (frugal, fewer))
    if needed:
        found = ", ".join(f"{plan.method.label} {_number(s.case, plan, cards, at_hand)}" for plan, cards in needed)
        yield Flip(say("flip.cards", found=found), opens=any(cards is not None for _, cards in needed))


def _can_shard(case: Case, rung: Rung) -> bool:
    """Whether the checkpoint trains so, and its weights can be split over cards; of a model without tables that is not priced."""
    return case.model.tables is not None and rung.fit is not Fit.WOULD_NOT_START and not unshardable(case.model, rung.plan.quantization)


def _number(case: Case, plan: Plan, found: int | None, at_hand: int) -> str:
    """How many cards the plan needs: "3", "2 or 3" where it may fit on one fewer, "more than 64"."""
    if found is None:
        return f"more than {MOST_CARDS}"
    fewer = found - 1
    unsure = fewer > at_hand and price(case, on_cards(plan, fewer)).fit is Fit.UNCERTAIN
    return f"{fewer} or {found}" if unsure else str(found)


def _to_shard(s: Situation, rung: Rung) -> Plan:
    """The rung's plan at the length asked for, with checkpointing, and with the optimizer that it started from."""
    first = default_plan(rung.plan.method, s.case.model, s.case.gpu, s.request)
    checkpointing = rung.plan.gradient_checkpointing or s.request.checkpointing is None
    restored = {"gradient_checkpointing": checkpointing, "optimizer": first.optimizer, "seq_len_tokens": first.seq_len_tokens}
    return rung.plan.model_copy(update=restored)


def _longer(s: Situation) -> Iterator[Flip]:
    """Where longer sequences end, and what they need."""
    rung, limit = s.chosen, s.case.model.max_position_tokens
    if rung is None or rung.max_seq_len_tokens is None:
        return
    longest = rung.max_seq_len_tokens
    values = {"method": rung.plan.method.label, "seq": f"{longest:,}", "batch": rung.plan.micro_batch_size}
    needed = changes_for(s.case, rung.plan, longest, fixed_options(s.request)) if s.case.model.tables is not None else ()
    if needed:
        own = f"{longest_seq(s.case, rung.plan) or rung.plan.seq_len_tokens:,}"
        changes = ", ".join(change.what for change in needed)
        yield Flip(say("flip.longer_changed", own=own, changes=changes, **values), opens=False)
    elif limit is not None and longest >= limit:
        yield Flip(say("flip.any_length", **values), opens=False)
    elif longest >= SHORTEST_SEQ_TOKENS:
        yield Flip(say("flip.longer", **values), opens=False)


def _other_card(s: Situation) -> Iterator[Flip]:
    """How much memory moves the answer one rung down or up."""
    lora, qlora = s.rung(Method.LORA), s.rung(Method.QLORA)
    cards = "a card with" if lora.plan.n_gpus == 1 else f"{lora.plan.n_gpus} cards, each with"
    if s.chosen is None:
        able = (rung for rung in s.rungs if rung.fit is not Fit.WOULD_NOT_START)
        smallest = min(able, key=lambda rung: rung.memory.high_bytes) if s.request.method is None else s.rung(s.request.method)
        yield _fits_card(cards, smallest)
    elif s.request.method is None and s.chosen is lora:
        sizes = {"lora": format_size(lora.memory.high_bytes), "qlora": format_size(qlora.memory.high_bytes)}
        yield Flip(say("flip.smaller_card", cards=cards, **sizes), opens=False)
    elif s.request.method is None and lora.fit in (Fit.UNCERTAIN, Fit.DOES_NOT_FIT):
        yield _fits_card(cards, lora)


def _fits_card(cards: str, rung: Rung) -> Flip:
    size = format_size(rung.memory.high_bytes)
    return Flip(say("flip.any_card", method=rung.plan.method.label, cards=cards, size=size), opens=True)


def _evidence(s: Situation) -> Iterator[Flip]:
    """What a run would have to show for the rank to be the limit."""
    if s.chosen is not None and s.chosen.plan.method in (Method.LORA, Method.QLORA):
        rank = s.chosen.plan.rank
        higher = min(4 * rank, int(threshold("rho_cpt_rank")))  # no published comparison gains beyond it (fact C12)
        if higher > rank:
            yield Flip(say("flip.rank", method=s.chosen.plan.method.label, rank=rank, higher=higher), opens=False)
