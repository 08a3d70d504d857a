"""A table of one's own: what its columns become, how captions are worded, and what its owner is told to correct."""

import json
import time
from pathlib import Path

import pytest

from bundle.cohorts.record import read_datalist, write_datalist
from bundle.cohorts.table import read
from bundle.errors import InputError

PICTURES = """subject,image,sex,age,finding,split
p1,p1/a.png,F,41,pneumonia,train
p1,p1/b.png,F,41,,train
p2,p2/a.png,male,63.5,no finding,val
p3,p3/a.dcm,Unknown,NA,effusion,test
"""
CAPTION = ["chest X-ray", "{finding}"]


def put(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")


@pytest.fixture
def call(tmp_path):
    """Pictures of three persons, and a function that writes a table and reads it; captions have a template."""
    put(tmp_path, "p1/a.png", "p1/b.png", "p2/a.png", "p3/a.dcm")

    def read_text(text=PICTURES, name="table.csv", encoding="utf-8", **options):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return read(tmp_path, name, **{"caption": CAPTION} | options)

    read_text.root = tmp_path
    return read_text


def changed(old, new):
    assert PICTURES.count(old) == 1, old
    return PICTURES.replace(old, new)


# --- records -----------------------------------------------------------------------------------------------------


def test_rows_become_records(call):
    reading = call()
    assert reading.records[0] == {
        "subject": "p1",
        "image": call.root / "p1" / "a.png",
        "sex": "female",
        "age": 41,
        "age_band": "under 60",
        "finding": "pneumonia",
        "split": "train",
        "caption": "chest X-ray, pneumonia",
        "stated": "chest X-ray, pneumonia, female",
    }
    names = ("sex", "age", "age_band", "finding", "split", "caption", "stated")
    assert [tuple(record[name] for name in names) for record in reading.records[1:]] == [
        ("female", 41, "under 60", None, "train", "chest X-ray", "chest X-ray, female"),
        ("male", 63.5, "60 and over", "no finding", "val", "chest X-ray, no finding", "chest X-ray, no finding, male"),
        (None, None, None, "effusion", "test", "chest X-ray, effusion", "chest X-ray, effusion"),
    ]
    assert not reading.left_out
    assert reading.remarks == [
        "the stated wording is made up of caption, sex; --stated gives another",
        "sex is unknown for 1 of 4 rows",
        "age is unknown for 1 of 4 rows",
    ]


@pytest.mark.parametrize("separator", [None, "tab", "\t"])
@pytest.mark.parametrize(("encoding", "ends"), [("utf-8", "\n"), ("utf-8-sig", "\r\n")])
def test_byte_order_marks_line_ends_and_tabs_change_nothing(call, encoding, ends, separator):
    text = PICTURES.replace(",", "\t").replace("\n", ends)
    assert call(text, "table.tsv", encoding, separator=separator).records == call().records


def test_a_json_list_is_read_alike(call):
    rows = [
        {"subject": "p1", "image": "p1/a.png", "sex": "F", "age": 41, "finding": "pneumonia", "split": "train"},
        {"subject": "p1", "image": "p1/b.png", "sex": "F", "age": 41.0, "split": "train"},
        {"subject": "p2", "image": "p2/a.png", "sex": "male", "age": 63.5, "finding": "no finding", "split": "val"},
        {"subject": "p3", "image": "p3/a.dcm", "sex": None, "age": None, "finding": "effusion", "split": "test"},
    ]
    assert call(json.dumps(rows), "rows.json").records == call().records


def test_the_table_may_lie_elsewhere(call, tmp_path_factory):
    records = call().records
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "table.csv"
    elsewhere.write_text(PICTURES)
    assert read(call.root, elsewhere, caption=CAPTION).records == records


def test_other_names_and_codes(call):
    text = "PatientID,file,Gender,race,set\np1,p1/a.png,1,0,0\np2,p2/a.png,2,1.0,1\np3,p3/a.dcm,9,,2\n"
    columns = {"subject": "PatientID", "image": "file", "sex": "Gender", "split": "set"}
    codes = {
        "sex": {1: "female", "2": "Male", "9": None},
        "race": {"0": "Asian", 1: "black"},
        "split": {0: "train", 1: "val", 2: "test"},
    }
    records = call(text, columns=columns, codes=codes, caption="chest X-ray").records
    assert [(record["sex"], record["race"], record["split"]) for record in records] == [
        ("female", "asian", "train"),
        ("male", "black", "val"),
        (None, None, "test"),
    ]
    assert set(records[0]) == {"subject", "image", "sex", "race", "split", "caption", "stated"}
    assert [record["stated"] for record in records] == [
        "chest X-ray, asian, female",
        "chest X-ray, black, male",
        "chest X-ray",
    ]


def test_words_of_sex_beside_its_codes(call):
    text = "subject,image,sex\np1,p1/a.png,M\np2,p2/a.png,1\np3,p3/a.dcm,Woman\n"
    records = call(text, codes={"sex": {"1": "female"}}, caption="x").records
    assert [record["sex"] for record in records] == ["male", "female", "female"]


def test_one_column_may_serve_twice(call):
    records = call("image,sex\np1/a.png,F\n", columns={"subject": "image", "image": "image"}, caption="x").records
    assert (records[0]["subject"], records[0]["image"]) == ("p1/a.png", call.root / "p1" / "a.png")


def test_paths_of_windows_and_folders_of_dicom_slices(call):
    put(call.root, "p4/series/1.dcm")
    text = "subject,image\np1,p1\\a.png\np2,./p1/../p2/a.png\np4,p4/series/\n"
    reading = call(text, caption="x")
    assert [record["image"].relative_to(call.root).as_posix() for record in reading.records] == [
        "p1/a.png",
        "p2/a.png",
        "p4/series",
    ]
    assert all(isinstance(record["image"], Path) for record in reading.records)


def test_masks_have_the_name_that_the_jobs_read(call):
    text = "subject,image,seg\np1,p1/a.png,p1/b.png\np2,p2/a.png,\n"
    first, second = call(text, caption="x").records
    assert first["mask"] == call.root / "p1" / "b.png"
    assert not {"seg", "mask"} & set(second)
    (volume,) = read(call.root, write(call.root, "subject,t1,mask\np1,p1/a.png,p1/b.png\n")).records
    assert volume == {"subject": "p1", "t1": call.root / "p1" / "a.png", "seg": call.root / "p1" / "b.png"}


def write(root, text, name="table.csv"):
    (root / name).write_text(text)
    return name


def test_volumes_need_no_caption_and_the_jobs_read_them_back(call):
    text = "subject,t1,flair,seg,sex\np1,p1/a.png,p1/b.png,p2/a.png,f\n"
    records = call(text, caption=None).records
    assert set(records[0]) == {"subject", "t1", "flair", "seg", "sex"}
    write_datalist(call.root / "list.json", records)
    (back,) = read_datalist(call.root / "list.json", ["t1", "flair"], {"sex": ["female", "male"]})
    assert back == {name: str(value) for name, value in records[0].items()}


# --- wordings ----------------------------------------------------------------------------------------------------


def test_a_phrase_with_an_unknown_value_is_not_said(call):
    stated = ["{caption}", "{age}-year-old {sex}", "set {split}"]
    assert [record["stated"] for record in call(stated=stated).records] == [
        "chest X-ray, pneumonia, 41-year-old female, set train",
        "chest X-ray, 41-year-old female, set train",
        "chest X-ray, no finding, 63.5-year-old male, set val",
        "chest X-ray, effusion, set test",
    ]


def test_one_phrase_must_be_known(call):
    reading = call(caption="chest X-ray, {finding}", stated="X-ray of a {sex} person")
    assert [record["caption"] for record in reading.records] == ["chest X-ray, pneumonia", "chest X-ray, no finding"]
    assert [record["stated"] for record in reading.records] == ["X-ray of a female person", "X-ray of a male person"]
    assert [(item.reason, item.subject, item.detail.rpartition(": ")[2]) for item in reading.left_out] == [
        ("a row without a caption", "p1", "row 3"),
        ("a row without a stated", "p3", "row 5"),
    ]


def test_the_columns_caption_and_stated(call):
    text = (
        "subject,image,caption,stated\n"
        'p1,p1/a.png,"a  scan, left","a scan of a woman"\n'
        "p2,p2/a.png,,a scan of a man\n"
        "p3,p3/a.dcm,a man's scan,a scan\n"
    )
    reading = call(text, caption=None)
    assert [(record["caption"], record["stated"]) for record in reading.records] == [
        ("a scan, left", "a scan of a woman"),
        ("a man's scan", "a scan"),
    ]
    assert reading.reasons() == [("a row without a caption", 1)]
    assert reading.remarks == ["1 of 2 captions name a sex, so they are not neutral; take the word out of them"]
    templates = {"caption": "MR, {caption}", "stated": "{stated} ({caption})"}
    assert [(record["caption"], record["stated"]) for record in call(text, **templates).records] == [
        ("MR, a scan, left", "a scan of a woman (MR, a scan, left)"),
        ("MR, a man's scan", "a scan (MR, a man's scan)"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caption": None}, r'table.csv: no column .caption., and pictures need a text; .* --caption "chest X-ray'),
        ({"caption": "X-ray, {findings}"}, "--caption .*no column 'findings'; did you mean 'finding'?"),
        ({"caption": "X-ray, {zzz}"}, "--caption .*no column 'zzz'; there are sex, age, finding, split, age_band"),
        ({"caption": "X-ray of a {sex}"}, "--caption .*'sex' tells about the person; name it in --stated alone"),
        ({"caption": ["X-ray", "{age_band}"]}, "'age_band' tells about the person"),
        ({"caption": "X-ray, {finding"}, "--caption .*a brace without its counterpart"),
        ({"caption": {"finding"}}, "--caption .*not text; put it into a second pair of quotes"),
        ({"caption": ("X-ray", {"finding"})}, "--caption .*not text; put it into a second pair of quotes"),
        ({"stated": "{finding.__class__}"}, "--stated .*no column 'finding.__class__'"),
        ({"stated": "{subject}"}, "--stated .*no column 'subject'"),
    ],
)
def test_bad_templates_are_named(call, options, message):
    with pytest.raises(InputError, match=message):
        call(**options)


# --- left out ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_used_is_left_out_with_a_reason(call):
    (call.root / "p2" / "dangling.png").symlink_to("nowhere")
    text = (
        "subject,image,mask\n"
        "p1,p1/a.png,p1/nothing.png\n"
        "p1,p1/b.png,\n"
        "p1,p1/B.png,\n"
        "p1,NA,\n"
        "NA,p2/a.png,\n"
        "p3,none/a.png,\n"
        "p3,p3/a.dcm/a.png,\n"
        "p3,p2/dangling.png,\n"
        "p3,.,\n"
    )
    reading = call(text, caption="x")
    assert [record["image"].name for record in reading.records] == ["b.png"]
    assert [(item.reason, item.file, item.subject) for item in reading.left_out] == [
        ("a row whose file is not there", "p1/nothing.png", "p1"),
        ("a row whose file is not there", "p1/B.png", "p1"),
        ("a row without a path of its image", "", "p1"),
        ("a row without a subject", "", "NA"),
        ("a row whose file is not there", "none/a.png", "p3"),
        ("a row whose file is not there", "p3/a.dcm/a.png", "p3"),
        ("a row whose file is not there", "p2/dangling.png", "p3"),
        ("a row whose file is not there", ".", "p3"),
    ]
    assert [item.detail for item in reading.left_out[::7]] == [
        f"{call.root / 'table.csv'}: row 2",
        f"{call.root / 'table.csv'}: row 10",
    ]


def test_a_case_without_one_modality_is_left_out(call):
    reading = call("subject,t1,t2,seg\np1,p1/a.png,p1/b.png,p2/a.png\np2,p2/a.png,,p2/a.png\n", caption=None)
    assert len(reading.records) == 1
    assert reading.reasons() == [("a row without a path of its t2", 1)]


def test_nothing_usable_is_an_error(call):
    with pytest.raises(InputError, match="no row can be used, most often: a row whose file is not there; correct"):
        call("subject,image\np1,a.png\n", caption="x")


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table.csv: the table is empty"),
        ("subject,image\n", "table.csv: a header and no rows"),
        (
            changed("subject", "PatientID"),
            "table.csv: no column 'subject', there are PatientID, image, .* --columns \"{'subject'",
        ),
        (PICTURES.replace(",", "|"), "table.csv: no column 'subject', there are subject|image.*; give --separator"),
        (changed("subject,image", "subject,picture"), "no column 'image' .for pictures., nor any of t1, .* --columns"),
        (changed("age,finding", "t1,finding"), "columns 'image' and 't1'; keep the one"),
        ("subject,t1\np1,p1/a.png\n", "no column 'seg', and slices of volumes are chosen and described by it; add it"),
        (changed("age,finding", "mask,seg"), "columns 'seg' and 'mask'; keep one"),
        (changed("age,finding", "age,sex"), "table.csv: two columns 'sex'; rename or remove one"),
        (changed("age,finding", "age,role"), "table.csv: column 'role': roles are dealt out"),
        (changed("63.5,no finding", "63.5,no,finding"), "row 4 has 7 cells, the header 6; put quotes"),
        (changed("p2/a.png", "../p2/a.png"), "row 4, column 'image': '../p2/a.png' leads out of root; move the file"),
        (changed("p2/a.png", "p2/../../a.png"), "row 4, column 'image': .* leads out of root"),
        (changed("p2/a.png", "..\\a.png"), "row 4, column 'image': .* leads out of root"),
        (changed("p2/a.png", "/data/a.png"), "row 4, column 'image': '/data/a.png' is an absolute path; write it rel"),
        (changed("p2/a.png", "C:\\a.png"), "row 4, column 'image': .* is an absolute path"),
        (changed("p1/b.png", "p1/./a.png"), "row 3: image 'p1/a.png' is also in row 2; keep one"),
        (changed("p2/a.png", "p1/a.png"), "row 4: image 'p1/a.png' is also in row 2; keep one"),
        (
            changed("p1/b.png,F", "p1/b.png,M"),
            "row 3, column 'sex': subject 'p1' has 'male' here and 'female' in row 2",
        ),
        (changed(",,train", ",,val"), "row 3, column 'split': subject 'p1' has 'val' here and 'train' in row 2; keep"),
        (changed(",,train", ",,"), "row 3, column 'split': subject 'p1' has '' here and 'train' in row 2; keep one"),
        (changed("male", "x"), "table.csv: row 4, column 'sex': unknown code 'x'; use one of female, f, woman, male"),
        (
            changed("male", "1"),
            "row 4, column 'sex': '1' is a code, and the codes of data sets disagree; .* --codes \"{'sex': {'1'",
        ),
        (changed("val", "holdout"), "row 4, column 'split': unknown code 'holdout'; use one of train"),
        (changed("63.5", "old"), "row 4, column 'age': 'old' is no number"),
        (changed("63.5", "19000"), "row 4, column 'age': 19000 is no age in years"),
        ("subject,image,sex\np1,p1/a.png,NA\n", "column 'sex': no row has a known value; fill it or remove"),
        ("subject,image,race\np1,p1/a.png,2\n", "column 'race': '2' is a code, .* --codes \"{'race': {'1': '...'"),
        ("subject,image,race\np1,p1/a.png,a\np1,p1/b.png,b\n", "row 3, column 'race': subject 'p1' has 'b' here"),
        ("subject,image,ethnicity\np1,p1/a.png,a\np1,p1/b.png,b\n", "row 3, column 'ethnicity': subject 'p1'"),
        ('subject,image\np1,"' + 200_000 * "x", "table.csv: not readable as a table .field larger"),
    ],
)
def test_bad_tables_are_named(call, text, message):
    with pytest.raises(InputError, match=message.replace("|", r"\|")) as raised:
        call(text, caption="x")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,t1,seg\np1,p1/a.png,s\np1,p1/b.png,s\n", "row 3: subject 'p1' is also in row 2; keep one"),
        ("subject,t1,t2,seg\np1,p1/a.png,p1/a.png,s\n", "row 2: image 'p1/a.png' is also in row 2; keep one"),
    ],
)
def test_bad_tables_of_volumes_are_named(call, text, message):
    with pytest.raises(InputError, match=message):
        call(text, caption=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", "rows.json: not readable as JSON"),
        ("{}", "rows.json: no list of records"),
        ("[]", "rows.json: no list of records"),
        ('[{"subject": "p1", "image": ["p1/a.png"]}]', "record 0, field 'image': not one value; write text"),
        ('[{"subject": "p1", "image": "p1/a.png", "sex": 1}]', "record 0, column 'sex': '1' is a code"),
    ],
)
def test_bad_lists_are_named(call, text, message):
    with pytest.raises(InputError, match=message):
        call(text, "rows.json", caption="x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "sex"}, "--columns 'sex': no mapping; write it as in --columns \"{'subject': 'PatientID'}\""),
        (
            {"columns": {"race": "Race"}},
            "table.csv: no column 'Race' for 'race' of --columns; there are subject, image",
        ),
        ({"columns": {"sex": "finding"}}, "table.csv: --columns makes 'finding' a second 'sex'; rename or remove"),
        ({"codes": {"sex": "F"}}, "--codes 'F': no mapping; write it as in --codes \"{'sex'"),
        ({"codes": {"race": {"1": "white"}}}, "--codes: 'race' is no attribute in .*table.csv; there are sex, age"),
        ({"codes": {"image": {"1": "white"}}}, "--codes: 'image' is no attribute"),
        ({"codes": {"age": {"1": "old"}}}, "--codes: 'age' is no attribute"),
        ({"codes": {"sex": {"1": "woman"}}}, "--codes: sex 'woman'; use female, male, or None for unknown"),
        ({"codes": {"finding": {"1": "none"}}}, "row 2, column 'finding': unknown code 'pneumonia'; use one of 1"),
        ({"separator": "comma tab"}, "--separator 'comma tab': not one character; use one, or comma, tab, semicolon"),
        ({"separator": ";"}, "table.csv: no column 'subject', there are subject,image.* give --separator"),
    ],
)
def test_bad_options_are_named(call, options, message):
    with pytest.raises(InputError, match=message):
        call(**options)


