"""Does the advice reach the target? Simulated projects of a known true cause follow `advisor.next_step` to its end.

    python -m benchmarks.closed_loop                 12 causes x 10 seeds x 2 sizes of the evaluation, some minutes on one core
    python -m benchmarks.closed_loop --seeds 3 --cause full --tell
    python -m benchmarks.closed_loop --table         the table of docs/advice.md

Every effect of the oracle is published (ids of profiles/methods/facts.json): the responses to learning rate, rank, batch and epochs are
tables of one study each, the others differences. Scores scatter by the items' binomial error and by a point from run to run (N2). Nothing
of the oracle is read by the engine but through the runs' scores. Beside the advice stand three ways to spend runs without it: a random
search over set-ups, full fine-tuning with a sweep, and one fixed recipe with a sweep. A target counts as reached where the expected score
of the run that was settled on is at it, within the standard error of one score.

Aims: the target reached in 80 % of the projects, no experiment asked for twice, and none asked for that cannot show its published gain
unless the answer says so, and with how many items it could.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean

from advisor import EvaluationFacts, Facts, NextStep, RunFacts, api
from advisor.devices import load_gpu
from advisor.inputs import as_model
from advisor.values import Method, Quantization, Task
from advisor.values.next_step import Binding, NextRun

RATE_STEPS, RATE_SCORES = (1 / 57, 1 / 31, 1 / 17.5, 1 / 10, 1 / 5.7, 1 / 3.2, 1 / 1.75, 1, 1.75, 3.2, 5.7), (
    6.88, 9.12, 10.79, 13.23, 15.65, 17.54, 19.73, 20.46, 19.83, 13.33, 1.48,
)  # fmt: skip
"""LR20: Gemma-3-1B at batch 64, rates over the best one."""
RANKS = {4: 13.8, 8: 14.8, 16: 17.6, 32: 19.2, 64: 19.75, 128: 20.5, 256: 21.4}
"""C8, learning rate tuned at each rank."""
BATCHES = {16: 20.0, 32: 20.7, 64: 20.5, 128: 20.3, 256: 19.3, 512: 16.7}
"""B2, learning rate tuned at each batch."""
EPOCHS = {0.5: 46.6, 1: 52.7, 2: 58.8, 4: 62.4, 8: 62.4, 16: 59.5}
"""B5: rank 64 on MetaMathQA; half a pass extrapolated by one doubling."""
PER_DOUBLING = 3.5
"""B10: points for twice the data, from 10k to 395k examples."""
FEED_FORWARD = 3.1
"""T1: points lost with adapters on q and v alone, at equal parameters."""
SCALED_DOWN = 4.1
"""S4: points between a scale of 8 and of 2 at rank 64."""
FOUR_BIT = 4.6
"""Q5: Phi-2."""
DORA_LOW_RANK = 4.4
"""D1, upper end: LLaMA3-8B."""
FULL = 12.0
"""C4: 13.9 points at a ratio of 0.55, here whatever the rank."""
RERUN = 1.0
"""N2: points from run to run."""
TIMES = {Method.LORA: 1.0, Method.QLORA: 1.5, Method.DORA: 1.27, Method.QDORA: 1.9, Method.FULL: 2.28}
"""Q7, D3, F3: hours of a pass against LoRA's."""
ALL, ATTENTION = ("all-linear",), ("q_proj", "v_proj")
MODEL, CARD = "llama-3.1-8b", "A100 80GB"
PRIOR = 2.86e-4
"""LR3 at hidden size 4096."""
BASE, REPAIRED = 30.0, 62.0
"""Scores of the untuned model and of the project without its fault."""
SHORT_OF = 1.0
"""Points by which the target lies below what the project can reach."""
MOST_ANSWERS = 16


@dataclass(frozen=True)
class Setup:
    """What decides the true score of a run."""

    method: Method = Method.LORA
    rank: int = 16
    alpha: float = 32
    targets: tuple[str, ...] = ALL
    rate: float = PRIOR
    batch: int = 16
    epochs: float = 4
    data: float = 1.0
    """In units of what the project began with."""


