"""CheXpert: the official tables, the table of race and ethnicity, FairDiffusion's samples, and what is refused."""

import csv
import importlib.util
import os
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from bundle.cohorts import chexpert
from bundle.cohorts.chexpert import LABELS, ethnicity, race, read, read_demographics
from bundle.errors import InputError

BEFORE = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
# path, sex, age, view, projection, pleural effusion, edema
TRAIN = [
    ("train/patient00001/study1/view1_frontal.jpg", "Female", "68", "Frontal", "AP", "1.0", "0.0"),
    ("train/patient00001/study2/view1_frontal.jpg", "Female", "59", "Frontal", "PA", "", "1.0"),
    ("train/patient00001/study2/view2_lateral.jpg", "Female", "59", "Lateral", "", "", ""),
    ("train/patient00002/study1/view1_frontal.jpg", "Male", "40", "Frontal", "LL", "-1.0", ""),
    ("train/patient00003/study1/view1_frontal.jpg", "Unknown", "0", "Frontal", "RL", "0.0", ""),
]
VALID = [("valid/patient64541/study1/view1_frontal.jpg", "Male", "73", "Frontal", "AP", "0.0", "1.0")]
DEMOGRAPHICS = [
    "PATIENT,GENDER,AGE_AT_CXR,PRIMARY_RACE,ETHNICITY",
    'patient00001,Female,68,"White, non-Hispanic",Non-Hispanic/Non-Latino',
    "patient00002,Male,40,Asian - Historical Conv,Hispanic/Latino",
    "patient00003,Unknown,0,Other,Unknown",
    "patient09999,Male,50,Patient Refused,Patient Refused",
]


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 32)).save(path)


def write_table(path, rows, folder="CheXpert-v1.0-small"):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow((*BEFORE, *LABELS))
        for place, *facts, effusion, edema in rows:
            labels = dict.fromkeys(LABELS, "") | {"Pleural Effusion": effusion, "Edema": edema}
            writer.writerow((f"{folder}/{place}", *facts, *labels.values()))


@pytest.fixture
def made_up(tmp_path):
    """Six pictures of four patients; a function that writes the tables and reads the cohort."""
    root = tmp_path / "CheXpert-v1.0-small"
    for place, *_ in (*TRAIN, *VALID):
        write_picture(root / place)

    def call(train=TRAIN, valid=VALID, **options):
        write_table(root / "train.csv", train)
        write_table(root / "valid.csv", valid)
        return read(root, **options)

    call.root = root
    return call


@pytest.fixture
def demographics(tmp_path):
    path = tmp_path / "demo.csv"
    path.write_text("\n".join(DEMOGRAPHICS))
    return path


def test_a_record_has_the_shared_words(made_up, demographics):
    assert made_up(demographics=demographics).records[0] == {
        "subject": "patient00001",
        "image": made_up.root / "train/patient00001/study1/view1_frontal.jpg",
        "view": "frontal",
        "projection": "ap",
        "sex": "female",
        "race": "white",
        "ethnicity": "non-hispanic",
        "age": 68,
        "age_band": "60 and over",
        "condition": "present",
        "finding": "pleural effusion present",
        "split": "train",
        "caption": "frontal chest X-ray, pleural effusion present",
        "stated": "frontal chest X-ray, female, White, pleural effusion present",
    }


def test_captions_name_what_is_known_and_nothing_else(made_up, demographics):
    records = made_up(demographics=demographics, view="all").records
    assert [record["stated"] for record in records[1:]] == [
        "frontal chest X-ray, female, White, pleural effusion absent",
        "lateral chest X-ray, female, White, pleural effusion absent",
        "frontal chest X-ray, male, Asian, pleural effusion absent",
        "frontal chest X-ray, pleural effusion absent",
        "frontal chest X-ray, male, pleural effusion absent",
    ]
    assert {record["caption"] for record in records} == {
        "frontal chest X-ray, pleural effusion present",
        "frontal chest X-ray, pleural effusion absent",
        "lateral chest X-ray, pleural effusion absent",
    }


