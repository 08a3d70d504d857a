"""From what the instruments read to the report: the same for the images of any generator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.evaluation import report
from bundle.evaluation.bands import simultaneous_confidence
from bundle.evaluation.facts import FactShare, asked_index, fact_share
from bundle.evaluation.faithfulness import lesion_faithfulness
from bundle.evaluation.likeness import Texts, agreement_with_text, common_sizes, compared, diversity, halves, likeness
from bundle.evaluation.memorisation import GroupRows, Memorised, Pair, memorisation_by_group
from bundle.evaluation.prevalence import AdjustedCount, JudgeRates, adjusted_count, judge_rates, paired_difference
from bundle.evaluation.probe import Probe, fit_probe
from bundle.evaluation.quality import agreement, ambiguity, cosine_similarity, kid, kid_change
from bundle.evaluation.readings import Readings
from bundle.evaluation.representation import (
    People,
    by_prompt,
    classifier_card,
    histogram,
    judge_details,
    obedience,
    representation,
)

Entry = dict[str, Any]
NUM_CLOSEST = 10
QUANTILE = 0.01  # of the hold-out's distances to training images
FEW_SUBJECTS = 20  # of a value, to learn to read it
SECOND = "second"
PACKAGES = ("torch", "monai", "open_clip_torch", "pytorch-ignite", "mlflow", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Fact:
    """Something that prompts ask for: its ``values``, the probe that reads it and how that errs, and what each of P
    prompts ``asked`` for, -1 where nothing."""

    values: tuple[str, ...]
    probe: Probe
    rates: JudgeRates
    asked: NDArray[np.int64]


@dataclass(frozen=True)
class Geometry:
    """What the readers of a phantom say on people: counts of a ``trait`` above a ``threshold`` and of lesions.

    ``lesion_prompted`` (P,) says which prompts ask for a lesion.
    """

    threshold: float
    trait: JudgeRates
    lesion: JudgeRates
    lesion_prompted: NDArray[np.bool_]


@dataclass(frozen=True)
class Prompts:
    """P texts, the stratum that each names, or "all", and their features where there is a text tower."""

    texts: Sequence[str]
    strata: Sequence[str]
    features: Texts | None = None


@dataclass(frozen=True)
class Side:
    """One set of generated images and what belongs to it: the prompt of each (N,), people's images after the round
    trips through its generator, images at other guidance scales and of prompts that state a group."""

    made: Readings
    prompt: NDArray[np.int64] | None = None
    variants: Sequence[People] = ()
    scales: Mapping[float, Readings] = field(default_factory=dict)
    stated: Mapping[str, Readings] = field(default_factory=dict)


@dataclass(frozen=True)
class Assessment:
    """What all sets of images are measured against.

    ``people`` show the judge's errors; ``real`` is the target cohort, with the prompts that describe its images where
    they are among the prompts (-1 elsewhere), ``training`` what the generator learned from;
    ``second`` is the second judge, a probe on the features of ``own_space``, as facts and memorisation are.
    """

    attribute: Attribute
    target: NDArray[np.float64]
    targets: Mapping[str, NDArray[np.float64]]
    people: People
    real: Readings
    real_prompt: NDArray[np.int64] | None = None
    margin: float = 0.05
    prompts: Prompts | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    geometry: Geometry | None = None
    training: Readings | None = None
    second: Probe | None = None
    own_space: str = "clip"
    similarity_space: str | None = None

    @property
    def rates(self) -> JudgeRates:
        return self.people.rates()

    def report(
        self, sides: Mapping[str, Side], seed: int, started: float, others: Sequence[str] = (), **more: Any
    ) -> Entry:
        """The whole report of the sides, "after" and perhaps "before"; ``others`` are reports of other seeds, and
        ``more`` goes in as it is. ``started``: when the evaluation did, by the monotonic clock."""
        entries = self._sides(sides)
        change, kid_changes = self._change(sides) if "before" in sides else (None, {})
        seconds = {**more.pop("seconds", {}), "evaluate": time.monotonic() - started}
        return report.assemble(
            attribute=self.attribute.name,
            groups=self.attribute.groups,
            target=self.target,
            prompts=[] if self.prompts is None else self.prompts.texts,
            judge=self._judge_entry(sides),
            second_judge=self._card(SECOND, f"linear probe on {self.own_space}"),
            guide=self._card("guide", "guide"),
            real=self._real_entry(),
            before=entries.get("before"),
            after=entries["after"],
            change=change,
            kid_change=kid_changes,
            seeds=report.across_reports(seed, entries["after"], others, self.attribute.groups),
            seconds=seconds,
            versions=report.package_versions(*PACKAGES),
            margin=self.margin,
            strata=self._strata(sides),
            seed=seed,
            **more,
        )

    def _sides(self, sides: Mapping[str, Side]) -> dict[str, Entry]:
        """Entries of the sets of images, all compared with real ones at the same n; the first is the reference."""
        called = {name: self._called(side.made) for name, side in sides.items()}
        sizes = common_sizes(list(called.values()), self.real, len(self.attribute.groups))
        reference = next(iter(called.values()))
        return {name: self._side(side, called[name], reference, sizes) for name, side in sides.items()}

    def _called(self, made: Readings) -> Readings:
        """With the second judge's word, and the groups that the judge calls."""
        if self.second is not None:
            word = {SECOND: self.second.predict(made.features[self.own_space])}
            made = replace(made, probabilities={**made.probabilities, **word})
        return made.of_groups(made.calls())

    def _side(self, side: Side, made: Readings, reference: Readings, sizes: tuple[int, int]) -> Entry:
        real, space = self.real, self.similarity_space
        paired = space is not None and len(made) == len(reference)
        sections = {
            **representation(made, self.people, side.variants, self.target, self.margin),
            **likeness(made, real, sizes, self.attribute.groups, "judge"),
            "clip_score": self._text_agreement(made, side.prompt),
            "prompt_rows": self._prompt_rows(side),
            "obedience": obedience(side.stated, self.people) if side.stated else None,
            "memorisation": self._memorised(made),
        }
        return report.side(
            made.probabilities["judge"],
            made.calls("guide") if "guide" in made.probabilities else None,
            self.rates,
            self.target,
            self.margin,
            true_count=self._true_count(made),
            kid={name: kid(real.features[name], rows, real.subjects) for name, rows in made.features.items()},
            clip_similarity=cosine_similarity(reference.features[space], made.features[space]) if paired else None,
            lesions=self._lesions(side),
            facts=self._facts(side.prompt, made),
            guidance=self._guidance(side.scales),
            **sections,
        )

    def _real_entry(self) -> Entry:
        """The same figures of real images; distances are those between two halves of their subjects."""
        parts, groups = halves(self.real), range(len(self.attribute.groups))
        first, second = parts.first, parts.second
        overall, each = common_sizes([], self.real, len(groups))
        by_group = {
            name: {
                "n": int((self.real.groups == g).sum()),
                "quality": compared(first[first.groups == g], second[second.groups == g], each),
                "diversity": diversity(self.real[self.real.groups == g]),
            }
            for g, name in enumerate(self.attribute.groups)
            if each
        }
        judged, features = self.real.probabilities, self.real.features
        return {
            "n": len(self.real),
            "ambiguity": ambiguity(judged["judge"]),
            "agreement": agreement(self.real.calls(), self.real.calls("guide")) if "guide" in judged else None,
            "kid": {s: kid(first.features[s], second.features[s], first.subjects, second.subjects) for s in features},
            "scores": histogram(judged["judge"][:, -1]),
            "quality": compared(first, second, overall),
            "diversity": diversity(self.real),
            "by_group": {"membership": "known", "n_each": each, "groups": by_group} if each else None,
            **self._real_texts(),
        }

    def _real_texts(self) -> Entry:
        """What is measured of generated images and their prompts, on real ones and the prompts that describe them."""
        if self.real_prompt is None or not (self.real_prompt >= 0).any():
            return {}
        described = self.real_prompt >= 0
        real, prompt = self.real[described], self.real_prompt[described]
        return {
            "clip_score": self._text_agreement(real, prompt),
            "faithfulness": {"facts": self._facts(prompt, real)},
        }

    def _judge_entry(self, sides: Mapping[str, Side]) -> Entry:
        """The judge's card with its confusion and what round trips through the generators do to it."""
        card = classifier_card("judge", self.people)
        variants = [variant for side in sides.values() for variant in side.variants]
        return {**card, **report.judge_card(self.rates, card["auc"]), **judge_details(self.people, variants)}

    def _card(self, classifier: str, name: str) -> Entry | None:
        known = classifier in self.people.readings.probabilities
        return {"name": name, **classifier_card(classifier, self.people)} if known else None

    def _change(self, sides: Mapping[str, Side]) -> tuple[AdjustedCount, Entry]:
        """Change of the proportions, and of KID by space, from one set of images to another from the same noise."""
        before, after = sides["before"].made, sides["after"].made
        real = self.real
        pairs = {s: (before.features[s], after.features[s]) for s in after.features}
        changed = {s: kid_change(real.features[s], *pair, real.subjects) for s, pair in pairs.items()}
        return paired_difference(before.calls(), after.calls(), self.rates), changed

    def _strata(self, sides: Mapping[str, Side]) -> dict[str, Entry]:
        """Shares among the images whose prompts name a stratum."""
        if self.prompts is None or any(side.prompt is None for side in sides.values()):
            return {}
        names = np.array(self.prompts.strata)
        return {
            str(name): {
                "target": dict(zip(self.attribute.groups, self.targets[name].tolist(), strict=True)),
                **{
                    key: report.share_row(s.made.calls()[names[s.prompt] == name], self.rates, self.targets[name])
                    for key, s in sides.items()
                },
            }
            for name in sorted(set(names.tolist()) - {"all"})
        }

    def share_row(self, made: Readings, **labels: Any) -> Entry:
        return report.share_row(made.calls(), self.rates, self.target, **labels)

    def _true_count(self, made: Readings) -> AdjustedCount | None:
        if self.geometry is None:
            return None
        return adjusted_count(made.read["trait"] > self.geometry.threshold, self.geometry.trait)

    def _lesions(self, side: Side) -> Mapping | None:
        if self.geometry is None:
            return None
        prompted = self.geometry.lesion_prompted[side.prompt]
        return lesion_faithfulness(side.made.read["lesion"], prompted, side.made.calls(), self.geometry.lesion)

    def _facts(self, prompt: NDArray | None, made: Readings) -> Entry:
        """Share of images that show what was asked, by fact, and by the group that the judge calls."""
        if prompt is None:
            return {}
        found = {}
        for name, fact in self.facts.items():
            called = fact.probe.predict(made.features[self.own_space]).argmax(1)
            asked = fact.asked[prompt]
            shares = {
                group: fact_share(called[made.groups == g], asked[made.groups == g], fact.rates)
                for g, group in enumerate(self.attribute.groups)
            }
            whole = fact_share(called, asked, fact.rates)
            if whole is not None:
                found[name] = _fact_entry(whole, shares, fact.rates)
        return found

    def _guidance(self, scales: Mapping[float, Readings]) -> list[Entry]:
        """Share and KID at each guidance scale; the bands cover all scales at once."""
        if not scales:
            return []
        calls, space = [made.calls() for made in scales.values()], self.own_space
        level = simultaneous_confidence(calls, self.rates)
        rows = []
        for scale, made in sorted(scales.items()):
            band = adjusted_count(made.calls(), self.rates).interval(level)
            near = kid(self.real.features[space], made.features[space], self.real.subjects)
            named = dict(zip(self.attribute.groups, band.tolist(), strict=True))
            rows.append({**self.share_row(made, scale=scale), "ci_simultaneous": named, "kid": near, "space": space})
        return rows

    def _text_agreement(self, made: Readings, prompt: NDArray | None) -> Entry | None:
        known = prompt is not None and self.prompts is not None and self.prompts.features is not None
        return agreement_with_text(made, prompt, self.prompts.features) if known else None

    def _prompt_rows(self, side: Side) -> list[Entry]:
        known = side.prompt is not None and self.prompts is not None
        return by_prompt(side.made, side.prompt, self.prompts.texts, self.people) if known else []

    def _memorised(self, made: Readings) -> Entry | None:
        """Excess of near copies of training images, group by group, the judge saying whose an image is."""
        if self.training is None:
            return None
        held, seen, space = self.people.readings, self.training, self.own_space
        rows = {
            group: GroupRows(*(np.flatnonzero(part.groups == g) for part in (seen, held, made)))
            for g, group in enumerate(self.attribute.groups)
        }
        rows = {group: own for group, own in rows.items() if len(own.generated) and len(own.training)}
        features = (part.features[space] for part in (seen, held))
        try:
            found = memorisation_by_group(*features, held.subjects, made.features[space], rows, QUANTILE)
        except InputError as error:  # found after everything else was measured: say so, and go on
            return {"space": space, "quantile": QUANTILE, "groups": {}, "pairs": [], "reason": str(error)}
        found = {group: measured for group, measured in found.items() if measured is not None}
        pairs = sorted((_pair_entry(pair, group, seen) for group, m in found.items() for pair in m.closest), key=_ratio)
        return {
            "space": space,
            "quantile": QUANTILE,
            "groups": {group: _memory_entry(measured) for group, measured in found.items()},
            "pairs": pairs[:NUM_CLOSEST],
        }


