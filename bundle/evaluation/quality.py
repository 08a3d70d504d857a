"""Likeness of two sets of images, or of images and their prompts, from features that any encoder gave.

Features are used as they come, neither centred nor scaled. The kernel assumes elements of order one: where x.y/d is
small it is linear, and sees the mean of a set alone. A distance is comparable only within one feature space. Which
encoder, and that no loss used it, is the caller's to state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate, jackknife_variance, symmetric

TILE = 1024  # images on either side of a tile of the kernel, 8 MB in double precision
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Mean:
    """A mean of kernel values and its values without each cluster of the one and of the other side."""

    value: float
    without_first: Floats
    without_second: Floats


def kid(
    real: ArrayLike,
    generated: ArrayLike,
    real_subjects: ArrayLike,
    generated_subjects: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Kernel inception distance, unbiased: MMD^2 with kernel (x.y/d + 1)^3 (Binkowski et al., arXiv 1801.01401, eq. 4).

    Args:
        real: (N, d) features.
        generated: (M, d) features in the same space.
        real_subjects: (N,) identifiers of persons; the jackknife leaves out all images of one.
        generated_subjects: (M,) the same for the other side, where it too is real; by default every image is its own.
        confidence: of the normal interval.

    Pairs of images of one subject count no more than an image with itself: they are alike because of the subject, and
    would raise the value though both sets came from one distribution. With one image per subject this is the usual
    estimator. The value may be negative, and near zero the interval is wider than need be.

    Raises:
        ValueError: features that do not match.
        InputError: fewer than three subjects or images.
    """
    value, first, second = _replicates(real, generated, real_subjects, generated_subjects)
    return symmetric(value, jackknife_variance(first) + jackknife_variance(second), confidence)


def kid_change(
    real: ArrayLike, before: ArrayLike, after: ArrayLike, real_subjects: ArrayLike, confidence: float = 0.95
) -> Estimate:
    """KID of `after` minus KID of `before`; rows of these (M, d) features pair up, made from the same noise and prompt.

    A pair is left out of both sets, and a real subject out of both distances, so that what they share cancels.
    Other arguments and errors as in `kid`.
    """
    if np.shape(before) != np.shape(after):
        raise ValueError(f"features: shapes {np.shape(before)} and {np.shape(after)}; give the same noise to both")
    old, new = (_replicates(real, features, real_subjects, None) for features in (before, after))
    value, first, second = (late - early for early, late in zip(old, new, strict=True))
    return symmetric(value, jackknife_variance(first) + jackknife_variance(second), confidence)


def cosine_similarity(first: ArrayLike, second: ArrayLike) -> float:
    """Mean cosine of paired rows of two (N, d) arrays; raises ValueError when their shapes differ."""
    return float(_cosines(first, second).mean())


