"""Fair Bayesian Perturbation of the toy denoiser on MONAI's stock trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bundle.attributes import Attribute
from bundle.fairdiffusion.groups import Groups
from bundle.fairdiffusion.handler import FairBayesianPerturbation
from bundle.training.checkpoint import Checkpoint
from bundle.training.draws import Batches, DenoisingBatch, DenoisingDraw, LatentDataset
from bundle.training.probe import DenoisingProbe, denoising_probe
from tests.toy import LATENT, Denoiser, TrainerJob, scheduler, toy_trainer

GROUPS = Groups([Attribute("race", ["asian", "black", "white"]), Attribute("sex", ["female", "male"])])
NUMBER = 24


def toy_members(number: int = NUMBER) -> Tensor:
    """Every pair of groups in turn: 3 and 2 groups at places 0-2 and 3-4."""
    places = torch.arange(number)
    return torch.stack([places % 3, 3 + places // 3 % 2], dim=1)


def toy_data(number: int = NUMBER) -> LatentDataset:
    """Latents whose loss depends on the group a little."""
    stream = torch.Generator().manual_seed(0)
    latents = torch.randn((number, *LATENT), generator=stream)
    latents *= 1 + 0.3 * toy_members(number)[:, :1, None, None]
    contexts = torch.randn((3, 2, 3), generator=stream)
    captions = torch.randint(3, (number, 1), generator=stream)
    return LatentDataset(latents, captions, contexts)


def toy_probe(data: LatentDataset | None = None) -> DenoisingProbe:
    """All latents of the training at three timesteps."""
    data = data or toy_data()
    contexts = data.contexts[data.captions[:, 0]]
    return denoising_probe(data.latents, contexts, DenoisingBatch(scheduler()), 1000, per_latent=3, seed=0)


def perturbation(**changes) -> FairBayesianPerturbation:
    """Windows of three iterations; ``changes`` are arguments of the handler."""
    arguments = {
        "groups": GROUPS,
        "members": toy_members(),
        "seed": 0,
        "window": 3,
        "num_initial": 2,
        "least": 2,
        "probe": toy_probe(),
        "probe_members": toy_members(),
    }
    return FairBayesianPerturbation(**{**arguments, **changes})


@dataclass
class Job(TrainerJob):
    """With a handler that weighs losses."""

    handler: object | None


def toy_job(
    handler: object | None = None,
    folder: Path | None = None,
    extra: tuple = (),
    iterations: int = 8,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    distributed: bool = False,
    batch_size: int = 8,
    data: LatentDataset | None = None,
    **trainer_changes,
) -> Job:
    """Denoising training with ``handler``; with ``folder``, a checkpoint after every iteration."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Denoiser()
    data = data or toy_data()
    draws = Batches(DenoisingDraw(data, torch.zeros(1, 2, 3), 1000, batch_size, seed=0))
    optimiser = optimizer(network.parameters(), lr=0.01)
    handlers = [*extra, *([handler] if handler is not None else [])]
    if folder is not None:
        objects = {"network": network, "optimizer": optimiser, "handler": handler}
        handlers.append(Checkpoint(folder / "checkpoint.pt", objects, draws, {"seed": 0}, interval=1))
    trainer = toy_trainer(
        network,
        optimiser,
        draws,
        distributed,
        **{"epoch_length": iterations, "train_handlers": handlers, **trainer_changes},
    )
    return Job(trainer, network, handler)
