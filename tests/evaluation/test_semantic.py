"""Semantic correlation: agreement with fairlearn and scikit-learn, intervals that cover, gaps and what chance makes."""

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from bundle.errors import InputError
from bundle.evaluation.semantic import _Cases, paired_change, semantic_correlation, weighted_auc

NAMES = ("a", "b", "c")


def cases(rng, people=120, each=3, groups=3, signal=1.0, own=0.7):
    """Scores, labels, groups and subjects of people with ``each`` images, which share a part of their error."""
    subject = np.repeat(np.arange(people), each)
    label, group = rng.integers(0, 2, people)[subject], rng.integers(0, groups, people)[subject]
    error = own * rng.normal(size=people)[subject] + np.sqrt(1 - own**2) * rng.normal(size=people * each)
    return norm.cdf(signal * (label - 0.5) + error), label, group, subject


def few_draws(*arguments, **more):
    return semantic_correlation(*arguments, **{"repeats": 50, **more})


def test_weighted_auc_is_that_of_repeated_images():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 8, 40) / 8, rng.integers(0, 2, 40)  # with many ties
    weights = rng.integers(0, 4, (20, 40))
    found = weighted_auc(scores, labels, weights)
    expected = [roc_auc_score(np.repeat(labels, w), np.repeat(scores, w)) for w in weights]
    assert found == pytest.approx(expected)


def test_weighted_auc_by_hand():
    """Scores .1 .4 .4 .9 with the finding in the second and last: pairs 1 - .1 and so on give (1 + .5 + 1 + 1) / 4."""
    assert weighted_auc([0.1, 0.4, 0.4, 0.9], [0, 1, 0, 1], np.ones((1, 4))) == pytest.approx([3.5 / 4])
    assert np.isnan(weighted_auc([0.1, 0.4], [1, 1], np.ones((1, 2)))).all()


def test_gaps_of_calls_are_fairlearns():
    """The vectorised rates of the bootstrap, on 60 random cases of two to five groups."""
    rng = np.random.default_rng(1)
    for case in range(60):
        number = 2 + case % 4
        scores, labels, groups, subjects = cases(rng, people=90, groups=number)
        assert len({*zip(groups, labels)}) == 2 * number  # fairlearn takes a rate of nobody for 0
        found = _Cases(scores, labels, groups, subjects, number, 0.5)
        gaps = found.rates(np.ones((1, found.n))).differences()
        arguments = labels, scores >= 0.5
        parity = demographic_parity_difference(*arguments, sensitive_features=groups)
        odds = equalized_odds_difference(*arguments, sensitive_features=groups)
        assert (gaps["parity"][0], gaps["odds"][0]) == pytest.approx((parity, odds))


def test_a_draw_is_measured_as_fairlearn_measures_the_drawn_images():
    rng = np.random.default_rng(2)
    scores, labels, groups, subjects = cases(rng)
    found = _Cases(scores, labels, groups, subjects, 3, 0.4)
    weights = np.concatenate(list(found.resampled(5, 0)))
    gaps = found.rates(weights).differences()
    for b, row in enumerate(weights.astype(int)):
        kept = np.repeat(np.arange(found.n), row)
        arguments = labels[kept], scores[kept] >= 0.4
        odds = equalized_odds_difference(*arguments, sensitive_features=groups[kept])
        aucs = [roc_auc_score(labels[kept][groups[kept] == g], scores[kept][groups[kept] == g]) for g in range(3)]
        assert gaps["odds"][b] == pytest.approx(odds)
        assert gaps["auc"][b] == pytest.approx(max(aucs) - min(aucs))


def test_whole_subjects_are_drawn():
    rng = np.random.default_rng(3)
    scores, labels, groups, subjects = cases(rng, people=30, each=4)
    weights = np.concatenate(list(_Cases(scores, labels, groups, subjects, 3, 0.5).resampled(300, 0)))
    assert weights.shape == (300, 120)
    assert np.array_equal(weights, np.repeat(weights[:, ::4], 4, axis=1))
    assert (weights.sum(1) == 120).all()  # as many subjects as there are


def test_values_stand_where_they_belong():
    rng = np.random.default_rng(4)
    scores, labels, groups, subjects = cases(rng)
    groups[subjects < 10] = -1
    found = few_draws(scores, labels, groups, subjects, NAMES)
    aucs = {name: roc_auc_score(labels[groups == g], scores[groups == g]) for g, name in enumerate(NAMES)}
    known = groups >= 0
    assert found.auc.value == pytest.approx(roc_auc_score(labels, scores))  # the unknown count in all
    assert {name: score.auc.value for name, score in found.groups.items()} == pytest.approx(aucs)
    assert sum(score.n for score in found.groups.values()) == known.sum() == 360 - 30
    assert (found.n, found.subjects, found.positives) == (360, 120, labels.sum())
    assert found.worst == min(aucs, key=aucs.get)
    assert found.auc_gap.value == pytest.approx(max(aucs.values()) - min(aucs.values()))
    assert found.contrast is None  # of three groups
    assert found.accuracy.value == pytest.approx(((scores >= 0.5) == labels).mean())
    arguments = labels[known], scores[known] >= 0.5
    assert found.demographic_parity.value == demographic_parity_difference(*arguments, sensitive_features=groups[known])
    assert found.equalized_odds.value == equalized_odds_difference(*arguments, sensitive_features=groups[known])
    overall = roc_auc_score(labels, scores)
    scaled = overall / (1 + sum(abs(auc - overall) for auc in aucs.values()))
    assert found.equity_scaled == pytest.approx(scaled)
    assert found.equity_scaled_fair < overall  # chance alone lowers it


