"""Five estimators of the proportions of groups, side by side.

They assume different things of a judge, so that a conclusion which hangs on the estimator shows: the plain counts
assume that the judge does not err (cc) or that the proportions are those it was calibrated at (pcc); the adjusted
counts, that it errs on generated images as on validation images (acc, pacc); the maximum of the likelihood (em), that
its probabilities are calibrated as well.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.evaluation.prevalence import adjusted_count, judge_rates

Floats = NDArray[np.float64]
Method = Literal["cc", "pcc", "acc", "pacc", "em"]
METHODS: tuple[Method, ...] = get_args(Method)


def estimate(
    method: Method, generated: ArrayLike, validation: ArrayLike, truth: ArrayLike, subjects: ArrayLike
) -> Floats:
    """Proportions (G,) of the groups among generated images.

    Args:
        method: `cc` share of the calls; `pcc` mean probability; `acc` and `pacc` the same adjusted for the judge's
            errors, not clipped (Forman, Data Min. Knowl. Discov. 17, 2008; Bella et al., ICDM 2010); `em` maximum
            likelihood (Saerens, Latinne and Decaestecker, Neural Comput. 14, 2002).
        generated: (N, G) the judge's probabilities on generated images.
        validation: (M, G) its probabilities on validation images.
        truth: (M,) index of the true group; each group is shown by two subjects or more.
        subjects: (M,) identifiers of persons, each counted once however many images there are.

    For `em` the probabilities are taken to be calibrated where the groups have the shares that they have among the
    validation subjects. NaN where the judge's errors cannot be undone.

    Raises:
        ValueError: unknown method, or arrays that do not fit each other.
        InputError: a group with fewer than two validation subjects.
    """
    if method not in METHODS:
        raise ValueError(f"method: {method!r}; give one of {', '.join(METHODS)}")
    generated, validation = (np.asarray(p, dtype=np.float64) for p in (generated, validation))
    if method in ("cc", "acc"):
        generated, validation = (np.eye(p.shape[1])[p.argmax(axis=1)] for p in (generated, validation))
    rates = judge_rates(validation, truth, subjects, [str(group) for group in range(validation.shape[1])])
    count = adjusted_count(generated, rates)
    if method in ("acc", "pacc"):
        return count.value
    return _maximum_likelihood(generated, rates.subjects / rates.subjects.sum()) if method == "em" else count.raw


def _maximum_likelihood(posteriors: Floats, prior: Floats, tolerance: float = 1e-9, steps: int = 10_000) -> Floats:
    """Proportions (G,) that make probabilities (N, G), calibrated at the shares `prior`, most likely."""
    likelihoods, shares = posteriors / prior, prior
    for _ in range(steps):
        joint = likelihoods * shares
        before, shares = shares, (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(shares - before).max() < tolerance:
            break
    return shares
