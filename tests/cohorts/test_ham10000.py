"""HAM10000: the official table and folders, FairDiffusion's tables by position, and what is refused."""

import os
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from bundle.cohorts.ham10000 import MALIGNANT, read, read_metadata
from bundle.errors import InputError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
ROWS = [
    "HAM_0000001,ISIC_0000001,mel,histo,65.0,male,back",
    "HAM_0000001,ISIC_0000002,mel,histo,65.0,male,back",
    "HAM_0000002,ISIC_0000003,nv,follow_up,40,female,scalp",
    "HAM_0000003,ISIC_0000004,bkl,consensus,0.0,female,unknown",
    "HAM_0000004,ISIC_0000005,akiec,histo,,unknown,face",
]
PARTS = {"HAM10000_images_part_1": (1, 2, 3), "HAM10000_images_part_2": (4, 5)}


def write_picture(path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((45, 60, 3), np.uint8)).save(path)


@pytest.fixture
def made_up(tmp_path):
    """Five pictures of four lesions in two folders; a function that writes the table and reads the cohort."""
    root = tmp_path / "ham"
    root.mkdir()
    for folder, numbers in PARTS.items():
        for number in numbers:
            write_picture(root / folder / f"ISIC_{number:07d}.jpg")

    def call(rows=ROWS, header=HEADER, name="HAM10000_metadata.csv", **options):
        (root / name).write_bytes("\n".join([header, *rows, ""]).encode())
        return read(root, **options)

    call.root = root
    return call


def test_a_record_has_the_shared_words(made_up):
    reading = made_up()
    assert reading.left_out == []
    assert reading.records[0] == {
        "subject": "HAM_0000001",
        "image": made_up.root / "HAM10000_images_part_1" / "ISIC_0000001.jpg",
        "image_id": "ISIC_0000001",
        "sex": "male",
        "age": 65,
        "age_band": "60 and over",
        "dx": "mel",
        "dx_type": "histo",
        "localization": "back",
        "condition": "malignant",
        "caption": "dermoscopy image of a skin lesion, malignant",
        "stated": "dermoscopy image of a skin lesion, male, 60 and over, malignant",
    }
    assert reading.records[4]["image"] == made_up.root / "HAM10000_images_part_2" / "ISIC_0000005.jpg"


def test_captions_name_what_is_known_and_nothing_else(made_up):
    records = made_up().records
    assert [record["stated"] for record in records[2:]] == [
        "dermoscopy image of a skin lesion, female, under 60, benign",
        "dermoscopy image of a skin lesion, female, benign",
        "dermoscopy image of a skin lesion, malignant",
    ]
    assert {record["caption"] for record in records} == {
        "dermoscopy image of a skin lesion, malignant",
        "dermoscopy image of a skin lesion, benign",
    }


def test_unknown_is_none(made_up):
    zero, empty = made_up().records[3:]
    assert (zero["age"], zero["age_band"], zero["localization"], zero["sex"]) == (None, None, None, "female")
    assert (empty["age"], empty["age_band"], empty["sex"]) == (None, None, None)


def test_remarks_are_computed(made_up):
    assert made_up().remarks == [
        "the table has no patient: the subject is the lesion, and a person with two lesions is two subjects",
        "5 rows, 10,015 were published: an altered or partial copy",
        "rows of age 0, which may mean unknown or an infant, taken as unknown: 1",
        "unknown among 5 pictures: sex 1, age_band 2",
        "60 and over: 0.0 % of 1 female pictures and 100.0 % of 2 male pictures: "
        "where these differ, age and sex are tied",
        "malignant: 0.0 % of 2 female pictures and 100.0 % of 2 male pictures: "
        "a difference that a fair model should keep, not remove",
    ]


@pytest.mark.parametrize(
    ("malignant", "expected"),
    [("mel", 2), (["bkl"], 1), (("akiec", "mel"), 3), (MALIGNANT, 3)],
)
def test_what_is_malignant_is_an_option(made_up, malignant, expected):
    records = made_up(malignant=malignant).records
    assert sum(record["condition"] == "malignant" for record in records) == expected


@pytest.mark.parametrize(
    ("name", "separator", "extra"),
    [
        ("HAM10000_metadata", ",", ",dataset"),
        ("HAM10000_metadata", "\t", "\tdataset"),
        ("HAM10000_metadata.tab", "\t", ""),
        ("HAM10000_metadata.csv", ",", ""),
    ],
)
def test_published_spellings_of_the_table_are_one(made_up, name, separator, extra):
    expected = made_up()
    (made_up.root / "HAM10000_metadata.csv").unlink()
    rows = [row.replace(",", separator) + ("" if not extra else f"{separator}rosendahl") for row in ROWS]
    header = "\ufeff" + HEADER.replace(",", separator) + extra
    assert made_up([f"{row}\r" for row in rows], header + "\r", name) == expected


