"""Fréchet distance and k-nearest-neighbour measures of two sets of images, and how far chance moves them.

All are biased by an amount that depends on how many images there are: two halves of one set are a distance apart, and a
small group always looks worse than a large one. Values are therefore compared only at equal numbers (`equal_sizes`,
`choose`), beside the same measure between two sets of real images. None has a variance in closed form; `half_sampled`
gives the spread. Features are used as they come, in single or double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics.pairwise import euclidean_distances

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate, symmetric

BLOCK_ELEMENTS = 2**20  # of any temporary, 8 MB in double precision
Floats = NDArray[np.floating]
Measure = Callable[[Floats, Floats], float | Sequence[float]]


class Prdc(NamedTuple):
    """Precision and recall (Kynkäänniemi et al., arXiv 1904.06991), density and coverage (Naeem et al., 2002.09797)."""

    precision: float
    recall: float
    density: float
    coverage: float


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of features (N, d) and (M, d) (Heusel et al., arXiv 1706.08500).

    With triangular factors S = R'R, the trace of the root is the sum of the singular values of R1 R2'. No covariance is
    formed, inverted or rooted, so nothing is lost where images are fewer than dimensions. The value is too large by
    about one over the number of images, however good they are.

    Raises:
        ValueError: features that do not match.
        InputError: fewer than two images.
    """
    x, y = _matching(first, second)
    if min(len(x), len(y)) < 2:
        raise InputError(f"features: {len(x)} and {len(y)} images; give two or more of either")
    (x_mean, x_factor), (y_mean, y_factor) = _moments(x), _moments(y)
    root = np.linalg.svd(x_factor @ y_factor.T, compute_uv=False).sum()
    spread = np.sum(x_factor**2) + np.sum(y_factor**2) - 2 * root
    return float(np.sum((x_mean - y_mean) ** 2) + max(spread, 0.0))


def prdc(real: ArrayLike, generated: ArrayLike, neighbours: int = 5) -> Prdc:
    """How much of one set lies among the other, by balls that reach to an image's k-th nearest neighbour in its set.

    Args:
        real: (N, d) features.
        generated: (N, d) features in the same space.
        neighbours: k.

    Precision is the share of generated images within the ball of any real one, recall the reverse; density counts the
    real balls around a generated image, over k; coverage is the share of real balls with a generated image in them.

    Raises:
        ValueError: features that do not match, or sets of different size, whose values mean nothing beside others'.
        InputError: no more images than neighbours.
    """
    x, y = _matching(real, generated)
    if len(x) != len(y):
        raise ValueError(f"features: {len(x)} real and {len(y)} generated images; choose equally many of both")
    if len(x) <= neighbours:
        raise InputError(f"features: {len(x)} images for {neighbours} neighbours; give more images")
    x_radii, y_radii = _radii(x, neighbours), _radii(y, neighbours)
    balls, reached, covered = np.zeros(len(y), dtype=np.int64), np.empty(len(x), bool), np.empty(len(x), bool)
    for block in _blocks(len(x), len(y)):
        distance = euclidean_distances(x[block], y)
        balls += (distance < x_radii[block, None]).sum(axis=0)
        reached[block] = (distance < y_radii).any(axis=1)
        covered[block] = distance.min(axis=1) < x_radii[block]
    shares = (balls > 0).mean(), reached.mean(), balls.mean() / neighbours, covered.mean()
    return Prdc(*map(float, shares))


