"""R10, R12 and R13: DoRA where the rank limits and cannot grow, full fine-tuning where the cheaper doors are closed, and the end."""

from __future__ import annotations

from advisor.evidence.capacity import is_deep_pretraining, is_pretraining, rho_largest, tested_step
from advisor.evidence.gates_data import data_control, is_saturated
from advisor.evidence.gates_rank import capacity_suspected, step_run
from advisor.evidence.lr import rounded
from advisor.evidence.noise import Difference
from advisor.evidence.pricing import fits_surely
from advisor.evidence.published import gate, move
from advisor.evidence.rates import is_certified
from advisor.evidence.result import HIGH, LOW, MEDIUM, Result, accept, next_run, show_gap
from advisor.evidence.view import View
from advisor.ladder.knowledge import threshold
from advisor.ladder.learning_rate import show
from advisor.values import Method
from advisor.values.evidence import RunFacts
from advisor.values.next_step import Binding, Confidence, Door, NextRun

SKIP = "The ladder would try DoRA before; at this scale of data the evidence skips it, as it has LoRA's rank budget (C5, D15)."
NO_ROOM = "It does not fit the card: shard it over several, keep its moments in 8 bit, or run the control on a smaller sibling."
FEW_ITEMS = "the number of held-out items, at least 200: no climb is decided on fewer"


def try_dora(view: View) -> Result | None:
    """R10. The rank limits and cannot grow, or runs are to spare; refused where it would be served unmerged or was tried."""
    run = view.run
    if run.method not in (Method.LORA, Method.QLORA) or view.facts.serving == "unmerged" or is_deep_pretraining(view):
        return None
    if dora_tried(view) or _beats_reference(view) or _full_wins(view):
        return None
    why = _why_dora(view)
    if not why:
        return None
    if view.few_items:
        return _too_few(view, Door.STAY)
    low_rank = (run.rank or 0) <= gate("dora_low_rank")
    found = move("dora_low_rank" if low_rank else "dora")
    method = Method.QDORA if run.method.is_quantized else Method.DORA
    rates = () if run.learning_rate is None else (rounded(run.learning_rate), rounded(run.learning_rate / 2))
    shown = f" at learning rates {' and '.join(map(show, rates))}" if rates else ""
    return Result(
        gate="R10",
        binding=Binding.CAPACITY if capacity_suspected(view) else Binding.UNKNOWN,
        door=Door(method.value),
        confidence=LOW,
        reason=f"{why}; DoRA is one flag and one run",
        experiment=f"Train {method.label} at rank {run.rank}{shown}, dropout 0, two seeds each, everything else unchanged; close this door "
        "for good if it does not win.",
        run=next_run(run, method=method, dropout=0.0, learning_rates=rates, seeds=2),
        accept=accept(view, "Keep DoRA", seeds=2),
        gain=found.gain,
        cost=found.price,
        evidence=("D2", "D3", "D5", "D15", "D13"),
        disagreement="The ladder opens DoRA when the rank is the limit; the evidence for a gain is thin: 0.1 points on average, 0.65 of "
        "mixed sign at rank 8 and below (D15).",
        is_door=True,
    )


def _why_dora(view: View) -> str:
    run = view.run
    step = step_run(view, run)
    capped = view.facts.rank_cap is not None and (run.rank or 0) >= view.facts.rank_cap
    stuck = capped or (step is not None and fits_surely(view, step) is False)
    if capacity_suspected(view) and stuck and tested_step(view) is None:
        return f"the rank is suspected of limiting and cannot grow beyond {run.rank}"
    if view.facts.rank_cap is not None and run.rank == view.facts.rank_cap and run.rank <= gate("dora_low_rank"):
        return f"rank {run.rank} must stay"
    if view.facts.spare_runs >= gate("dora_spare_runs"):
        return f"{view.facts.spare_runs} runs are to spare"
    return ""


def dora_tried(view: View) -> bool:
    return any(run.method.is_dora and view.score(run) is not None for run in view.facts.runs)


