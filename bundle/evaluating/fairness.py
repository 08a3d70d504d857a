"""Equal quality: a model is asked, by prompts that state who a person is, for people of every group. Are the images of
all groups equally like real ones, and do they mean equally well what the prompt says?

The group of a generated image is what its prompt states. Prompts and noise depend on the seed and the validation people
alone, so that two models are compared image by image.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.attributes import Attribute
from bundle.cohorts.record import require_disjoint
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluating.asked import Finding
from bundle.evaluating.by_group import Seen, Truth, denoising, meaning, meaning_change, quality, quality_change
from bundle.evaluating.fairness_files import draw_samples, fairness_table, to_csv
from bundle.evaluating.making import Maker
from bundle.evaluating.pairing import SCORES, described, digest_of, read_earlier
from bundle.evaluation.likeness import FEWEST, halves
from bundle.evaluation.readings import Instruments, read
from bundle.evaluation.report import package_versions, write_json
from bundle.files import write_whole
from bundle.generation import Draws, Sampler, draw
from bundle.images import Images
from bundle.networks.latent import LatentAutoencoder
from bundle.weights import digest

if TYPE_CHECKING:
    from bundle.training.captions import Captions

Entry = dict[str, Any]
SCHEMA_VERSION = "1"
BATCH_SIZE = 64
REFERENCES = ("decoded", "plain")


class Probe(Protocol):
    """Fixed noisy latents: the denoising loss of each of N, at each of K ``timesteps``, (N, K)."""

    timesteps: Tensor

    def losses(self, denoiser: nn.Module) -> Tensor: ...


@dataclass
class FairnessEvaluation:
    """Everything that is measured, and on what.

    Args:
        asked: from `choose_asked`; one image is made for each, with the same finding.
        captions: of ``asked``, in one wording, which states the attributes; the sampler's contexts are of its texts.
        real: validation slices, which images are compared with and classifiers tested on.
        real_training: slices of other subjects, on which the real classifier learns.
        spaces: name -> image features.
        probe: of the latents and contexts of ``asked``.
        fit: trains a classifier of the finding, (images=Images, labels=(N,), device=..., label=...) ->
            network, images (B, C, H, W) in [0, 1] to logits (B, 2).
        images_dir: where generated images are kept, named by what they depend on: evaluations can share it.
        reference: "decoded" compares images with real slices that went through the autoencoder, "plain" with the slices
            as they are: then what the autoencoder loses counts too, in the ceiling as well.
        show_real: whether samples.png shows real slices below the generated images.
        compared_with: folder of another model's evaluation, of the same people, prompts and seed.
    """

    denoiser: nn.Module
    sampler: Sampler
    attributes: Sequence[Attribute]
    asked: Slices
    captions: Captions
    real: Slices
    real_training: Slices
    finding: Finding
    autoencoder: LatentAutoencoder
    spaces: Mapping[str, Callable[[Tensor], Tensor]]
    probe: Probe
    fit: Callable[..., nn.Module]
    output_dir: str
    images_dir: str
    seed: int
    latent_shape: Sequence[int] = (4, 16, 16)
    reference: str = "decoded"
    show_real: bool = True
    compared_with: str | None = None

    def run(self) -> Entry:
        """Measure, write ``fairness.{json,csv,txt}``, ``samples.png`` and ``scores.npz`` to ``output_dir``, print the
        table, return the report."""
        self.check()
        clock = _Clock()
        images = self._generated()
        clock.lap("generate")
        seen = self._look(images)
        clock.lap("look")
        self.kept["losses"] = self.probe.losses(self.denoiser).double().mean(1).numpy()
        clock.lap("probe")
        self._score(images)
        clock.lap("classifiers")
        attributes = {attribute.name: self._attribute(attribute, seen) for attribute in self.attributes}
        clock.lap("statistics")
        return self._write({**self._head(), "attributes": attributes, "seconds": clock.seconds}, images)

    def check(self) -> None:
        """Raise InputError for whatever can be found wrong before any compute."""
        if self.reference not in REFERENCES:
            raise InputError(f"reference '{self.reference}': give {' or '.join(REFERENCES)}")
        require_disjoint(real_training=self.real_training.subjects(), validation=self.real.subjects())
        for name, slices in (("prompts", self.asked), ("validation", self.real), ("real_training", self.real_training)):
            _check_finding(self.finding, name, slices)
        for attribute in self.attributes:
            _check_people(attribute, self.real)
            _check_stated(attribute, self.asked, self.captions.first)
        if not torch.equal(self.captions.index[:, 0], self.captions.index[:, -1]):
            raise ValueError("captions: several wordings; give the stated one alone")
        _ = self.earlier

    @cached_property
    def same(self) -> dict[str, NDArray]:
        """What must be the same in two evaluations for their images to pair up."""
        return {
            "seed": np.array(self.seed),
            "subjects": np.array(digest_of(self.asked.subjects())),
            "prompts": np.array(digest_of(self.captions.first)),
            "real": np.array(self.real.fingerprint()),
            "reference": np.array(self.reference),
            "real_training": np.array(self.real_training.fingerprint()),
            "classifier": np.array(described(self.fit)),
            "finding": np.array(repr(self.finding)),
            "groups": np.array(repr(self.attributes)),
            "autoencoder": np.array(digest(self.autoencoder)),
            "timesteps": self.probe.timesteps.numpy(),
            "spaces": np.array([f"{name} {described(space)}" for name, space in self.spaces.items()]),
        }

    @cached_property
    def kept(self) -> dict[str, NDArray]:
        """What a later evaluation compares itself with; filled as it is measured."""
        return dict(self.same)

    @cached_property
    def earlier(self) -> dict[str, NDArray] | None:
        """What the evaluation that this one is compared with has kept."""
        return None if self.compared_with is None else read_earlier(self.compared_with, self.same)

    @cached_property
    def maker(self) -> Maker:
        return Maker(self.sampler, self.autoencoder, self.images_dir, self.seed)

    def _generated(self) -> Images:
        noise = draw(self.seed, "fairness", len(self.asked), torch.ones(1), self.latent_shape).noise
        return self.maker.generated(self.denoiser, Draws(self.captions.index[:, 0], noise), "stated prompts")

    def _look(self, images: Images) -> Seen:
        """Show generated images, the real ones that they are compared with, and half of the real people's slices
        decoded to the encoders of all spaces."""
        instruments = Instruments({}, self.spaces)
        made = read(images, instruments, label="reading generated images")
        self.kept.update({f"features_{space}": features for space, features in made.features.items()})
        stored, subjects = self.maker.decoded(self.real, "validation slices"), self.real.subjects()
        decoded = read(stored, instruments, subjects, label="reading decoded slices")
        if self.reference == "decoded":
            real = decoded
        else:
            real = read(self.real.images, instruments, subjects, label="reading real slices")
        return Seen(made, real, halves(decoded).second)

    def _score(self, images: Images) -> None:
        """Probabilities of the finding on real slices and on generated images, by two classifiers."""
        learned, known = (
            self._learn("generated images", images, self.asked),
            self._learn("real slices", self.real_training.images, self.real_training),
        )
        real = self.real.images
        self.kept["generated_to_real"] = _probabilities(learned, real, self._device)
        self.kept["real_to_generated"] = _probabilities(known, images, self._device)
        decoded = self.maker.decoded(self.asked, "the prompts' slices")
        self.kept["real_to_decoded"] = _probabilities(known, decoded, self._device)
        self.kept["real_to_real"] = _probabilities(known, real, self._device)

    def _learn(self, what: str, images: Images, slices: Slices) -> nn.Module:
        """A classifier of the finding of ``slices``, from images that show it."""
        labels, label = self.finding.labels(slices.rows), f"learning from {what}"
        return self.fit(images=images, labels=labels, device=self._device, label=label)

    @cached_property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def _attribute(self, attribute: Attribute, seen: Seen) -> Entry:
        """All that is said of one attribute."""
        names, asked = attribute.groups, attribute.indices(self.asked.rows)
        seen, truths = seen.of_groups(asked, attribute.indices(self.real.rows)), self._truths(attribute)
        losses, subjects = self.kept["losses"], np.array(self.asked.subjects())
        entry = {
            "groups": list(names),
            **quality(seen, names),
            "denoising_loss": denoising(losses, asked, subjects, names),
            "semantic": meaning(self.kept, truths, names),
        }
        if self.earlier is None:
            return entry | {"change": None}
        before = self.earlier["losses"]
        return entry | {
            "change": {
                "compared_with": str(self.compared_with),
                "kid": quality_change(seen, self.earlier, names),
                "denoising_loss": denoising(losses - before, asked, subjects, names, before),
                "semantic": meaning_change(self.earlier, self.kept, truths, names),
            }
        }

    def _truths(self, attribute: Attribute) -> dict[str, Truth]:
        """By direction what is true of the tested images; a generated image is a subject of its own."""
        real = self._truth(attribute, self.real, self.real.subjects())
        made = self._truth(attribute, self.asked, range(len(self.asked)))
        decoded = self._truth(attribute, self.asked, self.asked.subjects())
        return {"generated_to_real": real, "real_to_real": real, "real_to_generated": made, "real_to_decoded": decoded}

    def _truth(self, attribute: Attribute, slices: Slices, subjects: Sequence) -> Truth:
        labels = self.finding.labels(slices.rows)
        kept = labels >= 0
        return Truth(kept, labels[kept], attribute.indices(slices.rows)[kept], np.array(subjects)[kept])

    def _head(self) -> Entry:
        finding, counts = self.finding, {}
        for attribute in self.attributes:
            index = attribute.indices(self.asked.rows)
            counts[attribute.name] = {name: int((index == g).sum()) for g, name in enumerate(attribute.groups)}
        return {
            "schema_version": SCHEMA_VERSION,
            "seed": self.seed,
            "weights": digest(self.denoiser),
            "n": len(self.asked),
            "reference": self.reference,
            "n_each": counts,
            "finding": {"column": finding.column, "values": list(finding.values), "only": dict(finding.only)},
            "versions": package_versions("monai", "torch", "numpy", "scikit-learn", "fairlearn"),
        }

    def _write(self, report: Entry, images: Images) -> Entry:
        """Write everything and return the report as it stands in the file."""
        folder = Path(self.output_dir)
        plain = json.loads(write_json(report, folder / "fairness.json").read_text())
        text = fairness_table(plain)
        write_whole(folder / "fairness.csv", to_csv(plain).encode())
        write_whole(folder / "fairness.txt", (text + "\n").encode())
        stream = io.BytesIO()
        np.savez_compressed(stream, **self.kept)
        write_whole(folder / SCORES, stream.getvalue())
        draw_samples(self.attributes[0], self.asked, images, folder / "samples.png", self.show_real)
        print(f"\n{text}\n")
        return plain


class _Clock:
    """Seconds of each part of a job, and of all of it."""

    def __init__(self):
        self.started = self.last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds |= {name: round(now - self.last, 2), "total": round(now - self.started, 2)}
        self.last = now


def _check_finding(finding: Finding, name: str, slices: Slices) -> None:
    counts = np.bincount(finding.labels(slices.rows) + 1, minlength=3)[1:].tolist()
    if min(counts) < FEWEST:
        both = " and ".join(f"{count} of '{value}'" for count, value in zip(counts, finding.values))
        raise InputError(
            f"finding '{finding.column}': {both} among the slices of {name}, at least {FEWEST} of each are needed; "
            "name another column or its values, or give more slices"
        )


def _check_people(attribute: Attribute, real: Slices) -> None:
    """Half of a group's people are compared with the other half."""
    subjects, index = np.array(real.subjects()), attribute.indices(real.rows)
    for group, name in enumerate(attribute.groups):
        people = len(np.unique(subjects[index == group]))
        if people < 2 * FEWEST:
            raise InputError(
                f"{attribute.name}: {people} of the validation subjects are '{name}', at least {2 * FEWEST} are "
                "needed; leave the group out or give a larger cohort"
            )


def _check_stated(attribute: Attribute, asked: Slices, prompts: Sequence[str]) -> None:
    """A generated image is of the group that its prompt states: no prompt may serve two."""
    groups: dict[str, str] = {}
    for index, prompt in zip(attribute.indices(asked.rows), prompts, strict=True):
        if index < 0:
            continue
        group = attribute.groups[index]
        if groups.setdefault(prompt, group) != group:
            raise InputError(
                f"{attribute.name}: the prompt '{prompt}' is used for '{groups[prompt]}' and for '{group}'; state the "
                "group in the captions (prepare_cohort, the column stated), or leave the attribute out"
            )


@torch.no_grad()
def _probabilities(network: nn.Module, images: Images, device: torch.device) -> NDArray[np.float64]:
    """Of the finding (N,)."""
    found = [network(images[part].to(device)).double().softmax(1)[:, 1].cpu() for part in _parts(len(images))]
    return torch.cat(found).numpy()


def _parts(number: int) -> Sequence[Tensor]:
    return torch.arange(number).split(BATCH_SIZE)
