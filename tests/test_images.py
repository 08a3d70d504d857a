"""Images on disk: what is written is read back, piece by piece."""

import numpy as np
import pytest
import torch

from bundle.errors import InputError
from bundle.images import Some, StoredImages, kept_images, mapped, write_array, write_images


@pytest.fixture
def pixels():
    return torch.arange(5 * 2 * 3 * 4).reshape(5, 2, 3, 4) / 255


def test_what_is_written_is_read_back(tmp_path, pixels):
    images = write_images(pixels.split(2), 5, tmp_path / "deep" / "images.npy")
    assert (len(images), images.shape) == (5, (5, 2, 3, 4))
    assert torch.equal(images[:], pixels)
    assert torch.equal(images[1:3], pixels[1:3])
    assert torch.equal(images[torch.tensor([4, 0, 4])], pixels[[4, 0, 4]])
    assert torch.equal(StoredImages(tmp_path / "deep" / "images.npy")[[2]], pixels[[2]])
    assert images[:1].dtype == torch.float32


def test_they_are_made_once(tmp_path, pixels):
    first = kept_images(lambda: pixels.split(2), 5, tmp_path / "images.npy")
    again = kept_images(lambda: pytest.fail("made again"), 5, tmp_path / "images.npy")
    assert torch.equal(first[:], again[:])


def test_one_batch_at_a_time_is_in_memory(tmp_path):
    """A batch is written before the next is asked for."""
    path, sizes = tmp_path / "array.npy", []

    def batches():
        for number in range(50):
            sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
            yield np.full((10, 1000), number, np.float32)

    write_array(batches(), 500, path)
    # after the fifth of batches of 40 kB, all but what the stream buffers is on disk
    assert sizes[5] >= 5 * 40_000 - 2 * 8192
    assert np.array_equal(mapped(path), np.repeat(np.arange(50, dtype=np.float32), 10)[:, None].repeat(1000, 1))


def test_changes_of_a_mapped_array_stay_in_memory(tmp_path):
    path = write_array([np.zeros((2, 3), np.float32)], 2, tmp_path / "array.npy")
    torch.from_numpy(mapped(path)).add_(1)
    assert not mapped(path).any()


def test_values_are_cut_and_rounded_to_bytes(tmp_path):
    images = write_images([torch.tensor([-0.2, 0.5, 1.3]).reshape(3, 1, 1, 1)], 3, tmp_path / "images.npy")
    assert (images[:].flatten() * 255).tolist() == [0, 128, 255]  # .5 x 255 = 127.5, to even


def test_chosen_ones(pixels):
    some = Some(pixels, [3, 1, 0])
    assert len(some) == 3
    assert torch.equal(some[torch.tensor([0, 2])], pixels[[3, 0]])
    assert torch.equal(some[1:], pixels[[1, 0]])


def test_chosen_ones_of_chosen_ones_are_looked_up_once(pixels):
    some = Some(Some(pixels, [3, 1, 0]), [2, 0])
    assert some.images is pixels
    assert torch.equal(some[:], pixels[[0, 3]])
    assert len(Some(pixels, [])) == 0


def test_a_wrong_number_leaves_no_file(tmp_path, pixels):
    with pytest.raises(ValueError, match="5 rows where 6"):
        write_images(pixels.split(2), 6, tmp_path / "images.npy")
    assert not list(tmp_path.iterdir())


def test_half_a_file_is_refused(tmp_path, pixels):
    path = write_images([pixels], 5, tmp_path / "images.npy").path
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="delete it and run the job again"):
        StoredImages(path)


def test_no_pickle_is_loaded(tmp_path):
    np.save(tmp_path / "images.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="damaged"):
        StoredImages(tmp_path / "images.npy")
