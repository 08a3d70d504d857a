"""From what the instruments read to the report: the same for the images of any generator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.attributes import Attribute
from bundle.evaluating.copies import copies
from bundle.evaluating.probes import SECOND, Fact
from bundle.evaluation import report
from bundle.evaluation.bands import simultaneous_confidence
from bundle.evaluation.faithfulness import lesion_faithfulness
from bundle.evaluation.likeness import (
    MOST_PAIRS,
    Texts,
    agreement_with_text,
    common_sizes,
    compared,
    diversity,
    halves,
    likeness,
)
from bundle.evaluation.prevalence import AdjustedCount, JudgeRates, adjusted_count, paired_difference
from bundle.evaluation.probe import Probe
from bundle.evaluation.quality import cosine_similarity, kid, kid_change
from bundle.evaluation.readings import Readings
from bundle.evaluation.representation import (
    People,
    by_prompt,
    classifier_card,
    in_proportion,
    judge_details,
    obedience,
    representation,
)

Entry = dict[str, Any]
PACKAGES = ("torch", "monai", "open_clip_torch", "pytorch-ignite", "mlflow", "numpy", "scipy", "scikit-learn")


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

    ``people`` show the judge's errors, ``plain`` are their images without the autoencoder. ``real`` is the target
    cohort, of which only features are needed, with the prompts that describe its images where they are among the
    prompts (-1 elsewhere); ``training`` what the generator learned from. ``probe`` is the second judge where no network
    is; like facts and memorisation it goes by the features of ``own_space``.
    """

    attribute: Attribute
    target: NDArray[np.float64]
    targets: Mapping[str, NDArray[np.float64]]
    people: People
    real: Readings
    plain: People | None = None
    real_prompt: NDArray[np.int64] | None = None
    margin: float = 0.05
    prompts: Prompts | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    geometry: Geometry | None = None
    training: Readings | None = None
    probe: Probe | None = None
    own_space: str = "clip"
    similarity_space: str | None = None

    @property
    def rates(self) -> JudgeRates:
        return self.people.rates()

    def report(
        self, sides: Mapping[str, Side], seed: int, started: float, others: Sequence[str] = (), **more: Any
    ) -> Entry:
        """The whole report of the sides, "after" and perhaps "before", the reference, all compared at the same n.

        ``started``: when the evaluation did, by the monotonic clock. ``others`` are reports of other seeds; ``more``
        goes in as it is.
        """
        called = {name: self._called(side.made) for name, side in sides.items()}
        sizes = common_sizes(list(called.values()), self.real, len(self.attribute.groups))
        reference = next(iter(called.values()))
        entries = {name: self._side(side, called[name], reference, sizes) for name, side in sides.items()}
        change, kid_changes = self._change(sides) if "before" in sides else (None, {})
        seconds = {**more.pop("seconds", {}), "evaluate": time.monotonic() - started}
        return report.assemble(
            attribute=self.attribute.name,
            groups=self.attribute.groups,
            target=self.target,
            prompts=[] if self.prompts is None else self.prompts.texts,
            judge=self._judge_entry(sides),
            second_judge=self._card(SECOND, "network" if self.probe is None else f"linear probe on {self.own_space}"),
            guide=self._card("guide", "guide"),
            real=self._real_entry(sizes),
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
            how={"notes": _notes(*sizes)},
            **more,
        )

    def _called(self, made: Readings) -> Readings:
        """With the second judge's word, and the groups that the judge calls."""
        if self.probe is not None:
            word = {SECOND: self.probe.predict(made.features[self.own_space])}
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
            "memorisation": self._copies(made),
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

    def _real_entry(self, sizes: tuple[int, int]) -> Entry:
        """The same figures of real images; distances are those between two halves of their subjects."""
        parts = halves(self.real)
        first, second = parts.first, parts.second
        overall, each = sizes
        by_group = {
            name: {
                "n": int((self.real.groups == g).sum()),
                "quality": compared(second[second.groups == g], first[first.groups == g], each),
                "diversity": diversity(self.real[self.real.groups == g]),
            }
            for g, name in enumerate(self.attribute.groups)
            if each
        }
        features = self.real.features
        described = self.real_prompt is not None and (self.real_prompt >= 0).any()
        text = self.real_prompt >= 0 if described else None
        return {
            "n": len(self.real),
            "judged": len(self.people.readings),
            **in_proportion(self.people, self.target),
            "kid": {s: kid(first.features[s], second.features[s], first.subjects, second.subjects) for s in features},
            "quality": compared(second, first, overall),
            "diversity": diversity(self.real),
            "by_group": {"membership": "known", "n_each": each, "groups": by_group} if each else None,
            "clip_score": self._text_agreement(self.real[text], self.real_prompt[text]) if described else None,
        }

    def _judge_entry(self, sides: Mapping[str, Side]) -> Entry:
        """The judge's card with its confusion and what round trips through the generators do to it."""
        card = classifier_card("judge", self.people)
        variants = [variant for side in sides.values() for variant in side.variants]
        variants = variants if self.plain is None else [self.plain, *variants]
        rates = report.judge_card(self.rates, card["auc"])
        return {**card, **rates, **judge_details(self.people, variants)}

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
        """Shares among the images whose prompts name a stratum, of those that were drawn at all."""
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
            if all((names[side.prompt] == name).any() for side in sides.values())
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
        if prompt is None:
            return {}
        features, groups = made.features[self.own_space], (made.groups, self.attribute.groups)
        found = {name: fact.shares(features, prompt, *groups) for name, fact in self.facts.items()}
        return {name: entry for name, entry in found.items() if entry is not None}

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

    def _copies(self, made: Readings) -> Entry | None:
        if self.training is None:
            return None
        return copies(made, self.training, self.people.readings, self.attribute.groups, self.own_space)

    def _text_agreement(self, made: Readings, prompt: NDArray | None) -> Entry | None:
        known = prompt is not None and self.prompts is not None and self.prompts.features is not None
        return agreement_with_text(made, prompt, self.prompts.features) if known else None

    def _prompt_rows(self, side: Side) -> list[Entry]:
        known = side.prompt is not None and self.prompts is not None
        return by_prompt(side.made, side.prompt, self.prompts.texts, self.people) if known else []


def _notes(overall: int, each: int) -> list[str]:
    """What a reader must know of how the figures were made."""
    drawn = f"compares {overall} images of every set" if overall else "was not measured: too few images or people"
    groups = f"{each} of every group" if each else "nothing by group: too few images or people of one"
    return [
        f"Quality {drawn}; {groups}. The real ones are of one half of the cohort's people, with whom the other half is "
        "compared too. The change of KID uses all images.",
        f"MS-SSIM is the mean over at most {MOST_PAIRS} disjoint pairs, not over all pairs.",
        "Images were read in batches and not kept; kernels and distances were summed in blocks.",
    ]
