"""The images that an evaluation looks at, each set made once and kept, so that a stopped evaluation goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundle.cohorts.slices import Slices, reconstructed
from bundle.generation import Draws, Sampler
from bundle.images import StoredImages, kept_images
from bundle.networks.latent import LatentAutoencoder
from bundle.weights import digest

BATCH_SIZE = 64


@dataclass(frozen=True)
class Maker:
    """Makes images, and keeps them in ``folder`` under names that depend on all that they depend on."""

    sampler: Sampler
    autoencoder: LatentAutoencoder
    folder: str
    seed: int

    def generated(
        self,
        denoiser: nn.Module,
        draws: Draws,
        label: str,
        guidance: float | None = None,
        contexts: Tensor | None = None,
    ) -> StoredImages:
        """Images of these draws at a guidance scale, the sampler's by default; ``contexts`` (P, L, C) are those of
        other prompts."""
        sampler = self.sampler if contexts is None else replace(self.sampler, contexts=contexts)
        guidance = sampler.guidance if guidance is None else guidance
        key = self._key(f"{digest(denoiser)} {self.seed} {len(draws)} {guidance}", sampler.contexts, draws.prompt)
        label = f"{label}, guidance {guidance:g}"
        return self._kept(key, len(draws), lambda: sampler.batches(denoiser, draws, guidance, label=label))

    def decoded(self, slices: Slices, label: str) -> StoredImages:
        """Slices through the autoencoder: what a perfect denoiser would show."""
        return reconstructed(slices, self.autoencoder, self.folder, label)

    def renoised(self, denoiser: nn.Module, slices: Slices, draws: Draws, strength: float, label: str) -> StoredImages:
        """Slices noised and denoised again, with the prompts and the noise of the draws."""
        words = f"renoised {digest(denoiser)} {self.seed} {strength} {self.sampler.guidance} {slices.fingerprint()}"
        key = self._key(words, self.sampler.contexts, draws.prompt)

        def batches() -> Iterator[Tensor]:
            for places in _batches(len(slices), f"{label}, noised by {strength:g}"):
                with torch.no_grad():
                    latents = self.autoencoder.encode(slices.pixels(places).to(self.autoencoder.mean.device))
                yield self.sampler.renoised(denoiser, latents, draws[places], strength)

        return self._kept(key, len(slices), batches)

    def _key(self, words: str, contexts: Tensor, prompt: Tensor) -> str:
        key = hashlib.sha256(f"{words} {digest(self.autoencoder)}".encode())
        for part in (contexts.cpu(), prompt, self.sampler.schedule.signal):
            key.update(part.numpy().tobytes())
        return key.hexdigest()

    def _kept(self, key: str, number: int, batches: Callable[[], Iterable[Tensor]]) -> StoredImages:
        return kept_images(batches, number, Path(self.folder) / f"{key[:16]}.npy")


def _batches(number: int, label: str) -> Iterable[Tensor]:
    return tqdm(torch.arange(number).split(BATCH_SIZE), desc=label, unit="batch", leave=False)
