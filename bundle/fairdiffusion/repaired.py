"""Fair Bayesian Perturbation with its published faults repaired."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from bundle.fairdiffusion.perturbation import Gap, relative, repaired_gap, repaired_weights
from bundle.fairdiffusion.record import Window
from bundle.fairdiffusion.search import initial_scales, repaired_proposal
from bundle.randomness import generator, local_part

if TYPE_CHECKING:
    from bundle.fairdiffusion.groups import Groups
    from bundle.training.probe import DenoisingProbe

logger = logging.getLogger(__name__)


class Repaired:
    """Scales that are held for a window of optimiser steps and judged by the gap that the window leaves behind.

    The gap is measured on a probe, whose latents share timesteps and noise. The first process measures and decides
    for all.

    Args:
        probe: fixed latents; ``probe_members`` (M, A) are their groups' places.
        window: optimiser steps for which scales are held.
        exploitation: share of the proposed point in the next scales; the rest is drawn from [0, 1].
        beta: of the upper confidence bound.
        num_initial: windows whose scales are points of a Sobol sequence.
        history: most recent windows that a proposal looks at.
        least: latents of the probe that a group's mean loss needs.
    """

    def __init__(
        self,
        groups: Groups,
        seed: int,
        probe: DenoisingProbe,
        probe_members: Tensor,
        window: int,
        exploitation: float,
        beta: float,
        num_initial: int,
        history: int,
        least: int,
    ):
        self.groups, self.seed, self.probe, self.probe_members = groups, seed, probe, probe_members
        self.window, self.exploitation, self.beta = window, exploitation, beta
        self.num_initial, self.history, self.least = num_initial, history, least
        self.scales = initial_scales(0, len(groups), seed)
        self.windows: list[Window] = []

    def state_dict(self) -> dict:
        return {"scales": self.scales, "windows": [asdict(window) for window in self.windows]}

    def load_state_dict(self, state: dict) -> None:
        self.scales = state["scales"].cpu()
        self.windows = [Window(**window) for window in state["windows"]]

    def weights(self, iteration: int, members: Tensor, losses: Tensor) -> Tensor:
        batch = len(members) * idist.get_world_size()
        stream = generator(self.seed, "perturbation", iteration)
        noise = local_part(torch.randn((batch, members.shape[1]), generator=stream))
        return repaired_weights(self.scales.float(), members, noise)

    def finish(self, engine: Engine) -> dict[str, float]:
        """At the end of a window, after the optimiser's step: observe, and choose the next window's scales."""
        iteration, numbers = engine.state.iteration, {}
        if iteration % self.window:
            return numbers
        if idist.get_rank() == 0:
            numbers = self._decide(getattr(engine.network, "module", engine.network), iteration)
        self.scales = idist.broadcast(self.scales, src=0).cpu()
        return numbers

    def _decide(self, network: nn.Module, iteration: int) -> dict[str, float]:
        start = time.perf_counter()
        gap = self.measure(network)
        seconds = {"probe_seconds": time.perf_counter() - start}
        if gap is None or not math.isfinite(gap.total):
            logger.warning("iteration %d: the probe shows no finite gap; scales stay as they are", iteration)
            return seconds
        start = time.perf_counter()
        window = Window(iteration, self.scales.tolist(), gap.total, gap.by_attribute, None)
        self.scales, bound = self._next([*self.windows, window], iteration)
        window = replace(window, acquisition=bound)
        self.windows = [*self.windows, window]
        return seconds | {"search_seconds": time.perf_counter() - start} | window.numbers()

    def measure(self, network: nn.Module) -> Gap | None:
        """The gap between groups that the probe shows of a network."""
        return repaired_gap(relative(self.probe.losses(network)), self.probe_members, self.groups, self.least)

    def _next(self, observed: list[Window], iteration: int) -> tuple[Tensor, float | None]:
        """Scales of the window that follows ``iteration``, and the bound that chose them, None without a process."""
        number, window = len(self.groups), iteration // self.window
        if window < self.num_initial:
            return initial_scales(window, number, self.seed), None
        recent = observed[-self.history :]
        scales = torch.tensor([entry.scales for entry in recent], dtype=torch.float64)
        objective = -torch.tensor([entry.gap for entry in recent], dtype=torch.float64)
        seed = generator(self.seed, "search", window).initial_seed()
        best = repaired_proposal(scales, objective, seed, self.beta)
        if best is None:
            logger.warning("iteration %d: no Gaussian process fits the gaps; scales stay as they are", iteration)
            return self.scales, None
        drawn = torch.rand(number, generator=generator(self.seed, "scales", window), dtype=torch.float64)
        return self.exploitation * best.scales + (1 - self.exploitation) * drawn, best.acquisition
