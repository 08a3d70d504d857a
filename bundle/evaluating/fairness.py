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
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
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
from bundle.evaluating.fairness_files import draw_samples, fairness_table, to_csv
from bundle.evaluating.making import Maker
from bundle.evaluation.estimate import Estimate, jackknife_variance, symmetric
from bundle.evaluation.likeness import FEWEST, between_groups, common_sizes, halves, likeness
from bundle.evaluation.quality import kid, kid_change
from bundle.evaluation.readings import Instruments, Readings, read
from bundle.evaluation.report import package_versions, write_json
from bundle.evaluation.semantic import Correlation, Gap, paired_change, semantic_correlation
from bundle.files import write_whole
from bundle.generation import Draws, Sampler, draw
from bundle.images import ByteImages, Images
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
        fit: trains a classifier of the finding, (images=(N, C, H, W) uint8, labels=(N,), device=..., label=...) ->
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
        quality = {attribute.name: self._quality(attribute, seen) for attribute in self.attributes}
        clock.lap("quality")
        self.kept["losses"] = self.probe.losses(self.denoiser).double().mean(1).numpy()
        clock.lap("probe")
        self._score(images)
        clock.lap("classifiers")
        attributes = {a.name: self._attribute(a, *quality[a.name]) for a in self.attributes}
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
            "subjects": np.array(self.asked.subjects()),
            "prompts": np.array(self.captions.first),
            "real": np.array(self.real.fingerprint()),
            "reference": np.array(self.reference),
            "real_training": np.array(self.real_training.fingerprint()),
            "classifier": np.array(_described(self.fit)),
            "finding": np.array(repr(self.finding)),
            "groups": np.array(repr(self.attributes)),
            "autoencoder": np.array(digest(self.autoencoder)),
            "timesteps": self.probe.timesteps.numpy(),
            "spaces": np.array([f"{name} {_described(space)}" for name, space in self.spaces.items()]),
        }

    @cached_property
    def kept(self) -> dict[str, NDArray]:
        """What a later evaluation compares itself with; filled as it is measured."""
        return dict(self.same)

    @cached_property
    def earlier(self) -> dict[str, NDArray] | None:
        """What the evaluation that this one is compared with has kept."""
        if self.compared_with is None:
            return None
        path = Path(self.compared_with) / "scores.npz"
        if not path.is_file():
            raise InputError(f"{path}: no such file; give the folder of a finished evaluation as compared_with")
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        for name, value in self.same.items():
            if name not in found or not np.array_equal(found[name], value):
                raise InputError(f"{path}: another '{name}' than here; evaluate both models with the same options")
        return found

    @cached_property
    def maker(self) -> Maker:
        return Maker(self.sampler, self.autoencoder, self.images_dir, self.seed)

    def _generated(self) -> Images:
        noise = draw(self.seed, "fairness", len(self.asked), torch.ones(1), self.latent_shape).noise
        return self.maker.generated(self.denoiser, Draws(self.captions.index[:, 0], noise), "stated prompts")

    def _look(self, images: Images) -> _Seen:
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
            real = read(ByteImages(self.real.images), instruments, subjects, label="reading real slices")
        return _Seen(made, real, halves(decoded).second)

    def _quality(self, attribute: Attribute, seen: _Seen) -> tuple[Entry, Entry | None]:
        """Quality of generated images and of the ceiling, all at one number of images; and the change of KID."""
        made = seen.made.of_groups(attribute.indices(self.asked.rows))
        known = attribute.indices(self.real.rows)
        real = seen.real.of_groups(known)
        ceiling = seen.ceiling.of_groups(known[np.isin(seen.real.subjects, seen.ceiling.subjects)])
        sizes = common_sizes([made, ceiling], real, len(attribute.groups))
        sides = {"generated": made, "ceiling": ceiling}
        found = {name: likeness(side, real, sizes, attribute.groups, "prompt") for name, side in sides.items()}
        changed = None if self.earlier is None else self._kid_change(attribute, made, halves(real).first)
        return found, changed

    def _kid_change(self, attribute: Attribute, made: Readings, real: Readings) -> Entry:
        """Change of KID from the earlier evaluation, in all and by group, and of the difference between groups."""
        found = {}
        for space in made.features:
            x, before, after = real.features[space], self.earlier[f"features_{space}"], made.features[space]
            groups, earlier = {}, []
            for g, name in enumerate(attribute.groups):
                own, other = real.groups == g, made.groups == g
                groups[name] = kid_change(x[own], before[other], after[other], real.subjects[own])
                earlier.append(kid(x[own], before[other], real.subjects[own]).value)
            overall = kid_change(x, before, after, real.subjects)
            apart = between_groups(list(groups.values()), earlier)
            found[space] = {"overall": overall, "groups": groups, "difference": apart}
        return found

    def _score(self, images: Images) -> None:
        """Probabilities of the finding on real slices and on generated images, by two classifiers."""
        pixels = torch.cat([(images[part] * 255).round().to(torch.uint8) for part in _parts(len(images))])
        learned, known = (
            self._learn("generated images", pixels, self.asked),
            self._learn("real slices", self.real_training.images, self.real_training),
        )
        real = ByteImages(self.real.images)
        self.kept["generated_to_real"] = _probabilities(learned, real, self._device)
        self.kept["real_to_generated"] = _probabilities(known, images, self._device)
        decoded = self.maker.decoded(self.asked, "the prompts' slices")
        self.kept["real_to_decoded"] = _probabilities(known, decoded, self._device)
        self.kept["real_to_real"] = _probabilities(known, real, self._device)

    def _learn(self, what: str, pixels: Tensor, slices: Slices) -> nn.Module:
        """A classifier of the finding of ``slices``, from images (N, C, H, W) uint8 that show it."""
        labels, label = self.finding.labels(slices.rows), f"learning from {what}"
        return self.fit(images=pixels, labels=labels, device=self._device, label=label)

    @cached_property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def _attribute(self, attribute: Attribute, quality: Entry, kid_changed: Entry | None) -> Entry:
        """All that is said of one attribute."""
        groups, tests = attribute.indices(self.asked.rows), self._tests(attribute)
        measured = {
            name: semantic_correlation(self.kept[name][kept], *truth, attribute.groups)
            for name, (kept, *truth) in tests.items()
        }
        return {
            "groups": list(attribute.groups),
            **quality,
            "denoising_loss": _losses(self.kept["losses"], groups, self.kept["subjects"], attribute.groups),
            "semantic": {name: _correlation_entry(found) for name, found in measured.items()},
            "change": None if self.earlier is None else self._change(attribute, kid_changed, tests),
        }

    def _tests(self, attribute: Attribute) -> dict[str, tuple]:
        """By direction which images are tested, and of these label, group and subject."""
        people = np.array(self.real.subjects())
        real = self._truth(self.real, people, attribute)
        made = self._truth(self.asked, np.arange(len(self.asked)), attribute)
        decoded = self._truth(self.asked, np.array(self.asked.subjects()), attribute)
        return {"generated_to_real": real, "real_to_real": real, "real_to_generated": made, "real_to_decoded": decoded}

    def _truth(self, slices: Slices, subjects: NDArray, attribute: Attribute) -> tuple:
        labels = self.finding.labels(slices.rows)
        kept = labels >= 0
        return kept, labels[kept], attribute.indices(slices.rows)[kept], subjects[kept]

    def _change(self, attribute: Attribute, kid: Entry, tests: Mapping[str, tuple]) -> Entry:
        """From the earlier evaluation to this one, image by image."""
        semantic = {}
        for name in ("generated_to_real", "real_to_generated"):
            kept, *truth = tests[name]
            semantic[name] = paired_change(self.earlier[name][kept], self.kept[name][kept], *truth, attribute.groups)
        groups, before = attribute.indices(self.asked.rows), self.earlier["losses"]
        losses = _losses(self.kept["losses"] - before, groups, self.kept["subjects"], attribute.groups, before)
        return {
            "compared_with": str(self.compared_with),
            "kid": kid,
            "denoising_loss": losses,
            "semantic": semantic,
        }

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
        write_whole(folder / "scores.npz", stream.getvalue())
        draw_samples(self.attributes[0], self.asked, images, folder / "samples.png", self.show_real)
        print(f"\n{text}\n")
        return plain


