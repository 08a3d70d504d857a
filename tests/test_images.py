"""Images on disk: what is written is read back, piece by piece."""

import numpy as np
import pytest
import torch

from bundle.errors import InputError
from bundle.images import ByteImages, Some, StoredImages, write_images


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


def test_bytes_in_memory(pixels):
    images = ByteImages((pixels * 255).round().to(torch.uint8))
    assert len(images) == 5
    assert torch.equal(images[np.array([3, 1])], pixels[[3, 1]])
    assert torch.equal(images[2:], pixels[2:])


def test_values_are_cut_and_rounded_to_bytes(tmp_path):
    images = write_images([torch.tensor([-0.2, 0.5, 1.3]).reshape(3, 1, 1, 1)], 3, tmp_path / "images.npy")
    assert (images[:].flatten() * 255).tolist() == [0, 128, 255]  # .5 x 255 = 127.5, to even


def test_chosen_ones(pixels):
    some = Some(pixels, [3, 1, 0])
    assert len(some) == 3
    assert torch.equal(some[torch.tensor([0, 2])], pixels[[3, 0]])
    assert torch.equal(some[1:], pixels[[1, 0]])


def test_a_wrong_number_leaves_no_file(tmp_path, pixels):
    with pytest.raises(ValueError, match="5 images where 6"):
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
