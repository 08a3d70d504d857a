"""Semantic correlation: do images mean what their prompts say, and equally well for every group?

A classifier of a finding, such as benign or malignant, trained on generated images is tested on real ones, or the other
way about; how well it does in each group says how much of the finding the generator puts into that group's images.

The published evaluation (FairDiffusion, Luo et al., arXiv 2412.20374, and its public code) draws images, not persons,
for its bootstrap, so that many slices of one person pass for many persons; it prints the mean of the draws, which adds
their bias to a gap a second time, and their standard deviation in place of an interval; its headline is the
equity-scaled AUC, which falls by chance alone (see `equity`). Here whole subjects are drawn, the value is the one
measured, and the interval holds 95 % of the draws. A largest minus a smallest value is never negative: chance alone
lifts it, and an interval of its draws would not hold zero even where groups are alike. So a gap has no interval, but
what it would be were the groups alike, and how often it would then be as large. Of two groups the AUCs' difference has
its sign, and an interval. Equity-scaled AUC is a legacy column.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from numpy.typing import ArrayLike, NDArray

from bundle.errors import InputError
from bundle.evaluation.equity import equity_scaled
from bundle.evaluation.estimate import Estimate

Floats = NDArray[np.float64]
BLOCK = 128  # draws at a time, so that weights of a few thousand images take a few megabytes
GAPS = ("auc", "parity", "odds")
PERMUTATIONS = 199  # of the groups' names, for what chance makes of a gap


@dataclass(frozen=True)
class Gap:
    """Largest minus smallest of the groups; were they alike (names permuted over subjects), its mean ``chance``, and
    ``p``, how often it would be at least as large."""

    value: float
    chance: float
    p: float


@dataclass(frozen=True)
class GroupScore:
    """One group: images, those with the finding, subjects, AUC (None where all or none have the finding), accuracy."""

    n: int
    positives: int
    subjects: int
    auc: Estimate | None
    accuracy: Estimate | None


@dataclass(frozen=True)
class Correlation:
    """How well scores tell the finding, in all and by group.

    ``worst``: the group of least AUC; ``auc_gap``: largest minus smallest AUC of the groups; ``contrast``: of two
    groups the second's AUC minus the first's; ``equity_scaled``: the legacy score, ``equity_scaled_fair`` what it would
    be were the groups alike. None where fewer than two groups have images with and without the finding.
    """

    n: int
    subjects: int
    positives: int
    auc: Estimate
    accuracy: Estimate
    groups: dict[str, GroupScore]
    undefined: tuple[str, ...]
    worst: str | None
    auc_gap: Gap | None
    contrast: Estimate | None
    demographic_parity: Gap | None
    equalized_odds: Gap | None
    equity_scaled: float | None
    equity_scaled_fair: float | None


@dataclass(frozen=True)
class CorrelationChange:
    """Second minus first scores on the same images; None where fewer than two groups can be compared."""

    auc: Estimate
    worst_auc: Estimate | None
    auc_gap: Estimate | None
    demographic_parity: Estimate | None
    equalized_odds: Estimate | None


@dataclass(frozen=True, eq=False)
class Rates:
    """Of B draws of the images: AUC and accuracy (B,), and by group (B, G) also the shares called positive of all, of
    those with and of those without the finding; NaN where a draw has no such image."""

    auc: Floats
    accuracy: Floats
    group_auc: Floats
    group_accuracy: Floats
    selected: Floats
    true_positive: Floats
    false_positive: Floats

    def differences(self) -> dict[str, Floats]:
        """Largest minus smallest value of the groups in each draw (B,): AUC, demographic parity, equalised odds.

        A group without one of the classes takes no part in the odds.
        """
        lacking = np.isnan(self.group_auc)
        rates = (np.where(lacking, np.nan, rate) for rate in (self.true_positive, self.false_positive))
        both = np.maximum(*map(_spread, rates))
        return {"auc": _spread(self.group_auc), "parity": _spread(self.selected), "odds": both}


def semantic_correlation(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    subjects: ArrayLike,
    names: Sequence[str],
    threshold: float = 0.5,
    repeats: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Correlation:
    """AUC and accuracy in all and by group, and the gaps between the groups.

    Args:
        scores: (N,) of a classifier, larger for the finding.
        labels: (N,) 0 or 1.
        groups: (N,) index into ``names``; -1, unknown, counts in all and in no group.
        subjects: (N,) whom the images show; the bootstrap draws whole subjects.
        threshold: a score from it up counts as a positive call.
        repeats: bootstrap draws, for percentile intervals at ``confidence``. BCa would not do for a gap, which is no
            smooth function of the data.

    A group whose images all have, or all lack, the finding has no AUC and takes no part in the gap of AUC or of
    equalised odds. Values of the two gaps of calls are fairlearn's.

    Raises InputError where the finding, or its absence, occurs in no image.
    """
    cases = _Cases(scores, labels, groups, subjects, len(names), threshold)
    known, draws = cases.rates(np.ones((1, cases.n))), _joined(cases, cases.resampled(repeats, seed))
    sound = cases.sound(known)
    aucs = {name: float(known.group_auc[0, g]) for g, name in enumerate(names) if sound[g]}
    fair = _joined(cases, _permuted(cases, seed), deal=True) if len(aucs) > 1 else None
    gaps = _gaps(cases, known, fair) if fair else dict.fromkeys(GAPS)
    overall = float(known.auc[0])
    return Correlation(
        n=cases.n,
        subjects=cases.people,
        positives=int(cases.labels.sum()),
        auc=_estimate(known.auc, draws.auc, confidence),
        accuracy=_estimate(known.accuracy, draws.accuracy, confidence),
        groups={name: _group(cases, g, known, draws, confidence) for g, name in enumerate(names)},
        undefined=tuple(name for g, name in enumerate(names) if not sound[g]),
        worst=min(aucs, key=aucs.get) if aucs else None,
        auc_gap=gaps["auc"],
        contrast=_contrast(known, draws, confidence) if len(names) == len(aucs) == 2 else None,
        demographic_parity=gaps["parity"],
        equalized_odds=gaps["odds"],
        equity_scaled=equity_scaled(overall, aucs) if fair else None,
        equity_scaled_fair=_mean_equity_scaled(overall, fair.group_auc) if fair else None,
    )


def paired_change(
    first_scores: ArrayLike,
    second_scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    subjects: ArrayLike,
    names: Sequence[str],
    threshold: float = 0.5,
    repeats: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> CorrelationChange:
    """Second minus first, from two (N,) scores of the same images, or of pairs of images of one prompt and noise.

    Both are drawn with the same subjects, so that what they share cancels. Other arguments and errors as in
    `semantic_correlation`.
    """
    both = [_Cases(scores, labels, groups, subjects, len(names), threshold) for scores in (first_scores, second_scores)]
    known = [cases.rates(np.ones((1, cases.n))) for cases in both]
    draws = [_joined(cases, cases.resampled(repeats, seed)) for cases in both]
    enough = both[0].sound(known[0]).sum() > 1

    def change(of: Callable[[Rates], Floats]) -> Estimate:
        value, spread = (of(pair[1]) - of(pair[0]) for pair in (known, draws))
        return _estimate(value, spread, confidence)

    return CorrelationChange(
        auc=change(lambda rates: rates.auc),
        worst_auc=change(lambda rates: _least(rates.group_auc)) if enough else None,
        auc_gap=change(lambda rates: rates.differences()["auc"]) if enough else None,
        demographic_parity=change(lambda rates: rates.differences()["parity"]) if enough else None,
        equalized_odds=change(lambda rates: rates.differences()["odds"]) if enough else None,
    )


def weighted_auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> Floats:
    """Areas under the ROC curve (B,) of B weightings (B, N) of the images; ties count half, NaN without one class."""
    scores, labels, weights = np.asarray(scores), np.asarray(labels).astype(bool), np.asarray(weights, dtype=np.float64)
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # of runs of equal scores
    sorted_weights, positive = weights[:, order], labels[order]
    above = np.add.reduceat(sorted_weights * positive, starts, axis=1)
    below = np.add.reduceat(sorted_weights * ~positive, starts, axis=1)
    pairs = above.sum(1) * below.sum(1)
    right = (above * (below.cumsum(1) - below / 2)).sum(1)
    return _ratio(right, pairs)


class _Cases:
    """The images, checked and counted."""

    def __init__(
        self,
        scores: ArrayLike,
        labels: ArrayLike,
        groups: ArrayLike,
        subjects: ArrayLike,
        num_groups: int,
        threshold: float,
    ):
        self.scores, self.labels = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(np.int64)
        self.groups, self.num_groups = np.asarray(groups).astype(np.int64), num_groups
        names, self.person = np.unique(np.asarray(subjects), return_inverse=True)
        self.n, self.people = len(self.scores), len(names)
        if not self.n == len(self.labels) == len(self.groups) == len(self.person):
            raise ValueError("scores, labels, groups, subjects: lengths differ; give one of each for every image")
        if set(np.unique(self.labels).tolist()) != {0, 1}:
            raise InputError(f"labels: {int(self.labels.sum())} of {self.n} images have the finding; give some of both")
        self.called = self.scores >= threshold

    def rates(self, weights: Floats) -> Rates:
        """What B weightings (B, N) of the images measure."""
        return self._rates(weights, [weights * (self.groups == g) for g in range(self.num_groups)])

    def dealt(self, groups: NDArray) -> Rates:
        """What B other deals of the groups (B, N) would measure."""
        return self._rates(np.ones(groups.shape), [(groups == g).astype(np.float64) for g in range(self.num_groups)])

    def _rates(self, weights: Floats, parts: Sequence[Floats]) -> Rates:
        """With the groups' own weights as ``parts``, (B, N) each."""
        positive, right = self.labels == 1, self.called == (self.labels == 1)
        return Rates(
            auc=weighted_auc(self.scores, self.labels, weights),
            accuracy=_share(right, weights),
            group_auc=_columns([weighted_auc(self.scores, self.labels, part) for part in parts]),
            group_accuracy=_columns([_share(right, part) for part in parts]),
            selected=_columns([_share(self.called, part) for part in parts]),
            true_positive=_columns([_share(self.called, part * positive) for part in parts]),
            false_positive=_columns([_share(self.called, part * ~positive) for part in parts]),
        )

    def sound(self, known: Rates) -> NDArray[np.bool_]:
        """Whether a group (G,) has images with and images without the finding."""
        return ~np.isnan(known.group_auc[0])

    def resampled(self, repeats: int, seed: int) -> Iterator[Floats]:
        """How often each image counts in draws of as many subjects with replacement, block by block (B, N)."""
        rng, even = np.random.default_rng(seed), np.full(self.people, 1 / self.people)
        for start in range(0, repeats, BLOCK):
            drawn = rng.multinomial(self.people, even, size=min(BLOCK, repeats - start))
            yield drawn[:, self.person].astype(np.float64)


