"""AUC with its interval, and what scores owe to other facts."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bundle.errors import InputError
from bundle.evaluation.discrimination import auc, by_subject, cross_validated, field_of_view, unexplained


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [30, 40])
    return (rng.normal(size=70) + truth).round(1), truth  # rounded: some ties


def test_the_value_is_the_area_under_the_curve(scored):
    assert auc(*scored).value == pytest.approx(roc_auc_score(scored[1], scored[0]))


def test_the_variance_is_delongs(scored):
    scores, truth = scored
    second, first = scores[truth == 1][:, None], scores[truth == 0]
    above = (second > first) + 0.5 * (second == first)
    delong = above.mean(1).var(ddof=1) / 40 + above.mean(0).var(ddof=1) / 30
    assert auc(scores, truth).standard_error == pytest.approx(np.sqrt(delong))


def test_the_interval_covers():
    rng = np.random.default_rng(1)
    truth, expected = np.repeat([0, 1], 50), 0.7602  # P(N(1, 1) > N(0, 1))
    intervals = [auc(rng.normal(size=100) + truth, truth) for _ in range(400)]
    assert 0.92 < np.mean([i.low <= expected <= i.high for i in intervals]) < 0.98


def test_strata_are_compared_within():
    truth = np.array([0, 1, 0, 1, 0, 1, 1])
    strata = np.array(["x", "x", "x", "x", "y", "y", "alone"])
    scores = np.array([1.0, 2, 3, 4, 10, 9, 0])  # a higher stratum says nothing here
    assert auc(scores, truth, strata).value == pytest.approx(3 / 5)
    site = np.repeat(["x", "y"], 40)
    told_by_site = auc(site == "y", site == "y")
    assert told_by_site.value == 1
    rng = np.random.default_rng(2)
    truth = rng.random(80) < np.where(site == "y", 0.8, 0.2)
    assert auc((site == "y") + 1e-9 * rng.random(80), truth, site).value == pytest.approx(0.5, abs=0.2)
    assert auc(site == "y", truth).value > 0.7


def test_too_few_to_compare_are_refused():
    with pytest.raises(InputError, match="1 of 3 in the second group"):
        auc([1, 2, 3], [0, 0, 1])
    with pytest.raises(InputError, match="give persons to compare"):
        auc([1, 2, 3, 4], [0, 0, 1, 1], ["x", "x", "y", "y"])


def test_means_by_subject_keep_the_order_of_coming():
    assert by_subject([1, 5, 3, 7], ["b", "a", "b", "a"]).tolist() == [2, 6]
    assert by_subject([[1, 0], [5, 1], [3, 2]], ["b", "a", "b"]).tolist() == [[2, 1], [5, 1]]


def test_a_score_never_knows_its_own_fold():
    rng = np.random.default_rng(3)
    truth, folds = rng.integers(0, 2, 60), np.arange(60) % 5
    noise = rng.normal(size=(60, 40))
    assert auc(cross_validated(noise, truth, folds), truth).value < 0.75  # fitted to itself this would be 1
    assert auc(cross_validated(truth[:, None] + 0.1 * noise[:, :1], truth, folds), truth).value > 0.95


def test_what_is_explained_is_taken_out():
    features = np.random.default_rng(4).normal(size=(50, 3))
    left = unexplained(features @ [1.0, 2, 3] + 5, features)
    assert np.abs(left).max() < 1e-9


def test_field_of_view_reads_size_and_brightness():
    images = np.full((2, 1, 100, 100), 0.05)
    images[0, 0, 30:70, 20:80] = 0.6
    images[1, 0, 10:90, 10:90] = 0.6
    small, large = field_of_view(images)
    assert small[:4].tolist() == pytest.approx([0.24, 0.4, 0.6, 0.05])
    assert large[:4].tolist() == pytest.approx([0.64, 0.8, 0.8, 0.05])
    assert (small[5], large[5]) == (pytest.approx(0.05), pytest.approx(0.6))
