"""Proposals against the same posterior on a grid, and what they do with bad observations."""

import time

import numpy as np
import pytest
import torch
from botorch.exceptions import InputDataError, ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood

from bundle.fairdiffusion import search
from bundle.fairdiffusion.search import initial_scales, published_proposal, repaired_proposal


def observations(number, groups, best=0.4):
    """A noisy bowl with its top at ``best``."""
    stream = torch.Generator().manual_seed(0)
    scales = torch.rand((number, groups), generator=stream, dtype=torch.float64)
    noise = torch.randn(number, generator=stream, dtype=torch.float64)
    return scales, -(scales - best).square().sum(1) + 0.02 * noise


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_proposal_is_the_largest_bound_of_a_grid(beta):
    """Mean + sqrt(beta) x deviation of the posterior at 2001 points of [0, 1]."""
    scales, objective = observations(12, 1)
    found = repaired_proposal(scales, objective, seed=0, beta=beta)
    model = SingleTaskGP(scales, objective[:, None])
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    with torch.no_grad():
        posterior = model.posterior(grid[:, None])
    bound = (posterior.mean + beta**0.5 * posterior.variance.sqrt()).flatten()
    assert found.acquisition == pytest.approx(float(bound.max()), abs=1e-4)
    assert float(found.scales) == pytest.approx(float(grid[bound.argmax()]), abs=2e-3)


def test_it_finds_the_top_of_a_bowl_in_seven_dimensions():
    scales, objective = observations(50, 7)
    for propose in (repaired_proposal, published_proposal):
        found = propose(scales, objective, seed=0).scales
        assert found.shape == (7,)
        assert float((found - 0.4).abs().max()) < 0.15


def test_precision_is_what_each_says():
    scales, objective = observations(6, 2)
    assert published_proposal(scales, objective, seed=0).scales.dtype == torch.float32
    assert repaired_proposal(scales.float(), objective.float(), seed=0).scales.dtype == torch.float64


@pytest.mark.parametrize("propose", [repaired_proposal, published_proposal])
def test_it_depends_on_the_seed_and_touches_no_global_stream(propose):
    scales, objective = observations(6, 2)
    before, drawn, threads = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()  # noqa: NPY002
    first = propose(scales, objective, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], drawn)  # noqa: NPY002
    assert torch.get_num_threads() == threads
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = propose(scales, objective, seed=3)
    assert torch.equal(first.scales, again.scales)
    assert first.acquisition == again.acquisition


class TestBadObservations:
    def test_a_constant_objective_gives_some_point(self):
        scales, _ = observations(8, 3)
        found = repaired_proposal(scales, torch.full((8,), -0.2), seed=0)
        assert bool(((found.scales >= 0) & (found.scales <= 1)).all())
        assert found.acquisition == pytest.approx(-0.2, abs=0.1)  # nothing else was seen; the rest is doubt

    def test_what_is_no_number_gives_none_and_is_published_as_an_error(self):
        scales, objective = observations(8, 3)
        objective[2] = torch.nan
        assert repaired_proposal(scales, objective, seed=0) is None
        with pytest.raises(InputDataError):
            published_proposal(scales, objective, seed=0)

    def test_one_observation_gives_none(self):
        assert repaired_proposal(*observations(1, 3), seed=0) is None

    def test_a_fit_that_fails_gives_none_and_is_published_as_an_error(self, monkeypatch):
        def fail(_):
            raise ModelFittingError

        monkeypatch.setattr(search, "fit_gpytorch_mll", fail)
        assert repaired_proposal(*observations(8, 3), seed=0) is None
        with pytest.raises(ModelFittingError):
            published_proposal(*observations(8, 3), seed=0)


def test_the_first_scales_fill_the_cube():
    """Eight points of a scrambled Sobol sequence: one in each eighth of every axis."""
    points = torch.stack([initial_scales(window, 4, seed=5) for window in range(8)])
    assert points.dtype == torch.float64
    for column in points.T:
        assert sorted((8 * column).long().tolist()) == list(range(8))
    assert not torch.equal(points[0], initial_scales(0, 4, seed=6))


@pytest.mark.slow
def test_seven_groups_and_fifty_windows_take_under_two_seconds():
    """About .3 s on two cores; the limit is generous."""
    scales, objective = observations(50, 7)
    repaired_proposal(scales, objective, seed=0)
    start = time.perf_counter()
    repaired_proposal(scales, objective, seed=1)
    assert time.perf_counter() - start < 2
