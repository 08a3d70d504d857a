"""An exponential moving average of the weights, and snapshots of it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from bundle.files import write_whole
from bundle.tuning import Variant, trainable
from bundle.weights import save_weights


class WeightAverage:
    """EMA of a network's trainable parameters, begun at their present values.

    ``decay`` is the share that stays at each step. ``network`` is the network with the averaged values.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network, self.decay = Variant(network), decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        present = list(trainable(network).values())
        torch._foreach_lerp_(list(self.network.values.values()), present, 1 - self.decay)

    def state_dict(self) -> dict:
        return dict(self.network.values)

    def load_state_dict(self, state: dict) -> None:
        for name, value in self.network.values.items():
            value.copy_(state[name])


class Averaging:
    """The handler that keeps a :class:`WeightAverage` up to date."""

    def __init__(self, average: WeightAverage):
        self.average = average

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if not engine.state.output.get("skipped", 0.0):
            self.average.update(getattr(engine.network, "module", engine.network))


class Snapshots:
    """Writes the averaged weights after given iterations to ``folder/iteration_NNNN.pt``, and after how many seconds
    of training to ``folder/index.json``."""

    def __init__(self, average: WeightAverage, folder: str | Path, iterations: Sequence[int]):
        self.average, self.folder, self.iterations = average, Path(folder), frozenset(iterations)
        self.seconds: dict[str, float] = {}
        self.before, self.started = 0.0, time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self.started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training, over all restarts."""
        return self.before + time.monotonic() - self.started

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration in self.iterations and idist.get_rank() == 0:
            save_weights(self.average.network, self.folder / f"iteration_{engine.state.iteration:04d}.pt")
            self.seconds[str(engine.state.iteration)] = round(self.elapsed(), 1)
            write_whole(self.folder / "index.json", json.dumps(self.seconds).encode())

    def state_dict(self) -> dict:
        return {"seconds": dict(self.seconds), "elapsed": self.elapsed()}

    def load_state_dict(self, state: dict) -> None:
        self.seconds, self.before = dict(state["seconds"]), state["elapsed"]


class Attached:
    """Attaches a handler that the config builds elsewhere, because a checkpoint must reach it too."""

    def __init__(self, handler: Any):
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        self.handler.attach(engine)
