"""Intervals for several proportions at once, and the spread between training runs.

A curve of proportions over guidance scales is read as a whole: the scale that looks worst was picked because it does.
Its intervals must therefore hold together. The images of every scale come from the same draws and are called by the
same judge, so the estimates err together, and the intervals need to widen less than independent ones would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate, symmetric
from bundle.evaluation.prevalence import AdjustedCount, JudgeRates, adjusted_count

Floats = NDArray[np.float64]
DRAWS = 20_000


@dataclass(frozen=True)
class SeedSummary:
    """Mean over `n` seeds with its interval, and the standard deviation between seeds beyond the measuring error."""

    mean: Estimate
    between: float
    n: int


def simultaneous_confidence(values: Sequence[ArrayLike], rates: JudgeRates, confidence: float = 0.95) -> float:
    """Confidence to give to `AdjustedCount.interval` so that the intervals of all sets hold together.

    Args:
        values: S times (N,) groups that the judge calls, image i of every set from the same noise and prompt.
        rates: the judge's rates on subjects of known group.
        confidence: probability that all intervals cover; what is returned is never lower.

    The largest deviation is that of a multivariate t with the estimates' correlation (Hothorn, Bretz and Westfall,
    Biom. J. 50, 2008), by the delta method: the images' part from the pairs, the judge's from its shared errors. Its
    quantile is that of 20,000 draws with a fixed seed. Where the judge cannot tell the groups apart every interval is
    the whole range, at any confidence.

    Raises:
        ValueError: sets of different lengths, or calls that do not fit the groups.
    """
    if len({len(np.asarray(calls)) for calls in values}) != 1:
        raise ValueError(f"values: sets of {[len(np.asarray(c)) for c in values]} images; give the same draws to each")
    counts = [adjusted_count(calls, rates) for calls in values]
    if rates.inverse is None or len(counts) == 1:
        return confidence
    groups, degrees = len(rates.groups), counts[0].degrees
    rng = np.random.default_rng(0)
    root = _root_of_correlation(_joint_covariance(counts, values))
    normal = np.abs(root @ rng.standard_normal((root.shape[1], DRAWS))).max(axis=0)
    largest = normal / np.sqrt(rng.chisquare(degrees, DRAWS) / degrees)
    tail = 2 * t.sf(np.quantile(largest, confidence), degrees)
    return max(confidence, float(1 - tail * (groups if groups > 2 else 1)))  # `interval` divides by the groups again


def across_seeds(values: ArrayLike, standard_errors: ArrayLike, confidence: float = 0.95) -> SeedSummary:
    """Mean over training runs, with the t interval of runs that might have been, and how much the runs differ.

    Args:
        values: (S,) the figure of each seed, not clipped.
        standard_errors: (S,) of what differs from seed to seed, such as the images; what all seeds share, such as a
            judge's rates, does not make them differ and is not in the interval either.
        confidence: of the interval.

    `between` is the root of the variance of the values less the mean of the squared standard errors, or nought.

    Raises:
        ValueError: lengths differ.
        InputError: fewer than two seeds.
    """
    values, errors = np.asarray(values, dtype=np.float64), np.asarray(standard_errors, dtype=np.float64)
    if values.shape != errors.shape:
        raise ValueError(f"values, standard_errors: shapes {values.shape} and {errors.shape}; give one each per seed")
    n = len(values)
    if n < 2:
        raise InputError(f"values: {n} seed(s); give at least 2 to see how they differ")
    variance = float(values.var(ddof=1))
    mean = symmetric(values.mean(), variance / n, quantile=t.ppf((1 + confidence) / 2, n - 1))
    return SeedSummary(mean, float(np.sqrt(max(0.0, variance - np.mean(errors**2)))), n)


def _joint_covariance(counts: Sequence[AdjustedCount], values: Sequence[ArrayLike]) -> Floats:
    """Covariance (S G, S G) of the proportions of all sets."""
    rates = counts[0].rates
    groups = len(rates.groups)
    calls = np.hstack([np.eye(groups)[np.asarray(v, dtype=np.int64)] for v in values])
    images = np.cov(calls.T, bias=True) / len(calls)
    weights = np.stack([count.clipped for count in counts])
    judge = np.einsum("ka,lb,abcd->kcld", weights, weights, rates.covariance).reshape(images.shape)
    inverse = np.kron(np.eye(len(counts)), rates.inverse)
    joint = inverse @ (images + judge) @ inverse.T
    for k, count in enumerate(counts):  # each with the floor that keeps a set of equal calls from being certain
        own = slice(k * groups, (k + 1) * groups)
        joint[own, own] = count.covariance
    return joint


def _root_of_correlation(covariance: Floats) -> Floats:
    """R (K, rank) such that R R' is the correlation."""
    error = np.sqrt(np.diag(covariance))
    scale, turn = np.linalg.eigh(covariance / np.outer(error, error))
    kept = scale > 1e-9
    return turn[:, kept] * np.sqrt(scale[kept])