def half_sampled(
    measure: Measure,
    first: ArrayLike,
    second: ArrayLike,
    first_subjects: ArrayLike | None = None,
    second_subjects: ArrayLike | None = None,
    repeats: int = 25,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """Estimates of all that `measure` returns, with the spread of its values over random halves.

    Args:
        measure: of features (n, d) and (m, d); one number or several.
        first: (N, d) features.
        second: (M, d) features; the ratio of the two numbers stays.
        first_subjects: (N,) identifiers of persons, of whom whole ones are drawn; by default every image is its own.
        second_subjects: (M,) the same of the other set, where it too is real.
        repeats: how many halves.
        seed: of the draws.

    Halves are drawn without replacement, since copies of an image would be neighbours at distance 0. The delete-d
    jackknife (Shao & Wu, Ann. Stat. 17, 1989) multiplies the variance over what is kept of n by (n - d)/d, here 1:
    halves differ from each other as much as whole samples do. The interval is the value plus and minus 1.96 standard
    errors. It is centred on the value of all images and speaks of the measure's mean at this number of images, bias
    included: halves have a greater bias, but that is not spread. Between like sets it is wider than need be.

    Raises:
        ValueError: subjects and features differ in number.
        InputError: fewer than four subjects.
    """
    x, y = _matching(first, second)
    persons = [_persons(given, len(part)) for given, part in ((first_subjects, x), (second_subjects, y))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        rows = _half(persons[0], rng)
        number = round(len(rows) * len(y) / len(x))  # the ratio of the two numbers stays
        if second_subjects is None:
            others = rng.choice(len(y), number, replace=False)
        else:
            others = rng.permutation(_half(persons[1], rng))[:number]
            rows = rng.permutation(rows)[: round(len(others) * len(x) / len(y))]
        values.append(np.atleast_1d(measure(x[rows], y[others])))
    whole = np.atleast_1d(measure(x, y))
    return tuple(symmetric(*pair) for pair in zip(whole, np.var(values, axis=0, ddof=1), strict=True))


def _persons(subjects: ArrayLike | None, images: int) -> NDArray[np.int64]:
    _, persons = np.unique(np.arange(images) if subjects is None else subjects, return_inverse=True)
    if len(persons) != images:
        raise ValueError(f"subjects: {len(persons)} for {images} images; give one each")
    if persons.max() < 3:
        raise InputError(f"subjects: {persons.max() + 1} different; give 4 or more, to draw halves of them")
    return persons


def _half(persons: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of half the persons."""
    number = persons.max() + 1
    return np.flatnonzero(np.isin(persons, rng.choice(number, number // 2, replace=False)))


def equal_sizes(sizes: Mapping[str, int]) -> int:
    """How many images to take of every group: the smallest group's number. Raises InputError for an empty group."""
    empty = [group for group, size in sizes.items() if size == 0]
    if empty:
        raise InputError(f"groups: no image of {', '.join(empty)}; leave such groups out of the comparison")
    return min(sizes.values())


def choose(number: int, of: int, seed: int = 0) -> NDArray[np.int64]:
    """`number` different places among `of`, in rising order, drawn from `seed` alone."""
    return np.sort(np.random.default_rng(seed).choice(of, number, replace=False))


def _matching(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(first), np.asarray(second)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features: shapes {x.shape} and {y.shape}; give (images, d) with the same d")
    return x, y


def _moments(x: Floats) -> tuple[Floats, Floats]:
    """Mean (d,) and a factor R (at most d rows, d) of the covariance R'R, from blocks of images."""
    mean = x.mean(axis=0, dtype=np.float64)
    factor = np.empty((0, x.shape[1]))
    for block in _blocks(len(x), x.shape[1], least=x.shape[1]):
        factor = np.linalg.qr(np.concatenate([factor, x[block] - mean]), mode="r")
    return mean, factor / np.sqrt(len(x) - 1)


def _radii(x: Floats, neighbours: int) -> Floats:
    """Distance (N,) of each image to its k-th nearest neighbour in the set; the nearest of all is itself."""
    radii = np.empty(len(x), dtype=x.dtype)
    for block in _blocks(len(x), len(x)):
        distance = euclidean_distances(x[block], x)
        distance.partition(neighbours, axis=1)
        radii[block] = distance[:, neighbours]
    return radii


def _blocks(rows: int, columns: int, least: int = 1) -> Iterator[slice]:
    step = max(least, BLOCK_ELEMENTS // columns)
    return (slice(start, start + step) for start in range(0, rows, step))
