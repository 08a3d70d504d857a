"""When to stop the alignment early: by the guide, on the averaged weights; the judge has no say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from bundle.evaluation.prevalence import JudgeRates, adjusted_count, verdict
from bundle.generation import Draws, Sampler

if TYPE_CHECKING:
    from bundle.networks.classifier import AttributeClassifier
    from bundle.training.average import WeightAverage

logger = logging.getLogger(__name__)


class StoppingRule:
    """Ends the run when the averaged model is aligned by the guide at ``patience`` checks in a row.

    Args:
        average: the averaged weights that are sampled.
        draws: noises and prompts of a check; each check uses the same ones.
        rates: the guide's, on decoded images.
        target: true proportions (G,); ``margin`` the half width that the 90 % interval must stay within.
        interval: iterations between checks.
    """

    def __init__(
        self,
        average: WeightAverage,
        sampler: Sampler,
        guide: AttributeClassifier,
        draws: Draws,
        rates: JudgeRates,
        target: Tensor,
        margin: float = 0.05,
        interval: int = 5,
        patience: int = 3,
    ):
        self.average, self.sampler, self.guide, self.draws = average, sampler, guide, draws
        self.rates, self.target, self.margin = rates, target.numpy(), margin
        self.interval, self.patience = interval, patience
        self.in_a_row = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._end)  # a run that had stopped is started again
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self)

    def __call__(self, engine: Engine) -> None:
        images = self.sampler.images(self.average.network, self.draws, label="stopping check")
        count = adjusted_count(self.guide.predict(images).argmax(1).numpy(), self.rates)
        aligned = verdict(count, self.target, self.margin) == "aligned"
        self.in_a_row = self.in_a_row + 1 if aligned else 0
        logger.info("stopping check: guide's share %s, aligned %d times in a row", count.value.round(3), self.in_a_row)
        self._end(engine)

    def _end(self, engine: Engine) -> None:
        if idist.all_reduce(torch.tensor(float(self.in_a_row)), "MIN") >= self.patience:
            engine.terminate()

    def state_dict(self) -> dict:
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict) -> None:
        self.in_a_row = state["in_a_row"]
