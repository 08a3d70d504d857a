"""Equity-scaled scores by hand, and what they come to without any difference between groups."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from bundle.errors import InputError
from bundle.evaluation.distances import frechet_distance
from bundle.evaluation.equity import equity_scaled, fair_scores


def test_by_hand():
    # The groups lie .05 and .15 from .8: .8 / 1.2; a distance of 10 with groups 2 and 1 from it: 10 x 4.
    assert equity_scaled(0.8, {"a": 0.85, "b": 0.65}) == pytest.approx(0.8 / 1.2)
    assert equity_scaled(10, {"a": 12, "b": 9}, higher_is_better=False) == pytest.approx(10 * (1 + 2 + 1))
    assert equity_scaled(0.8, {"a": 0.8, "b": 0.8}) == 0.8


def test_chance_alone_scales_an_auc_of_85_down_to_745():
    """Five groups of equal true AUC .85 among 1,000 cases; .745 is the figure of an earlier simulation."""
    rng = np.random.default_rng(0)
    groups = np.repeat(list("abcde"), [600, 200, 100, 50, 50])
    shift = np.sqrt(2) * norm.ppf(0.85)  # of two normal distributions whose AUC is .85
    scores = []
    for _ in range(100):
        truth = rng.integers(0, 2, 1000)
        score = rng.normal(size=1000) + shift * truth
        by_group = {g: roc_auc_score(truth[groups == g], score[groups == g]) for g in "abcde"}
        scores.append(equity_scaled(roc_auc_score(truth, score), by_group))
    assert np.mean(scores) == pytest.approx(0.745, abs=0.01)


def test_fair_scores_are_those_of_every_deal():
    """Three subjects, one of two images, and two generated images: 3 x 2 deals of the names, all equally likely."""
    real, generated = np.array([[1.0], [2.0], [4.0], [8.0]]), np.array([[1.5], [7.0]])
    names, person, there = np.array(["a", "b", "b"]), np.array([0, 0, 1, 2]), np.array(["a", "b"])

    def measure(x, y):
        return x.mean() + 10 * y.mean()

    def score(here, dealt):
        by_group = {g: measure(real[here == g], generated[dealt == g]) for g in "ab"}
        return equity_scaled(measure(real, generated), by_group)

    deals = itertools.product(itertools.permutations(names), itertools.permutations(there))
    expected = sorted({round(score(np.array(n)[person], np.array(t)), 9) for n, t in deals})
    assert len(expected) == 6
    scores = fair_scores(measure, real, generated, names[person], there, list("xxyz"), repeats=600)
    seen, counts = np.unique(scores.round(9), return_counts=True)
    assert seen == pytest.approx(expected)
    # Each of six has chance 1/6: 100 of 600, standard deviation sqrt(600 x 1/6 x 5/6) = 9.1.
    assert counts == pytest.approx(100, abs=40)


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_groups_that_mean_nothing_score_as_the_deals_do(higher_is_better):
    """60 subjects of two images whose group is a coin's; the observed score is one more deal."""
    inside = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        subjects = np.repeat(np.arange(60), 2)
        real = np.repeat(rng.normal(size=(60, 4)), 2, axis=0) + 0.5 * rng.normal(size=(120, 4))
        generated = rng.normal(0.2, 1, size=(150, 4))
        here, there = rng.permutation(np.arange(60) % 3 == 0)[subjects], rng.permutation(np.arange(150) % 3 == 0)
        by_group = {str(g): frechet_distance(real[here == g], generated[there == g]) for g in (True, False)}
        observed = equity_scaled(frechet_distance(real, generated), by_group, higher_is_better)
        arguments = real, generated, here, there, subjects
        low, high = np.quantile(
            fair_scores(frechet_distance, *arguments, repeats=39, higher_is_better=higher_is_better), [0.1, 0.9]
        )
        inside.append(low <= observed <= high)
    # Expected .8, standard deviation over 30 repeats sqrt(.8 x .2 / 30) = .07.
    assert 0.58 <= np.mean(inside) <= 0.99


def test_a_group_made_worse_scores_outside():
    rng = np.random.default_rng(3)
    real, generated, here, there = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)), *[np.arange(200) % 4 == 0] * 2
    generated[there] += 1
    by_group = {str(g): frechet_distance(real[here == g], generated[there == g]) for g in (True, False)}
    observed = equity_scaled(frechet_distance(real, generated), by_group, higher_is_better=False)
    arguments = real, generated, here, there, np.arange(200)
    assert observed > 2 * fair_scores(frechet_distance, *arguments, higher_is_better=False).max()


def test_what_cannot_be_dealt():
    real, generated = np.zeros((4, 1)), np.zeros((2, 1))
    with pytest.raises(InputError, match="subject 'x' is in two groups"):
        fair_scores(frechet_distance, real, generated, list("abbb"), list("ab"), list("xxyz"))
    with pytest.raises(InputError, match="groups: c without an image on one side"):
        fair_scores(frechet_distance, real, generated, list("aabb"), list("acb"), list("xxyz"))
