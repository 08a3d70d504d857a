"""How well scores tell two groups of persons apart, and how much of that other facts about their scans can do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate, jackknife_variance, symmetric

Floats = NDArray[np.float64]


def auc(scores: ArrayLike, truth: ArrayLike, strata: ArrayLike | None = None, confidence: float = 0.95) -> Estimate:
    """Area under the ROC curve: the share of pairs, a person of each group, that the scores rank rightly.

    Args:
        scores: (N,), one a person, larger in the second group.
        truth: (N,) group index, 0 or 1.
        strata: (N,); only persons of the same stratum, such as the hospital, are then compared.

    The variance is that of DeLong (Biometrics 44, 1988), the jackknife over the persons of either group.

    Raises InputError for a group with fewer than two persons, or when no two can be compared.
    """
    scores, second = np.asarray(scores, dtype=np.float64), np.asarray(truth).astype(bool)
    strata = np.zeros(len(scores)) if strata is None else np.asarray(strata)
    pairs = (strata[second, None] == strata[~second]).astype(np.float64)
    if min(pairs.shape) < 2 or not pairs.any():
        raise InputError(f"truth: {second.sum()} of {len(second)} in the second group; give persons to compare")
    right = pairs * (np.sign(scores[second, None] - scores[~second]) + 1) / 2
    without = [(right.sum() - right.sum(axis)) / np.maximum(pairs.sum() - pairs.sum(axis), 1) for axis in (0, 1)]
    return symmetric(right.sum() / pairs.sum(), sum(map(jackknife_variance, without)), confidence)


def by_subject(values: ArrayLike, subjects: Sequence[str]) -> Floats:
    """Means over the images of each person, (P, ...), in the order in which the persons first come."""
    values = np.asarray(values, dtype=np.float64)
    index = {subject: number for number, subject in enumerate(dict.fromkeys(subjects))}
    person = np.array([index[subject] for subject in subjects])
    sums = np.zeros((len(index), *values.shape[1:]))
    np.add.at(sums, person, values)
    return sums / np.bincount(person).reshape(-1, *[1] * (values.ndim - 1))


def cross_validated(features: ArrayLike, truth: ArrayLike, folds: ArrayLike) -> Floats:
    """Scores (N,) of logistic regressions on features (N, F), each fitted without the fold that it scores."""
    features, truth, folds = np.asarray(features, dtype=np.float64), np.asarray(truth), np.asarray(folds)
    scores = np.empty(len(features))
    for fold in np.unique(folds):
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(features[folds != fold], truth[folds != fold])
        scores[folds == fold] = model.decision_function(features[folds == fold])
    return scores


def unexplained(scores: ArrayLike, features: ArrayLike) -> Floats:
    """What is left of scores (N,) after a linear regression on features (N, F)."""
    scores, features = np.asarray(scores, dtype=np.float64), np.asarray(features, dtype=np.float64)
    columns = np.column_stack([np.ones(len(features)), features])
    return scores - columns @ np.linalg.lstsq(columns, scores, rcond=None)[0]


def field_of_view(images: ArrayLike, head: float = 0.15) -> Floats:
    """Eight plain facts of each image (N, 1, H, W) in [0, 1]: how much of it is head, how high and wide that is, how
    bright what lies around it, and four percentiles of the whole."""
    images = np.asarray(images, dtype=np.float64)[:, 0]
    inside = images > head
    extent = [(inside.mean(axis) > 0.05).mean(1) for axis in (2, 1)]
    around = np.where(inside, 0, images).sum((1, 2)) / np.maximum((~inside).sum((1, 2)), 1)
    levels = np.percentile(images.reshape(len(images), -1), [10, 50, 90, 99], axis=1)
    return np.column_stack([inside.mean((1, 2)), *extent, around, *levels])
