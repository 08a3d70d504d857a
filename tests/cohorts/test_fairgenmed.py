"""FairGenMed in miniature, in its published layout: codes, prompts word for word, and what is refused or left out."""

import csv
import itertools
import pickle
import time

import numpy as np
import pytest
from PIL import Image

from bundle.cohorts.fairgenmed import CODES, CONDITIONS, PERSON, caption, read, stated
from bundle.errors import InputError

PERSON_OF = {
    # number: race, male, hispanic, maritalstatus, language, glaucoma
    "00001": (0, 0, 0, 0, 0, 1),
    "00002": (1, 1, 1, 1, 1, 0),
    "00003": (2, 1, 0, 4, 2, 1),
    "00004": ("White or Caucasian", -1, -1, -1, -1, 0),
}
FIELDS = ("race", "male", "hispanic", "maritalstatus", "language", "glaucoma")
ROWS = {
    "00001": ("normal", "abnormal", "myopia"),
    "00002": ("mild", "normal", "hyperopia"),
    "00003": ("severe", "borderline", "emmetropia"),
    "00004": ("Moderate", "", "NA"),
}
COLUMNS = ("md_severity", "cdr_status", "se_status")


def write_subject(folder, number, person, **changed):
    folder.mkdir(exist_ok=True)
    picture = np.arange(48, dtype=np.uint8).reshape(6, 8)
    fields = {"slo_fundus": picture, "oct_bscans": np.zeros(0), "md": np.array(-3.5)}
    fields |= {name: np.array(value) for name, value in zip(FIELDS, person)}
    np.savez(folder / f"data_{number}.npz", **fields | changed)
    Image.fromarray(picture).save(folder / f"slo_fundus_{number}.jpg")


def write_table(path, rows=ROWS, columns=COLUMNS):
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream)
        writer.writerow(("filename", *columns))
        writer.writerows((f"data_{number}.npz", *cells) for number, cells in rows.items())


@pytest.fixture
def root(tmp_path):
    """Two subjects in train, one in val, one in test; the table one level up."""
    folder = tmp_path / "FairGenMed"
    folder.mkdir()
    for number, split in zip(PERSON_OF, ("train", "train", "val", "test")):
        write_subject(folder / split, number, PERSON_OF[number])
    write_table(tmp_path / "data_summary.csv")
    return folder


def replace(root, number, **changed):
    """Write one subject of train again with other fields."""
    write_subject(root / "train", number, PERSON_OF[number], **changed)


def reasons(reading):
    return dict(reading.reasons())


# --- codes -------------------------------------------------------------------------------------------------------


def test_codes_become_words_and_negative_is_unknown(root):
    reading = read(root)
    names = ("subject", "split", "race", "sex", "ethnicity", "marital_status", "language", "age", "age_band")
    assert [tuple(record[name] for name in names) for record in reading.records] == [
        ("data_00001", "train", "asian", "female", "non-hispanic", "married or partnered", "english", None, None),
        ("data_00002", "train", "black", "male", "hispanic", "single", "spanish", None, None),
        ("data_00003", "val", "white", "male", "non-hispanic", "legally separated", "other", None, None),
        ("data_00004", "test", "white", None, None, None, None, None, None),
    ]
    assert [tuple(record[name] for name in CONDITIONS) for record in reading.records] == [
        ("glaucoma", "normal", "abnormal", "myopia"),
        ("non-glaucoma", "mild", "normal", "hyperopia"),
        ("glaucoma", "severe", "borderline", "emmetropia"),
        ("non-glaucoma", "moderate", None, None),
    ]
    assert [record["image"] for record in reading.records][::3] == [
        root / "train" / "slo_fundus_00001.jpg",
        root / "test" / "slo_fundus_00004.jpg",
    ]
    assert not reading.left_out


