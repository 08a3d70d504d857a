"""What is reported of the proportions of the groups beyond the adjusted count: other estimators, and whether the judge
holds on generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

from bundle.evaluation.estimate import symmetric
from bundle.evaluation.estimators import METHODS, estimate
from bundle.evaluation.label_shift import judges_differ, label_shift_test
from bundle.evaluation.prevalence import (
    JudgeRates,
    Shares,
    adjusted_count,
    as_vector,
    detectable_gap,
    equivalence_p,
    judge_rates,
    paired_difference,
    verdict,
)
from bundle.evaluation.readings import Readings

Entry = dict[str, Any]
REJECTED = 0.05  # level of the label shift test
NUM_BINS = 20  # of the histogram of scores
AMBIGUOUS = 0.7  # the likeliest group's probability below which an image is
FEW_IMAGES = 20  # prompts with fewer are not listed


@dataclass(frozen=True)
class People:
    """Images of subjects of known group, who show how classifiers err: ``images`` says what was done to them,
    ``through`` which generator they went, and ``strength`` how far they were noised there; ``places`` which of all
    people's images they are, None for all of them."""

    groups: tuple[str, ...]
    readings: Readings
    images: str = "decoded"
    strength: float | None = None
    through: str | None = None
    places: NDArray[np.int64] | None = None

    def rates(self, classifier: str = "judge") -> JudgeRates:
        return judge_rates(self.readings.calls(classifier), self.readings.groups, self.readings.subjects, self.groups)

    def weights(self, target: Shares) -> NDArray[np.float64]:
        """Of each image (M,), summing to one, so that together they have the target's proportions."""
        sizes = np.bincount(self.readings.groups, minlength=len(self.groups))
        found = (as_vector(target, self.groups) / sizes)[self.readings.groups]
        return found / found.sum()


def representation(
    made: Readings, people: People, variants: Sequence[People], target: Shares, margin: float = 0.05
) -> Entry:
    """All that is said of the proportions among generated images but the adjusted count itself.

    ``variants``: the same people (or some of them) after another treatment, such as noised and denoised.
    """
    judged, known = made.probabilities["judge"], people.readings
    rates = people.rates()
    count = adjusted_count(made.calls(), rates)
    arguments = (judged, known.probabilities["judge"], known.groups, known.subjects)
    shift = label_shift_test(*arguments)
    return {
        "detectable_gap": detectable_gap(float(count.standard_error.max())),
        "equivalence_p": equivalence_p(count, target, margin),
        "methods": {name: _named(people.groups, estimate(name, *arguments)) for name in METHODS},
        "label_shift": {
            "statistic": shift.statistic,
            "degrees": shift.degrees,
            "p_value": shift.p_value,
            "rejected": bool(shift.p_value < REJECTED),
        },
        "round_trip": [_under(variant, made, target, margin) for variant in (people, *variants)],
        "scores": histogram(judged[:, -1]),
        **{
            f"{name}_judge" if name == "second" else name: _beside(name, made, people)
            for name in made.probabilities
            if name != "judge"
        },
    }


def histogram(scores: ArrayLike, weights: ArrayLike | None = None) -> Entry:
    """Counts of (N,) scores in equal bins from 0 to 1; of ``weights`` their sums."""
    counts, edges = np.histogram(scores, bins=NUM_BINS, range=(0, 1), weights=weights)
    return {"edges": edges, "counts": counts}


def in_proportion(people: People, target: Shares) -> Entry:
    """What the judge makes of real people's images in the target's proportions, beside which generated ones stand."""
    judged, weights = people.readings.probabilities, people.weights(target)
    agree = people.readings.calls() == people.readings.calls("guide") if "guide" in judged else None
    return {
        "ambiguity": float(np.average(judged["judge"].max(1) < AMBIGUOUS, weights=weights)),
        "agreement": None if agree is None else float(np.average(agree, weights=weights)),
        "scores": histogram(judged["judge"][:, -1], weights * len(weights)),
    }


def _under(people: People, made: Readings, target: Shares, margin: float) -> Entry:
    """The adjusted count as it is with the judge's errors on these people's images."""
    count = adjusted_count(made.calls(), people.rates())
    return {
        "images": people.images,
        "strength": people.strength,
        "through": people.through,
        "proportion": _named(people.groups, count.value),
        "ci95": _named(people.groups, count.interval(0.95)),
        "verdict": verdict(count, target, margin),
    }


def _beside(name: str, made: Readings, people: People) -> Entry | None:
    """What another classifier says of the same images, and how far that is from the judge's word; None where it is no
    better than chance on people."""
    count = adjusted_count(made.calls(name), people.rates(name))
    if not count.measurable:
        return None
    pair = [(readings.calls(), readings.calls(name)) for readings in (made, people.readings)]
    level = 0.95 if len(people.groups) == 2 else 1 - 0.05 / len(people.groups)  # Bonferroni
    away = judges_differ(*pair, people.readings.groups, people.readings.subjects, people.groups, level)
    last = away[people.groups[-1]]
    return {
        "proportion": _named(people.groups, count.value),
        "ci95": _named(people.groups, count.interval(0.95)),
        "difference": last,
        "differ": any(found.low > 0 or found.high < 0 for found in away.values()),
    }


