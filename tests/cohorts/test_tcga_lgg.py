"""The public TCGA-LGG slices: what the table's codes mean, and what is refused."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundle.attributes import Attribute
from bundle.cohorts.record import require_disjoint
from bundle.cohorts.tcga_lgg import read, scale_head, tcga_slices
from bundle.errors import InputError
from bundle.evaluating.unseen import require_unseen
from bundle.networks.classifier import AttributeClassifier
from bundle.networks.cross_fitted import CrossFittedJudge

SEX = Attribute("sex", ["female", "male"])
HEADER = "Patient,neoplasm_histologic_grade,laterality,gender,age_at_initial_pathologic\n"


def write_slices(root, patient, numbers):
    """Pictures with a bright square and masks of a few pixels, left of the middle of the picture."""
    folder = root / f"{patient}_19990101"
    folder.mkdir(parents=True)
    for number in numbers:
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[4:12, 4:12] = (10, 100, 200)  # pre-contrast, FLAIR, post-contrast
        mask = np.zeros((16, 16), np.uint8)
        mask[5, 5 : 5 + number % 4] = 255
        Image.fromarray(picture).save(folder / f"{folder.name}_{number}.tif")
        Image.fromarray(mask).save(folder / f"{folder.name}_{number}_mask.tif")


@pytest.fixture
def made_up(tmp_path):
    """Two patients with three slices and one; a function that writes the table and reads the cohort."""
    write_slices(tmp_path, "TCGA_CS_1", (2, 10, 6))
    write_slices(tmp_path, "TCGA_HT_2", (4,))

    def call(first="TCGA_CS_1,2,1,1,40", second="TCGA_HT_2,1,3,2.0,61", header=HEADER):
        (tmp_path / "data.csv").write_text("\ufeff" + header + first + "\n" + second + "\n", encoding="utf-8")
        return read(tmp_path).records

    call.root = tmp_path
    return call


def test_codes_become_words_and_slices_are_in_order(made_up):
    records = made_up()
    assert [record["slice"] for record in records] == [2, 6, 10, 4]
    assert [record["level"] for record in records] == [0, 0.5, 1, 0.5]
    assert [record["lesion_pixels"] for record in records] == [2, 2, 2, 0]
    first, last = records[0], records[-1]
    assert {key: first[key] for key in ("subject", "sex", "grade", "side", "age", "site", "modality")} == {
        "subject": "TCGA_CS_1",
        "sex": "female",
        "grade": "G3",
        "side": "left",
        "age": 40,
        "site": "CS",
        "modality": "flair",
    }
    assert (last["subject"], last["sex"], last["grade"], last["side"]) == ("TCGA_HT_2", "male", "G2", "right")
    assert first["image"].name.endswith("_2.tif")
    assert first["mask"].name.endswith("_2_mask.tif")


def test_empty_cells_are_missing(made_up):
    record = made_up(second="TCGA_HT_2,,,,")[-1]
    assert [record[name] for name in ("sex", "grade", "side", "age")] == [None] * 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("TCGA_HT_2,1,3,3,61", "patient 'TCGA_HT_2', column 'gender': unknown code '3'; use one of 1, 2"),
        ("TCGA_HT_2,1,3,m,61", "column 'gender': unknown code 'm'"),
        ("TCGA_HT_2,1,3,1.7,61", "column 'gender': unknown code '1.7'"),
        ("TCGA_HT_2,1,3,1,610", "column 'age_at_initial_pathologic': 610 is no age in years"),
        ("TCGA_HT_2,1,3,1,61,9", "row 3 has 6 cells, the header 5"),
        ("TCGA_HT_9,1,3,1,61", "no row for 'TCGA_HT_2' of folder TCGA_HT_2_19990101; add it"),
        ("TCGA_CS_1,1,3,1,61", "two rows for 'TCGA_CS_1'; keep one"),
    ],
)
def test_bad_rows_are_named(made_up, row, message):
    with pytest.raises(InputError, match=message):
        made_up(second=row)


def test_bad_folders_are_named(made_up, tmp_path):
    with pytest.raises(InputError, match=r"data\.csv: no such file; correct the path"):
        read(made_up.root)
    with pytest.raises(InputError, match="no column 'gender'"):
        made_up(header=HEADER.replace("gender", "sex"))
    made_up()
    (made_up.root / "TCGA_CS_1_19990101" / "TCGA_CS_1_19990101_6_mask.tif").write_bytes(b"II*")
    with pytest.raises(InputError, match=r"_6_mask\.tif: cannot be read as an image"):
        made_up()
    (made_up.root / "TCGA_CS_1_19990101" / "TCGA_CS_1_19990101_6_mask.tif").unlink()
    with pytest.raises(InputError, match="subject 'TCGA_CS_1', field 'mask': .*_6_mask.tif is missing"):
        made_up()
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "data.csv").write_text(HEADER + "TCGA_CS_1,2,1,1,40\n")
    with pytest.raises(InputError, match="no slices"):
        read(empty)


def test_what_is_no_slice_is_listed(made_up):
    made_up()
    (made_up.root / "TCGA_CS_1_19990101" / "notes.txt").write_text("x")
    (made_up.root / "TCGA_HT_3_19990101").mkdir()
    table = made_up.root / "data.csv"
    table.write_text(table.read_text() + "TCGA_HT_3,1,1,1,50\nTCGA_HT_4,1,1,1,50\n")
    left_out = read(made_up.root).left_out
    assert [(item.reason, item.subject) for item in left_out] == [
        ("neither a slice nor its mask", "TCGA_CS_1"),
        ("a folder without slices", "TCGA_HT_3"),
        ("a row of data.csv without a folder", "TCGA_HT_4"),
    ]


def files(record):
    return {"image": record["image"], "seg": record["mask"]}


@pytest.fixture
def pipeline(root):
    parser = ConfigParser({"bundle_root": str(root)})
    parser.update(parser.load_config_file(root / "configs" / "cohort_tcga_lgg.yaml"))
    parser["image_size"] = 128
    return parser.get_parsed_content("slice_preprocessing")


def test_the_pipeline_takes_the_flair_channel(made_up, pipeline):
    result = pipeline(files(made_up()[0]))
    assert result["image"].shape == result["seg"].shape == (1, 128, 128)
    assert result["image"].dtype == torch.float32
    assert result["image"][0, 64, 64].item() == pytest.approx(0.45)
    assert result["image"][0, 0, 0].item() == 0
    # Rows first: the lesion's pixels at row 5, columns 5 and 6 of 16 become rows 40 to 47, columns 40 to 55.
    rows, columns = torch.nonzero(result["seg"][0], as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 47, 40, 55)


def test_the_pipeline_can_be_sent_to_a_worker(pipeline):
    assert len(pickle.loads(pickle.dumps(pipeline)).transforms) == len(pipeline.transforms)


def test_brightness_is_taken_out_and_an_empty_slice_stays_empty():
    head = torch.zeros(1, 8, 8)
    head[:, 2:6, 2:6] = torch.arange(1.0, 17).reshape(4, 4) + 20
    assert torch.allclose(scale_head(head), scale_head(7 * head))
    assert scale_head(head)[head > 0].median() == pytest.approx(0.45)
    assert scale_head(1000 * head).max() <= 1
    assert not scale_head(torch.zeros(1, 4, 4)).any()


# --- roles -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Eleven women, nine men and one patient of unknown sex from two sites, three slices each."""
    root = tmp_path_factory.mktemp("clinic")
    rows = []
    for number in range(21):
        patient = f"TCGA_{('AA', 'BB')[number % 2]}_{number:02d}"
        write_slices(root, patient, (3, 6, 11))
        rows.append(f"{patient},1,1,{'' if number == 20 else 1 if number < 11 else 2},50")
    (root / "data.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def config(root, clinic):
    """A job's config with the overlay, laid over made-up patients."""

    def read_job(job, **changed):
        parser = ConfigParser()
        parser.read_config([str(root / "configs" / job), str(root / "configs" / "cohort_tcga_lgg.yaml")])
        folders = {"bundle_root": root, "dataset_dir": clinic, "outputs_dir": clinic.with_name("outputs")}
        parser.update({name: str(folder) for name, folder in folders.items()} | changed)
        return parser.get_parsed_content

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield read_job


@pytest.fixture(scope="module")
def roles(config):
    load = config("evaluate.yaml")("load_cohort")
    return {role: load(role) for role in ("source", "target", "guide", "judge", "validation", "everyone")}


def subjects(slices):
    return set(slices.subjects())


def test_two_halves_share_nobody_and_hold_as_many_of_each_sex(roles):
    require_disjoint(guide=roles["guide"].subjects(), judge=roles["judge"].subjects())
    assert subjects(roles["judge"]) == subjects(roles["validation"])
    assert subjects(roles["guide"]) | subjects(roles["judge"]) == subjects(roles["everyone"])
    for role, expected in (("guide", (6, 4)), ("judge", (5, 5))):
        persons = {row["subject"]: row["sex"] for row in roles[role].rows}
        assert tuple(Counter(persons.values())[sex] for sex in SEX.groups) == expected


def test_unknown_sex_is_in_source_and_target_alone(roles):
    for role, slices in roles.items():
        assert sum(row["sex"] is None for row in slices.rows) == (3 if role in ("source", "target") else 0)
    assert subjects(roles["source"]) == subjects(roles["target"]) == subjects(roles["guide"]) | {"TCGA_AA_20"}


def test_the_source_repeats_men_and_loses_nobody(roles):
    groups = SEX.indices(roles["source"].rows)
    assert (groups == 1).sum() / (groups >= 0).sum() == pytest.approx(0.85, abs=0.01)
    assert len(roles["target"]) == 3 * (6 + 4 + 1)
    times = Counter((row["sex"], row["subject"], row["slice"]) for row in roles["source"].rows)
    assert len(times) == len(roles["target"])
    assert {number for (sex, *_), number in times.items() if sex == "male"} == {8, 9}
    assert {number for (sex, *_), number in times.items() if sex != "male"} == {1}
    first = roles["source"].rows.index(next(row for row in roles["source"].rows if row["sex"] == "male"))
    assert torch.equal(*roles["source"].pixels([first, first + 1]))


def test_slices_are_described_for_captions(roles):
    row = roles["target"].rows[1]
    assert (row["modality"], row["level"], row["grade"], row["slice"]) == ("flair", "middle", "G2", 6)
    assert [row["level"] for row in roles["target"].rows[:3]] == ["lower", "middle", "upper"]
    assert (row["lesion"], row["lesion_pixels"], row["side"]) == (True, 2 * 64, "right")
    assert not {"image", "mask"} & set(row)


def test_the_slices_of_all_roles_are_one_file(clinic, roles):
    assert len(list((clinic.with_name("outputs") / "cache").glob("slices_*.npy"))) == 1


def test_unknown_roles_are_refused():
    with pytest.raises(InputError, match="role 'referee': this cohort has source, target, guide"):
        tcga_slices("referee", [], SEX, ["all"], None, "", {"male": 0.5})


def test_a_member_is_trained_without_the_fold_that_it_judges(config):
    evaluate = config("evaluate.yaml")
    folds = evaluate("judge_folds")
    for fold in range(5):
        train = config("train_classifier.yaml", role="judge", fold=fold)
        assert subjects(train("held_out")) == set(folds[fold])
        assert subjects(train("slices")) == set(evaluate("trained_on")["judge"][fold])
        require_disjoint(trained=train("slices").subjects(), judged=folds[fold])
        assert train("output_dir").endswith(f"/train_judge_{fold}")
    guide = config("train_classifier.yaml")
    require_disjoint(trained=guide("slices").subjects(), held_out=guide("held_out").subjects())


def test_shared_subjects_are_allowed_under_cross_fitting_alone(config):
    evaluate = config("evaluate.yaml")
    folds, seen, judged = evaluate("judge_folds"), evaluate("trained_on"), evaluate("validation").subjects()
    members = [AttributeClassifier(torch.nn.Identity()) for _ in folds]
    require_unseen(seen, CrossFittedJudge(members, folds), judged)
    with pytest.raises(InputError, match="judge and validation share"):
        require_unseen({**seen, "judge": seen["judge"][:1]}, members[0], judged)
    with pytest.raises(InputError, match="judge and validation share"):
        require_unseen(seen, CrossFittedJudge(members, folds[1:] + folds[:1]), judged)
    with pytest.raises(InputError, match="judge and validation share 1 subject"):
        require_unseen(seen, CrossFittedJudge(members, [folds[0][1:], *folds[1:]]), judged)  # nobody's fold: anyone's
    with pytest.raises(InputError, match="guide and judge share 1 subject"):
        require_unseen({**seen, "guide": [*seen["guide"], folds[2][0]]}, CrossFittedJudge(members, folds), judged)


def test_nothing_of_these_patients_is_written_where_it_might_be_published(root, monkeypatch):
    monkeypatch.chdir(root)
    parser = ConfigParser()
    parser.read_config(["configs/train_clip.yaml", "configs/cohort_tcga_lgg.yaml"])
    for entry in ("outputs_dir", "models_dir", "cache_dir", "output_dir"):
        assert parser.get_parsed_content(entry).startswith("./outputs/tcga_lgg")


# --- the real data set -------------------------------------------------------------------------------------------


def test_real_counts(tcga_lgg):
    records = read(tcga_lgg).records
    assert records == read(tcga_lgg.parent).records
    subjects = {record["subject"]: record for record in records}
    assert len(records) == 660
    assert Counter(record["sex"] for record in subjects.values()) == {"female": 56, "male": 53, None: 1}
    assert Counter((record["grade"], record["sex"]) for record in subjects.values()) == {
        ("G2", "female"): 28,
        ("G2", "male"): 23,
        ("G3", "female"): 28,
        ("G3", "male"): 30,
        (None, None): 1,
    }
    assert Counter(record["site"] for record in subjects.values()) == {"DU": 45, "HT": 34, "CS": 16, "FG": 14, "EZ": 1}
    assert sum(record["lesion_pixels"] > 0 for record in records) == 369
    ages = [record["age"] for record in subjects.values() if record["age"] is not None]
    assert (min(ages), max(ages), sorted(ages)[len(ages) // 2]) == (20, 75, 47)


def test_real_slices_come_out_alike_and_the_right_way_round(tcga_lgg, pipeline):
    records = [record for record in read(tcga_lgg).records if record["lesion_pixels"] > 200][::6]
    sides = []
    for record in records:
        result = pipeline(files(record))
        image, mask = result["image"], result["seg"]
        assert image.shape == mask.shape == (1, 128, 128)
        assert 0 <= image.min() < 0.2
        assert 0.5 < image.max() <= 1
        assert image[image > image.mean()].median().item() == pytest.approx(0.45, abs=0.02)
        if record["side"] in ("left", "right"):
            columns = torch.arange(128.0)
            head = (image[0] > 0.15).sum(0)
            offset = (mask[0].sum(0) * columns).sum() / mask.sum() - (head * columns).sum() / head.sum()
            sides.append((offset > 0) == (record["side"] == "left"))
    # All but the patient TCGA_CS_6188, whose table and pictures disagree.
    assert sum(sides) >= len(sides) - 1
    assert len(sides) > 40


def test_real_roles(tcga_lgg, pipeline, tmp_path):
    records = read(tcga_lgg).records
    options = (SEX, ["lower", "middle", "upper"], pipeline, tmp_path, {"male": 0.85})
    source, target, judge = (tcga_slices(role, records, *options) for role in ("source", "target", "judge"))
    require_disjoint(source=source.subjects(), judge=judge.subjects())
    assert Counter(row["sex"] for row in target.rows) == {"female": 168, "male": 162, None: 6}
    assert Counter(row["sex"] for row in judge.rows) == {"female": 168, "male": 156}
    assert Counter(row["sex"] for row in source.rows) == {"female": 168, "male": 952, None: 6}
    assert Counter(row["level"] for row in judge.rows) == {"lower": 108, "middle": 108, "upper": 108}
    site = Counter(row["site"] for row in judge.rows)
    assert all(abs(site[name] - number) <= 12 for name, number in Counter(row["site"] for row in target.rows).items())
    sides = {record["subject"]: record["side"] for record in records}
    agree = [row["side"] == sides[row["subject"]] for row in target.rows + judge.rows if row["side"]]
    assert sum(agree) > 0.97 * len(agree)