def reference(view: View) -> RunFacts | None:
    """The best full fine-tuning run."""
    runs = [run for run in view.facts.runs if run.method is Method.FULL and view.score(run) is not None]
    return max(runs, key=lambda run: view.score(run) or 0.0, default=None) if runs else None


def _beats_reference(view: View) -> bool:
    """The adapter is already as good as full fine-tuning (fact D8)."""
    full = reference(view)
    difference = None if full is None else view.compare(full, view.run)
    return difference is not None and difference.delta >= 0


def _full_wins(view: View) -> Difference | None:
    """A full fine-tuning run with a sweep of its own is better beyond the noise."""
    full = reference(view)
    if full is None or view.run.method is Method.FULL or not is_certified(view, full) or not view.beats(view.run, full):
        return None
    return view.compare(view.run, full)


def open_full(view: View) -> Result | None:
    """R12. Continued pre-training in scale, a rank step that won up to the end, a control that won, or every cheaper door closed."""
    run = view.run
    if run.method is Method.FULL or view.objective == "rl" or _beats_reference(view):
        return None
    found = _why_full(view)
    if found is None:
        return None
    reason, binding, sure = found
    deep = is_deep_pretraining(view)
    if view.few_items and not deep:
        return _too_few(view, Door.STAY)
    planned = _full_run(view, run)
    hopeless = fits_surely(view, planned) is False
    elsewhere = f" {NO_ROOM}" if hopeless else ""
    shown = ", ".join(map(show, planned.learning_rates))
    paid = move("full_cpt" if is_pretraining(view) else "full")
    return Result(
        gate="R12",
        binding=binding,
        door=Door.FULL,
        confidence=sure,
        reason=reason,
        experiment=f"Run full fine-tuning at learning rates {shown or 'a tenth of the adapter’s, with a sweep of its own'} on "
        f"{planned.data_fraction:.0%} of the data, beside the adapter on the same part.{elsewhere} Before paying for all of it, try a "
        "larger base model with LoRA.",
        run=planned,
        accept=accept(view, "Climb to full fine-tuning"),
        gain=paid.gain,
        cost=paid.price,
        evidence=("C4", "C5", "C6", "C16", "F1", "F3", "F9", "B8", "LR1") if deep else ("C4", "C6", "F1", "F3", "F9", "B8", "LR1"),
        missing=(FEW_ITEMS,)
        if view.few_items
        else ()
        if reference(view) is not None
        else ("a full fine-tuning control on a part of the data",),
        disagreement=SKIP if deep else "",
        is_door=True,
    )


def _why_full(view: View) -> tuple[str, Binding, Confidence] | None:
    run, rho = view.run, rho_largest(view)
    won = _full_wins(view)
    if won is not None:
        return f"full fine-tuning, with a sweep of its own, beats {run.label} by {show_gap(view, won.delta)}", Binding.CAPACITY, HIGH
    if is_deep_pretraining(view):
        return f"continued pre-training in scale: even rank 256 has {rho:.2g} LoRA parameters per token", Binding.CAPACITY, MEDIUM
    at_end = run.rank is not None and run.rank >= gate("rank_largest")
    if is_pretraining(view) and at_end:
        return f"rank {run.rank} falls short, and even rank 256 has {rho:.2g} LoRA parameters per token", Binding.CAPACITY, MEDIUM
    if at_end and capacity_suspected(view):
        return f"every rank step won, and rank {run.rank} still falls short", Binding.CAPACITY, MEDIUM
    if reference(view) is None and cheaper_doors_closed(view):
        return "rank, data and DoRA are closed, and nobody has seen what full fine-tuning would reach", Binding.UNKNOWN, LOW
    return None


def cheaper_doors_closed(view: View) -> bool:
    """The rank was tested or is ample, more data brings nothing, and DoRA was tried or refused."""
    dora = dora_tried(view) or view.facts.serving == "unmerged"
    return is_saturated(view) is True and dora


