"""Whether images show what their prompts ask for: modality, level, tumour, side, grade, or any other column.

A reader calls each image's value; its confusion is measured on images of known value, and the share of images that show
what was asked is the adjusted count within each value asked, summed. With pi_v = A q_v the proportions among the images
asked for v (A the inverse of the transposed confusion, q_v the shares called):

    share = sum over v of w_v pi_v[v]        w_v the share of the images asked for v

and its variance by the delta method, from the images and from the reader's confusion, whose error is common to all v.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, t

from bundle.evaluation.estimate import Estimate, symmetric
from bundle.evaluation.prevalence import AdjustedCount, JudgeRates, adjusted_count


@dataclass(frozen=True)
class FactShare:
    """Share of ``n`` images that show the value asked for, in all and by value (with how many were asked for it).

    ``read`` is the share called so, with Wilson's binomial interval alone; ``expected`` what it would be if every image
    showed what was asked as people's images do. A share is not cut to [0, 1]; where the reader cannot tell the values
    apart it is NaN, in the whole range.
    """

    share: Estimate
    by_value: Mapping[str, tuple[int, Estimate]]
    read: Estimate
    expected: float
    n: int

    @property
    def plausible(self) -> bool:
        """Whether the share may lie in [0, 1]; else the reader errs otherwise on these images than on people's."""
        return self.share.low <= 1 and self.share.high >= 0


def fact_share(called: ArrayLike, asked: ArrayLike, rates: JudgeRates, confidence: float = 0.95) -> FactShare | None:
    """How often images show what was asked for; None when nothing was.

    Args:
        called: (N,) index of the value that the reader sees.
        asked: (N,) index of the value asked for, -1 where the prompt says nothing.
        rates: the reader's, on images of known value.
        confidence: of the intervals.
    """
    called, asked = np.asarray(called), np.asarray(asked)
    values = [int(v) for v in np.unique(asked[asked >= 0])]
    if not values:
        return None
    counts = {v: adjusted_count(called[asked == v], rates) for v in values}
    n = sum(count.n for count in counts.values())
    return FactShare(
        _summed(counts, {v: count.n / n for v, count in counts.items()}, confidence),
        {rates.groups[v]: (count.n, _summed({v: count}, {v: 1.0}, confidence)) for v, count in counts.items()},
        _binomial(int((called == asked)[asked >= 0].sum()), n, confidence),
        float(sum(count.n / n * rates.matrix[v, v] for v, count in counts.items())),
        n,
    )


def _binomial(shown: int, n: int, confidence: float) -> Estimate:
    share, found = shown / n, binomtest(shown, n).proportion_ci(confidence, method="wilson")
    return Estimate(share, found.low, found.high, float(np.sqrt(share * (1 - share) / n)))


def _summed(counts: Mapping[int, AdjustedCount], weights: Mapping[int, float], confidence: float) -> Estimate:
    first = next(iter(counts.values()))
    inverse, rates = first.rates.inverse, first.rates
    if inverse is None:
        return Estimate(float("nan"), 0.0, 1.0, float("inf"))
    value, variance, lever = 0.0, 0.0, np.zeros_like(rates.matrix)
    for v, count in counts.items():
        row = inverse[v]
        value += weights[v] * float(count.value[v])
        variance += weights[v] ** 2 * float(row @ count.raw_covariance @ row)
        lever += weights[v] * np.outer(count.clipped, row)  # -d value / d matrix[a, c]
    variance += float(np.einsum("ac,bd,abcd->", lever, lever, rates.covariance))
    return symmetric(value, variance, quantile=t.ppf((1 + confidence) / 2, first.degrees))


def asked_index(asked: Sequence[str | None], values: Sequence[str]) -> NDArray[np.int64]:
    """Index of each value asked for, (N,); -1 where nothing is, or something that nobody has shown the reader."""
    number = {value: i for i, value in enumerate(values)}
    return np.array([-1 if value is None else number.get(value, -1) for value in asked])
