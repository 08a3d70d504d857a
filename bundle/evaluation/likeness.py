"""How much generated images resemble real ones, overall and group by group, everything at equal n.

Frechet distance, precision, recall, density and coverage depend on how many images they are computed from, so two
figures are comparable only at the same n: before and after, each group, and real against real take as many images as
the smallest of them has. A group's images are those that the judge calls so, or those whose prompt asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.evaluation.distances import choose, frechet_distance, half_sampled, prdc
from bundle.evaluation.diversity import ms_ssim_diversity
from bundle.evaluation.equity import equity_scaled, fair_scores
from bundle.evaluation.estimate import Estimate, difference
from bundle.evaluation.quality import clip_score, kid
from bundle.evaluation.readings import Readings

Entry = dict[str, Any]
FEWEST = 20  # people, or generated images, to compare at all
LIMITS = {"fd": (0, np.inf), "precision": (0, 1), "recall": (0, 1), "density": (0, np.inf), "coverage": (0, 1)}
MOST_PAIRS = 256
SEED = 0  # of the choice of images: the same for every report


@dataclass(frozen=True)
class Texts:
    """Features (P, d) of prompts in one of the feature spaces, of length 1."""

    space: str
    features: NDArray


@dataclass(frozen=True)
class Halves:
    """Real images in two halves without a common subject: a generator as good as the truth would be the second."""

    first: Readings
    second: Readings


def halves(real: Readings) -> Halves:
    """Every other subject, so that both halves have what the order of the subjects is about."""
    first = np.isin(real.subjects, np.unique(real.subjects)[::2])
    return Halves(real[first], real[~first])


def common_sizes(sides: Sequence[Readings], real: Readings, groups: int) -> tuple[int, int]:
    """How many images everything is compared at, overall and of each group; 0 where there are hardly any."""
    parts = halves(real)
    sets = [*sides, parts.first, parts.second]
    overall = min(_size(part) for part in sets)
    each = min(_size(part[part.groups == group]) for part in sets for group in range(groups))
    return overall, each


def _size(readings: Readings) -> int:
    """How many images there are; 0 for a few, or those of a few people."""
    return len(readings) if len(np.unique(readings.subjects)) >= FEWEST else 0


def likeness(made: Readings, real: Readings, sizes: tuple[int, int], groups: Sequence[str], membership: str) -> Entry:
    """The quality of one set of images, overall and, where every group has enough of them, by group."""
    overall, each = sizes
    reference = halves(real).first  # real against real has no more people to be compared with
    entry = {"quality": compared(made, reference, overall), "diversity": diversity(made)}
    if not each:
        return entry | {"by_group": None, "equity_scaled": None}
    parts = {g: (made[made.groups == i], reference[reference.groups == i]) for i, g in enumerate(groups)}
    quality = {g: compared(*part, each) for g, part in parts.items()}
    spaces = list(made.features)
    found = {
        g: {"n": len(part[0]), "quality": quality[g], "diversity": diversity(part[0])} for g, part in parts.items()
    }
    return entry | {
        "by_group": {
            "membership": membership,
            "n_each": each,
            "groups": found,
            "difference": {s: {"kid": between_groups([quality[g][s]["kid"] for g in groups])} for s in spaces},
            "worst": {s: max(groups, key=lambda g, s=s: quality[g][s]["kid"].value) for s in spaces},
        },
        "equity_scaled": {space: _legacy(parts, space, each) for space in spaces},
    }


def compared(made: Readings, real: Readings, number: int) -> Entry:
    """KID, Frechet distance, precision, recall, density and coverage by feature space, at ``number`` images each."""
    if not number:
        return {}
    made, real = some(made, number), some(real, number)
    return {space: {"n": number, **_distances(made, real, space)} for space in made.features}


def _distances(made: Readings, real: Readings, space: str) -> dict[str, Estimate]:
    x, y = real.features[space].astype(np.float64), made.features[space].astype(np.float64)

    def measure(first: NDArray, second: NDArray) -> tuple[float, ...]:
        found = prdc(first, second)
        return frechet_distance(first, second), found.precision, found.recall, found.density, found.coverage

    spread = half_sampled(measure, x, y, real.subjects, made.subjects)
    within = {name: _cut(found, *LIMITS[name]) for name, found in zip(LIMITS, spread, strict=True)}
    return {"kid": kid(x, y, real.subjects, made.subjects), **within}


def _cut(estimate: Estimate, least: float, most: float) -> Estimate:
    """With the interval's ends cut to what the measure can be."""
    low, high = np.clip([estimate.low, estimate.high], least, most).tolist()
    return replace(estimate, low=low, high=high)


def some(readings: Readings, number: int) -> Readings:
    """``number`` images drawn without replacement, in their order."""
    if number >= len(readings):
        return readings
    return readings[choose(number, len(readings), SEED)]


def diversity(made: Readings) -> Entry:
    """MS-SSIM of pairs: the higher, the more alike the images."""
    found = ms_ssim_diversity(made.images, MOST_PAIRS, made.subjects)
    return {"n": len(made), "pairs": found.pairs, "scales": found.scales, "ms_ssim": found.estimate}


def agreement_with_text(made: Readings, prompt: NDArray, texts: Texts) -> Entry:
    """CLIP score of images and their prompts (N,)."""
    features = made.features[texts.space].astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = clip_score(unit, texts.features[prompt])
    return {"n": len(made), "space": texts.space, "value": found.value, "ci95": [found.low, found.high]}


def between_groups(found: Sequence[Estimate], by: Sequence[float] | None = None) -> Estimate:
    """Worst minus best group, with Bonferroni's level for all pairs; of two groups the second minus the first.

    ``by`` (G,) says which group is worst (largest) and which best, by default the values themselves: of changes it is
    what the groups changed from.
    """
    if len(found) == 2:
        return difference(found[1], found[0])
    order = np.argsort([estimate.value for estimate in found] if by is None else by)
    return difference(found[order[-1]], found[order[0]], 1 - 0.05 / comb(len(found), 2))


def _legacy(parts: Mapping[str, tuple[Readings, Readings]], space: str, each: int) -> dict[str, Entry]:
    """Equity-scaled scores, as published, with what they would be if the groups were alike."""
    made, real = ([some(part[side], each) for part in parts.values()] for side in (0, 1))
    labels = np.repeat(np.array(list(parts)), each)
    y, x = (np.concatenate([part.features[space] for part in side]).astype(np.float64) for side in (made, real))
    subjects = np.concatenate([part.subjects for part in real])
    measures = {"fd": (frechet_distance, False), "coverage": (_coverage, True)}
    found = {}
    for name, (measure, higher) in measures.items():
        groups = {g: measure(x[labels == g], y[labels == g]) for g in parts}
        value = equity_scaled(measure(x, y), groups, higher_is_better=higher)
        fair = fair_scores(measure, x, y, labels, labels, subjects, higher_is_better=higher)
        found[name] = {"value": value, "fair": float(fair.mean())}
    return found


def _coverage(real: NDArray, made: NDArray) -> float:
    """Coverage at the smaller number: groups that are dealt out by whole subjects differ a little in number."""
    number = min(len(real), len(made))
    return prdc(*(part[choose(number, len(part), SEED)] for part in (real, made))).coverage