def test_a_group_of_one_class_has_no_auc_and_takes_no_part():
    rng = np.random.default_rng(5)
    scores, labels, groups, subjects = cases(rng)
    labels[groups == 2] = 1
    found = few_draws(scores, labels, groups, subjects, NAMES)
    two = groups < 2
    pair = few_draws(scores[two], labels[two], groups[two], subjects[two], NAMES[:2])
    assert found.undefined == ("c",)
    assert found.groups["c"].auc is None
    assert found.groups["c"].accuracy is not None
    assert found.worst == pair.worst
    assert found.auc_gap.value == pair.auc_gap.value
    assert pair.contrast.value == pytest.approx(pair.groups["b"].auc.value - pair.groups["a"].auc.value)
    assert found.equalized_odds.value == pair.equalized_odds.value
    one = few_draws(scores[groups != 1], labels[groups != 1], groups[groups != 1], subjects[groups != 1], NAMES)
    assert (one.undefined, one.worst, one.auc_gap) == (("b", "c"), "a", None)
    assert (one.equalized_odds, one.demographic_parity, one.equity_scaled) == (None, None, None)


def test_one_class_alone_is_refused():
    with pytest.raises(InputError, match="3 of 3 images have the finding"):
        semantic_correlation([0.1, 0.2, 0.3], [1, 1, 1], [0, 1, 0], [1, 2, 3], NAMES[:2])


def test_lengths_that_differ_are_an_error():
    with pytest.raises(ValueError, match="lengths differ"):
        semantic_correlation([0.1, 0.2], [0, 1, 1], [0, 1, 0], [1, 2, 3], NAMES[:2])


def test_the_interval_of_the_auc_covers_the_truth_where_images_of_a_person_err_together():
    """Scores N(±d/2, 1) have the AUC Phi(d / sqrt(2)) whatever images of one person share.

    A bootstrap of images is the mistake that the module avoids; it covers far less often.
    """
    rng, truth, repeats = np.random.default_rng(6), norm.cdf(1 / np.sqrt(2)), 150
    hits = {"subjects": 0, "images": 0}
    for _ in range(repeats):
        scores, labels, groups, subjects = cases(rng, people=100, each=4, groups=2, own=0.9)
        for unit, drawn in (("subjects", subjects), ("images", np.arange(len(scores)))):
            found = _Cases(scores, labels, groups, drawn, 2, 0.5)
            aucs = np.concatenate([weighted_auc(scores, labels, w) for w in found.resampled(200, 0)])
            low, high = np.quantile(aucs, [0.025, 0.975])
            hits[unit] += low <= truth <= high
    assert 0.90 <= hits["subjects"] / repeats <= 0.98
    assert hits["images"] / repeats < 0.85


def test_the_interval_reported_is_that_of_the_draws():
    rng = np.random.default_rng(7)
    scores, labels, groups, subjects = cases(rng)
    found = semantic_correlation(scores, labels, groups, subjects, NAMES, repeats=300, seed=5)
    draws = np.concatenate(list(_Cases(scores, labels, groups, subjects, 3, 0.5).resampled(300, 5)))
    aucs = weighted_auc(scores, labels, draws)
    assert (found.auc.low, found.auc.high) == pytest.approx(tuple(np.quantile(aucs, [0.025, 0.975])))
    assert found.auc.standard_error == pytest.approx(aucs.std())


def test_chance_is_the_gap_of_groups_that_are_alike():
    """Groups that are alike: over 40 cohorts the gaps are on average what chance says, and not zero."""
    rng, gaps, chances, rejected = np.random.default_rng(8), [], [], []
    for _ in range(40):
        found = few_draws(*cases(rng, people=90), NAMES, repeats=2)
        found = (found.auc_gap, found.demographic_parity, found.equalized_odds)
        gaps.append([gap.value for gap in found])
        chances.append([gap.chance for gap in found])
        rejected.append([gap.p <= 0.2 for gap in found])
    error = np.std(gaps, axis=0) / np.sqrt(40)
    assert (np.abs(np.mean(gaps, axis=0) - np.mean(chances, axis=0)) < 3 * error).all()
    assert (np.mean(gaps, axis=0) > 5 * error).all()
    # a fifth of 40 is 8, with a standard deviation of sqrt(40 x .2 x .8) = 2.5
    assert (np.sum(rejected, axis=0) <= 16).all()


