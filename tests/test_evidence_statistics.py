"""The numbers behind "beyond the noise", against the published ones and against scipy, and the data that the gates read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from advisor import profiles
from advisor.evidence import published
from advisor.evidence.focus import view_of
from advisor.evidence.losses import has_spiked, overfit_by_loss, overfit_by_score, trend
from advisor.statistics import (
    Paired,
    gap_items,
    items_needed,
    items_needed_paired,
    mcnemar,
    paired,
    paired_error,
    share_error,
    slope_error,
)
from advisor.values import Method
from advisor.values.evidence import EvaluationFacts, Facts, LossPoint, RunFacts

EVIDENCE = Path(__file__).parent.parent / "advisor" / "evidence"
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EVIDENCE.glob("*.py")))
SOUND = {row["id"] for row in profiles.read("methods") if row.get("kind") == "fact" and row["confidence"] in ("high", "medium")}


def rows(kind: str) -> list[dict[str, Any]]:
    return [row for row in profiles.read("methods") if row.get("kind") == kind]


def test_standard_error_of_gsm8k() -> None:
    """Fact N1: 1.38 points at 48.2 % of 1,319 items."""
    assert 100 * share_error(0.482, 1319) == pytest.approx(1.38, abs=0.005)


def test_no_score_is_certain() -> None:
    assert share_error(0.0, 20) > 0
    assert share_error(1.0, 20) > 0


# Fact N7, to the item above.
@pytest.mark.parametrize(
    ("difference", "share", "items"),
    [(0.01, 0.5, 39_245), (0.02, 0.5, 9_811), (0.03, 0.5, 4_361), (0.05, 0.5, 1_570), (0.02, 0.8, 6_279)],
)
def test_items_for_a_difference_of_two_runs(difference: float, share: float, items: int) -> None:
    assert items_needed(difference, share) == pytest.approx(items, abs=1)


@pytest.mark.parametrize(("difference", "items"), [(0.02, 2_941), (0.05, 469)])
def test_items_for_a_paired_difference(difference: float, items: int) -> None:
    assert items_needed_paired(difference, 0.15) == pytest.approx(items, abs=1)


def test_items_for_a_gap() -> None:
    """Gate R2: p (1 − p) (1.645 + 0.84)² / g²."""
    assert gap_items(0.05, 0.5, 1.645, 0.84) == 618


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_counts_are_antisymmetric(items: list[tuple[bool, bool]]) -> None:
    first, second = (tuple(column) for column in zip(*items, strict=True))
    there, back = paired(first, second), paired(second, first)
    assert there.delta == -back.delta
    assert paired_error(there) == paired_error(back)
    assert there.delta == pytest.approx(sum(second) / len(second) - sum(first) / len(first))


@pytest.mark.parametrize(("only_first", "only_second", "p_value"), [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (2, 12, 0.012939453125)])
def test_mcnemar(only_first: int, only_second: int, p_value: float) -> None:
    """Two-sided binomial test of the discordant items; the values are sums of binomial coefficients over 2^n."""
    assert mcnemar(Paired(100, only_first, only_second)) == pytest.approx(p_value)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_scipys_binomial_test(only_first: int, only_second: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(only_first, only_first + only_second, 0.5).pvalue if only_first + only_second else 1.0
    assert mcnemar(Paired(10_000, only_first, only_second)) == pytest.approx(expected, rel=1e-9)


def test_slope_and_error_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    x, y = (1.0, 2.0, 3.0, 4.0, 6.0), (2.0, 1.7, 1.8, 1.2, 1.1)
    line = stats.linregress(x, y)
    assert slope_error(x, y) == pytest.approx((line.slope, line.stderr))


@pytest.mark.parametrize("losses", [(1.0, 1.0, 1.0), (2.0,)])
def test_a_level_line_has_no_slope(losses: tuple[float, ...]) -> None:
    assert slope_error(tuple(map(float, range(len(losses)))), losses) == (0.0, 0.0)


def curve(*losses: float) -> tuple[LossPoint, ...]:
    return tuple(LossPoint(step=step, loss=loss) for step, loss in enumerate(losses))


FALLING, FLAT, RISING = [2 - 0.05 * n for n in range(20)], [2 - 1 * min(n, 10) / 10 for n in range(20)], [1 + 0.05 * n for n in range(20)]


@pytest.mark.parametrize(("losses", "expected"), [(FALLING, "falling"), (FLAT, "flat"), (RISING, "rising"), ([1.0, 2.0], None)])
def test_trend_of_the_last_fifth(losses: list[float], expected: str | None) -> None:
    assert trend(curve(*losses)) == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.8, 1.7, 1.6, 1.5, 1.5, 1.4, 4.0, 4.1, 3.9, 4.0], True),
        ([2.0, 1.8, 1.7, 1.6, 1.5, 3.0, 1.4, 1.4, 1.3, 1.3, 1.2], False),  # it came back
        (FALLING, False),
        ([2.0, 5.0], False),
    ],
)
def test_a_spike_is_a_jump_without_return(losses: list[float], expected: bool) -> None:
    assert has_spiked(RunFacts(method=Method.LORA, train_losses=curve(*losses))) is expected


def test_overfitting_is_an_early_minimum() -> None:
    early = RunFacts(method=Method.LORA, train_losses=curve(*FALLING), eval_losses=curve(2, 1.5, 1.2, 1.3, 1.5, 1.8))
    late = RunFacts(method=Method.LORA, train_losses=curve(*FALLING), eval_losses=curve(2, 1.5, 1.2, 1.1, 1.0, 1.01))
    found = overfit_by_loss(early)
    assert found is not None
    assert found.at_share == pytest.approx(0.4)
    assert overfit_by_loss(late) is None
    assert overfit_by_score([(1, 0.2), (4, 0.42), (16, 0.33)], error=0.04) is not None
    assert overfit_by_score([(1, 0.2), (4, 0.42), (16, 0.40)], error=0.04) is None


@pytest.mark.parametrize(("x", "loss"), [(1, 0.0), (3.2, 2.9), (10, 7.2), (31, 11.3), (300, 11.3)])
def test_what_a_low_rate_costs(x: float, loss: float) -> None:
    """Fact LR6."""
    assert published.curve("lr_too_low", x) == pytest.approx(loss)


@pytest.mark.parametrize("row", rows("gate"), ids=lambda row: row["id"])
def test_thresholds_of_gates_have_a_source_and_are_read(row: dict[str, Any]) -> None:
    assert row["meaning"]
    assert row["source"]
    assert row["judgement"] or row["evidence"] or "quantile" in row["source"]
    assert set(row["evidence"]) <= SOUND
    assert f'gate("{row["id"]}")' in SOURCE, "no gate reads it"


@pytest.mark.parametrize("row", [*rows("move"), *rows("curve")], ids=lambda row: row["id"])
def test_moves_and_curves_rest_on_sound_facts(row: dict[str, Any]) -> None:
    assert row["evidence"]
    assert set(row["evidence"]) <= SOUND
    assert row.get("low_points", 0) <= row.get("high_points", 0)
    stem = re.sub(r"_(?:low|high|\d+)$", "", row["id"])
    assert f'"{row["id"]}"' in SOURCE or f'f"{stem}_{{' in SOURCE, "nobody reads it"


@pytest.mark.parametrize("kind", ["gate", "move", "curve"])
def test_ids_are_unique(kind: str) -> None:
    ids = [row["id"] for row in rows(kind)]
    assert ids
    assert sorted(set(ids)) == sorted(ids)


def test_gates_cite_only_sound_facts() -> None:
    cited = set(re.findall(r'"([A-Z]{1,2}\d+)"', SOURCE)) - {
        "R0",
        "R1",
        "R2",
        "R3",
        "R4",
        "R5",
        "R6",
        "R7",
        "R8",
        "R9",
        "R10",
        "R12",
        "R13",
        "R14",
    }
    assert len(cited) > 50
    assert cited <= SOUND


def scored(name: str, correct: str, ids: str = "", **more: Any) -> RunFacts:
    """A run with item results: "1101" and one letter an item."""
    return RunFacts(id=name, method=Method.LORA, rank=8, correct=tuple(item == "1" for item in correct), item_ids=tuple(ids), **more)


def compared(first: RunFacts, second: RunFacts, n: int | None = None) -> Any:
    view = view_of(Facts(runs=(first, second), evaluation=EvaluationFacts(n=n)))
    difference = view.compare(first, second)
    assert difference is not None
    return difference


def test_runs_are_paired_by_the_names_of_their_items() -> None:
    ordered = compared(scored("a", "1100", "wxyz"), scored("b", "1110", "wxyz"))
    shuffled = compared(scored("a", "1100", "wxyz"), scored("b", "0111", "zyxw"))
    assert ordered == shuffled
    assert ordered.paired
    assert compared(scored("a", "1100", "wxyz"), scored("b", "111", "abc")).paired is False


def test_a_paired_comparison_tells_more_than_two_scores() -> None:
    first, second = "1" * 500 + "0" * 500, "1" * 560 + "0" * 440
    pair = compared(scored("a", first), scored("b", second))
    apart = compared(RunFacts(id="a", method=Method.LORA, score=0.5), RunFacts(id="b", method=Method.LORA, score=0.56), n=1000)
    assert pair.delta == pytest.approx(apart.delta)
    assert pair.error < apart.error
    assert pair.p_value < 1e-9


def test_a_handful_of_discordant_items_proves_nothing() -> None:
    """Five against none: McNemar's exact test says 0.06, whatever the standard error says."""
    difference = compared(scored("a", "0" * 5 + "1" * 95), scored("b", "1" * 100))
    assert difference.is_noise
    assert difference.p_value == pytest.approx(2 * 0.5**5)