def test_unknown_is_none(made_up):
    unknown = made_up().records[3]
    assert [unknown[name] for name in ("sex", "race", "ethnicity", "age", "age_band")] == [None] * 5


def test_the_official_splits(made_up):
    reading = made_up()
    assert [record["split"] for record in reading.records] == ["train"] * 4 + ["val"]
    assert reading.records[-1]["subject"] == "patient64541"


@pytest.mark.parametrize(
    ("options", "conditions", "left_out"),
    [
        ({}, ["present", "absent", "absent", "absent", "absent"], ["lateral view"]),
        ({"uncertain": "positive"}, ["present", "absent", "present", "absent", "absent"], ["lateral view"]),
        ({"uncertain": "leave out"}, ["present", "absent", "absent", "absent"], ["lateral view", "uncertain label"]),
        ({"view": "lateral"}, ["absent"], ["frontal view"] * 5),
        ({"view": "all"}, ["present", "absent", "absent", "absent", "absent", "absent"], []),
        ({"label": "Edema"}, ["absent", "present", "absent", "absent", "present"], ["lateral view"]),
    ],
)
def test_options_choose_rows_and_conditions(made_up, options, conditions, left_out):
    reading = made_up(**options)
    assert [record["condition"] for record in reading.records] == conditions
    assert [item.reason for item in reading.left_out] == left_out


def test_no_finding_is_worded_as_one_would_say_it(made_up):
    assert made_up(label="No Finding").records[0]["caption"] == "frontal chest X-ray, some finding"
    assert chexpert._finding("No Finding", "present") == "no finding"
    assert made_up(label="Edema").records[1]["caption"] == "frontal chest X-ray, edema present"


def test_remarks_are_computed(made_up):
    # frontal: women present, blank; men uncertain (absent) and, in valid.csv, absent; one of unknown sex
    assert made_up().remarks == [
        "race and ethnicity are unknown: --demographics is not given",
        "pictures that do not mention pleural effusion (blank), taken as absent: 1 of 5",
        "pictures with an uncertain label (-1), taken as absent: 1 of 5",
        "pictures of age 0, taken as unknown: 1 of 5",
        "pictures of unknown sex: 1 of 5",
        "pleural effusion is present in 50.0 % of 2 female, 0.0 % of 2 male pictures",
        "patients with pictures in two age classes: 1",
    ]


def test_the_parent_folder_and_a_copy_without_valid_will_do(made_up):
    expected = made_up()
    assert read(made_up.root.parent) == expected
    (made_up.root / "valid.csv").unlink()
    assert "no valid.csv, a partial copy" in read(made_up.root).remarks
    assert len(read(made_up.root).records) == 4
    made_up.root.rename(made_up.root.with_name("small"))
    assert len(read(made_up.root.with_name("small")).records) == 4


def test_everything_left_out_has_a_reason(made_up):
    (made_up.root / TRAIN[1][0]).unlink()
    write_picture(made_up.root / "train/patient00077/study1/view1_frontal.jpg")
    reading = made_up()
    assert len(reading.records) == 4
    assert [(item.reason, item.file, item.subject) for item in reading.left_out] == [
        ("no picture for this row", TRAIN[1][0], "patient00001"),
        ("lateral view", TRAIN[2][0], "patient00001"),
        ("a picture without a row in the tables", "train/patient00077/study1/view1_frontal.jpg", ""),
    ]


def test_a_patient_of_two_sexes_is_reported_and_has_none(made_up):
    reading = made_up([TRAIN[0], (TRAIN[1][0], "Male", *TRAIN[1][2:]), *TRAIN[2:]])
    assert [record["sex"] for record in reading.records] == [None, None, "male", None, "male"]
    assert "patients with two values of sex, left unknown: 1, the first patient00001" in reading.remarks


