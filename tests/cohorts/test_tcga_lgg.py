"""The public TCGA-LGG slices: what the table's codes mean, and what is refused."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundle.cohorts.tcga_lgg import read, scale_head
from bundle.errors import InputError

HEADER = "Patient,neoplasm_histologic_grade,laterality,gender,age_at_initial_pathologic\n"


@pytest.fixture
def made_up(tmp_path):
    """Two patients with three slices and one; a function that writes the table and reads the cohort."""
    slices = {"TCGA_CS_1_19990101": (2, 10, 6), "TCGA_HT_2_19990101": (4,)}
    for folder, numbers in slices.items():
        (tmp_path / folder).mkdir()
        for number in numbers:
            picture = np.zeros((16, 16, 3), np.uint8)
            picture[4:12, 4:12] = (10, 100, 200)  # pre-contrast, FLAIR, post-contrast
            mask = np.zeros((16, 16), np.uint8)
            mask[5, 5 : 5 + number % 4] = 255
            Image.fromarray(picture).save(tmp_path / folder / f"{folder}_{number}.tif")
            Image.fromarray(mask).save(tmp_path / folder / f"{folder}_{number}_mask.tif")

    def call(first="TCGA_CS_1,2,1,1,40", second="TCGA_HT_2,1,3,2.0,61", header=HEADER):
        (tmp_path / "data.csv").write_text("\ufeff" + header + first + "\n" + second + "\n", encoding="utf-8")
        return read(tmp_path)

    call.root = tmp_path
    return call


def test_codes_become_words_and_slices_are_in_order(made_up):
    records = made_up()
    assert [record["slice"] for record in records] == [2, 6, 10, 4]
    assert [record["level"] for record in records] == [0, 0.5, 1, 0.5]
    assert [record["lesion_pixels"] for record in records] == [2, 2, 2, 0]
    first, last = records[0], records[-1]
    assert {key: first[key] for key in ("subject", "sex", "grade", "side", "age", "site", "modality")} == {
        "subject": "TCGA_CS_1", "sex": "female", "grade": "G3", "side": "left", "age": 40, "site": "CS",
        "modality": "flair",
    }
    assert (last["subject"], last["sex"], last["grade"], last["side"]) == ("TCGA_HT_2", "male", "G2", "right")
    assert first["image"].endswith("_2.tif")
    assert first["mask"].endswith("_2_mask.tif")


def test_empty_cells_are_missing(made_up):
    record = made_up(second="TCGA_HT_2,,,,")[-1]
    assert [record[name] for name in ("sex", "grade", "side", "age")] == [None] * 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("TCGA_HT_2,1,3,3,61", "patient 'TCGA_HT_2', column 'gender': unknown code 3; the codes are"),
        ("TCGA_HT_2,1,3,m,61", "column 'gender': 'm' is no number"),
        ("TCGA_HT_9,1,3,1,61", "no row for 'TCGA_HT_2' of folder TCGA_HT_2_19990101; add it"),
        ("TCGA_CS_1,1,3,1,61", "two rows for 'TCGA_CS_1'; keep one"),
    ],
)
def test_bad_rows_are_named(made_up, row, message):
    with pytest.raises(InputError, match=message):
        made_up(second=row)


def test_bad_folders_are_named(made_up, tmp_path):
    with pytest.raises(InputError, match=r"data\.csv: no such table; give the folder"):
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


@pytest.fixture
def pipeline(root):
    parser = ConfigParser({"bundle_root": str(root)})
    parser.update(parser.load_config_file(root / "configs" / "cohort_tcga_lgg.yaml"))
    return parser.get_parsed_content("slice_preprocessing")


def test_the_pipeline_takes_the_flair_channel(made_up, pipeline):
    record = made_up()[0]
    result = pipeline(record)
    assert result["image"].shape == result["mask"].shape == (1, 128, 128)
    assert result["image"].dtype == torch.float32
    assert result["image"][0, 64, 64].item() == pytest.approx(0.45)
    assert result["image"][0, 0, 0].item() == 0
    # Rows first: the lesion's pixels at row 5, columns 5 and 6 of 16 become rows 40 to 47, columns 40 to 55.
    rows, columns = torch.nonzero(result["mask"][0], as_tuple=True)
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


# --- the real data set -------------------------------------------------------------------------------------------


def test_real_counts(tcga_lgg):
    records = read(tcga_lgg)
    assert records == read(tcga_lgg.parent)
    subjects = {record["subject"]: record for record in records}
    assert len(records) == 660
    assert Counter(record["sex"] for record in subjects.values()) == {"female": 56, "male": 53, None: 1}
    assert Counter((record["grade"], record["sex"]) for record in subjects.values()) == {
        ("G2", "female"): 28, ("G2", "male"): 23, ("G3", "female"): 28, ("G3", "male"): 30, (None, None): 1,
    }
    assert Counter(record["site"] for record in subjects.values()) == {"DU": 45, "HT": 34, "CS": 16, "FG": 14, "EZ": 1}
    assert sum(record["lesion_pixels"] > 0 for record in records) == 369
    ages = [record["age"] for record in subjects.values() if record["age"] is not None]
    assert (min(ages), max(ages), sorted(ages)[len(ages) // 2]) == (20, 75, 47)


def test_real_slices_come_out_alike_and_the_right_way_round(tcga_lgg, pipeline):
    records = [record for record in read(tcga_lgg) if record["lesion_pixels"] > 200][::6]
    sides = []
    for record in records:
        result = pipeline(record)
        image, mask = result["image"], result["mask"]
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