def test_a_real_gap_is_above_chance():
    """Scores of group b say nothing (AUC .5), those of a are N(±1, 1): AUC Phi(sqrt(2)) = .92."""
    rng = np.random.default_rng(9)
    labels, groups = rng.integers(0, 2, 2000), np.arange(2000) % 2
    scores = norm.cdf(2 * (labels - 0.5) * (groups == 0) + rng.normal(size=2000))
    found = few_draws(scores, labels, groups, np.arange(2000), NAMES[:2], repeats=200)
    assert found.worst == "b"
    assert found.auc_gap.value == pytest.approx(norm.cdf(np.sqrt(2)) - 0.5, abs=0.05)
    assert found.auc_gap.chance < 0.05
    assert found.auc_gap.p == 1 / 200  # none of 199 deals, and this one
    assert found.contrast.value == -found.auc_gap.value  # b minus a
    assert found.contrast.high < -0.3


def test_the_contrast_of_two_equal_groups_covers_zero():
    """The interval of a largest minus a smallest value would not: its lower end is never under zero."""
    rng, covered = np.random.default_rng(15), 0
    for _ in range(60):
        found = few_draws(*cases(rng, people=80, groups=2), NAMES[:2], repeats=200).contrast
        covered += found.low <= 0 <= found.high
    assert covered >= 52  # of 60 at 95 %


def test_a_seed_gives_one_answer():
    arguments = (*cases(np.random.default_rng(10)), NAMES)
    assert few_draws(*arguments, seed=3) == few_draws(*arguments, seed=3)
    assert few_draws(*arguments, seed=3).auc.low != few_draws(*arguments, seed=4).auc.low


def _auc_error(scores, labels, groups):
    found = _Cases(scores, labels, groups, np.arange(len(scores)), 2, 0.5)
    return np.std([weighted_auc(scores, labels, weights) for weights in found.resampled(128, 0)])


class TestPairedChange:
    def test_nothing_changes_from_a_model_to_itself(self):
        scores, *truth = cases(np.random.default_rng(11))
        change = paired_change(scores, scores, *truth, NAMES, repeats=50)
        for found in (
            change.auc,
            change.worst_auc,
            change.auc_gap,
            change.demographic_parity,
            change.equalized_odds,
        ):
            assert (found.value, found.low, found.high) == (0, 0, 0)

    def test_values_are_differences_of_the_two(self):
        rng = np.random.default_rng(12)
        first, *truth = cases(rng)
        second = np.clip(first + 0.2 * rng.normal(size=len(first)), 0, 1)
        old, new = (few_draws(scores, *truth, NAMES) for scores in (first, second))
        change = paired_change(first, second, *truth, NAMES, repeats=50)
        assert change.auc.value == pytest.approx(new.auc.value - old.auc.value)
        worst = [found.groups[found.worst].auc.value for found in (old, new)]
        assert change.worst_auc.value == pytest.approx(worst[1] - worst[0])
        for name in ("auc_gap", "demographic_parity", "equalized_odds"):
            values = [getattr(found, name).value for found in (old, new)]
            assert getattr(change, name).value == pytest.approx(values[1] - values[0])

    def test_it_is_narrower_than_two_models_apart_and_covers(self):
        """Scores N(±d/2, 1) whose errors are shared to .9: AUCs Phi(d / sqrt(2)) with d = 1 and d = 1.3."""
        rng, hits, narrower = np.random.default_rng(13), 0, 0
        truth = norm.cdf(1.3 / np.sqrt(2)) - norm.cdf(1 / np.sqrt(2))
        for _ in range(60):
            labels, groups = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
            error = rng.normal(size=300)
            first = 1.0 * (labels - 0.5) + error
            second = 1.3 * (labels - 0.5) + 0.9 * error + np.sqrt(1 - 0.81) * rng.normal(size=300)
            change = paired_change(first, second, labels, groups, np.arange(300), NAMES[:2], repeats=128).auc
            errors = [_auc_error(scores, labels, groups) for scores in (first, second)]
            hits += change.low <= truth <= change.high
            narrower += change.high - change.low < 0.8 * 2 * 1.96 * np.hypot(*errors)
        assert hits >= 52  # of 60 at 95 %: fewer than 52 happen once in a thousand times
        assert narrower == 60

    def test_groups_that_cannot_be_compared_have_no_change(self):
        rng = np.random.default_rng(14)
        scores, labels, groups, subjects = cases(rng, groups=2)
        labels[groups == 1] = 1
        change = paired_change(scores, scores[::-1], labels, groups, subjects, NAMES[:2], repeats=20)
        assert change.auc is not None
        assert (change.worst_auc, change.auc_gap, change.equalized_odds) == (None, None, None)