def _memory_entry(measured: Memorised) -> Entry:
    return {
        "n": measured.n,
        "training": measured.training,
        "holdout": measured.holdout,
        "share": measured.share,
        "excess": measured.excess,
        "flagged": measured.flagged,
        "threshold": measured.threshold,
    }


def _pair_entry(pair: Pair, group: str, training: Readings) -> Entry:
    return {
        "generated": pair.generated,
        "training": pair.training,
        "training_subject": str(training.subjects[pair.training]),
        "group": group,
        "distance": pair.distance,
        "threshold": pair.distance / pair.ratio,
    }


def _ratio(pair: Entry) -> float:
    return pair["distance"] / pair["threshold"]


def _fact_entry(whole: FactShare, by_group: Mapping[str, FactShare | None], rates: JudgeRates) -> Entry:
    values = len(rates.groups)
    return {
        "n": whole.n,
        "share": whole.share,
        "read": whole.read,
        # recall above chance, 0 for a reader that guesses and 1 for one that never errs; of two values Youden's index
        "judge_j": float((np.diag(rates.matrix).mean() - 1 / values) / (1 - 1 / values)),
        "by_value": {v: {"n": n, "value": e.value, "ci95": [e.low, e.high]} for v, (n, e) in whole.by_value.items()},
        "by_group": {group: share.share for group, share in by_group.items() if share is not None},
    }


def with_second_judge(people: People, space: str) -> tuple[People, Probe]:
    """Add a judge of another family, a linear probe on image features, cross-fitted on the people themselves."""
    known = people.readings
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
    rates = judge_rates(probe.own.argmax(1), labels[known], subjects, names)
    return Fact(names, probe, rates, asked_index(asked, names))
