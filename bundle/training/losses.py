"""Training losses of the stages that precede the alignment."""

from __future__ import annotations

import ignite.distributed as idist
import open_clip
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss


class AutoencoderLoss(nn.Module):
    """L1 of the image and of its finite differences, and a weak pull of the posterior to the normal distribution.

    The differences keep edges sharp where a plain L1 averages them away.
    """

    def __init__(self, edge_weight: float = 1.0, kl_weight: float = 1e-6):
        super().__init__()
        self.edge_weight, self.kl_weight = edge_weight, kl_weight

    def forward(self, output: tuple[Tensor, Tensor, Tensor], images: Tensor) -> Tensor:
        """``output`` = reconstruction (N, 1, H, W), posterior mean and deviation (N, C, h, w)."""
        reconstruction, mean, deviation = output
        edges = sum(l1_loss(reconstruction.diff(dim=axis), images.diff(dim=axis)) for axis in (-2, -1))
        variance = deviation.square()
        divergence = 0.5 * (mean.square() + variance - variance.log() - 1).flatten(1).sum(1).mean()
        return l1_loss(reconstruction, images) + self.edge_weight * edges + self.kl_weight * divergence


class ContrastiveLoss(nn.Module):
    """CLIP's symmetric contrastive loss (Radford et al., 2021), by open_clip, on the network's three outputs.

    Of several processes, all have the loss of all pairs.
    """

    def __init__(self):
        super().__init__()
        rank, size = idist.get_rank(), idist.get_world_size()
        self.loss = open_clip.ClipLoss(gather_with_grad=True, rank=rank, world_size=size)

    def forward(self, output: tuple[Tensor, Tensor, Tensor], _: Tensor) -> Tensor:
        return self.loss(*output)


class LabelLoss(nn.Module):
    """Mean cross entropy of the images whose label is known, over all processes; -1 is unknown."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = idist.all_reduce((labels >= 0).sum()) / idist.get_world_size()
        return cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / known


def caption_batch(batch: dict, device: torch.device, non_blocking: bool = False, **_):
    """MONAI's ``prepare_batch`` for pairs of image and caption."""
    images = batch["image"].to(device, non_blocking=non_blocking)
    return images, images, (batch["tokens"].to(device, non_blocking=non_blocking),), {}


def reconstruction_batch(batch: dict, device: torch.device, non_blocking: bool = False, **_):
    """MONAI's ``prepare_batch`` for an autoencoder: the image is its own target."""
    images = batch["image"].to(device, non_blocking=non_blocking)
    return images, images
