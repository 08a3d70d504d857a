"""Fair Bayesian Perturbation step by step as its authors' code does it, with its faults, for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from torch import Tensor

from bundle.fairdiffusion.perturbation import published_gap, published_weights
from bundle.fairdiffusion.record import Window
from bundle.fairdiffusion.search import published_proposal
from bundle.randomness import generator

if TYPE_CHECKING:
    from bundle.fairdiffusion.groups import Groups


class Published:
    """FairDiffusion's scales (arXiv 2412.20374, its published code), from one at the start.

    Every step stores its scales with minus the gap of its own batch, measured before those scales could act. A process
    is fitted to what a window stored, at steps counted within the epoch; then the scales drift towards one half. Each
    computing process draws for itself, and nothing is kept for a restart. Noise and weights are in single precision,
    as in the published code without mixed precision.

    Args:
        window: steps between two fits.
        exploitation: share of the scales that a step leaves; the rest is drawn anew from [0, 1].
        beta: of the upper confidence bound.
    """

    def __init__(self, groups: Groups, seed: int, window: int, exploitation: float, beta: float):
        self.groups, self.seed, self.window = groups, seed, window
        self.exploitation, self.beta = exploitation, beta
        self.scales = torch.ones(len(groups))
        self.stored: list[tuple[Tensor, float]] = []
        self.windows: list[Window] = []

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing: a run that goes on begins with scales of one."""

    def weights(self, iteration: int, members: Tensor, losses: Tensor) -> Tensor:
        noise = torch.randn(members.shape, generator=self._stream("perturbation", iteration))
        gathered = idist.all_gather(losses).cpu(), idist.all_gather(members).cpu()
        self.gap = published_gap(*gathered, self.groups)
        self.stored.append((self.scales, -self.gap.total))
        return published_weights(self.scales, members, self.groups.offsets, noise)

    def finish(self, engine: Engine) -> dict[str, float]:
        """What follows the optimiser's step: perhaps a fit, and a step of the random walk."""
        iteration, numbers = engine.state.iteration - 1, {}
        step = iteration % engine.state.epoch_length
        if step > 0 and step % self.window == 0:
            numbers = self._fit(iteration)
        drawn = torch.rand(len(self.groups), generator=self._stream("walk", iteration))
        self.scales = self.exploitation * self.scales + (1 - self.exploitation) * drawn
        return numbers

    def _fit(self, iteration: int) -> dict[str, float]:
        scales, objective = zip(*self.stored, strict=True)
        seed = self._stream("search", iteration).initial_seed()
        best = published_proposal(torch.stack(scales), torch.tensor(objective), seed, self.beta)
        gap = self.gap
        window = Window(iteration + 1, self.scales.tolist(), gap.total, gap.by_attribute, best.acquisition)
        self.windows.append(window)
        self.scales, self.stored = best.scales, []
        return window.numbers()

    def _stream(self, purpose: str, iteration: int) -> torch.Generator:
        return generator(self.seed, f"{purpose}/{idist.get_rank()}", iteration)
