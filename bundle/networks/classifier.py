"""A classifier of one attribute on single slices; guide and judge differ in backbone, subjects and seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from bundle.images import Images


class AttributeClassifier(nn.Module):
    """A MONAI classification network with a calibration temperature.

    Args:
        backbone: maps images (N, 1, H, W) in [0, 1] to logits (N, G).
        image_size: height and width that the backbone is given; images of another size are resized. None: as they are.
    """

    def __init__(self, backbone: nn.Module, image_size: int | None = None):
        super().__init__()
        self.backbone = backbone
        self.image_size = image_size
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Calibrated logits (N, G); in eval mode the mean over each image and its mirror.

        Training mirrors half of the images, so both readings are as good; their mean depends less on the chances of
        one training, above all beside the boundary, where classifiers differ.
        """
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            images = interpolate(images.float(), (self.image_size, self.image_size), mode="bilinear", antialias=True)
        if self.training:
            return self.backbone(images) / self.temperature
        both = self.backbone(torch.cat([images, images.flip(-1)])) / self.temperature
        return both.unflatten(0, (2, len(images))).mean(0)

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities of the groups (N, G)."""
        return self(images).softmax(1)

    @torch.no_grad()
    def predict(
        self, images: Images, subjects: Sequence[str] | None = None, batch_size: int = 64, first: int = 0
    ) -> Tensor:
        """Probabilities (N, G) on the CPU of any number of images, in batches, in eval mode.

        ``subjects`` (N,), whom the images show, and the number of the ``first`` image change nothing here; a judge of
        several members needs them.
        """
        self.eval()
        device = self.temperature.device
        parts = torch.arange(len(images)).split(batch_size)
        return torch.cat([self.probabilities(images[part].to(device)).cpu() for part in parts])

    def divide(self, subjects: Sequence[str]) -> list[list[str]]:
        """For each member the subjects that it may judge: here there is one, for all."""
        return [list(subjects)]

    def calibrate(self, logits: Tensor, labels: Tensor) -> float:
        """Set the temperature that minimises cross entropy on held-out data (Guo et al., 2017); returns it.

        ``logits`` (N, G) of :meth:`forward`, ``labels`` (N,).
        """
        log_scale = torch.zeros((), requires_grad=True)
        optimiser = torch.optim.LBFGS([log_scale], max_iter=100)

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = cross_entropy(logits * log_scale.exp(), labels)
            loss.backward()
            return loss

        optimiser.step(closure)
        found = float(log_scale.detach())
        if not math.isfinite(found):  # far too sure logits, as of a network hardly trained, send L-BFGS away
            found = minimize_scalar(lambda x: float(cross_entropy(logits * math.exp(x), labels)), bounds=(-7, 7)).x
        self.temperature.div_(torch.tensor(found, dtype=torch.float32).exp().to(self.temperature))
        return float(self.temperature)
