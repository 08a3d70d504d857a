"""Weights of a batch's losses, and the gap between groups, as FairDiffusion publishes them and repaired.

G groups of A attributes have a scale each, sigma. A latent's weight is random: its expectation is one for every scale,
so that a scale changes how much the gradient of a group varies, not how much the group counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundle.fairdiffusion.groups import Groups


@dataclass(frozen=True)
class Gap:
    """Sum over attributes of the range of their groups' mean losses, and each attribute's part of it."""

    total: float
    by_attribute: dict[str, float] = field(default_factory=dict)


def published_weights(scales: Tensor, members: Tensor, offsets: Sequence[int], noise: Tensor) -> Tensor:
    """FairDiffusion's weights 1 + sum over attributes of scale x noise (arXiv 2412.20374, its published code); (B,).

    Negative weights climb the loss. An unknown member reads, as published, the scale in front of its attribute's
    first: that of another attribute's group, and for the first attribute the last of all.

    Args:
        scales: (G,).
        members: places of the groups, (B, A), -1 where unknown.
        offsets: place of each attribute's first group.
        noise: standard normal, (B, A).
    """
    before = torch.tensor(offsets) - 1
    return 1 + (scales[torch.where(members < 0, before, members)] * noise).sum(1)


def repaired_weights(scales: Tensor, members: Tensor, noise: Tensor) -> Tensor:
    """Log-normal weights exp(sum over known attributes of s x noise - s^2 / 2): positive, of mean one; (B,).

    Shapes as in :func:`published_weights`; an unknown member has no part in the sum.
    """
    known = torch.where(members < 0, scales.new_zeros(()), scales[members.clamp_min(0)])
    return (known * noise - known.square() / 2).sum(1).exp()


def published_gap(losses: Tensor, members: Tensor, groups: Groups) -> Gap:
    """The gap of one batch: each attribute's largest group mean minus its smallest.

    As published, an attribute of which a group is absent counts as perfect: the empty mean is not a number, and what is
    not a number becomes 0. (Where that befalls all attributes, the published code stops; here the gap is 0.)

    Args:
        losses: (B,).
        members: (B, A).
    """
    parts = []
    for number in range(len(groups.attributes)):
        means = torch.stack([losses[members[:, number] == group].mean() for group in groups.of_attribute(number)])
        part = means.max() - means.min()
        parts.append(torch.where(part.isnan(), 0.0, part))
    return _gap(torch.stack(parts), [attribute.name for attribute in groups.attributes])


def repaired_gap(losses: Tensor, members: Tensor, groups: Groups, least: int = 8) -> Gap | None:
    """The gap over groups with at least ``least`` latents; attributes with fewer than two such groups are left out.

    ``losses`` (N,) and ``members`` (N, A) are of a probe. Returns None where no attribute is left.
    """
    parts, names = [], []
    for number, attribute in enumerate(groups.attributes):
        chosen = [members[:, number] == group for group in groups.of_attribute(number)]
        means = [losses[rows].mean() for rows in chosen if int(rows.sum()) >= least]
        if len(means) >= 2:
            parts.append(torch.stack(means).max() - torch.stack(means).min())
            names.append(attribute.name)
    return _gap(torch.stack(parts), names) if parts else None


def _gap(parts: Tensor, names: list[str]) -> Gap:
    return Gap(float(parts.sum()), dict(zip(names, parts.tolist(), strict=True)))


def relative(losses: Tensor) -> Tensor:
    """Losses (N, K) as multiples of their timestep's mean, averaged over the timesteps; (N,) float64.

    No timestep outweighs another, and the fall of all losses in the course of a training cancels.
    """
    losses = losses.double()
    return (losses / losses.mean(0)).mean(1)
