"""Proportions of groups among images, as counted by a judge that errs.

A judge with sensitivity s and false-positive rate f calls the share q = f + pi (s - f) of the images when the
proportion is pi. The adjusted count solves this for pi; its interval keeps every pi that a test would not reject, so
that the errors of q, s and f all count. The assumption is label shift: the judge errs on generated images as it does on
the validation images (which should therefore have passed through the generator's autoencoder). `tipping_point` says how
wrong that assumption may be before the verdict falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

from bundle.errors import InputError

Verdict = Literal["aligned", "not aligned", "cannot tell"]
Shares = ArrayLike | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class JudgeRates:
    """How a judge calls subjects of known group.

    `matrix[a, b]` is the mean over subjects of group a of the share of their images called b; `covariance[a, b, c, d]`
    is the covariance of `matrix[a, c]` and `matrix[b, d]`; `subjects[a]` counts the subjects of group a.
    """

    groups: tuple[str, ...]
    matrix: NDArray[np.float64]
    covariance: NDArray[np.float64]
    subjects: NDArray[np.int64]

    @property
    def inverse(self) -> NDArray[np.float64] | None:
        """Inverse of the transposed matrix (G, G), from shares called to proportions; None where there is none."""
        return np.linalg.inv(self.matrix.T) if np.linalg.cond(self.matrix) < 1e8 else None


@dataclass(frozen=True, eq=False)
class AdjustedCount:
    """Proportions of the groups (`total` 1), or their change between two sets of images (`total` 0).

    `raw` (G,) is the share called, or its change, and `raw_covariance` (G, G) its sampling error; `n` counts images and
    `degrees` the degrees of freedom of the t quantile.
    """

    raw: NDArray[np.float64]
    raw_covariance: NDArray[np.float64]
    rates: JudgeRates
    n: int
    degrees: int
    total: int = 1

    @property
    def groups(self) -> tuple[str, ...]:
        return self.rates.groups

    @property
    def value(self) -> NDArray[np.float64]:
        """Adjusted proportions (G,), not clipped: only so do averages over runs stay unbiased. NaN if undefined."""
        inverse = self.rates.inverse
        return np.full(len(self.groups), np.nan) if inverse is None else inverse @ self.raw

    @property
    def clipped(self) -> NDArray[np.float64]:
        """Proportions (G,) cut to the possible range, for display."""
        return np.clip(self.value, self.total - 1, 1)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance (G, G) of the proportions by the delta method, with the error of images and of the judge."""
        inverse, weights = self.rates.inverse, self.clipped
        if inverse is None:
            return np.full((len(self.groups),) * 2, np.inf)
        judge = np.einsum("a,b,abcd->cd", weights, weights, self.rates.covariance)
        return inverse @ (self.raw_covariance + judge) @ inverse.T

    @property
    def sampling_variance(self) -> NDArray[np.float64]:
        """Variance (G,) of each proportion from the images alone: what differs between runs with one judge."""
        inverse = self.rates.inverse
        if inverse is None:
            return np.full(len(self.groups), np.inf)
        return np.diag(inverse @ self.raw_covariance @ inverse.T)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Standard error (G,) of each proportion."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def measurable(self) -> bool:
        """Whether the judge is better than chance beyond its error (at 95 %): of more than two groups, whether each is
        called so more often among its own than among any other."""
        return bool(np.isfinite(self._uncut(0.95)).all()) and (len(self.groups) == 2 or self._tells_apart())

    @property
    def inside_hull(self) -> bool:
        """Whether the shares called can come from such a judge at all, within error; if not, label shift is refuted."""
        return not self._refuted(self._uncut(0.95))

    def interval(self, confidence: float = 0.95) -> NDArray[np.float64]:
        """Lower and upper ends (G, 2), cut to the possible range.

        Two groups: test inversion (Fieller, J. R. Stat. Soc. B 16, 1954). More: delta method, Bonferroni over groups.
        The whole range is returned where the judge cannot tell the groups apart, and where its calls refute label
        shift (`inside_hull`), because then they say nothing about the proportion.
        """
        ends = self._uncut(confidence)
        low, high = self.total - 1, 1
        return np.tile([low, high], (len(ends), 1)).astype(float) if self._refuted(ends) else np.clip(ends, low, high)

    def _tells_apart(self) -> bool:
        matrix, cov = self.rates.matrix, self.rates.covariance
        quantile = t.ppf(0.975, self.degrees)
        pairs = [(a, b) for a in range(len(matrix)) for b in range(len(matrix)) if a != b]
        errors = [cov[a, a, a, a] + cov[b, b, a, a] - 2 * cov[a, b, a, a] for a, b in pairs]
        away = [matrix[a, a] - matrix[b, a] for a, b in pairs]
        return bool((np.array(away) > quantile * np.sqrt(errors)).all())

    def _refuted(self, ends: NDArray[np.float64]) -> bool:
        return bool(((ends[:, 0] > 1) | (ends[:, 1] < self.total - 1)).any())

    def _uncut(self, confidence: float) -> NDArray[np.float64]:
        groups = len(self.groups)
        comparisons = groups if groups > 2 else 1
        quantile = t.ppf(1 - (1 - confidence) / (2 * comparisons), self.degrees)
        if groups == 2:
            low, high = _fieller(self, quantile)
            return np.array([[self.total - high, self.total - low], [low, high]])
        if self.rates.inverse is None:
            return np.tile([-np.inf, np.inf], (groups, 1))
        half = quantile * self.standard_error
        return np.stack([self.value - half, self.value + half], axis=1)


