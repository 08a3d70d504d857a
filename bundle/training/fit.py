"""A classifier trained in one call, for evaluations that need a fresh one for each set of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.inferers import SimpleInferer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from bundle.errors import InputError
from bundle.images import Images, Some
from bundle.training.draws import Batches, ImageDataset, ImageDraw
from bundle.training.tracking import Progress

BATCH_SIZE = 64
JITTER, SHIFT = 0.15, 6  # as for the attribute's classifiers; no mirroring: the side of a lesion may be the finding


def fit_classifier(
    build: Callable[[], nn.Module],
    images: Images,
    labels: np.ndarray | Tensor,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device | str,
    amp: bool = False,
    label: str = "classifier",
) -> nn.Module:
    """A classifier trained from random weights on images and labels (N,); -1 is left out.

    ``build`` makes the network, images in [0, 1] to logits (N, K). Its weights, and all that is drawn, depend on
    ``seed`` alone. Classes count alike however rare they are. Returned in eval mode, without gradients.

    Raises InputError where the labels are of fewer than two classes.
    """
    labels = torch.as_tensor(labels)
    known = np.flatnonzero(labels >= 0)
    images, labels = Some(images, known), labels[known]
    network = _initial(build, seed).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=iterations + 1)
    progress = Progress(["loss"], every=20)
    progress.tqdm_kwargs["desc"] = label
    draw = ImageDraw(ImageDataset(images, labels), batch_size, seed, jitter=JITTER, shift=SHIFT)
    trainer = SupervisedTrainer(
        device=torch.device(device),
        max_epochs=1,
        epoch_length=iterations,
        train_data_loader=Batches(draw),
        network=network,
        optimizer=optimizer,
        loss_function=nn.CrossEntropyLoss(weight=balanced(labels, label).to(device)),
        inferer=SimpleInferer(),
        train_handlers=[LrScheduleHandler(schedule, epoch_level=False, print_lr=False), progress],
        decollate=False,
        amp=amp,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout
        trainer.run()
    return network.eval().requires_grad_(False)


def fit_probe(
    features: Callable[[Tensor], Tensor],
    images: Images,
    labels: np.ndarray | Tensor,
    strength: float = 0.01,
    device: torch.device | str = "cpu",
    label: str = "probe",
) -> nn.Module:
    """A linear probe on frozen image features, (B, C, H, W) to (B, d): a classifier that few images suffice for.

    Logistic regression on standardised features, of scikit-learn's inverse penalty ``strength``; nothing is drawn.
    Images, labels, classes and errors as for :func:`fit_classifier`.
    """
    labels = torch.as_tensor(labels)
    known = np.flatnonzero(labels >= 0)
    if len(balanced(labels[known], label)) != 2:
        raise InputError(f"{label}: {int(labels.max()) + 1} classes; a probe tells two apart, take the network")
    with torch.no_grad():
        parts = torch.from_numpy(known).split(BATCH_SIZE)
        seen = torch.cat([features(images[part].to(device)).cpu() for part in parts]).double().numpy()
    fitted = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    ).fit(seen, labels[known].numpy())
    return _Probe(features, *fitted).to(device).eval().requires_grad_(False)


class _Probe(nn.Module):
    """Images (B, C, H, W) to logits (B, 2)."""

    def __init__(self, features: Callable[[Tensor], Tensor], scaler: StandardScaler, model: LogisticRegression):
        super().__init__()
        self.features = features
        slope = torch.from_numpy(model.coef_[0] / scaler.scale_)
        self.register_buffer("slope", slope.float())
        offset = torch.tensor(model.intercept_[0]) - slope @ torch.from_numpy(scaler.mean_)
        self.register_buffer("offset", offset.float())

    def forward(self, images: Tensor) -> Tensor:
        score = self.features(images).float() @ self.slope + self.offset
        return torch.stack([torch.zeros_like(score), score], 1)


def balanced(labels: Tensor, name: str) -> Tensor:
    """Weights (K,) of the classes, N / (K n_k), with which each of them counts alike."""
    counts = torch.bincount(labels)
    if len(counts) < 2 or not counts.all():
        raise InputError(f"{name}: classes of {counts.tolist()} images; give images of every class to learn from")
    return len(labels) / (len(counts) * counts.float())


def _initial(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()