def clip_score(image_features: ArrayLike, text_features: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Agreement of images with their prompts: the mean of 100 max(cosine, 0) (Hessel et al., arXiv 2104.08718).

    Args:
        image_features: (N, d) of an encoder that images and text share; lengths do not matter.
        text_features: (N, d) of the prompt of each image.
        confidence: of the t interval over images, which speaks of more images for the same prompts.

    The factor is 100, as in common code, where the paper has 2.5. Cut image by image, as there: a negative cosine
    cannot take away from another image's.

    Raises:
        ValueError: shapes differ.
        InputError: fewer than two images.
    """
    scores = 100 * np.maximum(_cosines(image_features, text_features), 0)
    if len(scores) < 2:
        raise InputError(f"image_features: {len(scores)} images; give two or more")
    quantile = t.ppf((1 + confidence) / 2, len(scores) - 1)
    return symmetric(scores.mean(), scores.var(ddof=1) / len(scores), quantile=quantile)


def ambiguity(probabilities: ArrayLike, below: float = 0.7) -> float:
    """Share of images whose likeliest group has a probability under `below`.

    `probabilities` is (N, G), or (N,) for one of two groups; for two groups this is the share with .3 < p < .7.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return float(((np.maximum(p, 1 - p) if p.ndim == 1 else p.max(axis=1)) < below).mean())


def agreement(first: ArrayLike, second: ArrayLike) -> float:
    """Share of images that two classifiers call the same, from their (N,) calls."""
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape:
        raise ValueError(f"calls: shapes {a.shape} and {b.shape}; give both classifiers the same images")
    return float((a == b).mean())


def _cosines(first: ArrayLike, second: ArrayLike) -> Floats:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"features: shapes {a.shape} and {b.shape}; give one row for each image of a pair")
    return np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _replicates(
    real: ArrayLike, generated: ArrayLike, real_subjects: ArrayLike, generated_subjects: ArrayLike | None
) -> tuple[float, Floats, Floats]:
    """KID, and the KIDs without each real subject and without each generated image (or subject)."""
    x, y = np.asarray(real), np.asarray(generated)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features: shapes {x.shape} and {y.shape}; give (images, d) with the same d")
    i = _clusters(real_subjects, len(x), "real_subjects")
    j = _clusters(np.arange(len(y)) if generated_subjects is None else generated_subjects, len(y), "generated")
    xx, yy, xy = _mean_within(x, i), _mean_within(y, j), _mean_between(x, y, i, j)
    return (
        xx.value + yy.value - 2 * xy.value,
        xx.without_first + yy.value - 2 * xy.without_first,
        xx.value + yy.without_first - 2 * xy.without_second,
    )


def _mean_within(x: NDArray, clusters: NDArray[np.int64]) -> _Mean:
    """Mean kernel over the pairs of one set whose images differ in cluster; what is left out comes off row sums."""
    rows = np.zeros(len(x))
    for block in _blocks(len(x)):
        for other in _blocks(block.stop):  # the kernel is symmetric: a tile below the diagonal serves above it too
            kernel = _kernel(x[block], x[other])
            kernel[clusters[block, None] == clusters[other]] = 0
            rows[block] += kernel.sum(axis=1)
            if other != block:
                rows[other] += kernel.sum(axis=0)
    size = np.bincount(clusters)
    pairs = len(x) ** 2 - np.sum(size**2)
    without = (rows.sum() - 2 * np.bincount(clusters, rows)) / (pairs - 2 * size * (len(x) - size))
    return _Mean(rows.sum() / pairs, without, without)


def _mean_between(x: NDArray, y: NDArray, x_clusters: NDArray[np.int64], y_clusters: NDArray[np.int64]) -> _Mean:
    """Mean kernel over all pairs of two sets."""
    rows, columns = np.zeros(len(x)), np.zeros(len(y))
    for block in _blocks(len(x)):
        for other in _blocks(len(y)):
            kernel = _kernel(x[block], y[other])
            rows[block] += kernel.sum(axis=1)
            columns[other] += kernel.sum(axis=0)
    total, n, m = rows.sum(), len(x), len(y)
    return _Mean(
        total / (n * m),
        (total - np.bincount(x_clusters, rows)) / ((n - np.bincount(x_clusters)) * m),
        (total - np.bincount(y_clusters, columns)) / (n * (m - np.bincount(y_clusters))),
    )


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + TILE, rows)) for start in range(0, rows, TILE))


def _kernel(x: NDArray, y: NDArray) -> Floats:
    """Kernel of two tiles in double precision, so that features in single precision are never copied as a whole."""
    base = np.asarray(x, dtype=np.float64) @ np.asarray(y, dtype=np.float64).T
    base /= x.shape[1]
    base += 1
    cube = np.square(base)
    cube *= base
    return cube


def _clusters(labels: ArrayLike, rows: int, field: str) -> NDArray[np.int64]:
    names, index = np.unique(np.asarray(labels), return_inverse=True)
    if len(index) != rows or len(names) < 3:
        raise InputError(f"{field}: {len(index)} for {rows} images, {len(names)} different; give one each, 3 or more")
    return index
