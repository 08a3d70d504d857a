"""Adjusted counts: arithmetic by hand, and coverage by simulation."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import norm, t

from bundle.errors import InputError
from bundle.evaluation.prevalence import (
    AdjustedCount,
    JudgeRates,
    adjusted_count,
    as_vector,
    detectable_gap,
    detectable_with,
    equivalence_p,
    gap,
    images_needed,
    judge_rates,
    paired_difference,
    subjects_needed,
    tipping_point,
    verdict,
)

SEXES = ("female", "male")
THREE = ("low", "middle", "high")


def known_rates(matrix, subjects=10_000, groups=SEXES):
    """A judge whose rates are known almost without error."""
    size = len(groups)
    return JudgeRates(tuple(groups), np.array(matrix), np.zeros((size,) * 4), np.full(size, subjects))


def known_count(proportion, half_width):
    """A perfect judge's count with 95 % interval proportion +- half_width (many degrees of freedom)."""
    degrees = 10**9
    variance = (half_width / t.ppf(0.975, degrees)) ** 2
    raw = np.array([1 - proportion, proportion])
    return AdjustedCount(raw, variance * np.array([[1, -1], [-1, 1]]), known_rates(np.eye(2)), 1000, degrees)


def test_rates_are_means_of_subject_means():
    # Female a: calls 0, 0, 1 -> 1/3 male; female b: 1 -> 1 male. Mean of subjects 2/3, not 2/4 of the images.
    # Males c: 1, d: 1, 0 -> 1 and 1/2; mean 3/4.
    calls = [0, 0, 1, 1, 1, 1, 0]
    rates = judge_rates(calls, [0, 0, 0, 0, 1, 1, 1], list("aaabcdd"), SEXES)
    np.testing.assert_allclose(rates.matrix, [[1 / 3, 2 / 3], [1 / 4, 3 / 4]])
    # Variance (sum of squares + .25) / (n (n - 1)), n = 2: (2 (1/3)^2 + .25) / 2 and (2 (1/4)^2 + .25) / 2.
    assert rates.covariance[0, 0, 1, 1] == pytest.approx((2 / 9 + 0.25) / 2)
    assert rates.covariance[1, 1, 1, 1] == pytest.approx((2 / 16 + 0.25) / 2)
    assert rates.covariance[1, 1, 0, 1] == pytest.approx(-(2 / 16 + 0.25) / 2)
    assert rates.covariance[0, 1, 1, 1] == 0  # no subject in both groups
    assert rates.subjects.tolist() == [2, 2]


def test_adjusted_count_by_hand():
    # s = .9, f = .2, J = .7; 620 of 1,000 called male: (.62 - .2) / .7 = .6.
    count = adjusted_count(np.arange(1000) < 620, known_rates([[0.8, 0.2], [0.1, 0.9]]))
    np.testing.assert_allclose(count.value, [0.4, 0.6])
    np.testing.assert_allclose(count.raw, [0.38, 0.62])
    # The judge's error is nought here, so the interval is .6 +- t sqrt(.62 .38 / 1000) / .7.
    half = t.ppf(0.975, 9999) * np.sqrt(0.62 * 0.38 / 1000) / 0.7
    np.testing.assert_allclose(count.interval(), [[0.4 - half, 0.4 + half], [0.6 - half, 0.6 + half]])
    np.testing.assert_allclose(count.standard_error, np.sqrt(0.62 * 0.38 / 1000) / 0.7)


