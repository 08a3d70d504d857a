"""Files that say that they are synthetic, with the right side of the head where it belongs."""

import gzip
import io

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd
from PIL import Image

from bundle.errors import InputError
from bundle.inference.formats import NOTE, check_nifti, nifti, png

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 12, 10)).astype(np.uint8)


def test_a_picture_keeps_its_pixels_and_says_what_it_is():
    for pixels in (PIXELS, np.concatenate([PIXELS, PIXELS // 2, PIXELS // 3])):
        content = png(pixels, {"Prompt": "a glioma, 40 µm", "Seed": "0"})
        picture = Image.open(io.BytesIO(content))
        array = np.asarray(picture)
        assert np.array_equal(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0), pixels)
        assert picture.text["synthetic"] == "true"
        assert picture.text["Description"] == NOTE
        assert picture.text["Prompt"] == "a glioma, 40 µm"
        assert b"tEXtsynthetic\0true" in content
        assert content == png(pixels, {"Prompt": "a glioma, 40 µm", "Seed": "0"})


def test_nifti_lies_as_the_slices_of_the_configs(tmp_path):
    """The configs bring volumes to PLS: rows to posterior, columns to the left. So does reading this file back."""
    path = tmp_path / "slice.nii.gz"
    path.write_bytes(nifti(PIXELS, 1.5))
    image = nibabel.load(path)
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header.get_zooms()[:2] == (1.5, 1.5)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert b"Synthetic" in bytes(image.header["descrip"])
    middle = image.affine @ [(10 - 1) / 2, (12 - 1) / 2, 0, 1]
    assert middle[:2] == pytest.approx([0, 0])
    steps = [LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", axcodes="PLS", labels=None)]
    back = Compose(steps)({"image": path})["image"]
    assert np.array_equal(back[..., 0].numpy().astype(np.uint8), PIXELS)


def test_nifti_is_read_by_the_evaluation_as_the_picture_is(tmp_path):
    parser = ConfigParser()
    parser.read_config("configs/pictures.yaml")
    parser["image_channels"], parser["image_size"] = 1, 128
    pixels = np.random.default_rng(1).integers(0, 256, (1, 128, 128)).astype(np.uint8)
    pixels[0, :4], pixels[0, 4:8] = 0, 255  # the percentiles that volumes are scaled by are then those of bytes
    (tmp_path / "a.nii.gz").write_bytes(nifti(pixels, 1.5))
    (tmp_path / "a.png").write_bytes(png(pixels, {}))
    kinds = {"nifti_preprocessing": "a.nii.gz", "slice_preprocessing": "a.png"}
    read = [parser.get_parsed_content(kind)({"image": tmp_path / name})["image"] for kind, name in kinds.items()]
    assert torch.allclose(*read, atol=1e-5)


def test_nifti_has_no_date():
    content = nifti(PIXELS, 1.5)
    assert content[4:8] == b"\0\0\0\0"  # where gzip keeps a time
    assert content == nifti(PIXELS, 1.5)
    assert len(gzip.decompress(content)) == 352 + PIXELS.size


def test_nifti_of_what_it_cannot_hold_is_refused():
    check_nifti(False, None, 3)
    check_nifti(True, 1.5, 1)
    with pytest.raises(InputError, match="nifti: needs grey images of a known size"):
        check_nifti(True, None, 1)
    with pytest.raises(InputError, match="3 channel"):
        check_nifti(True, 1.5, 3)