def judge_rates(calls: ArrayLike, truth: ArrayLike, subjects: ArrayLike, groups: Sequence[str]) -> JudgeRates:
    """Measure a judge on subjects of known group.

    Args:
        calls: (N,) index of the group called, or (N, G) shares per group that sum to one (then scores are averaged).
        truth: (N,) index of the true group.
        subjects: (N,) identifier of the person each image shows; images of one person err together.
        groups: names of the G groups.

    The covariance of a group with n subjects is (sum of squares + ridge) / (n (n - 1)); the ridge is the covariance of
    one call at random, .25 for two groups, which keeps the interval honest when a good judge erred on almost nobody.

    Raises:
        ValueError: lengths differ.
        InputError: an index is no group's, or a group has fewer than two subjects.
    """
    x, truth = _call_matrix(calls, len(groups)), np.asarray(truth)
    if not len(x) == len(truth) == len(np.asarray(subjects)):
        raise ValueError(f"calls, truth, subjects: {len(x)}, {len(truth)} and {len(subjects)} rows; give one per image")
    truth = _group_index(truth, len(groups), "truth")
    _, person = np.unique(np.asarray(subjects), return_inverse=True)
    images = np.zeros((person.max() + 1, len(groups)))
    sums = np.zeros((*images.shape, len(groups)))
    np.add.at(images, (person, truth), 1)
    np.add.at(sums, (person, truth), x)

    present = images > 0
    n = present.sum(axis=0)
    for name, count in zip(groups, n, strict=True):
        if count < 2:
            raise InputError(f"truth: group '{name}' has {count} subject(s) to measure the judge on; give at least 2")
    means = sums / np.maximum(images, 1)[..., None]
    matrix = means.sum(axis=0) / n[:, None]
    scale = (n * (n - 1.0))[:, None]
    deviations = np.where(present[..., None], means - matrix, 0) / np.sqrt(scale)
    covariance = np.einsum("iac,ibd->abcd", deviations, deviations)
    for a in range(len(groups)):
        covariance[a, a] += _random_call(len(groups)) / scale[a]
    return JudgeRates(tuple(groups), matrix, covariance, n)


def adjusted_count(calls: ArrayLike, rates: JudgeRates, clusters: ArrayLike | None = None) -> AdjustedCount:
    """Proportions of the groups among generated images (Rogan and Gladen, Am. J. Epidemiol. 107, 1978).

    Args:
        calls: (N,) index of the group called, or (N, G) scores, of the kind that `rates` was measured with.
        rates: the judge's rates on subjects of known group.
        clusters: (N,) what images that vary together share, such as the prompt when few prompts make many images.

    Raises:
        ValueError: no image, or calls that do not fit the groups.
    """
    return _count(_call_matrix(calls, len(rates.groups)), rates, clusters, total=1)


def paired_difference(
    before: ArrayLike, after: ArrayLike, rates: JudgeRates, clusters: ArrayLike | None = None
) -> AdjustedCount:
    """Change of the proportions from `before` to `after`, whose images come in pairs from the same noise and prompt.

    Shapes as in `adjusted_count`. The false-positive rate cancels: the change is known better than either proportion.

    Raises:
        ValueError: the two sets differ in length, or calls do not fit the groups.
    """
    first, second = (_call_matrix(calls, len(rates.groups)) for calls in (before, after))
    if len(first) != len(second):
        raise ValueError(f"before, after: {len(first)} and {len(second)} images; give the same noise to both")
    return _count(second - first, rates, clusters, total=0)