@pytest.mark.parametrize("folder", ["HAM10000_images", "."])
def test_pictures_may_be_in_one_folder_or_beside_the_table(made_up, folder):
    (made_up.root / folder).mkdir(exist_ok=True)
    for part in PARTS:
        for path in (made_up.root / part).iterdir():
            path.rename(made_up.root / folder / path.name)
        (made_up.root / part).rmdir()
    reading = made_up()
    assert reading.left_out == []
    assert [record["image"].parent for record in reading.records] == [made_up.root / folder] * 5


def test_everything_left_out_has_a_reason(made_up):
    first, second = (made_up.root / part for part in PARTS)
    (first / "ISIC_0000002.jpg").unlink()
    write_picture(second / "ISIC_0000003.jpg")
    write_picture(second / "ISIC_0000099.jpg")
    (second / "Thumbs.db").write_bytes(b"")
    (made_up.root / "pictures.pkl").write_bytes(pickle.dumps([1]))
    (made_up.root / "LICENSE.txt").write_text("CC BY-NC 4.0")
    reading = made_up()
    assert [record["image_id"][-1] for record in reading.records] == ["1", "3", "4", "5"]
    assert {(item.reason, item.file) for item in reading.left_out} == {
        ("no picture for this row", "ISIC_0000002"),
        ("a second file of the same picture", "HAM10000_images_part_2/ISIC_0000003.jpg"),
        ("a picture without a row in the official table", "HAM10000_images_part_2/ISIC_0000099.jpg"),
        ("not a jpg file", "HAM10000_images_part_2/Thumbs.db"),
        ("a pickle, which can run code", "pictures.pkl"),
    }


def test_a_lesion_of_two_sexes_is_reported_and_has_none(made_up):
    reading = made_up([ROWS[0], ROWS[1].replace(",male", ",female"), *ROWS[2:]])
    assert [record["sex"] for record in reading.records] == [None, None, "female", "female", None]
    assert "lesions with two sexes, left unknown: 1, the first HAM_0000001" in reading.remarks


def change(number, old, new):
    """The rows with one changed."""
    assert old in ROWS[number]
    return [row.replace(old, new) if place == number else row for place, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            change(0, "mel", "melanoma"),
            r"image 'ISIC_0000001', column 'dx': unknown code 'melanoma'; the official table",
        ),
        (change(0, ",mel,", ",,"), "column 'dx': unknown code ''"),
        (change(0, ",male", ",1"), "image 'ISIC_0000001', column 'sex': unknown code '1'; use one of female"),
        (change(0, "65.0", "old"), "image 'ISIC_0000001', column 'age': 'old' is no number"),
        (change(0, "65.0", "-5"), "column 'age': -5 is no age in years; correct it"),
        (change(0, "65.0", "inf"), "column 'age': inf is no age in years; correct it"),
        (change(0, "HAM_0000001", ""), "column 'lesion_id': empty; take the official table"),
        (change(1, "ISIC_0000002", "ISIC_0000001"), "2 rows for image 'ISIC_0000001'; keep one"),
        (change(0, "ISIC_0000001", "../ISIC_0000001"), r"'\.\./ISIC_0000001' is no name of a picture"),
        (change(0, "ISIC_0000001", "/tmp/x"), "'/tmp/x' is no name of a picture"),
        (change(0, ",back", ""), "row 2 has 6 cells, the header 7"),
        ([], "a header and no rows"),
        (
            [row.replace("ISIC_0", "ISIC_9") for row in ROWS],
            "no picture of the table's 5; unpack HAM10000_images_part_1",
        ),
    ],
)
def test_bad_rows_are_named(made_up, rows, message):
    with pytest.raises(InputError, match=message):
        made_up(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"header": HEADER.replace("lesion_id", "lesion")}, r"HAM10000_metadata\.csv: no column 'lesion_id'"),
        ({"header": HEADER.replace(",", "|")}, "the header is one cell .*separate the columns by commas or tabs"),
        ({"malignant": ["melanoma"]}, "--malignant: unknown code 'melanoma'; use some of akiec, bcc"),
        ({"malignant": []}, "--malignant: unknown code ''"),
    ],
)
def test_bad_tables_and_options_are_named(made_up, options, message):
    with pytest.raises(InputError, match=message):
        made_up(**options)


