"""Images that cannot be used are found, whatever is wrong with them, and only once."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.cohorts import verify as module
from bundle.cohorts.verify import verify
from bundle.errors import InputError

RNG = np.random.default_rng(0)


def volume(path, values=None, affine=None):
    values = RNG.integers(1, 900, (6, 5, 4)).astype(np.int16) if values is None else values
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def picture(path, mode="L", **options):
    shape = (9, 8) if mode in ("L", "I;16") else (9, 8, len(mode))
    values = RNG.integers(0, 255, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
    Image.frombytes(mode, (8, 9), values.tobytes()).save(path, **options)


@pytest.fixture
def case(tmp_path):
    """Records of two sound subjects: volumes with a segmentation of nothing, and a picture with an empty mask."""
    for name in ("flair", "t1ce"):
        volume(tmp_path / f"a_{name}.nii.gz")
    volume(tmp_path / "a_seg.nii.gz", np.zeros((6, 5, 4), np.uint8))
    picture(tmp_path / "b.png")
    Image.new("L", (8, 9)).save(tmp_path / "b_mask.png")
    volumes = {name: tmp_path / f"a_{name}.nii.gz" for name in ("flair", "t1ce", "seg")}
    return [{"subject": "a", **volumes}, {"subject": "b", "image": tmp_path / "b.png", "mask": tmp_path / "b_mask.png"}]


def test_sound_images_stay(case, tmp_path):
    assert verify(case, tmp_path / "journal.jsonl") == (case, [])


def shape(folder):
    volume(folder / "a_t1ce.nii.gz", np.ones((6, 5, 3), np.int16))


def affine(folder):
    volume(folder / "a_t1ce.nii.gz", affine=np.diag([1, 1, 1.5, 1]))


def nan(folder):
    volume(folder / "a_t1ce.nii.gz", np.array([[[np.nan, 1.0], [np.inf, 2.0]]], np.float32))


def zeros(folder):
    volume(folder / "a_flair.nii.gz", np.zeros((6, 5, 4), np.int16))


def four_dimensional(folder):
    volume(folder / "a_flair.nii.gz", np.ones((6, 5, 4, 2), np.int16))


def truncated(folder):
    whole = (folder / "a_t1ce.nii.gz").read_bytes()
    (folder / "a_t1ce.nii.gz").write_bytes(whole[: len(whole) // 2])


def shortened(folder):
    whole = gzip.decompress((folder / "a_t1ce.nii.gz").read_bytes())
    (folder / "a_t1ce.nii.gz").write_bytes(gzip.compress(whole[:-40]))


def text(folder):
    (folder / "a_t1ce.nii.gz").write_text("not found")


def missing(folder):
    (folder / "a_t1ce.nii.gz").unlink()


@pytest.mark.parametrize(
    ("damage", "file", "reason"),
    [
        (shape, "a_t1ce", "volumes of one subject differ in shape"),
        (affine, "a_t1ce", "volumes of one subject differ in affine"),
        (nan, "a_t1ce", "volume with NaN or infinite voxels"),
        (zeros, "a_flair", "volume of zeros"),
        (four_dimensional, "a_flair", "volume that is not three-dimensional"),
        (truncated, "a_t1ce", "volume that cannot be read"),
        (shortened, "a_t1ce", "volume that cannot be read"),
        (text, "a_t1ce", "volume that cannot be read"),
        (missing, "a_t1ce", "volume that cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_volumes(case, tmp_path, damage, file, reason):
    damage(tmp_path)
    sound, [left_out] = verify(case, tmp_path / "journal.jsonl")
    assert sound == case[1:]
    assert (left_out.subject, left_out.reason) == ("a", reason)
    assert left_out.file.endswith(f"{file}.nii.gz")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:60])


def animated(path):
    frames = [Image.new("L", (8, 9), level) for level in (10, 200)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("damage", "reason", "detail"),
    [
        (cut_off, "picture that cannot be read", ""),
        (lambda path: path.write_text("no picture"), "picture that cannot be read", "UnidentifiedImageError"),
        (lambda path: picture(path, "CMYK", format="JPEG"), "CMYK picture", "CMYK"),
        (lambda path: picture(path, "I;16"), "picture of more than 8 bits", "I;16"),
        (animated, "animated picture", "2 frames"),
        (lambda path: Image.new("L", (8, 9), 7).save(path), "picture of one colour", "7"),
        (lambda path: path.unlink(), "picture that cannot be read", "FileNotFoundError"),
    ],
)
def test_bad_pictures(case, tmp_path, damage, reason, detail):
    damage(tmp_path / "b.png")
    sound, [left_out] = verify(case, tmp_path / "journal.jsonl")
    assert sound == case[:1]
    assert (left_out.subject, left_out.reason) == ("b", reason)
    assert detail in left_out.detail


def test_what_was_seen_is_not_looked_at_again(case, tmp_path, monkeypatch):
    truncated(tmp_path)
    journal = tmp_path / "journal.jsonl"
    first = verify(case, journal)
    journal.write_text(journal.read_text() + '["broken off')
    looked = []
    monkeypatch.setattr(module, "_problems", lambda jobs: looked.extend(jobs) or iter([None] * len(jobs)))
    assert verify(case, journal) == first
    assert looked == []
    volume(tmp_path / "a_t1ce.nii.gz")  # copied again
    assert verify(case, journal) == (case, [])
    assert len(looked) == 1


def test_a_cohort_without_one_sound_image(case, tmp_path):
    truncated(tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(
        InputError, match="a_t1ce.nii.gz: volume that cannot be read .*, and no other image can be used"
    ):
        verify(case, tmp_path / "journal.jsonl")
