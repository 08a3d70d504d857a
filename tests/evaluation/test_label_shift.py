"""Tests of label shift: their size, their power, and what they make of scores that say little."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import chi2

from bundle.errors import InputError
from bundle.evaluation.label_shift import judges_differ, label_shift_test
from bundle.evaluation.prevalence import adjusted_count, judge_rates
from tests.evaluation.simulate import distance, simulate

SEXES = ("female", "male")
REPEATS = 100


def shift_test(drawn, **options):
    return label_shift_test(drawn.generated, drawn.validation, drawn.truth, drawn.subjects, **options)


def rejections(seed, *design, **shift):
    draws = [simulate(np.random.default_rng([seed, repeat]), *design, **shift) for repeat in range(REPEATS)]
    return sum(shift_test(drawn).p_value < 0.05 for drawn in draws) / REPEATS


@pytest.mark.parametrize(
    ("accuracy", "subjects", "slices", "share"),
    [
        (0.80, 200, 2, 0.1),
        (0.80, 500, 8, 0.5),
        (0.90, 200, 8, 0.5),
        (0.95, 200, 2, 0.1),
        (0.95, 500, 2, 0.5),
        (0.97, 200, 8, 0.5),
        (0.97, 500, 2, 0.1),
        (0.999, 200, 2, 0.3),  # nearly all probabilities are near 0 or 1
    ],
)
def test_no_shift_is_seldom_rejected(accuracy, subjects, slices, share):
    assert rejections(0, accuracy, subjects, slices, 2048, share) <= 0.10


@pytest.mark.parametrize("accuracy", [0.8, 0.95])
def test_blunted_scores_are_rejected(accuracy):
    assert rejections(1, accuracy, 400, 4, 2048, 0.3, shrink=0.6) >= 0.90


def test_the_p_value_is_uniform_without_shift():
    """The median of 300 p-values is .5 within three standard errors, 3 x .5 / sqrt(300) = .087."""
    draws = (simulate(np.random.default_rng([2, repeat]), 0.85, 300, 3, 1024, 0.4) for repeat in range(300))
    assert np.median([shift_test(drawn).p_value for drawn in draws]) == pytest.approx(0.5, abs=0.087)


def test_two_cuts_by_hand():
    """Scores .1, .5, .9 make two cells free: the misfit is minimised on a line, by brute force here."""
    score = np.array([0.1, 0.5, 0.9])
    first, second, new = np.repeat(score, [30, 12, 8]), np.repeat(score, [6, 10, 34]), np.repeat(score, [100, 90, 110])
    both = np.r_[first, second]
    result = label_shift_test(
        *(np.stack([1 - s, s], axis=1) for s in (new, both)), np.repeat([0, 1], 50), np.arange(100)
    )

    def cells(s):
        return np.stack([s > 0.1, s > 0.5], axis=1).astype(float)

    pooled = (
        np.cov(cells(new).T, bias=True) + np.cov(cells(both).T, bias=True)
    ) / 2  # ridge: one image, of either kind alike
    apart = cells(new).mean(0) - cells(both).mean(0)
    pooled += np.outer(apart, apart) / 4

    def misfit(pi, at):
        variance = np.cov(cells(new).T, bias=True) / 300
        for s, weight in ((first, 1 - at), (second, at)):
            variance = variance + weight**2 * (50 * np.cov(cells(s).T, bias=True) + pooled) / (50 * 49)
        left = cells(new).mean(0) - pi * cells(second).mean(0) - (1 - pi) * cells(first).mean(0)
        return left @ np.linalg.inv(variance) @ left

    pi = 0.5
    for _ in range(30):
        pi = minimize_scalar(misfit, args=(pi,), tol=1e-12).x
    assert result.degrees == 1
    assert result.proportions == pytest.approx([1 - pi, pi], abs=1e-6)
    assert result.statistic == pytest.approx(misfit(pi, pi), rel=1e-6)
    assert result.p_value == pytest.approx(chi2.sf(misfit(pi, pi), 1))


def test_the_proportions_are_near_the_truth():
    drawn = simulate(np.random.default_rng(3), 0.9, 4000, 2, 40_000, 0.2)
    assert shift_test(drawn).proportions[1] == pytest.approx(0.2, abs=0.02)
    assert shift_test(drawn).proportions.sum() == pytest.approx(1)


def test_slices_taken_for_subjects_reject_too_often():
    draws = [
        simulate(np.random.default_rng([4, repeat]), 0.8, 100, 20, 2048, 0.3, icc=0.9) for repeat in range(REPEATS)
    ]
    images = np.arange(2000)
    naive = [label_shift_test(d.generated, d.validation, d.truth, images).p_value < 0.05 for d in draws]
    assert np.mean(naive) > 0.5
    assert np.mean([shift_test(drawn).p_value < 0.05 for drawn in draws]) <= 0.10


def three_groups(rng, shares, images, signal=1.6):
    truth = rng.choice(3, size=images, p=shares)
    return softmax(1.6 * (signal * np.eye(3)[truth] + rng.normal(size=(images, 3))), axis=1), truth


def test_three_groups_have_size_and_power():
    rejected = {1.6: 0, 0.7: 0}
    for repeat in range(REPEATS):
        rng = np.random.default_rng([5, repeat])
        validation, truth = three_groups(rng, [1 / 3] * 3, 400)
        for signal in rejected:
            generated, _ = three_groups(rng, [0.5, 0.3, 0.2], 2048, signal)
            result = label_shift_test(generated, validation, truth, np.arange(400))
            rejected[signal] += result.p_value < 0.05
    assert result.degrees == 2 * 5 - 2
    assert rejected[1.6] <= 10
    assert rejected[0.7] >= 90


def test_scores_with_few_values_leave_fewer_degrees():
    calls = np.eye(2)[[0, 0, 1, 0, 1, 1, 1, 0]]
    result = label_shift_test(calls, calls, [0, 0, 0, 0, 1, 1, 1, 1], range(8))
    assert result.degrees == 0  # one cut between two values, used up by the proportion
    assert np.isnan(result.p_value)
    assert np.isnan(label_shift_test(calls * 0 + 0.5, calls * 0 + 0.5, [0, 0, 1, 1, 0, 1, 0, 1], range(8)).p_value)
    assert shift_test(simulate(np.random.default_rng(6), 0.8, 50, 1, 99, 0.5), cuts=3).degrees == 2


def test_input_that_cannot_be_used():
    scores = np.full((3, 2), 0.5)
    with pytest.raises(InputError, match="1 subject"):
        label_shift_test(scores, scores, [0, 0, 1], range(3))
    with pytest.raises(InputError, match="'male' has 1 subject"):
        judges_differ(([0], [0]), ([0, 0, 1],) * 2, [0, 0, 1], range(3), SEXES)
    with pytest.raises(ValueError, match="3, 3 and 2 rows"):
        label_shift_test(scores, scores, [0, 0, 1], range(2))


def two_judges(rng, accuracies, subjects, generated, share, correlation, moved=0.0, slices=4, icc=0.6):
    """Calls of two judges of the same images, their errors correlated: (N, 2), (M, 2), truth and subjects.

    `moved` is added to the first judge's latent scores of generated images.
    """
    person = np.arange(subjects) % 2
    truth, ids = np.repeat(person, slices), np.repeat(np.arange(subjects), slices)
    mix = np.array([[1, correlation], [0, np.sqrt(1 - correlation**2)]])
    reach = np.array([distance(accuracy) for accuracy in accuracies])

    def calls(group, noise, offset=0.0):
        return (2 * group[:, None] - 1) * reach + noise @ mix + [offset, 0] > 0

    common, own = rng.normal(size=(subjects, 2))[ids], rng.normal(size=(len(ids), 2))
    group = (rng.random(generated) < share).astype(int)
    known = calls(truth, np.sqrt(icc) * common + np.sqrt(1 - icc) * own)
    return calls(group, rng.normal(size=(generated, 2)), moved), known, truth, ids


def difference(generated, validation, truth, subjects):
    return judges_differ(tuple(generated.T.astype(int)), tuple(validation.T.astype(int)), truth, subjects, SEXES)[
        "male"
    ]


@pytest.mark.parametrize(
    ("accuracies", "subjects", "share", "correlation"),
    [((0.8, 0.8), 200, 0.1, 0.5), ((0.9, 0.8), 200, 0.5, 0.5), ((0.95, 0.95), 400, 0.3, 0.9)],
)
def test_the_difference_of_judges_covers_nought(accuracies, subjects, share, correlation):
    hits = 0
    for repeat in range(400):
        rng = np.random.default_rng([7, subjects, repeat])
        found = difference(*two_judges(rng, accuracies, subjects, 1024, share, correlation))
        hits += found.low <= 0 <= found.high
    assert 0.93 <= hits / 400 <= 0.975


def test_a_fooled_guide_is_caught_and_an_honest_one_is_not_accused():
    """Tuning moved the guide's scores by .4 standard deviations, its proportion by about ten points; the images, and
    the judge, stayed where they were. Both of 90 %, 400 subjects, 2,048 images."""
    found = {
        moved: [
            difference(*two_judges(np.random.default_rng([8, k]), (0.9, 0.9), 400, 2048, 0.3, 0.5, moved))
            for k in range(REPEATS)
        ]
        for moved in (0.0, 0.4)
    }
    accused = {moved: np.mean([not e.low <= 0 <= e.high for e in each]) for moved, each in found.items()}
    assert np.mean([e.value for e in found[0.4]]) == pytest.approx(-0.1, abs=0.02)
    assert accused[0.4] >= 0.90
    assert accused[0.0] <= 0.10


def test_the_difference_is_that_of_the_adjusted_counts():
    generated, validation, truth, subjects = two_judges(np.random.default_rng(9), (0.9, 0.8), 60, 300, 0.4, 0.3)
    counts = [
        adjusted_count(g.astype(int), judge_rates(v.astype(int), truth, subjects, SEXES))
        for g, v in zip(generated.T, validation.T, strict=True)
    ]
    both = tuple(generated.T.astype(int)), tuple(validation.T.astype(int))
    found = judges_differ(*both, truth, subjects, SEXES)
    for group, value in zip(SEXES, counts[1].value - counts[0].value, strict=True):
        assert found[group].value == pytest.approx(value)


def test_its_error_is_that_of_the_jackknife():
    """Leaving out each image and each subject in turn; with this many subjects the ridge hardly counts."""
    generated, validation, truth, subjects = two_judges(np.random.default_rng(10), (0.8, 0.8), 400, 400, 0.5, 0.5)

    def value(g, v, t):
        raw, rates = g.mean(0), [v[t == a].mean(0) for a in (0, 1)]
        return np.diff((raw - rates[0]) / (rates[1] - rates[0]))[0]

    people = np.arange(400)
    images = [value(generated[people != k], validation, truth) for k in people]
    persons = [value(generated, validation[subjects != k], truth[subjects != k]) for k in people]
    jackknife = 399 / 400 * sum(np.sum((np.array(x) - np.mean(x)) ** 2) for x in (images, persons))
    found = difference(generated, validation, truth, subjects)
    assert found.standard_error == pytest.approx(np.sqrt(jackknife), rel=0.02)


def test_equal_judges_differ_by_nothing():
    generated, validation, truth, subjects = two_judges(np.random.default_rng(11), (0.8, 0.8), 60, 200, 0.4, 0.5)
    found = difference(generated[:, [0, 0]], validation[:, [0, 0]], truth, subjects)
    assert (found.value, found.low, found.high, found.standard_error) == (0, 0, 0, 0)


def test_a_judge_that_tells_nothing_leaves_the_whole_range():
    generated, validation, truth, subjects = two_judges(np.random.default_rng(12), (0.8, 0.8), 60, 200, 0.4, 0.5)
    validation[:, 1] = True
    found = difference(generated, validation, truth, subjects)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (-1, 1)
