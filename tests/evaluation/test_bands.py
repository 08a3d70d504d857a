"""Confidence for several intervals at once, and the spread between seeds."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import multivariate_t, t

from bundle.errors import InputError
from bundle.evaluation.bands import across_seeds, simultaneous_confidence
from bundle.evaluation.prevalence import JudgeRates, adjusted_count, judge_rates
from tests.evaluation.simulate import simulate

SEXES = ("female", "male")


def perfect_judge(groups=SEXES, subjects=100_000):
    size = len(groups)
    return JudgeRates(tuple(groups), np.eye(size), np.zeros((size,) * 4), np.full(size, subjects))


def test_one_set_needs_no_more_than_the_confidence_asked_for():
    calls = np.arange(200) % 2
    assert simultaneous_confidence([calls], perfect_judge(), 0.9) == 0.9
    # The same set four times is one set; the quantile of 20,000 draws is known to .0015.
    assert simultaneous_confidence([calls] * 4, perfect_judge()) == pytest.approx(0.95, abs=0.004)


def test_independent_sets_need_the_level_of_sidak():
    rng = np.random.default_rng(0)
    sets = [(rng.random(20_000) < share).astype(int) for share in (0.2, 0.4, 0.5, 0.6, 0.9)]
    # Five independent intervals of confidence c' all cover with probability c'^5 = .95.
    assert simultaneous_confidence(sets, perfect_judge()) == pytest.approx(0.95**0.2, abs=0.001)


def test_two_correlated_sets_against_the_distribution_function():
    """Half of the images are called otherwise at random; 11 subjects a group, so 10 degrees of freedom."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 2, 10_000)
    second = np.where(rng.random(10_000) < 0.5, first, rng.integers(0, 2, 10_000))
    correlation = np.corrcoef(first, second)[0, 1]
    law = multivariate_t(shape=[[1, correlation], [correlation, 1]], df=10)

    def excess(level):
        q = t.ppf((1 + level) / 2, 10)
        return law.cdf([q, q], lower_limit=[-q, -q], random_state=0) - 0.95

    expected = brentq(excess, 0.95, 0.99, xtol=1e-4)
    assert simultaneous_confidence([first, second], perfect_judge(subjects=11)) == pytest.approx(expected, abs=0.002)


def test_the_judges_shared_error_correlates_independent_images():
    """With few validation subjects and many images, nearly all error is the judge's and the sets err as one."""
    rng = np.random.default_rng(2)
    truth, ids = np.arange(40) % 2, np.arange(40)
    rates = judge_rates(np.where(ids % 5 == 0, 1 - truth, truth), truth, ids, SEXES)
    sets = [(rng.random(50_000) < 0.5).astype(int) for _ in range(6)]
    assert simultaneous_confidence(sets, rates) < 0.96 < simultaneous_confidence(sets, perfect_judge())


def test_all_intervals_cover_together():
    """Five guidance scales from the same noise, a judge of 80 % measured on 600 subjects, erring anew at each scale."""
    shares = np.array([0.3, 0.38, 0.46, 0.54, 0.62])
    together = apart = 0
    for repeat in range(200):
        rng = np.random.default_rng([3, repeat])
        noise, guess = rng.random(1024), rng.random((5, 1024))
        judged = simulate(rng, 0.8, 600, 1, 1, 0.5)
        rates = judge_rates(judged.validation.argmax(axis=1), judged.truth, judged.subjects, SEXES)
        sets = np.where(guess < 0.8, noise < shares[:, None], noise >= shares[:, None]).astype(int)
        counts = [adjusted_count(calls, rates) for calls in sets]
        for level in (simultaneous_confidence(sets, rates), 0.95):
            ends = np.array([count.interval(level)[1] for count in counts])
            covered = ((ends[:, 0] <= shares) & (shares <= ends[:, 1])).all()
            together, apart = together + (covered and level > 0.95), apart + (covered and level == 0.95)
    assert 0.92 <= together / 200 <= 0.985
    assert apart / 200 < 0.92


def test_three_groups_cover_together():
    rng = np.random.default_rng(4)
    shares = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.3, 0.4, 0.3]])
    judge = perfect_judge(("low", "middle", "high"))
    covered = 0
    for _ in range(200):
        sets = [rng.choice(3, size=800, p=share) for share in shares]
        level = simultaneous_confidence(sets, judge)
        ends = np.array([adjusted_count(calls, judge).interval(level) for calls in sets])
        covered += ((ends[..., 0] <= shares) & (shares <= ends[..., 1])).all()
    assert 0.92 <= covered / 200 <= 0.98


def test_sets_that_say_nothing():
    guess = JudgeRates(SEXES, np.full((2, 2), 0.5), np.zeros((2,) * 4), np.full(2, 50))
    assert simultaneous_confidence([[0, 1], [1, 1]], guess) == 0.95
    # A set called alike throughout still has sampling error, uncorrelated with that of the other.
    sets = [np.zeros(500, int), np.arange(500) % 2]
    assert simultaneous_confidence(sets, perfect_judge()) == pytest.approx(0.95**0.5, abs=0.002)
    with pytest.raises(ValueError, match=r"sets of \[2, 3\] images"):
        simultaneous_confidence([[0, 1], [0, 1, 1]], perfect_judge())


def test_across_seeds_by_hand():
    summary = across_seeds([0.3, 0.4, 0.5], [0.05, 0.05, 0.05])
    # Variance .01, error sqrt(.01 / 3); t with 2 degrees of freedom 4.303; between sqrt(.01 - .0025).
    assert summary.mean.value == pytest.approx(0.4)
    assert summary.mean.high == pytest.approx(0.4 + 4.302653 * np.sqrt(0.01 / 3))
    assert summary.mean.low == pytest.approx(0.4 - 4.302653 * np.sqrt(0.01 / 3))
    assert summary.between == pytest.approx(np.sqrt(0.0075))
    assert summary.n == 3
    assert across_seeds([0.3, 0.4, 0.5], [0.2, 0.2, 0.2]).between == 0


def test_across_seeds_covers_and_finds_the_spread():
    rng = np.random.default_rng(5)
    errors = np.full(5, 0.03)
    found = [across_seeds(0.4 + rng.normal(0, 0.04, 5) + rng.normal(0, errors), errors) for _ in range(1000)]
    assert 0.935 <= np.mean([summary.mean.low <= 0.4 <= summary.mean.high for summary in found]) <= 0.965
    spread = np.sqrt(np.mean([summary.between**2 for summary in found]))
    assert spread == pytest.approx(0.04, abs=0.004)  # a little high, since negative variances are cut to nought


def test_seeds_that_cannot_be_used():
    with pytest.raises(InputError, match="1 seed"):
        across_seeds([0.4], [0.1])
    with pytest.raises(ValueError, match="one each per seed"):
        across_seeds([0.4, 0.5], [0.1])