def test_the_codes_are_those_of_the_published_reader(test_data):
    with (test_data / "fairgenmed" / "layout.csv").open() as stream:
        layout = {row["field"]: row for row in csv.DictReader(stream)}
    meanings = {
        "race": ["asian", "black or african american", "white or caucasian"],
        "male": ["female", "male"],
        "hispanic": ["non-hispanic", "hispanic"],
        "maritalstatus": ["married or partnered", "single", "divorced", "widowed", "legally separated"],
        "language": ["english", "spanish", "other"],
    }
    fields = {field: codes for fact in CODES.values() for field, codes in fact.items()}
    for field, expected in meanings.items():
        meaning = layout[field]["meaning"].lower().partition(";")[0].split("|")
        assert meaning[: len(expected)] == expected
        codes = layout[field]["values"].partition(" ")[0].split("|")[: len(expected)]
        assert [fields[field][code] for code in codes] == [fields[field][word] for word in expected]
    for column in COLUMNS:
        assert list(fields[column]) == layout[column]["values"].split("|")


@pytest.mark.parametrize(
    ("stage", "expected"), [("positive", "hyperopia"), ("neutral", "emmetropia"), ("negative", "myopia")]
)
def test_the_second_naming_of_refraction(root, stage, expected):
    rows = {number: (*cells[:2], stage) for number, cells in ROWS.items()}
    write_table(root.parent / "data_summary.csv", rows, ("md_severity", "cdr_status", "near_vision_refraction_stage"))
    assert {record["refraction"] for record in read(root).records} == {expected}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (np.array("Black or African American"), "black"),
        (np.array(b"Asian"), "asian"),
        (np.array([2.0]), "white"),
        (np.array(np.nan), None),
        (np.array("Unknown"), None),
    ],
)
def test_race_as_text_or_number(root, label, expected):
    replace(root, "00001", race=label)
    assert read(root).records[0]["race"] == expected


def test_age_where_there_is_one(root):
    replace(root, "00001", age=np.array(71.5))
    replace(root, "00002", age=np.array(-1))
    ages = [(record["age"], record["age_band"]) for record in read(root).records[:2]]
    assert ages == [(71.5, "60 and over"), (None, None)]


def test_the_published_spellings_of_the_folders(root):
    (root / "train").rename(root / "Training")
    (root / "val").rename(root / "Validation")
    (root / "test").rename(root / "elsewhere")
    reading = read(root)
    assert [record["split"] for record in reading.records] == ["train", "train", "val"]
    assert reasons(reading) == {"a row of data_summary.csv without its npz file": 1}
    assert not any("test split" in remark for remark in reading.remarks)
    assert len(read(root / ".").records) == 3


# --- prompts -----------------------------------------------------------------------------------------------------


def test_prompts_word_for_word(root):
    assert [(record["caption"], record["stated"]) for record in read(root).records] == [
        (
            "SLO fundus image of a patient with glaucoma, normal vision, abnormal cup-disc ratio, myopia",
            "SLO fundus image of an Asian female non-Hispanic patient with glaucoma, normal vision, "
            "abnormal cup-disc ratio, myopia",
        ),
        (
            "SLO fundus image of a patient with non-glaucoma, mild vision loss, normal cup-disc ratio, hyperopia",
            "SLO fundus image of a Black male Hispanic patient with non-glaucoma, mild vision loss, "
            "normal cup-disc ratio, hyperopia",
        ),
        (
            "SLO fundus image of a patient with glaucoma, severe vision loss, borderline cup-disc ratio, emmetropia",
            "SLO fundus image of a White male non-Hispanic patient with glaucoma, severe vision loss, "
            "borderline cup-disc ratio, emmetropia",
        ),
        (
            "SLO fundus image of a patient with non-glaucoma, moderate vision loss",
            "SLO fundus image of a White patient with non-glaucoma, moderate vision loss",
        ),
    ]
    nothing = dict.fromkeys((*PERSON, *CONDITIONS))
    assert caption(nothing) == stated(nothing) == "SLO fundus image of a patient"


PHRASES = {
    **{group: group for group in ("asian", "black", "white", "female", "male", "hispanic", "non-hispanic")},
    **{group: group for group in ("glaucoma", "non-glaucoma", "hyperopia", "emmetropia", "myopia")},
    "normal vision": "normal vision",
    **{f"{group} vision loss": f"{group} vision loss" for group in ("mild", "moderate", "severe")},
    **{f"{group} cup-disc ratio": f"{group} cup-disc ratio" for group in ("normal", "borderline", "abnormal")},
}


