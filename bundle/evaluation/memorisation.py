"""How many generated images are copies of training images, beyond what new persons' images would seem to be.

A new person's image may lie near a training image by chance. How near is read off a hold-out, real images of persons
who were not trained on: the threshold is the distance to the nearest training image under which the closest 1 % of them
lie. The share of generated images under it, less the share of the hold-out, is the excess. A generator that draws new
persons has an excess of zero; one that copies 2 % has about two points.

The threshold is itself uncertain. It rests on few persons, and the images of one person are near or far together, so
the hold-out's part of the variance is clustered by subject, and a quantile is resolved by subjects, not by images: with
fewer than 1 / quantile of them the test would find copies where there are none. With 100 to 200 subjects of up to ten
images, 3 to 10 % of simulated generators without copies are flagged where images of a person correlate by up to .95
(nominally 2.5 %, since the few nearest subjects make a skewed error), 13 % at .98.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate

BLOCK_ELEMENTS = 2**22
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """A generated image and the training image nearest to it: rows, distance, and that over the threshold."""

    generated: int
    training: int
    distance: float
    ratio: float


@dataclass(frozen=True)
class Memorised:
    """Share of `n` generated images within `threshold` of a training image, beside that `expected` of new persons.

    `excess` is the difference of the two shares; `closest` are the pairs to look at, the closest first.
    """

    n: int
    threshold: float
    share: float
    expected: float
    excess: Estimate
    closest: tuple[Pair, ...]
    training: int
    holdout: int
    holdout_subjects: int

    @property
    def flagged(self) -> bool:
        """Whether more images are near than chance explains: the excess lies above zero with its whole interval."""
        return self.excess.low > 0


@dataclass(frozen=True, eq=False)
class GroupRows:
    """Indices of a group's images; `training` may be all rows, and then copies of other groups' images count too."""

    training: Rows
    holdout: Rows
    generated: Rows


def memorisation(
    training: ArrayLike,
    holdout: ArrayLike,
    holdout_subjects: ArrayLike,
    generated: ArrayLike,
    quantile: float = 0.01,
    confidence: float = 0.95,
) -> Memorised:
    """Excess of generated images that lie nearer to a training image than a hold-out calibrates.

    Args:
        training: (T, d) features of the images trained on.
        holdout: (H, d) of real images of other subjects, prepared alike.
        holdout_subjects: (H,) identifiers of persons.
        generated: (N, d).
        quantile: of the hold-out's distances, where the threshold is set.
        confidence: of the interval.

    The interval inverts a test as that of Wilson (J. Am. Stat. Assoc. 22, 1927) does, with the variance of the hold-out
    added to the binomial one; its lower end is above zero where a one-sided test at (1 - confidence) / 2 rejects.

    Raises:
        ValueError: features or subjects that do not match.
        InputError: too few hold-out subjects, hold-out images that are training images, or features not finite.
    """
    subjects = np.unique(np.asarray(holdout_subjects), return_inverse=True)[1]
    if len(subjects) != len(holdout):
        raise ValueError(f"holdout_subjects: {len(subjects)} for {len(holdout)} images; give one each")
    _check_subjects(count := len(np.unique(subjects)), quantile)
    known, _ = nearest(holdout, training)
    threshold = float(np.quantile(known, quantile, method="inverted_cdf"))
    if threshold == 0:
        raise InputError("holdout: some of its images are training images; leave out shared subjects and blank images")
    distances, indices = nearest(generated, training)
    expected, share = float((known <= threshold).mean()), float((distances <= threshold).mean())
    excess = _excess(share, len(distances), expected, _clustered_variance(known <= threshold, subjects), confidence)
    closest = closest_pairs(distances, indices, threshold)
    return Memorised(len(distances), threshold, share, expected, excess, closest, len(training), len(subjects), count)


def memorisation_by_group(
    training: ArrayLike,
    holdout: ArrayLike,
    holdout_subjects: ArrayLike,
    generated: ArrayLike,
    rows: Mapping[str, GroupRows],
    quantile: float = 0.01,
    confidence: float = 0.95,
) -> dict[str, Memorised | None]:
    """`memorisation` of each group, from the `rows` that belong to it; arguments and errors as there.

    Returns:
        None for a group whose hold-out has fewer than `fewest_subjects(quantile)` subjects. Elsewhere the rows of the
        closest pairs are those of the whole arrays.
    """
    training, holdout, generated = (np.asarray(features) for features in (training, holdout, generated))
    subjects = np.asarray(holdout_subjects)
    found: dict[str, Memorised | None] = {}
    for group, of in rows.items():
        if len(np.unique(subjects[of.holdout])) < fewest_subjects(quantile):
            found[group] = None
            continue
        images = training[of.training], holdout[of.holdout], subjects[of.holdout], generated[of.generated]
        result = memorisation(*images, quantile, confidence)
        found[group] = replace(result, closest=tuple(_renumbered(pair, of) for pair in result.closest))
    return found


def fewest_subjects(quantile: float = 0.01) -> int:
    """Fewest hold-out subjects that resolve a quantile of their distances: 100 for 1 %."""
    return math.ceil(1 / quantile - 1e-9)


def nearest(queries: ArrayLike, references: ArrayLike) -> tuple[Floats, Rows]:
    """Euclidean distance (N,) from each query (N, d) to the nearest reference (T, d), and the index (N,) of that.

    Raises ValueError for shapes that do not match, InputError for features that are missing or no finite numbers.
    """
    queries, references = np.asarray(queries), np.asarray(references, dtype=np.float64)
    if queries.ndim != 2 or references.ndim != 2 or queries.shape[1] != references.shape[1]:
        raise ValueError(f"features: shapes {queries.shape} and {references.shape}; give (images, d) with the same d")
    if not len(queries) or not len(references):
        raise InputError(f"features: {len(queries)} images beside {len(references)}; give at least one of either")
    origin = references.mean(axis=0)  # a mean far from zero would swamp the differences in the products below
    references = references - origin
    squares = np.einsum("td,td->t", references, references)
    distances, indices = np.empty(len(queries)), np.empty(len(queries), dtype=np.int64)
    step = max(1, BLOCK_ELEMENTS // max(references.shape))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        block = queries[part] - origin
        products = block @ references.T
        products *= -2
        products += squares
        indices[part] = products.argmin(axis=1)
        distances[part] = np.linalg.norm(block - references[indices[part]], axis=1)
    if not np.isfinite(distances).all():
        raise InputError("features: not all finite; look at the encoder and its images")
    return distances, indices


def closest_pairs(distances: ArrayLike, indices: ArrayLike, threshold: float, count: int = 10) -> tuple[Pair, ...]:
    """The `count` generated images nearest to training, from what `nearest` gave for them, the closest first."""
    distances, indices = np.asarray(distances), np.asarray(indices)
    order = np.argsort(distances, kind="stable")[:count]
    return tuple(Pair(int(i), int(indices[i]), float(distances[i]), float(distances[i] / threshold)) for i in order)


def _check_subjects(count: int, quantile: float) -> None:
    if count < fewest_subjects(quantile):
        wider = math.ceil(1000 / count) / 1000
        remedy = f"{fewest_subjects(quantile)} are needed for quantile {quantile:g}; give more, or quantile {wider:g}"
        raise InputError(f"holdout_subjects: {count} different; {remedy}")


def _clustered_variance(below: NDArray[np.bool_], subjects: Rows) -> float:
    """Variance of the share of images under the threshold, as a ratio of sums over subjects."""
    sizes = np.bincount(subjects)
    deviations = np.bincount(subjects, below) - below.mean() * sizes
    count = len(sizes)
    return float(count / (count - 1) * np.sum(deviations**2) / len(subjects) ** 2)


def _excess(share: float, n: int, expected: float, variance: float, confidence: float) -> Estimate:
    """Share less expected share, with every true share p kept where |share - p| <= c sqrt(p (1 - p) / n + variance)."""
    c = norm.ppf((1 + confidence) / 2)
    a, half_b = 1 + c**2 / n, share + c**2 / (2 * n)
    root = math.sqrt(max(half_b**2 - a * (share**2 - c**2 * variance), 0.0))
    binomial = max(p * (1 - p) for p in (share, expected)) / n  # a share of zero, too, is uncertain
    low, high = float((half_b - root) / a - expected), float((half_b + root) / a - expected)
    return Estimate(share - expected, low, high, math.sqrt(binomial + variance))


def _renumbered(pair: Pair, rows: GroupRows) -> Pair:
    return replace(pair, generated=int(rows.generated[pair.generated]), training=int(rows.training[pair.training]))
