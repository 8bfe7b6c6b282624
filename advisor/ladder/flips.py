"""What would change the answer, each as a number that was computed: more cards, longer sequences, an option let go."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.ladder.fit import SHORTEST_SEQ_TOKENS, Case, Priced, fits, largest, make_fit
from advisor.ladder.knowledge import say
from advisor.ladder.rungs import fixed_options
from advisor.ladder.situation import Situation
from advisor.stacks import default_plan
from advisor.units import format_size
from advisor.values import Fit, Method, Plan, Rung, Sharding

MOST_CARDS = 64
"""How far to search for a number of cards. Judgement: eight nodes of eight; whoever has more does not ask here."""


def would_change(situation: Situation) -> tuple[str, ...]:
    """In the order in which a reader would act on them."""
    lines = [*_let_go(situation), *_more_cards(situation), *_longer(situation), *_less_memory(situation)]
    if situation.chosen is not None and situation.chosen.plan.method in (Method.LORA, Method.QLORA):
        rank = situation.chosen.plan.rank
        lines.append(say("flip.rank", method=situation.chosen.plan.method.label, rank=rank, higher=4 * rank))
    return tuple(lines)


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
    short = largest(span, too_few) if span > 0 else span
    return least + short if short < span else None


def _let_go(s: Situation) -> Iterator[str]:
    """Options that the user fixed and that keep the plan from fitting, one at a time."""
    if s.chosen is not None and s.chosen.fit is Fit.FITS:
        return
    method, fixed = s.focus.plan.method, fixed_options(s.request)
    for option in ("kbit_prepare", "checkpointing", "batch_size", "optimizer", "seq_len"):
        if option not in fixed:
            continue
        freed = make_fit(s.case, default_plan(method, s.case.model, s.case.gpu, s.request), fixed - {option})
        if freed.fit is Fit.FITS:
            yield say("flip.let_go", method=method.label, changes=_listed(freed))
            return


def _listed(priced: Priced) -> str:
    return ", ".join(change.what for change in priced.changes)


def _more_cards(s: Situation) -> Iterator[str]:
    """Rungs above the chosen one, or all when nothing fits, on several cards of the kind."""
    wanted = (Method.LORA, Method.FULL) if s.chosen is not None else (Method.QLORA, Method.LORA, Method.FULL)
    for method in wanted:
        rung = s.rung(method)
        if rung.fit is Fit.FITS and rung.plan.seq_len_tokens >= s.focus.plan.seq_len_tokens:
            continue
        plan = _to_shard(s, rung)
        found = cards_needed(s.case, plan)
        size = format_size(rung.memory.expected_bytes)
        if found is None:
            yield say("flip.no_cards", method=method.label, limit=MOST_CARDS, gpu=s.case.gpu.name, size=size)
        else:
            yield say("flip.cards", method=method.label, n=found, gpu=s.case.gpu.name, size=size)


def _to_shard(s: Situation, rung: Rung) -> Plan:
    """The rung's plan at the length asked for, with checkpointing, and with the optimizer that it started from."""
    first = default_plan(rung.plan.method, s.case.model, s.case.gpu, s.request)
    checkpointing = True if s.request.checkpointing is None else s.request.checkpointing
    return first.model_copy(update={"gradient_checkpointing": checkpointing})


def _longer(s: Situation) -> Iterator[str]:
    rung = s.chosen
    if rung is None or rung.max_seq_len_tokens is None:
        return
    longest, limit = rung.max_seq_len_tokens, s.case.model.max_position_tokens
    values = {"method": rung.plan.method.label, "seq": f"{longest:,}", "batch": rung.plan.micro_batch_size}
    if limit is not None and longest >= limit:
        yield say("flip.any_length", **values)
    elif longest >= SHORTEST_SEQ_TOKENS:
        yield say("flip.longer", **values)


def _less_memory(s: Situation) -> Iterator[str]:
    """How much memory moves the answer one rung down or up."""
    lora, qlora = s.rung(Method.LORA), s.rung(Method.QLORA)
    if s.chosen is lora and lora.fit is Fit.FITS and s.request.method is None:
        yield say("flip.smaller_card", lora=format_size(lora.memory.high_bytes), qlora=format_size(qlora.memory.high_bytes))
    elif s.chosen is qlora and lora.fit is not Fit.FITS:
        yield say("flip.larger_card", lora=format_size(lora.memory.high_bytes))
    elif s.chosen is None:
        smallest = min(s.rungs, key=lambda rung: rung.memory.high_bytes)
        yield say("flip.any_card", method=smallest.plan.method.label, size=format_size(smallest.memory.high_bytes))
