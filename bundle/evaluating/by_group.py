"""What an evaluation of equal quality says of one attribute: quality, denoising loss and meaning by group, and how they
changed from another model to this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.evaluation.estimate import Estimate, jackknife_variance, symmetric
from bundle.evaluation.likeness import between_groups, common_sizes, halves, likeness
from bundle.evaluation.quality import kid, kid_change
from bundle.evaluation.readings import Readings
from bundle.evaluation.semantic import Correlation, Gap, paired_change, semantic_correlation

Entry = dict[str, Any]
CHANGES = ("generated_to_real", "real_to_generated")  # the others do not depend on the model


@dataclass(frozen=True, eq=False)
class Seen:
    """Readings of generated images, of the real slices that they are compared with, and of the second half of the real
    people's slices through the autoencoder, all with their groups."""

    made: Readings
    real: Readings
    ceiling: Readings

    def of_groups(self, made: NDArray, real: NDArray) -> Seen:
        """With these groups of the generated images (N,) and of the real slices (M,)."""
        ceiling = real[np.isin(self.real.subjects, self.ceiling.subjects)]
        return Seen(self.made.of_groups(made), self.real.of_groups(real), self.ceiling.of_groups(ceiling))


@dataclass(frozen=True, eq=False)
class Truth:
    """Of tested images which are ``kept`` (N,) because their finding is known, and of those ``labels``, ``groups`` and
    ``subjects`` (K,)."""

    kept: NDArray[np.bool_]
    labels: NDArray
    groups: NDArray
    subjects: NDArray

    @property
    def arguments(self) -> tuple[NDArray, NDArray, NDArray]:
        return self.labels, self.groups, self.subjects


def quality(seen: Seen, names: Sequence[str]) -> Entry:
    """Quality of the generated images and of the ceiling, all at one number of images."""
    sizes = common_sizes([seen.made, seen.ceiling], seen.real, len(names))
    sides = {"generated": seen.made, "ceiling": seen.ceiling}
    return {name: likeness(side, seen.real, sizes, names, "prompt") for name, side in sides.items()}


def quality_change(seen: Seen, earlier: Mapping[str, NDArray], names: Sequence[str]) -> Entry:
    """Change of KID by space from an ``earlier`` model's features (N, d), in all, by group, and between groups."""
    made, real, found = seen.made, halves(seen.real).first, {}
    for space in made.features:
        x, before, after = real.features[space], earlier[f"features_{space}"], made.features[space]
        groups, then = {}, []
        for g, name in enumerate(names):
            own, other = real.groups == g, made.groups == g
            groups[name] = kid_change(x[own], before[other], after[other], real.subjects[own])
            then.append(kid(x[own], before[other], real.subjects[own]).value)
        overall, apart = kid_change(x, before, after, real.subjects), between_groups(list(groups.values()), then)
        found[space] = {"overall": overall, "groups": groups, "difference": apart}
    return found


def meaning(scores: Mapping[str, NDArray], truths: Mapping[str, Truth], names: Sequence[str]) -> Entry:
    """Semantic correlation of ``scores`` (N,) by direction."""
    found = {key: semantic_correlation(scores[key][t.kept], *t.arguments, names) for key, t in truths.items()}
    return {key: _entry(correlation) for key, correlation in found.items()}


def meaning_change(
    earlier: Mapping[str, NDArray], scores: Mapping[str, NDArray], truths: Mapping[str, Truth], names: Sequence[str]
) -> Entry:
    """Change of the semantic correlation by direction, image by image."""
    pairs = {key: (earlier[key][truths[key].kept], scores[key][truths[key].kept]) for key in CHANGES}
    return {key: paired_change(*pair, *truths[key].arguments, names) for key, pair in pairs.items()}


def denoising(
    losses: NDArray, groups: NDArray, subjects: NDArray, names: Sequence[str], earlier: NDArray | None = None
) -> Entry:
    """Means of losses (N,) in all and by group, with intervals by subject, and the difference between groups.

    Of changes from ``earlier`` losses it is between the worst and the best group of then.
    """
    by_group = {name: _mean(losses[groups == g], subjects[groups == g]) for g, name in enumerate(names)}
    by = None if earlier is None else [float(earlier[groups == g].mean()) for g in range(len(names))]
    apart = between_groups(list(by_group.values()), by)
    return {"overall": _mean(losses, subjects), "groups": by_group, "difference": apart}


def _mean(values: NDArray, subjects: NDArray) -> Estimate:
    """Mean over images, its variance the jackknife over subjects."""
    person = np.unique(subjects, return_inverse=True)[1]
    sums, sizes = np.bincount(person, values), np.bincount(person)
    without = (sums.sum() - sums) / np.maximum(len(values) - sizes, 1)
    return symmetric(float(values.mean()), jackknife_variance(without))


def _entry(found: Correlation) -> Entry:
    entry = {item.name: getattr(found, item.name) for item in fields(found)}
    return entry | {name: asdict(value) for name, value in entry.items() if isinstance(value, Gap)}
