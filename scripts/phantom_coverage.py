"""How often the adjusted count's interval holds the true share of images whose group is known without a judge.

Where a real judge meets generated images, label shift is an assumption, not a fact. On the phantom the true group of a
generated image can be read off its geometry, so sets of any true share can be made up, and the intervals and the
warnings held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.errors import InputError
from bundle.evaluation.prevalence import AdjustedCount, adjusted_count, judge_rates, tipping_point, verdict

GROUPS = ("first", "second")
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ImageCoverage:
    """What the repeats gave at one true share, with rates from one calibration; shares of the repeats but for two.

    `bias` is the mean error of the estimate and `width` the interval's mean width. `covered`: the interval holds the
    true share; `refuted`: the calls contradict label shift outright, so that the interval is the whole range;
    `rejected`: the label-shift test says no; `tipped`: the tipping point is below the largest shift between
    calibrations, as it is for every "cannot tell", whose tipping point is 0; `silent`: the interval misses, and neither
    the test nor the tipping point warns of it; `aligned`, `not_aligned`: the verdict with the true share as target, by
    which the second is always wrong.
    """

    share: float
    calibration: str
    covered: float
    width: float
    bias: float
    refuted: float
    rejected: float
    tipped: float
    silent: float
    aligned: float
    not_aligned: float


def coverage_on_images(
    calls: ArrayLike,
    truth: ArrayLike,
    validation: Mapping[str, ArrayLike],
    validation_truth: ArrayLike,
    subjects: ArrayLike,
    shares: Sequence[float],
    subjects_each: int,
    images: int,
    repeats: int,
    seed: int,
    margin: float,
    rejects: Callable[[str, Rows, Rows], bool],
) -> list[ImageCoverage]:
    """Make sets of known true share out of judged images, again and again, and count how often the interval is right.

    A set of share p has Binomial(images, p) images of the second group, drawn with replacement within either group, so
    that the images given are the model they come from. The judge is measured on whole subjects, drawn without
    replacement; give many times more than are drawn, for else the draws are too much alike and the coverage is that of
    the pool given, which may lie anywhere around 95 %.

    Args:
        calls: (N,) the judge's calls of generated images, 0 or 1.
        truth: (N,) the true groups of these images.
        validation: calls (M,) of the validation images by calibration, such as "plain", "decoded", "round trip".
        validation_truth: (M,) their true groups.
        subjects: (M,) the person whom each shows.
        shares: true shares of the second group.
        subjects_each: subjects of either group that the judge is measured on.
        images: generated images of a set.
        repeats: sets per share; every calibration is tried on the same sets.
        seed: of all draws.
        margin: of the verdict, whose target is the true share.
        rejects: says whether the label-shift test rejects, given the calibration's name, the rows of the generated
            images (images,) and those of the validation images.

    Returns one entry per share and calibration.

    Raises:
        ValueError: lengths differ, or a subject is in two groups.
        InputError: a group has no generated image, or fewer than `subjects_each` subjects.
    """
    pools = Pools(calls, truth, validation, validation_truth, subjects)
    pools.check(subjects_each)
    result = []
    for number, share in enumerate(shares):
        rng = np.random.default_rng([seed, number])
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in validation}
        for _ in range(repeats):
            generated, measured = pools.generated(rng, images, share), pools.measured(rng, subjects_each)
            counts = pools.counts(generated, measured)
            shift = largest_shift(counts.values())
            for name, count in counts.items():
                found[name].append(_outcome(count, share, margin, shift, rejects(name, generated, measured)))
        result += [ImageCoverage(share, name, *map(float, np.mean(rows, axis=0))) for name, rows in found.items()]
    return result


class Pools:
    """Judged images of known group, of which sets are drawn; arguments as in `coverage_on_images`."""

    def __init__(
        self,
        calls: ArrayLike,
        truth: ArrayLike,
        validation: Mapping[str, ArrayLike],
        validation_truth: ArrayLike,
        subjects: ArrayLike,
    ) -> None:
        self.calls, self.truth = np.asarray(calls), np.asarray(truth)
        self.validation = {name: np.asarray(own) for name, own in validation.items()}
        self.validation_truth = np.asarray(validation_truth)
        _, first, self.person = np.unique(np.asarray(subjects), return_index=True, return_inverse=True)
        lengths = {len(own) for own in (*self.validation.values(), self.validation_truth)}
        if len(self.calls) != len(self.truth) or lengths != {len(self.person)}:
            raise ValueError("calls, truth, validation: lengths differ; give one call and one true group per image")
        self.group = self.validation_truth[first]
        if (self.group[self.person] != self.validation_truth).any():
            raise ValueError("subjects: one is in two groups; sets of known share need subjects of one group")

    def check(self, subjects_each: int) -> None:
        """Raises InputError where a group has too few subjects, or no image."""
        for group in (0, 1):
            if (given := int((self.group == group).sum())) < subjects_each:
                raise InputError(f"subjects: group {group} has {given}, {subjects_each} are drawn; lower subjects_each")
            if not (self.truth == group).any():
                raise InputError(f"truth: no generated image of group {group}; give images of both")

    def generated(self, rng: np.random.Generator, images: int, share: float) -> Rows:
        """Rows of a set of images in which an image is of the second group with probability `share`."""
        second = rng.binomial(images, share)
        parts = ((0, images - second), (1, second))
        return np.concatenate([rng.choice(np.flatnonzero(self.truth == group), n) for group, n in parts])

    def measured(self, rng: np.random.Generator, subjects_each: int) -> Rows:
        """Rows of all validation images of as many subjects of either group."""
        drawn = [rng.choice(np.flatnonzero(self.group == g), subjects_each, replace=False) for g in (0, 1)]
        chosen = np.zeros(len(self.group), dtype=bool)
        chosen[np.concatenate(drawn)] = True
        return np.flatnonzero(chosen[self.person])

    def counts(self, generated: Rows, measured: Rows) -> dict[str, AdjustedCount]:
        """Adjusted count of the set by calibration."""
        known = self.validation_truth[measured], self.person[measured], GROUPS
        rates = {name: judge_rates(own[measured], *known) for name, own in self.validation.items()}
        return {name: adjusted_count(self.calls[generated], own) for name, own in rates.items()}


def largest_shift(counts: Iterable[AdjustedCount]) -> float:
    """Largest absolute difference of a rate between any two calibrations; 0 for a single one."""
    pairs = combinations([count.rates.matrix for count in counts], 2)
    return max((float(np.abs(first - second).max()) for first, second in pairs), default=0.0)


def _outcome(count: AdjustedCount, share: float, margin: float, shift: float, rejected: bool) -> NDArray[np.float64]:
    """One repeat, in the order of the fields of `ImageCoverage`."""
    low, high = count.interval()[1]
    target = (1 - share, share)
    covered, refuted = low <= share <= high, not count.inside_hull
    tipped = tipping_point(count, target, margin) < shift
    silent = not (covered or rejected or tipped)
    said = verdict(count, target, margin)
    bias = count.value[1] - share
    flags = (refuted, rejected, tipped, silent, said == "aligned", said == "not aligned")
    return np.array([covered, high - low, bias, *flags], dtype=float)
