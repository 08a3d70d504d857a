"""The stopping rule: what counts as aligned, how often in a row, and what a restart makes of it."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from bundle.alignment.stopping import StoppingRule
from bundle.evaluation.prevalence import judge_rates
from tests.toy import LATENT, toy_step

TRUTH = np.repeat([0, 1], 500)
SURE = judge_rates(TRUTH, TRUTH, np.arange(1000), ("female", "male"))


class Average:
    """Stands in for the averaged weights."""

    def __init__(self, network):
        self.network = network


@pytest.fixture
def rule(tmp_path):
    """A stopping rule whose images show the second group in the shares given, one per check."""
    denoiser, step = toy_step(tmp_path)
    draws = step.pool.draws

    def make(*shares, **changes):
        settings = {"rates": SURE, "target": torch.tensor([0.4, 0.6]).double(), "interval": 2, "patience": 3}
        made = StoppingRule(Average(denoiser), step.sampler, step.guide, draws, **{**settings, **changes})
        remaining = iter(shares)

        def images(network, drawn, label):
            assert network is denoiser
            assert drawn is draws
            share = next(remaining)
            return (torch.arange(2000) < share * 2000).float()

        made.sampler = type("Shown", (), {"images": staticmethod(images)})
        made.guide = type("Exact", (), {"predict": staticmethod(lambda shown: torch.stack([1 - shown, shown], 1))})
        return made

    return make


def run(rule, iterations=20, load=None):
    engine = Engine(lambda *_: None)
    rule.attach(engine)
    if load is not None:
        engine.add_event_handler(Events.STARTED, lambda _: rule.load_state_dict(load))
    engine.run(range(iterations))
    return engine.state.iteration


def test_three_checks_in_a_row_end_the_run(rule):
    # Checks after 2, 4, 6, ... iterations; with 2,000 images the 90 % interval of .60 is about +-.02.
    assert run(rule(0.80, 0.61, 0.80, 0.60, 0.59, 0.61)) == 12


def test_an_interval_that_leaves_the_margin_does_not_count(rule):
    assert run(rule(*[0.64] * 10)) == 20


def test_the_guides_errors_are_taken_out(rule):
    """A guide that calls f + (s - f) .6 = .1 + .7 * .6 = .52 of the images at the target."""
    calls = np.where(np.arange(1000) % 10 < np.where(TRUTH == 1, 8, 1), 1, 0)
    rates = judge_rates(calls, TRUTH, np.arange(1000), ("female", "male"))
    assert rates.matrix[:, 1] == pytest.approx([0.1, 0.8])
    assert run(rule(*[0.52] * 10, rates=rates, margin=0.08)) == 6
    assert run(rule(*[0.60] * 10, rates=rates, margin=0.08)) == 20


def test_a_restart_counts_on(rule):
    first = rule(0.60, 0.60)
    run(first, iterations=4)
    assert run(rule(0.60), load=first.state_dict()) == 2


def test_a_run_that_had_stopped_is_not_taken_up_again(rule):
    assert run(rule(), load={"in_a_row": 3}) == 0


def test_it_samples_the_averaged_network(tmp_path):
    denoiser, step = toy_step(tmp_path)
    made = StoppingRule(
        Average(denoiser), step.sampler, step.guide, step.pool.draws, SURE, torch.tensor([0.5, 0.5]), interval=1
    )
    assert run(made, iterations=1) == 1
    assert made.in_a_row in (0, 1)
    assert step.pool.draws.noise.shape[1:] == LATENT
