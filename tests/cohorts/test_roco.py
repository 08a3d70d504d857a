"""ROCO: three layouts, figures told by the words of their captions, licences, how a sex is taken out of a caption."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bundle.cohorts.reading import LeftOut
from bundle.cohorts.roco import OPEN, read, read_captions
from bundle.cohorts.words import BODY_PART, MODALITY, SEX, mentions, neutral, sexes
from bundle.errors import InputError

TRAIN, VALIDATION, OTHER = "train/radiology", "validation/radiology", "train/non-radiology"
# Id, article and file name, licence, caption as the release has it: a space before, perhaps one after, odd characters.
FIGURES = {
    TRAIN: [
        ("ROCO_00001", "PMC11_a_1.jpg", "CC BY", " Axial T2-weighted MRI of the brain of a 45-year-old woman.\x85 "),
        ("ROCO_00004", "PMC11_a_2.jpg", "CC BY-SA", " Cranial MR image,\tsagittal,  of her brother"),
        ("ROCO_00005", "PMC12_b.jpg", "CC BY-NC", " FLAIR image of the left frontal lobe"),
        ("ROCO_00006", "PMC13_c.jpg", "CC0", " MRI of the knee of a man"),
        ("ROCO_00008", "PMC14_d.jpg", "CC BY", " CT of the head"),
        ("ROCO_00009", "PMC15_e.jpg", "CC BY", " MRI of the brain, of which no image could be had"),
        ("ROCO_00010", "PMC16_f.jpg", "NO-CC CODE", " T1WI of the pituitary gland"),
    ],
    VALIDATION: [
        ("ROCO_00002", "PMC11_a_3.jpg", "CC BY", " Brain MRI of a boy and of a girl"),
        ("ROCO_00003", "PMC17_g.jpg", "CC BY", " Sagittal MRI of the cerebellum of a man"),
        ("ROCO_00007", "PMC17_g.jpg", "CC BY", " Sagittal MRI of the cerebellum of a man"),  # the same figure again
        ("ROCO_00011", "PMC18_h.jpg", "CC BY", " "),
    ],
    OTHER: [("ROCO_90001", "PMC19_i.jpg", "CC BY", " fMRI of the visual cortex")],
}
NO_IMAGE = {"ROCO_00009"}


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)


def write_official(data, figures=FIGURES, images=None):
    """The folders of the first release below ``data``; ``images`` gives the file name for an id and ``PMC_ID``."""
    for place, rows in figures.items():
        folder = data / place
        (folder / "images").mkdir(parents=True)
        (folder / "captions.txt").write_text("".join(f"{row[0]}\t{row[3]}\n" for row in rows), encoding="utf-8")
        (folder / "keywords.txt").write_text("".join(f"{row[0]}\t\tbrain\tmri\n" for row in rows))
        lines = ["ROCO_ID,PMC_ID,CC", *(",".join(row[:3]) for row in rows)]
        (folder / "licences.txt").write_text("\n".join(lines) + "\n")
        for row in rows:
            if row[0] not in NO_IMAGE:
                write_picture(folder / "images" / (images(row) if images else f"{row[0]}.jpg"))


@pytest.fixture
def official(tmp_path):
    write_official(tmp_path / "data")
    return tmp_path


def figures(reading):
    return [record["figure"] for record in reading.records]


# --- the official repository -------------------------------------------------------------------------------------


def test_a_record_has_caption_sex_and_where_it_comes_from(official):
    reading = read(official)
    assert reading.records[0] == {
        "subject": "PMC11",
        "image": official / "data" / TRAIN / "images" / "ROCO_00001.jpg",
        "figure": "ROCO_00001",
        "stated": "Axial T2-weighted MRI of the brain of a 45-year-old woman.",
        "caption": "Axial T2-weighted MRI of the brain of a 45-year-old patient.",
        "sex": "female",
        "split": "train",
        "kind": "radiology",
        "licence": "CC BY",
    }
    assert read(official / "data") == reading
    assert figures(reading) == ["ROCO_00001", "ROCO_00004", "ROCO_00002", "ROCO_00003"]
    assert [record["sex"] for record in reading.records] == ["female", "female", None, "male"]
    assert [record["split"] for record in reading.records] == ["train", "train", "val", "val"]
    assert reading.records[1]["stated"] == "Cranial MR image, sagittal, of her brother"  # split at the first tab alone
    assert reading.records[2]["caption"] == "Brain MRI of a child and of a child"


def test_whatever_is_left_out_has_its_reason(official):
    write_picture(official / "data" / TRAIN / "images" / "ROCO_00099.jpg")
    left_out = read(official).left_out
    reasons = {item.file: item.reason for item in left_out if item.subject}
    assert reasons == {
        "ROCO_00005": "licence not asked for",
        "ROCO_00006": "caption without a word for brain",
        "ROCO_00008": "caption without a word for mr",
        "ROCO_00009": "no image",
        "ROCO_00010": "licence not asked for",
        "ROCO_00007": "second id of a figure",
        "ROCO_00011": "empty caption",
    }
    details = {item.file: item.detail for item in left_out}
    assert (details["ROCO_00005"], details["ROCO_00010"]) == ("CC BY-NC", "NO-CC CODE")
    assert details["ROCO_00007"] == "ROCO_00003"
    assert details["ROCO_00009"].endswith("train/radiology/images/ROCO_00009.jpg")
    assert LeftOut("kind not asked for", OTHER) in left_out
    stray = str(official / "data" / TRAIN / "images" / "ROCO_00099.jpg")
    assert LeftOut("an image without a caption", stray) in left_out
    assert len(left_out) == 7 + 2


def test_remarks_count_what_was_kept(official):
    remarks = read(official).remarks
    # Kept: her brother's and the woman's figure are female, the man's is male, boy and girl are both.
    assert remarks[-3:] == [
        "4 of 4 captions (100.0%) name a sex: 1 male, 2 female, 1 both; the sex of all others is unknown",
        "4 figures of 2 articles; articles in several splits of the data set: 1",  # PMC11 is in train and val
        "licences: CC BY 3, CC BY-SA 1",
    ]
    assert remarks[0] == "not in this copy: test/radiology"


def test_an_article_of_several_people_is_remarked_on(official):
    line = "ROCO_00012\t MRI of the brain of a man\n"
    folder = official / "data" / TRAIN
    with (folder / "captions.txt").open("a") as captions, (folder / "licences.txt").open("a") as licences:
        captions.write(line)
        licences.write("ROCO_00012,PMC11_z.jpg,CC BY\n")
    write_picture(folder / "images" / "ROCO_00012.jpg")
    found = read(official)
    assert "articles with figures of both sexes, left unknown: 1" in found.remarks
    assert {record["sex"] for record in found.records if record["subject"] == "PMC11"} == {None}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"licences": None}, ["00001", "00004", "00005", "00010", "00002", "00003"]),
        ({"licences": "null"}, ["00001", "00004", "00005", "00010", "00002", "00003"]),
        ({"licences": ["CC BY-NC"]}, ["00005"]),
        ({"licences": "CC BY-NC,CC BY-SA"}, ["00004", "00005"]),
        ({"body_part": None}, ["00001", "00004", "00006", "00002", "00003"]),
        ({"modality": "ct"}, ["00008"]),
        ({"modality": None, "body_part": "null"}, ["00001", "00004", "00006", "00008", "00002", "00003"]),
        ({"kinds": "non-radiology"}, ["90001"]),
        ({"kinds": ["radiology", "non-radiology"]}, ["00001", "00004", "90001", "00002", "00003"]),
    ],
)
def test_options_choose_figures(official, options, expected):
    assert figures(read(official, **options)) == [f"ROCO_{number}" for number in expected]


def test_images_may_have_the_names_of_the_older_script(tmp_path):
    write_official(tmp_path / "data", images=lambda row: row[1])
    reading = read(tmp_path)
    assert figures(reading) == ["ROCO_00001", "ROCO_00004", "ROCO_00002", "ROCO_00003"]
    assert reading.records[0]["image"].name == "PMC11_a_1.jpg"


def test_a_folder_without_captions_is_named_and_the_others_are_read(official):
    (official / "data" / TRAIN / "captions.txt").unlink()
    reading = read(official)
    assert figures(reading) == ["ROCO_00002", "ROCO_00003"]
    assert LeftOut("captions.txt is missing", TRAIN) in reading.left_out
    assert (
        "train/radiology: captions.txt is missing (7 figures in its licences.txt); nothing of it is used"
        in reading.remarks
    )


# --- the mirror --------------------------------------------------------------------------------------------------


def write_mirror(folder, table, licences=False):
    """Train figures below ``all_data`` with a table at ``table``, images under the articles' names."""
    rows = FIGURES[TRAIN]
    write_official(folder / "all_data", {TRAIN: rows}, images=lambda row: row[1])
    kept = folder / "all_data" / TRAIN
    (kept / "captions.txt").unlink()
    if not licences:
        (kept / "licences.txt").unlink()
    cells = (f'{row[0]},{row[1]},"{row[3]}"\n' for row in rows)
    (folder / "all_data" / table).write_text("id,name,caption\n" + "".join(cells), encoding="utf-8")