def gap(value: Shares, target: Shares) -> float:
    """Half the sum over groups of |proportion - target|; for two groups the absolute difference."""
    if isinstance(value, Mapping) and isinstance(target, Mapping):
        return 0.5 * sum(abs(value[group] - target[group]) for group in target)
    return 0.5 * float(np.abs(np.asarray(value) - np.asarray(target)).sum())


def verdict(count: AdjustedCount, target: Shares, margin: float = 0.05) -> Verdict:
    """Say whether the proportions are within `margin` of the target, beyond them, or not known well enough.

    'aligned': the 90 % interval of proportion - target lies inside (-margin, margin) for every group (two one-sided
    tests, Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987). 'not aligned': for any group the 95 % interval lies wholly
    outside [-margin, margin]. Else 'cannot tell'.
    """
    inside, outside = _slack(count, target, margin)
    if (inside > 0).all():
        return "aligned"
    return "not aligned" if (outside > 0).any() else "cannot tell"


def equivalence_p(count: AdjustedCount, target: Shares, margin: float = 0.05) -> float:
    """P value of the two one-sided tests that the proportions are within ``margin`` of the target (Schuirmann, 1987).

    It is half of 1 - the largest confidence whose interval lies inside the margin, and at most .5.
    """

    def inside(p: float) -> bool:
        return bool((_slack_inside(count, target, margin, 1 - 2 * p) > 0).all())

    low, high = 0.0, 0.5
    if not inside(high - 1e-9):
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if inside(middle) else (middle, high)
    return high


def tipping_point(count: AdjustedCount, target: Shares, margin: float = 0.05) -> float:
    """Smallest change of the judge's rates on generated images that could overturn the verdict; 0 for 'cannot tell'.

    Rates that are off by up to d move the proportion by up to d L. L is 1 / (s - f) for two groups; for more it is
    the sum of |w - median(w)| over the row w of `rates.inverse`, since changes of a row of rates sum to zero.
    """
    inside, outside = _slack(count, target, margin)
    if count.rates.inverse is None:
        return 0.0
    rows = count.rates.inverse
    lever = np.abs(rows - np.median(rows, axis=1, keepdims=True)).sum(axis=1)
    return float(max((inside / lever).min(), (outside / lever).max(), 0.0))


def detectable_gap(standard_error: float, power: float = 0.8, confidence: float = 0.95) -> float:
    """Smallest gap found with the given power by a two-sided test: 2.80 standard errors by default."""
    return float((norm.ppf((1 + confidence) / 2) + norm.ppf(power)) * standard_error)


def images_needed(share: float, youden: float, gap: float) -> float:
    """Images under which a gap is not found with 80 % power however well the judge is known.

    ``share`` of images called the second group, ``youden`` index s - f of the judge (two groups).
    """
    return share * (1 - share) / (youden * gap / detectable_gap(1.0)) ** 2


def subjects_needed(
    standard_error: float, share: float, youden: float, subjects: int, images: int, gap: float, more_images: int
) -> float | None:
    """Subjects to measure the judge on so that a gap is found with 80 % power among ``more_images``; None if never.

    The other arguments describe a measurement: the standard error of its proportion and what it was made of. The
    judge's part of the variance falls as one over the subjects, whose groups keep their proportion.
    """
    judge = (standard_error * youden) ** 2 - share * (1 - share) / images
    left = (youden * gap / detectable_gap(1.0)) ** 2 - share * (1 - share) / more_images
    return subjects * judge / left if left > 0 and youden > 0 else None


def detectable_with(
    standard_error: float, share: float, youden: float, subjects: int, images: int, more_subjects: int
) -> float:
    """Smallest gap found with 80 % power by the same images, had the judge been measured on ``more_subjects``.

    The other arguments describe a measurement, as in ``subjects_needed``.
    """
    sampling = share * (1 - share) / images
    judge = max((standard_error * youden) ** 2 - sampling, 0.0)
    return detectable_gap(np.sqrt(sampling + judge * subjects / more_subjects) / youden)


