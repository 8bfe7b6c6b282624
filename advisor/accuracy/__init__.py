"""How right the numbers are: measured runs, predictions beside them, and the intervals that follow."""

from advisor.accuracy.intervals import COVERAGE, IntervalShares, Residual, conformal_bounds, interval_shares
from advisor.accuracy.report import (
    AccuracyReport,
    BoundaryCheck,
    Comparison,
    Estimator,
    NotScored,
    Summary,
    accuracy,
    residuals_of,
    summarise,
)
from advisor.accuracy.rows import Measurement, Metric, Reading, Settings, Stage, measurements, plan_of

__all__ = [
    "COVERAGE",
    "AccuracyReport",
    "BoundaryCheck",
    "Comparison",
    "Estimator",
    "IntervalShares",
    "Measurement",
    "Metric",
    "NotScored",
    "Reading",
    "Residual",
    "Settings",
    "Stage",
    "Summary",
    "accuracy",
    "conformal_bounds",
    "interval_shares",
    "measurements",
    "plan_of",
    "residuals_of",
    "summarise",
]
