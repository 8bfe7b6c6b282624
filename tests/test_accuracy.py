"""Predicted against measured, on hand-made rows whose statistics were worked out by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from advisor import api, hub, profiles
from advisor.accuracy import (
    AccuracyReport,
    IntervalShares,
    MeasuredPlan,
    Measurement,
    Metric,
    Residual,
    accuracy,
    conformal_bounds,
    dry_run,
    interval_shares,
    measurements,
    plan_of,
    read_measurements,
    residuals_of,
)
from advisor.devices import load_gpu
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.values import Fit, Interval, MemoryBreakdown, ModelSpec, Phase, PhaseBytes, Term, TermBytes

GB = 10**9
SETTINGS = {
    "method": "lora",
    "rank": 16,
    "alpha": 32,
    "target_modules": ("all-linear",),
    "use_rslora": False,
    "adapter_dtype": "fp32",
    "base_dtype": "bf16",
    "autocast": False,
    "optimizer": "adamw_torch",
    "micro_batch_size": 1,
    "seq_len_tokens": 1000,
    "grad_accum_steps": 1,
    "gradient_checkpointing": True,
    "attention": "flash",
    "padding": False,
    "kv_cache_in_outputs": False,
    "loss": "full",
    "stack": "hf",
    "sharding": "none",
}


def run(row_id, *readings, **fields):
    listed = [{"metric": metric, "bytes": size_bytes, "what": "peak", "seq_len_tokens": length} for metric, size_bytes, length in readings]
    row = {
        "id": row_id,
        "kind": "run",
        "source": "github.com/a/b",
        "grade": "A",
        "model": "m",
        "gpu": "T4",
        "card": "Tesla T4",
        "n_gpus": 1,
    }
    return Measurement.model_validate(row | {"scored": True, "settings": SETTINGS, "readings": listed} | fields)


def boundary(row_id, fits, **fields):
    return run(row_id, kind="boundary", fits=fits, **fields)


def estimator(allocated_bytes=10 * GB, slack_bytes=GB, context_bytes=0, low=0.1, high=0.2):
    """Predicts the same for every plan: 10 GB allocated, all of it moving, 11 GB reserved and in the process, unless told otherwise."""

    def predict(ran):
        term = TermBytes(term=Term.ACTIVATIONS, bytes=allocated_bytes)
        return MemoryBreakdown(
            source="estimate",
            phases=(PhaseBytes(phase=Phase.BACKWARD, terms=(term,)),),
            reserved_slack_bytes=slack_bytes,
            context_bytes=context_bytes,
            interval=Interval(low_share=low, high_share=high, source="stub"),
        )

    return predict


def resolve(name):
    return hub.load_model("llama-3.1-8b")


def test_like_is_compared_with_like():
    row = run("a", ("allocated", 8 * GB, None), ("reserved", 10 * GB, None), ("process", 12 * GB, None))
    report = accuracy(estimator(context_bytes=GB), "estimate", resolve, [row])
    assert [(item.metric.value, item.predicted_bytes) for item in report.comparisons] == [
        ("allocated", 10 * GB),
        ("reserved", 11 * GB),
        ("process", 12 * GB),
    ]
    assert [round(item.relative_error, 3) for item in report.comparisons] == [0.25, 0.1, 0.0]
    # 11 move: 1.1 below, 2.2 above; 8 of 8.9–12.2 is outside, 10 of 9.9–13.2 and 12 of 10.9–14.2 inside
    assert [item.inside for item in report.comparisons] == [False, True, True]


def test_statistics_by_hand():
    """Predicted 10 each; measured 8, 9, 10, 12.5: errors +25 %, +11.1 %, 0, −20 %."""
    rows = [run(str(size), ("allocated", int(size * GB), None)) for size in (8, 9, 10, 12.5)]
    (summary,) = accuracy(estimator(), "estimate", resolve, rows).summaries
    assert (summary.grade, summary.metric, summary.n) == ("A", Metric.ALLOCATED, 4)
    assert summary.median_absolute_error == pytest.approx((0.2 + 1 / 9) / 2)
    assert summary.worst_over == pytest.approx(0.25)
    assert summary.worst_under == pytest.approx(-0.2)
    assert summary.share_under == 0.25
    assert summary.coverage == 0.5  # 9 and 10 lie in 8.9–12.2, 8 and 12.5 do not


def test_grades_and_rows_apart_have_their_own_summaries():
    rows = [
        run("a", ("allocated", 10 * GB, None)),
        run("b", ("allocated", 5 * GB, None), grade="B"),
        run("c", ("allocated", 20 * GB, None), apart="older libraries"),
    ]
    report = accuracy(estimator(), "estimate", resolve, rows)
    assert [(item.grade, item.n, item.median_absolute_error) for item in report.summaries] == [("A", 1, 0.0), ("B", 1, 1.0)]
    assert [(item.grade, item.n) for item in report.summaries_with_apart] == [("A", 2), ("B", 1)]
    assert [item.apart for item in report.comparisons] == ["", "", "older libraries"]
    assert {residual.id for residual in residuals_of(report.comparisons)} == {"a", "b"}


def test_each_reading_is_priced_at_its_own_length():
    lengths = []

    def predict(ran):
        lengths.append(ran.plan.seq_len_tokens)
        return estimator()(ran)

    settings = SETTINGS | {"seq_len_tokens": None}
    row = run("a", ("reserved", 11 * GB, 683), ("reserved", 10 * GB, 230), settings=settings)
    report = accuracy(predict, "estimate", resolve, [row])
    assert [item.seq_len_tokens for item in report.comparisons] == [683, 230]
    assert lengths == [683, 230, 683]  # the last: whether the longest batch fits
    assert [residual.share for residual in residuals_of(report.comparisons)] == [0.0]


# (measured to fit, expected GB, what the estimate says on 10 GB, unsafe, refused); a tenth below and a fifth above
@pytest.mark.parametrize(
    ("fits", "expected", "predicted", "unsafe", "refused"),
    [
        (False, 8, Fit.FITS, True, False),
        (False, 9, Fit.UNCERTAIN, False, False),
        (False, 12, Fit.DOES_NOT_FIT, False, False),
        (True, 8, Fit.FITS, False, False),
        (True, 12, Fit.DOES_NOT_FIT, False, True),
    ],
)
def test_boundaries(fits, expected, predicted, unsafe, refused):
    row = boundary("edge", fits, usable_bytes=10 * GB)
    report = accuracy(estimator(expected * GB, slack_bytes=0), "estimate", resolve, [row])
    (check,) = report.boundaries
    assert (check.predicted, check.unsafe, check.refused) == (predicted, unsafe, refused)
    assert check.usable_bytes == 10 * GB
    assert report.unsafe_fits == (("edge",) if unsafe else ())
    assert report.refused_fits == (("edge",) if refused else ())
    assert report.comparisons == ()


def test_a_completed_run_is_a_boundary_too():
    report = accuracy(estimator(100 * GB), "estimate", resolve, [run("a", ("allocated", 10 * GB, None))])
    assert report.refused_fits == ("a",)


def test_rows_that_cannot_be_scored_are_listed_with_the_reason():
    def refuse(ran):
        raise UnsupportedError("no such kernel")

    rows = [run("a", scored=False, reason="IA3"), run("b", ("allocated", GB, None)), run("c", ("allocated", GB, None), card=None)]
    report = accuracy(refuse, "estimate", resolve, rows)
    assert [(item.id, item.reason) for item in report.not_scored] == [
        ("a", "IA3"),
        ("b", "no such kernel"),
        ("c", "c: no profile for the card 'T4'"),
    ]


def test_report_survives_json():
    report = accuracy(estimator(), "estimate", resolve, [run("a", ("allocated", 9 * GB, None)), boundary("b", False)])
    assert AccuracyReport.model_validate_json(report.model_dump_json()) == report


# ------------------------------------------------------------------------------------------------ intervals

# n, coverage → ranks by hand: floor((n+1)·t) from below and ceil((n+1)(1−t)) from above, t half of the rest
RANKS = [
    (19, 0.90, 1, 19),  # 20·0.05 = 1, 20·0.95 = 19
    (39, 0.90, 2, 38),
    (99, 0.90, 5, 95),
    (99, 0.80, 10, 90),
    (9, 0.80, 1, 9),
    (5, 0.90, 1, 5),  # too few: the extremes
    (45, 0.90, 2, 44),  # 46·0.05 = 2.3, 46·0.95 = 43.7
]


@pytest.mark.parametrize(("n", "coverage", "low_rank", "high_rank"), RANKS)
def test_conformal_ranks(n, coverage, low_rank, high_rank):
    assert conformal_bounds([float(value) for value in range(n, 0, -1)], coverage) == (low_rank, high_rank)


def residuals(*pairs):
    return [Residual(id=f"{group}{index}", group=group, metric="process", share=share) for index, (group, share) in enumerate(pairs)]


def test_intervals_by_hand():
    """Three groups, six runs: fewer than the rule needs at 90 %, so the pooled bounds are the extremes, −0.05 and 0.20.

    Without y the highest is 0.05, so that y steps 0.15 beyond it; without x the lowest is −0.01, a step of 0.04.
    """
    factors = interval_shares(residuals(("x", -0.05), ("x", 0.0), ("y", 0.02), ("y", 0.20), ("z", -0.01), ("z", 0.05)), "estimate")
    assert (factors.n, factors.n_groups) == (6, 3)
    assert (factors.seen.low_share, factors.seen.high_share) == (0.05, 0.20)
    assert (factors.unseen.low_share, factors.unseen.high_share) == pytest.approx((0.05 + 0.04, 0.20 + 0.15))
    assert factors.coverage_leave_one_out == pytest.approx(4 / 6)  # each extreme is outside the others
    # y and z give −0.02 to 0.35: −0.05 of x is outside; x and z give at most 0.10: 0.20 of y is outside
    assert factors.coverage_leave_group_out == pytest.approx(4 / 6)
    assert "6 measured runs" in factors.seen.source
    assert "3 groups" in factors.unseen.source


def test_one_group_is_not_enough():
    with pytest.raises(InvalidInputError, match="two groups"):
        interval_shares(residuals(("x", 0.0), ("x", 0.1)), "estimate")


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.floats(-0.5, 1.0)), min_size=4, max_size=60))
def test_unseen_is_never_narrower_and_the_estimate_is_inside(pairs):
    pairs = [("x", 0.0), ("y", 0.0), *pairs]
    factors = interval_shares(residuals(*pairs), "estimate")
    assert factors.unseen.low_share >= factors.seen.low_share >= 0
    assert factors.unseen.high_share >= factors.seen.high_share >= 0
    assert 0 <= factors.coverage_leave_group_out <= 1
    assert IntervalShares.model_validate_json(factors.model_dump_json()) == factors


def test_residuals_are_of_the_reading_nearest_to_the_process():
    row = run("a", ("allocated", 20 * GB, None), ("reserved", 22 * GB, None), ("process", 33 * GB, None))
    (residual,) = residuals_of(accuracy(estimator(), "estimate", resolve, [row]).comparisons)
    assert (residual.metric, residual.share, residual.group) == ("process", 2.0, "a/b · Tesla T4")  # 33 measured, 11 predicted, 11 move
    (residual,) = residuals_of(accuracy(estimator(), "estimate", resolve, [row]).comparisons, (Metric.RESERVED, Metric.ALLOCATED))
    assert (residual.metric, residual.share) == ("reserved", 1.0)


# ------------------------------------------------------------------------------------------------ tiers

APART = "transformers 4.48 keeps more alive"


@pytest.mark.parametrize(
    ("tier", "traced_under", "by_versions", "apart"),
    [
        ("estimate", "4.48.1", True, APART),
        ("trace", "4.48.1", True, ""),
        ("trace", "5.23.0", True, APART),
        ("trace", "4.48.1", False, APART),  # a cast that no plan says: the right versions do not mend it
    ],
)
def test_a_dry_run_under_the_runs_own_versions_is_not_apart_for_their_sake(tier, traced_under, by_versions, apart):
    versions = {"transformers": "4.48.1"}
    row = run("a", ("allocated", 10 * GB, None), versions=versions, apart=APART, apart_by_versions=by_versions)

    def predict(ran):
        return estimator()(ran).model_copy(update={"versions": {"transformers": traced_under}})

    (item,) = accuracy(predict, tier, resolve, [row]).comparisons
    assert item.apart == apart


def test_scatter_of_a_reading_is_apart_for_the_dry_run_and_counts_in_its_interval():
    reading = {"metric": "reserved", "bytes": 11 * GB, "what": "peak", "dry_run_apart": "loads in threads"}
    row = run("a", readings=[reading])
    for tier, apart in (("estimate", ""), ("trace", "loads in threads")):
        report = accuracy(estimator(), tier, resolve, [row])
        assert [item.apart for item in report.comparisons] == [apart]
        assert len(report.summaries) == (0 if apart else 1)
        assert [residual.id for residual in residuals_of(report.comparisons)] == ["a"]


def test_a_dry_run_takes_the_loop_from_the_row(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "advisor.accuracy.tiers.trace", lambda model, plan, **options: asked.append(options) or SimpleNamespace(breakdown=0)
    )
    loop = {"lengths_tokens": (100, 200, 300), "empty_cache_every_steps": 1, "keep_outputs": False, "clips": True}
    row = run("a", ("reserved", GB, 200), loop=loop)
    dry_run(MeasuredPlan(row, resolve("m"), plan_of(row, 200), load_gpu("T4")))
    (options,) = asked
    assert options["lengths"] == (100, 200)  # up to the length that was read
    assert (options["empty_cache_every_steps"], options["keep_outputs"], options["clips"]) == (1, False, True)


def test_a_dry_run_is_of_one_card():
    row = run("a", ("reserved", GB, None), n_gpus=2)
    with pytest.raises(UnsupportedError, match="one card"):
        dry_run(MeasuredPlan(row, resolve("m"), plan_of(row), load_gpu("T4")))


def test_rows_of_a_file(tmp_path):
    path = tmp_path / "mine.json"
    row = run("mine", ("allocated", 10 * GB, None))
    path.write_text(json.dumps([row.model_dump(mode="json")]))
    assert read_measurements(path) == (row,)
    (report,) = api.accuracy(path)  # no dry run lies beside it
    assert [item.id for item in report.comparisons + report.not_scored] == ["mine"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("{}", "holds no list of measured runs"),
        ('[{"id": "a"}]', "row 1: kind is missing"),
        ('[{"id": "a", "kind": "run", "colour": 1}]', "row 1:"),
    ],
)
def test_a_wrong_file_of_rows_is_one_line(tmp_path, text, says):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=says) as caught:
        read_measurements(path)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ the real rows


@pytest.fixture(scope="module")
def tiers():
    return {report.tier: report for report in api.accuracy()}


def test_scored_models_need_no_network(monkeypatch):
    def offline(*_):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(hub, "from_hub", offline)
    models = {row.same_shape_as or row.model for row in measurements() if row.scored and row.grade == "A"}
    assert all(isinstance(hub.load_model(model), ModelSpec) for model in models)


# The bars of the project on grade A: largest median of the absolute errors, and largest error.
@pytest.mark.parametrize(
    ("tier", "metric", "median", "worst"),
    [
        ("estimate", Metric.ALLOCATED, 0.05, None),
        ("estimate", Metric.RESERVED, 0.05, None),
        ("trace", Metric.ALLOCATED, 0.005, 0.02),
        ("trace", Metric.RESERVED, 0.03, 0.10),
    ],
)
def test_tiers_are_near_what_was_measured(tiers, tier, metric, median, worst):
    (summary,) = (row for row in tiers[tier].summaries if (row.grade, row.metric) == ("A", metric))
    assert summary.n >= 30
    assert summary.median_absolute_error <= median
    assert worst is None or max(-summary.worst_under, summary.worst_over) <= worst


@pytest.mark.parametrize("tier", ["estimate", "trace"])
def test_no_tier_calls_a_measured_oom_a_fit(tiers, tier):
    assert sum(not check.measured_fits for check in tiers[tier].boundaries) >= 12
    assert tiers[tier].unsafe_fits == ()


@pytest.mark.parametrize("tier", ["estimate", "trace"])
def test_residuals_on_the_disk_are_those_of_the_formulas_and_the_rows(tiers, tier):
    """`python -m advisor.accuracy` writes them."""
    (row,) = (row for row in profiles.read("measurements/residuals") if row["tier"] == tier)
    assert IntervalShares.model_validate(row) == tiers[tier].intervals