def change(column, value):
    """The rows of train.csv with one cell of the first changed."""
    first = list(TRAIN[0])
    first[column] = value
    return [tuple(first), *TRAIN[1:]]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            change(0, "../../patient00001/study1/view1_frontal.jpg"),
            r"train\.csv: row 2, column 'Path': .* inside the data",
        ),
        (change(0, "train/../patient00001/study1/view1_frontal.jpg"), "is not of the form CheXpert-v1.0-small/train"),
        (change(0, TRAIN[1][0]), "row 3, column 'Path': .* is there twice; keep one row"),
        (change(1, "1"), "row 2, column 'Sex': unknown code '1'; use one of female"),
        (change(2, "old"), "row 2, column 'Age': 'old' is no number"),
        (change(2, "-1"), "row 2, column 'Age': -1 is no age in years"),
        (change(3, "oblique"), "row 2, column 'Frontal/Lateral': unknown code 'oblique'"),
        (change(4, "XX"), "row 2, column 'AP/PA': unknown code 'XX'"),
        (change(5, "2.0"), "row 2, column 'Pleural Effusion': unknown code '2.0'; use one of 1, 0, -1"),
    ],
)
def test_bad_rows_are_named(made_up, train, message):
    with pytest.raises(InputError, match=message):
        made_up(train)


def test_absolute_paths_are_refused(made_up):
    made_up()
    table = made_up.root / "train.csv"
    table.write_text(table.read_text().replace("CheXpert-v1.0-small/", "/CheXpert-v1.0-small/"))
    with pytest.raises(InputError, match="'/CheXpert-v1.0-small/train/.*' is not of the form"):
        read(made_up.root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "front"}, "--view: unknown value 'front'; did you mean 'frontal'"),
        ({"uncertain": -1}, "--uncertain: unknown value '-1'; use one of negative, positive, leave out"),
        ({"label": "Effusion"}, "--label: unknown value 'Effusion'; did you mean 'Pleural Effusion'"),
    ],
)
def test_bad_options_are_named(made_up, options, message):
    with pytest.raises(InputError, match=message):
        made_up(**options)


def test_bad_tables_are_named(made_up):
    made_up()
    table = made_up.root / "train.csv"
    good = table.read_text()
    table.write_text(good.replace("Sex", "Gender", 1))
    with pytest.raises(InputError, match=r"train\.csv: no column 'Sex'"):
        read(made_up.root)
    table.write_text(good.replace(",", "|"))
    with pytest.raises(InputError, match="separate the columns by commas"):
        read(made_up.root)
    table.write_bytes(b"\xff\xfe" + good.encode("utf-16-le"))
    with pytest.raises(InputError, match="not UTF-8 text"):
        read(made_up.root)
    table.write_bytes(b"\xef\xbb\xbf" + good.replace("\n", "\r\n").encode())
    assert len(read(made_up.root).records) == 5


def test_bad_folders_are_named(made_up, tmp_path):
    with pytest.raises(InputError, match=r"no table train\.csv or valid\.csv; give the folder CheXpert-v1\.0-small"):
        read(made_up.root)
    made_up()
    (tmp_path / "CheXpert-v1.0").mkdir()
    write_table(tmp_path / "CheXpert-v1.0" / "train.csv", TRAIN)
    with pytest.raises(InputError, match="tables in .* and in .*; give one of these folders"):
        read(tmp_path)
    with pytest.raises(
        InputError, match="nothing is left, 4 times: no picture for this row; unpack the pictures there"
    ):
        read(tmp_path / "CheXpert-v1.0")


@pytest.mark.parametrize(("link", "target"), [("train/patient00001/again", "../.."), ("train/self", "self")])
def test_a_loop_of_links_is_refused(made_up, link, target):
    os.symlink(target, made_up.root / link)
    with pytest.raises(InputError, match="a link back to .*remove the link|cannot be read .*correct the path"):
        made_up()


def test_two_links_into_each_other_are_a_loop(made_up, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", made_up.root / "train" / "more")
    made_up()
    os.symlink(made_up.root / "train", tmp_path / "elsewhere" / "back")
    with pytest.raises(InputError, match="more/back: a link back to .*train, which holds it; remove the link"):
        made_up()


def test_linked_folders_are_followed(made_up, tmp_path):
    (made_up.root / "train").rename(tmp_path / "disk")
    os.symlink(tmp_path / "disk" / "patient00001", tmp_path / "disk" / "patient00077")
    os.symlink(tmp_path / "disk", made_up.root / "train")
    reading = made_up()
    assert len(reading.records) == 5
    assert reading.reasons() == [("a picture without a row in the tables", 3), ("lateral view", 1)]


def test_every_folder_is_listed_once_and_no_file_is_looked_at(made_up, monkeypatch):
    made_up()
    listed, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or real(path))
    monkeypatch.setattr(Image, "open", None)
    looked_at = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looked_at.append(path.suffix) or is_file(path))
    read(made_up.root)
    assert len(listed) == len(set(listed)) == 2 + 4 + 5  # train and valid, 4 patients, 5 studies
    assert set(looked_at) == {".csv"}


