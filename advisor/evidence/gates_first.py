"""R0 and R1: no run yet, and memory that binds."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.evidence.lr import rounded, three_points
from advisor.evidence.pricing import fits_after_error, fits_surely, price_of
from advisor.evidence.published import move
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run
from advisor.evidence.view import View
from advisor.ladder.first_run import SCHEDULE, WARMUP, first_run, items_words, pilot_share, within_budget
from advisor.ladder.knowledge import gate
from advisor.ladder.learning_rate import prior_by_size, show
from advisor.stacks.first_plan import ALPHA_PER_RANK, FIRST_EFFECTIVE_BATCH, FIRST_RANK, FIRST_SEQ_LEN_TOKENS
from advisor.units import format_share
from advisor.values import ALL_LINEAR, Method, Quantization, Task
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Door, NextRun

NOTHING_SHOWN = "no run has been recorded, so nothing has shown yet what binds"


def no_run_yet(view: View) -> Result | None:
    """R0. LoRA is the floor to measure from; QLoRA where only that fits."""
    if view.facts.runs:
        return None
    lora = _first(view, Method.LORA)
    too_big = fits_surely(view, lora) is False
    planned, held = _within_budget(view, _first(view, Method.QLORA) if too_big else lora)
    rates = ", ".join(map(show, planned.learning_rates))
    length = f" for {planned.epochs:g} epoch{'' if planned.epochs == 1 else 's'}" if planned.epochs is not None else ""
    return Result(
        gate="R0",
        binding=Binding.MEMORY if too_big else Binding.UNKNOWN,
        door=Door.QLORA if too_big else Door.LORA,
        confidence=MEDIUM,
        reason=f"16-bit LoRA does not fit the card, and {NOTHING_SHOWN}" if too_big else NOTHING_SHOWN,
        experiment=f"Score the untuned model with a good prompt on a fixed held-out set{items_words(view.facts.evaluation.n)}, keep the "
        f"result of every item, then train {planned.method.label} rank {planned.rank}, alpha {planned.alpha:g}, at learning rates {rates} "
        f"on {view.sweep_words(planned.data_fraction, planned.epochs)}{length}{held}, {SCHEDULE} schedule, {format_share(WARMUP)} warm-up, "
        "and score all three on the same items. Widen the sweep while its best is at an edge, and run the best on all of the data.",
        run=planned,
        evidence=("LR1", "LR3", "LR16", "LR21", "T4", "Q11", "N3", "N7", "B11"),
        missing=("the score of the untuned model", "the number of held-out items", "the score that would be good enough"),
        is_door=True,
    )


def _within_budget(view: View, planned: NextRun) -> tuple[NextRun, str]:
    """The pilots on as much of the data as the budget pays for, and what is said of it."""
    price = price_of(view, planned) if view.facts.budget_usd is not None else None
    usd = price.usd.high if price is not None and price.usd is not None else None
    share, held = within_budget(planned.data_fraction, usd, view.facts.budget_usd)
    return planned.model_copy(update={"data_fraction": share}), held


def _first(view: View, method: Method) -> NextRun:
    """The first run as the ladder sizes it; without a model's shape, at the default rank."""
    model, rank = view.facts.model, FIRST_RANK
    if model is not None:
        first = first_run(model, method, Task.RL if view.objective == "rl" else view.facts.task, view.tokens)
        rank, rates, epochs = first.rank, tuple(map(rounded, first.rates)), first.epochs
    else:
        rates, epochs = three_points(prior_by_size(view.params or 0)), None
    return NextRun(
        method=method,
        rank=rank,
        alpha=ALPHA_PER_RANK * rank,
        targets=(ALL_LINEAR,),
        dropout=0.0,
        quantization=Quantization.NF4 if method.is_quantized else None,
        learning_rates=rates,
        batch=FIRST_EFFECTIVE_BATCH,
        epochs=epochs,
        data_fraction=pilot_share(view.tokens, FIRST_EFFECTIVE_BATCH, FIRST_SEQ_LEN_TOKENS, epochs or 1.0),
    )


def memory_binds(view: View) -> Result | None:
    """R1. The run to go on from ran out of memory. A lower rank is never the answer (facts Q2, Q9)."""
    run = view.run
    if not run.oom:
        return None
    frugal = {"micro_batch": 1, "gradient_checkpointing": True}
    for method in _down(run.method):
        planned = _on(run, method, frugal)
        if _worth_trying(view, run, planned):
            return _memory(view, planned, keeps=method is run.method)
    lower = _lower_rank(view, run, frugal)
    return lower if lower is not None else _nowhere(view)