def test_bad_folders_are_named(made_up, tmp_path):
    with pytest.raises(InputError, match=r"ham: no table HAM10000_metadata\.csv; give the folder"):
        read(made_up.root)
    with pytest.raises(InputError, match="nowhere: no table"):
        read(tmp_path / "nowhere")
    made_up()
    with pytest.raises(InputError, match="a file; give the folder"):
        read(made_up.root / "HAM10000_metadata.csv")


def test_a_loop_of_links_is_refused(made_up):
    os.symlink("HAM10000_images", made_up.root / "HAM10000_images")
    with pytest.raises(InputError, match=r"HAM10000_images: cannot be read \(.*; correct the path"):
        made_up()


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("place", ["root", "in root", "table"])
def test_pickles_are_refused_and_never_loaded(made_up, tmp_path, place):
    path = (made_up.root if place == "in root" else tmp_path) / "train.pkl"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    calls = {
        "root": lambda: read(path),
        "in root": lambda: read(made_up.root),
        "table": lambda: made_up(table=path),
    }
    with pytest.raises(
        InputError, match=r"train\.pkl: pickles can run code and are never loaded; use the official jpg"
    ):
        calls[place]()
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_named_like_a_table_is_no_table(made_up, tmp_path):
    path = tmp_path / "new_train.csv"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(InputError, match=r"new_train\.csv: (cannot be read as a table|1 columns)"):
        made_up(table=path)
    assert not (tmp_path / "sprung").exists()


def test_reading_writes_nothing(made_up):
    made_up()
    before = {path: path.stat().st_mtime_ns for path in made_up.root.rglob("*")}
    read(made_up.root)
    assert {path: path.stat().st_mtime_ns for path in made_up.root.rglob("*")} == before


# --- FairDiffusion's tables --------------------------------------------------------------------------------------


def paper_row(image, age_flag, sex, label):
    """Fourteen cells: by position 9 path, 11 age flag, 12 sex, 13 label; the others mean nothing here."""
    return ",".join(["0", *"abcdefgh", f"../input/part_1/{image}.jpg", "x", age_flag, sex, label])


def write_paper(folder, name="new_train.csv", rows=()):
    header = "," + ",".join(f"column_{number}" for number in range(1, 14))
    (folder / name).write_text("\n".join([header, *rows, ""]))
    return folder / name


@pytest.fixture
def paper(tmp_path):
    train = [paper_row("ISIC_0000001", "1", "M", "1"), paper_row("ISIC_0000003", "0", "F", "0")]
    test = [paper_row("ISIC_0000002", "1", "M", "1"), paper_row("ISIC_0000005", "1.0", "F", "0")]
    return [write_paper(tmp_path, rows=train), write_paper(tmp_path, "new_test.csv", test)]


def test_the_papers_tables_choose_split_and_label(made_up, paper):
    reading = made_up(table=paper)
    assert [(record["image_id"][-1], record["split"]) for record in reading.records] == [
        ("1", "train"),
        ("3", "train"),
        ("2", "test"),
        ("5", "test"),
    ]
    last = reading.records[-1]
    assert (last["subject"], last["dx"], last["localization"]) == ("HAM_0000004", "akiec", "face")
    assert (last["sex"], last["age"], last["age_band"], last["condition"]) == ("female", None, "60 and over", "benign")
    assert last["stated"] == "dermoscopy image of a skin lesion, female, 60 and over, benign"
    assert [(item.reason, item.file) for item in reading.left_out] == [
        ("a row of the official table that the given tables leave out", "ISIC_0000004")
    ]
    assert reading.remarks[3:6] == [
        "rows of the given tables with an age class here and no age in the official table: 1",
        "rows of the given tables whose label, which counts, differs from --malignant: 1",  # akiec as benign
        "lesions in train and in test of the given tables: 1; split by lesion instead",
    ]


def test_where_the_papers_table_contradicts_the_official_one_nothing_is_guessed(made_up, tmp_path):
    rows = [paper_row("ISIC_0000001", "0", "F", "1"), paper_row("ISIC_0000098", "0", "F", "1")]
    reading = made_up(table=write_paper(tmp_path, rows=rows))
    [record] = reading.records
    assert (record["sex"], record["age"], record["age_band"], record["condition"]) == (None, None, None, "malignant")
    assert "rows of the given tables that contradict the official sex, which is left unknown: 1" in reading.remarks
    assert "rows of the given tables that contradict the official age_band, which is left unknown: 1" in reading.remarks
    assert reading.left_out[0].reason == "a row whose picture the official table does not list"
    assert (reading.left_out[0].file, reading.left_out[0].detail) == (
        "ISIC_0000098",
        f"{tmp_path}/new_train.csv: row 3",
    )