def test_a_blank_before_its_words_finds_each_group_and_no_other():
    """All 3 x 2 x 2 persons with all 2 x 4 x 3 x 3 conditions: 864 prompts."""
    groups = [list(dict.fromkeys(next(iter(CODES[name].values())).values())) for name in (*PERSON, *CONDITIONS)]
    prompts = 0
    for values in itertools.product(*groups):
        record = dict(zip((*PERSON, *CONDITIONS), values))
        race, sex, ethnicity, glaucoma, vision, ratio, refraction = values
        expected = {race, sex, ethnicity, glaucoma, f"{ratio} cup-disc ratio", refraction}
        expected.add("normal vision" if vision == "normal" else f"{vision} vision loss")
        assert {phrase for phrase in PHRASES if f" {phrase}" in stated(record).lower()} == expected
        assert {phrase for phrase in PHRASES if f" {phrase}" in caption(record)} == expected - {race, sex, ethnicity}
        prompts += 1
    assert prompts == 864


# --- contradictions, remarks -------------------------------------------------------------------------------------


def test_words_of_the_table_fill_what_the_npz_does_not_know_and_contradictions_are_reported(root):
    columns = (*COLUMNS, "gender", "race", "ethnicity", "language", "maritalstatus", "glaucoma", "age", "use")
    rows = {
        "00001": (*ROWS["00001"], "Male", "Asian", "Non-Hispanic", "English", "Single", "no", "70", "training"),
        "00002": (*ROWS["00002"], "Male", "Black", "Hispanic", "Spanish", "Single", "no", "50", "test"),
        "00003": (*ROWS["00003"], "Male", "White", "", "Unknown", "Legally Separated", "yes", "", "validation"),
        "00004": (*ROWS["00004"], "Female", "White", "Hispanic", "Other", "Widowed", "0", "81", "test"),
    }
    replace(root, "00001", age=np.array(64.0))
    replace(root, "00002", age=np.array(50.9))
    write_table(root.parent / "data_summary.csv", rows, columns)
    reading = read(root)
    first, second, _, last = reading.records
    assert [first[name] for name in ("sex", "race", "marital_status", "glaucoma", "age")] == [
        None,  # npz female, table male
        "asian",
        None,  # npz married, table single
        None,  # npz 1, table no
        None,  # npz 64, table 70
    ]
    assert first["stated"].startswith("SLO fundus image of an Asian non-Hispanic patient with normal vision")
    assert (second["age"], second["split"]) == (50.9, "train")
    assert [last[name] for name in ("sex", "ethnicity", "language", "marital_status", "age")] == [
        "female",
        "hispanic",
        "other",
        "widowed",
        81,
    ]
    assert [remark for remark in reading.remarks if "contradictory" in remark] == [
        "sex is contradictory for 1 subjects, the first is data_00001; taken as unknown",
        "marital_status is contradictory for 1 subjects, the first is data_00001; taken as unknown",
        "glaucoma is contradictory for 1 subjects, the first is data_00001; taken as unknown",
        "age is contradictory for 1 subjects, the first is data_00001; taken as unknown",
        "split is contradictory for 1 subjects, the first is data_00002; the folder decides",
    ]


def test_unknown_values_and_the_smallest_test_group_are_remarked_on(root):
    assert read(root).remarks == [
        "sex is unknown for 1 of 4 subjects",
        "ethnicity is unknown for 1 of 4 subjects",
        "language is unknown for 1 of 4 subjects",
        "marital_status is unknown for 1 of 4 subjects",
        "cup_disc_ratio is unknown for 1 of 4 subjects",
        "refraction is unknown for 1 of 4 subjects",
        "age is unknown for 4 of 4 subjects",
        "the smallest group of the test split is race asian, 0 of 1 subjects",
    ]
    # Test: 3 Asian, 2 Black, 1 White; 4 women and 2 men; 5 not Hispanic and 1 Hispanic, so White comes first with 1.
    persons = ((0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 1))
    rows = dict(ROWS)
    for place, person in enumerate(persons):
        number = f"{90 + place:05d}" if place else "00004"
        write_subject(root / "test", number, (*person, 0, 0, 0))
        rows[number] = ROWS["00001"]
    write_table(root.parent / "data_summary.csv", rows)
    assert read(root).remarks[-1] == "the smallest group of the test split is race white, 1 of 6 subjects"