@dataclass(frozen=True, eq=False)
class _Seen:
    """Readings of generated images, of the real slices that they are compared with, and of the second half of the real
    people's slices through the autoencoder."""

    made: Readings
    real: Readings
    ceiling: Readings


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


def _losses(
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


def _correlation_entry(found: Correlation) -> Entry:
    entry = {item.name: getattr(found, item.name) for item in fields(found)}
    return entry | {name: asdict(value) for name, value in entry.items() if isinstance(value, Gap)}


def _described(work: Callable) -> str:
    """What a callable of a config does, in words: functions by name and options, methods of networks by the weights."""
    if isinstance(work, partial):
        options = {name: _described(v) if callable(v) else v for name, v in work.keywords.items()}
        return f"{work.func.__name__} {dict(sorted(options.items()))}"
    owner = getattr(work, "__self__", None)
    return f"{work.__name__} {digest(owner)}" if isinstance(owner, nn.Module) else getattr(work, "__name__", repr(work))


@torch.no_grad()
def _probabilities(network: nn.Module, images: Images, device: torch.device) -> NDArray[np.float64]:
    """Of the finding (N,)."""
    found = [network(images[part].to(device)).double().softmax(1)[:, 1].cpu() for part in _parts(len(images))]
    return torch.cat(found).numpy()


def _parts(number: int) -> Sequence[Tensor]:
    return torch.arange(number).split(BATCH_SIZE)
