"""Weightings to compare Fair Bayesian Perturbation with: its noise alone, importance, group DRO, balanced sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor

from bundle.errors import InputError
from bundle.fairdiffusion.groups import counts
from bundle.fairdiffusion.perturbation import published_weights
from bundle.fairdiffusion.weighting import Weighting, reweigh
from bundle.randomness import generator, local_part

if TYPE_CHECKING:
    from bundle.fairdiffusion.groups import Groups

ROUNDS = 200


class Plain:
    """The handler of plain training, and of a method that only changes what is drawn: it does nothing."""

    def attach(self, engine: Engine) -> None:
        pass

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class WeightedLoss:
    """The handler that replaces the trainer's loss by a weighted one; ``members`` (N, A) are of the training latents.

    Hand it to a checkpoint where the weighting has a state.
    """

    def __init__(self, weighting: Weighting, members: Tensor):
        self.weighting, self.members = weighting, members

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        reweigh(engine, self.members, self.weighting)

    def state_dict(self) -> dict:
        return self.weighting.state_dict() if hasattr(self.weighting, "state_dict") else {}

    def load_state_dict(self, state: dict) -> None:
        if state:
            self.weighting.load_state_dict(state)


class FixedNoise:
    """FairDiffusion's ablation: its published weights with the same scale for every group, and no search.

    An unknown group adds no noise.
    """

    def __init__(self, groups: Groups, seed: int, scale: float = 1.0):
        self.groups, self.seed, self.scale = groups, seed, scale

    def weights(self, iteration: int, members: Tensor, losses: Tensor) -> Tensor:
        batch = len(members) * idist.get_world_size()
        noise = local_part(torch.randn((batch, members.shape[1]), generator=generator(self.seed, "noise", iteration)))
        scales = torch.full((len(self.groups),), self.scale)
        return published_weights(scales, members, self.groups.offsets, noise * (members >= 0))


class Importance:
    """Weights target share / share among the training latents, multiplied over the attributes; their mean is one.

    An unknown group multiplies by one.

    Args:
        members: of the training latents, (N, A).
        targets: attribute -> group -> share, as users write proportions; equal shares for attributes left out.

    Raises InputError for a group without latents, or a target that names no attribute or group.
    """

    def __init__(self, groups: Groups, members: Tensor, targets: Mapping[str, Mapping[str, float]] | None = None):
        targets = dict(targets or {})
        unknown = sorted(set(targets) - {attribute.name for attribute in groups.attributes})
        if unknown:
            raise InputError(f"targets: no attribute '{unknown[0]}'; see attributes")
        found = _found(members, groups).double()
        self.ratios = torch.ones(len(groups) + 1, dtype=torch.float64)  # the last is read by -1, the unknown
        for number, attribute in enumerate(groups.attributes):
            places = list(groups.of_attribute(number))
            equal = {group: 1 / len(places) for group in attribute.groups}
            target = attribute.proportions(targets.get(attribute.name, equal), f"targets::{attribute.name}")
            self.ratios[places] = torch.from_numpy(target) * found[places].sum() / found[places]
        self.mean = self.ratios[members].prod(1).mean()

    def weights(self, iteration: int, members: Tensor, losses: Tensor) -> Tensor:
        return (self.ratios[members].prod(1) / self.mean).float()


class GroupDRO:
    """Group distributionally robust optimisation (Sagawa et al., ICLR 2020, arXiv 1911.08731) on mixed batches.

    The groups of each attribute have probabilities q, at first equal. Those in a batch, over all processes, are
    multiplied by exp(``step`` x mean loss) and share among themselves what they had together: a group that a batch
    lacks keeps its q (the paper's algorithm 1 draws a group first, so that none is ever lacking). The loss is the sum
    of q x mean loss over the groups present, averaged over the attributes; an unknown group has no part in it. Losses
    that are not finite leave q as it is.
    """

    def __init__(self, groups: Groups, step: float = 0.01):
        self.groups, self.step = groups, step
        sizes = [len(attribute.groups) for attribute in groups.attributes]
        self.q = torch.cat([torch.full((size,), 1 / size, dtype=torch.float64) for size in sizes])

    def state_dict(self) -> dict:
        return {"q": self.q}

    def load_state_dict(self, state: dict) -> None:
        self.q = state["q"].cpu()

    def weights(self, iteration: int, members: Tensor, losses: Tensor) -> Tensor:
        everyone, losses = idist.all_gather(members).cpu(), idist.all_gather(losses).cpu().double()
        present = counts(everyone, self.groups)
        self._update(everyone, losses, present)
        # The trainer takes the mean over the batch, so that each latent has its group's share times the batch's size.
        each = len(losses) * self.q / present.clamp_min(1) / len(self.groups.attributes)
        return torch.where(members < 0, 0.0, each[members.clamp_min(0)]).sum(1).float()

    def _update(self, members: Tensor, losses: Tensor, present: Tensor) -> None:
        if not bool(losses.isfinite().all()):
            return
        q = self.q.clone()
        for number in range(len(self.groups.attributes)):
            places = [place for place in self.groups.of_attribute(number) if present[place]]
            if places:
                means = torch.stack([losses[(members == place).any(1)].mean() for place in places])
                q[places] = self.q[places].sum() * (self.q[places].log() + self.step * means).softmax(0)
        self.q = q


def balanced(members: Tensor, groups: Groups) -> Tensor:
    """Probabilities (N,) float64 with which to draw latents so that the groups of each attribute are equally likely.

    For one attribute they are so exactly; for several by iterative proportional fitting (Deming and Stephan, 1940), as
    far as the combinations allow. Latents whose group is unknown keep their share. ``members`` is (N, A). Raises
    InputError for a group without latents.
    """
    _found(members, groups)
    share = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
    for _ in range(ROUNDS):
        before = share.clone()
        for number in range(len(groups.attributes)):
            places = groups.of_attribute(number)
            known = (members[:, number] >= 0).double().mean()
            for place in places:
                rows = members[:, number] == place
                share[rows] *= known / len(places) / share[rows].sum()
            unknown = members[:, number] < 0
            share[unknown] *= (1 - known) / share[unknown].sum().clamp_min(1e-300)
        if torch.allclose(share, before, rtol=1e-12, atol=0):
            break
    return share


def _found(members: Tensor, groups: Groups) -> Tensor:
    """Latents of each group, (G,); raises InputError where one has none."""
    found = counts(members, groups)
    if bool((found == 0).any()):
        name = groups.names[int((found == 0).nonzero()[0])]
        raise InputError(f"group '{name}': no training latent; leave it out of the attribute's groups")
    return found
