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
from bundle.evaluation.prevalence import JudgeRates, adjusted_count, judge_rates
from bundle.evaluation.quality import agreement, ambiguity, cosine_similarity, kid, kid_change
from bundle.evaluation.table import table
from bundle.files import write_tensors, write_whole
from bundle.generation import Draws, Sampler, draw
from bundle.networks.classifier import AttributeClassifier
from bundle.networks.cross_fitted import CrossFittedJudge
from bundle.networks.latent import LatentAutoencoder
from bundle.weights import digest, load_weights

PACKAGES = ("torch", "monai", "open_clip_torch", "pytorch-ignite", "mlflow", "numpy")


@dataclass(frozen=True)
class Truth:
    """Readers that are no classifiers, of images (N, 1, H, W): ``trait`` (N,), larger in the second group, and
    ``lesion`` (N,) bool."""

    trait: Callable[[np.ndarray], np.ndarray]
    lesion: Callable[[np.ndarray], np.ndarray]


@dataclass
class Evaluation:
    """Everything that is measured, and on what.

    Args:
        base, tuned: denoisers before and after; ``snapshots`` a folder with weights of the latter along the way.
        target: proportion of each group (G,).
        prompts: P texts with their ``prompt_shares`` (P,) and whether each asks for a lesion, ``prompt_lesion`` (P,).
        validation: slices of subjects that neither guide nor judge was trained on, of known group; they go through the
            autoencoder, and the judge's and the readers' errors are measured on them.
        real: slices of the target cohort for KID, ambiguity and agreement.
        trained_on: of the ``guide`` the subjects that it was trained on, of the ``judge`` those of each of its members;
            a member that would judge somebody whom it or the guide was trained on is refused.
        spaces: name -> image features for KID; ``similarity_space`` names the one for similarity to the reference.
        num_others: images at each other guidance scale; ``num_snapshot_images`` of each snapshot.
        images_dir: where generated images are kept, named by what they depend on, so that evaluations can share them;
            ``output_dir/images`` by default.
        truth: readers, where there are any.
    """

    sampler: Sampler
    base: nn.Module
    tuned: nn.Module
    guide: AttributeClassifier
    judge: AttributeClassifier | CrossFittedJudge
    autoencoder: LatentAutoencoder
    attribute: Attribute
    target: Tensor
    prompts: Sequence[str]
    prompt_shares: Tensor
    prompt_lesion: Sequence[bool]
    validation: Slices
    real: Slices
    trained_on: Mapping[str, Sequence]
    spaces: Mapping[str, Callable[[Tensor], Tensor]]
    output_dir: str
    seed: int
    num_images: int = 1024
    num_others: int = 128
    num_snapshot_images: int = 128
    scales: Sequence[float] = (1.0, 4.0)
    latent_shape: Sequence[int] = (4, 16, 16)
    margin: float = 0.05
    similarity_space: str = "clip"
    snapshots: str | None = None
    images_dir: str | None = None
    truth: Truth | None = None

    def run(self) -> dict:
        """Measure, write ``report.json`` and ``samples.png`` to ``output_dir``, print the table, return the report."""
        started = time.monotonic()
        require_unseen(self.trained_on, self.judge, self.validation.subjects())
        draws = draw(self.seed, "evaluation", self.num_images, self.prompt_shares, self.latent_shape)
        rates, card, lesion_rates, trait_rates = self._measure_judges()
        denoisers = {"before": self.base, "after": self.tuned}
        images = {name: self._generate(denoiser, draws, name) for name, denoiser in denoisers.items()}
        features = {name: self._features(made) for name, made in images.items()}
        real_features, subjects = self._features(self.real.pixels()), self.real.subjects()
        sides = {}
        for name, made in images.items():
            probabilities = self.judge.predict(made).numpy()
            sides[name] = report.side(
                probabilities,
                self.guide.predict(made).argmax(1).numpy(),
                rates,
                self.target.numpy(),
                self.margin,
                true_count=self._true_count(made, trait_rates),
                kid={space: kid(real_features[space], f, subjects) for space, f in features[name].items()},
                clip_similarity=cosine_similarity(*(f[self.similarity_space] for f in features.values())),
                faithfulness=self._faithfulness(made, draws, probabilities, lesion_rates),
                guidance=self._guidance(denoisers[name], draws, rates, name),
            )
        change = {
            space: kid_change(real_features[space], features["before"][space], features["after"][space], subjects)
            for space in self.spaces
        }
        trajectory, align_seconds = self._trajectory(draws, rates)
        made = report.assemble(
            attribute=self.attribute.name,
            groups=self.attribute.groups,
            target=self.target.numpy(),
            prompts=self.prompts,
            judge=card,
            real=self._real(real_features),
            **sides,
            kid_change=change,
            trajectory=trajectory,
            seconds={"align": align_seconds, "evaluate": time.monotonic() - started},
            versions=report.package_versions(*PACKAGES),
            margin=self.margin,
            seed=self.seed,
            weights={"before": digest(self.base), "after": digest(self.tuned)},
        )
        self._write(made, images, draws)
        return made

    def _measure_judges(self) -> tuple[JudgeRates, dict, JudgeRates | None, JudgeRates | None]:
        """Errors of judge, lesion reader (with the judge) and trait reader on decoded validation slices."""
        truth = self.attribute.indices(self.validation.rows)
        known = np.flatnonzero(truth >= 0)
        decoded = self._decoded(Slices(self.validation.images[known], [self.validation.rows[i] for i in known]))
        truth, subjects = truth[known], np.asarray(self.validation.subjects())[known]
        groups = self.attribute.groups
        probabilities = self.judge.predict(decoded, subjects).numpy()
        calls = probabilities.argmax(1)
        rates = judge_rates(calls, truth, subjects, groups)
        auc = float(roc_auc_score(truth, probabilities[:, 1])) if len(groups) == 2 else None
        card = report.judge_card(rates, auc)
        if self.truth is None:
            return rates, card, None, None
        trait = self.truth.trait(decoded.numpy())
        self._threshold = float(np.mean([trait[truth == group].mean() for group in (0, 1)]))
        trait_rates = judge_rates(trait > self._threshold, truth, subjects, groups)
        lesion = np.array([self.validation.rows[i]["lesion"] for i in known])
        read = self.truth.lesion(decoded.numpy())
        return rates, card, reader_rates(read, calls, lesion, truth, subjects, groups), trait_rates

    def _decoded(self, slices: Slices) -> Tensor:
        device = self.autoencoder.mean.device
        parts = torch.arange(len(slices)).split(64)
        return torch.cat([self.autoencoder.reconstruct(slices.pixels(part).to(device)).cpu() for part in parts])

    def _generate(self, denoiser: nn.Module, draws: Draws, label: str, scale: float | None = None) -> Tensor:
        """Images of these draws, kept in ``images_dir`` so that a stopped evaluation goes on."""
        scale = self.sampler.guidance if scale is None else scale
        key = hashlib.sha256(f"{digest(denoiser)} {self.seed} {len(draws)} {scale}".encode())
        key.update(self.sampler.contexts.cpu().numpy().tobytes() + digest(self.autoencoder).encode())
        key.update(self.sampler.schedule.signal.numpy().tobytes() + draws.prompt.numpy().tobytes())
        folder = Path(self.images_dir or f"{self.output_dir}/images")
        path = folder / f"{key.hexdigest()[:16]}.pt"
        if not path.is_file():
            made = self.sampler.images(denoiser, draws, scale, label=f"{label}, guidance {scale:g}")
            write_tensors((made * 255).round().to(torch.uint8), path)
        return torch.load(path, weights_only=True).float() / 255

    @torch.no_grad()
    def _features(self, images: Tensor) -> dict[str, np.ndarray]:
        device = self.autoencoder.mean.device
        return {
            name: torch.cat([look(part.to(device)).cpu() for part in images.split(64)]).double().numpy()
            for name, look in self.spaces.items()
        }

    def _true_count(self, images: Tensor, rates: JudgeRates | None):
        if rates is None:
            return None
        return adjusted_count(self.truth.trait(images.numpy()) > self._threshold, rates)

    def _faithfulness(self, images: Tensor, draws: Draws, probabilities: np.ndarray, rates: JudgeRates | None):
        if rates is None:
            return None
        prompted = np.array([self.prompt_lesion[i] for i in draws.prompt.tolist()])
        return lesion_faithfulness(self.truth.lesion(images.numpy()), prompted, probabilities.argmax(1), rates)

    def _guidance(self, denoiser: nn.Module, draws: Draws, rates: JudgeRates, label: str) -> list[dict]:
        rows = []
        for scale in self.scales:
            made = self._generate(denoiser, draws[: self.num_others], label, scale)
            calls = self.judge.predict(made).argmax(1).numpy()
            rows.append(report.share_row(calls, rates, self.target.numpy(), scale=scale))
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

    def _trajectory(self, draws: Draws, rates: JudgeRates) -> tuple[list[dict], float | None]:
        """Share at each snapshot, and the seconds of the whole alignment."""
        if self.snapshots is None:
            return [], None
        index = Path(self.snapshots) / "index.json"
        if not index.is_file():
            raise InputError(f"{index}: no snapshots; run the alignment first or set --snapshots null")
        seconds = json.loads(index.read_text())
        rows = []
        for iteration in sorted(seconds, key=int):
            path = Path(self.snapshots) / f"iteration_{int(iteration):04d}.pt"
            network = load_weights(copy.deepcopy(self.tuned), path)
            made = self._generate(network, draws[: self.num_snapshot_images], f"iteration {iteration}")
            calls = self.judge.predict(made).argmax(1).numpy()
            labels = {"iteration": int(iteration), "seconds": seconds[iteration]}
            rows.append(report.share_row(calls, rates, self.target.numpy(), **labels))
        return rows, max(seconds.values(), default=None)

    def _write(self, made: dict, images: Mapping[str, Tensor], draws: Draws) -> None:
        folder = Path(self.output_dir)
        judged = {name: self.judge.predict(images[name][:96]) for name in images}
        shown = _changed_first(judged["before"], judged["after"])[:16]
        p = {name: judged[name][shown, -1].numpy() for name in images}
        prompts = [self.prompts[i] for i in draws.prompt[shown].tolist()]
        grid = (images["before"][shown].numpy(), images["after"][shown].numpy(), prompts, p["before"], p["after"])
        picture = sample_grid(*grid, folder / "samples.png", group=self.attribute.groups[-1])
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


def _changed_first(before: Tensor, after: Tensor) -> Tensor:
    """Indices: half of the places to images whose group changed, then the others, each in their order."""
    changed = before.argmax(1) != after.argmax(1)
    first, rest = torch.nonzero(changed).flatten()[:8], torch.nonzero(~changed).flatten()
    return torch.cat([first, rest])