# --- left out ----------------------------------------------------------------------------------------------------


def test_what_lacks_its_counterpart_is_left_out_with_a_reason(root):
    (root / "train" / "slo_fundus_00001.jpg").unlink()
    write_subject(root / "train", "00007", PERSON_OF["00001"])
    write_subject(root / "train", "00008", PERSON_OF["00001"])
    (root / "train" / "data_00008.npz").unlink()
    (root / "val" / "notes.txt").write_text("x")
    (root / "test" / "data_00004.npz").unlink()
    (root / "test" / "data_00004.npz").symlink_to(root / "nowhere.npz")
    reading = read(root)
    assert [record["subject"] for record in reading.records] == ["data_00002", "data_00003"]
    assert sorted((item.reason, item.file, item.subject) for item in reading.left_out) == [
        ("a file that is not of this layout", str(root / "val" / "notes.txt"), ""),
        ("a picture without its npz file", str(root / "test" / "slo_fundus_00004.jpg"), ""),
        ("a picture without its npz file", str(root / "train" / "slo_fundus_00008.jpg"), ""),
        (
            "a row of data_summary.csv without its npz file",
            str(root.parent / "data_summary.csv"),
            "data_00004",
        ),
        ("an npz file without its picture", str(root / "train" / "data_00001.npz"), "data_00001"),
        ("an npz file without its row of data_summary.csv", str(root / "train" / "data_00007.npz"), "data_00007"),
    ]


def damage(path, kind):
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "text":
        path.write_text("no archive")
    elif kind == "npy":
        with path.open("wb") as stream:
            np.save(stream, np.zeros(3))
    else:
        path.write_bytes(pickle.dumps(Refuses()))