@pytest.mark.parametrize("table", ["train/radiology/traindata.csv", "train/radiologytraindata.csv"])
def test_the_mirror_is_read_by_its_tables(tmp_path, table):
    write_mirror(tmp_path, table)
    (tmp_path / "all_data" / TRAIN / "other.csv").write_text("figure,code\n1,2\n")
    reading = read(tmp_path, licences=None)
    assert figures(reading) == ["ROCO_00001", "ROCO_00004", "ROCO_00005", "ROCO_00010"]
    first = reading.records[0]
    assert (first["subject"], first["licence"], first["image"].name) == ("PMC11", None, "PMC11_a_1.jpg")
    assert first["stated"] == "Axial T2-weighted MRI of the brain of a 45-year-old woman."
    assert "licences: unknown 4" in reading.remarks


def test_the_mirror_without_licences_is_taken_knowingly_or_not_at_all(tmp_path):
    write_mirror(tmp_path, "train/radiology/traindata.csv")
    with pytest.raises(InputError, match=r"licences\.txt: tells no licence of any figure; .* pass --licences null"):
        read(tmp_path)


def test_licences_beside_the_mirror_are_used(tmp_path):
    write_mirror(tmp_path, "train/radiology/traindata.csv", licences=True)
    assert figures(read(tmp_path)) == ["ROCO_00001", "ROCO_00004"]