def _permuted(cases: _Cases, seed: int) -> Iterator[NDArray]:
    """Groups (B, N) with the names dealt out anew among the subjects that have one, all images of one together."""
    known = cases.groups >= 0
    pairs, unit = np.unique(np.stack([cases.person[known], cases.groups[known]]), axis=1, return_inverse=True)
    rng = np.random.default_rng(seed)
    dealt = np.full((PERMUTATIONS, cases.n), -1)
    for row in dealt:
        row[known] = rng.permutation(pairs[1])[np.ravel(unit)]
    yield dealt


def _joined(cases: _Cases, blocks: Iterator[NDArray], deal: bool = False) -> Rates:
    """The rates of all blocks of draws, of weights or of deals of the groups."""
    found = [cases.dealt(block) if deal else cases.rates(block) for block in blocks]
    return Rates(**{key: np.concatenate([getattr(part, key) for part in found]) for key in Rates.__dataclass_fields__})


def _group(cases: _Cases, group: int, known: Rates, draws: Rates, confidence: float) -> GroupScore:
    own = cases.groups == group
    return GroupScore(
        n=int(own.sum()),
        positives=int(cases.labels[own].sum()),
        subjects=len(np.unique(cases.person[own])),
        auc=_estimate(known.group_auc[:, group], draws.group_auc[:, group], confidence),
        accuracy=_estimate(known.group_accuracy[:, group], draws.group_accuracy[:, group], confidence),
    )