@dataclass(frozen=True)
class Project:
    """A project with one fault: what was run first, and which effects are at work."""

    first: Setup
    tokens: int = 30_000_000
    tuned: bool = True
    rank_matters: bool = False
    dora: float = 0.0
    full: float = 0.0
    epochs_matter: bool = True
    best_rate: float = PRIOR


def tuned(setup: Setup, off: float = 1.0) -> Setup:
    """At the best rate of the set-up, times `off`."""
    return replace(setup, rate=best_rate(setup, PRIOR) * off)


def best_rate(setup: Setup, at_alpha_32: float) -> float:
    """LR4, LR5: fixed at a fixed alpha, falling with the root of the rank where alpha grows with it; LR14: rising with the batch; LR1."""
    if setup.method is Method.FULL:
        return at_alpha_32 / 10
    batch = (min(max(setup.batch, 16), 128) / 16) ** 0.7
    return float(at_alpha_32 * (32 / setup.alpha) ** 0.5 * batch)


def true_score(project: Project, setup: Setup) -> float:
    """Expected score in percent."""
    points = REPAIRED
    full = setup.method is Method.FULL
    points += _along(RATE_STEPS, RATE_SCORES, setup.rate / best_rate(setup, project.best_rate)) - max(RATE_SCORES)
    if not full:
        points -= FEED_FORWARD if setup.targets != ALL else 0.0
        points -= SCALED_DOWN if setup.alpha / setup.rank < 0.5 else 0.0
        points += _along(tuple(BATCHES), tuple(BATCHES.values()), setup.batch) - max(BATCHES.values())
    if project.rank_matters and not full:
        points += _along(tuple(RANKS), tuple(RANKS.values()), setup.rank) - RANKS[64]
    points += project.dora * setup.method.is_dora + project.full * full
    points -= FOUR_BIT * setup.method.is_quantized
    if project.epochs_matter:
        points += _along(tuple(EPOCHS), tuple(EPOCHS.values()), setup.epochs * min(1.0, setup.data)) - max(EPOCHS.values())
    points += PER_DOUBLING * math.log2(setup.data)
    return min(max(points, 1.0), 99.0)


def _along(xs: tuple[float, ...], ys: tuple[float, ...], x: float) -> float:
    """Linear in log x between the points, constant beyond them."""
    if x <= xs[0]:
        return ys[0]
    for (x0, x1), (y0, y1) in zip(pairwise(xs), pairwise(ys), strict=True):
        if x <= x1:
            return y0 + (y1 - y0) * math.log(x / x0) / math.log(x1 / x0)
    return ys[-1]


CAUSES: dict[str, Project] = {
    "rate too low": Project(tuned(Setup(), off=1 / 10)),
    "rate too high": Project(tuned(Setup(), off=6)),
    "scale": Project(tuned(Setup(rank=64, alpha=8)), tokens=30_000_000),
    "targets": Project(tuned(Setup(targets=ATTENTION, rank=64, alpha=128))),
    "batch": Project(tuned(Setup(batch=512))),
    "undertrained": Project(tuned(Setup(epochs=1))),
    "overfitted": Project(tuned(Setup(epochs=32)), epochs_matter=True),
    "data": Project(tuned(Setup())),
    "quantisation": Project(tuned(Setup(method=Method.QLORA))),
    "rank": Project(tuned(Setup(rank=8, alpha=16)), tokens=100_000_000, rank_matters=True),
    "dora": Project(tuned(Setup(rank=8, alpha=16)), tokens=100_000_000, dora=DORA_LOW_RANK),
    "full": Project(tuned(Setup()), full=FULL),
}


def target_of(cause: str, project: Project) -> float:
    """What the project reaches without its fault, less a point."""
    repaired = {
        "dora": replace(project.first, method=Method.DORA),
        "full": tuned(replace(project.first, method=Method.FULL)),
        "data": replace(project.first, data=4.0),
        "rank": tuned(replace(project.first, rank=64, alpha=128)),
    }.get(cause)
    return (REPAIRED if repaired is None else true_score(project, repaired)) - SHORT_OF


