"""The slice pipeline of `configs/common.yaml` and the transforms that MONAI lacks."""

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.cohorts import phantom
from bundle.transforms import ScaleForegroundd, SliceLevelsd


@pytest.fixture(scope="module")
def pipeline():
    return ConfigParser(ConfigParser.load_config_file("configs/common.yaml")).get_parsed_content("slice_preprocessing")


def write_volume(folder, array, affine):
    """One array as image and segmentation on disk; the record that the pipeline takes."""
    paths = {"image": folder / "image.nii.gz", "seg": folder / "seg.nii.gz"}
    nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), affine), paths["image"])
    nibabel.save(nibabel.Nifti1Image((array > 100).astype(np.uint8), affine), paths["seg"])
    return {key: str(path) for key, path in paths.items()}


def test_scale_keeps_zero_and_moves_the_percentile():
    image = torch.tensor([[0.0, 0.0, 10.0, 20.0, 30.0, 100.0]])
    scaled = ScaleForegroundd("image", percentile=50, value=0.4)({"image": image})["image"]
    # the lower median of 10, 20, 30, 100 is 20, so the factor is .4 / 20 = .02, and 100 is cut at 1
    torch.testing.assert_close(scaled, torch.tensor([[0.0, 0.0, 0.2, 0.4, 0.6, 1.0]]))


def test_scale_ignores_gain_and_background():
    image = torch.rand(1, 8, 8) + 0.1
    padded = torch.nn.functional.pad(700 * image, (5, 5, 5, 5))
    scale = ScaleForegroundd("image")
    torch.testing.assert_close(scale({"image": padded})["image"][:, 5:-5, 5:-5], scale({"image": image})["image"])


def test_levels_are_fractions_of_the_foreground():
    volume = torch.zeros(1, 2, 2, 12)
    volume[..., 1:10] = torch.arange(1.0, 10)  # foreground from slice 1 to slice 9
    picked = SliceLevelsd(["image", "seg"], [0, 0.5, 1], "image")({"image": volume, "seg": volume > 5})
    assert picked["image"][:, 0, 0].tolist() == [1, 5, 9]
    assert picked["seg"][:, 0, 0].tolist() == [False, False, True]


@pytest.mark.parametrize("transform", [ScaleForegroundd("image"), SliceLevelsd("image", [0.5], "image")])
def test_empty_volume_is_refused_by_its_file(transform):
    with pytest.raises(ValueError, match="image: no voxel above 0"):
        transform({"image": torch.zeros(1, 4, 4, 4)})


def test_pipeline_puts_anterior_up_and_the_left_on_the_right(pipeline, tmp_path):
    """A block with a bright left anterior corner, stored in RAS: that corner comes out top right."""
    array = np.zeros((60, 60, 20))
    array[10:50, 10:50, 2:18] = 50
    array[10:30, 30:50, 2:18] = 200  # low x is left, high y is anterior
    done = pipeline(write_volume(tmp_path, array, np.diag([3.0, 3.0, 6.0, 1.0])))
    image, seg = done["image"], done["seg"]
    assert image.shape == seg.shape == (3, 128, 128)
    assert seg[1, 34:54, 74:94].all()  # inside the quarter above and to the right of the centre, 64
    # a quarter of 40 x 3 mm = 120 mm is 60 mm = 40 pixels wide: 1600 pixels, give or take its border
    assert seg[1].sum() == pytest.approx(1600, rel=0.06)
    assert seg.sum((1, 2)).tolist() == [int(seg[1].sum())] * 3


def test_pipeline_does_not_depend_on_how_the_array_is_stored(pipeline, tmp_path):
    rng = np.random.default_rng(0)
    array = np.zeros((50, 60, 20))
    array[5:45, 5:55, 3:17] = rng.integers(1, 300, (40, 50, 14))
    affine = np.diag([3.0, 3.0, 6.0, 1.0])
    images = []
    for flip in (False, True):
        folder = tmp_path / str(flip)
        folder.mkdir()
        stored = array[::-1, ::-1] if flip else array
        storage = affine.copy()
        if flip:
            storage[:2] *= -1
            storage[:2, 3] = [3 * 49, 3 * 59]
        images.append(pipeline(write_volume(folder, stored, storage))["image"])
    torch.testing.assert_close(*images, check_dtype=False)


@pytest.mark.parametrize("shape", [(120, 120, 19), (240, 240, 155)], ids=["default", "BraTS"])
def test_phantom_through_the_pipeline_keeps_its_trait(pipeline, tmp_path, shape):
    count = 12 if shape[0] == 120 else 2
    datalist = phantom.generate(tmp_path, "validation", shape=shape, subjects=count)
    records = json.loads(datalist.read_text())
    people = phantom.draw_cohort("validation", count)
    for record, person in zip(records, people):
        files = {"image": str(datalist.parent / record["flair"]), "seg": str(datalist.parent / record["seg"])}
        done = pipeline({**files, "sex": record["sex"]})
        assert done["sex"] == person.sex
        assert done["image"].shape == (3, 128, 128)
        assert done["image"].min() >= 0
        assert done["image"].max() <= 1
        np.testing.assert_allclose(phantom.read_trait(done["image"].numpy()[:, None]), person.asymmetry, atol=0.25)
        seen = phantom.read_lesion(done["image"].numpy()[:, None])
        np.testing.assert_array_equal(seen, done["seg"].numpy().any((1, 2)))
