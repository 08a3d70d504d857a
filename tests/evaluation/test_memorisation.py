"""Copies of training images, planted and not, in features whose images of one subject are alike."""

import time
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from scipy.stats import betabinom

from bundle.errors import InputError
from bundle.evaluation.estimate import difference
from bundle.evaluation.memorisation import (
    GroupRows,
    closest_pairs,
    fewest_subjects,
    memorisation,
    memorisation_by_group,
    nearest,
)

WIDTH = 64


def images(rng, sizes, alike=0.6):
    """Features of subjects with so many images each, correlated by `alike` within a subject; and the subjects."""
    subjects = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.sqrt(alike) * rng.standard_normal((len(sizes), WIDTH), dtype=np.float32)
    return centres[subjects] + np.sqrt(1 - alike) * rng.standard_normal((len(subjects), WIDTH), np.float32), subjects


def copies(rng, training, count):
    """Training images with noise of .05 per element: .4 away, where a new person's image is about 8 away."""
    chosen = rng.choice(len(training), count, replace=False)
    return training[chosen] + 0.05 * rng.standard_normal((count, WIDTH), np.float32)


def test_two_percent_of_copies_are_caught_and_none_are_not():
    """600 training subjects, 100 to 200 in the hold-out, with 2 to 6 images each; 20 copies among 1,024 images."""
    rng = np.random.default_rng(0)
    flagged = np.zeros((100, 2))
    for repeat in flagged:
        training, _ = images(rng, rng.integers(1, 3, 600))
        holdout, people = images(rng, rng.integers(2, 7, rng.integers(100, 201)))
        fresh, _ = images(rng, np.ones(1024, int))
        planted = np.concatenate([fresh[:1004], copies(rng, training, 20)])
        repeat[:] = [memorisation(training, holdout, people, generated).flagged for generated in (fresh, planted)]
    false_alarms, caught = flagged.mean(0)
    assert false_alarms <= 0.10
    assert caught >= 0.90


def line(distances):
    """One-dimensional features at these distances from a single training image at 0."""
    return np.array(distances, dtype=float)[:, None]


def test_the_smallest_holdout_raises_few_false_alarms():
    """The threshold is the least of 100 distances: the share under it is Beta(1, 100), the count beta-binomial.

    Flagged is a share above .01 + 1.96 sqrt(.01 x .99 / 1024 + .01 x .99 / 99) = .0305, 32 images or more.
    """
    rng = np.random.default_rng(0)
    flagged = [
        memorisation(line([0]), line(rng.random(100)), np.arange(100), line(rng.random(1024))).flagged
        for _ in range(2000)
    ]
    size = betabinom.sf(31, 1024, 1, 100)
    assert size < 0.06
    assert np.mean(flagged) == pytest.approx(size, abs=3 * np.sqrt(size / 2000))


def test_excess_by_hand():
    """Hold-out distances 1 to 100: the threshold is 1, under which lies 1 / 100 of it and 3 / 50 of the generated."""
    generated = line([0.2, 0.7, 1.0, *range(2, 49)])
    measured = memorisation(line([0]), line(range(1, 101)), np.arange(100), generated)
    assert (measured.n, measured.training, measured.holdout, measured.holdout_subjects) == (50, 1, 100, 100)
    assert (measured.threshold, measured.share, measured.expected) == (1, 0.06, 0.01)
    assert measured.excess.value == pytest.approx(0.05)
    # 100 / 99 x (.99^2 + 99 x .01^2) / 100^2 = .01 x .99 / 99 = .0001
    assert measured.excess.standard_error == pytest.approx(np.sqrt(0.06 * 0.94 / 50 + 0.0001))
    ends = [
        brentq(lambda p: abs(0.06 - p) - 1.959964 * np.sqrt(p * (1 - p) / 50 + 0.0001), *at)
        for at in ((0, 0.06), (0.06, 0.9))
    ]
    assert (measured.excess.low, measured.excess.high) == pytest.approx((ends[0] - 0.01, ends[1] - 0.01), abs=1e-6)


def test_no_generated_image_near_still_has_an_error():
    measured = memorisation(line([0]), line(range(1, 101)), np.arange(100), line([50] * 25))
    assert measured.excess.value == -0.01
    assert measured.excess.standard_error == pytest.approx(np.sqrt(0.01 * 0.99 / 25 + 0.0001))
    assert measured.excess.high > 0
    assert not measured.flagged