@dataclass
class Outcome:
    """What became of one project."""

    reached: bool = False
    answers: int = 0
    runs: int = 0
    hours: float = 0.0
    twice: int = 0
    silent: int = 0
    """Answers whose experiment cannot show what it is to gain, without saying so."""
    last: str = ""


class World:
    """The oracle with its scatter, and the book of what was spent."""

    def __init__(self, cause: str, n: int, seed: int) -> None:
        self.project = CAUSES[cause]
        self.random = random.Random(f"{cause} {n} {seed}")
        spread = self.random.uniform(-0.6, 0.6)  # LR22: tuned optima lie within a factor of three of the prior
        self.project = replace(
            self.project,
            best_rate=PRIOR * math.exp(spread),
            first=replace(self.project.first, rate=self.project.first.rate * math.exp(spread)),
        )
        self.n, self.target = n, target_of(cause, self.project)
        self.data = 1.0
        self.outcome = Outcome()
        self.truth: dict[str, float] = {}

    def run(self, setup: Setup, name: str) -> RunFacts:
        """Trains and scores one set-up."""
        true = true_score(self.project, setup)
        diverged = setup.rate > 5 * best_rate(setup, self.project.best_rate)
        drawn = min(max(self.random.gauss(true, RERUN) / 100, 0.0), 1.0)
        score = sum(self.random.random() < drawn for _ in range(self.n)) / self.n
        self.truth[name] = true
        self.outcome.runs += 1
        self.outcome.hours += TIMES[setup.method] * setup.epochs * setup.data / 4
        adapter = setup.method.has_adapter
        return RunFacts(
            id=name,
            method=setup.method,
            rank=setup.rank if adapter else None,
            alpha=setup.alpha if adapter else None,
            targets=setup.targets if adapter else None,
            quantization=Quantization.NF4 if setup.method.is_quantized else None,
            learning_rate=setup.rate,
            batch=setup.batch,
            epochs=setup.epochs,
            data_fraction=min(1.0, setup.data / self.data),
            score=score,
            diverged=diverged,
        )

    def reached(self, name: str) -> bool:
        """The run's expected score is at the target, within the standard error of one score."""
        error = math.hypot(RERUN, 100 * math.sqrt(0.25 / self.n))
        return self.truth.get(name, 0.0) >= self.target - error

    def facts(self, runs: Iterable[RunFacts]) -> Facts:
        return Facts(
            model=_model(),
            gpu=load_gpu(CARD),
            task=Task.MATH,
            dataset_tokens=round(self.project.tokens * self.data),
            evaluation=EvaluationFacts(metric="accuracy", n=self.n, target=self.target / 100, base=BASE / 100),
            runs=tuple(runs),
        )


_MODELS: dict[str, object] = {}


def _model() -> object:
    return _MODELS.setdefault(MODEL, as_model(MODEL))


def planned(world: World, run: NextRun, like: Setup) -> list[Setup]:
    """The runs that an answer asks for."""
    return [
        Setup(
            method=run.method,
            rank=run.rank or like.rank,
            alpha=run.alpha or like.alpha,
            targets=run.targets or ALL,
            rate=rate,
            batch=run.batch or like.batch,
            epochs=run.epochs or like.epochs,
            data=run.data_fraction * world.data,
        )
        for rate in (run.learning_rates or (like.rate,))
        for _ in range(run.seeds)
    ]


