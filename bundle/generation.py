"""Images from noise and prompts, both drawn by index, so that any two models can be given the same ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundle.randomness import generator
from bundle.sampling import Schedule, guided_noise, noised, sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draws:
    """``prompt`` (N,) index of each image's prompt; ``noise`` x_T (N, C, h, w)."""

    prompt: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, index) -> Draws:
        return Draws(self.prompt[index], self.noise[index])


def draw(seed: int, purpose: str, number: int, shares: Tensor, shape: Sequence[int]) -> Draws:
    """``number`` prompts (by their ``shares`` (P,)) and noises of ``shape`` (C, h, w); a prefix of any longer draw."""
    prompts, noises = [], []
    for index in range(number):
        stream = generator(seed, purpose, index)
        prompts.append(torch.multinomial(shares, 1, generator=stream))
        noises.append(torch.randn(tuple(shape), generator=stream))
    return Draws(torch.cat(prompts), torch.stack(noises))


@dataclass(frozen=True)
class Sampler:
    """What turns draws into latents and images, but for the denoiser.

    ``contexts`` (P, L, C) of the prompts, ``null_context`` (1, L, C), ``decode`` latents -> images (B, 1, H, W).
    """

    schedule: Schedule
    guidance: float
    contexts: Tensor
    null_context: Tensor
    decode: Callable[[Tensor], Tensor]

    def noise(self, denoiser: nn.Module, prompt: Tensor, guidance: float | None = None):
        """The guided noise prediction for images of these prompts (B,)."""
        scale = self.guidance if guidance is None else guidance
        context = self.contexts[prompt.to(self.contexts.device)]
        return guided_noise(denoiser, self.schedule, context, self.null_context, scale)

    @torch.no_grad()
    def chain(self, denoiser: nn.Module, draws: Draws, guidance: float | None = None) -> list[Tensor]:
        """All states [x_T, ..., x_0] of one batch; the denoiser runs in eval mode and is put back."""
        training = denoiser.training
        denoiser.eval()
        start = draws.noise.to(self.contexts.device)
        states = sample(self.noise(denoiser, draws.prompt, guidance), start, self.schedule)
        denoiser.train(training)
        return states

    def batches(
        self,
        denoiser: nn.Module,
        draws: Draws,
        guidance: float | None = None,
        batch_size: int = 64,
        label: str = "images",
    ) -> Iterator[Tensor]:
        """Images (B, C, H, W) in [0, 1] on the CPU, batch by batch, with a progress bar."""
        for index in tqdm(torch.arange(len(draws)).split(batch_size), desc=label, unit="batch", leave=False):
            yield self.batch(denoiser, draws[index], guidance)

    def batch(self, denoiser: nn.Module, draws: Draws, guidance: float | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] on the CPU of one batch."""
        return self._decoded(self.chain(denoiser, draws, guidance)[-1])

    def images(self, denoiser: nn.Module, draws: Draws, guidance: float | None = None, **how) -> Tensor:
        """All images of these draws, (N, C, H, W); the other arguments as in ``batches``."""
        return torch.cat(list(self.batches(denoiser, draws, guidance, **how)))

    @torch.no_grad()
    def renoised(self, denoiser: nn.Module, latents: Tensor, draws: Draws, strength: float) -> Tensor:
        """Images (B, C, H, W) of latents that were noised and denoised again (SDEdit, Meng et al., ICLR 2022).

        ``strength``, in (0, 1], is the share of the chain that is gone through; noise and prompts are those of the
        ``draws``.
        """
        steps = len(self.schedule)
        first = steps - max(1, round(strength * steps))
        start = noised(latents, draws.noise.to(latents.device), self.schedule, first)
        denoiser.eval()
        return self._decoded(sample(self.noise(denoiser, draws.prompt), start, self.schedule, first)[-1])

    @torch.no_grad()
    def _decoded(self, latents: Tensor) -> Tensor:
        return self.decode(latents).clamp(0, 1).cpu()


def forecast(sampler: Sampler, denoiser: nn.Module, draws: Draws, number: int, job: str) -> float:
    """Seconds that ``number`` images will take on this machine, going by one batch, ``draws``; logged for ``job``.

    Training on an image costs several: the config that calls this says how many.
    """
    started = time.monotonic()
    sampler.decode(sampler.chain(denoiser, draws)[-1]).sum().item()  # the number makes a GPU finish
    seconds = (time.monotonic() - started) * number / len(draws)
    logger.info("%s: about %.0f min here (the work of %d images), data not counted", job, seconds / 60, number)
    return seconds