def _count(x: NDArray[np.float64], rates: JudgeRates, clusters: ArrayLike | None, total: int) -> AdjustedCount:
    n, groups = x.shape
    raw = x.mean(axis=0)
    degrees = int(rates.subjects.min()) - 1
    deviations, correction = x - raw, 1.0
    if clusters is not None:
        _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
        size = cluster.max() + 1
        if len(cluster) != n or size < 2:
            raise ValueError(f"clusters: {len(cluster)} for {n} images, {size} different; give one each, 2 or more")
        deviations = np.stack([np.bincount(cluster, column) for column in deviations.T], axis=1)
        correction, degrees = size / (size - 1), min(degrees, int(size) - 1)
    covariance = correction * deviations.T @ deviations / n**2
    # A set without a single call of some group has sampling error all the same: at least that of one call.
    lack = max(0.0, 1 / n**2 - float(np.diag(covariance).min()))
    floor = _random_call(groups)
    return AdjustedCount(raw, covariance + lack * floor / floor[0, 0], rates, n, degrees, total)


def _fieller(count: AdjustedCount, quantile: float) -> tuple[float, float]:
    """Ends of {pi: |y - pi J| <= c sd(pi)}, with y = q - total f and the variance of q + pi s + (total - pi) f."""
    f, s = count.rates.matrix[:, 1]
    (v0, v01), (_, v1) = count.rates.covariance[:, :, 1, 1]
    j, y, c2 = s - f, count.raw[1] - count.total * f, quantile**2
    a = j**2 - c2 * (v1 + v0 - 2 * v01)
    b = 2 * c2 * count.total * (v0 - v01) - 2 * j * y
    d = y**2 - c2 * (count.raw_covariance[1, 1] + count.total**2 * v0)
    if j <= 0 or a <= 0:
        return -np.inf, np.inf
    root = np.sqrt(max(b**2 - 4 * a * d, 0.0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _slack(count: AdjustedCount, target: Shares, margin: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per group, how far the 90 % interval lies inside the margin and how far the 95 % interval lies outside it."""
    low, high = (count.interval(0.95) - as_vector(target, count.groups)[:, None]).T
    return _slack_inside(count, target, margin, 0.90), np.maximum(low - margin, -margin - high)


def _slack_inside(count: AdjustedCount, target: Shares, margin: float, confidence: float) -> NDArray[np.float64]:
    low, high = (count.interval(confidence) - as_vector(target, count.groups)[:, None]).T
    return np.minimum(margin - high, low + margin)


def as_vector(target: Shares, groups: Sequence[str]) -> NDArray[np.float64]:
    """Target proportions (G,) in the order of the groups, from a mapping or a sequence; raises InputError."""
    if isinstance(target, Mapping):
        if set(target) != set(groups):
            raise InputError(f"target: names {sorted(target)}; give one proportion for each of {sorted(groups)}")
        target = [target[group] for group in groups]
    vector = np.asarray(target, dtype=float)
    if vector.shape != (len(groups),) or abs(vector.sum() - 1) > 1e-6:
        raise InputError(f"target: {vector.tolist()}; give {len(groups)} proportions that sum to one")
    return vector


def _call_matrix(calls: ArrayLike, groups: int) -> NDArray[np.float64]:
    calls = np.asarray(calls)
    if len(calls) == 0:
        raise ValueError("calls: no image; give at least one")
    if calls.ndim == 1:
        return np.eye(groups)[_group_index(calls, groups, "calls")]
    if calls.shape[1:] != (groups,) or not np.allclose(calls.sum(axis=1), 1, atol=1e-3):
        raise ValueError(f"calls: shape {calls.shape}; give (N,) indices or (N, {groups}) shares that sum to one")
    return calls.astype(np.float64)


def _group_index(index: NDArray, groups: int, field: str) -> NDArray[np.int64]:
    if index.dtype.kind not in "iub":
        raise ValueError(f"{field}: {index.dtype} values; give the index of a group, or one column per group")
    index = index.astype(np.int64)
    if index.min() < 0 or index.max() >= groups:
        raise InputError(f"{field}: index outside 0 to {groups - 1}; leave out images whose group is unknown")
    return index


def _random_call(groups: int) -> NDArray[np.float64]:
    """Covariance (G, G) of one call drawn uniformly: .25 (and -.25) for two groups."""
    return np.eye(groups) / groups - 1 / groups**2