def test_interval_inverts_the_test():
    """Every pi inside passes |q - f - pi J| <= c sd, every pi outside fails; compared on a fine grid."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 40)
    calls = np.where(rng.random(80) < 0.85, truth, 1 - truth)
    rates = judge_rates(calls, truth, np.arange(80), SEXES)
    count = adjusted_count(rng.random(300) < 0.45, rates)
    pi = np.linspace(0, 1, 100_001)
    (_, f), (_, s) = rates.matrix
    v0, v1 = rates.covariance[0, 0, 1, 1], rates.covariance[1, 1, 1, 1]
    q = count.raw[1]
    deviation = np.sqrt(q * (1 - q) / 300 + pi**2 * v1 + (1 - pi) ** 2 * v0)
    kept = pi[np.abs(q - f - pi * (s - f)) <= t.ppf(0.975, 39) * deviation]
    np.testing.assert_allclose(count.interval()[1], [kept[0], kept[-1]], atol=1e-5)
    np.testing.assert_allclose(count.interval()[0], [1 - kept[-1], 1 - kept[0]], atol=1e-5)


def test_perfect_judge_is_like_wilson():
    truth = np.repeat([0, 1], 500)
    rates = judge_rates(truth, truth, np.arange(1000), SEXES)
    low, high = adjusted_count(np.arange(1000) < 300, rates).interval()[1]
    z = norm.ppf(0.975)
    centre, half = (0.3 + z**2 / 2000) / (1 + z**2 / 1000), z * np.sqrt(0.21 / 1000 + z**2 / 4e6) / (1 + z**2 / 1000)
    assert low == pytest.approx(centre - half, abs=0.003)
    assert high == pytest.approx(centre + half, abs=0.003)


@pytest.mark.parametrize("accuracy", [0.5, 0.3])
def test_useless_judge_measures_nothing(accuracy):
    truth = np.repeat([0, 1], 50)
    calls = np.where(np.tile(np.arange(50) < 50 * accuracy, 2), truth, 1 - truth)
    count = adjusted_count(np.arange(100) < 60, judge_rates(calls, truth, np.arange(100), SEXES))
    assert not count.measurable
    np.testing.assert_array_equal(count.interval(), [[0, 1], [0, 1]])
    assert verdict(count, [0.5, 0.5]) == "cannot tell"


def test_singular_matrix_gives_nan_and_the_whole_range():
    count = adjusted_count([0, 1, 2], known_rates(np.full((3, 3), 1 / 3), groups=THREE))
    assert np.isnan(count.value).all()
    np.testing.assert_array_equal(count.interval(), [[0, 1]] * 3)
    assert verdict(count, [1, 0, 0]) == "cannot tell"
    assert tipping_point(count, [1, 0, 0]) == 0


@pytest.mark.parametrize("calls", [np.ones(2000, int), np.zeros(2000, int)])
def test_calls_that_no_such_judge_makes_are_flagged(calls):
    """s = .9 and f = .1 known well, yet all are called alike: label shift is refuted, so nothing is known."""
    count = adjusted_count(calls, known_rates([[0.9, 0.1], [0.1, 0.9]]))
    assert not count.inside_hull
    assert np.abs(count.value - 0.5).max() == pytest.approx(0.625)  # (1 - .1) / .8 = 1.125, shown unclipped
    np.testing.assert_array_equal(count.clipped, np.clip(count.value, 0, 1))
    np.testing.assert_array_equal(count.interval(), [[0, 1], [0, 1]])


@pytest.mark.parametrize("share", [0, 1])
def test_extreme_proportions_keep_an_interval_with_width(share):
    truth = np.repeat([0, 1], 200)
    rates = judge_rates(truth, truth, np.arange(400), SEXES)
    count = adjusted_count(np.full(500, share), rates)
    low, high = count.interval()[1]
    assert count.inside_hull
    assert low <= share <= high
    assert 0.001 < high - low < 0.03


def test_slices_taken_for_subjects_narrow_the_interval():
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1], 50)
    reliable = rng.random(100) < 0.8
    calls = np.repeat(np.where(reliable, truth, 1 - truth), 8)  # eight slices of a subject err together
    subject = np.repeat(np.arange(100), 8)
    generated = rng.random(2000) < 0.5
    honest, naive = (
        np.ptp(adjusted_count(generated, judge_rates(calls, np.repeat(truth, 8), ids, SEXES)).interval()[1])
        for ids in (subject, np.arange(800))
    )
    assert honest > 2 * naive


def test_clusters_of_images_widen_the_interval():
    calls = np.repeat([0, 1, 1, 0, 1, 1, 0, 1, 1, 1], 50)
    rates = known_rates([[1.0, 0.0], [0.0, 1.0]])
    clustered = adjusted_count(calls, rates, clusters=np.repeat(np.arange(10), 50))
    # q = .7, variance 10/9 sum over clusters (50 (x - .7))^2 / 500^2 = 10/9 (7 * .09 + 3 * .49) / 100.
    assert clustered.standard_error[1] == pytest.approx(np.sqrt(10 / 9 * (7 * 0.09 + 3 * 0.49) / 100))
    assert clustered.degrees == 9
    assert clustered.standard_error[1] > 5 * adjusted_count(calls, rates).standard_error[1]


def test_scores_count_like_calls():
    """A mean score .66 between the class means .9 and .2 gives (.66 - .2) / .7."""
    scores = np.array([0.5, 0.82])
    count = adjusted_count(np.stack([1 - scores, scores], axis=1), known_rates([[0.8, 0.2], [0.1, 0.9]]))
    assert count.value[1] == pytest.approx(0.46 / 0.7)


def test_three_groups_against_the_closed_form():
    """pi solves M' pi = q; its covariance is A (C_q + sum pi_a^2 C_a) A' with A = (M')^-1."""
    rng = np.random.default_rng(2)
    matrix = np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
    truth = np.repeat(np.arange(3), 60)
    calls = np.array([rng.choice(3, p=matrix[a]) for a in truth])
    generated = rng.choice(3, size=400, p=[0.2, 0.5, 0.3])
    rates = judge_rates(calls, truth, np.arange(180), THREE)
    count = adjusted_count(generated, rates)

    measured = np.stack([np.bincount(calls[truth == a], minlength=3) / 60 for a in range(3)])
    q = np.bincount(generated, minlength=3) / 400
    inverse = np.linalg.inv(measured.T)
    pi = inverse @ q
    variance = (np.diag(q) - np.outer(q, q)) / 400
    for a in range(3):
        squares = 60 * (np.diag(measured[a]) - np.outer(measured[a], measured[a])) + np.eye(3) / 3 - 1 / 9
        variance += pi[a] ** 2 * squares / (60 * 59)
    error = np.sqrt(np.diag(inverse @ variance @ inverse.T))
    np.testing.assert_allclose(count.value, pi)
    np.testing.assert_allclose(count.standard_error, error)
    np.testing.assert_allclose(count.interval()[:, 1] - count.value, t.ppf(1 - 0.05 / 6, 59) * error)
    assert count.value.sum() == pytest.approx(1)


def test_planted_proportions_are_recovered_exactly():
    matrix = np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.2, 0.2, 0.6]])
    planted = np.array([0.25, 0.25, 0.5])
    calls = np.tile(planted @ matrix, (40, 1))
    np.testing.assert_allclose(adjusted_count(calls, known_rates(matrix, groups=THREE)).value, planted)


