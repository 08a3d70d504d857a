"""Whether images show what was asked: corrected for the reader, with the right error."""

import numpy as np
import pytest

from bundle.evaluation.facts import asked_index, fact_share
from bundle.evaluation.prevalence import adjusted_count, judge_rates

LEVELS = ("lower", "middle", "upper")


def rates_of(matrix, subjects=3000, seed=0):
    """Measured on that many persons, one image each, by a reader with this confusion (K, K)."""
    rng = np.random.default_rng(seed)
    truth = np.arange(subjects) % len(matrix)
    calls = np.array([rng.choice(len(matrix), p=matrix[t]) for t in truth])
    return judge_rates(calls, truth, np.arange(subjects), LEVELS[: len(matrix)])


def test_of_one_value_it_is_the_adjusted_count():
    rates = rates_of([[0.9, 0.1], [0.2, 0.8]])
    called = np.arange(200) % 4 > 0
    found = fact_share(called.astype(int), np.ones(200, int), rates)
    count = adjusted_count(called.astype(int), rates)
    assert found.share.value == pytest.approx(count.value[1])
    assert found.share.standard_error == pytest.approx(count.standard_error[1])
    assert (found.read.value, found.n) == (0.75, 200)
    assert found.expected == pytest.approx(rates.matrix[1, 1])
    assert found.by_value["middle"][0] == 200


def test_values_are_weighted_by_how_often_they_are_asked_for():
    """150 asked for the first value, all called so; 50 for the second, half called so: with a reader that never errs
    (.75 x 1 + .25 x .5) = .875."""
    rates = rates_of(np.eye(3))
    asked = np.repeat([0, 1, -1], [150, 50, 30])
    called = np.concatenate([np.zeros(150, int), np.arange(50) % 2, np.full(30, 2)])
    found = fact_share(called, asked, rates)
    assert found.share.value == pytest.approx(0.875)
    assert (found.n, found.read.value) == (200, pytest.approx(0.875))
    assert {v: (n, e.value) for v, (n, e) in found.by_value.items()} == {
        "lower": (150, pytest.approx(1)),
        "middle": (50, pytest.approx(0.5)),
    }


def test_the_interval_covers():
    """Three values, a reader of 80 %, 300 persons, 600 images of which 90 % show what was asked: 400 repeats.

    A binomial share of .95 in 400 repeats lies within .95 +- 3 x .011."""
    confusion, shown = 0.7 * np.eye(3) + 0.1, 0.9
    rng, held = np.random.default_rng(1), 0
    for repeat in range(400):
        rates = rates_of(confusion, 300, seed=repeat)
        asked = rng.choice(3, 600, p=[0.5, 0.3, 0.2])
        true = np.where(rng.random(600) < shown, asked, (asked + 1) % 3)
        called = np.array([rng.choice(3, p=confusion[t]) for t in true])
        share = fact_share(called, asked, rates).share
        held += share.low <= shown <= share.high
    assert 0.915 <= held / 400 <= 0.985


def test_a_blind_reader_knows_nothing():
    rates = rates_of(np.full((2, 2), 0.5), 2000)
    same = judge_rates(np.zeros(20, int), np.arange(20) % 2, np.arange(20), LEVELS[:2])
    found = fact_share(np.zeros(50, int), np.zeros(50, int), same)
    assert np.isnan(found.share.value)
    assert (found.share.low, found.share.high) == (0, 1)
    wide = fact_share(np.arange(50) % 2, np.zeros(50, int), rates).share
    assert wide.high - wide.low > 1


def test_a_share_beyond_one_is_not_plausible():
    rates = rates_of([[0.8, 0.2], [0.2, 0.8]])
    found = fact_share(np.zeros(500, int), np.zeros(500, int), rates)
    assert found.share.low > 1
    assert not found.plausible


def test_nothing_asked():
    assert fact_share([0, 1], [-1, -1], rates_of(np.eye(2))) is None
    assert asked_index(["upper", None, "elsewhere"], LEVELS).tolist() == [2, -1, -1]
