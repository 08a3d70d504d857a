"""Checks of the assumption on which every adjusted count rests: label shift.

Under label shift a judge errs on generated images as on validation images, so that its scores on generated images are
a mixture of its scores on the groups, and only the weights of the mixture are new. Without labels on generated images
two things can be tested. One judge: whether any weights explain all of its scores (`label_shift_test`). Two judges of
the same images: whether their adjusted proportions agree (`judges_differ`), which fails when one of them was fooled.
A test that passes proves little; a test that fails takes the proportions' ground away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, t

from bundle.evaluation.estimate import Estimate, symmetric
from bundle.evaluation.prevalence import AdjustedCount, adjusted_count, judge_rates

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ShiftTest:
    """A test of label shift: chi-squared `statistic` with its degrees of freedom and p-value (NaN with no degree).

    `proportions` (G,) are those that explain the scores best, not clipped.
    """

    statistic: float
    degrees: int
    p_value: float
    proportions: Floats


def label_shift_test(
    generated: ArrayLike, validation: ArrayLike, truth: ArrayLike, subjects: ArrayLike, cuts: int = 5
) -> ShiftTest:
    """Test whether scores on generated images are a mixture of those on validation images of the groups.

    Args:
        generated: (N, G) the judge's probabilities on generated images.
        validation: (M, G) its probabilities on validation images.
        truth: (M,) index of the true group.
        subjects: (M,) identifiers of persons; images of one person err together.
        cuts: per group but the first, at how many values its probability is cut; fewer where values coincide.

    The shares h of images above each cut satisfy mean(h) = sum over groups of pi_a mean_a(h). There are more cuts than
    proportions, so the smallest weighted square of what is left is chi-squared (Hansen, Econometrica 50, 1982), with
    as many degrees as h has dimensions less G - 1. Weights are the inverse covariance, clustered by subject, to whose
    sum of squares one random image is added per group (as in `judge_rates`), at the proportions found so far.

    Raises:
        ValueError: arrays that do not fit each other.
        InputError: a group with fewer than two validation subjects.
    """
    generated, validation = (np.asarray(p, dtype=np.float64) for p in (generated, validation))
    groups = validation.shape[1]
    # Of use only for what it raises: the checks of scores, groups and subjects.
    adjusted_count(generated, judge_rates(validation, truth, subjects, [str(group) for group in range(groups)]))
    h_generated, h_validation = _above_cuts(generated, validation, cuts)
    degrees = h_generated.shape[1] - (groups - 1)
    if degrees < 1:
        return ShiftTest(np.nan, degrees, np.nan, np.full(groups, np.nan))
    ridge = np.eye(h_generated.shape[1])  # of one random image, since h was made to have this covariance
    means, covariance = _subject_means(h_validation, truth, subjects, groups, ridge)
    statistic, proportions = _least_misfit(h_generated, means, covariance)
    return ShiftTest(statistic, degrees, float(chi2.sf(statistic, degrees)), proportions)


def judges_differ(
    generated: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike],
    truth: ArrayLike,
    subjects: ArrayLike,
    groups: Sequence[str],
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Adjusted proportion by the second judge minus that by the first, for each group.

    Args:
        generated: two times (N,), the groups that either judge calls on the same generated images.
        validation: two times (M,), the groups that they call on the same validation images.
        truth: (M,) index of the true group.
        subjects: (M,) identifiers of persons; images of one person err together.
        groups: names of the G groups.
        confidence: of the interval (t quantile; each group on its own).

    Both judges measure the same proportion, so under label shift the difference is zero within its error: that of the
    calls and of both judges' rates, linearised, with what the judges' errors have in common. NaN, with the whole range
    as interval, where a judge cannot tell the groups apart.

    Raises:
        ValueError: arrays that do not fit each other.
        InputError: a group with fewer than two validation subjects.
    """
    counts = [
        adjusted_count(g, judge_rates(v, truth, subjects, groups)) for g, v in zip(generated, validation, strict=True)
    ]
    if any(count.rates.inverse is None for count in counts):
        return dict.fromkeys(groups, Estimate(np.nan, -1.0, 1.0, np.inf))
    if all(np.array_equal(*pair) for pair in (generated, validation)):
        return dict.fromkeys(groups, Estimate(0.0, 0.0, 0.0, 0.0))
    difference, quantile = counts[1].value - counts[0].value, t.ppf((1 + confidence) / 2, counts[0].degrees)
    variance = np.diag(_covariance_of_difference(counts, generated, validation, truth, subjects))
    return {
        group: symmetric(value, square, quantile=quantile)
        for group, value, square in zip(groups, difference, variance, strict=True)
    }


