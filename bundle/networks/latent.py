"""An autoencoder whose latents have mean 0 and standard deviation 1 in every channel."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class LatentAutoencoder(nn.Module):
    """MONAI's ``AutoencoderKL`` with the statistics of its latents.

    Args:
        autoencoder: maps images (N, 1, H, W) in [0, 1] to posterior mean and deviation, and back.
        channels: number of latent channels.
    """

    def __init__(self, autoencoder: nn.Module, channels: int):
        super().__init__()
        self.autoencoder = autoencoder
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, posterior mean and posterior deviation: what the training loss needs."""
        return self.autoencoder(images)

    def encode(self, images: Tensor) -> Tensor:
        """Standardised posterior mean (N, C, h, w) of images (N, 1, H, W) in [0, 1]."""
        return (self.autoencoder.encode(images)[0] - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, 1, H, W), not clamped, of standardised latents; differentiable."""
        return self.autoencoder.decode(latents * self.std + self.mean)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """Images (N, 1, H, W) through the autoencoder, on the CPU, in [0, 1]: what a perfect denoiser would show."""
        parts = (part.to(self.mean.device) for part in images.split(batch_size))
        return torch.cat([self.decode(self.encode(part)).clamp(0, 1).cpu() for part in parts])

    @torch.no_grad()
    def standardise(self, batches: Iterable[Tensor]) -> None:
        """Set the statistics from batches of images."""
        means = torch.cat([self.autoencoder.encode(images)[0] for images in batches]).double()
        self.mean.copy_(means.mean((0, 2, 3), keepdim=True))
        self.std.copy_(means.std((0, 2, 3), keepdim=True))
