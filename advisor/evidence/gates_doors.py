"""R10 and R12: DoRA at low ranks and where the rank cannot grow, full fine-tuning once the cheaper doors are closed."""

from __future__ import annotations

from advisor.evidence.capacity import is_deep_pretraining, is_pretraining, rho_largest, tested_step
from advisor.evidence.done import is_done
from advisor.evidence.gates_rank import capacity_suspected, may_test_rank, step_run
from advisor.evidence.lr import around, rate_on_more_data, rounded
from advisor.evidence.noise import Difference
from advisor.evidence.pricing import fits_surely, price_of
from advisor.evidence.published import move
from advisor.evidence.rates import Rates, is_certified, is_swept, sweeps_of
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, next_run, show_gap, show_score
from advisor.evidence.view import View
from advisor.ladder.knowledge import gate, threshold
from advisor.ladder.learning_rate import show
from advisor.units import format_size
from advisor.values import Method
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, NextRun

SKIP = "The ladder would try DoRA before; at this scale of data the evidence skips it, as it has LoRA's rank budget (C5, D15)."
FEW_ITEMS = "the number of held-out items, at least 200: no climb is decided on fewer"


def try_dora(view: View) -> Result | None:
    """R10. The rank is suspected and low or cannot grow, or runs are to spare; refused where served unmerged or tried."""
    why = "" if dora_is_closed(view) else _why_dora(view)
    return _dora(view, why) if why else None


def dora_at_last(view: View) -> Result | None:
    """R10. Every other door is closed, so that one flag and two runs are cheap against stopping."""
    if dora_is_closed(view) or view.gap is None:
        return None
    return _dora(view, "every other door is closed, and the published odds of this one are small")


def dora_is_closed(view: View) -> bool:
    """It does not apply, was tried, or the adapter is as good as full fine-tuning already (fact D8)."""
    run, full = view.run, reference(view)
    if run.method not in (Method.LORA, Method.QLORA) or view.facts.serving == "unmerged" or is_deep_pretraining(view):
        return True
    difference = None if full is None else view.compare(full, run)
    return dora_tried(view) or (difference is not None and difference.delta >= 0) or full_wins(view) is not None


def _dora(view: View, why: str) -> Result:
    run = view.run
    if view.few_items:
        return _too_few(view)
    low_rank = (run.rank or 0) <= gate("dora_low_rank")
    found = move("dora_low_rank" if low_rank else "dora")
    method = Method.QDORA if run.method.is_quantized else Method.DORA
    at = f" at {show(run.learning_rate)}" if run.learning_rate is not None else ""
    return Result(
        gate="R10",
        binding=Binding.CAPACITY if capacity_suspected(view) else Binding.UNKNOWN,
        door=Door(method.value),
        confidence=LOW,
        reason=f"{why}; DoRA is one flag",
        experiment=f"Train {method.label} at rank {run.rank}{at}, dropout 0, two seeds, everything else unchanged; close this door for "
        "good if it does not win.",
        run=next_run(run, method=method, dropout=0.0, seeds=2),
        keep="Keep DoRA",
        gain=found.gain,
        cost=found.price,
        evidence=("D2", "D3", "D5", "D15", "D13", "LR20"),
        disagreement="The ladder opens DoRA when the rank is the limit; the evidence for a gain is thin: 0.1 points on average, 0.65 of "
        "mixed sign at rank 8 and below (D15).",
        is_door=True,
    )


def _why_dora(view: View) -> str:
    run = view.run
    rank = run.rank or 0
    step = step_run(view, run)
    capped = view.facts.rank_cap is not None and rank >= view.facts.rank_cap
    stuck = capped or (step is not None and fits_surely(view, step) is False)
    suspected = capacity_suspected(view)
    if suspected and stuck and tested_step(view) is None:
        return f"the rank is suspected of limiting and cannot grow beyond {run.rank}"
    if capped and rank <= gate("dora_low_rank"):
        return f"rank {run.rank} must stay"
    if suspected and rank <= gate("dora_low_rank") and tested_step(view) is not None:
        return f"rank {run.rank} is suspected of limiting, and more of it alone did not help"
    if view.facts.spare_runs >= gate("dora_spare_runs"):
        return f"{view.facts.spare_runs} runs are to spare"
    return ""


def dora_tried(view: View) -> bool:
    return any(run.method.is_dora and view.score(run) is not None for run in view.facts.runs)