def test_a_figure_without_an_article_is_its_own_subject(tmp_path):
    write_mirror(tmp_path, "train/radiology/traindata.csv")
    folder = tmp_path / "all_data" / TRAIN
    (folder / "traindata.csv").write_text("id,name,caption\nROCO_00021,scan.jpg,Brain MRI\n")
    write_picture(folder / "images" / "scan.jpg")
    reading = read(tmp_path, licences=None)
    assert [record["subject"] for record in reading.records] == ["ROCO_00021"]
    assert "figures without an article id: 1; those of one article may part" in reading.remarks


# --- the second release ------------------------------------------------------------------------------------------


def write_second(root, inner):
    captions = {
        "train": [("1", "MRI of the brain of a girl, T2-weighted"), ("2", "Brain MRI, axial"), ("3", "Chest X-ray")],
        "valid": [("1", "Head MRI of a 60-year-old male, with contrast")],
        "test": [("1", "Brain MRI of twins")],
    }
    licences = ["ID,PMCID,Attribution,Link"]
    for split, rows in captions.items():
        ids = [f"ROCOv2_2023_{split}_00000{number}" for number, _ in rows]
        lines = [f'{figure},"{text}"' for figure, (_, text) in zip(ids, rows, strict=True)]
        (root / f"{split}_captions.csv").write_text("\n".join(["ID,Caption", *lines, ""]))
        (root / f"{split}_concepts.csv").write_text("\n".join(["ID,CUIs", *(f"{figure},C1;C2" for figure in ids), ""]))
        for figure in ids:
            write_picture(root / f"{split}_images" / inner.format(split=split) / f"{figure}.jpg")
    for figure, article, attribution in (
        ("train_000001", "PMC21", "CC BY Someone et al. (2020)"),
        ("train_000002", "PMC21", "CC BY-NC Someone Else et al. (2021)"),
        ("train_000003", "PMC22", "CC BY Third et al. (2020)"),
        ("valid_000001", "PMC23", "CC BY Fourth et al. (2020)"),
        ("test_000001", "", "all rights reserved"),
    ):
        licences.append(f"ROCOv2_2023_{figure},{article},{attribution},https://example.org")
    (root / "license_information.csv").write_text("\n".join([*licences, ""]))


