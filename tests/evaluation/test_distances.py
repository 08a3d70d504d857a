"""Fréchet distance and neighbour measures against closed forms and packages; half-sampling by simulation."""

import tracemalloc

import numpy as np
import pytest
import torch
from cleanfid import fid
from prdc import compute_prdc
from torchmetrics.image.fid import FrechetInceptionDistance

from bundle.errors import InputError
from bundle.evaluation.distances import choose, equal_sizes, frechet_distance, half_sampled, prdc
from bundle.evaluation.estimate import difference


def exact_sample(rng, n, mean, covariance):
    """Rows whose sample mean and covariance are these, to rounding."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return white @ np.linalg.cholesky(covariance).T + mean


@pytest.fixture
def features():
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(16, 16))
    return rng.normal(size=(90, 16)) @ mix, rng.normal(0.3, 1.2, size=(90, 16)) @ mix


def test_frechet_distance_of_two_gaussians():
    # Diagonal covariances commute: (1-0)^2 + (0-2)^2 + (sqrt 4 - sqrt 1)^2 + (sqrt 9 - sqrt 1)^2 = 1 + 4 + 1 + 4.
    rng = np.random.default_rng(0)
    first = exact_sample(rng, 40, [0, 2], np.diag([4.0, 9.0]))
    second = exact_sample(rng, 70, [1, 0], np.eye(2))
    assert frechet_distance(first, second) == pytest.approx(10)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])  # a rotation moves neither
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(10)


def test_frechet_distance_where_covariances_do_not_commute():
    # S1 S2 = [[2, 1], [2, 2]] has trace 4 and determinant 2; its root's trace is sqrt(4 + 2 sqrt 2).
    first = exact_sample(np.random.default_rng(0), 50, [0, 0], np.array([[1.0, 0], [0, 2]]))
    second = exact_sample(np.random.default_rng(1), 50, [0, 0], np.array([[2.0, 1], [1, 1]]))
    assert frechet_distance(first, second) == pytest.approx(3 + 3 - 2 * np.sqrt(4 + 2 * np.sqrt(2)))


@pytest.mark.filterwarnings("ignore:The `disp` argument")
def test_frechet_distance_is_what_clean_fid_prints(features):
    moments = [value for x in features for value in (x.mean(axis=0), np.cov(x.T))]
    assert frechet_distance(*features) == pytest.approx(fid.frechet_distance(*moments), rel=1e-8)


def test_frechet_distance_is_what_torchmetrics_prints(features):
    metric = FrechetInceptionDistance(feature=torch.nn.Flatten(), input_img_size=(1, 4, 4), normalize=True)
    metric = metric.set_dtype(torch.float64)
    for x, real in zip(features, (True, False), strict=True):
        metric.update(torch.from_numpy(x).reshape(-1, 1, 4, 4), real=real)
    assert frechet_distance(*features) == pytest.approx(metric.compute().item(), rel=1e-6)


def test_fewer_images_than_dimensions():
    """Features of rank two in 50 dimensions have the distance that they have in two."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(20, 2)), rng.normal(1, 2, size=(15, 2))
    basis = np.linalg.qr(rng.normal(size=(50, 2)))[0].T
    assert frechet_distance(first @ basis, second @ basis) == pytest.approx(frechet_distance(first, second), rel=1e-10)
    assert frechet_distance(first @ basis, first @ basis) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_in_blocks_and_single_precision(features, monkeypatch):
    whole = frechet_distance(*features)
    monkeypatch.setattr("bundle.evaluation.distances.BLOCK_ELEMENTS", 7)
    assert frechet_distance(*features) == pytest.approx(whole, rel=1e-12)
    assert frechet_distance(*(x.astype(np.float32) for x in features)) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_prdc_is_what_its_package_prints(features, neighbours, dtype, monkeypatch):
    real, generated = (x.astype(dtype) for x in features)
    theirs = compute_prdc(real, generated, neighbours)
    assert prdc(real, generated, neighbours)._asdict() == pytest.approx(theirs, abs=1e-9)
    monkeypatch.setattr("bundle.evaluation.distances.BLOCK_ELEMENTS", 200)
    assert prdc(real, generated, neighbours)._asdict() == pytest.approx(theirs, abs=1e-9)


def test_prdc_by_hand():
    # Nearest neighbours of 0, 1, 3 lie 1, 1, 2 away; of .5, 9, 9.5: 8.5, .5, .5. Of the generated only .5 lies in real
    # balls, those of 0 and 1: precision 1/3, density 2/3, coverage 2/3. All real ones lie in the ball of .5: recall 1.
    values = prdc([[0.0], [1.0], [3.0]], [[0.5], [9.0], [9.5]], neighbours=1)
    assert values == pytest.approx((1 / 3, 1, 2 / 3, 2 / 3))


