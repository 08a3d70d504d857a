"""Five estimators of proportions: against QuaPy, against closed forms, and in what they assume."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import BaseEstimator

from bundle.errors import InputError
from bundle.evaluation.estimators import METHODS, estimate
from tests.evaluation.simulate import posterior, simulate


class Posteriors(BaseEstimator):
    """A classifier, as QuaPy wants one, whose features are the probabilities themselves."""

    def __init__(self, groups):
        self.groups = groups
        self.classes_ = np.arange(groups)

    def fit(self, features, labels):
        raise AssertionError("must not be fitted")

    def predict_proba(self, features):
        return features

    def predict(self, features):
        return features.argmax(axis=1)


def quapy_estimate(method, generated, validation, truth):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from quapy.method import aggregative

    judge, options = Posteriors(validation.shape[1]), {"fit_classifier": False}
    if method in ("acc", "pacc"):  # its default minimises numerically; a solution outside [0, 1] is cut all the same
        options |= {"solver": "exact-raise", "val_split": None}
    quantifier = getattr(aggregative, {"em": "EMQ"}.get(method, method.upper()))(judge, **options)
    quantifier.fit(validation, truth)
    return quantifier.aggregate(quantifier.classify(generated), *([1e-12] if method == "em" else []))


def three_groups(rng, shares, images):
    """Probabilities of a judge of three groups, calibrated at equal shares: normal scores around the corners."""
    truth = rng.choice(3, size=images, p=shares)
    scores = 1.6 * np.eye(3)[truth] + rng.normal(size=(images, 3))
    odds = np.exp(1.6 * scores)  # log density of N(1.6 e_a, 1), less what all groups share
    return odds / odds.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("method", METHODS)
def test_two_groups_as_in_quapy(method):
    drawn = simulate(np.random.default_rng(0), 0.85, 400, 1, 2000, 0.3)
    ours = estimate(method, drawn.generated, drawn.validation, drawn.truth, drawn.subjects)
    assert ours == pytest.approx(quapy_estimate(method, drawn.generated, drawn.validation, drawn.truth), abs=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_three_groups_as_in_quapy(method):
    rng = np.random.default_rng(1)
    validation, truth = three_groups(rng, [0.3, 0.3, 0.4], 600)
    generated, _ = three_groups(rng, [0.2, 0.5, 0.3], 1500)
    ours = estimate(method, generated, validation, truth, np.arange(600))
    assert ours == pytest.approx(quapy_estimate(method, generated, validation, truth), abs=1e-7)


def test_plain_and_adjusted_counts_by_hand():
    # Two subjects a group. Calls of the second group: f = mean(0, 1/2) = 1/4, s = mean(1, 1/2) = 3/4.
    # Its mean probabilities: .1 and mean(.2, .6) = .4 -> .25; .9 and mean(.7, .1) = .4 -> .65.
    second = np.array([0.1, 0.2, 0.6, 0.9, 0.7, 0.1])
    validation, truth, subjects = np.stack([1 - second, second], axis=1), [0, 0, 0, 1, 1, 1], list("abbcdd")
    generated = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.4, 0.6]])
    expected = {"cc": 3 / 5, "pcc": 2.8 / 5, "acc": (0.6 - 0.25) / 0.5, "pacc": (0.56 - 0.25) / 0.4}
    for method, value in expected.items():
        assert estimate(method, generated, validation, truth, subjects) == pytest.approx([1 - value, value])


def test_adjusted_counts_are_not_clipped():
    second = np.array([0.2, 0.4, 0.6, 0.8])
    validation = np.stack([1 - second, second], axis=1)
    # Mean probabilities .3 and .7; all generated images .9: (.9 - .3) / .4 = 1.5.
    value = estimate("pacc", np.array([[0.1, 0.9]] * 3), validation, [0, 0, 1, 1], range(4))
    assert value == pytest.approx([-0.5, 1.5])


def test_em_is_the_maximum_of_the_likelihood():
    """The prior are the shares of persons (20 and 60), not of images (here 60 and 60)."""
    truth, subjects = np.repeat([0, 1], 60), np.r_[np.repeat(np.arange(20), 3), 20 + np.arange(60)]
    rng = np.random.default_rng(2)
    second = rng.beta(0.6, 0.3, 500)
    generated = np.stack([1 - second, second], axis=1)

    def loss(pi):
        return -np.log((1 - pi[0]) * (1 - second) / 0.25 + pi[0] * second / 0.75).sum()

    best = minimize(loss, [0.5], bounds=[(0, 1)], tol=1e-14).x[0]
    value = estimate("em", generated, posterior(rng.normal(size=120), 0.8), truth, subjects)
    assert 0.05 < best < 0.95
    assert value == pytest.approx([1 - best, best], abs=1e-5)


def test_em_of_certain_posteriors_is_their_count():
    certain = np.eye(2)[[0, 0, 1, 1]]
    assert estimate("em", np.eye(2)[[0, 1, 1]], certain, [0, 0, 1, 1], range(4)) == pytest.approx([1 / 3, 2 / 3])


def test_what_each_estimator_makes_of_a_judge_of_80_percent():
    """At a share of .1: cc = .8 .1 + .2 .9 = .26, and pcc more; those that adjust come near .1."""
    drawn = simulate(np.random.default_rng(3), 0.8, 4000, 2, 40_000, 0.1)
    share = {m: estimate(m, drawn.generated, drawn.validation, drawn.truth, drawn.subjects)[1] for m in METHODS}
    assert share["cc"] == pytest.approx(0.26, abs=0.01)
    assert share["pcc"] > share["cc"]
    for method in ("acc", "pacc", "em"):
        assert share[method] == pytest.approx(0.1, abs=0.03)


def test_a_judge_that_tells_nothing_gives_nan_where_its_errors_must_be_undone():
    same = np.full((6, 2), 0.5)
    values = {method: estimate(method, same, same, [0, 0, 0, 1, 1, 1], range(6)) for method in METHODS}
    assert np.isnan(values["acc"]).all()
    assert np.isnan(values["pacc"]).all()
    assert values["pcc"].tolist() == values["em"].tolist() == [0.5, 0.5]


def test_input_that_cannot_be_used():
    scores = np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match="give one of cc, pcc, acc, pacc, em"):
        estimate("hdy", scores, scores, [0, 0, 1], range(3))
    with pytest.raises(InputError, match="1 subject"):
        estimate("em", scores, scores, [0, 0, 1], range(3))
    with pytest.raises(ValueError, match="shares that sum to one"):
        estimate("pcc", np.full((3, 3), 1 / 3), scores[[0, 0, 1, 1]], [0, 0, 1, 1], range(4))