# --- race and ethnicity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wording", "group"),
    [
        ("Asian", "asian"),
        ("Asian, non-Hispanic", "asian"),
        ("Asian - Historical Conv", "asian"),
        ("Black or African American", "black"),
        ("Black, Hispanic", "black"),
        ("WHITE", "white"),
        ("White or Caucasian", "white"),
        ("Native Hawaiian or Other Pacific Islander", None),
        ("Pacific Islander, Hispanic", None),
        ("American Indian or Alaska Native", None),
        ("Native American, non-Hispanic", None),
        ("Asian or Pacific Islander", None),
        ("Black and White", None),
        ("Whitehall", None),
        ("Other, non-Hispanic", None),
        ("Race and Ethnicity Unknown", None),
        ("Patient Refused", None),
        ("", None),
    ],
)
def test_wordings_of_race(wording, group):
    assert race(wording) == group


@pytest.mark.parametrize(
    ("wording", "group"),
    [
        ("Hispanic/Latino", "hispanic"),
        ("Hispanic", "hispanic"),
        ("Non-Hispanic/Non-Latino", "non-hispanic"),
        ("Not Hispanic", "non-hispanic"),
        ("Patient Refused", None),
        ("Unknown", None),
        ("", None),
    ],
)
def test_wordings_of_ethnicity(wording, group):
    assert ethnicity(wording) == group


def test_the_table_of_race_is_joined_by_patient(made_up, demographics):
    reading = made_up(demographics=str(demographics))
    assert [(record["race"], record["ethnicity"]) for record in reading.records] == [
        ("white", "non-hispanic"),
        ("white", "non-hispanic"),
        ("asian", "hispanic"),
        (None, None),
        (None, None),
    ]
    assert reading.remarks[:3] == [
        "demo.csv: rows whose race is none of the groups, left unknown: 2 (Other 1, Patient Refused 1)",
        "demo.csv: rows whose ethnicity is none of the groups, left unknown: 2 (empty or unknown 1, Patient Refused 1)",
        "patients without a row in the table of race and ethnicity: 1 of 4",
    ]


def test_where_the_tables_contradict_each_other_nothing_is_guessed(made_up, demographics):
    text = demographics.read_text().replace("patient00001,Female", "patient00001,Male")
    demographics.write_text(f"{text}\npatient00002,Male,41,White,Not Hispanic\npatient00003,Female,1,,\n")
    reading = made_up(demographics=demographics)
    people = {record["subject"]: record for record in reading.records}
    assert people["patient00001"]["sex"] is None
    assert people["patient00003"]["sex"] == "female"  # Unknown in train.csv contradicts nothing
    assert (people["patient00002"]["race"], people["patient00002"]["ethnicity"]) == (None, None)
    assert [remark for remark in reading.remarks if "two values" in remark] == [
        "patients with two values of sex, left unknown: 1, the first patient00001",
        "patients with two values of race, left unknown: 1, the first patient00002",
        "patients with two values of ethnicity, left unknown: 1, the first patient00002",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("PRIMARY_RACE", "RACE", r"demo\.csv: no column 'PRIMARY_RACE'; rename 'RACE'|no column 'PRIMARY_RACE'"),
        ("patient00001,Female", "patient00001,2", r"demo\.csv: row 2, column 'GENDER': unknown code '2'"),
        ("patient00001,", "1,", r"demo\.csv: row 2, column 'PATIENT': '1' is not of the form patientNNNNN"),
    ],
)
def test_bad_rows_of_the_table_of_race_are_named(made_up, demographics, old, new, message):
    demographics.write_text(demographics.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        made_up(demographics=demographics)


def test_a_spreadsheet_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"CHEXPERT DEMO\.xlsx: .* openpyxl, which is not installed; save the sheet as CSV"
    ):
        read_demographics(tmp_path / "CHEXPERT DEMO.xlsx")