@pytest.mark.parametrize("inner", ["", "{split}"])
def test_the_second_release(tmp_path, inner):
    write_second(tmp_path, inner)
    reading = read(tmp_path)
    assert [(record["subject"], record["split"], record["sex"], record["licence"]) for record in reading.records] == [
        ("PMC21", "train", "female", "CC BY"),
        ("PMC23", "val", "male", "CC BY"),
    ]
    assert reading.records[1]["caption"] == "Head MRI of a 60-year-old patient, with contrast"
    assert {item.file: (item.reason, item.detail) for item in reading.left_out} == {
        "ROCOv2_2023_train_000002": ("licence not asked for", "CC BY-NC"),
        "ROCOv2_2023_train_000003": ("caption without a word for mr", ""),
        "ROCOv2_2023_test_000001": ("licence not asked for", "all rights reserved"),
    }
    everything = read(tmp_path, licences=None)
    assert everything.records[-1]["subject"] == "ROCOv2_2023_test_000001"  # its article is unknown
    with pytest.raises(InputError, match="ROCOv2, which has radiology alone"):
        read(tmp_path, kinds=["non-radiology"])
    (tmp_path / "valid_captions.csv").unlink()
    assert read(tmp_path).remarks[0] == "not in this copy: valid_captions.csv"


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "mri"}, "--modality mri: not known; use one of mr, ct, x-ray, ultrasound, or null for all"),
        ({"body_part": "head"}, "--body_part head: not known; use one of brain, chest, abdomen, or null for all"),
        ({"licences": ["CC-BY"]}, "--licences CC-BY: not known; use some of CC0, CC BY, CC BY-SA"),
        ({"licences": []}, r"--licences \[\]: not known; use some of"),
        ({"kinds": "radiologic"}, "--kinds radiologic: not known; use some of radiology, non-radiology"),
        ({"modality": "ultrasound"}, r"no figure is left \(.*10 caption without a word for ultrasound.*\); fetch"),
    ],
)
def test_wrong_options_are_refused(official, options, message):
    with pytest.raises(InputError, match=message):
        read(official, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.txt", b"", r"captions\.txt: the file is empty; copy it again"),
        ("captions.txt", b"ROCO_1\t \xe9", r"captions\.txt: not UTF-8 text \(byte 8\); save it as UTF-8"),
        ("captions.txt", b"ROCO_1\t a\nROCO_1\t b", r"captions\.txt: line 2: id 'ROCO_1' is there already; keep one"),
        ("captions.txt", b"../ROCO_1\t Brain MRI", r"figure '../ROCO_1': '../ROCO_1\.jpg' is no bare file name"),
        ("captions.txt", b"ROCO_00002\t a", "figure 'ROCO_00002' is also in another split; keep one"),
        ("licences.txt", b"ROCO_ID,CC\nROCO_1,CC BY", r"licences\.txt: no column 'PMC_ID'"),
        ("licences.txt", b"ROCO_ID,PMC_ID,CC\n1,a,b\n1,a,b", "column 'ROCO_ID': '1' is there twice; keep one row"),
        ("licences.txt", b"ROCO_ID,PMC_ID,CC\nROCO_00001,/etc/x.jpg,CC BY", "'/etc/x.jpg' is no bare file name"),
        ("licences.txt", b"ROCO_ID,PMC_ID,CC\nROCO_00001,PMC1_a.jpg,", "tells no licence of any figure"),
    ],
)
def test_wrong_tables_are_named(official, name, content, message):
    (official / "data" / TRAIN / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(official)


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(official):
    expected = read(official)
    for name in ("captions.txt", "licences.txt"):
        path = official / "data" / TRAIN / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(official) == expected


def test_folders_that_hold_no_figures_are_refused(tmp_path, official):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"no ROCO here; looked for .*captions\.txt.*Kaggle.*ROCOv2"):
        read(empty)
    for place in (TRAIN, VALIDATION):
        (official / "data" / place / "captions.txt").unlink()
    with pytest.raises(InputError, match=r"captions\.txt is missing in train/radiology, validation/radiology; copy it"):
        read(official)