def _lower_rank(view: View, run: RunFacts, frugal: Mapping[str, object]) -> Result | None:
    """The one case in which a lower rank makes room: an adapter so large that it weighs beside a 4-bit base."""
    if run.rank is None or run.rank < gate("rank_memory_matters"):
        return None
    rank = run.rank // int(gate("rank_step"))
    planned = _on(run, _down(run.method)[-1], {**frugal, "rank": rank, "alpha": ALPHA_PER_RANK * rank})
    return _memory(view, planned, keeps=planned.method is run.method) if fits_surely(view, planned) is True else None


def _worth_trying(view: View, run: RunFacts, planned: NextRun) -> bool:
    """The same method where cheap changes are left and surely suffice; one that takes less where it fits."""
    if planned.method is not run.method:
        return fits_surely(view, planned) is True or (planned.method.is_quantized and fits_surely(view, planned) is not False)
    if run.gradient_checkpointing and run.micro_batch == 1:
        return False
    fits = fits_after_error(view, planned)
    return fits is not False if planned.method.is_quantized else fits is True


def _down(method: Method) -> tuple[Method, ...]:
    """The method itself with cheap changes, then what needs less."""
    return {
        Method.FULL: (Method.FULL, Method.LORA, Method.QLORA),
        Method.LORA: (Method.LORA, Method.QLORA),
        Method.DORA: (Method.DORA, Method.QDORA),
        Method.QLORA: (Method.QLORA,),
        Method.QDORA: (Method.QDORA, Method.QLORA),
    }[method]


def _on(run: RunFacts, method: Method, frugal: Mapping[str, object]) -> NextRun:
    changes = dict(frugal)
    changes["method"] = method
    changes["quantization"] = (run.quantization or Quantization.NF4) if method.is_quantized else None
    if method.has_adapter and run.rank is None:
        changes |= {"rank": FIRST_RANK, "alpha": ALPHA_PER_RANK * FIRST_RANK, "targets": run.targets or (ALL_LINEAR,)}
    return next_run(run, **changes)


def _memory(view: View, planned: NextRun, keeps: bool) -> Result:
    run = view.run
    cheap = "micro-batch 1, accumulation and gradient checkpointing"
    quantised = planned.method.is_quantized and not run.method.is_quantized
    price = price_of(view, planned)
    more = "".join(f", {change}" for change in price.changes) if price is not None else ""
    what = f"Run {planned.method.label}" if not keeps else "Run it again"
    lowered = planned.rank != run.rank and run.rank is not None
    nearly = f"rank {planned.rank} gained nearly as much where both were tuned"
    heavy = f"; an adapter of rank {run.rank} is no small part of the memory, and {nearly}"
    small = "; a lower rank would not help, as an adapter is a small part of the memory"
    low_rank = heavy if lowered else small if run.method.has_adapter else ""
    return Result(
        gate="R1",
        binding=Binding.MEMORY,
        door=Door.STAY if keeps else Door(planned.method.value),
        confidence=HIGH,
        reason=f"run {run.label} ran out of memory{low_rank}",
        experiment=f"{what} with {cheap}{more}, everything else unchanged; the longest sequences decide, so start with those.",
        run=planned,
        gain=move("qlora").gain if quantised else None,
        cost=move("qlora").price if quantised else "one more forward pass",
        evidence=("Q1", "Q2", "Q7", "Q8", "Q9", "Q4", "Q5") if quantised else ("Q2", "Q9"),
        missing=_memory_missing(view),
        is_door=not keeps,
    )


def _nowhere(view: View) -> Result:
    run = view.run
    return Result(
        gate="R1",
        binding=Binding.MEMORY,
        door=Door.STOP,
        confidence=MEDIUM if view.facts.gpu is not None else LOW,
        reason=f"run {run.label} ran out of memory, and with every cheap change it does not fit the card; no cheaper rung is left",
        experiment="Shorten the longest sequences or fuse the loss into the head; else take a smaller model, a larger card, or several "
        "cards with everything sharded.",
        evidence=("Q1", "Q2", "Q9"),
        missing=_memory_missing(view),
        is_door=True,
    )


def _memory_missing(view: View) -> tuple[str, ...]:
    return (() if view.facts.model is not None else ("the model's shape",)) + (() if view.facts.gpu is not None else ("the card",))
