"""What a finished stage leaves in ``models/``: weights in half precision and the figures that describe them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ignite.distributed as idist
import numpy as np
import torch
from safetensors.torch import save
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bundle.attributes import Attribute
from bundle.conditioning import Clip
from bundle.errors import InputError
from bundle.files import file_digest, write_whole
from bundle.generation import Draws, Sampler
from bundle.images import Images, Some, as_bytes
from bundle.training.grids import write_sheet
from bundle.weights import save_weights

if TYPE_CHECKING:
    from bundle.cohorts.slices import Slices
    from bundle.networks.classifier import AttributeClassifier
    from bundle.networks.latent import LatentAutoencoder


SUBJECTS = "subjects.json"
FEW_SUBJECTS = 40  # fewer are not divided: they calibrate a classifier, and its figures are of them too


def record_release(path: Path, command: str, figures: dict) -> None:
    """Enter a file of weights, its checksum, its command and its figures in the ``manifest.json`` of ``models/``."""
    if idist.get_rank() != 0:
        return
    folder = path.parent if path.suffix == ".pt" else path.parent.parent  # a CLIP has a folder of its own
    manifest = folder / "manifest.json"
    entries = json.loads(manifest.read_text()) if manifest.is_file() else {}
    digest = file_digest(path)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    name = path.relative_to(manifest.parent).as_posix()
    entries[name] = {"sha256": digest, "bytes": path.stat().st_size, "command": command, "figures": rounded}
    write_whole(manifest, (json.dumps(dict(sorted(entries.items())), indent=2) + "\n").encode())
    print(f"{path}: " + ", ".join(f"{k} {v}" for k, v in rounded.items()))


def _some(number: int, at_most: int = 1024) -> Tensor:
    """Places of slices drawn at random, always the same; every n-th slice would be of one modality or level."""
    return torch.randperm(number, generator=torch.Generator().manual_seed(0))[:at_most]


def release_autoencoder(
    autoencoder: LatentAutoencoder, train: Slices, held_out: Slices, path: str, command: str
) -> None:
    """Set the latents' statistics from the training slices and write the weights; figures on held-out slices."""
    autoencoder.eval()
    device = autoencoder.mean.device
    sample = _some(len(train)).split(64)
    autoencoder.standardise(train.pixels(part).to(device) for part in sample)
    shown = held_out.pixels(slice(512))
    error = (as_bytes(autoencoder.reconstruct(shown)) / 255 - shown).abs()
    inside = shown > 0
    saved = save_weights(autoencoder, path)
    mse = error.square().flatten(1).mean(1)
    figures = {"l1_inside_head": float(error[inside].mean()), "psnr_db": float((-10 * mse.log10()).mean())}
    record_release(saved, command, figures)


def release_classifier(
    classifier: AttributeClassifier,
    attribute: Attribute,
    slices: Slices,
    held_out: Slices,
    decoded: Images,
    path: str,
    command: str,
) -> None:
    """Calibrate on ``decoded``, the held-out slices through the autoencoder, and write the weights and whose ``slices``
    they were trained on; accuracy and AUC on plain and decoded ones."""
    labels = torch.from_numpy(attribute.indices(held_out.rows))
    known = np.flatnonzero(labels >= 0)
    plain, decoded, labels = Some(held_out.images, known), Some(decoded, known), labels[known]
    calibrating, measuring = _divided(np.array(held_out.subjects())[known])
    probabilities = classifier.predict(decoded)[calibrating]
    classifier.calibrate(probabilities.clamp_min(1e-12).log(), labels[calibrating])
    saved = save_weights(classifier, path)
    figures = {"temperature": float(classifier.temperature)}
    for name, images in (("plain", plain), ("decoded", decoded)):
        p = classifier.predict(images)[measuring]
        figures[f"accuracy_{name}"] = float((p.argmax(1) == labels[measuring]).float().mean())
        if len(attribute.groups) == 2:
            figures[f"auc_{name}"] = float(roc_auc_score(labels[measuring], p[:, 1]))
        figures[f"ambiguous_{name}"] = float(((p[:, -1] > 0.3) & (p[:, -1] < 0.7)).float().mean())
    record_subjects(saved, slices.subjects())
    record_release(saved, command, figures)