def test_a_spreadsheet_reads_as_its_csv(demographics):
    sheet = demographics.with_name("CHEXPERT DEMO.xlsx")
    pd.read_csv(demographics, keep_default_na=False).to_excel(sheet, index=False)
    people, remarks = read_demographics(sheet)
    assert (people, len(remarks)) == (read_demographics(demographics)[0], 2)
    assert people[1] == {"subject": "patient00002", "sex": "male", "race": "asian", "ethnicity": "hispanic"}
    pd.DataFrame({"PATIENT": ["patient00001"]}).to_excel(sheet, index=False)
    with pytest.raises(InputError, match="no column 'GENDER'; rename yours, there are PATIENT"):
        read_demographics(sheet)
    sheet.write_bytes(b"PK broken")
    with pytest.raises(InputError, match="cannot be read as a spreadsheet"):
        read_demographics(sheet)


# --- FairDiffusion's samples -------------------------------------------------------------------------------------


def write_sample(folder, name, rows):
    """25 cells: by position 3 sex, 5 race, 6 ethnicity, 9 to 22 labels, 24 file; the others mean nothing here."""
    lines = [",".join(["", *(f"column_{number}" for number in range(1, 25))])]
    for sex, group, ethnic, effusion, file in rows:
        labels = ["" if label != "Pleural Effusion" else effusion for label in LABELS]
        lines.append(",".join(["0", "x", "x", sex, "50", group, ethnic, "x", "x", *labels, "x", file]))
    (folder / name).write_text("\n".join(lines))
    return folder / name


@pytest.fixture
def sample(tmp_path):
    """Three tables, and the root of their pictures."""
    root = tmp_path / "sample"
    names = [f"patient{number:05d}_study1_view1_frontal.jpg" for number in (1, 2, 3)]
    for name in names:
        write_picture(root / "Chexpert_sample_200" / name)
    tables = [
        write_sample(tmp_path, "chexpert_sample_train_6000.csv", [("Male", "Asian", "Hispanic", "1.0", names[0])]),
        write_sample(tmp_path, "chexpert_sample_val_1000.csv", [("Female", "Black", "Not Hispanic", "-1.0", names[1])]),
        write_sample(tmp_path, "chexpert_sample_test_3000.csv", [("Female", "White", "Unknown", "0.0", names[2])]),
    ]
    return root, tables


def test_the_samples_are_read_by_position(sample):
    root, tables = sample
    reading = read(root, table=tables)
    assert reading.left_out == []
    assert [record["stated"] for record in reading.records] == [
        "frontal chest X-ray, male, Asian, pleural effusion present",
        "frontal chest X-ray, female, Black, pleural effusion absent",
        "frontal chest X-ray, female, White, pleural effusion absent",
    ]
    assert [record["split"] for record in reading.records] == ["train", "val", "test"]
    assert [record["subject"] for record in reading.records] == ["patient00001", "patient00002", "patient00003"]
    assert [record["ethnicity"] for record in reading.records] == ["hispanic", "non-hispanic", None]
    assert reading.records[0]["image"] == root / "Chexpert_sample_200" / "patient00001_study1_view1_frontal.jpg"
    assert reading.remarks == [
        "pictures with an uncertain label (-1), taken as absent: 1 of 3",
        "pleural effusion is present in 0.0 % of 2 female, 100.0 % of 1 male pictures",
        "pleural effusion is present in 100.0 % of 1 asian, 0.0 % of 1 black, 0.0 % of 1 white pictures",
    ]


