"""Slices are made once, and again when a file has changed."""

import os
import subprocess
import sys

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


def found(made, *regions):
    """The facts of a slice of 20 x 20 pixels that is all head, with labels in regions (rows, columns)."""
    seg = np.zeros((1, 20, 20), np.float32)
    for label, rows, columns in regions:
        seg[0, rows, columns] = label
    np.save(made.folder / "seg.npy", seg)
    np.save(made.folder / "image.npy", np.ones((1, 20, 20), np.float32))
    files = [{name: str(made.folder / f"{name}.npy") for name in ("image", "seg")}]
    return file_slices(files, [[{}]], Load(), made.folder / "cache").rows[0]


def test_the_segmentation_says_side_share_edema_and_enhancement(made):
    row = found(made, (2, slice(0, 4), slice(10, 20)), (4, slice(5, 7), slice(12, 18)))
    # 40 pixels of edema and 12 of enhancing tumor, of 400; columns run to the patient's left
    assert row == {
        "lesion": True,
        "lesion_pixels": 52,
        "side": "left",
        "lesion_share": 52 / 400,
        "edema": True,
        "enhancing": True,
    }


def test_eleven_pixels_are_too_few_to_be_named(made):
    row = found(made, (1, slice(0, 2), slice(0, 6)), (2, slice(3, 4), slice(0, 11)), (3, slice(5, 6), slice(0, 11)))
    assert (row["side"], row["edema"], row["enhancing"]) == ("right", False, False)
    assert found(made, (2, slice(0, 1), slice(0, 11))) == {
        **dict.fromkeys(("side", "lesion_share", "edema", "enhancing")),
        "lesion": False,
        "lesion_pixels": 11,
    }


def test_labels_that_are_not_those_of_brats_say_no_edema(made):
    row = found(made, (255, slice(0, 4), slice(0, 10)))
    assert (row["lesion"], row["edema"], row["enhancing"]) == (True, None, None)


def test_they_are_kept(made, monkeypatch):
    first = made(0.2)
    monkeypatch.setattr(Load, "__call__", lambda *_: pytest.fail("made again"))
    again = made()
    assert torch.equal(first.pixels(), again.pixels())
    assert first.rows == again.rows
    assert [row["level"] for row in first.rows] == ["lower", "upper"]


def test_making_them_draws_nothing_from_torch(made):
    state = torch.get_rng_state()
    made(0.2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_file_that_was_written_again_is_read_again(made):
    made(0.2)
    assert round(255 * float(made(0.4).pixels().max())) == 102  # .4 * 255
    os.utime(made.folder / "image.npy", ns=(0, 0))
    assert round(255 * float(made().pixels().max())) == 102
    assert len(list((made.folder / "cache").iterdir())) == 6  # images and rows of each


MEMORY = """
import sys
from pathlib import Path

import torch
from torch import nn

from bundle.cohorts.slices import encoded, file_slices, reconstructed


class Grey:
    def __call__(self, item):
        return {"image": torch.full((64, 128, 128), 0.5), "seg": torch.zeros(64, 128, 128)}


class Encoder(nn.Conv2d):
    encode = nn.Conv2d.forward

    def reconstruct(self, images):
        return images


def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


for number in (20, 200):
    cache = Path(sys.argv[1], str(number))
    rows = [[{"sex": "male"}] * 64] * number
    slices = file_slices([{"image": __file__, "seg": __file__}] * number, rows, Grey(), cache)
    half = slices.at(range(0, len(slices), 2))
    latents = encoded(half, Encoder(1, 4, 8, 8), cache)
    decoded = reconstructed(half, Encoder(1, 1, 1), cache)
    print(len(latents), len(decoded), peak(), flush=True)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_cohort(root, tmp_path):
    """Of 200 volumes the slices take 210 MB as bytes, 840 MB as numbers, and the latents of half of them 26 MB."""
    (tmp_path / "trial.py").write_text(MEMORY)
    command = [sys.executable, str(tmp_path / "trial.py"), str(tmp_path)]
    # What is let go of returns at once, so that the peak is of what is held.
    env = {**os.environ, "PYTHONPATH": str(root), "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    (*first, small), (*second, large) = (map(int, line.split()) for line in printed.splitlines())
    assert (first, second) == ([640, 640], [6400, 6400])
    assert large - small < 50_000  # kB