def test_repeats_replace_the_published_spread_of_reruns() -> None:
    once = RunFacts(id="a", method=Method.LORA, rank=8, score=0.50)
    repeats = [once.model_copy(update={"id": f"r{seed}", "seed": seed, "score": 0.50 + 0.03 * (seed - 1)}) for seed in range(3)]
    alone = view_of(Facts(runs=(once,), evaluation=EvaluationFacts(n=10**6)))
    together = view_of(Facts(runs=tuple(repeats), evaluation=EvaluationFacts(n=10**6)))
    assert alone.error(once) == pytest.approx(0.01, rel=0.01)  # fact N2
    assert together.error(repeats[0]) == pytest.approx(0.03 / 3**0.5, rel=0.01)
    assert together.score(repeats[0]) == pytest.approx(0.50)


@pytest.mark.parametrize(
    ("runs", "current", "expected"),
    [
        ([("a", 16, 0.40), ("b", 64, 0.41)], "", "a"),  # cannot be told apart: the cheaper one
        ([("a", 16, 0.40), ("b", 64, 0.50)], "", "b"),
        ([("a", 16, 0.40), ("b", 64, 0.50)], "a", "a"),
        ([("a", 64, 0.40), ("b", 16, 0.40)], "", "b"),
        ([("a", 16, None), ("b", 16, None)], "", "b"),  # nothing scored: the newest
    ],
)
def test_which_run_to_go_on_from(runs: list[tuple[str, int, float | None]], current: str, expected: str) -> None:
    known = tuple(RunFacts(id=name, method=Method.LORA, rank=rank, score=score) for name, rank, score in runs)
    focus = view_of(Facts(runs=known, current=current, evaluation=EvaluationFacts(n=1000))).focus
    assert focus is not None
    assert focus.id == expected
