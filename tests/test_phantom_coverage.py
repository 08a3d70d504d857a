"""Sets of known true share: what is drawn, the counts by hand, and coverage with and without a shift."""

import numpy as np
import pytest
from scipy.stats import norm

from bundle.errors import InputError
from scripts.phantom_coverage import Pools, coverage_on_images, section

SLICES = 4


def never(name, generated, measured):
    return False


def latent_scores(rng, truth, slices, signal=1.0):
    """Scores (subjects, slices) whose groups are 2 Phi^-1(.85) apart, times `signal`; slices correlated by .6."""
    subject = rng.normal(size=(len(truth), 1)) * np.sqrt(0.6)
    noise = subject + rng.normal(size=(len(truth), slices)) * np.sqrt(0.4)
    return noise + signal * norm.ppf(0.85) * (2 * truth[:, None] - 1)


def unsure(scores, subjects, generated, measured):
    """A test of label shift: as many scores near the boundary among generated as among validation images?

    Both groups of these judges have the same share of them, so that it does not depend on the true share.
    """
    near = np.abs(scores["generated"][generated]) < 0.5
    known = np.abs(scores["plain"][measured]) < 0.5
    means = [known[subjects[measured] == subject].mean() for subject in np.unique(subjects[measured])]
    error = np.hypot(near.std() / np.sqrt(len(near)), np.std(means) / np.sqrt(len(means)))
    return abs(near.mean() - np.mean(means)) > 1.96 * error


def run(signal, share, seed=0):
    """150 sets of a share from a judge whose signal is `signal` times weaker on generated images than on plain ones.

    The "decoded" validation images have half of that change.
    """
    rng = np.random.default_rng(seed)
    person, truth = np.repeat([0, 1], 1500), np.repeat([0, 1], 20_000)
    subjects = np.repeat(np.arange(3000), SLICES)
    strength = {"plain": 1.0, "decoded": (1 + signal) / 2}
    scores = {name: latent_scores(np.random.default_rng(seed + 1), person, SLICES, s) for name, s in strength.items()}
    scores = {name: own.ravel() for name, own in scores.items()}
    scores["generated"] = latent_scores(rng, truth, 1, signal).ravel()
    validation = {name: (scores[name] > 0).astype(int) for name in strength}
    found = coverage_on_images(
        (scores["generated"] > 0).astype(int), truth, validation, np.repeat(person, SLICES), subjects, [share],
        subjects_each=100, images=1024, repeats=150, seed=3, margin=0.05,
        rejects=lambda name, generated, measured: unsure(scores, subjects, generated, measured),
    )  # fmt: skip
    return {row.calibration: row for row in found}


def test_without_a_shift_it_covers_and_nothing_is_flagged():
    found = run(1.0, 0.2)
    assert found["plain"].covered == found["decoded"].covered  # the same calls
    # 150 repeats: 95 % +- 2.6 standard errors of 1.8 points, and the pools' own chance.
    assert 0.9 <= found["plain"].covered <= 0.995
    assert abs(found["plain"].bias) < 0.02
    assert found["plain"].rejected < 0.12
    assert found["plain"].tipped == found["plain"].refuted == 0  # no shift between calibrations
    assert found["plain"].not_aligned < 0.02


def test_with_a_shift_it_does_not_cover_and_is_flagged():
    found = run(0.6, 0.1)
    plain = found["plain"]
    assert plain.covered < 0.9
    # s = .85 falls to Phi(.6 x 1.036) = .733: bias (.1 x -.117 + .9 x .117) / .7 = .134.
    assert plain.bias == pytest.approx(0.134, abs=0.02)
    assert plain.rejected > 0.9
    assert plain.silent < 0.02
    assert plain.false_alarm <= plain.covered
    assert found["decoded"].covered > plain.covered


def pools(subjects=6):
    """A perfect judge: subject i is in group i mod 2, has two images; 30 and 10 generated images of the groups."""
    person = np.repeat(np.arange(subjects), 2)
    truth = np.repeat([0, 1], [30, 10])
    return truth, truth, {"plain": person % 2}, person % 2, person