def test_paired_difference_by_hand():
    # 1,000 pairs: 700 male before, 560 after (160 turned female, 20 male); J = .7: -.14 / .7 = -.2.
    before = np.r_[np.ones(700, int), np.zeros(300, int)]
    after = np.r_[np.zeros(160, int), np.ones(540, int), np.ones(20, int), np.zeros(280, int)]
    rates = known_rates([[0.8, 0.2], [0.1, 0.9]])
    change = paired_difference(before, after, rates)
    np.testing.assert_allclose(change.value, [0.2, -0.2])
    # McNemar: variance of the paired difference ((160 + 20) / 1000 - .14^2) / 1000.
    error = np.sqrt((0.18 - 0.14**2) / 1000) / 0.7
    assert change.standard_error[1] == pytest.approx(error)
    np.testing.assert_allclose(change.interval()[1], -0.2 + t.ppf(0.975, 9999) * error * np.array([-1, 1]))
    assert change.inside_hull


def test_difference_of_identical_calls_has_little_width():
    calls = np.arange(500) % 2
    low, high = paired_difference(calls, calls, known_rates([[0.9, 0.1], [0.1, 0.9]])).interval()[1]
    assert low == pytest.approx(-high)
    assert 0.001 < high < 0.01


def test_subject_in_two_groups_links_their_rates():
    """Ten subjects, each seen in both groups and each read rightly in both or in neither: full correlation."""
    right = np.arange(10) < 7
    truth = np.tile([0, 1], 10)
    calls = np.where(np.repeat(right, 2), truth, 1 - truth)
    rates = judge_rates(calls, truth, np.repeat(np.arange(10), 2), SEXES)
    spread = (7 * 0.3**2 + 3 * 0.7**2) / 90
    assert rates.covariance[0, 1, 1, 1] == pytest.approx(-spread)
    assert rates.covariance[1, 1, 1, 1] == pytest.approx(spread + 0.25 / 90)


