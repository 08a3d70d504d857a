"""The published mode against the published equations written out again, in loops, from the same random numbers."""

import math

import numpy as np
import pytest
import torch
from monai.engines.utils import IterationEvents

from bundle.fairdiffusion import published
from bundle.fairdiffusion.search import Proposal
from bundle.randomness import generator
from tests.fairdiffusion.toy import perturbation, toy_job, toy_members
from tests.toy import At

PERIOD, KEEP = 3, 0.95
EPOCH, EPOCHS = 7, 2
NUM_LABELS = (3, 2)  # of race and sex; the published code keeps the scales of both in one row
FIRST = (0, 3)
ONE = np.float32(1)


class Told:
    """Stands in for the Gaussian process: keeps what it is given and answers with points known in advance."""

    def __init__(self):
        self.asked = []

    def __call__(self, scales, objective, seed, beta):
        self.asked.append((scales.numpy().copy(), objective.numpy().copy(), beta))
        return Proposal(torch.full((5,), 0.1 * len(self.asked)), -0.5)


def normal(step):
    return torch.randn((8, 2), generator=generator(0, "perturbation/0", step)).numpy()


def uniform(step):
    return torch.rand(5, generator=generator(0, "walk/0", step)).numpy()


def restated(batches):
    """Weighted loss of every step, scales of every step, and the pairs that each fit was given."""
    sigma = np.ones(5, dtype=np.float32)
    losses, sigmas, fits, memory = [], [], [], []
    for step, (prediction, target, label) in enumerate(batches):
        error = ((prediction - target) ** 2).reshape(8, -1).mean(axis=1)
        xi, weighted = normal(step), []
        for b in range(8):
            factor = ONE
            for a in range(2):
                factor = factor + sigma[FIRST[a] + label[b, a]] * xi[b, a]
            weighted.append(factor * error[b])
        losses.append(float(np.mean(weighted)))
        total = 0.0
        for a in range(2):
            averages = []
            for g in range(NUM_LABELS[a]):
                chosen = [error[b] for b in range(8) if label[b, a] == g]
                averages.append(np.mean(chosen) if chosen else np.nan)
            spread = max(averages) - min(averages) if not any(map(math.isnan, averages)) else 0.0
            total += spread
        memory.append((sigma.copy(), -total))
        sigmas.append(sigma.copy())
        place = step % EPOCH
        if place > 0 and place % PERIOD == 0:
            fits.append(memory)
            memory = []
            sigma = np.full(5, 0.1 * len(fits), dtype=np.float32)
        sigma = np.float32(KEEP) * sigma + np.float32(1 - KEEP) * uniform(step)
    return losses, sigmas, fits


@pytest.fixture
def recorded(monkeypatch):
    """A run of two epochs on the stock trainer, and the batches it saw."""
    told, batches, losses = Told(), [], []
    monkeypatch.setattr(published, "published_proposal", told)
    handler = perturbation(mode="published", window=PERIOD, exploitation=KEEP, probe=None, probe_members=None)

    def look(engine):
        output, index = engine.state.output, engine.state.batch["index"]
        label = (toy_members()[index] - torch.tensor(FIRST)).numpy()
        batches.append((output["pred"].detach().numpy(), output["label"].numpy(), label))
        losses.append(float(output["loss"].detach()))

    job = toy_job(handler, iterations=EPOCH, max_epochs=EPOCHS)
    At(IterationEvents.BACKWARD_COMPLETED, look).attach(job.trainer)
    job.run()
    return told, batches, losses, job.history


def test_it_does_what_the_published_equations_say(recorded):
    told, batches, losses, history = recorded
    expected_losses, expected_sigmas, fits = restated(batches)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for entry, sigma in zip(history, expected_sigmas, strict=True):
        found = [value for name, value in entry.items() if name.startswith("scale/")]
        assert found == pytest.approx(sigma.tolist(), rel=1e-6)
    # Steps 3 and 6 of each epoch: 4, 3, 1 + 3 and 3 pairs
    assert [len(fit) for fit in fits] == [4, 3, 4, 3]
    for (scales, objective, beta), fit in zip(told.asked, fits, strict=True):
        assert beta == 0.1
        assert scales.dtype == objective.dtype == np.float32
        assert np.allclose(scales, [sigma for sigma, _ in fit], rtol=1e-6)
        assert np.allclose(objective, [y for _, y in fit], rtol=1e-5)


def test_between_fits_the_scales_forget(recorded):
    """.95^3 of the point is left three steps after it, the rest is the mean of what was drawn."""
    *_, history = recorded
    found = torch.tensor([value for name, value in history[6].items() if name.startswith("scale/")])
    left = 0.95**3 * 0.1 + 0.05 * sum(0.95 ** (5 - step) * torch.from_numpy(uniform(step)) for step in (3, 4, 5))
    assert torch.allclose(found, left, rtol=1e-5)