def reference(view: View) -> RunFacts | None:
    """The best full fine-tuning run on as much of the data as the present run."""
    runs = [run for run in view.facts.runs if run.method is Method.FULL and view.score(run) is not None]
    whole = [run for run in runs if run.data_fraction >= (view.focus.data_fraction if view.focus is not None else 1.0)]
    return max(whole, key=lambda run: view.score(run) or 0.0, default=None)


def full_wins(view: View) -> Difference | None:
    """A full fine-tuning run with a sweep of its own is better beyond the noise."""
    full = reference(view)
    if full is None or view.run.method is Method.FULL or not is_certified(view, full) or not view.beats(view.run, full):
        return None
    return view.compare(view.run, full)


def full_won(view: View) -> Result | None:
    """R12. Full fine-tuning with a sweep of its own beats the run, and is at hand: it is believed."""
    won, full = full_wins(view), reference(view)
    if won is None or full is None:
        return None
    paid = move("full")
    return Result(
        gate="R12",
        binding=Binding.CAPACITY,
        door=Door.FULL,
        confidence=HIGH if won.items_known else MEDIUM,
        reason=f"full fine-tuning, with a sweep of its own, beats run {view.run.label} by {show_gap(view, won.delta)}",
        experiment=f"Go on from run {full.label}, which is at hand.",
        go_on_from=full,
        gain=paid.gain,
        cost=paid.price,
        evidence=("C4", "C6", "F1", "F3", "F9", "LR1"),
        is_door=True,
    )


def open_full(view: View) -> Result | None:
    """R12. The cheaper doors are closed: continued pre-training in scale, every rank step won, or rank and DoRA brought nothing."""
    run = view.run
    if run.method is Method.FULL or view.objective == "rl":
        return None
    why = _why_full(view)
    planned = None if why is None else _full_run(view, run)
    if why is None or planned is None:
        return None
    reason, binding, sure = why
    deep = is_deep_pretraining(view)
    if view.few_items and not deep:
        return _too_few(view)
    paid = move("full_cpt" if is_pretraining(view) else "full")
    return Result(
        gate="R12",
        binding=binding,
        door=Door.FULL,
        confidence=sure,
        reason=reason,
        experiment=_full_words(view, planned),
        run=planned,
        keep="Take full fine-tuning",
        gain=paid.gain,
        cost=paid.price,
        evidence=("C4", "C5", "C6", "C16", "F1", "F3", "F9", "B8", "LR1") if deep else ("C4", "C6", "F1", "F3", "F9", "B8", "LR1"),
        missing=(FEW_ITEMS,) if view.few_items else (),
        disagreement=SKIP if deep else "",
        is_door=True,
    )


def _full_words(view: View, planned: NextRun) -> str:
    rates = ", ".join(map(show, planned.learning_rates))
    room = ""
    if fits_surely(view, planned) is False:
        priced = price_of(view, planned)
        size = f" of {format_size(priced.memory.high_bytes)}" if priced is not None else ""
        room = f" It does not fit the card: its peak{size} takes a larger one, or several with everything sharded."
    bigger = " Before paying, try a larger base model with LoRA: that gained more than rank did where both were measured (B8)."
    swept = _newest_sweep(view, [other for other in view.facts.runs if other.method is Method.FULL])
    data = "all of the data" if planned.data_fraction >= 1 else view.sweep_words(planned.data_fraction)
    if swept is not None and swept.best is not None and swept.standing in ("low edge", "high edge"):
        return f"Train all weights at {rates} too, on {data}: the best of the sweep, {show(swept.best.rate)}, is at its edge.{room}"
    if planned.data_fraction < view.run.data_fraction or len(planned.learning_rates) != 1:
        at = f" at {rates}" if rates else ""
        return f"Train all weights{at} on {data}, as pilots of full fine-tuning.{bigger}{room}"
    return f"Train all weights at {rates} on all of the data: the pilots found that rate.{room}"