def test_paths_of_other_systems_are_read_by_their_last_part(made_up, tmp_path):
    row = paper_row("ISIC_0000001", "1", "M", "1").replace("/", "\\")
    assert len(made_up(table=str(write_paper(tmp_path, rows=[row]))).records) == 1


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        (
            "new_train.csv",
            ("ISIC_0000001", "2", "M", "1"),
            r"row 2, column 11 \(age_band\): unknown code '2'; use one of 0, 1",
        ),
        ("new_train.csv", ("ISIC_0000001", "1", "0", "1"), r"row 2, column 12 \(sex\): unknown code '0'"),
        ("new_train.csv", ("ISIC_0000001", "1", "M", "2"), r"row 2, column 13 \(condition\): unknown code '2'"),
        ("new_train.csv", ("ISIC_0000001", "1", "M", ""), r"row 2, column 13 \(condition\): empty; write 0 or 1"),
        ("new_train.csv", ("ISIC_0000077", "1", "M", "1"), "no row names a picture of the official table"),
        ("fold_0.csv", ("ISIC_0000001", "1", "M", "1"), "the name tells no split; call the tables new_train.csv"),
    ],
)
def test_bad_rows_of_the_papers_tables_are_named(made_up, tmp_path, name, row, message):
    with pytest.raises(InputError, match=message):
        made_up(table=write_paper(tmp_path, name, [paper_row(*row)]))


def test_bad_tables_of_the_paper_are_named(made_up, tmp_path):
    row = paper_row("ISIC_0000001", "1", "M", "1")
    with pytest.raises(InputError, match="row 3, column 9: 'ISIC_0000001' is listed twice"):
        made_up(table=write_paper(tmp_path, rows=[row, row]))
    (tmp_path / "new_train.csv").write_text("\n".join([HEADER, *ROWS]))
    with pytest.raises(InputError, match="7 columns, by position 14 are needed; give FairDiffusion's table"):
        made_up(table=tmp_path / "new_train.csv")
    (tmp_path / "new_train.csv").write_text(f"{row}\n{row}\n")
    with pytest.raises(InputError, match="row 1 is no header"):
        made_up(table=tmp_path / "new_train.csv")
    with pytest.raises(InputError, match=r"new_test\.csv: cannot be read as a table \(.*No such file"):
        made_up(table=tmp_path / "new_test.csv")


# --- the real table ----------------------------------------------------------------------------------------------


def test_real_counts(test_data):
    reading = read_metadata(test_data / "ham10000" / "HAM10000_metadata.csv")
    records = reading.records
    assert len(records) == 10_015
    assert len({record["subject"] for record in records}) == 7_470
    assert Counter(record["sex"] for record in records) == {"male": 5_406, "female": 4_552, None: 57}
    assert Counter(record["dx"] for record in records) == {
        "nv": 6_705,
        "mel": 1_113,
        "bkl": 1_099,
        "bcc": 514,
        "akiec": 327,
        "vasc": 142,
        "df": 115,
    }
    # akiec 327 + bcc 514 + mel 1,113 = 1,954 = 1,227 of 5,406 men (22.7 %) + 727 of 4,552 women (16.0 %)
    malignant = Counter(record["sex"] for record in records if record["condition"] == "malignant")
    assert malignant == {"male": 1_227, "female": 727}
    # 57 without age and 39 of age 0
    assert sum(record["age"] is None for record in records) == 96
    assert sum(record["localization"] is None for record in records) == 234
    assert "rows of age 0, which may mean unknown or an infant, taken as unknown: 39" in reading.remarks
    assert not any("altered" in remark or "two sexes" in remark for remark in reading.remarks)


def test_real_age_and_sex_are_tied(test_data):
    records = read_metadata(test_data / "ham10000" / "HAM10000_metadata.csv").records
    counts = Counter((record["sex"], record["age_band"]) for record in records)
    assert (counts["female", "60 and over"], counts["male", "60 and over"]) == (1_257, 2_342)
    # below 60 the table has 3,291 = 3,277 + 14 women and 3,058 = 3,035 + 23 men, with those of age 0, unknown here
    assert (counts["female", "under 60"], counts["male", "under 60"]) == (3_277, 3_035)
