"""The evaluation job, top to bottom: images before and after from the same noise, and what can be said of them."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bundle.attributes import Attribute
from bundle.cohorts.record import require_disjoint
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluation import report
from bundle.evaluation.faithfulness import lesion_faithfulness, reader_rates
from bundle.evaluation.grid import sample_grid
from bundle.evaluation.prevalence import AdjustedCount, JudgeRates, adjusted_count, judge_rates, paired_difference
from bundle.evaluation.quality import agreement, ambiguity, cosine_similarity, kid, kid_change
from bundle.evaluation.table import table
from bundle.files import read_tensors, write_tensors, write_whole
from bundle.generation import Draws, Sampler, draw
from bundle.networks.classifier import AttributeClassifier
from bundle.networks.cross_fitted import CrossFittedJudge
from bundle.networks.latent import LatentAutoencoder
from bundle.weights import digest, load_weights

NUM_PAIRS = 16  # in the picture
CHOSEN = "up to half of the pairs chosen because it does"
PACKAGES = ("torch", "monai", "open_clip_torch", "pytorch-ignite", "mlflow", "numpy")


@dataclass(frozen=True)
class Readers:
    """Of images (N, 1, H, W) by geometry, no classifiers: ``trait`` (N,), larger in the second group, and ``lesion``
    (N,) bool."""

    trait: Callable[[np.ndarray], np.ndarray]
    lesion: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Errors:
    """How judge and readers err on decoded validation slices; ``threshold`` divides the trait between the groups."""

    judge: JudgeRates
    auc: float | None
    lesion: JudgeRates | None = None
    trait: JudgeRates | None = None
    threshold: float | None = None


@dataclass
class Evaluation:
    """Everything that is measured, and on what.

    Args:
        base, tuned: denoisers before and after; ``snapshots`` a folder with weights of the latter along the way.
        target: proportion of each group (G,); ``targets`` stratum -> the same within it.
        prompts: P texts with their ``prompt_shares`` (P,), whether each asks for a lesion, ``prompt_lesion`` (P,), and
            the stratum that it names or "all", ``prompt_strata`` (P,).
        validation: slices of subjects that neither guide nor judge was trained on, of known group; they go through the
            autoencoder, and the judge's and the readers' errors are measured on them.
        real: slices in the target's proportions for KID, ambiguity and agreement.
        trained_on: of the ``guide`` the subjects that it was trained on, of the ``judge`` those of each of its members;
            a member that would judge somebody whom it or the guide was trained on is refused.
        spaces: name -> image features of length 1 for KID; ``similarity_space`` names the one for similarity to the
            reference.
        num_others: images at each other guidance scale; ``num_snapshot_images`` of each snapshot.
        images_dir: where generated images and decoded slices are kept, named by what they depend on: evaluations can
            share it.
        readers: where there are any.
    """

    sampler: Sampler
    base: nn.Module
    tuned: nn.Module
    guide: AttributeClassifier
    judge: AttributeClassifier | CrossFittedJudge
    autoencoder: LatentAutoencoder
    attribute: Attribute
    target: Tensor
    targets: Mapping[str, Tensor]
    prompts: Sequence[str]
    prompt_shares: Tensor
    prompt_lesion: Sequence[bool]
    prompt_strata: Sequence[str]
    validation: Slices
    real: Slices
    trained_on: Mapping[str, Sequence]
    spaces: Mapping[str, Callable[[Tensor], Tensor]]
    output_dir: str
    images_dir: str
    seed: int
    num_images: int = 1024
    num_others: int = 128
    num_snapshot_images: int = 128
    scales: Sequence[float] = (1.0, 4.0)
    latent_shape: Sequence[int] = (4, 16, 16)
    margin: float = 0.05
    similarity_space: str = "clip"
    snapshots: str | None = None
    readers: Readers | None = None

    def run(self) -> dict:
        """Measure, write ``report.json`` and ``samples.png`` to ``output_dir``, print the table, return the report."""
        started = time.monotonic()
        require_unseen(self.trained_on, self.judge, self.validation.subjects())
        seconds = self._snapshot_seconds()
        draws = draw(self.seed, "evaluation", self.num_images, self.prompt_shares, self.latent_shape)
        errors = self._errors()
        denoisers = {"before": self.base, "after": self.tuned}
        images = {name: self._generate(denoiser, draws, name) for name, denoiser in denoisers.items()}
        judged = {name: self.judge.predict(made).numpy() for name, made in images.items()}
        features = {name: self._features(made) for name, made in images.items()}
        real_features, subjects = self._features(self.real.pixels()), self.real.subjects()
        sides = {
            name: report.side(
                judged[name],
                self.guide.predict(made).argmax(1).numpy(),
                errors.judge,
                self.target.numpy(),
                self.margin,
                true_count=self._true_count(made, errors),
                kid={space: kid(real_features[space], f, subjects) for space, f in features[name].items()},
                clip_similarity=cosine_similarity(*(features[n][self.similarity_space] for n in ("before", name))),
                faithfulness=self._faithfulness(made, draws, judged[name], errors),
                guidance=self._guidance(denoisers[name], draws, errors, name),
            )
            for name, made in images.items()
        }
        pairs = {space: (features["before"][space], features["after"][space]) for space in self.spaces}
        trajectory = self._trajectory(seconds, draws, errors)
        calls = {name: probabilities.argmax(1) for name, probabilities in judged.items()}
        made = report.assemble(
            attribute=self.attribute.name,
            groups=self.attribute.groups,
            target=self.target.numpy(),
            prompts=self.prompts,
            judge=report.judge_card(errors.judge, errors.auc),
            real=self._real(real_features),
            **sides,
            change=paired_difference(calls["before"], calls["after"], errors.judge),
            kid_change={space: kid_change(real_features[space], *pair, subjects) for space, pair in pairs.items()},
            trajectory=trajectory,
            seconds={"align": max(seconds.values(), default=None), "evaluate": time.monotonic() - started},
            versions=report.package_versions(*PACKAGES),
            margin=self.margin,
            strata=self._strata(calls, draws, errors),
            seed=self.seed,
            weights={"before": digest(self.base), "after": digest(self.tuned)},
        )
        self._write(made, images, judged, draws)
        return made

    def _errors(self) -> Errors:
        known = self.validation.where(lambda row: row[self.attribute.name] in self.attribute.groups)
        truth, subjects, groups = self.attribute.indices(known.rows), known.subjects(), self.attribute.groups
        decoded = self._decoded(known)
        probabilities = self.judge.predict(decoded, subjects).numpy()
        calls = probabilities.argmax(1)
        rates = judge_rates(calls, truth, subjects, groups)
        auc = float(roc_auc_score(truth, probabilities[:, 1])) if len(groups) == 2 else None
        if self.readers is None:
            return Errors(rates, auc)
        trait = self.readers.trait(decoded.numpy())
        threshold = float(np.mean([trait[truth == group].mean() for group in (0, 1)]))
        lesion = np.array([row["lesion"] for row in known.rows])
        read = self.readers.lesion(decoded.numpy())
        return Errors(
            rates,
            auc,
            reader_rates(read, calls, lesion, truth, subjects, groups),
            judge_rates(trait > threshold, truth, subjects, groups),
            threshold,
        )

    def _generate(self, denoiser: nn.Module, draws: Draws, label: str, scale: float | None = None) -> Tensor:
        """Images of these draws, kept in ``images_dir`` so that a stopped evaluation goes on."""
        scale = self.sampler.guidance if scale is None else scale
        key = hashlib.sha256(f"{digest(denoiser)} {self.seed} {len(draws)} {scale}".encode())
        key.update(self.sampler.contexts.cpu().numpy().tobytes() + digest(self.autoencoder).encode())
        key.update(self.sampler.schedule.signal.numpy().tobytes() + draws.prompt.numpy().tobytes())
        label = f"{label}, guidance {scale:g}"
        return self._kept(key.hexdigest(), lambda: self.sampler.images(denoiser, draws, scale, label=label))

    def _decoded(self, slices: Slices) -> Tensor:
        """Slices through the autoencoder, kept like the generated images."""
        key = hashlib.sha256(f"{slices.fingerprint()} {digest(self.autoencoder)}".encode())
        return self._kept(key.hexdigest(), lambda: self.autoencoder.reconstruct(slices.pixels()))

    def _kept(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        path = Path(self.images_dir) / f"{key[:16]}.pt"
        if not path.is_file():
            write_tensors((make() * 255).round().to(torch.uint8), path)
        return read_tensors(path).float() / 255

    @torch.no_grad()
    def _features(self, images: Tensor) -> dict[str, np.ndarray]:
        """Of every space, (N, d). CLIP's have length 1; here it is sqrt(d), the size that KID's kernel was made for:
        with x.y/d near 0 the kernel is linear, and would see the mean of a set and nothing of its spread."""
        device = self.autoencoder.mean.device
        return {
            name: _of_order_one(torch.cat([look(part.to(device)).cpu() for part in images.split(64)]).double().numpy())
            for name, look in self.spaces.items()
        }

    def _true_count(self, images: Tensor, errors: Errors) -> AdjustedCount | None:
        if self.readers is None:
            return None
        return adjusted_count(self.readers.trait(images.numpy()) > errors.threshold, errors.trait)

    def _faithfulness(self, images: Tensor, draws: Draws, probabilities: np.ndarray, errors: Errors):
        if self.readers is None:
            return None
        prompted = np.array([self.prompt_lesion[i] for i in draws.prompt.tolist()])
        read = self.readers.lesion(images.numpy())
        return lesion_faithfulness(read, prompted, probabilities.argmax(1), errors.lesion)

    def _guidance(self, denoiser: nn.Module, draws: Draws, errors: Errors, label: str) -> list[dict]:
        rows = []
        for scale in self.scales:
            made = self._generate(denoiser, draws[: self.num_others], label, scale)
            calls = self.judge.predict(made).argmax(1).numpy()
            rows.append(report.share_row(calls, errors.judge, self.target.numpy(), scale=scale))
        return rows

    def _real(self, features: Mapping[str, np.ndarray]) -> dict:
        """The same figures of real slices through the autoencoder; KID between two halves of their subjects."""
        decoded, subjects = self._decoded(self.real), np.asarray(self.real.subjects())
        judged, guided = self.judge.predict(decoded, subjects), self.guide.predict(decoded)
        half = np.isin(subjects, np.unique(subjects)[::2])
        between = {s: kid(f[half], f[~half], subjects[half], subjects[~half]) for s, f in features.items()}
        return {
            "ambiguity": ambiguity(judged.numpy()),
            "agreement": agreement(judged.argmax(1), guided.argmax(1)),
            "n": len(decoded),
            "kid": between,
        }

    def _strata(self, calls: Mapping[str, np.ndarray], draws: Draws, errors: Errors) -> dict[str, dict]:
        """Shares before and after among the images whose prompts name a stratum."""
        strata = np.array([self.prompt_strata[i] for i in draws.prompt.tolist()])
        return {
            str(name): {
                "target": dict(zip(self.attribute.groups, self.targets[name].tolist(), strict=True)),
                **{
                    side: report.share_row(c[strata == name], errors.judge, self.targets[name].numpy())
                    for side, c in calls.items()
                },
            }
            for name in sorted(set(strata) - {"all"})
        }

    def _snapshot_seconds(self) -> dict[str, float]:
        """Seconds of training until each snapshot, by its iteration; the last one comes at the end."""
        if self.snapshots is None:
            return {}
        index = Path(self.snapshots) / "index.json"
        if not index.is_file():
            raise InputError(f"{index}: no snapshots; run the alignment first or set --snapshots null")
        return json.loads(index.read_text())

    def _trajectory(self, seconds: Mapping[str, float], draws: Draws, errors: Errors) -> list[dict]:
        """Share at each snapshot."""
        rows = []
        for iteration in sorted(seconds, key=int):
            path = Path(self.snapshots) / f"iteration_{int(iteration):04d}.pt"
            network = load_weights(copy.deepcopy(self.tuned), path)
            made = self._generate(network, draws[: self.num_snapshot_images], f"iteration {iteration}")
            calls = self.judge.predict(made).argmax(1).numpy()
            labels = {"iteration": int(iteration), "seconds": seconds[iteration]}
            rows.append(report.share_row(calls, errors.judge, self.target.numpy(), **labels))
        return rows

    def _write(self, made: dict, images: Mapping[str, Tensor], judged: Mapping[str, np.ndarray], draws: Draws) -> None:
        folder = Path(self.output_dir)
        shown = _changed_first(judged["before"], judged["after"])[:NUM_PAIRS]
        p = {name: judged[name][shown, -1] for name in images}
        prompts = [self.prompts[i] for i in draws.prompt[shown].tolist()]
        grid = (images["before"][shown].numpy(), images["after"][shown].numpy(), prompts, p["before"], p["after"])
        picture = sample_grid(*grid, folder / "samples.png", group=self.attribute.groups[-1], note=CHOSEN)
        text = table(made)
        write_whole(folder / "report.txt", (text + "\n").encode())
        path = report.write_json(made, folder / "report.json")
        print(f"\n{text}\n\n{path}\n{picture}")


def require_unseen(
    trained_on: Mapping[str, Sequence], judge: AttributeClassifier | CrossFittedJudge, validation: Sequence[str]
) -> None:
    """Raise InputError when guide, a member of the judge, and the validation subjects that it judges share somebody.

    A plain judge is one member that judges all. The members of a cross-fitted one were trained on validation subjects,
    but none on those that it judges.
    """
    for seen, judged in zip(trained_on["judge"], judge.divide(validation), strict=True):
        require_disjoint(guide=trained_on["guide"], judge=seen, validation=judged)


def _of_order_one(features: np.ndarray) -> np.ndarray:
    return features * np.sqrt(features.shape[1])


def _changed_first(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Indices: half of the places to images whose group changed, then the others, each in their order."""
    changed = before.argmax(1) != after.argmax(1)
    return np.concatenate([np.flatnonzero(changed)[: NUM_PAIRS // 2], np.flatnonzero(~changed)])
