"""The Ignite handler that adds the alignment to a stock trainer."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from bundle.alignment.step import AlignmentStep
from bundle.errors import InputError

if TYPE_CHECKING:
    from bundle.networks.classifier import AttributeClassifier

logger = logging.getLogger(__name__)

MAX_SKIPPED = 10


class SubgroupAlignment:
    """Adds the alignment's clipped gradient to the anchor's after its backward pass, before the optimiser's step.

    Args:
        step: one iteration of the alignment.
        max_norm: the alignment's gradient is clipped to this norm by itself; the anchor's is left alone.
        anchor_weight: weight of the trainer's own loss, applied to its gradient.
        judge: watched, never followed; when guide and judge agree on less than ``min_agreement`` of the last
            ``watched`` images, the log says so.

    The trainer may neither accumulate nor compile: both would hide the gradients that this handler adds to.
    """

    def __init__(
        self,
        step: AlignmentStep,
        max_norm: float = 1.0,
        anchor_weight: float = 0.5,
        judge: AttributeClassifier | None = None,
        min_agreement: float = 0.85,
        watched: int = 256,
    ):
        self.step = step
        self.max_norm = max_norm
        self.anchor_weight = anchor_weight
        self.judge = judge
        self.min_agreement = min_agreement
        self.agreed: deque[bool] = deque(maxlen=watched)
        self.skipped = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def state_dict(self) -> dict:
        return {"integral": self.step.integral.state_dict(), "skipped": self.skipped, "agreed": list(self.agreed)}

    def load_state_dict(self, state: dict) -> None:
        self.step.integral.load_state_dict(state["integral"])
        self.skipped = state["skipped"]
        self.agreed = deque(state["agreed"], self.agreed.maxlen)

    def __call__(self, engine: Engine) -> None:
        network = getattr(engine.network, "module", engine.network)
        parameters = [p for p in network.parameters() if p.requires_grad]
        scale = engine.scaler.get_scale() if engine.amp and engine.scaler is not None else 1.0
        before = self.step.integral.state_dict()
        result = self.step(network, engine.state.iteration - 1, scale)
        gradients = _mean_over_processes(result.gradients)
        anchor = [None if p.grad is None else p.grad.mul_(self.anchor_weight) for p in parameters]
        norms = _norms(gradients, anchor, scale)
        finite = bool(torch.isfinite(norms["alignment_norm"] + norms["anchor_norm"]))
        if finite:
            self._add(parameters, gradients, norms["alignment_norm"])
        else:
            self._skip(engine, parameters, before)
        self.skipped = 0 if finite else self.skipped + 1
        engine.state.output.update(self._report(engine, result, norms, finite))
        if self.skipped == MAX_SKIPPED:
            raise RuntimeError(f"gradients not finite in {MAX_SKIPPED} iterations in a row; lower the learning rate")

    def _add(self, parameters, gradients: list[Tensor], norm: Tensor) -> None:
        factor = float(self.max_norm / norm.clamp_min(self.max_norm))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            added = gradient.mul_(factor)
            parameter.grad = added if parameter.grad is None else parameter.grad.add_(added)

    def _skip(self, engine: Engine, parameters, integral: dict) -> None:
        self.step.integral.load_state_dict(integral)
        scaling = engine.amp and engine.scaler is not None and engine.scaler.is_enabled()
        for parameter in parameters:
            # A scaler must see the overflow itself: it skips the step and lowers its scale.
            parameter.grad = torch.full_like(parameter, float("nan")) if scaling else None

    def _report(self, engine: Engine, result, norms: dict[str, Tensor], finite: bool) -> dict:
        terms = {**result.losses, **{name: float(value) for name, value in norms.items()}}
        anchor = float(engine.state.output["loss"].detach())
        total = self.anchor_weight * anchor + terms["alignment"] + self.step.options.consistency * terms["consistency"]
        shares = {f"share_{i}": float(value) for i, value in enumerate(result.share)}
        agreement = self._watch(result.images) if finite else float("nan")
        return terms | shares | {"anchor": anchor, "total": total, "skipped": float(not finite), "agreement": agreement}

    @torch.no_grad()
    def _watch(self, images: Tensor) -> float:
        if self.judge is None:
            return float("nan")
        agreed = self.step.guide(images).argmax(1) == self.judge(images.clamp(0, 1)).argmax(1)
        self.agreed.extend(idist.all_gather(agreed.to(torch.int64)).bool().tolist())
        share = sum(self.agreed) / len(self.agreed)
        if len(self.agreed) == self.agreed.maxlen and share < self.min_agreement:
            line = "guide and judge agree on %.2f of the last %d images: the tuning may be fooling the guide"
            logger.warning(line, share, len(self.agreed))
        return share

    def _start(self, engine: Engine) -> None:
        # Not in ``attach``: MONAI's trainer attaches its handlers before it sets these two.
        if getattr(engine, "accumulation_steps", 1) != 1 or getattr(engine, "compile", False):
            raise InputError("train::trainer: set accumulation_steps to 1 and compile to false for the alignment")
        length = len(self.step.sampler.schedule)
        logger.info(
            "alignment: %d iterations of %d images, %d steps each, %d of them followed; targets %s",
            engine.state.max_epochs * engine.state.epoch_length,
            self.step.options.batch_size,
            length,
            self.step.options.num_followed,
            {name: [round(float(v), 3) for v in target] for name, target in self.step.targets.items()},
        )


def _mean_over_processes(gradients: list[Tensor]) -> list[Tensor]:
    """The gradient of the whole batch from those of each process's part, in one reduction."""
    if idist.get_world_size() == 1:
        return gradients
    mean = idist.all_reduce(torch.cat([gradient.flatten() for gradient in gradients])) / idist.get_world_size()
    parts = mean.split([gradient.numel() for gradient in gradients])
    return [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]


def _norms(alignment: list[Tensor], anchor: list[Tensor | None], scale: float) -> dict[str, Tensor]:
    """Norms of both gradients and the cosine between them, in the unscaled domain."""
    zero = alignment[0].new_zeros(())
    both = [(a / scale, zero if b is None else b / scale) for a, b in zip(alignment, anchor, strict=True)]
    first = sum(((a * a).sum() for a, _ in both), zero).sqrt()
    second = sum(((b * b).sum() for _, b in both), zero).sqrt()
    inner = sum(((a * b).sum() for a, b in both), zero)
    cosine = inner / (first * second).clamp_min(1e-12)
    return {"alignment_norm": first, "anchor_norm": second, "gradient_cosine": cosine}