def test_a_link_in_a_loop_is_refused(official):
    link = official / "data" / TRAIN / "images" / "ROCO_00009.jpg"
    link.symlink_to(link)
    with pytest.raises(InputError, match=r"ROCO_00009\.jpg: cannot be read"):
        read(official)


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "modalities"),
    [
        ("T2-weighted image", ["mr"]),
        ("Axial T1WI; T2-W as well", ["mr"]),
        ("T1‐weighted", ["mr"]),  # a hyphen of another kind
        ("Magnetic  resonance", ["mr"]),
        ("electron paramagnetic resonance", []),
        ("Mr. Smith", []),
        ("fracture of T1 and T2", []),
        ("CT and X-ray, radiographs", ["ct", "x-ray"]),
        ("act, factor, select", []),
        ("Ultrasonography with Doppler", ["ultrasound"]),
    ],
)
def test_modalities_by_whole_words(text, modalities):
    assert mentions(text, MODALITY) == modalities


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Brainstem", ["brain"]),
        ("white-matter lesion", ["brain"]),
        ("intracranial", ["brain"]),
        ("craniocaudal, arrowheads", []),
        ("left frontal lobes", ["brain"]),
        ("lobe of the liver", ["abdomen"]),
        ("left ventricle of the heart", ["chest"]),
    ],
)
def test_body_parts_by_words_and_stems(text, parts):
    assert mentions(text, BODY_PART) == parts


@pytest.mark.parametrize(
    ("stated", "named", "caption"),
    [
        ("MRI of a 45-year-old woman", ["female"], "MRI of a 45-year-old patient"),
        ("A 68-year-old-man with glioma", ["male"], "A 68-year-old-patient with glioma"),
        ("Man, 60 years.", ["male"], "Patient, 60 years."),
        ("Male patient, 25 years old", ["male"], "Patient, 25 years old"),
        ("In a female infant", ["female"], "In an infant"),
        ("A male adult", ["male"], "An adult"),
        ("An adult female with seizures", ["female"], "An adult patient with seizures"),
        ("a 60-year-old male.", ["male"], "a 60-year-old patient."),
        ("Three-year-old girl and boys", ["female", "male"], "Three-year-old child and children"),
        ("Brain of a boy and girl", ["female", "male"], "Brain of a child"),
        ("Men and women", ["female", "male"], "Patients"),
        ("She had her tumor removed", ["female"], "The patient had the patient's tumor removed"),
        ("He saw his/her scan himself", ["female", "male"], "The patient saw the patient's scan the patient"),
        ("whether he or she agreed", ["female", "male"], "whether the patient agreed"),
        ("FEMALE, 30", ["female"], "Patient, 30"),
        ("an elderly gentleman, a young lady", ["female", "male"], "an elderly patient, a young patient"),
        ("Calcified bundle of His; HE stain", [], "Calcified bundle of His; HE stain"),
        ("the human mandible, management, Hermes", [], "the human mandible, management, Hermes"),
        ("MR of a patient; Mr. Smith's mother", [], "MR of a patient; Mr. Smith's mother"),
    ],
)
def test_sex_in_captions(stated, named, caption):
    assert sexes(stated) == named
    assert neutral(stated) == caption


WORDS = [
    *SEX["female"],
    *SEX["male"],
    "a",
    "an",
    "infant",
    "patient",
    "bundle of His",
    "HE",
    "made",
    "or",
    "and",
    "/",
    ".",
]


@given(st.lists(st.sampled_from(WORDS), max_size=8), st.sampled_from([" ", "-", "/", ", "]))
def test_no_sex_is_left_in_a_neutral_caption(words, between):
    for text in (between.join(words), between.join(words).capitalize()):
        assert sexes(neutral(text)) == []
        assert neutral(neutral(text)) == neutral(text)