def classifier_card(name: str, people: People) -> Entry:
    """How a classifier does on people of known group: AUC (two groups), and the share of each group called rightly."""
    known, rates = people.readings, people.rates(name)
    p = known.probabilities[name]
    return {
        "auc": float(roc_auc_score(known.groups, p[:, 1])) if len(people.groups) == 2 else None,
        "subjects": int(rates.subjects.sum()),
        "images": len(known),
        "recall": _named(people.groups, np.diag(rates.matrix)),
        "calibration_error": calibration_error(p, known.groups),
        "ambiguity": float((p.max(1) < AMBIGUOUS).mean()),
    }


def judge_details(people: People, variants: Sequence[People]) -> Entry:
    """The judge's confusion, how much its errors cluster in persons, and what other treatments do to them.

    The largest shift is that of images which still show whom they showed: without the autoencoder, or noised as little
    as was tried. Noised further they take on the generator's own proportions, and the judge is right to say so.
    """
    rates = people.rates()
    trips = [_shift(variant, people) for variant in (people, *variants)]
    least = min((variant.strength for variant in variants if variant.strength is not None), default=None)
    return {
        "matrix": {g: _named(people.groups, row) for g, row in zip(people.groups, rates.matrix, strict=True)},
        "youden": float(rates.matrix.diagonal().sum() - 1) if len(people.groups) == 2 else None,
        "design_effect": design_effect(people),
        "round_trip": trips,
        "largest_shift": max((trip["shift"] for trip in trips[1:] if trip["strength"] in (None, least)), default=None),
    }


def _shift(variant: People, people: People) -> Entry:
    """Recall after another treatment, and the largest change of a rate on the very same images."""
    same = people if variant.places is None else replace(people, readings=people.readings[variant.places])
    changed, rates = variant.rates(), same.rates()
    return {
        "images": variant.images,
        "strength": variant.strength,
        "through": variant.through,
        "n": len(variant.readings),
        "recall": _named(people.groups, np.diag(changed.matrix)),
        "shift": float(np.abs(changed.matrix - rates.matrix).max()),
    }


def design_effect(people: People) -> float:
    """Variance of the recalls with subjects as the unit, over that with images as the unit; mean over the groups."""
    known, rates = people.readings, people.rates()
    found = []
    for group, recall in enumerate(np.diag(rates.matrix)):
        images = (known.groups == group).sum()
        plain = max(recall * (1 - recall), 0.25 / images) / images
        found.append(rates.covariance[group, group, group, group] / plain)
    return float(np.mean(found))


def calibration_error(probabilities: NDArray, truth: NDArray, bins: int = 10) -> float:
    """Expected calibration error of the likeliest group (Guo et al., ICML 2017, eq. 3)."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = (abs(right[place == b].mean() - sure[place == b].mean()) * (place == b).mean() for b in np.unique(place))
    return float(sum(gaps))


def by_prompt(made: Readings, prompt: NDArray, texts: Sequence[str], people: People) -> list[Entry]:
    """Adjusted proportions among the images of each prompt that has enough of them."""
    rows, rates = [], people.rates()
    calls, numbers = made.calls(), np.bincount(prompt, minlength=len(texts))
    for number in np.flatnonzero(numbers >= FEW_IMAGES):
        count = adjusted_count(calls[prompt == number], rates)
        shares = {"proportion": _named(people.groups, count.value), "ci95": _named(people.groups, count.interval())}
        rows.append({"prompt": texts[number], "n": count.n, **shares})
    return rows


def obedience(stated: Mapping[str, Readings], people: People) -> Entry:
    """Whether images show the group that their prompt states; ``stated`` holds those of each group, from one noise.

    For two groups ``difference`` is that of the shares called the second, which a model that obeys brings to the
    judge's own J; above it the images exaggerate, below it they disobey or blunt the judge. ``adjusted`` is the
    difference of the proportions, 1 for full obedience, with the error of J counted.
    """
    rates, calls = people.rates(), {group: made.calls() for group, made in stated.items()}
    counts = {group: adjusted_count(calls[group], rates) for group in people.groups}
    places = dict(zip(people.groups, range(len(people.groups)), strict=True))
    entry: Entry = {
        "groups": {
            group: {
                "n": count.n,
                "proportion": float(count.value[places[group]]),
                "ci95": count.interval()[places[group]],
            }
            for group, count in counts.items()
        }
    }
    if len(people.groups) != 2:
        return entry
    moved = paired_difference(*(calls[group] for group in people.groups), rates)
    low, high = moved.interval()[1].tolist()
    return entry | {
        "difference": symmetric(moved.raw[1], moved.raw_covariance[1, 1]),
        "adjusted": {"value": float(moved.value[1]), "ci95": [low, high]},
        "judge_j": float(rates.matrix.diagonal().sum() - 1),
    }


def _named(groups: Sequence[str], values: ArrayLike) -> Entry:
    return dict(zip(groups, np.asarray(values).tolist(), strict=True))