def record_subjects(path: Path, subjects: Sequence[str]) -> None:
    """Enter the subjects that a file of weights was trained on in the ``subjects.json`` beside it."""
    known = path.with_name(SUBJECTS)
    entries = json.loads(known.read_text()) if known.is_file() else {}
    entries[path.name] = sorted(set(subjects))
    write_whole(known, (json.dumps(dict(sorted(entries.items()))) + "\n").encode())


def trained_on(folder: str, file: str) -> list[str]:
    """The subjects that a file of weights was trained on. Raises InputError when that is not known."""
    known = Path(folder) / SUBJECTS
    entries = json.loads(known.read_text()) if known.is_file() else {}
    if file not in entries:
        raise InputError(f"{known}: no subjects of '{file}'; train it with configs/train_classifier.yaml")
    return entries[file]


def known_subjects(judge: str, guide: str | None) -> dict[str, list] | None:
    """Whom judge and guide were trained on, from the files beside their weights; None unless that is known of both."""
    found = {"judge": judge, **({} if guide is None else {"guide": guide})}
    try:
        seen = {name: trained_on(str(Path(file).parent), Path(file).name) for name, file in found.items()}
    except InputError:
        return None
    return {"judge": [seen["judge"]], "guide": seen.get("guide", [])}


def _divided(subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which images (N,) calibrate, and which the figures come from: two halves of the subjects."""
    if len(np.unique(subjects)) < FEW_SUBJECTS:
        return (np.ones(len(subjects), dtype=bool),) * 2
    first = np.array([int(hashlib.sha256(subject.encode()).hexdigest(), 16) % 2 == 0 for subject in subjects])
    return first, ~first


def release_clip(
    clip: Clip, slices: Slices, captions: Sequence[str], architecture: str, path: str, command: str
) -> None:
    """Write the weights in open_clip's layout, with the config of the folder ``architecture`` beside them.

    Figure: how often the right one of all distinct captions comes first.
    """
    clip.eval()
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in clip.model.state_dict().items()}
    write_whole(path, save(half))
    config = "open_clip_config.json"
    write_whole(Path(path).with_name(config), (Path(architecture) / config).read_bytes())
    texts = sorted(set(captions))
    with torch.no_grad():
        words = clip.text_features(texts)
        device = clip.mean.device
        parts = _some(len(slices)).split(64)
        right = [
            (clip.image_features(slices.pixels(p).to(device)) @ words.T).argmax(1).cpu()
            == torch.tensor([texts.index(captions[int(i)]) for i in p])
            for p in parts
        ]
    record_release(Path(path), command, {"captions": float(len(texts)), "top1": float(torch.cat(right).float().mean())})


def release_denoiser(
    denoiser: nn.Module,
    sampler: Sampler,
    draws: Draws,
    slices: Slices,
    autoencoder: LatentAutoencoder,
    figures: dict,
    path: str,
    sheet: str,
    command: str,
) -> None:
    """Write the averaged weights, and samples of them as a picture, ``sheet``.

    Figure ``clean``: the share of samples that are as smooth as ``slices`` through the autoencoder, neither left as
    noise nor empty.
    """
    saved = save_weights(denoiser, path)
    images = sampler.images(denoiser, draws, label="samples")
    write_sheet(images[:32], sheet)
    real = roughness(autoencoder.reconstruct(slices.pixels(_some(len(slices), 512))))
    smooth = (roughness(images) >= real.min() / 2) & (roughness(images) <= 1.5 * real.max())
    record_release(saved, command, {**figures, "clean": float(smooth.float().mean())})


def roughness(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, (N,): noise has several times that of an image."""
    return sum(images.diff(dim=axis).abs().flatten(1).mean(1) for axis in (-2, -1))
