"""Predicted against measured, on hand-made rows whose statistics were worked out by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from advisor import api, hub, profiles
from advisor.accuracy import (
    ALL,
    WIDE,
    AccuracyReport,
    MeasuredPlan,
    Measurement,
    Metric,
    Residual,
    accuracy,
    coverages,
    dry_run,
    errors_file,
    is_off,
    measurements,
    plan_of,
    read_measurements,
    residuals_of,
)
from advisor.accuracy.__main__ import files
from advisor.accuracy.tiers import kind_of_run
from advisor.devices import load_gpu
from advisor.errors import InvalidInputError, UnsupportedError
from advisor.memory import estimate_memory
from advisor.memory.intervals import Bounds
from advisor.memory.kinds import IN_THREADS, kind_of
from advisor.profiles.runtime import Residuals
from advisor.values import Fit, Interval, MemoryBreakdown, ModelSpec, Phase, PhaseBytes, Plan, Term, TermBytes

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


def test_releases_stand_apart_newest_first():
    """Predicted 10 each. 8 ran with 5.x (+25 %), 9 and 12.5 with 4.x (+11.1 %, −20 %), 10 with nobody knows what (0)."""
    sizes = {8: "5.23.0", 9: "4.57.1", 12.5: "4.48.1", 10: None}
    rows = [
        run(str(size), ("allocated", int(size * GB), None), versions={"transformers": release} if release else {})
        for size, release in sizes.items()
    ]
    releases = accuracy(estimator(), "estimate", resolve, rows).releases
    assert [(row.release, row.grade, row.n) for row in releases] == [("5.x", "A+B", 1), ("4.x", "A+B", 2), ("not stated", "A+B", 1)]
    assert releases[0].worst_over == pytest.approx(0.25)
    assert releases[1].median_absolute_error == pytest.approx((0.2 + 1 / 9) / 2)


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

KIND = kind_of(hub.load_model("llama-3.1-8b"), Plan(), None)


def residuals(*pairs, kind=KIND):
    listed = enumerate(pairs)
    return [Residual(id=f"{group}{index}", group=group, metric="reserved", kind=kind, share=share) for index, (group, share) in listed]


def test_residuals_are_of_reserved_memory_and_else_of_allocated():
    row = run("a", ("allocated", 20 * GB, None), ("reserved", 22 * GB, None), ("process", 33 * GB, None))
    (residual,) = residuals_of(accuracy(estimator(), "estimate", resolve, [row]).comparisons)
    assert (residual.metric, residual.share, residual.group) == ("reserved", 1.0, "a/b · Tesla T4")  # 22 measured, 11 predicted
    row = run("a", ("allocated", 21 * GB, None), ("process", 33 * GB, None))
    (residual,) = residuals_of(accuracy(estimator(), "estimate", resolve, [row]).comparisons)
    assert (residual.metric, residual.share) == ("allocated", 1.0)  # 21 measured, 10 predicted, of 11 reserved


def test_a_file_of_errors_keeps_them_by_kind_and_group():
    other = KIND._replace(weights="4-bit base")
    content = errors_file("estimate", [*residuals(("x", 0.1), ("y", 0.2), ("x", -0.1)), *residuals(("x", 0.3), kind=other)])
    assert (content.n, content.n_groups) == (4, 2)
    found = {(entry.group, entry.kind["weights"]): entry.shares for entry in content.errors}
    assert found == {("x", "16-bit base"): (0.1, -0.1), ("y", "16-bit base"): (0.2,), ("x", "4-bit base"): (0.3,)}
    assert "family" not in content.errors[0].kind  # a facet with nothing to say


def test_coverage_by_hand(monkeypatch):
    """Of x −0.05, 0 and 0.02; of y 0.1 and 0.2. Made of all: −0.05 to 0.2. Without x: 0 to 0.2; without y: −0.05 to 0.02. Of z, which
    alone ran its kind, 0.3."""
    made = {"": (-0.05, 0.2), "x": (0.0, 0.2), "y": (-0.05, 0.02), "z": (-0.05, 0.2)}

    def bounds_of(tier, kind, without=frozenset()):
        low, high = made[min(without - {"a model"}, default="")]
        assert not without or "a model" in without  # dry runs of it are left out, too
        unlike = "4-bit base" if kind.weights == "4-bit base" else ""
        return Bounds(errors=(), effective=0, groups=2, low=low, high=high, unlike=unlike, ran=3, kin=True, bias=0.0, sources="")

    monkeypatch.setattr("advisor.accuracy.intervals.bounds_of", bounds_of)
    few = residuals(("z", 0.3), kind=KIND._replace(weights="4-bit base"))
    ran = [*few, *residuals(("x", -0.05), ("x", 0.0), ("x", 0.02), ("y", 0.1), ("y", 0.2))]
    row, alone, wide, together = coverages("estimate", [item.model_copy(update={"alike": ("a model",)}) for item in ran])
    assert (row.kind, row.n, row.n_groups, row.wide) == ("one card, 16-bit base, checkpointing", 5, 2, False)
    assert (row.inside, row.inside_left_out, row.median_width) == (1.0, pytest.approx(2 / 5), 0.25)
    assert (alone.n, alone.wide, alone.inside_left_out) == (1, True, 0.0)
    assert wide == alone.model_copy(update={"kind": WIDE})
    assert (together.kind, together.n, together.wide) == ("all", 6, False)


# (inside, of, whether it speaks against 85 to 97 %), tails from a table of the binomial
@pytest.mark.parametrize(
    ("held", "n", "off"),
    [
        (10, 10, False),  # 0.97^10 = 0.74
        (8, 10, False),  # at most 8 at 0.85: 0.456
        (7, 10, False),  # 0.180
        (5, 10, True),  # 0.0099
        (3, 6, True),  # 0.0473
        (98, 98, False),  # 0.97^98 = 0.0505
        (99, 99, True),  # 0.0490
        (78, 100, True),  # 0.0393
        (79, 100, False),  # 0.0663
    ],
)
def test_what_luck_explains_is_not_off(held, n, off):
    assert is_off(held, n) is off


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


@pytest.mark.parametrize(
    ("predicted", "transformers", "loading"),
    [
        ({}, "5.0.0", IN_THREADS),  # the closed form names no versions: the run's own
        ({}, "5.17.0", ""),
        ({"transformers": "5.17.0"}, "5.0.0", ""),  # a dry run under others is of theirs
        ({"transformers": "5.0.0"}, "5.0.0", IN_THREADS),
    ],
)
def test_a_run_is_of_the_kind_that_its_libraries_make_it(predicted, transformers, loading):
    settings = SETTINGS | {"method": "qlora", "quantization": "nf4", "double_quant": True, "kbit_prepare": False}
    row = run("a", settings=settings, scored=False, reason="of no reading", versions={"transformers": transformers})
    ran = MeasuredPlan(row, resolve("m"), plan_of(row), load_gpu("T4"))
    assert kind_of_run(ran, estimator()(ran).model_copy(update={"versions": predicted})).loading == loading


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


def test_a_dry_run_of_several_cards_knows_what_they_share():
    row = run("a", ("reserved", GB, None), n_gpus=2)
    with pytest.raises(UnsupportedError, match="what several cards share"):
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


def assert_covered(rows):
    """Between 85 and 97 % where the runs are so many that a single miss is less than the 3 % which shall be outside, else as near as their
    number can tell."""
    for row in rows:
        assert not row.off, row
        assert row.n < 1 / 0.03 or 0.85 <= row.inside_left_out <= 0.97, row


@pytest.mark.parametrize("tier", ["estimate", "trace"])
def test_intervals_cover_runs_that_they_were_not_made_of(tiers, tier):
    """Of every kind that enough sources and cards ran, and of all; those that few ran, together, are held by no fewer."""
    rows = {row.kind: row for row in tiers[tier].coverages}
    assert {row.kind for row in rows.values() if not row.wide} == {*COVERED, ALL}
    assert rows[ALL].n >= 40
    assert_covered([*(rows[kind] for kind in COVERED), rows[ALL]])
    assert rows[WIDE].inside_left_out >= 0.85


COVERED = "one card, 16-bit base, checkpointing", "one card, 4-bit base, checkpointing"


def test_a_kind_that_few_ran_is_wide_by_name(tiers):
    """Never counted as covered by its own runs alone."""
    for report in tiers.values():
        few = [row for row in report.coverages if row.n_groups < 2]
        assert len(few) >= 2
        assert all(row.wide for row in few)


def test_bounds_from_dry_runs_cover_models_that_they_were_not_made_of(tiers):
    rows = tiers["estimate"].replayed
    assert len(rows) >= 25
    assert all(row.n_groups >= 15 for row in rows)
    assert all(0.85 <= row.inside_left_out <= 0.97 for row in rows)


# Half of the median width that the screen showed of these runs before intervals knew kinds (25.5 % and 20.2 %).
def test_the_closed_forms_intervals_on_the_t4_runs_are_half_as_wide_as_they_were():
    """As `advise` prints them for the plans of these runs."""
    widths = sorted(printed_width(row) for row in t4_runs())
    assert len(widths) >= 26
    assert widths[len(widths) // 2] <= 0.1275


def test_the_dry_runs_intervals_on_the_t4_runs_are_half_as_wide_as_they_were(tiers):
    rows = [item for item in tiers["trace"].comparisons if "T4" in item.group and item.metric is Metric.RESERVED]
    widths = sorted((item.high_bytes - item.low_bytes) / item.predicted_bytes for item in rows)
    assert len(widths) >= 26
    assert widths[len(widths) // 2] <= 0.101


def t4_runs():
    runs = (row for row in measurements() if row.scored and row.kind == "run" and row.card == "Tesla T4")
    return [row for row in runs if any(reading.scored and reading.metric is Metric.RESERVED for reading in row.readings)]


def printed_width(row):
    memory = estimate_memory(hub.load_model(row.model), plan_of(row), load_gpu(row.card))
    return (memory.high_bytes - memory.low_bytes) / memory.expected_bytes


def test_residuals_on_the_disk_are_those_of_the_formulas_and_the_rows():
    """`python -m advisor.accuracy` writes them."""
    on_disk = {row.tier: row for row in profiles.rows("measurements/residuals", Residuals)}
    assert {content.tier: content for content in files()} == on_disk
