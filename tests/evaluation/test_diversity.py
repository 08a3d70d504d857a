"""MS-SSIM of pairs against torchmetrics, and whether it finds a collapsed set."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate
from torchmetrics.functional.image import structural_similarity_index_measure

from bundle.errors import InputError
from bundle.evaluation.diversity import WEIGHTS, ms_ssim_diversity, scales_for
from bundle.evaluation.estimate import difference


@pytest.fixture(autouse=True)
def _one_thread():
    """Small images gain nothing from several threads, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def heads(generator, number, side=22):
    """Discs that all images share, with soft patches of their own."""
    patches = torch.randn(number, 1, 5, 5, generator=generator)
    patches = interpolate(patches, size=(side, side), mode="bicubic", align_corners=False)
    place = torch.linspace(-1, 1, side)
    disc = (place[:, None] ** 2 + place**2 < 0.7).float()
    return (disc * (0.5 + 0.15 * patches)).clamp(0, 1)


class Recorder:
    """Images that note which of them were read."""

    def __init__(self, images):
        self.images, self.read = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, places):
        self.read.append(list(places))
        return self.images[places]

    @property
    def pairs(self):
        """Places (P, 2) of the pairs read, after the one image that shows the size."""
        return np.concatenate([np.reshape(batch, (2, -1)).T for batch in self.read if len(batch) > 1])


def similarity_by_torchmetrics(first, second, scales):
    """MS-SSIM (B,) from torchmetrics' parts, windows inside the image alone, as in the paper.

    Its own MS-SSIM does so at all scales but the coarsest, where it takes in a border of mirrored pixels.
    """
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    settings = {"data_range": 1.0, "reduction": "none"}
    value = torch.ones(len(first))
    for weight in weights[:-1]:
        _, contrast = structural_similarity_index_measure(first, second, return_contrast_sensitivity=True, **settings)
        value *= contrast.relu() ** weight
        first, second = avg_pool2d(first, 2), avg_pool2d(second, 2)
    _, full = structural_similarity_index_measure(first, second, return_full_image=True, **settings)
    return value * full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)).relu() ** weights[-1]


@pytest.mark.parametrize(("side", "scales"), [(16, 1), (32, 2), (64, 3), (128, 4), (176, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_those_of_torchmetrics(side, scales, channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.cat([heads(generator, 12, side) for _ in range(channels)], dim=1)
    recorder = Recorder(images)
    measured = ms_ssim_diversity(recorder)
    assert (measured.pairs, measured.scales) == (6, scales)
    theirs = similarity_by_torchmetrics(*(images[places] for places in recorder.pairs.T), scales)
    assert 0.05 < theirs.mean() < 0.95
    assert measured.estimate.value == pytest.approx(theirs.mean().item(), abs=1e-5)
    assert measured.estimate.standard_error == pytest.approx(theirs.std().item() / np.sqrt(6), abs=1e-5)
    # 2.570582 is the .975 quantile of t with five degrees of freedom, by tables.
    half = measured.estimate.high - measured.estimate.value
    assert half == pytest.approx(2.570582 * measured.estimate.standard_error)


def test_copies_have_similarity_one():
    images = heads(torch.Generator().manual_seed(1), 1).expand(20, -1, -1, -1)
    measured = ms_ssim_diversity(images)
    assert measured.estimate.value == pytest.approx(1, abs=1e-6)
    assert measured.estimate.standard_error == pytest.approx(0, abs=1e-6)


def test_a_collapsed_set_is_found_and_an_honest_one_is_not():
    """128 images, half of them one image with 2 % noise; alarm where the excess over real ones' exceeds its error."""
    alarms = []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        real, honest, collapsed, one = (heads(generator, number) for number in (128, 128, 128, 1))
        collapsed[::2] = (one + 0.02 * torch.randn(64, 1, 22, 22, generator=generator)).clamp(0, 1)
        figures = [ms_ssim_diversity(images, seed=seed).estimate for images in (real, honest, collapsed)]
        alarms.append([difference(figure, figures[0]).low > 0 for figure in figures[1:]])
    false, caught = np.mean(alarms, axis=0)
    assert caught >= 0.9
    assert false <= 0.1


def test_interval_covers():
    """The truth is the mean over repeats; every pair is of other images, so that pairs are independent."""
    figures = []
    for seed in range(150):
        images = heads(torch.Generator().manual_seed(seed), 60)
        figures.append(ms_ssim_diversity(images, seed=seed).estimate)
    truth = np.mean([figure.value for figure in figures])
    assert 0.9 <= np.mean([figure.low <= truth <= figure.high for figure in figures]) <= 0.99


def test_pairs_are_disjoint_and_of_different_subjects():
    subjects = np.repeat(list("abcdefgh"), [1, 2, 3, 4, 5, 6, 7, 8])
    recorder = Recorder(torch.rand(36, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert ms_ssim_diversity(recorder, subjects=subjects).pairs == 4
    assert sorted(subjects[recorder.pairs.ravel()]) == list("abcdefgh")
    recorder.read.clear()
    ms_ssim_diversity(recorder)
    assert sorted(recorder.pairs.ravel()) == list(range(36))


def test_images_are_read_in_batches_and_no_more_pairs_than_asked():
    recorder = Recorder(torch.rand(200, 1, 11, 11, generator=torch.Generator().manual_seed(0)))
    assert ms_ssim_diversity(recorder, number_of_pairs=70).pairs == 70
    assert [len(batch) for batch in recorder.read] == [1, 64, 64, 12]
    assert len(set(recorder.pairs.ravel())) == 140


def test_pairs_depend_on_the_seed_alone():
    images = heads(torch.Generator().manual_seed(2), 40)
    first, again, other = (ms_ssim_diversity(images, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_scales_by_side():
    sides = [11, 21, 22, 43, 44, 98, 99, 175, 176, 512]  # 99 = 9 x 11 is MONAI's rule for four scales, not 88
    assert [scales_for(side) for side in sides] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    with pytest.raises(InputError, match="10 pixels"):
        scales_for(10)


def test_too_few_images():
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for number in (0, 1, 3):
        with pytest.raises(InputError, match=f"{number} of different subjects; give 4"):
            ms_ssim_diversity(images[:number])
    with pytest.raises(InputError, match="3 of different subjects"):
        ms_ssim_diversity(images, subjects=[0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="5 for 6 images"):
        ms_ssim_diversity(images, subjects=range(5))