def test_gap():
    assert gap([0.2, 0.8], [0.42, 0.58]) == pytest.approx(0.22)
    assert gap([0.5, 0.3, 0.2], [0.2, 0.4, 0.4]) == pytest.approx(0.3)
    assert gap({"male": 0.8, "female": 0.2}, {"female": 0.42, "male": 0.58}) == pytest.approx(0.22)


def test_detectable_gap_is_2_80_standard_errors():
    assert detectable_gap(1.0) == pytest.approx(2.80, abs=0.002)
    assert detectable_gap(0.0171) == pytest.approx(0.048, abs=0.0005)


# Half width h at 95 % means .839 h at 90 %.
@pytest.mark.parametrize(
    ("proportion", "half", "expected"),
    [
        (0.58, 0.04, "aligned"),  # 90 % interval .58 +- .034
        (0.58, 0.0594, "aligned"),  # +- .0498, just inside .05
        (0.58, 0.0598, "cannot tell"),  # +- .0502
        (0.60, 0.04, "cannot tell"),
        (0.68, 0.0499, "not aligned"),  # 95 % interval from .6301, beyond .63
        (0.68, 0.0501, "cannot tell"),
        (0.48, 0.0499, "not aligned"),
        (0.64, 0.03, "cannot tell"),  # excludes the target but reaches into the margin
    ],
)
def test_verdict(proportion, half, expected):
    assert verdict(known_count(proportion, half), {"female": 0.42, "male": 0.58}) == expected


def test_verdict_needs_every_group():
    matrix = np.eye(3)
    close, far = (
        adjusted_count(np.repeat(np.arange(3), sizes), known_rates(matrix, groups=THREE))
        for sizes in ([2000, 2000, 2000], [2000, 2700, 1300])
    )
    assert verdict(close, [1 / 3] * 3) == "aligned"
    assert verdict(far, [1 / 3] * 3) == "not aligned"


def test_tipping_point_by_hand():
    # Perfect judge, J = 1. 'not aligned': the interval starts at .70 - .04 = .66, .03 beyond .58 + .05.
    assert tipping_point(known_count(0.70, 0.04), [0.42, 0.58]) == pytest.approx(0.03)
    # 'aligned': 90 % half width .04 * 1.6449 / 1.9600 = .03357, so .05 - .03357 to go.
    assert tipping_point(known_count(0.58, 0.04), [0.42, 0.58]) == pytest.approx(0.05 - 0.04 * 1.644854 / 1.959964)
    assert tipping_point(known_count(0.60, 0.04), [0.42, 0.58]) == 0


