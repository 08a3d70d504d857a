"""Slices are made once, and again when a file has changed."""

import os

import numpy as np
import pytest
import torch

from bundle.cohorts.slices import file_slices


class Load:
    """In place of MONAI's transforms: both files are arrays."""

    def __call__(self, item):
        return {name: torch.from_numpy(np.load(path)) for name, path in item.items()}


@pytest.fixture
def made(tmp_path):
    """A function that writes one image of a brightness and makes its slices."""
    np.save(tmp_path / "seg.npy", np.zeros((2, 4, 4), np.float32))

    def make(brightness=None):
        if brightness is not None:
            np.save(tmp_path / "image.npy", np.full((2, 4, 4), brightness, np.float32))
        files = [{name: str(tmp_path / f"{name}.npy") for name in ("image", "seg")}]
        return file_slices(files, [[{"level": "lower"}, {"level": "upper"}]], Load(), tmp_path / "cache")

    make.folder = tmp_path
    return make


def test_they_are_kept(made, monkeypatch):
    first = made(0.2)
    monkeypatch.setattr(Load, "__call__", lambda *_: pytest.fail("made again"))
    again = made()
    assert torch.equal(first.images, again.images)
    assert first.rows == again.rows
    assert [row["level"] for row in first.rows] == ["lower", "upper"]


def test_making_them_draws_nothing_from_torch(made):
    state = torch.get_rng_state()
    made(0.2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_file_that_was_written_again_is_read_again(made):
    made(0.2)
    assert int(made(0.4).images.max()) == 102  # .4 * 255
    os.utime(made.folder / "image.npy", ns=(0, 0))
    assert int(made().images.max()) == 102
    assert len(list((made.folder / "cache").iterdir())) == 3