class Refuses:
    """Whatever unpickles this fails loudly."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("kind", ["truncated", "text", "npy", "pickle"])
def test_a_damaged_npz_is_left_out(root, kind):
    damage(root / "train" / "data_00001.npz", kind)
    reading = read(root)
    assert len(reading.records) == 3
    assert reasons(reading) == {"an npz file that cannot be read": 1}
    assert reading.left_out[0].subject == "data_00001"


def test_an_npz_that_lacks_a_field_is_left_out(root):
    np.savez(root / "train" / "data_00001.npz", race=0, male=0, glaucoma=1)
    (item,) = read(root).left_out
    assert (item.reason, item.detail) == ("an npz file that lacks a field", "hispanic")


def test_large_arrays_are_never_read(root):
    """Objects in them would raise, were they touched."""
    replace(root, "00001", slo_fundus=np.array([Refuses()]), oct_bscans=np.array([Refuses()]))
    assert len(read(root).records) == 4


# --- refused -----------------------------------------------------------------------------------------------------


def test_pickled_objects_in_a_needed_field_are_refused(root):
    for value in (np.array(Refuses(), dtype=object), np.array(["Asian"], dtype=object)):
        replace(root, "00002", race=value)
        with pytest.raises(InputError, match=r"train/data_00002\.npz: field 'race': pickled objects, .*store a number"):
            read(root)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("race", 3, r"data_00002\.npz: field 'race': unknown code '3'; use one of 0, 1, 2, asian"),
        ("male", 2, "field 'male': unknown code '2'; use one of 0, 1"),
        ("hispanic", "perhaps", "field 'hispanic': unknown code 'perhaps'"),
        ("maritalstatus", 5, "field 'maritalstatus': unknown code '5'"),
        ("glaucoma", 0.5, "field 'glaucoma': unknown code '0.5'"),
        ("language", [0, 1], "field 'language': not one value; store one"),
        ("age", "old", "field 'age': 'old' is no number"),
    ],
)
def test_unknown_codes_are_named(root, field, value, message):
    replace(root, "00002", **{field: np.array(value)})
    with pytest.raises(InputError, match=message):
        read(root)


@pytest.mark.parametrize(
    ("place", "cell", "message"),
    [
        (0, "bad", r"data_summary\.csv: file 'data_00002.npz', column 'md_severity': unknown code 'bad'; use one of"),
        (1, "1", "column 'cdr_status': unknown code '1'; use one of normal, borderline, abnormal"),
        (2, "positive", "column 'se_status': unknown code 'positive'; use one of hyperopia"),
    ],
)
def test_unknown_words_of_the_table_are_named(root, place, cell, message):
    cells = list(ROWS["00002"])
    cells[place] = cell
    write_table(root.parent / "data_summary.csv", ROWS | {"00002": cells})
    with pytest.raises(InputError, match=message):
        read(root)


def test_a_number_for_gender_in_the_table_is_refused(root):
    write_table(root / "data_summary.csv", {"00002": (*ROWS["00002"], "1")}, (*COLUMNS, "gender"))
    with pytest.raises(InputError, match="column 'gender': unknown code '1'; use one of female"):
        read(root)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("cdr_status", "se_status", "x"), r"data_summary\.csv: no column 'md_severity'"),
        (("md_severity", "se_status", "x"), "no column 'cdr_status'"),
        (("md_severity", "cdr_status", "x"), "no column 'se_status or near_vision_refraction_stage'"),
    ],
)
def test_missing_columns_are_named(root, columns, message):
    write_table(root.parent / "data_summary.csv", columns=columns)
    with pytest.raises(InputError, match=message):
        read(root)


def test_bad_folders_are_named(root, tmp_path):
    (root / "data_summary.csv").write_text("filename,md_severity,cdr_status\ndata_00001.npz,,\ndata_00001,,\n")
    with pytest.raises(InputError, match="two rows for 'data_00001'"):
        read(root)
    (root / "data_summary.csv").unlink()
    write_subject(root / "val", "00001", PERSON_OF["00001"])
    with pytest.raises(InputError, match=r"val/data_00001\.npz: subject 'data_00001' is also in .*train; keep one"):
        read(root)
    (root / "val" / "data_00001.npz").unlink()
    (root / "Training").mkdir()
    with pytest.raises(InputError, match="both Training and train for the split 'train'; keep one"):
        read(root)
    (root / "Training").rmdir()
    (root.parent / "data_summary.csv").unlink()
    with pytest.raises(InputError, match=r"data_summary\.csv: no such table, nor one level up"):
        read(root)
    with pytest.raises(InputError, match="no folder 'train'; give the folder that holds"):
        read(root / "train")
    with pytest.raises(InputError, match="nowhere: no folder 'train'; give the folder"):
        read(tmp_path / "nowhere")


def test_a_loop_of_links_is_refused(root):
    (root / "train" / "slo_fundus_00009.jpg").symlink_to("slo_fundus_00009.jpg")
    with pytest.raises(InputError, match=r"slo_fundus_00009\.jpg: cannot be read .Too many levels of symbolic links"):
        read(root)


def test_nothing_usable_is_an_error_and_not_an_empty_list(root):
    for picture in root.rglob("*.jpg"):
        picture.unlink()
    with pytest.raises(InputError, match="no subject can be used, most often: an npz file without its picture; unpack"):
        read(root)


def test_a_thousand_files_take_seconds(tmp_path):
    """The whole set has ten times as many."""
    write_subject(tmp_path / "train", "00001", PERSON_OF["00001"])
    (tmp_path / "val").mkdir()
    content = (tmp_path / "train" / "data_00001.npz").read_bytes()
    numbers = [f"{number:05d}" for number in range(1, 1001)]
    for number in numbers:
        (tmp_path / "train" / f"data_{number}.npz").write_bytes(content)
        (tmp_path / "train" / f"slo_fundus_{number}.jpg").touch()
    write_table(tmp_path / "data_summary.csv", dict.fromkeys(numbers, ROWS["00001"]))
    start = time.perf_counter()
    assert len(read(tmp_path).records) == 1000
    assert time.perf_counter() - start < 30
