"""Checkpoints that a killed run continues from, exactly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from bundle.errors import InputError
from bundle.files import read_tensors, write_tensors
from bundle.training.draws import Batches

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, settings: Mapping[str, Any]) -> dict | None:
    """What a run of these settings has left at ``path``; None before its first checkpoint.

    Raises InputError for a checkpoint of other settings. A job that computes much before it trains asks this first.
    """
    path = Path(path)
    if not path.is_file():
        return None
    saved = read_tensors(path)
    changed = sorted(name for name, value in settings.items() if saved["settings"].get(name) != str(value))
    if changed:
        raise InputError(
            f"{path}: made with {changed[0]} = {saved['settings'].get(changed[0])}, now {settings[changed[0]]}; "
            "give another --output_dir or delete that folder"
        )
    return saved


class Checkpoint:
    """Saves all that a run needs to go on, every ``interval`` iterations and at the end, and loads it at the start.

    Args:
        path: one file, written beside and renamed; it is the last one or the one before, never a part.
        objects: name -> anything with ``state_dict`` and ``load_state_dict`` (network, optimiser, schedule, average,
            handlers with a state). The AMP scaler, the engine's position and torch's own random state, from which an
            autoencoder draws, are added.
        draws: told where to go on.
        settings: what the run was started with; a checkpoint made with other settings is refused.

    Put it last in the list of handlers: what acts on the end of an iteration must have acted before it saves. Raises
    InputError when it is attached and finds a checkpoint of other settings.
    """

    def __init__(
        self,
        path: str | Path,
        objects: Mapping[str, Any],
        draws: Batches,
        settings: Mapping[str, Any],
        interval: int = 5,
    ):
        self.path, self.objects, self.draws, self.interval = Path(path), dict(objects), draws, interval
        self.settings = {key: str(value) for key, value in settings.items()}

    def attach(self, engine: Engine) -> None:
        read_checkpoint(self.path, self.settings)
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self.save)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        if idist.get_rank() != 0:
            return
        state = {name: item.state_dict() for name, item in self.objects.items()}
        scaler = getattr(engine, "scaler", None)
        engine_state = {
            "iteration": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "max_epochs": engine.state.max_epochs,
        }
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        extra = {"engine": engine_state, "settings": self.settings, "scaler": scaler.state_dict() if scaler else {}}
        write_tensors({"objects": state, "random": random, **extra}, self.path)

    def load(self, engine: Engine) -> None:
        saved = read_checkpoint(self.path, self.settings)
        if saved is None:
            return
        for name, item in self.objects.items():
            item.load_state_dict(saved["objects"][name])
        if saved["scaler"] and engine.scaler is not None:
            engine.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["random"]["cpu"])
        if len(saved["random"]["cuda"]) == torch.cuda.device_count():  # else it goes on on another machine
            torch.cuda.set_rng_state_all(saved["random"]["cuda"])
        engine.load_state_dict(saved["engine"])
        self.draws.start = saved["engine"]["iteration"]
        finished = self.draws.start == engine.state.max_epochs * engine.state.epoch_length
        logger.info("%s: %s after iteration %d", self.path, "finished" if finished else "going on", self.draws.start)
