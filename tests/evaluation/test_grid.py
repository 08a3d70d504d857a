"""The picture of pairs."""

import numpy as np
import pytest
from matplotlib.image import imread

from bundle.evaluation.grid import sample_grid


def pairs(n):
    rng = np.random.default_rng(0)
    return rng.random((n, 1, 128, 128)), rng.random((n, 1, 128, 128)), ["axial FLAIR MR of a head"] * n


def test_size_and_content(tmp_path):
    before, after, prompts = pairs(6)
    before[0], after[0] = 0.0, 1.0
    path = sample_grid(before, after, prompts, np.linspace(0, 1, 6), np.full(6, 0.5), tmp_path / "new" / "grid.png")
    picture = imread(path)
    # (1200 - 16) / 4 = 296 a pair, images (296 - 16 - 4) // 2 = 138; two rows of 34 + 20 + 138 + 16, title 64.
    assert picture.shape[:2] == (64 + 2 * 208, 1200)
    assert picture[64 + 54 + 70, 16 + 70, :3].tolist() == [0, 0, 0]
    assert picture[64 + 54 + 70, 16 + 138 + 4 + 70, :3].tolist() == [1, 1, 1]
    assert (picture[:64, :, :3].min(axis=2) < 0.5).sum() > 500  # the title


def test_bytes_depend_on_the_arguments_alone(tmp_path):
    before, after, prompts = pairs(2)
    first, second = (sample_grid(before, after, prompts, [0.1, 0.9], [0.2, 0.3], tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_arguments_must_match(tmp_path):
    before, after, prompts = pairs(2)
    with pytest.raises(ValueError, match="N prompts"):
        sample_grid(before, after, prompts[:1], [0.1, 0.9], [0.2, 0.3], tmp_path / "a.png")