def test_a_patient_in_two_samples_and_rows_without_one_are_reported(sample, tmp_path):
    root, (train, *_) = sample
    write_picture(root / "0001.png")
    write_picture(root / "patient00001_study2_view1_lateral.jpg")
    rows = [
        ("Male", "Asian", "", "", "0001.png"),
        ("Male", "Asian", "", "", "patient00001_study2_view1_lateral.jpg"),
        ("Male", "Asian", "", "", "patient00009_frontal.jpg"),
    ]
    test = write_sample(tmp_path, "chexpert_sample_test_3000.csv", rows)
    reading = read(root, table=[train, test], view="all")
    last = reading.records[-2]
    assert (last["subject"], last["view"], last["stated"]) == (
        "0001",
        None,
        "chest X-ray, male, Asian, pleural effusion absent",
    )
    assert "patients in more than one split of the tables: 1" in reading.remarks
    assert "pictures that name no patient, so that each counts as a subject of its own: 1 of 3" in reading.remarks
    assert reading.reasons() == [("a picture without a row in the tables", 2), ("no picture for this row", 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("M/F", "Asian", "", "1.0", "a.jpg"), r"row 2, column 3 \(sex\): unknown code 'M/F'"),
        (("Male", "Asian", "", "3", "a.jpg"), r"row 2, column 19 \(Pleural Effusion\): unknown code '3'"),
        (("Male", "Asian", "", "1.0", "../a.jpg"), r"row 2, column 24: '\.\./a.jpg' is no file inside the data set"),
        (("Male", "Asian", "", "1.0", "/tmp/a.jpg"), "row 2, column 24: '/tmp/a.jpg' is no file inside the data set"),
        (("Male", "Asian", "", "1.0", ""), "row 2, column 24: '' is no file inside the data set"),
    ],
)
def test_bad_rows_of_the_samples_are_named(sample, tmp_path, row, message):
    table = write_sample(tmp_path, "chexpert_sample_train_6000.csv", [row])
    with pytest.raises(InputError, match=message):
        read(sample[0], table=table)


def test_bad_samples_are_named(sample, tmp_path):
    root, (train, *_) = sample
    with pytest.raises(InputError, match="row 2, column 24: .* is there twice"):
        read(root, table=[train, write_sample(tmp_path, "copy_test.csv", [("Male", "", "", "", "x.jpg")]), train])
    with pytest.raises(InputError, match=r"chosen\.csv: the name tells no split"):
        read(root, table=train.rename(tmp_path / "chosen.csv"))
    write_table(tmp_path / "train.csv", TRAIN)
    with pytest.raises(InputError, match=r"train\.csv: 19 columns, by position 25 are needed; give FairDiffusion's"):
        read(root, table=tmp_path / "train.csv")
    with pytest.raises(InputError, match=r"no_train\.csv: cannot be read as a table \(.*No such file"):
        read(root, table=tmp_path / "no_train.csv")


# --- the shared tables and the real one --------------------------------------------------------------------------


def test_the_label_order_is_that_of_the_real_header(test_data):
    header = (test_data / "chexpert" / "header.csv").read_text().strip().split(",")
    assert header == [*BEFORE, *LABELS]


def test_made_up_rows_in_the_real_layout(test_data, tmp_path):
    rows = (test_data / "chexpert" / "made_up_rows.csv").read_text()
    (tmp_path / "CheXpert-v1.0-small").mkdir()
    (tmp_path / "CheXpert-v1.0-small" / "train.csv").write_text(rows)
    table = pd.read_csv(test_data / "chexpert" / "made_up_rows.csv")
    for place in table["Path"]:
        write_picture(tmp_path / place)
    reading = read(tmp_path, view="all")
    frontal = read(tmp_path)
    assert (len(reading.records), len({record["subject"] for record in reading.records})) == (60, 30)
    assert len(frontal.records) == (table["Frontal/Lateral"] == "Frontal").sum()
    assert frontal.reasons() == [("lateral view", 60 - len(frontal.records))]
    present = (table["Pleural Effusion"] == 1).sum()
    assert Counter(record["condition"] for record in reading.records) == {"present": present, "absent": 60 - present}
    assert sum(record["age"] is None for record in reading.records) == (table["Age"] == 0).sum() > 0
    sexes = Counter(record["sex"] or "unknown" for record in reading.records)
    assert sexes == Counter(table["Sex"].str.lower())
    assert sexes["unknown"] > 0
