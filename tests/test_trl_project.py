"""Every sentence that `advise next` says of a real project is held against what TRL trained and scored (benchmarks/trl_project.py)."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("trl")

from advisor import RunRecord
from advisor.values import Method
from advisor.values.next_step import Binding
from benchmarks.trl_project import CAUSES, TARGET, Project, follow, scores

Runs = dict[int, RunRecord]

SAME_LOSS = 0.1
"""Share of its first losses within which a loss went nowhere."""


def flat(runs: Runs, run: str, factor: str, prior: str) -> bool:
    losses = [point.loss for point in runs[int(run)].train_losses]
    first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
    off = float(prior) / (runs[int(run)].learning_rate or 0.0)
    return last > (1 - SAME_LOSS) * first and off == pytest.approx(float(factor), rel=0.02)


def below_prior(runs: Runs, run: str, rate: str, factor: str, prior: str) -> bool:
    return runs[int(run)].learning_rate == pytest.approx(float(rate)) and float(prior) / float(rate) == pytest.approx(
        float(factor), rel=0.03
    )


def won(runs: Runs, run: str, rate: str, own: str) -> bool:
    """The rate has the best score of the pilots, which were of the run's set-up on one share of the data."""
    pilots = [other for other in runs.values() if other.rank == runs[int(run)].rank and (other.data_fraction or 1) < 1]
    best = max(pilots, key=lambda other: scores((other,))[other.id or 0])
    return best.learning_rate == pytest.approx(float(rate)) and runs[int(run)].learning_rate == pytest.approx(float(own))


def won_by(runs: Runs, run: str, rate: str, points: str, own: str) -> bool:
    pilots = {other.learning_rate: scores((other,))[number] for number, other in runs.items() if (other.data_fraction or 1) < 1}
    lead = 100 * (max(pilots.values()) - pilots[float(own)])
    return pilots[float(rate)] == max(pilots.values()) and lead == pytest.approx(float(points), abs=0.06)


def passes(runs: Runs, run: str, times: str) -> bool:
    return runs[int(run)].epochs == pytest.approx(float(times))


def reached(runs: Runs, score: str, target: str) -> bool:
    return 100 * max(scores(tuple(runs.values())).values()) == pytest.approx(float(score), abs=0.06) and float(target) == 100 * TARGET


def full_scored(runs: Runs, score: str) -> bool:
    """The best of full fine-tuning on all of the data."""
    full = [number for number, run in runs.items() if run.method is Method.FULL and (run.data_fraction or 1) == 1]
    return 100 * max(scores(tuple(runs.values()))[number] for number in full) == pytest.approx(float(score), abs=0.06)


def beats(runs: Runs, run: str, points: str) -> bool:
    found = scores(tuple(runs.values()))
    full = max(found[number] for number, other in runs.items() if other.method is Method.FULL)
    return 100 * (full - found[int(run)]) == pytest.approx(float(points), abs=0.06)


def untried(method: Method) -> Callable[[Runs], bool]:
    return lambda runs: all(run.method is not method for run in runs.values())


def control_lost(runs: Runs, share: str, points: str) -> bool:
    """The control took as many steps on a part of the data, and scored so much less than the run that it is a control of."""
    found = scores(tuple(runs.values()))
    for number, control in runs.items():
        for other, run in runs.items():
            alike = (control.method, control.rank, control.learning_rate) == (run.method, run.rank, run.learning_rate)
            if alike and control.steps == run.steps and (control.data_fraction or 1) == float(share) / 100 * (run.data_fraction or 1):
                return 100 * (found[other] - found[number]) == pytest.approx(float(points), abs=0.06)
    return False


NUMBER, RATE = r"(\d+(?:\.\d+)?)", r"(\d\.\de-\d+)"
ALWAYS: Callable[..., bool] = lambda runs, *_: True  # noqa: E731  # of published odds and of what nobody measured
CLAIMS: dict[str, Callable[..., bool]] = {
    rf"run (\d+): the training loss ended where it began, at a learning rate that is {NUMBER} × below the prior of {RATE}": flat,
    rf"run (\d+): {RATE} is {NUMBER} × below the prior of {RATE}, and was not swept": below_prior,
    rf"the sweep of run (\d+) is won at {RATE}: its own {RATE} was not among the rates": won,
    rf"the sweep of run (\d+) is won at {RATE}: by {NUMBER} points over its own {RATE}": won_by,
    rf"run (\d+) saw its data {NUMBER} times; two to three passes are the cheapest gain left": passes,
    rf"the target is reached: {NUMBER} % against {NUMBER} %(?:, though by less than the {NUMBER} points that the evaluation wavers by)?": (
        lambda runs, score, target, _: reached(runs, score, target)
    ),
    rf"full fine-tuning, with a sweep of its own, beats run (\d+) by {NUMBER} points": beats,
    r"the rank is closed and (?:DoRA's published odds at this rank are small|DoRA was tried)": ALWAYS,
    r"; nobody has seen what full fine-tuning would reach": untried(Method.FULL),
    rf"; full fine-tuning reached {NUMBER} %, and its rate is not settled": full_scored,
    rf"rank \d+ has {NUMBER} LoRA parameters per training token: rank is not the limit": ALWAYS,
    rf", and full fine-tuning scored {NUMBER} %": full_scored,
    r"; whether more data would help has not been measured": ALWAYS,
    rf"; {NUMBER}% of the data scores {NUMBER} points less, but four times the data would not close the gap": control_lost,
    r"every other door is closed, and the published odds of this one are small; DoRA is one flag": untried(Method.DORA),
}


def hold(reason: str, runs: Runs) -> None:
    """Every clause is one of the claims above, and true."""
    left = reason
    for pattern, check in CLAIMS.items():
        found = re.search(pattern, left)
        if found is not None:
            assert check(runs, *found.groups()), reason
            left = left[: found.start()] + left[found.end() :]
    assert not left.strip(" .;"), f"no claim covers {left!r} of {reason!r}"


@pytest.mark.slow
@pytest.mark.parametrize(("cause", "least_runs"), [("rate", 7), ("data", 10)])
def test_what_is_said_of_a_real_project_is_true(cause: str, least_runs: int, tmp_path: Path) -> None:
    project = Project(tmp_path, CAUSES[cause])
    answers = list(follow(project))
    for step, found in answers:
        hold(step.reason, {run.id: run for run in found if run.id is not None})
        if step.run is not None and step.current:
            assert any(str(run.id) == step.current or run.name == step.current for run in found)
    asked = [step.run.model_dump_json() for step, _ in answers if step.run is not None]
    assert len(set(asked)) == len(asked)
    assert all(first != second for first, second in pairwise(answers))
    last, found = answers[-1]
    assert len(found) >= least_runs
    if cause == "rate":
        assert answers[0][0].binding in CAUSES[cause].right
        assert max(scores(found).values()) >= TARGET
        assert last.binding is Binding.NONE
    else:
        assert last.binding in CAUSES[cause].right
        reached = {
            method: max(scores((run,))[run.id or 0] for run in found if run.method is method) for method in (Method.LORA, Method.FULL)
        }
        assert last.binding is not Binding.CAPACITY or reached[Method.FULL] > reached[Method.LORA] + 0.1
