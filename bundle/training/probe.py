"""The denoising loss of the same latents again and again, so that groups and moments of a training can be compared.

A training batch gives each latent its own timestep and noise, which move the loss by far more than the person does.
Here all latents share the timesteps and the noise (common random numbers): what differs is the latent and its context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from monai.inferers import DiffusionInferer
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from bundle.errors import InputError
from bundle.randomness import generator

if TYPE_CHECKING:
    from bundle.training.draws import DenoisingBatch


@dataclass(frozen=True)
class DenoisingProbe:
    """Latents (N, C, h, w) with contexts (N, L, C'), seen at timesteps (K,) with noise (K, C, h, w).

    ``prepare`` makes the network's inputs and targets, as in the training.
    """

    latents: Tensor
    contexts: Tensor
    timesteps: Tensor
    noise: Tensor
    prepare: DenoisingBatch

    @torch.no_grad()
    def losses(self, denoiser: nn.Module, batch_size: int = 64) -> Tensor:
        """Mean squared error of each latent at each timestep; (N, K) float32 on the CPU.

        The network runs in evaluation mode, which is put back, and under the caller's autocast; it must be the bare
        network, because a distributed wrapper would wait for the other processes.
        """
        device = next(denoiser.parameters()).device
        places = torch.arange(len(self.latents)).split(batch_size)
        training = denoiser.training
        denoiser.eval()
        try:
            columns = [
                torch.cat([self._batch(denoiser, part, k, device) for part in places])
                for k in range(len(self.timesteps))
            ]
        finally:
            denoiser.train(training)
        return torch.stack(columns, dim=1).cpu()

    def _batch(self, denoiser: nn.Module, places: Tensor, k: int, device: torch.device) -> Tensor:
        latents = self.latents[places.to(self.latents.device)]
        batch = {
            "image": latents,
            "noise": self.noise[k].expand_as(latents),
            "timesteps": self.timesteps[k].expand(len(places)),
            "context": self.contexts[places.to(self.contexts.device)],
        }
        inputs, target, _, arguments = self.prepare(batch, device)
        prediction = DiffusionInferer(self.prepare.scheduler)(inputs, denoiser, **arguments)
        return mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)


def denoising_probe(
    latents: Tensor, contexts: Tensor, prepare: DenoisingBatch, num_timesteps: int, per_latent: int, seed: int
) -> DenoisingProbe:
    """A probe of ``per_latent`` timesteps: the middles of as many equal parts of [0, ``num_timesteps``).

    Raises InputError for no latents or more timesteps than there are, ValueError for contexts of other latents.
    """
    if not len(latents):
        raise InputError("probe: no latents; give at least one")
    if len(latents) != len(contexts):
        raise ValueError(f"{len(latents)} latents, {len(contexts)} contexts")
    if not 1 <= per_latent <= num_timesteps:
        raise InputError(f"probe: {per_latent} timesteps of {num_timesteps}; give from 1 to {num_timesteps}")
    middles = (torch.arange(per_latent, dtype=torch.float64) + 0.5) * num_timesteps / per_latent
    shape = latents.shape[1:]
    noise = [torch.randn(shape, generator=generator(seed, "probe", k)) for k in range(per_latent)]
    return DenoisingProbe(latents, contexts, middles.long(), torch.stack(noise), prepare)