def test_whole_subjects_are_drawn_from_both_groups():
    drawn = Pools(*pools(20)).measured(np.random.default_rng(0), 3)
    persons, images = np.unique(drawn // 2, return_counts=True)
    assert images.tolist() == [2] * 6
    assert (persons % 2).sum() == 3


def test_sets_have_the_share_asked_for():
    made, rng = Pools(*pools()), np.random.default_rng(0)
    shares = [made.truth[made.generated(rng, 100, 0.7)].mean() for _ in range(400)]
    # Binomial: mean .7 (standard error .0023), standard deviation sqrt(.7 x .3 / 100) = .0458.
    assert np.mean(shares) == pytest.approx(0.7, abs=0.01)
    assert np.std(shares) == pytest.approx(0.0458, rel=0.15)


def test_the_tipping_point_is_held_against_the_largest_shift():
    truth, calls, validation, known, person = pools(400)
    # The decoded images of every fourth subject of group 0 are called 1: f goes from 0 to .25.
    validation["decoded"] = np.where(person % 8 == 0, 1, known)
    arguments = (known, person, [0.3], 150, 2000, 20, 0, 0.1, never)
    both = {row.calibration: row for row in coverage_on_images(calls, truth, validation, *arguments)}
    # Aligned within 10 points at 1.65 x .0102 either side: at most 10 points of change to spare, below 25.
    assert both["plain"].aligned == 1
    assert both["plain"].tipped == 1
    # With f = .25 and s = 1: (.3 - .25) / .75 = .067, .233 short of .3.
    assert both["decoded"].bias == pytest.approx(-0.233, abs=0.01)
    assert both["decoded"].not_aligned == 1
    assert both["decoded"].covered == 0
    (alone,) = coverage_on_images(calls, truth, {"plain": validation["plain"]}, *arguments)
    assert alone.tipped == 0


def test_a_miss_that_nothing_warns_of_is_silent():
    truth, calls, _, known, person = pools(400)
    wrong = {"plain": np.where(person % 8 == 0, 1, known)}
    (quiet,) = coverage_on_images(calls, truth, wrong, known, person, [0.3], 150, 2000, 20, 0, 0.1, never)
    assert (quiet.covered, quiet.silent) == (0, 1)
    (loud,) = coverage_on_images(calls, truth, wrong, known, person, [0.3], 150, 2000, 20, 0, 0.1, lambda *_: True)
    assert (loud.silent, loud.rejected) == (0, 1)


def test_calls_outside_the_hull_are_refuted():
    truth, _, validation, known, person = pools(400)
    validation["plain"] = np.where(person % 8 == 0, 1, known)  # f = .25, yet no generated image is called 1
    zeros = np.zeros_like(truth)
    (row,) = coverage_on_images(zeros, truth, validation, known, person, [0.3], 150, 2000, 5, 0, 0.1, never)
    assert (row.refuted, row.width) == (1, 1)


def test_the_same_seed_gives_the_same_rows():
    truth, calls, validation, known, person = pools(40)
    given = (calls, truth, validation, known, person, [0.2, 0.6], 5, 100, 4)
    first, second, other = (coverage_on_images(*given, seed, 0.1, never) for seed in (1, 1, 2))
    assert first == second != other
    assert [row.share for row in first] == [0.2, 0.6]


def test_arrays_that_cannot_be_used():
    truth, calls, validation, known, person = pools()
    rest = ([0.3], 2, 50, 2, 0, 0.1, never)
    with pytest.raises(ValueError, match="lengths differ"):
        coverage_on_images(calls[1:], truth, validation, known, person, *rest)
    with pytest.raises(ValueError, match="in two groups"):
        coverage_on_images(calls, truth, validation, known, np.zeros_like(person), *rest)
    with pytest.raises(InputError, match="group 0 has 3, 4 are drawn"):
        coverage_on_images(calls, truth, validation, known, person, [0.3], 4, *rest[2:])
    with pytest.raises(InputError, match="no generated image of group 1"):
        coverage_on_images(calls, np.zeros_like(truth), validation, known, person, *rest)


def test_the_section_shows_every_share_of_warnings():
    """Two shares, of which one covers 80 % and the other 100 %: 90 % on average, the lowest at .2."""
    common = {"images": "before", "calibration": "plain", "rejected": 0.5, "tipped": 0.25}
    rows = [
        {**common, "share": 0.2, "covered": 0.8, "bias": -0.03, "silent": 0.05, "false_alarm": 0.1},
        {**common, "share": 0.8, "covered": 1.0, "bias": 0.01, "silent": 0.0, "false_alarm": 0.3},
    ]
    lines = section({"rows": rows}).splitlines()
    assert lines[2] == "| before | plain | 90.0 % | 80.0 % at 20.0 % | -3.0 points | 50.0 % | 25.0 % | 2.5 % | 20.0 % |"
    assert {line.count("|") for line in lines[:3]} == {10}
    assert "Of 2 cells 1 cover less than 90 %; there, at most 5.0 % of the sets miss" in lines[-1]
