"""The phantom: what is on disk, that sex acts through the trait alone, and that the trait can be read back."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.cohorts import phantom
from bundle.cohorts.phantom_anatomy import render

SUBJECTS = 300
LEVELS = np.array([0.45, 0.55, 0.65])
PIXELS = (63.5 - np.arange(128)) * 1.5  # mm; columns to the left, rows to posterior
SMALL = (40, 40, 12)


def draw_slices(subject):
    """T1ce and FLAIR slices (2, levels, 128, 128) as the slice pipeline gives them, and lesion pixels per level."""
    right, anterior, superior = subject.shift
    levels = superior + subject.semi_axes[2] * (2 * LEVELS - 1)
    images, segmentation = render(subject, PIXELS + right, PIXELS + anterior, levels)
    volumes = (images[name].astype(np.float32) for name in ("t1ce", "flair"))
    scaled = [np.clip(volume * (0.45 / np.median(volume[volume > 0])), 0, 1) for volume in volumes]
    return np.stack([volume.transpose(2, 1, 0) for volume in scaled]), (segmentation > 0).sum(axis=(0, 1))


@pytest.fixture(scope="module")
def slices():
    """Images (2, N, 128, 128), lesion pixels (N,), men (N,), trait (N,), subject (N,)."""
    people = phantom.draw_cohort("judge", SUBJECTS)
    images, lesions = zip(*(draw_slices(person) for person in people))
    man = np.array([person.sex == "male" for person in people])
    trait = np.array([person.asymmetry for person in people])
    images = np.stack(images, axis=1).reshape(2, -1, 128, 128)
    return images, np.concatenate(lesions), *(np.repeat(x, len(LEVELS)) for x in (man, trait, np.arange(SUBJECTS)))


def auc(man, score):
    """Area under the curve, whichever sex has the larger score."""
    return abs(roc_auc_score(man, score) - 0.5) + 0.5


@pytest.mark.parametrize("modality", [0, 1], ids=["t1ce", "flair"])
def test_no_global_statistic_tells_the_sex(slices, modality):
    images, lesions, man, *_ = slices
    pixels = images[modality].reshape(len(man), -1)
    brain = np.sort(np.where(pixels > 0, pixels, np.nan), axis=1)  # NaN last
    area = (pixels > 0).sum(axis=1)
    statistics = {"mean": pixels.mean(axis=1), "variance": pixels.var(axis=1), "head": area, "lesion": lesions}
    for quantile in np.arange(0.01, 1, 0.02):
        rank = (quantile * (area - 1)).astype(int)
        statistics[f"quantile {quantile:.2f} of the brain"] = brain[np.arange(len(man)), rank]
        statistics[f"quantile {quantile:.2f}"] = np.quantile(pixels[:, ::7], quantile, axis=1)
    components = PCA(20, svd_solver="randomized", random_state=0).fit_transform(pixels)
    statistics |= {f"component {i}": component for i, component in enumerate(components.T)}
    too_telling = {name: auc(man, score) for name, score in statistics.items() if auc(man, score) > 0.75}
    assert not too_telling


@pytest.mark.parametrize("modality", [0, 1], ids=["t1ce", "flair"])
def test_no_linear_model_tells_the_sex(slices, modality):
    images, _, man, _, subject = slices
    coarse = images[modality].reshape(-1, 16, 8, 16, 8).mean(axis=(2, 4)).reshape(len(man), -1)
    for strength in (0.001, 0.1):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        score = cross_val_predict(model, coarse, man, groups=subject, cv=GroupKFold(5), method="decision_function")
        assert auc(man, score) < 0.85


def test_trait_tells_the_sex_but_not_of_everyone():
    people = phantom.draw_cohort("validation")
    man, trait = np.array([(person.sex == "male", person.asymmetry) for person in people]).T
    assert 0.94 < ((trait > 0.55) == man).mean() < 0.99


@pytest.mark.parametrize("modality", [0, 1], ids=["t1ce", "flair"])
@pytest.mark.parametrize(("blur", "correlation"), [(0, 0.95), (1.5, 0.9)], ids=["clean", "blurred"])
def test_trait_is_read_from_the_image(slices, modality, blur, correlation):
    images, _, _, trait, _ = slices
    images = gaussian_filter(images[modality, ::3], (0, blur, blur))[:, None]
    assert np.corrcoef(phantom.read_trait(images), trait[::3])[0, 1] > correlation


@pytest.mark.parametrize("modality", [0, 1], ids=["t1ce", "flair"])
def test_trait_is_read_from_what_the_autoencoder_shows(slices, modality, root, monkeypatch):
    monkeypatch.chdir(root)
    parser = ConfigParser()
    parser.read_config("configs/common.yaml")
    autoencoder = parser.get_parsed_content("autoencoder")
    images, _, _, trait, _ = slices
    decoded = autoencoder.reconstruct(torch.from_numpy(images[modality, ::3, None].astype(np.float32)))
    assert np.corrcoef(phantom.read_trait(decoded.numpy()), trait[::3])[0, 1] >= 0.9


def test_trait_does_not_depend_on_orientation_of_the_head(slices):
    image = slices[0][1, :40, None]
    mirrored = phantom.read_trait(image[..., ::-1])
    np.testing.assert_allclose(mirrored, phantom.read_trait(image), atol=0.05)


@pytest.mark.parametrize("modality", [0, 1], ids=["t1ce", "flair"])
def test_lesion_is_read_from_the_image_in_both_sexes(slices, modality):
    images, lesions, man, *_ = slices
    seen, there = phantom.read_lesion(images[modality][:, None]), lesions > 0
    for sex in (man, ~man):
        assert seen[sex & there].mean() > 0.95
        assert seen[sex & ~there].mean() < 0.05


def test_readers_answer_for_images_without_a_brain():
    nothing = np.stack([np.zeros((1, 128, 128)), np.full((1, 128, 128), 0.5)])
    np.testing.assert_array_equal(phantom.read_trait(nothing), 0)
    np.testing.assert_array_equal(phantom.read_lesion(nothing), False)


def test_lesions_are_visible_on_half_to_two_thirds_of_the_slices(slices):
    assert 0.45 < (slices[1] > 0).mean() < 0.7


@pytest.mark.parametrize("cohort", phantom.COHORTS)
def test_every_prefix_of_a_cohort_keeps_its_proportion(cohort):
    men = np.array([person.sex == "male" for person in phantom.draw_cohort(cohort)])
    expected = phantom.COHORTS[cohort].male * np.arange(1, len(men) + 1)
    assert np.abs(np.cumsum(men) - expected).max() <= 2.5
    assert men.sum() == round(phantom.COHORTS[cohort].male * len(men))


def test_files_follow_brats(tmp_path):
    datalist = phantom.generate(tmp_path, "source", shape=SMALL, subjects=4)
    records = json.loads(datalist.read_text())
    truth = {row["subject"]: row for row in csv.DictReader((datalist.parent / "truth.csv").open())}
    assert [record["subject"] for record in records] == [f"Phantom_source_{i:04d}" for i in (1, 2, 3, 4)]
    for record in records:
        name = record["subject"]
        assert record["flair"] == f"{record['grade']}/{name}/{name}_flair.nii.gz"
        assert (truth[name]["sex"], set(record)) == (
            record["sex"], {"subject", "t1", "t1ce", "t2", "flair", "seg", "sex", "grade", "age"}
        )  # fmt: skip
        images = [nibabel.load(datalist.parent / record[key]) for key in ("t1", "t1ce", "t2", "flair")]
        brain = images[0].get_fdata() > 0
        for image in images:
            assert (image.shape, image.get_data_dtype()) == (SMALL, np.int16)
            assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
            np.testing.assert_allclose(image.header.get_zooms(), [6, 6, 155 / 12], rtol=1e-6)
            np.testing.assert_array_equal(image.get_fdata() > 0, brain)
        labels = nibabel.load(datalist.parent / record["seg"]).get_fdata()
        assert set(np.unique(labels)) <= {0, 1, 2, 4}
        assert not labels[~brain].any()


def test_lesion_lies_on_the_side_that_the_truth_names(tmp_path):
    datalist = phantom.generate(tmp_path, "target", shape=SMALL, subjects=4)
    truth = list(csv.DictReader((datalist.parent / "truth.csv").open()))
    for record, row in zip(json.loads(datalist.read_text()), truth):
        image = nibabel.load(datalist.parent / record["seg"])
        voxels = np.argwhere(image.get_fdata() > 0)
        right = (image.affine[:3, :3] @ voxels.T + image.affine[:3, 3:])[0].mean()
        assert row["lesion_side"] == ("right" if right > 0 else "left")


def test_subjects_depend_on_seed_cohort_and_number_alone(tmp_path):
    first = phantom.generate(tmp_path / "a", "guide", shape=SMALL, subjects=6, workers=2)
    second = phantom.generate(tmp_path / "b", "guide", shape=SMALL, subjects=3, workers=1)
    other = phantom.generate(tmp_path / "c", "guide", shape=SMALL, subjects=3, seed=1)
    records = json.loads(second.read_text())
    assert records == json.loads(first.read_text())[:3]
    for record in records:
        images = [nibabel.load(path.parent / record["t2"]).get_fdata() for path in (first, second)]
        np.testing.assert_array_equal(*images)
    assert (other.parent / "truth.csv").read_text() != (second.parent / "truth.csv").read_text()


def test_women_of_the_uneven_cohorts_vary_more_and_men_as_ever():
    even, uneven = phantom.draw_cohort("judge"), phantom.draw_cohort("uneven_judge")

    def spread(people, sex, of):
        return np.std([of(person) for person in people if person.sex == sex])

    def elongation(person):
        return np.log(person.semi_axes[1] / person.semi_axes[0])

    def size_of_ventricles(person):
        return np.log(sum(v.half_width * v.half_length for v in person.ventricles))

    for of in (elongation, size_of_ventricles):
        # of 300 each: standard error of a ratio of two deviations sqrt(2 / 600) = 6 %
        assert spread(uneven, "female", of) / spread(even, "female", of) == pytest.approx(phantom.VARIETY, rel=0.2)
        assert spread(uneven, "male", of) / spread(even, "male", of) == pytest.approx(1, rel=0.2)
    noise = [np.mean([person.noise for person in people]) for people in (even, uneven)]
    assert noise[0] == pytest.approx(noise[1], rel=0.05)


def test_an_interrupted_cohort_is_completed_and_a_complete_one_left_alone(tmp_path):
    datalist = phantom.generate(tmp_path, "judge", shape=SMALL, subjects=4)
    written, records = datalist.stat().st_mtime_ns, json.loads(datalist.read_text())
    kept, lost = ((datalist.parent / record["t1"]) for record in records[:2])
    assert phantom.generate(tmp_path, "judge", shape=SMALL, subjects=4).stat().st_mtime_ns == written
    age = kept.stat().st_mtime_ns
    for file in lost.parent.iterdir():
        file.unlink()
    lost.parent.rmdir()
    phantom.generate(tmp_path, "judge", shape=SMALL, subjects=4)
    assert lost.exists()
    assert kept.stat().st_mtime_ns == age
    phantom.generate(tmp_path, "judge", shape=(30, 30, 12), subjects=4)
    assert nibabel.load(kept).shape == (30, 30, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cohort": "sorce"}, "cohort 'sorce' is unknown; choose one of source"),
        ({"cohort": "source", "subjects": 601}, "subjects is 601; choose 1 to 600"),
        ({"cohort": "source", "shape": (120, 120)}, r"shape is \[120, 120\]; give three"),
    ],
)
def test_bad_arguments_are_refused_with_the_remedy(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        phantom.generate(tmp_path, **arguments)


def test_a_folder_of_another_origin_is_not_touched(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "patient.nii").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        phantom.generate(tmp_path, "source", shape=SMALL, subjects=2)
    assert (tmp_path / "source" / "patient.nii").exists()
