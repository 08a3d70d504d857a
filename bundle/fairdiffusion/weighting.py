"""The one place where the trainer's loss is replaced by a weighted one."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.nn.functional import mse_loss

from bundle.errors import InputError


class Weighting(Protocol):
    """Weights of the latents of a batch."""

    def weights(self, iteration: int, members: Tensor, losses: Tensor) -> Tensor:
        """Weights (B,) on the CPU, of this process's part of the batch.

        Args:
            iteration: counted from 0.
            members: places of the groups, (B, A), -1 where unknown.
            losses: mean squared error of each latent, (B,), without gradient, on the network's device.
        """


def reweigh(engine: Engine, members: Tensor, weighting: Weighting) -> None:
    """Replace the loss in the engine's output by the mean of the weighted squared errors.

    ``members`` (N, A) are those of the training latents. The errors are those of single precision whatever the
    prediction's. Where all weights are one, the gradient is bit for bit that of the mean squared error. Raises
    InputError for batches without ``index``, the places of their latents.
    """
    if "index" not in engine.state.batch:
        raise InputError("train::draws: its batches hold no 'index', the places of their latents; use DenoisingDraw")
    output, index = engine.state.output, engine.state.batch["index"].cpu()
    squared = mse_loss(output[Keys.PRED].float(), output[Keys.LABEL].float(), reduction="none")
    losses = squared.detach().flatten(1).mean(1)
    weights = weighting.weights(engine.state.iteration - 1, members[index], losses)
    factors = weights.to(squared).view(-1, *[1] * (squared.ndim - 1))
    output[Keys.LOSS] = (factors * squared).mean()
    output["weight_min"] = float(weights.min())
