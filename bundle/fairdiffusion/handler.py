"""The Ignite handler that adds Fair Bayesian Perturbation to a stock trainer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from bundle.errors import InputError
from bundle.fairdiffusion.plot import write_record
from bundle.fairdiffusion.published import Published
from bundle.fairdiffusion.repaired import Repaired
from bundle.fairdiffusion.weighting import reweigh

if TYPE_CHECKING:
    from bundle.fairdiffusion.groups import Groups
    from bundle.training.probe import DenoisingProbe

logger = logging.getLogger(__name__)


class FairBayesianPerturbation:
    """Weighs the losses of a batch at random, by scales per group that a Bayesian search sets (arXiv 2412.20374).

    Args:
        groups: G groups of A attributes.
        members: places of the training latents' groups, (N, A).
        mode: ``repaired``, or ``published`` with the faults of its authors' code (:class:`Published`).
        window: iterations between two decisions of the search.
        exploitation: weight of the search's point against chance.
        beta: of the upper confidence bound.
        probe: latents on which the repaired search measures the gap; ``probe_members`` (M, A) are their groups.
        num_initial, history, least: of the repaired search (:class:`Repaired`).
        folder: where ``perturbation.png`` and ``perturbation.csv`` are written after each window.

    Each iteration adds to the engine's output ``scale/<attribute>/<group>`` and ``weight_min``, and the end of a window
    ``gap``, ``gap/<attribute>``, ``acquisition``, ``probe_seconds`` and ``search_seconds``. The trainer may not
    accumulate gradients. Raises InputError for an unknown mode or a repaired search without probe.
    """

    def __init__(
        self,
        groups: Groups,
        members: Tensor,
        seed: int,
        mode: str = "repaired",
        window: int = 30,
        exploitation: float = 0.95,
        beta: float = 0.1,
        probe: DenoisingProbe | None = None,
        probe_members: Tensor | None = None,
        num_initial: int = 4,
        history: int = 50,
        least: int = 8,
        folder: str | Path | None = None,
    ):
        self.groups, self.members, self.mode, self.folder = groups, members, mode, folder
        common = {"groups": groups, "seed": seed, "window": window, "exploitation": exploitation, "beta": beta}
        if window < 1:
            raise InputError(f"window {window}: give the number of iterations between two decisions, 1 or more")
        if not 0 <= exploitation <= 1:
            raise InputError(f"exploitation {exploitation}: give the search's share of the scales, from 0 to 1")
        if beta < 0 or min(num_initial, history, least) < 1:
            given = f"beta {beta}, num_initial {num_initial}, history {history}, least {least}"
            raise InputError(f"{given}: beta may not be negative, the others are 1 or more")
        if mode == "published":
            self.search = Published(**common)
        elif mode != "repaired":
            raise InputError(f"mode '{mode}': give repaired or published")
        elif probe is None or probe_members is None:
            raise InputError("mode 'repaired' measures its gap on a probe: give probe and probe_members")
        else:
            chosen = {"num_initial": num_initial, "history": history, "least": least}
            self.search = Repaired(probe=probe, probe_members=probe_members, **common, **chosen)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._weigh)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._finish)

    def state_dict(self) -> dict:
        return self.search.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.search.load_state_dict(state)

    def _weigh(self, engine: Engine) -> None:
        reweigh(engine, self.members, self.search)
        scales = self.search.scales.tolist()
        engine.state.output.update({f"scale/{name}": scale for name, scale in zip(self.groups.names, scales)})

    def _finish(self, engine: Engine) -> None:
        known = len(self.search.windows)
        engine.state.output.update(self.search.finish(engine))
        new = len(self.search.windows) > known
        if new and self.folder is not None and idist.get_rank() == 0:
            write_record(self.search.windows, self.groups, self.folder)

    def _start(self, engine: Engine) -> None:
        if getattr(engine, "accumulation_steps", 1) != 1:
            raise InputError("train::trainer: set accumulation_steps to 1 for the perturbation")
        line = "perturbation: %s, a decision every %d iterations for %s"
        logger.info(line, self.mode, self.search.window, ", ".join(self.groups.names))
