"""Equity-scaled scores, for comparison with papers that print them, beside what they would be were there no difference.

The score divides the overall value by one plus the sum of the groups' distances from it. Chance alone moves groups away
from the whole, small and numerous ones most, and a distance such as Fréchet's grows as images get fewer. So the score
is below the overall value (for a distance, above it) even where groups are treated alike, by an amount that depends on
the groups' sizes: the mean of `fair_scores` says which. It has no interval, and a worse overall value can raise it. No
verdict rests on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.errors import InputError

Measure = Callable[[NDArray, NDArray], float]


def equity_scaled(overall: float, by_group: Mapping[str, float], higher_is_better: bool = True) -> float:
    """M / (1 + sum over groups of |M_a - M|), or M times that sum for a distance.

    The first form is that of the public code of FairCLIP (Luo et al., arXiv 2403.19949) and FairDiffusion (Luo et al.,
    arXiv 2412.20374) for AUC and accuracy. That code has none for distances; the second form, which makes a larger
    disparity worse there too, is not checked against the papers.
    """
    scale = 1 + sum(abs(value - overall) for value in by_group.values())
    return float(overall / scale if higher_is_better else overall * scale)


def fair_scores(
    measure: Measure,
    real: ArrayLike,
    generated: ArrayLike,
    real_groups: ArrayLike,
    generated_groups: ArrayLike,
    real_subjects: ArrayLike,
    repeats: int = 20,
    seed: int = 0,
    higher_is_better: bool = True,
) -> NDArray[np.float64]:
    """Equity-scaled scores (repeats,) after the groups' names were dealt out anew, as often as each came.

    Args:
        measure: of features (n, d) and (m, d), over all images and then of each group.
        real: (N, d) features.
        generated: (M, d) features.
        real_groups: (N,) group of each image's subject.
        generated_groups: (M,) group of each image; every group must occur on both sides.
        real_subjects: (N,) identifiers of persons, whose images keep one group.
        repeats: how many deals.
        seed: of the deals.
        higher_is_better: False for a distance.

    Raises InputError where a group has no image on one side, or a subject is in two groups.
    """
    x, y, there = np.asarray(real), np.asarray(generated), np.asarray(generated_groups)
    names, person = _subject_groups(np.asarray(real_groups), real_subjects)
    lacking = sorted(map(str, set(names.tolist()) ^ set(there.tolist())))
    if lacking:
        raise InputError(f"groups: {', '.join(lacking)} without an image on one side; leave such groups out")
    rng, overall = np.random.default_rng(seed), measure(x, y)
    scores = []
    for _ in range(repeats):
        here, dealt = rng.permutation(names)[person], rng.permutation(there)
        by_group = {str(name): measure(x[here == name], y[dealt == name]) for name in np.unique(names)}
        scores.append(equity_scaled(overall, by_group, higher_is_better))
    return np.array(scores)


def _subject_groups(groups: NDArray, subjects: ArrayLike) -> tuple[NDArray, NDArray[np.int64]]:
    """Group of each subject (P,), and the place among them of each image's subject (N,)."""
    identifiers, first, person = np.unique(np.asarray(subjects), return_index=True, return_inverse=True)
    mixed = groups[first][person] != groups
    if mixed.any():
        name = identifiers[person[mixed][0]]
        raise InputError(f"real_groups: subject '{name}' is in two groups; give all images of a subject one group")
    return groups[first], person
