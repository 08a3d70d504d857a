"""MONAI's inferer for images from noise and prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from bundle.generation import Draws, Sampler
from bundle.sampling import Schedule

if TYPE_CHECKING:
    from bundle.conditioning import Clip
    from bundle.networks.pretrained import TextEncoder


class PromptInferer(Inferer):
    """Samples a latent for each noise and prompt, and decodes it.

    Args:
        decode: latents -> images (B, C, H, W).
    """

    def __init__(
        self, text_encoder: Clip | TextEncoder, schedule: Schedule, guidance: float, decode: Callable[[Tensor], Tensor]
    ):
        self.text_encoder, self.schedule, self.guidance, self.decode = text_encoder, schedule, guidance, decode

    def __call__(self, inputs: Tensor, network: nn.Module, prompts: Sequence[str]) -> Tensor:
        """Images (B, C, H, W) in [0, 1], float32, on the CPU, of noises (B, c, h, w) and as many ``prompts``."""
        draws = Draws(torch.arange(len(inputs)), inputs)
        return self.sampler(prompts).batch(network, draws).float()

    def sampler(self, prompts: Sequence[str]) -> Sampler:
        """The sampler for these prompts: only those of one batch are ever embedded at once."""
        contexts = self.text_encoder.context([*prompts, ""])
        return Sampler(self.schedule, self.guidance, contexts[:-1], contexts[-1:], self.decode)
