"""How right the numbers are: measured runs, predictions beside them, and the intervals that follow."""

from advisor.accuracy.comparisons import Comparison, Summary, residuals_of, summarise
from advisor.accuracy.intervals import ALL, WIDE, Coverage, Residual, coverages, errors_file, is_off
from advisor.accuracy.plans import plan_of, read_measurements
from advisor.accuracy.report import (
    AccuracyReport,
    BoundaryCheck,
    Estimator,
    NotScored,
    accuracy,
)
from advisor.accuracy.rows import Loop, Measurement, Metric, Reading, Settings, Stage, measurements
from advisor.accuracy.tiers import CLOSED_FORM, DRY_RUN, MeasuredPlan, Traced, closed_form, dry_run, recorded_dry_run, recorded_in
from advisor.accuracy.times import TimeCoverage

__all__ = [
    "ALL",
    "CLOSED_FORM",
    "DRY_RUN",
    "WIDE",
    "AccuracyReport",
    "BoundaryCheck",
    "Comparison",
    "Coverage",
    "Estimator",
    "Loop",
    "MeasuredPlan",
    "Measurement",
    "Metric",
    "NotScored",
    "Reading",
    "Residual",
    "Settings",
    "Stage",
    "Summary",
    "TimeCoverage",
    "Traced",
    "accuracy",
    "closed_form",
    "coverages",
    "dry_run",
    "errors_file",
    "is_off",
    "measurements",
    "plan_of",
    "read_measurements",
    "recorded_dry_run",
    "recorded_in",
    "residuals_of",
    "summarise",
]
