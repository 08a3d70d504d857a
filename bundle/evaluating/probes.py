"""What linear probes on image features learn from people: a second judge, and what prompts ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.evaluation.facts import FactShare, asked_index, fact_share
from bundle.evaluation.prevalence import JudgeRates, judge_rates
from bundle.evaluation.probe import Probe, fit_probe
from bundle.evaluation.readings import Readings
from bundle.evaluation.representation import People

Entry = dict[str, Any]
SECOND = "second"  # the second judge among the classifiers
FEW_SUBJECTS = 20  # of a value, to learn to read it


@dataclass(frozen=True)
class Fact:
    """Something that prompts ask for: its ``values``, the probe that reads it and how that errs, in all and within each
    group that has people enough, and what each of P prompts ``asked`` for, -1 where nothing."""

    values: tuple[str, ...]
    probe: Probe
    rates: JudgeRates
    group_rates: Mapping[int, JudgeRates]
    asked: NDArray[np.int64]

    def shares(self, features: NDArray, prompt: NDArray, groups: NDArray, names: Sequence[str]) -> Entry | None:
        """Share of images with these features (N, d) that show what their prompt (N,) asked, in all and by the group
        (N,) that the judge calls; None where nothing was asked."""
        called, asked = self.probe.predict(features).argmax(1), self.asked[prompt]
        whole = fact_share(called, asked, self.rates)
        if whole is None:
            return None
        by_group = {
            names[g]: fact_share(called[groups == g], asked[groups == g], rates)
            for g, rates in self.group_rates.items()
        }
        return _entry(whole, by_group, self.rates)


def with_second_judge(people: People, space: str) -> tuple[People, Probe | None]:
    """Add a judge of another family, a linear probe on image features, cross-fitted on the people themselves; nothing
    where a second judge is among the classifiers already."""
    known = people.readings
    if SECOND in known.probabilities:
        return people, None
    probe = fit_probe(known.features[space], known.groups, known.subjects)
    own = replace(known, probabilities={**known.probabilities, SECOND: probe.own})
    return replace(people, readings=own), probe


def learn_fact(
    values_of: Sequence[str | None], readings: Readings, space: str, asked: Sequence[str | None]
) -> Fact | None:
    """A reader of what ``values_of`` (M,) says of people's images; None where no two values have enough subjects."""
    values = np.array([None if v is None else str(v) for v in values_of], dtype=object)
    seen = {v: len(set(readings.subjects[values == v])) for v in {v for v in values if v is not None}}
    names = tuple(sorted(v for v, subjects in seen.items() if subjects >= FEW_SUBJECTS))
    labels = asked_index(values.tolist(), names)
    if len(names) < 2 or not any(v in names for v in asked):
        return None
    known = labels >= 0
    subjects, features = readings.subjects[known], readings.features[space][known]
    probe = fit_probe(features, labels[known], subjects)
    calls, labels, groups = probe.own.argmax(1), labels[known], readings.groups[known]
    by_group = {
        int(g): judge_rates(calls[groups == g], labels[groups == g], subjects[groups == g], names)
        for g in np.unique(groups)
        if _people(labels[groups == g], subjects[groups == g], len(names)) >= FEW_SUBJECTS
    }
    return Fact(names, probe, judge_rates(calls, labels, subjects, names), by_group, asked_index(asked, names))


def _people(labels: NDArray, subjects: NDArray, values: int) -> int:
    """How many subjects the rarest value has."""
    return min(len(np.unique(subjects[labels == value])) for value in range(values))


def _entry(whole: FactShare, by_group: Mapping[str, FactShare | None], rates: JudgeRates) -> Entry:
    values = len(rates.groups)
    return {
        "n": whole.n,
        "share": whole.share,
        "read": whole.read,
        "expected": whole.expected,
        "plausible": whole.plausible,
        # recall above chance, 0 for a reader that guesses and 1 for one that never errs; of two values Youden's index
        "judge_j": float((np.diag(rates.matrix).mean() - 1 / values) / (1 - 1 / values)),
        "by_value": {v: {"n": n, "value": e.value, "ci95": [e.low, e.high]} for v, (n, e) in whole.by_value.items()},
        "by_group": {group: share.share for group, share in by_group.items() if share is not None},
    }