def test_missing_tables_and_links_in_a_loop_are_named(call):
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        read(call.root, "nowhere.csv", caption="x")
    with pytest.raises(InputError, match=r"nowhere\.json: not readable as JSON"):
        read(call.root, "nowhere.json", caption="x")
    (call.root / "p2" / "loop.png").symlink_to("loop.png")
    with pytest.raises(InputError, match=r"loop\.png: cannot be read .Too many levels of symbolic links"):
        call()
    (call.root / "p2" / "loop.png").unlink()
    (call.root / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="loop: cannot be read"):
        call("subject,image\np1,loop/a.png\n", caption="x")


def test_an_empty_column_that_nobody_asked_for_is_remarked_on(call):
    text = "subject,image,notes,\np1,p1/a.png,,7\n"
    reading = call(text, caption="x")
    assert set(reading.records[0]) == {"subject", "image", "notes", "caption", "stated"}
    assert "column 'notes' is empty" in reading.remarks
    with pytest.raises(InputError, match="column 'remark': no row has a known value"):
        call(text, caption="x", columns={"remark": "notes"})


# --- size, and a real table --------------------------------------------------------------------------------------


def test_many_rows_take_seconds(call):
    """30,000 rows, a tenth of the largest table: no file is looked at alone, and most are not there."""
    rows = [f"s{number // 3},p1/{number}.png,{'FM'[number // 3 % 2]},{number // 3 % 90}" for number in range(30_000)]
    put(call.root, *(f"p1/{number}.png" for number in range(100)))
    text = "subject,image,sex,age\n" + "\n".join(rows)
    start = time.perf_counter()
    reading = call(text, caption="x")
    assert time.perf_counter() - start < 10
    assert (len(reading.records), reading.reasons()) == (100, [("a row whose file is not there", 29_900)])


def test_a_real_table(test_data, tmp_path):
    """HAM10000 as if it were one's own: the counts are those of its README; all but two of its files are missing."""
    put(tmp_path, "ISIC_0027419", "ISIC_0025030")
    reading = read(
        tmp_path,
        test_data / "ham10000" / "HAM10000_metadata.csv",
        columns={"subject": "lesion_id", "image": "image_id"},
        codes={"dx": {name: name for name in ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")}},
        caption="dermatoscopy, {dx}",
    )
    assert len(reading.records) + len(reading.left_out) == 10_015
    assert {record["image"].name: record["stated"] for record in reading.records} == {
        "ISIC_0027419": "dermatoscopy, bkl, male",
        "ISIC_0025030": "dermatoscopy, bkl, male",
    }