def _full_run(view: View, run: RunFacts) -> NextRun:
    divisor = threshold("lr_full_divisor")
    step = threshold("lr_sweep_factor")
    centre = None if run.learning_rate is None else run.learning_rate / divisor
    rates = () if centre is None else tuple(rounded(centre * factor) for factor in (1 / step, 1, step))
    fields = {"rank": None, "alpha": None, "targets": None, "dropout": None, "use_rslora": False, "init": "", "quantization": None}
    return next_run(run, method=Method.FULL, learning_rates=rates, data_fraction=threshold("sweep_data_share"), **fields)


def _too_few(view: View, door: Door) -> Result:
    """A climb would be decided on too few items, or on an unknown number of them."""
    n = view.noise.items(view.run)
    known = f"{n} held-out items are" if n is not None else "the number of held-out items is not known, which is"
    return Result(
        gate="R2",
        binding=Binding.EVALUATION_NOISE,
        door=door,
        confidence=MEDIUM,
        reason=f"the next door would be a climb, and {known} too little to decide one on",
        experiment="Score the run and the untuned model on at least 200 held-out items, better 500, with the result of every item kept.",
        run=None,
        evidence=("N1", "N3", "N4", "N7"),
        missing=(FEW_ITEMS,),
    )


def end_of_ladder(view: View) -> Result | None:
    """R13. No door is left that the evidence would open: data first, then the task itself."""
    saturated = is_saturated(view)
    control = data_control(view)
    closed = _closed(view)
    if saturated is None:
        return Result(
            gate="R13",
            binding=Binding.DATA,
            door=Door.STAY,
            confidence=LOW,
            reason=f"{closed}; whether more data would help has not been measured",
            experiment="Run the half-data control: the same set-up on 50 % of the data. If the whole data wins by two standard errors, "
            "data binds more than any method.",
            run=next_run(view.run, data_fraction=0.5 * view.run.data_fraction),
            accept=accept(view, "Collect more data"),
            gain=move("data").gain,
            cost="half a run",
            evidence=("B8", "B10", "LR8"),
            missing=("a run on half of the data",),
            disagreement=_ladder_end(view),
            is_door=True,
        )
    assert control is not None
    return Result(
        gate="R13",
        binding=Binding.CEILING,
        door=Door.STOP,
        confidence=MEDIUM,
        reason=f"{closed}; {control[0].data_fraction:.0%} of the data does as well, so more of the same brings nothing",
        experiment="Change the problem: a larger base model with LoRA, better prompts or retrieval, other data, a task cut into parts; "
        "or accept the score.",
        run=None,
        evidence=("B8", "B10", "LR8", "F11"),
        disagreement=_ladder_end(view),
        is_door=True,
    )


def _closed(view: View) -> str:
    run, rho = view.run, view.rho(view.run.rank, view.run)
    step = tested_step(view)
    if step is not None:
        return f"{step.ranks} with its own learning rate gained {_gained(view, step.difference)}: rank is not the limit"
    if view.objective == "rl":
        return "in reinforcement learning rank is not the limit"
    if rho is not None and rho >= threshold("rho_ample") * 0.95:
        return f"rank {run.rank} has {rho:.2g} LoRA parameters per training token: rank is not the limit"
    return "what is cheap is closed"


def _gained(view: View, difference: Difference) -> str:
    return f"{show_gap(view, difference.delta)}, within its noise" if difference.is_noise else f"{show_gap(view, difference.delta)}"


def _ladder_end(view: View) -> str:
    if view.run.method is Method.FULL or reference(view) is not None or view.objective == "rl":
        return ""
    return (
        "The ladder's last door is full fine-tuning; the evidence gives it 0 to 1 points over a tuned adapter on instruction data, less "
        "than data or a larger base model (C6, B8, B10)."
    )


def compared_at_one_rate(view: View) -> bool:
    """Methods were compared at a single shared learning rate."""
    runs = [run for run in view.facts.runs if view.score(run) is not None and run.learning_rate is not None and not run.lr_tuned]
    methods = {(run.method.is_dora, run.method.has_adapter) for run in runs}  # 4 bit does not move the best rate
    return len(methods) > 1 and len({run.learning_rate for run in runs}) == 1