def test_memory_does_not_grow_with_the_images():
    """The distances of 4,000 to 4,000 images have 64 MB in single precision, a block of them 4."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 4000, 32)).astype(np.float32)
    tracemalloc.start()
    prdc(first, second)
    frechet_distance(first, second)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_prdc_refuses_what_does_not_compare(features):
    real, generated = features
    with pytest.raises(ValueError, match="90 real and 89 generated") as raised:
        prdc(real, generated[1:])
    assert not isinstance(raised.value, InputError)
    with pytest.raises(InputError, match="5 images for 5 neighbours"):
        prdc(real[:5], generated[:5])
    with pytest.raises(ValueError, match="same d"):
        prdc(real, generated[:, 1:])
    with pytest.raises(InputError, match="1 and 90 images"):
        frechet_distance(real[:1], generated)


def share_covered(measure, draw, repeats):
    """Share of repeats whose interval holds the measure's mean over repeats, for each of its numbers."""
    rng = np.random.default_rng(4)
    measured = [half_sampled(measure, *draw(rng), seed=seed) for seed in range(repeats)]
    values, low, high = (np.array([[getattr(e, key) for e in m] for m in measured]) for key in ("value", "low", "high"))
    truth = values.mean(axis=0)
    return ((low <= truth) & (truth <= high)).mean(axis=0)


def clustered(rng):
    """60 subjects of two images each, which are alike, against 120 images apart from them."""
    real = np.repeat(rng.normal(size=(60, 8)), 2, axis=0) * 0.8 + rng.normal(size=(120, 8)) * 0.6
    return real, rng.normal(0.5, 1, size=(120, 8)), np.arange(120) // 2


def test_half_sampling_covers_the_frechet_distance():
    assert 0.91 <= share_covered(frechet_distance, clustered, 200) <= 0.99


def test_half_sampling_covers_precision_recall_density_and_coverage():
    values = share_covered(lambda x, y: prdc(x, y, 3), clustered, 80)
    assert values.shape == (4,)
    assert (values >= 0.88).all()


def test_half_sampling_is_wide_between_like_sets():
    """There the distance is a sum of squares, whose spread falls as 1/n, which halves show twice."""
    assert share_covered(frechet_distance, lambda rng: (rng.normal(size=(80, 8)), rng.normal(size=(80, 8))), 60) >= 0.95


def test_half_sampling_of_a_mean_is_its_standard_error():
    """Against s^2/n + s^2/m, of which 4,000 halves give 2 %."""
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(40, 1)), rng.normal(3, 2, size=(80, 1))
    (estimate,) = half_sampled(lambda x, y: y.mean() - x.mean(), first, second, repeats=4000)
    assert estimate.value == pytest.approx(second.mean() - first.mean())
    expected = np.sqrt(first.var(ddof=1) / 40 + second.var(ddof=1) / 80)
    assert estimate.standard_error == pytest.approx(expected, rel=0.05)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * estimate.standard_error)


def test_whole_subjects_are_drawn_and_equal_numbers_stay_equal():
    subjects = np.repeat(np.arange(9), np.arange(1, 10))  # 45 images
    seen = []

    def measure(x, y):
        drawn, images = np.unique(x[:, 0], return_counts=True)
        seen.append((len(drawn), (images == drawn + 1).all(), len(y) == len(x), len(np.unique(y)) == len(y)))
        return 0.0

    half_sampled(measure, subjects[:, None], np.arange(45)[:, None], subjects, repeats=10)
    assert seen == [(4, True, True, True)] * 10 + [(9, True, True, True)]


def test_half_sampling_depends_on_its_seed_alone(features):
    first, second, other = (half_sampled(frechet_distance, *features, repeats=5, seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert first[0].value == other[0].value
    assert first[0].standard_error != other[0].standard_error


def test_half_sampling_refuses_what_it_cannot_halve(features):
    with pytest.raises(InputError, match="3 different"):
        half_sampled(frechet_distance, *features, np.arange(90) % 3)
    with pytest.raises(ValueError, match="89 for 90"):
        half_sampled(frechet_distance, *features, np.arange(89))


def test_a_collapsed_group_is_caught_at_equal_numbers():
    """90 of 120 images are near copies of four: coverage falls by 24 points, and another honest set's does not."""
    rng = np.random.default_rng(6)
    alarms = []
    for seed in range(30):
        real, honest, other, collapsed = rng.normal(size=(4, 120, 8))
        collapsed[:90] = collapsed[np.arange(90) % 4] + 0.05 * rng.normal(size=(90, 8))
        sets = honest, other, collapsed
        ceiling, *tried = [half_sampled(prdc, real, x, repeats=15, seed=seed)[3] for x in sets]
        alarms.append([difference(ceiling, estimate).low > 0 for estimate in tried])
    false, caught = np.mean(alarms, axis=0)
    assert caught >= 0.9
    assert false <= 0.1


def test_equal_sizes():
    assert equal_sizes({"female": 80, "male": 120}) == 80
    with pytest.raises(InputError, match="no image of male"):
        equal_sizes({"female": 80, "male": 0})


def test_choose_draws_each_place_equally_often():
    draws = np.array([choose(3, 10, seed) for seed in range(2000)])
    assert (np.diff(draws, axis=1) > 0).all()
    # Each of ten places is drawn with chance .3: 600 times, standard deviation sqrt(2000 x .3 x .7) = 20.5.
    assert np.bincount(draws.ravel(), minlength=10) == pytest.approx(600, abs=85)
    assert (choose(3, 10, 5) == choose(3, 10, 5)).all()