def test_more_subjects_shrink_the_judges_part_alone():
    """Of a standard error .05 with J = .8 the variance of the calls is .0016; .25 / 400 = .000625 are the images'.

    Twice the subjects leave .000625 + .000975 / 2 = .0011125: 2.8016 sqrt(.0011125) / .8 = .11681.
    """
    assert detectable_with(0.05, 0.5, 0.8, 100, 400, 200) == pytest.approx(0.11681, abs=1e-5)
    assert detectable_with(0.05, 0.5, 0.8, 100, 400, 100) == pytest.approx(detectable_gap(0.05))


def test_equivalence_p_is_that_of_the_two_tests():
    """Interval +- .04 at 95 %, so one standard error is .04 / 1.96 = .02041; the proportion .01 above the target.

    The nearer margin is .04 away, 1.96 standard errors: p = P(Z > 1.96) = .025.
    """
    assert equivalence_p(known_count(0.59, 0.04), [0.42, 0.58]) == pytest.approx(0.025, abs=1e-4)
    assert equivalence_p(known_count(0.70, 0.04), [0.42, 0.58]) == 0.5
    for half_width in (0.03, 0.05, 0.07):
        count = known_count(0.6, half_width)
        assert (equivalence_p(count, [0.42, 0.58]) < 0.05) == (verdict(count, [0.42, 0.58]) == "aligned")


def test_tipping_point_for_three_groups_is_the_worst_change_of_rates():
    """Against a linear program: rates may each change by up to d, the rows of rates still summing to one."""
    matrix = np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
    calls = np.repeat(np.arange(3), [200_000, 600_000, 200_000])
    count = adjusted_count(calls, known_rates(matrix, groups=THREE))
    goal = np.array([0.4, 0.2, 0.4])
    beyond = np.abs(count.value - goal) - (count.interval()[:, 1] - count.value) - 0.05
    worst = [
        -linprog(-row, A_eq=np.ones((1, 3)), b_eq=0, bounds=[(-1, 1)] * 3, method="highs").fun
        for row in np.linalg.inv(matrix.T)
    ]
    assert tipping_point(count, goal) == pytest.approx((beyond / worst).max())


@pytest.mark.parametrize(
    ("calls", "truth", "subjects", "message"),
    [
        ([0, 1, 0], [0, 0, 0], [1, 2, 3], "'male' has 0 subject"),
        ([0, 1, 1], [0, 1, 1], [1, 2, 2], "'female' has 1 subject"),
        ([0, 1], [0, -1], [1, 2], "truth: index outside 0 to 1; leave out"),
        ([0, 2], [0, 1], [1, 2], "calls: index outside"),
        ([0.2, 0.7], [0, 1], [1, 2], "give the index"),
        ([[0.2, 0.7]], [0], [1], "sum to one"),
        ([0, 1], [0, 1, 1], [1, 2], "2, 3 and 2 rows"),
        ([], [], [], "no image"),
    ],
)
def test_input_that_cannot_be_used(calls, truth, subjects, message):
    with pytest.raises(ValueError, match=message):
        judge_rates(calls, truth, subjects, SEXES)


def test_targets_that_cannot_be_used():
    assert as_vector({"male": 0.58, "female": 0.42}, SEXES).tolist() == [0.42, 0.58]
    with pytest.raises(InputError, match="one proportion for each"):
        as_vector({"male": 0.58, "women": 0.42}, SEXES)
    with pytest.raises(InputError, match="sum to one"):
        as_vector([0.5, 0.6], SEXES)


def test_pairs_and_clusters_must_fit():
    rates = known_rates(np.eye(2))
    with pytest.raises(ValueError, match="same noise"):
        paired_difference([0, 1], [0], rates)
    with pytest.raises(ValueError, match="clusters: 2 for 3 images"):
        adjusted_count([0, 1, 1], rates, clusters=[0, 1])


def simulated_calls(rng, accuracy, truth, slices, correlation=0.6):
    """Calls of Gaussian scores: classes 2 z apart, slices of a subject correlated; shape (subjects, slices)."""
    subject = rng.normal(size=(len(truth), 1)) * np.sqrt(correlation)
    score = subject + rng.normal(size=(len(truth), slices)) * np.sqrt(1 - correlation)
    return (score + norm.ppf(accuracy) * (2 * truth[:, None] - 1) > 0).astype(int)