def test_near_images_of_one_subject_are_one_piece_of_evidence():
    """Two of 200 hold-out images under the threshold, of two subjects or of one: the variance of sums doubles."""
    generated = line(np.linspace(0.1, 60, 400))
    apart, same = (
        memorisation(line([0]), line(range(1, 201)), np.array(subjects), generated)
        for subjects in (np.arange(200) % 100, np.arange(200) // 2)
    )
    binomial = apart.share * (1 - apart.share) / 400
    # Two images each; deviations of sums: 1 - .02 twice, or 2 - .02 once; -.02 in the other subjects.
    variances = [100 / 99 * (2 * 0.98**2 + 98 * 0.02**2) / 200**2, 100 / 99 * (1.98**2 + 99 * 0.02**2) / 200**2]
    errors = [apart.excess.standard_error, same.excess.standard_error]
    assert errors == pytest.approx(np.sqrt(binomial + np.array(variances)))
    assert same.excess.high - same.excess.low > apart.excess.high - apart.excess.low


def test_ties_at_the_threshold_count_on_both_sides():
    """A tenth of the hold-out at the distance 1, as half of the generated: excess .5 - .1."""
    holdout = line([1] * 10 + [5] * 90)
    measured = memorisation(line([0]), holdout, np.arange(100), line([1, 5] * 100))
    assert measured.excess.value == pytest.approx(0.4)


def test_nearest_against_all_distances(monkeypatch):
    rng = np.random.default_rng(1)
    queries, references = rng.normal(size=(57, 9)), rng.normal(size=(23, 9))
    every = cdist(queries, references)
    for elements in (1, 23 * 10, 2**22):  # one query at a time, ten, all
        monkeypatch.setattr("bundle.evaluation.memorisation.BLOCK_ELEMENTS", elements)
        distances, indices = nearest(queries, references)
        assert distances == pytest.approx(every.min(1))
        assert indices.tolist() == every.argmin(1).tolist()


def test_nearest_far_from_the_origin():
    """Features that differ by 1e-4 about a mean of 1e6: squares of 1e12 leave no digit for differences of 1e-8."""
    rng = np.random.default_rng(2)
    references = 1e6 + 1e-4 * rng.normal(size=(40, 8))
    distances, indices = nearest(references[::-1], references)
    assert indices.tolist() == list(range(39, -1, -1))
    assert not distances.any()


def test_memory_does_not_grow_with_the_product():
    """20,000 by 4,000 distances would be 640 MB."""
    rng = np.random.default_rng(3)
    references, queries = (rng.standard_normal((rows, WIDTH), dtype=np.float32) for rows in (4_000, 20_000))
    tracemalloc.start()
    start = time.perf_counter()
    nearest(queries, references)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert time.perf_counter() - start < 30


def test_closest_pairs():
    pairs = closest_pairs([3.0, 0.5, 2.0, 0.1], [7, 8, 9, 6], threshold=2.0, count=3)
    assert [(pair.generated, pair.training, pair.distance, pair.ratio) for pair in pairs] == [
        (3, 6, 0.1, 0.05), (1, 8, 0.5, 0.25), (2, 9, 2.0, 1.0)
    ]  # fmt: skip


@pytest.fixture
def two_groups():
    """Groups of 200 training and 120 hold-out subjects and 400 images each, of which the second copies 30."""
    rng = np.random.default_rng(5)
    training, _ = images(rng, np.full(400, 2))
    holdout, people = images(rng, np.full(240, 3))
    fresh, _ = images(rng, np.ones(800, int))
    fresh[770:] = copies(rng, training[400:], 30)
    rows = {
        "a": GroupRows(np.arange(400), np.arange(360), np.arange(400)),
        "b": GroupRows(np.arange(400, 800), np.arange(360, 720), np.arange(400, 800)),
    }
    return training, holdout, people, fresh, rows


def test_by_group_names_rows_of_the_whole(two_groups):
    training, holdout, people, generated, rows = two_groups
    found = memorisation_by_group(training, holdout, people, generated, rows)
    assert [found["a"].flagged, found["b"].flagged] == [False, True]
    assert found["b"].excess.value == pytest.approx(0.075, abs=0.02)  # 30 / 400
    assert difference(found["b"].excess, found["a"].excess).low > 0
    assert len(found["b"].closest) == 10
    for pair in found["b"].closest:
        assert pair.generated >= 770
        distance = np.linalg.norm(generated[pair.generated] - training[pair.training])
        assert pair.distance == pytest.approx(distance, rel=1e-4)
        assert pair.ratio == pytest.approx(distance / found["b"].threshold, rel=1e-4)


def test_by_group_with_all_training_images_finds_copies_from_another_group(two_groups):
    training, holdout, people, generated, rows = two_groups
    swapped = {"a": GroupRows(rows["a"].training, rows["a"].holdout, rows["b"].generated)}
    assert not memorisation_by_group(training, holdout, people, generated, swapped)["a"].flagged
    whole = {"a": GroupRows(np.arange(800), rows["a"].holdout, rows["b"].generated)}
    assert memorisation_by_group(training, holdout, people, generated, whole)["a"].flagged


def test_a_group_with_too_few_holdout_subjects_is_not_measured(two_groups):
    training, holdout, people, generated, rows = two_groups
    small = {**rows, "b": GroupRows(rows["b"].training, np.arange(360, 657), rows["b"].generated)}  # 99 subjects
    found = memorisation_by_group(training, holdout, people, generated, small)
    assert found["b"] is None
    assert found["a"].holdout_subjects == 120


def test_fewest_subjects():
    assert [fewest_subjects(q) for q in (0.01, 0.02, 0.03, 0.05)] == [100, 50, 34, 20]


def test_what_cannot_be_used():
    far = line(range(1, 101))
    with pytest.raises(InputError, match="99 different; 100 are needed for quantile 0.01; give more, or quantile 0.01"):
        memorisation(line([0]), far, np.arange(100) % 99, far)
    assert memorisation(line([0]), far, np.arange(100) % 99, far, quantile=0.011).holdout_subjects == 99
    with pytest.raises(ValueError, match="holdout_subjects: 99 for 100"):
        memorisation(line([0]), far, np.arange(99), far)
    with pytest.raises(InputError, match="leave out shared subjects"):
        memorisation(far, far, np.arange(100), far)
    with pytest.raises(InputError, match="not all finite"):
        memorisation(line([0]), far, np.arange(100), line([1, np.nan]))
    with pytest.raises(InputError, match="0 images beside 1"):
        nearest(np.empty((0, 1)), line([0]))
    with pytest.raises(ValueError, match="same d"):
        nearest(np.ones((2, 3)), np.ones((2, 4)))
