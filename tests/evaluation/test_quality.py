"""KID and its jackknife against loops that do what the definition says, and against clean-fid."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest
from cleanfid.fid import kernel_distance

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate, difference
from bundle.evaluation.quality import agreement, ambiguity, clip_score, cosine_similarity, kid, kid_change


def naive_kid(x, y, x_subjects, y_subjects=None):
    def mean_kernel(pairs):
        return np.mean([(a @ b / len(a) + 1) ** 3 for a, b in pairs])

    def within(features, subjects):
        pairs = itertools.permutations(zip(features, subjects, strict=True), 2)
        return mean_kernel((a, b) for (a, name), (b, other) in pairs if name != other)

    y_subjects = range(len(y)) if y_subjects is None else y_subjects
    return within(x, x_subjects) + within(y, y_subjects) - 2 * mean_kernel(itertools.product(x, y))


def textbook_kid(x, y):
    """Sutherland's formula by matrices, without subjects."""
    kernels = [(a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    n, m = len(x), len(y)
    within = [(k.sum() - np.trace(k)) / (size * (size - 1)) for k, size in zip(kernels, (n, m), strict=False)]
    return sum(within) - 2 * kernels[2].mean()


def brute_variance(values):
    values = np.array(values)
    return (len(values) - 1) / len(values) * np.sum((values - values.mean()) ** 2)


@pytest.fixture
def features():
    rng = np.random.default_rng(3)
    subjects = np.array(["a", "a", "b", "c", "c", "c", "d", "e", "e", "b"])
    return rng.normal(size=(10, 4)), rng.normal(0.4, 1.2, size=(8, 4)), rng.normal(0.2, 1, size=(8, 4)), subjects


def test_value_and_error_against_leaving_out_by_hand(features):
    real, generated, _, subjects = features
    measured = kid(real, generated, subjects)
    kept = [subjects != name for name in np.unique(subjects)]
    without_subject = [naive_kid(real[keep], generated, subjects[keep]) for keep in kept]
    without_image = [naive_kid(real, np.delete(generated, i, axis=0), subjects) for i in range(8)]
    variance = brute_variance(without_subject) + brute_variance(without_image)
    assert measured.value == pytest.approx(naive_kid(real, generated, subjects))
    assert measured.standard_error == pytest.approx(np.sqrt(variance))
    assert measured.high - measured.value == pytest.approx(1.959964 * np.sqrt(variance))


def test_one_image_per_subject_is_the_textbook_formula(features):
    real, generated, _, _ = features
    assert kid(real, generated, np.arange(10)).value == pytest.approx(textbook_kid(real, generated))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_image_per_subject_is_what_clean_fid_prints(dtype):
    """Its one random subset is here the whole of both sets."""
    rng = np.random.default_rng(7)
    real, generated = rng.normal(size=(150, 24)).astype(dtype), rng.normal(0.3, 1.1, size=(150, 24)).astype(dtype)
    theirs = kernel_distance(real.astype(float), generated.astype(float), num_subsets=1, max_subset_size=150)
    assert kid(real, generated, np.arange(150)).value == pytest.approx(theirs, abs=1e-6)


def test_images_of_one_subject_do_not_raise_the_value():
    """300 subjects shown four times each, almost alike, from the generated images' own distribution."""
    rng = np.random.default_rng(6)
    real = np.repeat(rng.normal(size=(300, 16)), 4, axis=0) + 0.01 * rng.normal(size=(1200, 16))
    generated = rng.normal(size=(1200, 16))
    measured = kid(real, generated, np.arange(1200) // 4)
    assert abs(measured.value) < 2 * measured.standard_error
    # Counted as 1,200 subjects, 3 of 1,199 pairs have k(x, x), about (1 + 1)^3 + 3 (1 + 1) 2/16, instead of about 1.
    inflation = kid(real, generated, np.arange(1200)).value - measured.value
    assert inflation == pytest.approx(3 / 1199 * (8 + 0.75 - 1), rel=0.25)


def test_subjects_on_both_sides(features):
    real, generated, _, subjects = features
    others = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    without = [naive_kid(real, generated[others != j], subjects, others[others != j]) for j in range(4)]
    kept = [subjects != name for name in np.unique(subjects)]
    first = [naive_kid(real[keep], generated, subjects[keep], others) for keep in kept]
    measured = kid(real, generated, subjects, generated_subjects=others)
    assert measured.standard_error == pytest.approx(np.sqrt(brute_variance(without) + brute_variance(first)))


def test_change_pairs_images_and_shares_the_real_side(features):
    real, before, after, subjects = features
    measured = kid_change(real, before, after, subjects)

    def change(kept_real, kept):
        new, old = (naive_kid(real[kept_real], x[kept], subjects[kept_real]) for x in (after, before))
        return new - old

    every = np.ones(8, bool)
    assert measured.value == pytest.approx(change(np.ones(10, bool), every))
    first = [change(subjects != name, every) for name in np.unique(subjects)]
    second = [change(np.ones(10, bool), np.arange(8) != i) for i in range(8)]
    assert measured.standard_error == pytest.approx(np.sqrt(brute_variance(first) + brute_variance(second)))


def test_no_change_has_no_error(features):
    real, before, _, subjects = features
    measured = kid_change(real, before, before, subjects)
    assert (measured.value, measured.standard_error) == (0, 0)


def test_blocks_do_not_matter(features, monkeypatch):
    real, generated, _, subjects = features
    whole = kid(real, generated, subjects)
    monkeypatch.setattr("bundle.evaluation.quality.TILE", 3)
    blocked = kid(real, generated, subjects)
    assert blocked.value == pytest.approx(whole.value)
    assert blocked.standard_error == pytest.approx(whole.standard_error)


@pytest.mark.parametrize("shift", [0.0, 0.35])
def test_jackknife_covers(shift):
    """Subjects with two correlated images each; the truth is the mean over repeats, as the estimator is unbiased."""
    rng = np.random.default_rng(5)
    subjects = np.repeat(np.arange(60), 2)
    measured = []
    for _ in range(250):
        real = np.repeat(rng.normal(size=(60, 8)), 2, axis=0) * 0.8 + rng.normal(size=(120, 8)) * 0.6
        measured.append(kid(real, rng.normal(shift, 1, size=(120, 8)), subjects))
    truth = np.mean([estimate.value for estimate in measured])
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in measured])
    assert 0.91 <= covered <= 1.0 if shift == 0 else 0.91 <= covered <= 0.99
    assert abs(truth) < 0.01 or shift


def test_thousands_of_images_take_seconds():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(2048, 64)), rng.normal(size=(2048, 64))
    start = time.perf_counter()
    kid(real, generated, np.arange(2048) // 4)
    assert time.perf_counter() - start < 10


def test_memory_does_not_grow_with_the_images():
    """The kernel of 6,000 with 6,000 images has 288 MB, features of them in double precision 3; a tile has 8."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(2, 6000, 64)).astype(np.float32)
    tracemalloc.start()
    kid(real, generated, np.arange(6000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_features_that_do_not_match(features):
    real, generated, _, subjects = features
    with pytest.raises(ValueError, match="same d"):
        kid(real, generated[:, :3], subjects)
    with pytest.raises(ValueError, match="real_subjects: 9 for 10"):
        kid(real, generated, subjects[:9])
    with pytest.raises(ValueError, match="3 or more"):
        kid(real, generated, np.arange(10) % 2)
    with pytest.raises(ValueError, match="same noise"):
        kid_change(real, generated, generated[:5], subjects)


def test_cosine_similarity_by_hand():
    # cos 45 degrees and cos 0: (.7071 + 1) / 2.
    assert cosine_similarity([[1, 0], [0, 2]], [[1, 1], [0, 5]]) == pytest.approx((np.sqrt(0.5) + 1) / 2)


def test_clip_score_by_hand():
    # Cosines .6, -.8 (cut to 0) and 1: scores 60, 0 and 100.
    images, texts = np.array([[0.6, 0.8], [0, 1], [1, 0]]), np.array([[1, 0], [0.6, -0.8], [1, 0]])
    scores = [60, 0, 100]
    measured = clip_score(images, texts)
    assert measured.value == pytest.approx(sum(scores) / 3)
    assert measured.standard_error == pytest.approx(np.std(scores, ddof=1) / np.sqrt(3))
    # 4.302653 is the .975 quantile of t with two degrees of freedom, by tables.
    assert measured.high - measured.value == pytest.approx(4.302653 * measured.standard_error)


def test_clip_score_against_a_loop():
    rng = np.random.default_rng(8)
    images, texts = rng.normal(size=(2, 50, 16))
    scores = [max(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b), 0) * 100 for a, b in zip(images, texts, strict=True)]
    assert clip_score(images, texts).value == pytest.approx(np.mean(scores))


def test_clip_score_of_one_image():
    with pytest.raises(InputError, match="1 images; give two"):
        clip_score([[1, 0]], [[1, 0]])


def test_difference_adds_variances():
    # 5 - 3 with errors .3 and .4: 2 with error .5 and half-width 1.96 x .5.
    measured = difference(Estimate(5, 4, 6, 0.3), Estimate(3, 2, 4, 0.4))
    assert measured.value == 2
    assert measured.standard_error == pytest.approx(0.5)
    assert (measured.low, measured.high) == pytest.approx((2 - 0.979982, 2 + 0.979982))


def test_difference_of_two_groups_covers():
    """KIDs of two groups of other distribution and size; the truth is the mean over repeats."""
    rng = np.random.default_rng(9)
    measured = []
    for _ in range(200):
        first = kid(rng.normal(size=(80, 8)), rng.normal(0.35, 1, size=(80, 8)), np.arange(80))
        second = kid(rng.normal(size=(50, 8)), rng.normal(0.2, 1.3, size=(50, 8)), np.arange(50))
        measured.append(difference(first, second))
    truth = np.mean([estimate.value for estimate in measured])
    assert 0.91 <= np.mean([estimate.low <= truth <= estimate.high for estimate in measured]) <= 0.99


def test_ambiguity_counts_between_3_and_7_tenths():
    p = np.array([0.05, 0.29, 0.31, 0.5, 0.69, 0.71, 0.99, 0.6])
    assert ambiguity(p) == 4 / 8
    assert ambiguity(np.stack([1 - p, p], axis=1)) == 4 / 8


def test_agreement():
    assert agreement([0, 1, 1, 0], [0, 1, 0, 0]) == 0.75
    with pytest.raises(ValueError, match="same images"):
        agreement([0, 1], [0])
