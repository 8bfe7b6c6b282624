"""What a Trainer's trainer_state.json says of a run (transformers 5.23, trainer_callback.py TrainerState; TRL 1.x logs into the same).

The file holds no method and no configured learning rate: the latter is taken from the logs, where it is logged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from advisor.errors import InvalidInputError
from advisor.ledger.build import run_from
from advisor.values.evidence import LossPoint
from advisor.values.request import LEAST_RATE, MOST_RATE
from advisor.values.run import Evaluation, RunRecord

FILE = "trainer_state.json"
_PREFIX = "eval_"
# Of an evaluation's log, what is bookkeeping or a by-product of the loss rather than a score (transformers trainer_utils.speed_metrics;
# TRL SFTTrainer and DPOTrainer logs).
_NO_SCORES = {
    "loss",
    "runtime",
    "samples_per_second",
    "steps_per_second",
    "tokens_per_second",
    "model_preparation_time",
    "mean_token_accuracy",
    "entropy",
    "num_tokens",
    "aux_loss",
}
_NO_SCORE_PARTS = ("rewards/", "logps/", "logits/", "mem_", "jit_compilation_time")


def from_trainer_state(state: Mapping[str, Any], source: Path) -> RunRecord:
    """The run as far as the state tells. Raises one line when it is no trainer state."""
    logs = state.get("log_history")
    if not isinstance(logs, list) or not all(isinstance(log, dict) for log in logs):
        raise InvalidInputError(f"{source} is no trainer state: it has no log_history")
    rates = [rate for log in logs if _is_number(rate := log.get("learning_rate")) and LEAST_RATE <= rate <= MOST_RATE]
    summary: dict[str, Any] = next((log for log in reversed(logs) if "train_runtime" in log), {})
    notes = (f"learning rate: the highest of {len(rates)} logged",) if rates else ()
    return run_from(
        {
            "learning_rate": max(rates, default=None),
            "steps": _count(state.get("global_step")),
            "epochs": _positive(state.get("epoch")),
            "batch_size": _count(state.get("train_batch_size")),
            "tokens": _count(state.get("num_input_tokens_seen")) or _largest(logs, "num_tokens"),
            "seconds": _positive(summary.get("train_runtime")),
            "train_losses": tuple(_curve(logs, "loss", source)),
            "eval_losses": tuple(_curve(logs, "eval_loss", source)),
            "evaluations": tuple(_evaluations(logs)),
            "source": str(source),
            "notes": notes,
        },
        f"{source}: ",
    )


def _curve(logs: Sequence[Mapping[str, Any]], key: str, source: Path) -> Iterator[LossPoint]:
    for log in _last_of_each_step([log for log in logs if key in log]):
        step, loss = log.get("step"), log[key]
        if not _is_number(step) or not (0 <= step < math.inf) or not _is_number(loss, also_nan=True):
            raise InvalidInputError(f"{source}: log_history has the {key} {str(loss)[:40]!r} at step {str(step)[:40]!r}: no numbers")
        yield LossPoint(step=step, loss=float(loss))


def _last_of_each_step(logs: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Whoever evaluates again after training logs the last step a second time."""
    for number, log in enumerate(logs, start=1):
        step = log.get("step")
        if step is None or number == len(logs) or logs[number].get("step") != step:
            yield log


def _evaluations(logs: Sequence[Mapping[str, Any]]) -> Iterator[Evaluation]:
    """Scores that evaluations logged; all but the last of each metric with the epoch they were taken at."""
    evaluations = list(_last_of_each_step([log for log in logs if any(key.startswith(_PREFIX) for key in log)]))
    last = {metric: number for number, log in enumerate(evaluations) for metric in _metrics(log)}
    for number, log in enumerate(evaluations):
        for metric, score in _metrics(log).items():
            is_last = last[metric] == number
            epoch = _positive(log.get("epoch"))
            if is_last or epoch is not None:
                yield Evaluation(metric=metric, score=score, n=items_of(log), epoch=None if is_last else epoch)


def _metrics(log: Mapping[str, Any]) -> dict[str, float]:
    named = {key.removeprefix(_PREFIX): value for key, value in log.items() if key.startswith(_PREFIX)}
    return {name: float(value) for name, value in named.items() if is_score(name) and _is_number(value)}


def is_score(metric: str) -> bool:
    """Whether a logged quantity says how good the model is, apart from the loss."""
    return metric not in _NO_SCORES and not metric.endswith("_loss") and not any(part in metric for part in _NO_SCORE_PARTS)


def items_of(log: Mapping[str, Any]) -> int | None:
    """How many items were evaluated, from runtime × samples per second, where their rounding leaves one whole number."""
    runtime, rate = log.get("eval_runtime"), log.get("eval_samples_per_second")
    if not _is_number(runtime) or not _is_number(rate) or runtime <= 0:
        return None
    # Rounded to 4 and 3 digits (transformers 5.23, trainer_utils.speed_metrics).
    low, high = (runtime - 5e-5) * (rate - 5e-4), (runtime + 5e-5) * (rate + 5e-4)
    if not math.isfinite(high):
        return None
    whole = math.ceil(low)
    return whole if 0 < whole <= high < whole + 1 else None


def _largest(logs: Sequence[Mapping[str, Any]], key: str) -> int | None:
    return _count(max((log[key] for log in logs if _is_number(log.get(key))), default=None))


def _is_number(value: Any, also_nan: bool = False) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (also_nan or math.isfinite(value))


def _count(value: Any) -> int | None:
    return int(value) if _is_number(value) and value >= 1 else None


def _positive(value: Any) -> float | None:
    return float(value) if _is_number(value) and value > 0 else None
