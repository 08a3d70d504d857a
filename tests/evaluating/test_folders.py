"""The evaluation of images in folders: what is read, what is refused, what is said of few images."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from torch import nn

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluating.folders import FolderEvaluation
from bundle.evaluating.pictures import picture_names, read_pictures, require_same_names
from bundle.networks.classifier import AttributeClassifier

SEX = Attribute("sex", ["female", "male"])
SIDE = 32


def picture(rng, male):
    """Noise with a bright upper half for men: mirroring changes nothing that the judge sees."""
    image = rng.uniform(0, 0.4, (SIDE, SIDE))
    image[: SIDE // 2] += 0.5 * male
    return image


def slices(number, male, prefix, seed):
    rng = np.random.default_rng(seed)
    men = np.arange(number) < round(male * number)
    images = torch.tensor(np.stack([picture(rng, man) for man in men])[:, None] * 255).round().float() / 255
    return Slices(images, [{"subject": f"{prefix}{i}", "sex": SEX.groups[int(man)]} for i, man in enumerate(men)])


def fill(folder, number, male, seed=0, mode="L"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(number):
        pixels = (picture(rng, i < round(male * number)) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i:04d}.png")
    return folder


class Halves(nn.Module):
    """Logits by the difference of the upper and the lower half."""

    def __init__(self, scale=20.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images):
        above, below = images.split(SIDE // 2, 2)
        logit = self.scale * (above.mean((1, 2, 3)) - below.mean((1, 2, 3)) - 0.25)
        return torch.stack([-logit, logit], 1)


def features(images):
    return nn.functional.normalize(nn.functional.avg_pool2d(images[:, :1], 8).flatten(1) + 0.1, dim=1)


@pytest.fixture(scope="module")
def transforms():
    """Those of the config, at this side."""
    parser = ConfigParser({"image_channels": 1})
    parser.read_config("configs/pictures.yaml")
    parser["image_channels"], parser["image_size"] = 1, 128
    kinds = {"picture": "slice_preprocessing", "volume": "nifti_preprocessing", "dicom": "dicom_preprocessing"}
    found = {}
    for kind, name in kinds.items():
        for step in parser[name]["transforms"]:
            if step["_target_"] == "Resized":
                step["spatial_size"] = [SIDE, SIDE]
        found[kind] = parser.get_parsed_content(name)
    return found


@pytest.fixture(scope="module", autouse=True)
def in_root(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        yield


def images_of(folder, transforms, cache, channels=1):
    return read_pictures(folder, picture_names(folder), transforms, cache, (channels, SIDE, SIDE))


@pytest.fixture
def evaluation(tmp_path, transforms):
    def make(**changes):
        return FolderEvaluation(
            **{
                "generated": str(tmp_path / "after"),
                "transforms": transforms,
                "judge": AttributeClassifier(Halves()),
                "attribute": SEX,
                "validation": slices(240, 0.5, "v", 1),
                "real": slices(200, 0.6, "r", 2),
                "spaces": {"blocks": features},
                "own_space": "blocks",
                "output_dir": str(tmp_path / "report"),
                "cache_dir": str(tmp_path / "cache"),
                **changes,
            }
        )

    return make


def test_shares_are_measured_against_the_cohorts_proportion(evaluation, tmp_path):
    fill(tmp_path / "after", 200, 0.6)
    report = evaluation().run()
    assert report["target"] == {"female": pytest.approx(0.4), "male": pytest.approx(0.6)}
    assert report["after"]["proportion"]["male"] == pytest.approx(0.6)
    assert report["after"]["n"] == 200
    assert (report["before"], report["change"]) == (None, None)
    assert json.loads((tmp_path / "report" / "report.json").read_text())["groups"] == ["female", "male"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "not known" in page  # whom the judge was trained on


def test_two_models_are_compared_in_pairs(evaluation, tmp_path):
    fill(tmp_path / "before", 200, 0.8)
    fill(tmp_path / "after", 200, 0.6)
    report = evaluation(reference=str(tmp_path / "before"), guide=AttributeClassifier(Halves(10.0))).run()
    assert report["change"]["value"]["male"] == pytest.approx(-0.2)
    assert report["after"]["agreement"] == 1
    assert (tmp_path / "report" / "samples.png").is_file()


def test_prompts_come_from_a_table(evaluation, tmp_path):
    fill(tmp_path / "after", 60, 0.5)
    with (tmp_path / "prompts.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "prompt"])
        rows.writerows((f"{i:04d}.png", "a" if i % 2 else "b") for i in range(60))
    texts = nn.functional.normalize(torch.rand(2, 16), dim=1)
    report = evaluation(prompts=str(tmp_path / "prompts.csv"), text_features=lambda prompts: texts).run()
    assert [row["prompt"] for row in report["after"]["prompt_rows"]] == ["a", "b"]
    assert report["after"]["clip_score"]["n"] == 60
    (tmp_path / "prompts.csv").write_text("file,prompt\n0001.png,a\n")
    with pytest.raises(InputError, match=r"no row for '0000.png' \(59 of these\)"):
        evaluation(prompts=str(tmp_path / "prompts.csv")).run()


@pytest.mark.parametrize("male", [0.0, 1.0])
def test_a_group_without_an_image_is_told(evaluation, tmp_path, male):
    fill(tmp_path / "after", 80, male)
    report = evaluation().run()
    assert report["after"]["by_group"] is None
    assert report["after"]["proportion"]["male"] == pytest.approx(male, abs=0.01)
    assert any("fewer than 500 images" in caution for caution in report["after"]["cautions"])


class TestWhatIsRefused:
    def test_no_folder_and_no_images(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            picture_names(tmp_path / "none")
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").write_text("x")
        with pytest.raises(InputError, match=r"0 image\(s\) among 1 files"):
            picture_names(tmp_path / "notes")

    def test_one_image(self, tmp_path):
        with pytest.raises(InputError, match=r"1 image\(s\) among 1 files; at least 4"):
            picture_names(fill(tmp_path / "one", 1, 1))

    def test_an_unreadable_image_is_named(self, tmp_path, transforms):
        folder = fill(tmp_path / "a", 5, 0.5)
        (folder / "0003.png").write_bytes((folder / "0003.png").read_bytes()[:80])
        with pytest.raises(InputError, match="0003.png: cannot be read as an image"):
            images_of(folder, transforms, tmp_path / "cache")
        (folder / "0003.png").write_bytes(b"nothing")
        with pytest.raises(InputError, match="0003.png: cannot be read as an image"):
            images_of(folder, transforms, tmp_path / "cache")
        assert not list((tmp_path / "cache").glob("*"))

    def test_a_wrong_size_is_named(self, tmp_path, transforms):
        folder = fill(tmp_path / "a", 5, 0.5)
        Image.fromarray(np.zeros((SIDE, 2 * SIDE), np.uint8)).save(folder / "0002.png")
        with pytest.raises(InputError, match="0002.png: 64 x 32 pixels, '.*0000.png' has 32 x 32"):
            images_of(folder, transforms, tmp_path)

    def test_other_channels_than_the_real_images(self, tmp_path, transforms):
        with pytest.raises(InputError, match=r"the real images are \(3, 32, 32\)"):
            images_of(fill(tmp_path / "a", 5, 0.5), transforms, tmp_path, 3)

    def test_names_without_a_partner(self):
        with pytest.raises(InputError, match=r"before: 'b.png' has no partner .* \(2 of these\)"):
            require_same_names({"after": ["a.png", "b.png"], "before": ["a.png", "c.png"]})

    def test_a_guide_as_its_own_judge_and_shared_subjects(self, evaluation, tmp_path):
        fill(tmp_path / "after", 10, 0.5)
        with pytest.raises(InputError, match="the guide's weights"):
            evaluation(guide=AttributeClassifier(Halves())).run()
        with pytest.raises(InputError, match="judge and validation share 1 subject"):
            evaluation(trained_on={"judge": [["v7"]], "guide": []}).run()


class TestKinds:
    def test_folders_within_and_the_order(self, tmp_path, transforms):
        fill(tmp_path / "a" / "part_2", 3, 1)
        fill(tmp_path / "a" / "part_1", 3, 0)
        images = images_of(tmp_path / "a", transforms, tmp_path / "cache")
        assert picture_names(tmp_path / "a") == [f"part_{p}/{i:04d}.png" for p in (1, 2) for i in range(3)]
        above = images[:][:, 0, : SIDE // 2].mean((1, 2))
        assert (above[:3] < 0.3).all()
        assert (above[3:] > 0.5).all()

    def test_a_changed_file_is_read_again(self, tmp_path, transforms):
        folder = fill(tmp_path / "a", 4, 0)
        first = images_of(folder, transforms, tmp_path / "cache")
        again = images_of(folder, transforms, tmp_path / "cache")
        assert first.path == again.path
        Image.fromarray(np.full((SIDE, SIDE), 255, np.uint8)).save(folder / "0001.png")
        changed = images_of(folder, transforms, tmp_path / "cache")
        assert changed[[1]].min() == 1
        assert first[[1]].max() < 1

    def test_nifti(self, tmp_path, transforms):
        """A slice, written with its first axis to the right: it is seen as the picture that it was."""
        (tmp_path / "a").mkdir()
        for i in range(4):
            shown = np.zeros((SIDE, SIDE), np.float32)
            shown[: SIDE // 2, : SIDE // 4] = i + 1  # upper left
            nibabel.save(nibabel.Nifti1Image(shown.T, np.eye(4)), tmp_path / "a" / f"{i}.nii.gz")
        images = images_of(tmp_path / "a", transforms, tmp_path / "cache")[:]
        assert images.shape == (4, 1, SIDE, SIDE)
        assert (images[:, 0, : SIDE // 2, : SIDE // 4] == 1).all()
        assert images[:, 0, SIDE // 2 :].max() == 0
        assert images[:, 0, :, SIDE // 4 :].max() == 0

    def test_jpeg_in_colour_becomes_grey(self, tmp_path, transforms):
        (tmp_path / "a").mkdir()
        for i in range(4):
            Image.new("RGB", (SIDE, SIDE), (200, 200, 200)).save(tmp_path / "a" / f"{i}.JPG")
        images = images_of(tmp_path / "a", transforms, tmp_path / "cache")[:]
        assert images.mean() == pytest.approx(200 / 255, abs=0.01)