def follow(cause: str, n: int, seed: int, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Follows the advice from the first run to its end."""
    world = World(cause, n, seed)
    out, first = world.outcome, world.project.first
    runs = [world.run(first, "r0")]
    asked: set[object] = set()
    for _ in range(MOST_ANSWERS):
        step = api.next_step(world.facts(runs))
        out.answers += 1
        out.silent += is_silent(step)
        out.last = f"{step.gate} {step.binding.value} {step.rung.value}"
        tell(f"  {step.current:5} {100 * (_score(runs, step) or 0):.1f} of {world.target:.1f}: {out.last}: {step.next_experiment[:150]}")
        if step.run is None and step.binding is Binding.DATA:
            runs = _collected(world, runs, step)
            continue
        if step.run is None:
            break
        key = (world.data, step.run.model_dump_json())
        out.twice += key in asked
        asked.add(key)
        runs += [world.run(setup, f"r{len(runs) + number}") for number, setup in enumerate(planned(world, step.run, first))]
    out.reached = world.reached(step.current)
    return out


def is_silent(step: NextStep) -> bool:
    """The next run must win by more than its published gain is at most, and the answer does not say so, or not what it would take."""
    accept, gain = step.accept_if, step.expected_gain
    if accept is None or accept.difference is None or gain is None or " only if it wins by " not in accept.sentence:
        return False
    if accept.difference <= gain.points.high:
        return False
    said = f"more than the {gain.points.high:.1f} points to be expected" in accept.sentence
    return not said or accept.items_needed is None or " items" not in accept.sentence


def _score(runs: list[RunFacts], step: NextStep) -> float | None:
    return next((run.score for run in runs if run.id == step.current), None)


def _collected(world: World, runs: list[RunFacts], step: NextStep) -> list[RunFacts]:
    """Four times the data: what there was is a quarter now, and the set-up is run on all of it."""
    world.data *= 4
    older = [run.model_copy(update={"data_fraction": run.data_fraction / 4}) for run in runs]
    mine = next(run for run in runs if run.id == step.current)
    setup = Setup(
        method=mine.method,
        rank=mine.rank or 16,
        alpha=mine.alpha or 32,
        targets=mine.targets or ALL,
        rate=mine.learning_rate or PRIOR,
        batch=mine.batch or 16,
        epochs=mine.epochs or 4,
        data=world.data,
    )
    return [*older, world.run(setup, f"r{len(runs)}")]


def searched(cause: str, n: int, seed: int, most_runs: int) -> Outcome:
    """Random search: as many whole runs of random set-ups, the best score is taken."""
    world = World(cause, n, seed)
    found = [world.run(world.project.first, "r0")]
    for number in range(1, most_runs):
        rank = world.random.choice((8, 16, 32, 64, 128, 256))
        setup = Setup(
            method=world.random.choice((Method.LORA, Method.LORA, Method.QLORA, Method.DORA, Method.FULL)),
            rank=rank,
            alpha=rank * world.random.choice((0.25, 1, 2)),
            targets=world.random.choice((ALL, ALL, ATTENTION)),
            rate=10 ** world.random.uniform(-5, -3),
            batch=world.random.choice((16, 32, 64, 128, 256)),
            epochs=world.random.choice((1, 2, 4, 8)),
        )
        if setup.method is Method.FULL:
            setup = replace(setup, rate=setup.rate / 10)
        found.append(world.run(setup, f"r{number}"))
    return _best_of(world, found)


def always_full(cause: str, n: int, seed: int) -> Outcome:
    """Full fine-tuning at three rates, the best score is taken."""
    world = World(cause, n, seed)
    setup = replace(world.project.first, method=Method.FULL)
    found = [world.run(replace(setup, rate=PRIOR / 10 * factor), f"r{factor}") for factor in (1 / 3, 1, 3)]
    return _best_of(world, found)


def recipe(cause: str, n: int, seed: int) -> Outcome:
    """LoRA of rank 16 on all layers, four epochs, batch 16, at three rates; the best score is taken."""
    world = World(cause, n, seed)
    found = [world.run(Setup(rate=PRIOR * factor), f"r{factor}") for factor in (1 / 3, 1, 3)]
    return _best_of(world, found)


def _best_of(world: World, runs: list[RunFacts]) -> Outcome:
    best = max(runs, key=lambda run: run.score or 0.0)
    world.outcome.reached = world.reached(best.id)
    return world.outcome


def _line(name: str, outcomes: list[Outcome]) -> str:
    reached = sum(each.reached for each in outcomes)
    ends = ", ".join(sorted({each.last for each in outcomes if not each.reached and each.last}))
    return (
        f"{name:16} {reached:3} of {len(outcomes):3} reached; {mean(each.answers for each in outcomes):4.1f} answers, "
        f"{mean(each.runs for each in outcomes):4.1f} runs, {mean(each.hours for each in outcomes):5.1f} hours of a LoRA run; "
        f"{sum(each.twice for each in outcomes)} asked twice, {sum(each.silent for each in outcomes)} hide that they cannot show their gain"
        f"{'; short: ' + ends if ends else ''}"
    )


Played = dict[str, list[Outcome]]
"""Outcomes of the advice, and of each way to do without it."""
WAYS = ("advice", "random search", "always full", "fixed recipe")
SIZES, SEEDS = (1319, 5000), 10
"""Held-out items, GSM8K's test set and a larger one, and projects of each cause."""


def played(cause: str, n: int, seeds: int, tell: Callable[[str], None] = lambda line: None) -> Played:
    """The same projects each way; random search has as many runs as the advice took."""
    found: Played = {way: [] for way in WAYS}
    for seed in range(seeds):
        tell(f" {cause}, seed {seed}")
        advised = follow(cause, n, seed, tell)
        outcomes = (advised, searched(cause, n, seed, max(4, advised.runs)), always_full(cause, n, seed), recipe(cause, n, seed))
        for way, outcome in zip(WAYS, outcomes, strict=True):
            found[way].append(outcome)
    return found


HEAD = ("true cause", *(f"reached, {n:,} items" for n in SIZES), "answers", "runs", "time", "random search", "always full", "fixed recipe")


def cells(cause: str, by_size: Iterable[Played]) -> tuple[str, ...]:
    """A row of the table in docs/advice.md."""
    sizes = [*by_size]
    advised = [outcome for each in sizes for outcome in each["advice"]]
    return (
        cause,
        *(_reached(each["advice"]) for each in sizes),
        f"{mean(each.answers for each in advised):.1f}",
        f"{mean(each.runs for each in advised):.1f}",
        f"{mean(each.hours for each in advised):.1f}",
        *(_reached([outcome for each in sizes for outcome in each[way]]) for way in WAYS[1:]),
    )


def _reached(outcomes: list[Outcome]) -> str:
    return f"{sum(each.reached for each in outcomes)} of {len(outcomes)}"


def row(words: Iterable[str]) -> str:
    """As Markdown."""
    return f"| {' | '.join(words)} |"


def totals(every: Played) -> Iterator[str]:
    """What each way came to, as Markdown."""
    yield row(("", "reached", "runs", "time"))
    yield row(("---", "--:", "--:", "--:"))
    for way, outcomes in every.items():
        yield row((way, _reached(outcomes), f"{mean(each.runs for each in outcomes):.1f}", f"{mean(each.hours for each in outcomes):.1f}"))


def _table(causes: Iterable[str], seeds: int) -> None:
    print(row(HEAD))
    print(row(("---", *["--:"] * (len(HEAD) - 1))))
    every: Played = {way: [] for way in WAYS}
    for cause in causes:
        by_size = [played(cause, n, seeds) for n in SIZES]
        print(row(cells(cause, by_size)), flush=True)
        for way in WAYS:
            every[way] += [outcome for each in by_size for outcome in each[way]]
    print()
    print("\n".join(totals(every)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--items", type=int, action="append", help="size of the evaluation (1319 and 5000)")
    parser.add_argument("--cause", choices=[*CAUSES], action="append")
    parser.add_argument("--tell", action="store_true", help="every answer in one line")
    parser.add_argument("--table", action="store_true", help="the table of docs/advice.md")
    arguments = parser.parse_args()
    causes, tell = arguments.cause or [*CAUSES], print if arguments.tell else lambda line: None
    if arguments.table:
        _table(causes, arguments.seeds)
        return 0
    every: Played = {way: [] for way in WAYS}
    for n in arguments.items or SIZES:
        print(f"{n:,} items")
        for cause in causes:
            found = played(cause, n, arguments.seeds, tell)
            print(_line(cause, found["advice"]), flush=True)
            for way in WAYS:
                every[way] += found[way]
    print("all")
    for way, outcomes in every.items():
        print(_line(way, [replace(each, last="") for each in outcomes]))
    advice = every["advice"]
    enough = sum(each.reached for each in advice) >= 0.8 * len(advice)
    return int(not enough or any(each.twice or each.silent for each in advice))


if __name__ == "__main__":
    sys.exit(main())