def _contrast(known: Rates, draws: Rates, confidence: float) -> Estimate:
    """Of two groups the second's AUC minus the first's."""
    return _estimate(*(rates.group_auc[:, 1] - rates.group_auc[:, 0] for rates in (known, draws)), confidence)


def _gaps(cases: _Cases, known: Rates, fair: Rates) -> dict[str, Gap]:
    """The gaps between groups; those of calls as fairlearn has them, of odds over groups that have both classes."""
    parity, odds = cases.groups >= 0, np.isin(cases.groups, np.flatnonzero(cases.sound(known)))
    values = {
        "auc": float(known.differences()["auc"][0]),
        "parity": _by_fairlearn(demographic_parity_difference, cases, parity),
        "odds": _by_fairlearn(equalized_odds_difference, cases, odds),
    }
    alike = fair.differences()
    return {key: _gap(values[key], alike[key]) for key in GAPS}


def _gap(value: float, alike: Floats) -> Gap:
    """With what it would be (B,) in cohorts whose groups are alike; this cohort is one of them (Davison and Hinkley,
    1997, section 4.2)."""
    as_large = np.sum(alike >= value - 1e-12)
    return Gap(value, float(np.nanmean(alike)), float((1 + as_large) / (1 + len(alike))))


def _by_fairlearn(measure: Callable[..., float], cases: _Cases, kept: NDArray[np.bool_]) -> float:
    return float(measure(cases.labels[kept], cases.called[kept], sensitive_features=cases.groups[kept]))


def _mean_equity_scaled(overall: float, group_auc: Floats) -> float:
    """Mean of the equity-scaled AUC over deals of the groups (B, G)."""
    return float(np.mean([equity_scaled(overall, dict(enumerate(row[~np.isnan(row)]))) for row in group_auc]))


def _estimate(value: Floats, draws: Floats, confidence: float) -> Estimate | None:
    if np.isnan(value[0]):
        return None
    return Estimate(float(value[0]), *_ends(draws, confidence), float(np.nanstd(draws)))


def _ends(draws: Floats, confidence: float) -> tuple[float, float]:
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high


def _columns(found: Sequence[Floats]) -> Floats:
    return np.stack(found, axis=1)


def _spread(values: Floats) -> Floats:
    """Largest minus smallest of the groups' values (B, G), those that are not there left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw in which no group has a value stays NaN
        return np.nanmax(values, axis=1) - np.nanmin(values, axis=1)


def _least(values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmin(values, axis=1)


def _share(which: NDArray[np.bool_], weights: Floats) -> Floats:
    """Weighted share of the images for which something holds, (B,)."""
    return _ratio(weights @ which, weights.sum(1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
