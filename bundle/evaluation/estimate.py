"""A figure with its interval, the form in which every measure but a proportion is returned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error and its interval from `low` to `high`."""

    value: float
    low: float
    high: float
    standard_error: float


def symmetric(value: float, variance: float, confidence: float = 0.95, quantile: float | None = None) -> Estimate:
    """Value plus and minus `quantile` standard errors; the quantile is the normal one unless given."""
    quantile = norm.ppf((1 + confidence) / 2) if quantile is None else quantile
    error = float(np.sqrt(max(variance, 0.0)))
    return Estimate(float(value), float(value - quantile * error), float(value + quantile * error), error)


def difference(first: Estimate, second: Estimate, confidence: float = 0.95) -> Estimate:
    """`first` minus `second`, measured on different subjects and images: the variances add; a normal interval.

    What both share (a set of images, a judge) would make their errors go together, which this leaves out.
    """
    variance = first.standard_error**2 + second.standard_error**2
    return symmetric(first.value - second.value, variance, confidence)


def jackknife_variance(values: ArrayLike) -> float:
    """(K - 1) / K times the sum of squares of the K leave-one-out values (Arvesen, Ann. Math. Stat. 40, 1969)."""
    return float((len(values) - 1) * np.var(values))