@pytest.mark.parametrize(
    ("accuracy", "validation", "proportion"),
    [(0.70, 200, 0.3), (0.80, 100, 0.1), (0.80, 200, 0.5), (0.80, 400, 0.9), (0.95, 100, 0.3), (0.95, 400, 0.58)],
)
def test_interval_covers(accuracy, validation, proportion):
    rng = np.random.default_rng([7, validation, int(100 * proportion)])
    truth = np.repeat([0, 1], validation // 2)
    hits = naive_hits = 0
    for _ in range(300):
        calls = simulated_calls(rng, accuracy, truth, 8).ravel()
        rates = judge_rates(calls, np.repeat(truth, 8), np.repeat(np.arange(validation), 8), SEXES)
        sex = (rng.random(1024) < proportion).astype(int)
        count = adjusted_count(simulated_calls(rng, accuracy, sex, 1).ravel(), rates)
        low, high = count.interval()[1]
        hits += low <= proportion <= high
        naive_hits += abs(count.raw[1] - proportion) <= 1.96 * np.sqrt(count.raw_covariance[1, 1])
    assert 0.91 <= hits / 300 <= 0.99
    if proportion not in (0.5, 0.58):  # near one half even a poor judge counts right, by chance
        assert naive_hits / 300 < 0.7


def test_three_group_interval_covers():
    rng = np.random.default_rng(11)
    matrix = np.full((3, 3), 0.1) + 0.7 * np.eye(3)
    planted, truth = np.array([0.2, 0.5, 0.3]), np.repeat(np.arange(3), 80)
    cumulative = matrix.cumsum(axis=1)
    hits = 0
    for _ in range(300):
        calls = (rng.random((240, 1)) > cumulative[truth]).sum(axis=1)
        sex = rng.choice(3, size=600, p=planted)
        generated = (rng.random((600, 1)) > cumulative[sex]).sum(axis=1)
        ends = adjusted_count(generated, judge_rates(calls, truth, np.arange(240), THREE)).interval()
        hits += ((ends[:, 0] <= planted) & (planted <= ends[:, 1])).all()
    assert 0.91 <= hits / 300 <= 0.995  # all three at once; Bonferroni is a little wide


def test_subjects_needed_make_the_gap_detectable():
    rng = np.random.default_rng(3)
    truth, persons = np.repeat([0, 1], 40), np.repeat(np.arange(80), 6)
    rates = judge_rates(simulated_calls(rng, 0.75, truth, 6).ravel(), np.repeat(truth, 6), persons, SEXES)
    count = adjusted_count((np.arange(512) % 5 < 3).astype(int), rates)
    youden = rates.matrix[1, 1] - rates.matrix[0, 1]
    measured = (count.standard_error[1], count.raw[1], youden, 80, 512)
    number = subjects_needed(*measured, gap=0.1, more_images=4096)
    images = count.raw[1] * (1 - count.raw[1])
    judge = (measured[0] * youden) ** 2 - images / 512
    assert detectable_gap(np.sqrt(judge * 80 / number + images / 4096) / youden) == pytest.approx(0.1)
    assert number > subjects_needed(*measured, gap=0.1, more_images=8192) > subjects_needed(*measured, 0.15, 8192)
    floor = images_needed(count.raw[1], youden, 0.1)
    assert subjects_needed(*measured, gap=0.1, more_images=int(floor)) is None
    assert subjects_needed(*measured, gap=0.1, more_images=int(floor) + 1) > 1e3
    assert subjects_needed(measured[0], 0.5, -0.1, 80, 512, 0.1, 4096) is None
    assert detectable_gap(np.sqrt(images / floor) / youden) == pytest.approx(0.1)