def _why_full(view: View) -> tuple[str, Binding, Confidence] | None:
    run, rho = view.run, rho_largest(view)
    if is_deep_pretraining(view):
        return f"continued pre-training in scale: even rank 256 has {rho:.2g} LoRA parameters per token", Binding.CAPACITY, MEDIUM
    at_end = run.rank is not None and run.rank >= gate("rank_largest")
    if is_pretraining(view) and at_end:
        return f"rank {run.rank} falls short, and even rank 256 has {rho:.2g} LoRA parameters per token", Binding.CAPACITY, MEDIUM
    if at_end and capacity_suspected(view):
        return f"every rank step won, and rank {run.rank} still falls short", Binding.CAPACITY, MEDIUM
    if view.gap is None or (may_test_rank(view) and _rank_can_grow(view)):
        return None
    dora = "DoRA was tried" if dora_tried(view) else "DoRA's published odds at this rank are small"
    if view.facts.serving == "unmerged":
        dora = "DoRA is refused by unmerged serving"
    return f"the rank is closed and {dora}; {_known_of_full(view)}", Binding.UNKNOWN, LOW


def _known_of_full(view: View) -> str:
    """What full fine-tuning was seen to reach, in a clause."""
    scored = [score for run in view.facts.runs if run.method is Method.FULL and (score := view.score(run)) is not None]
    if not scored:
        return "nobody has seen what full fine-tuning would reach"
    return f"full fine-tuning reached {show_score(view, max(scored))}, and its rate is not settled"


def _rank_can_grow(view: View) -> bool:
    planned = step_run(view, view.run)
    return planned is not None and fits_surely(view, planned) is not False


def _full_run(view: View, run: RunFacts) -> NextRun | None:
    """A sweep around a tenth of the adapter's rate, a step outward while its best is at an edge, then the best on all of the data; None
    where all of that was run."""
    fields = {"rank": None, "alpha": None, "targets": None, "dropout": None, "use_rslora": False, "init": "", "quantization": None}
    of_all = next_run(run, method=Method.FULL, data_fraction=run.data_fraction, **fields)
    mine = [other for other in view.facts.runs if other.method is Method.FULL]
    if any(is_swept(view, other) and other.data_fraction >= run.data_fraction and view.score(other) is not None for other in mine):
        return None  # it was run with a sweep of its own, and did not win
    swept = _newest_sweep(view, mine)
    if swept is not None and swept.standing in ("low edge", "high edge"):
        outward = tuple(map(rounded, swept.next_rates()))
        return of_all.model_copy(update={"learning_rates": outward, "data_fraction": min(swept.data_fraction, run.data_fraction)})
    if swept is not None and swept.data_fraction < run.data_fraction:
        best = swept.best
        if best is None:
            return None
        rate = rounded(rate_on_more_data(best.rate, swept.data_fraction / run.data_fraction))
        whole = of_all.model_copy(update={"learning_rates": (rate,)})
        return None if is_done(view, whole) else whole
    own = next((other.learning_rate for other in reversed(mine) if other.learning_rate is not None), None)
    centre = own if own is not None else None if run.learning_rate is None else run.learning_rate / threshold("lr_full_divisor")
    rates = () if centre is None else around(centre, None)
    return of_all.model_copy(update={"learning_rates": rates, "data_fraction": min(view.sweep_share, run.data_fraction)})


def _newest_sweep(view: View, full: list[RunFacts]) -> Rates | None:
    """The learning rates that the newest of the runs is one of; None where there are no runs, or its rate is not known."""
    if not full or full[-1].learning_rate is None:
        return None
    newest = full[-1]
    found = [sweep for sweep in sweeps_of(view, newest) if sweep.data_fraction == newest.data_fraction]
    return max(found, key=lambda sweep: len(sweep.points), default=None)


def _too_few(view: View) -> Result:
    """A climb would be decided on too few items, or on an unknown number of them."""
    n = view.noise.items(view.run)
    known = f"{n} held-out items are" if n is not None else "the number of held-out items is not known, which is"
    return Result(
        gate="R2",
        binding=Binding.EVALUATION_NOISE,
        door=Door.STAY,
        confidence=MEDIUM,
        reason=f"the next door would be a climb, and {known} too little to decide one on",
        experiment="Score the run and the untuned model on at least 200 held-out items, better 500, with the result of every item kept.",
        evidence=("N1", "N3", "N4", "N7"),
        missing=(FEW_ITEMS,),
    )


def compared_at_one_rate(view: View) -> bool:
    """Methods were compared at a single shared learning rate."""
    runs = [run for run in view.facts.runs if view.score(run) is not None and run.learning_rate is not None and not run.lr_tuned]
    methods = {(run.method.is_dora, run.method.has_adapter) for run in runs}  # 4 bit does not move the best rate
    return len(methods) > 1 and len({run.learning_rate for run in runs}) == 1
