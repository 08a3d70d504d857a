"""The evaluation of a generator, top to bottom: images before and after from the same noise, and what they show."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluating.assessment import Assessment, Geometry, Prompts, Side
from bundle.evaluating.making import Maker
from bundle.evaluating.probes import Fact, learn_fact, with_second_judge
from bundle.evaluating.unseen import Judge, require_another, require_holdout, require_unseen
from bundle.evaluating.writing import write
from bundle.evaluation.faithfulness import reader_rates
from bundle.evaluation.likeness import Texts
from bundle.evaluation.prevalence import judge_rates
from bundle.evaluation.readings import Instruments, Readings, read
from bundle.evaluation.representation import People
from bundle.generation import Draws, Sampler, draw
from bundle.images import Images
from bundle.networks.classifier import AttributeClassifier
from bundle.networks.latent import LatentAutoencoder
from bundle.prompts import neutral_caption
from bundle.weights import digest, load_weights


@dataclass(frozen=True)
class Readers:
    """Of images (N, 1, H, W) by geometry, no classifiers: ``trait`` (N,), larger in the second group, and ``lesion``
    (N,) bool."""

    trait: Callable[[np.ndarray], np.ndarray]
    lesion: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Captions:
    """What prompts say: P ``texts`` with their ``shares`` (P,), the ``strata`` that they name, and by column what each
    of them ``asks`` for, None where nothing. ``stated``: by group the contexts (P, L, C) of the same prompts with the
    group stated. ``features`` turns texts into unit features (P, d) of the own space.
    """

    texts: Sequence[str]
    shares: Tensor
    strata: Sequence[str]
    asks: Mapping[str, Sequence[str | None]]
    stated: Mapping[str, Tensor]
    features: Callable[[Sequence[str]], Tensor]


@dataclass
class Evaluation:
    """Everything that is measured, and on what.

    Args:
        base, tuned: denoisers before and after; ``snapshots`` a folder with weights of the latter along the way.
        target: proportion of each group (G,); ``targets`` stratum -> the same within it.
        validation: slices of subjects that neither guide nor judge was trained on, of known group; they go through the
            autoencoder, and the judge's and the readers' errors are measured on them.
        real: slices in the target's proportions, which images are compared with.
        training: slices that the generator learned from, for memorisation; None leaves it out.
        second_judge: of another family, trained on the same subjects as the judge; None: a linear probe on features.
        trained_on: of the ``guide`` the subjects that it was trained on, of the ``judge`` those of each of its members;
            and perhaps of the ``second_judge``; whoever would judge somebody whom he, or the guide, was trained on is
            refused.
        spaces: name -> image features; ``similarity_space`` names the one for similarity to the reference,
            ``own_space`` one that no loss of the generator saw, for the second judge, the facts and memorisation.
        num_others: images at each other guidance scale; ``num_snapshot_images`` of each snapshot; ``num_stated`` of
            each group's stated prompts; ``num_round_trip`` validation slices noised and denoised, at each of the
            ``strengths``.
        images_dir: where generated images and decoded slices are kept, named by what they depend on: evaluations can
            share it.
        readers: where there are any.
        show_closest: whether the page shows training images beside the generated ones that are nearest to them.
        other_reports: report.json of runs with other seeds.
    """

    sampler: Sampler
    base: nn.Module
    tuned: nn.Module
    guide: AttributeClassifier
    judge: Judge
    autoencoder: LatentAutoencoder
    attribute: Attribute
    target: Tensor
    targets: Mapping[str, Tensor]
    captions: Captions
    validation: Slices
    real: Slices
    trained_on: Mapping[str, Sequence]
    spaces: Mapping[str, Callable[[Tensor], Tensor]]
    output_dir: str
    images_dir: str
    seed: int
    training: Slices | None = None
    second_judge: Judge | None = None
    num_images: int = 1024
    num_others: int = 128
    num_snapshot_images: int = 128
    num_stated: int = 128
    num_round_trip: int = 256
    strengths: Sequence[float] = (0.1, 0.25)
    scales: Sequence[float] = (1.0, 4.0)
    latent_shape: Sequence[int] = (4, 16, 16)
    margin: float = 0.05
    similarity_space: str = "clip"
    own_space: str = "clip_neutral"
    snapshots: str | None = None
    readers: Readers | None = None
    show_closest: bool = True
    other_reports: Sequence[str] = field(default_factory=list)

    def run(self) -> dict:
        """Measure, write the report in all its forms to ``output_dir``, print the table, return the report."""
        started = time.monotonic()
        require_another(self.guide, self.judge)
        require_unseen(self.trained_on, self.judge, self.validation.subjects())
        if self.training is not None:
            require_holdout(self.training.subjects(), self.validation.subjects(), self.real.subjects())
        seconds = self._snapshot_seconds()
        draws = draw(self.seed, "evaluation", self.num_images, self.captions.shares, self.latent_shape)
        made = {name: self.maker.generated(denoiser, draws, name) for name, denoiser in self.denoisers.items()}
        sides = {name: self._side(images, draws, name) for name, images in made.items()}
        found = self.assessment.report(
            sides,
            self.seed,
            started,
            others=self.other_reports,
            trajectory=self._trajectory(seconds, draws),
            seconds={"align": max(seconds.values())} if seconds else {},
            weights={name: digest(network) for name, network in {**self.denoisers, "judge": self.judge}.items()},
            judge_training_known=True,
        )
        training = self.training.images if self.training and self.show_closest else None
        write(found, self.output_dir, sides, self.captions.texts, training)
        return found

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        return {"before": self.base, "after": self.tuned}

    @cached_property
    def maker(self) -> Maker:
        return Maker(self.sampler, self.autoencoder, self.images_dir, self.seed)

    @cached_property
    def instruments(self) -> Instruments:
        """All who look at the images of the two sides."""
        readers = {} if self.readers is None else {"trait": self.readers.trait, "lesion": self.readers.lesion}
        second = {} if self.second_judge is None else {"second": self.second_judge}
        return Instruments({"judge": self.judge, "guide": self.guide, **second}, self.spaces, readers)

    @cached_property
    def judging(self) -> Instruments:
        """The judge and one space, for images of which only shares and a distance are reported."""
        return Instruments({"judge": self.judge}, {self.own_space: self.spaces[self.own_space]})

    @cached_property
    def people_slices(self) -> Slices:
        """The validation slices of subjects of known group."""
        return self.validation.where(lambda row: row[self.attribute.name] in self.attribute.groups)

    @cached_property
    def assessment(self) -> Assessment:
        """What the images are measured against, as the instruments see it."""
        known = self.people_slices
        label, groups = "validation slices", self.attribute.indices(known.rows)
        seen = read(self.maker.decoded(known, label), self.instruments, known.subjects(), groups, f"reading {label}")
        plain = read(known.images, self.judging, known.subjects(), groups, f"judging plain {label}")
        people, probe = with_second_judge(People(tuple(self.attribute.groups), seen), self.own_space)
        return Assessment(
            attribute=self.attribute,
            target=self.target.numpy(),
            targets={name: shares.numpy() for name, shares in self.targets.items()},
            people=people,
            plain=People(tuple(self.attribute.groups), plain, "plain"),
            probe=probe,
            real=self._features(self.real, "real slices", list(self.spaces)),
            real_prompt=self._described(self.real),
            margin=self.margin,
            prompts=self._prompts(),
            facts=self._facts(known, people.readings),
            geometry=self._geometry(known, people.readings),
            training=self.training and self._features(self.training, "training slices", [self.own_space]),
            own_space=self.own_space,
            similarity_space=self.similarity_space,
        )

    def _features(self, slices: Slices, label: str, spaces: Sequence[str]) -> Readings:
        """Real slices as they are, in some feature spaces."""
        chosen = Instruments({}, {name: self.spaces[name] for name in spaces})
        groups = self.attribute.indices(slices.rows)
        return read(slices.images, chosen, slices.subjects(), groups, f"reading {label}")

    def _described(self, slices: Slices) -> NDArray[np.int64]:
        """Index of the prompt that describes each slice, (N,); -1 where none does."""
        place = {text: number for number, text in enumerate(self.captions.texts)}
        return np.array([place.get(neutral_caption(row), -1) for row in slices.rows])

    def _prompts(self) -> Prompts:
        features = self.captions.features(self.captions.texts).cpu().double().numpy()
        return Prompts(self.captions.texts, self.captions.strata, Texts(self.own_space, features))

    def _facts(self, known: Slices, readings: Readings) -> dict[str, Fact]:
        learnt = {
            name: learn_fact([row.get(name) for row in known.rows], readings, self.own_space, asked)
            for name, asked in self.captions.asks.items()
        }
        return {name: fact for name, fact in learnt.items() if fact is not None}

    def _geometry(self, known: Slices, readings: Readings) -> Geometry | None:
        """How the readers err on people; the trait's threshold lies midway between the groups' means."""
        if self.readers is None:
            return None
        trait, lesion, truth = readings.read["trait"], readings.read["lesion"], readings.groups
        threshold = float(np.mean([trait[truth == group].mean() for group in (0, 1)]))
        shown = np.array([row["lesion"] for row in known.rows])
        groups, subjects = self.attribute.groups, readings.subjects
        return Geometry(
            threshold,
            judge_rates(trait > threshold, truth, subjects, groups),
            reader_rates(lesion, readings.calls(), shown, truth, subjects, groups),
            np.array([asked == "True" for asked in self.captions.asks["lesion"]]),
        )

    def _side(self, images: Images, draws: Draws, name: str) -> Side:
        """One denoiser's images, and all that is made with it besides."""
        denoiser, few = self.denoisers[name], draws[: self.num_others]
        made = read(images, self.instruments, label=f"reading {name}")
        scales = {scale: self._judged(denoiser, few, name, scale) for scale in self.scales}
        stated = {
            group: self._judged(denoiser, draws[: self.num_stated], f"{name}, '{group}' stated", contexts=contexts)
            for group, contexts in self.captions.stated.items()
            if self.num_stated
        }
        if scales:
            scales[self.sampler.guidance] = made[np.arange(len(few))]
        return Side(made, draws.prompt.numpy(), self._variants(denoiser, name), scales, stated)

    def _judged(self, denoiser: nn.Module, draws: Draws, label: str, *scale: float, **other: Tensor) -> Readings:
        return read(
            self.maker.generated(denoiser, draws, label, *scale, **other), self.judging, label=f"judging {label}"
        )

    def _variants(self, denoiser: nn.Module, name: str) -> list[People]:
        """Some validation slices, one of a person, noised and denoised by this denoiser with their own captions."""
        groups, texts = self.attribute.groups, set(self.captions.texts)
        known = self.people_slices.where(lambda row: neutral_caption(row) in texts)
        chosen = known.per_subject(1).first(self.num_round_trip)
        place = {id(row): number for number, row in enumerate(self.people_slices.rows)}
        places = np.array([place[id(row)] for row in chosen.rows], dtype=int)
        if not len(chosen):
            return []
        noise = draw(self.seed, "round trip", len(chosen), self.captions.shares, self.latent_shape).noise
        draws = Draws(torch.from_numpy(self._described(chosen)), noise)
        judge, truth = Instruments({"judge": self.judge}, {}), self.attribute.indices(chosen.rows)
        found = []
        for strength in self.strengths:
            images = self.maker.renoised(denoiser, chosen, draws, strength, name)
            readings = read(images, judge, chosen.subjects(), truth, f"judging the round trip, {name}")
            found.append(People(tuple(groups), readings, "noised and denoised", strength, name, places))
        return found

    def _snapshot_seconds(self) -> dict[str, float]:
        """Seconds of training until each snapshot, by its iteration; the last one comes at the end."""
        if self.snapshots is None:
            return {}
        index = Path(self.snapshots) / "index.json"
        if not index.is_file():
            raise InputError(f"{index}: no snapshots; run the alignment first or set --snapshots '$None'")
        return json.loads(index.read_text())

    def _trajectory(self, seconds: Mapping[str, float], draws: Draws) -> list[dict]:
        """Share at each snapshot."""
        rows = []
        for iteration in sorted(seconds, key=int):
            path = Path(self.snapshots) / f"iteration_{int(iteration):04d}.pt"
            network = load_weights(copy.deepcopy(self.tuned), path)
            made = self._judged(network, draws[: self.num_snapshot_images], f"iteration {iteration}")
            rows.append(self.assessment.share_row(made, iteration=int(iteration), seconds=seconds[iteration]))
        return rows