def _above_cuts(generated: Floats, validation: Floats, cuts: int) -> tuple[Floats, Floats]:
    """Whether each score is above each cut, turned and scaled to be uncorrelated with variance one: (N, K), (M, K)."""
    weights = np.repeat([0.5 / len(generated), 0.5 / len(validation)], [len(generated), len(validation)])
    columns = []
    for score in np.concatenate([generated, validation])[:, 1:].T:
        order = np.argsort(score)
        at = np.searchsorted(np.cumsum(weights[order]), np.arange(1, cuts + 1) / (cuts + 1))
        cut = np.unique(score[order][at])
        columns.append(score[:, None] > cut[cut < score.max()])
    above = np.concatenate(columns, axis=1).astype(np.float64)
    centred = above - weights @ above
    scale, turn = np.linalg.eigh((weights * centred.T) @ centred)
    kept = scale > 1e-9
    above = above @ (turn[:, kept] / np.sqrt(scale[kept]))
    return above[: len(generated)], above[len(generated) :]


def _subject_means(
    x: Floats, truth: ArrayLike, subjects: ArrayLike, groups: int, ridge: Floats
) -> tuple[Floats, Floats]:
    """Mean (G, K) of x (M, K) over the subjects of each group, and covariance (G, G, K, K) of these means."""
    _, person = np.unique(np.asarray(subjects), return_inverse=True)
    images = np.zeros((person.max() + 1, groups))
    sums = np.zeros((*images.shape, x.shape[1]))
    np.add.at(images, (person, truth), 1)
    np.add.at(sums, (person, truth), x)
    n = (images > 0).sum(axis=0)
    values = sums / np.maximum(images, 1)[..., None]
    means = values.sum(axis=0) / n[:, None]
    scale = (n * (n - 1.0))[:, None]
    deviations = np.where(images[..., None] > 0, values - means, 0) / np.sqrt(scale)
    covariance = np.einsum("iac,ibd->abcd", deviations, deviations)
    for group in range(groups):
        covariance[group, group] += ridge / scale[group]
    return means, covariance


def _least_misfit(h: Floats, means: Floats, covariance: Floats, steps: int = 50) -> tuple[float, Floats]:
    """Smallest weighted square of mean(h) - sum of pi_a means_a, and the pi (G,) there.

    The weights depend on pi: they are taken at the last pi, cut to [0, 1], until pi comes to rest.
    """
    groups = len(means)
    sampling = np.cov(h.T, bias=True).reshape(h.shape[1], -1) / len(h)
    apart, y = means[1:] - means[0], h.mean(axis=0) - means[0]
    pi = np.full(groups, 1 / groups)
    for _ in range(steps):
        at = np.clip(pi, 0, 1)
        weights = np.linalg.inv(sampling + np.einsum("a,b,abcd->cd", at, at, covariance))
        rest, *_ = np.linalg.lstsq(apart @ weights @ apart.T, apart @ weights @ y, rcond=None)
        before, pi = pi, np.append(1 - rest.sum(), rest)
        if np.abs(pi - before).max() < 1e-8:
            break
    left = y - rest @ apart
    return float(left @ weights @ left), pi


def _covariance_of_difference(
    counts: Sequence[AdjustedCount],
    generated: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike],
    truth: ArrayLike,
    subjects: ArrayLike,
) -> Floats:
    """Covariance (G, G) of the second adjusted proportions less the first, from the calls of both side by side.

    The random subject that keeps the variance from nought (as in `judge_rates`) is one on whom the judges call
    independently: that two judges agreed on all of few subjects does not show that they always will.
    """
    identity = np.eye(len(counts[0].groups))
    size = len(identity)
    x, known = (np.hstack([identity[np.asarray(c, dtype=np.int64)] for c in pair]) for pair in (generated, validation))
    ridge = np.kron(np.eye(2), identity / size - 1 / size**2)
    _, covariance = _subject_means(known, truth, subjects, size, ridge)
    weights = np.hstack([np.tile(count.clipped[:, None], size) for count in counts])
    judges = np.einsum("ac,bd,abcd->cd", weights, weights, covariance)
    lever = np.hstack([-counts[0].rates.inverse, counts[1].rates.inverse])
    return lever @ (np.cov(x.T, bias=True) / len(x) + judges) @ lever.T
