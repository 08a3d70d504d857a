"""Scores of a judge that errs, drawn so that everything about it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import norm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Simulated:
    """Probabilities (N, 2) on generated and (M, 2) on validation images, with the true groups and the subjects."""

    generated: Floats
    generated_truth: Ints
    validation: Floats
    truth: Ints
    subjects: Ints


def simulate(
    rng: np.random.Generator,
    accuracy: float,
    subjects: int,
    slices: int,
    generated: int,
    share: float,
    shrink: float = 0.0,
    offset: float = 0.0,
    icc: float = 0.6,
) -> Simulated:
    """A judge of two groups, measured on `subjects` persons (half of either group) with `slices` images each.

    Its latent score is normal with variance one and mean -d or d, where Phi(d) is the accuracy; `icc` is the share of
    the variance that the images of a person have in common. On generated images, one a person, the mean is multiplied
    by 1 - `shrink` and moved by `offset`. The probability is the posterior at equal shares of the groups on images
    that are not shifted, so that it is calibrated on the validation images. `share` is the chance of the second group.
    """
    person = np.arange(subjects) % 2
    truth, ids = np.repeat(person, slices), np.repeat(np.arange(subjects), slices)
    common = np.sqrt(icc) * rng.normal(size=subjects)[ids]
    latent = distance(accuracy) * (2 * truth - 1) + common + np.sqrt(1 - icc) * rng.normal(size=len(ids))
    drawn = (rng.random(generated) < share).astype(np.int64)
    shifted = (1 - shrink) * distance(accuracy) * (2 * drawn - 1) + offset + rng.normal(size=generated)
    return Simulated(posterior(shifted, accuracy), drawn, posterior(latent, accuracy), truth, ids)


def distance(accuracy: float) -> float:
    """Half the distance between the groups' mean scores at which this share of the images is called rightly."""
    return float(norm.ppf(accuracy))


def posterior(latent: ArrayLike, accuracy: float) -> Floats:
    """Probabilities (N, 2) of the groups given latent scores (N,): the log of the odds of N(d, 1) to N(-d, 1)."""
    second = expit(2 * distance(accuracy) * np.asarray(latent))
    return np.stack([1 - second, second], axis=1)
