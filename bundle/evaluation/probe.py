"""A linear classifier on features of images: a judge of another family, or a reader of what prompts ask for.

It is cross-fitted. Each of its members is fitted without the subjects that it is then measured on, and generated images
are shared out among the members, so that the errors measured on validation images are those of the members that
classify the generated ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probe:
    """Fitted members, and `own` (M, K): for each validation image the probabilities by the member that never saw its
    subject."""

    members: tuple[Pipeline, ...]
    own: Floats

    def predict(self, features: ArrayLike) -> Floats:
        """Probabilities (N, K) for features (N, d) of generated images, image i by member i modulo their number."""
        features = np.asarray(features)
        result = np.zeros((len(features), self.own.shape[1]))
        for number, member in enumerate(self.members):
            every = slice(number, None, len(self.members))
            result[every] = _probabilities(member, features[every], result.shape[1])
        return result


def fit_probe(features: ArrayLike, labels: ArrayLike, subjects: ArrayLike, folds: int = 5) -> Probe:
    """Fit logistic regressions on standardised features, each without one fold of the subjects.

    Args:
        features: (M, d) of validation images.
        labels: (M,) integers 0 to K - 1; a label that a member never saw has probability 0 from it.
        subjects: (M,) identifiers of persons, each in one fold; folds have like shares of labels as far as may be.
        folds: number of members.

    Raises:
        ValueError: lengths differ.
        InputError: fewer subjects, or images of every label, than folds, or a member left with one label.
    """
    features, labels, subjects = np.asarray(features), np.asarray(labels), np.asarray(subjects)
    if not len(features) == len(labels) == len(subjects):
        raise ValueError(f"features, labels, subjects: {len(features)}, {len(labels)} and {len(subjects)} rows")
    persons, most = len(np.unique(subjects)), np.bincount(labels).max()
    if min(persons, most) < folds:
        raise InputError(f"subjects: {persons}, with at most {most} images of a label; give at least {folds} of both")
    members, own = [], np.zeros((len(labels), labels.max() + 1))
    for seen, unseen in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(features, labels, subjects):
        member = _fit(features[seen], labels[seen])
        own[unseen] = _probabilities(member, features[unseen], own.shape[1])
        members.append(member)
    return Probe(tuple(members), own)


def _fit(features: NDArray, labels: NDArray) -> Pipeline:
    present = np.unique(labels)
    if len(present) < 2:
        raise InputError(f"labels: only {present.tolist()} outside some fold; give each label two subjects or more")
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, labels)


def _probabilities(member: Pipeline, features: NDArray, labels: int) -> Floats:
    result = np.zeros((len(features), labels))
    if len(features):
        result[:, member.classes_] = member.predict_proba(features)
    return result