@given(st.text(max_size=40))
def test_a_caption_without_a_sex_stays_as_it_is(text):
    assert sexes(text) or neutral(text) == text
    assert sexes(neutral(text)) == []


# --- the real captions -------------------------------------------------------------------------------------------


def test_real_counts(test_data):
    """The counts in the README of the shared sample, from the captions alone, which have no images."""
    rows = read_captions(test_data / "roco").records
    assert read_captions(test_data / "roco" / "data").records == rows
    assert Counter((row["split"], row["kind"]) for row in rows) == {
        ("val", "radiology"): 1103,
        ("test", "radiology"): 1065,
        ("train", "non-radiology"): 152,
        ("val", "non-radiology"): 124,
        ("test", "non-radiology"): 123,
    }
    brain = [
        row
        for row in rows
        if "mr" in mentions(row["stated"], MODALITY) and "brain" in mentions(row["stated"], BODY_PART)
    ]
    counts = Counter((row["split"], row["kind"], *sexes(row["stated"])) for row in brain)
    assert counts == {
        ("val", "radiology"): 303 - 12 - 6,
        ("val", "radiology", "male"): 12,
        ("val", "radiology", "female"): 6,
        ("test", "radiology"): 265 - 13 - 8,
        ("test", "radiology", "male"): 13,
        ("test", "radiology", "female"): 8,
        ("train", "non-radiology"): 32 - 2,
        ("train", "non-radiology", "male"): 2,
        ("val", "non-radiology"): 4,
        ("test", "non-radiology"): 3,
    }
    assert all(sexes(neutral(row["stated"])) == [] for row in rows)


def test_real_captions_words_articles_and_licences(test_data):
    reading = read_captions(test_data / "roco", kinds=["radiology"])
    assert reading.remarks == [
        "train/radiology: captions.txt is missing (400 figures in its licences.txt); nothing of it is used"
    ]
    assert LeftOut("captions.txt is missing", "train/radiology") in reading.left_out
    rows = {row["figure"]: row for row in reading.records}
    pituitary = rows["ROCO_08098"]
    assert pituitary["stated"].endswith("visual loss in both eyes (on top of his POAG).")
    assert neutral(pituitary["stated"]).endswith("visual loss in both eyes (on top of the patient's POAG).")
    assert rows["ROCO_00006"]["subject"] == "PMC4840839"
    assert rows["ROCO_00006"]["names"] == ["ROCO_00006.jpg", "PMC4840839_ol-11-05-3298-g02.jpg"]
    assert rows["ROCO_00006"]["licence"] == "CC BY-NC-ND"
    assert all(row["subject"].startswith("PMC") for row in reading.records)
    with pytest.raises(InputError, match="no figure is left .*; fetch the images"):
        read(test_data / "roco")


def test_real_figures_with_images(test_data, tmp_path):
    """The real texts with empty files as images: what is kept by default, and the counts without a licence filter."""
    rows = read_captions(test_data / "roco").records
    for row in rows:
        folder = tmp_path / "data" / row["folder"].parent.relative_to(test_data / "roco" / "data")
        if not folder.is_dir():
            (folder / "images").mkdir(parents=True)
            for name in ("captions.txt", "licences.txt"):
                (folder / name).write_bytes((row["folder"].parent / name).read_bytes())
        (folder / "images" / row["names"][0]).touch()
    everything = read(tmp_path, licences=None)
    records = everything.records
    # 12 + 13 captions name a man and 6 + 8 a woman; 3 and 4 of them are of articles with both
    assert Counter(record["sex"] for record in records) == {"male": 22, "female": 10, None: 303 + 265 - 32}
    shares = "39 of 568 captions (6.9%) name a sex: 25 male, 14 female, 0 both; the sex of all others is unknown"
    assert shares in everything.remarks
    default = read(tmp_path)
    assert {record["licence"] for record in default.records} <= set(OPEN)
    assert len(default.records) == sum(record["licence"] in OPEN for record in records)
