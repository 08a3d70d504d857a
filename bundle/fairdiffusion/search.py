"""The search for scales: a Gaussian process of the objective, and the point of its largest upper confidence bound."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from botorch.acquisition import UpperConfidenceBound
from botorch.exceptions import BotorchError, BotorchWarning, ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from botorch.optim import optimize_acqf
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor
from torch.quasirandom import SobolEngine

NUM_RESTARTS = 5
NUM_RAW = 20


@dataclass(frozen=True)
class Proposal:
    """Scales (G,) in [0, 1], and the upper confidence bound there, in units of the objective."""

    scales: Tensor
    acquisition: float


def initial_scales(window: int, number: int, seed: int) -> Tensor:
    """Scales (``number``,) float64 of one of the first windows: a point of a scrambled Sobol sequence."""
    return SobolEngine(number, scramble=True, seed=seed).draw(window + 1, dtype=torch.float64)[window]


def published_proposal(scales: Tensor, objective: Tensor, seed: int, beta: float = 0.1) -> Proposal:
    """The point that FairDiffusion's published code takes (arXiv 2412.20374), in single precision; errors are raised.

    What the code leaves to the library is what botorch 0.18 does: a squared-exponential kernel whose prior lengths grow
    with the number of groups, and an objective standardised to mean 0 and deviation 1; versions before 0.12 took a
    Matern kernel and the objective as it was. The scales lie in the unit cube and need no scaling.

    Args:
        scales: of the observations, (n, G).
        objective: minus the gap of each, (n,).
        seed: of the starting points of the optimisation; the global stream is neither read nor moved.
        beta: the bound is the posterior's mean plus the root of ``beta`` times its deviation.
    """
    scales, objective = scales.float(), objective.float()[:, None]
    with _apart(seed):
        return _best(SingleTaskGP(scales, objective), beta)


def repaired_proposal(scales: Tensor, objective: Tensor, seed: int, beta: float = 0.1) -> Proposal | None:
    """As :func:`published_proposal`, in double precision on the CPU with an objective that is standardised here.

    Returns None where no process can be fitted: under two observations, numbers that are not finite, a fit that fails.
    """
    scales, objective = scales.detach().cpu().double(), objective.detach().cpu().double()[:, None]
    if len(scales) < 2:
        return None
    with _apart(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        try:
            best = _best(SingleTaskGP(scales, objective, outcome_transform=Standardize(1)), beta)
        except (BotorchError, ModelFittingError, RuntimeError):  # the last from the decomposition of a matrix
            return None
    return best if math.isfinite(best.acquisition) and bool(best.scales.isfinite().all()) else None


@contextmanager
def _apart(seed: int) -> Iterator[None]:
    """botorch draws from torch's global stream: give it one of its own, and one thread, with which it is fastest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _best(model: SingleTaskGP, beta: float) -> Proposal:
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    inputs = model.train_inputs[0]
    bounds = torch.tensor([[0.0], [1.0]], dtype=inputs.dtype).expand(2, inputs.shape[-1])
    bound = UpperConfidenceBound(model, beta=beta)
    point, value = optimize_acqf(bound, bounds, q=1, num_restarts=NUM_RESTARTS, raw_samples=NUM_RAW)
    return Proposal(point[0].detach(), float(value))
