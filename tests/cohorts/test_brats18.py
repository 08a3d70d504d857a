"""BraTS 2018 to 2020 and TCIA folders: which cases are found, whose sex is known, and what is refused or left out."""

import gzip
import itertools
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.cohorts.brats18 import DISAGREE, join, read
from bundle.errors import InputError

SEQUENCES = ("t1", "t1ce", "t2", "flair")
BRATS = (*SEQUENCES, "seg")
TCIA = ("t1", "t1Gd", "t2", "flair", "GlistrBoost", "GlistrBoost_ManuallyCorrected")
VOLUME = nib.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4)).to_bytes()
HEADER = "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID"
ROWS = (
    "HGG,Brats17_TCIA_131_1,Brats18_TCIA01_131_1,TCGA-02-0001,BraTS19_TCIA01_131_1",
    "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1",
    "LGG,Brats17_TCIA_77_1,Brats18_TCIA10_77_1,TCGA-CS-4941,BraTS19_TCIA10_77_1",
    "LGG,Brats17_2013_0_1,Brats18_2013_0_1,NA,BraTS19_2013_0_1",
    "HGG,NA,NA,NA,BraTS19_CBICA_ANV_1",
    "HGG,NA,NA,NA,BraTS19_TMC_06290_1",
)
CBIOPORTAL = "Patient ID\tSample ID\tDiagnosis Age\tPerson Gender\n"
GDC = "\ufeffGrade,Case_ID,Gender,Age_at_diagnosis\r\n"


def write_case(folder, suffixes, ending=".nii.gz", prefix=None):
    folder.mkdir(parents=True)
    for suffix in suffixes:
        packed = gzip.compress(VOLUME) if ending.endswith(".gz") else VOLUME
        (folder / f"{prefix or folder.name}_{suffix}{ending}").write_bytes(packed)


def write_mapping(folder, *rows, header=HEADER):
    path = folder / "name_mapping.csv"
    path.write_text("\n".join((header, *(rows or ROWS))) + "\n")
    return path


def write_clinical(folder, text, name="clinical.tsv"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def by_case(reading):
    return {record["case"]: record for record in reading.records}


def reasons(reading):
    return dict(reading.reasons())


@pytest.fixture
def brats18(tmp_path):
    """The four BraTS18 cases of the mapping, two of each grade, as the training archive holds them."""
    root = tmp_path / "brats" / "MICCAI_BraTS_2018_Data_Training"
    for case in (
        "HGG/Brats18_TCIA01_131_1",
        "HGG/Brats18_CBICA_AAB_1",
        "LGG/Brats18_TCIA10_77_1",
        "LGG/Brats18_2013_0_1",
    ):
        write_case(root / case, BRATS)
    (root / "survival_data.csv").write_text("BraTS18ID,Age,Survival,ResectionStatus\n")
    return root


@pytest.fixture
def tables(tmp_path):
    """The options of a cohort whose man of 61 is of high grade and whose woman of 40 is of low grade."""
    gbm = write_clinical(tmp_path, f"{CBIOPORTAL}TCGA-02-0001\tTCGA-02-0001-01\t61\tMALE\n", "gbm.tsv")
    lgg = write_clinical(tmp_path, f"{GDC}LGG,TCGA-CS-4941,Female,40 years 364 days\r\n", "gdc.csv")
    return {"name_mapping": write_mapping(tmp_path), "clinical": [gbm, lgg]}


# --- layouts -----------------------------------------------------------------------------------------------------


def test_brats18_is_joined_with_the_tables(brats18, tables):
    reading = read(brats18, **tables)
    cases = by_case(reading)
    folder = brats18 / "HGG" / "Brats18_TCIA01_131_1"
    assert cases["Brats18_TCIA01_131_1"] == {
        "subject": "TCGA-02-0001",
        "case": "Brats18_TCIA01_131_1",
        "barcode": "TCGA-02-0001",
        "grade": "HGG",
        "site": "TCIA01",
        "sex": "male",
        "age": 61,
        "age_band": "60 and over",
        **{name: folder / f"Brats18_TCIA01_131_1_{name}.nii.gz" for name in BRATS},
    }
    woman, stranger = cases["Brats18_TCIA10_77_1"], cases["Brats18_2013_0_1"]
    assert [woman[name] for name in ("subject", "grade", "sex", "age")] == ["TCGA-CS-4941", "LGG", "female", 40]
    assert [stranger[name] for name in ("subject", "barcode", "grade", "site", "sex", "age", "age_band")] == [
        *("Brats18_2013_0_1", None, "LGG", "2013", None, None, None)
    ]
    assert reading.left_out == []
    assert reading.remarks == [
        "2 of 4 cases have a sex: 1 male, 1 female; only patients of TCGA can have one, "
        "so it is tied to their sites and scanners",
        "men among the cases of known sex, by grade: HGG 1 of 1 (100%); LGG 0 of 1 (0%); "
        "where these differ, sex tells of the grade",
        "cases without a TCGA barcode, so without sex and age: 2; sites: 2013, CBICA",
    ]


def test_the_root_may_be_any_folder_from_the_parent_to_one_grade(brats18, tables, monkeypatch):
    assert read(brats18.parent, **tables) == read(str(brats18), **tables)
    monkeypatch.chdir(brats18 / "LGG")
    assert {(record["case"], record["grade"]) for record in read(".", **tables).records} == {
        ("Brats18_TCIA10_77_1", "LGG"),
        ("Brats18_2013_0_1", "LGG"),
    }


def test_without_tables_the_cases_are_there_without_a_sex(brats18):
    reading = read(brats18)
    assert {record["subject"]: record["grade"] for record in reading.records} == {
        "Brats18_CBICA_AAB_1": "HGG",
        "Brats18_TCIA01_131_1": "HGG",
        "Brats18_2013_0_1": "LGG",
        "Brats18_TCIA10_77_1": "LGG",
    }
    assert {record["sex"] for record in reading.records} == {None}
    assert reading.remarks[0].startswith("0 of 4 cases have a sex: 0 male, 0 female")


def test_brats19_has_the_same_people_under_other_names(tmp_path, brats18, tables):
    root = tmp_path / "MICCAI_BraTS_2019_Data_Training"
    write_case(root / "HGG" / "BraTS19_TCIA01_131_1", BRATS)
    write_case(root / "HGG" / "BraTS19_TMC_06290_1", BRATS)
    cases = by_case(read(root, **tables))
    old = by_case(read(brats18, **tables))["Brats18_TCIA01_131_1"]
    new = cases["BraTS19_TCIA01_131_1"]
    assert {name: new[name] for name in ("subject", "sex", "age", "grade", "site")} == {
        name: old[name] for name in ("subject", "sex", "age", "grade", "site")
    }
    assert (cases["BraTS19_TMC_06290_1"]["site"], cases["BraTS19_TMC_06290_1"]["sex"]) == ("TMC", None)


def test_brats20_has_its_grades_and_sites_in_the_mapping(tmp_path, tables):
    root = tmp_path / "MICCAI_BraTS2020_TrainingData"
    for number in (1, 2, 3, 9):
        write_case(root / f"BraTS20_Training_{number:03d}", BRATS, ending=".nii")
    write_case(root / "BraTS20_Training_355", SEQUENCES, ending=".nii")
    (root / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii").write_bytes(VOLUME)
    new = ("BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_355", "NA", "NA", "NA")
    rows = [f"{row},{name}" for row, name in zip(ROWS, new)] + ["LGG,NA,NA,NA,NA,BraTS20_Training_003"]
    tables["name_mapping"] = write_mapping(tmp_path, *rows, header=f"{HEADER},BraTS_2020_subject_ID")
    reading = read(root, **tables)
    cases = by_case(reading)
    facts = {case: tuple(record[name] for name in ("grade", "site", "sex")) for case, record in cases.items()}
    assert facts == {
        "BraTS20_Training_001": ("HGG", "TCIA01", "male"),
        "BraTS20_Training_002": ("HGG", "CBICA", None),
        "BraTS20_Training_003": ("LGG", None, None),
        "BraTS20_Training_009": (None, None, None),
        "BraTS20_Training_355": ("LGG", "TCIA10", "female"),
    }
    assert cases["BraTS20_Training_355"]["seg"].name == "W39_1998.09.19_Segm.nii"
    assert cases["BraTS20_Training_355"]["subject"] == "TCGA-CS-4941"
    assert reading.left_out == []
    assert {"cases without a known grade: 1", "cases without a row in the name mapping: 1"} <= set(reading.remarks)


def test_tcia_folders_need_no_mapping(tmp_path, tables):
    root = tmp_path / "tcia"
    gbm = root / "Pre-operative_TCGA_GBM_NIfTI_and_Segmentations"
    lgg = root / "Pre-operative_TCGA_LGG_NIfTI_and_Segmentations"
    write_case(gbm / "TCGA-02-0001", TCIA, prefix="TCGA-02-0001_1996.08.23")
    write_case(lgg / "TCGA-CS-4941", TCIA[:-1], prefix="TCGA-CS-4941_1996.09.09")
    reading = read(root, clinical=tables["clinical"])
    man, woman = reading.records
    assert [man[name] for name in ("subject", "case", "barcode")] == ["TCGA-02-0001"] * 3
    assert [man[name] for name in ("grade", "site", "sex", "age")] == ["HGG", "02", "male", 61]
    assert man["t1ce"].name == "TCGA-02-0001_1996.08.23_t1Gd.nii.gz"
    assert man["seg"].name == "TCGA-02-0001_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz"
    assert [woman[name] for name in ("subject", "grade", "site", "sex")] == ["TCGA-CS-4941", "LGG", "CS", "female"]
    assert woman["seg"].name == "TCGA-CS-4941_1996.09.09_GlistrBoost.nii.gz"
    assert [(item.reason, item.subject) for item in reading.left_out] == [
        ("the manually corrected segmentation is used instead", "TCGA-02-0001")
    ]
    assert reading.remarks[2:] == ["cases with a segmentation that nobody corrected: 1"]
    # The mapping, where it is given, knows the grade too, and may know none of these people.
    assert read(root, **tables).records == reading.records
    tables["name_mapping"] = write_mapping(tmp_path, ROWS[1])
    assert read(root, **tables).records == reading.records


def test_a_cohort_may_mix_barcodes_and_brats_ids(brats18, tables):
    write_case(brats18 / "TCGA-02-0099", TCIA, prefix="TCGA-02-0099_2000.01.01")
    case = by_case(read(brats18, **tables))["TCGA-02-0099"]
    assert (case["subject"], case["grade"], case["sex"]) == ("TCGA-02-0099", None, None)


# --- what is left out --------------------------------------------------------------------------------------------


def test_incomplete_cases_are_left_out(brats18, tables):
    woman, man = brats18 / "LGG" / "Brats18_TCIA10_77_1", brats18 / "HGG" / "Brats18_TCIA01_131_1"
    (woman / "Brats18_TCIA10_77_1_t1ce.nii.gz").unlink()
    (woman / "Brats18_TCIA10_77_1_seg.nii.gz").unlink()
    (man / "Brats18_TCIA01_131_1_seg.nii.gz").unlink()
    validation = brats18.parent / "MICCAI_BraTS_2018_Data_Validation" / "Brats18_CBICA_AAM_1"
    write_case(validation, SEQUENCES)
    (brats18 / "HGG" / "Brats18_2013_2_1").mkdir()
    reading = read(brats18.parent, **tables)
    assert set(by_case(reading)) == {"Brats18_CBICA_AAB_1", "Brats18_2013_0_1"}
    assert {(item.reason, item.subject, item.file, item.detail) for item in reading.left_out} == {
        ("no t1ce", "TCGA-CS-4941", str(woman), "missing: t1ce, seg"),
        ("no segmentation", "TCGA-02-0001", str(man), "missing: seg"),
        ("no segmentation", "Brats18_CBICA_AAM_1", str(validation), "missing: seg"),
        ("no t1", "Brats18_2013_2_1", str(brats18 / "HGG" / "Brats18_2013_2_1"), "missing: t1, t1ce, t2, flair, seg"),
    }


def test_only_the_asked_modalities_are_needed(brats18):
    (brats18 / "HGG" / "Brats18_TCIA01_131_1" / "Brats18_TCIA01_131_1_t1ce.nii.gz").unlink()
    reading = read(brats18, modalities="flair")
    assert len(reading.records) == 4
    assert reading.left_out == []
    assert {"t1", "t1ce", "t2", "flair", "seg"} & set(reading.records[0]) == {"flair", "seg"}
    assert len(read(brats18, modalities=["t1ce", "flair"]).records) == 3


def test_files_that_cannot_be_assigned_are_listed(brats18, tables):
    case = brats18 / "HGG" / "Brats18_TCIA01_131_1"
    (case / "Brats18_TCIA01_132_1_t1.nii.gz").write_bytes(b"")  # of another case
    (case / "Brats18_TCIA01_131_1_bias_t1.nii.gz").write_bytes(b"")
    (case / "W39_1998.09.19_Segm.nii").write_bytes(b"")  # the mask of one case of 2020, not of this one
    (brats18 / "atlas.nii").write_bytes(b"")
    write_case(brats18 / "BraTS2021_00000", BRATS)
    reading = read(brats18, **tables)
    assert len(reading.records) == 4
    assert reasons(reading) == {
        "not in a folder named by a BraTS id or a TCGA barcode": 1 + 5,
        "neither a sequence nor a segmentation by its name": 3,
    }
    assert {item.subject for item in reading.left_out if item.reason.startswith("neither")} == {"TCGA-02-0001"}


def test_a_case_with_two_files_for_one_image_is_left_out(brats18, tables):
    case = brats18 / "HGG" / "Brats18_TCIA01_131_1"
    (case / "Brats18_TCIA01_131_1_t2.nii").write_bytes(VOLUME)
    (item,) = read(brats18, **tables).left_out
    assert (item.reason, item.subject, item.file) == ("two files for one image", "TCGA-02-0001", str(case))
    assert item.detail == "Brats18_TCIA01_131_1_t2.nii, Brats18_TCIA01_131_1_t2.nii.gz"
    assert len(read(brats18, **tables, modalities=["t1", "flair"]).records) == 4


def test_rows_without_a_folder_are_listed_for_the_year_that_is_there(brats18, tables):
    for path in (brats18 / "LGG" / "Brats18_TCIA10_77_1").iterdir():
        path.unlink()
    (brats18 / "LGG" / "Brats18_TCIA10_77_1").rmdir()
    (item,) = read(brats18, **tables).left_out  # the two rows with an id of 2019 alone are not missed
    assert (item.reason, item.file) == ("a row of the name mapping without a case folder", str(tables["name_mapping"]))
    assert (item.subject, item.detail) == ("TCGA-CS-4941", "Brats18_TCIA10_77_1")


def test_folders_that_macos_adds_are_no_cases(brats18):
    (brats18 / "__MACOSX" / "HGG" / "Brats18_TCIA01_131_1").mkdir(parents=True)
    (brats18 / "__MACOSX" / "HGG" / "Brats18_TCIA01_131_1" / "._Brats18_TCIA01_131_1_t1.nii.gz").write_bytes(b"")
    assert len(read(brats18).records) == 4


def test_a_link_to_another_disk_is_followed(brats18, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (brats18 / "LGG").rename(tmp_path / "elsewhere" / "LGG")
    (brats18 / "LGG").symlink_to(tmp_path / "elsewhere" / "LGG")
    assert Counter(record["grade"] for record in read(brats18).records) == {"HGG": 2, "LGG": 2}


# --- bad folders -------------------------------------------------------------------------------------------------


def test_bad_roots_are_named(brats18, tmp_path):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "nowhere", brats18 / "survival_data.csv", tmp_path / "empty"):
        with pytest.raises(InputError, match="no folder named by a BraTS id or a TCGA barcode; give the unpacked"):
            read(root)


def test_a_cohort_without_any_usable_case_is_refused(tmp_path):
    write_case(tmp_path / "Brats18_CBICA_AAM_1", (*SEQUENCES, "odd"))
    message = r"no case can be used; the first, .*Brats18_CBICA_AAM_1: no segmentation \(missing: seg\)"
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_links_in_a_circle_are_refused(brats18):
    (brats18 / "HGG" / "again").symlink_to(brats18)
    with pytest.raises(InputError, match=r"HGG.again: a link back to .*Training, which holds it; remove the link"):
        read(brats18)
    (brats18 / "HGG" / "again").unlink()
    (brats18 / "HGG" / "itself").symlink_to(brats18 / "HGG" / "itself")
    with pytest.raises(InputError, match=r"itself: cannot be read \(Too many levels of symbolic links\)"):
        read(brats18)


def test_a_case_twice_is_refused(brats18):
    write_case(brats18 / "copy" / "brats18_tcia01_131_1", BRATS)
    with pytest.raises(InputError, match="case 'brats18_tcia01_131_1' is also at .*Brats18_TCIA01_131_1; keep one"):
        read(brats18)


def test_a_person_twice_is_refused(brats18, tables):
    write_case(brats18 / "BraTS19_TCIA01_131_1", BRATS)
    assert len(read(brats18).records) == 5  # without the mapping nobody can tell
    message = "cases 'BraTS19_TCIA01_131_1' and 'Brats18_TCIA01_131_1' are one person, TCGA-02-0001; keep one"
    with pytest.raises(InputError, match=message):
        read(brats18, **tables)


@pytest.mark.parametrize("modalities", ["t1gd", ["flair", "seg"], []])
def test_unknown_modalities_are_refused(brats18, modalities):
    with pytest.raises(InputError, match=r"modalities \[.*\]: use one or more of t1, t1ce, t2, flair"):
        read(brats18, modalities=modalities)


# --- the name mapping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (HEADER.replace("Grade", "grade"), ROWS[0], r"name_mapping\.csv: no column 'Grade'; rename 'grade'"),
        (HEADER.replace("TCGA_TCIA_subject_ID", "TCGA"), ROWS[0], "no column 'TCGA_TCIA_subject_ID'"),
        ("Grade,a,b,TCGA_TCIA_subject_ID,c", ROWS[1], "no column 'BraTS_2018_subject_ID' or of another year"),
        (HEADER, "II,NA,Brats18_2013_1_1,NA,NA", "row 3, column 'Grade': unknown code 'II'; use one of hgg, gbm, lgg"),
        (HEADER, "LGG,NA,Brats18_2013_1_1,TCGA-1,NA", "row 3, column 'TCGA_TCIA_subject_ID': 'TCGA-1' is no TCGA"),
        (
            HEADER,
            "LGG,NA,BRATS18_TCIA01_131_1,NA,NA",
            "row 3: 'BRATS18_TCIA01_131_1' is in an earlier row or column too; keep one",
        ),
        (HEADER, "LGG,NA,Brats18_2013_1_1,TCGA-02-0001,NA", "row 3: 'TCGA-02-0001' is in an earlier row or column too"),
        (HEADER, "LGG,NA,NA", "row 3 has 3 cells, the header 5"),
        (HEADER.replace(",", "|"), ROWS[0], "no column 'Grade', the header is one cell .*; separate the columns by"),
    ],
)
def test_bad_mappings_are_named(tmp_path, header, row, message):
    with pytest.raises(InputError, match=message):
        join(write_mapping(tmp_path, ROWS[0], row, header=header))


def test_unknown_ids_join_nothing(tmp_path):
    path = write_mapping(tmp_path)
    clinical = write_clinical(tmp_path, f"{CBIOPORTAL}NA\tNA\t50\tMALE\nTCGA-02-0001\tx\tNA\tFEMALE\n")
    rows = join(path, clinical)
    assert [row["sex"] for row in rows] == ["female", None, None, None, None, None]
    assert rows[0] == {
        "ids": {
            "BraTS_2017_subject_ID": "Brats17_TCIA_131_1",
            "BraTS_2018_subject_ID": "Brats18_TCIA01_131_1",
            "BraTS_2019_subject_ID": "BraTS19_TCIA01_131_1",
        },
        "barcode": "TCGA-02-0001",
        "grade": "HGG",
        "sex": "female",
        "age": None,
        "disagreements": (),
    }
    assert rows[4]["ids"] == {"BraTS_2019_subject_ID": "BraTS19_CBICA_ANV_1"}


def test_the_mapping_of_another_year_is_refused(tmp_path, tables):
    write_case(tmp_path / "BraTS20_Training_001", BRATS)
    with pytest.raises(InputError, match="no row for 'BraTS20_Training_001' or any other case; give the mapping that"):
        read(tmp_path, **tables)


def test_clinical_tables_need_a_barcode(brats18, tables):
    with pytest.raises(InputError, match="clinical: 'Brats18_CBICA_AAB_1' and all other cases .*; give --name_mapping"):
        read(brats18, clinical=tables["clinical"])


def test_a_grade_on_which_the_sources_disagree_is_unknown(brats18, tables, tmp_path):
    tables["name_mapping"] = write_mapping(tmp_path, ROWS[0].replace("HGG", "LGG"), *ROWS[1:])
    reading = read(brats18, **tables)
    assert by_case(reading)["Brats18_TCIA01_131_1"]["grade"] is None
    (item,) = reading.left_out
    assert (item.reason, item.subject) == (DISAGREE["grade"], "TCGA-02-0001")
    assert item.detail == f"HGG by the folder; LGG in {tables['name_mapping']}"
    assert reading.remarks[-1] == f"{DISAGREE['grade']} of TCGA-02-0001: kept as cases of unknown grade"


# --- clinical tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient ID\tDiagnosis Age\tPerson Gender\nTCGA-02-0001\t61\tMALE\n", ("male", 61)),
        ("Study ID\tPatient ID\tSex\tDiagnosis Age\ntcga\tTCGA-02-0001\tFemale\t61.0\n", ("female", 61)),
        ("Case_ID,Gender,Age_at_diagnosis\nTCGA-02-0001,Male,51 years 108 days\n", ("male", 51)),
        ("Case_ID,Gender,Age_at_diagnosis\nTCGA-02-0001,Male,67 years\n", ("male", 67)),
        ("Case_ID,Gender,Age_at_diagnosis\nTCGA-02-0001,--,--\n", (None, None)),
        # 22280 / 365.25 = 60.9986 years, 22281 / 365.25 = 61.002
        ("case_id\tcase_submitter_id\tgender\tage_at_diagnosis\n7f3c\tTCGA-02-0001\tmale\t22280\n", ("male", 60)),
        ("submitter_id,gender,age_at_diagnosis\nTCGA-02-0001,female,22281\n", ("female", 61)),
        ("bcr_patient_barcode,gender,age_at_index\nTCGA-02-0001,FEMALE,61\n", ("female", 61)),
        ("case_submitter_id,gender,age_at_index,age_at_diagnosis\nTCGA-02-0001,male,61,22281\n", ("male", 61)),
        (
            "cases.submitter_id\tdemographic.gender\tdiagnoses.age_at_diagnosis\nTCGA-02-0001\tmale\t22281\n",
            ("male", 61),
        ),
        ("case_submitter_id\tgender\tage_at_index\nTCGA-02-0001\t'--\t'--\n", (None, None)),
        ("case_submitter_id,gender\nTCGA-02-0001,not reported\n", (None, None)),
        ("case_submitter_id,gender\ntcga-02-0001-01A,Male\n", ("male", None)),
        ("Patient ID,Sex,Diagnosis Age\nTCGA-02-0001-01,Male,NA\nTCGA-02-0001-02,NA,61\n", ("male", 61)),
        ("Patient ID,Sex\r\nTCGA-02-0009,Male\r\nother study,9\r\n", (None, None)),
    ],
)
def test_spellings_of_clinical_tables(tmp_path, text, expected):
    row = join(write_mapping(tmp_path), [write_clinical(tmp_path, text)])[0]
    assert (row["sex"], row["age"]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,Sex\nTCGA-02-0001,Male\n", r"clinical\.tsv: no column 'Patient ID' or .*; rename .*, there are ID, Sex"),
        ("Patient ID,Sexe\nTCGA-02-0001,Male\n", "no column 'Sex' or 'Person Gender' or"),
        ("Patient ID,Sex,Sex\nTCGA-02-0001,Male,Male\n", "two columns 'Sex'; rename or remove one"),
        ("Patient ID,Sex\nBrats18_2013_0_1,Male\n", "column 'Patient ID' holds no TCGA barcode; give a clinical table"),
        (
            "Patient ID,Sex\nTCGA-02-0001,1\n",
            "patient 'TCGA-02-0001', column 'Sex': unknown code '1'; use one of female",
        ),
        ("Patient ID,Sex,Diagnosis Age\nTCGA-02-0001,Male,old\n", "column 'Diagnosis Age': 'old' is no number"),
        ("Patient ID,Sex,Diagnosis Age\nTCGA-02-0001,Male,22281\n", "column 'Diagnosis Age': 22281 is no age in years"),
        ("Patient ID,Sex,Diagnosis Age\nTCGA-02-0001,Male,-3\n", "column 'Diagnosis Age': -3 is no age in years"),
        ("submitter_id,gender,age_at_diagnosis\nTCGA-02-0001,male,61\n", "'age_at_diagnosis': 61 is no age in days"),
        ("Patient ID,Sex\n", "a header and no rows"),
        ("", "the table is empty"),
    ],
)
def test_bad_clinical_tables_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        join(write_mapping(tmp_path), write_clinical(tmp_path, text))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: no such file; correct the path"):
        join(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"gone\.tsv: no such file; correct the path"):
        join(write_mapping(tmp_path), [tmp_path / "gone.tsv"])


CELLS = st.sampled_from(["Male", "FEMALE", "NA", "[Not Available]", "male", "female", ""])
PEOPLE = st.lists(st.tuples(st.integers(1, 6), CELLS), min_size=1, max_size=12)
NUMBERS = st.lists(st.one_of(st.none(), st.integers(1, 6)), min_size=1, max_size=8, unique_by=lambda n: n or object())


@given(NUMBERS, PEOPLE)
def test_the_join_keeps_every_row_and_gives_what_all_rows_of_a_person_say(tmp_path_factory, numbers, people):
    folder = tmp_path_factory.mktemp("join")
    barcodes = ["NA" if number is None else f"TCGA-02-000{number}" for number in numbers]
    mapping = write_mapping(folder, *(f"HGG,NA,Brats18_TCIA01_{i}_1,{code},NA" for i, code in enumerate(barcodes)))
    lines = "".join(f"TCGA-02-000{number}\tx\t50\t{cell}\n" for number, cell in people)
    rows = join(mapping, write_clinical(folder, f"{CBIOPORTAL}NA\tx\t50\tMale\n{lines}"))
    assert [row["ids"]["BraTS_2018_subject_ID"] for row in rows] == [
        f"Brats18_TCIA01_{i}_1" for i in range(len(numbers))
    ]
    for number, row in zip(numbers, rows):
        said = {cell.lower() for who, cell in people if who == number and cell.lower() in ("male", "female")}
        assert row["sex"] == (said.pop() if len(said) == 1 else None)
        assert [fact for fact, _ in row["disagreements"]] == (["sex"] if len(said) == 2 else [])


@pytest.mark.parametrize("within_one_table", [True, False])
def test_a_sex_on_which_the_tables_disagree_is_unknown(brats18, tables, tmp_path, within_one_table):
    gbm, gdc = tables["clinical"]
    other = gbm if within_one_table else write_clinical(tmp_path, CBIOPORTAL, "second.tsv")
    other.write_text(other.read_text() + "TCGA-02-0001\tTCGA-02-0001-02\t61\tFEMALE\n")
    tables["clinical"] = [gbm, gdc] if within_one_table else [gbm, gdc, other]
    reading = read(brats18, **tables)
    case = by_case(reading)["Brats18_TCIA01_131_1"]
    assert (case["sex"], case["age"], len(reading.records)) == (None, 61, 4)
    (item,) = reading.left_out
    assert (item.reason, item.subject) == ("the clinical tables disagree on the sex", "TCGA-02-0001")
    assert item.detail == f"male in {gbm}; female in {other}"
    assert reading.remarks[-1] == (
        "the clinical tables disagree on the sex of TCGA-02-0001: kept as cases of unknown sex"
    )
    assert "cases with a barcode and no known sex: 1" in reading.remarks


@pytest.mark.parametrize(("other", "expected"), [(63, 61), (59, 61), (64, None)])
def test_ages_may_differ_by_two_years(brats18, tables, tmp_path, other, expected):
    second = write_clinical(tmp_path, f"{CBIOPORTAL}TCGA-02-0001\tx\t{other}\tMALE\n", "second.tsv")
    tables["clinical"].append(second)
    reading = read(brats18, **tables)
    case = by_case(reading)["Brats18_TCIA01_131_1"]
    assert (case["age"], case["sex"]) == (expected, "male")
    assert [item.reason for item in reading.left_out] == ([] if expected else [DISAGREE["age"]])


# --- the real tables ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(test_data):
    """The real mapping, and the real clinical tables by a short name."""
    names = {"gbm": "gbm_tcga_clinical_data.tsv", "lgg": "lgg_tcga_clinical_data.tsv"}
    names["gdc"] = "TCGA_GBM_LGG_Mutations_all.csv"
    folder = test_data / "brats18"
    return folder / "name_mapping.csv", {name: folder / file for name, file in names.items()}


def of_2018(rows):
    return [row for row in rows if "BraTS_2018_subject_ID" in row["ids"]]


# Male and female, in HGG and in LGG: 62 + 27 = 89 and 38 + 38 = 76, in all 165;
# with GBM and GDC 62 + 26 = 88 and 38 + 35 = 73, in all 161.
@pytest.mark.parametrize(
    ("names", "total", "hgg", "lgg"),
    [
        (("gbm", "lgg", "gdc"), 165, (62, 38), (27, 38)),
        (("gbm", "lgg"), 165, (62, 38), (27, 38)),
        (("gbm", "gdc"), 161, (62, 38), (26, 35)),
        (("gbm",), 100, (62, 38), (0, 0)),
        (("lgg",), 65, (0, 0), (27, 38)),
        (("gdc",), 113, (31, 21), (26, 35)),
        ((), 0, (0, 0), (0, 0)),
    ],
)
def test_real_counts(real, names, total, hgg, lgg):
    mapping, clinical = real
    rows = of_2018(join(mapping, [clinical[name] for name in names]))
    assert len(rows) == 285
    assert Counter(row["grade"] for row in rows) == {"HGG": 210, "LGG": 75}
    assert Counter(row["grade"] for row in rows if row["barcode"]) == {"HGG": 102, "LGG": 65}  # 167
    found = Counter((row["grade"], row["sex"]) for row in rows)
    assert (found["HGG", "male"], found["HGG", "female"]) == hgg
    assert (found["LGG", "male"], found["LGG", "female"]) == lgg
    assert sum(row["sex"] is not None for row in rows) == total == sum(hgg) + sum(lgg)
    assert not any(row["disagreements"] for row in rows)


def test_the_order_of_the_real_tables_does_not_matter(real):
    mapping, clinical = real
    orders = itertools.permutations(clinical.values())
    sexes = [[(row["barcode"], row["sex"]) for row in join(mapping, order)] for order in orders]
    assert len(sexes[0]) == 335
    assert all(one == sexes[0] for one in sexes)


def test_real_people(real):
    mapping, clinical = real
    rows = of_2018(join(mapping, list(clinical.values())))
    people = {row["barcode"]: row for row in rows if row["barcode"]}
    assert len(people) == 167
    assert {barcode for barcode, row in people.items() if row["sex"] is None} == {"TCGA-08-0522", "TCGA-12-1601"}
    assert people["TCGA-02-0006"]["ids"]["BraTS_2018_subject_ID"] == "Brats18_TCIA01_425_1"
    assert people["TCGA-02-0006"]["sex"] == "female"


def test_the_real_mapping_on_folders_of_its_285_cases(real, tmp_path):
    mapping, clinical = real
    for row in of_2018(join(mapping)):
        case = row["ids"]["BraTS_2018_subject_ID"]
        folder = tmp_path / row["grade"] / case
        folder.mkdir(parents=True)
        for name in BRATS:
            (folder / f"{case}_{name}.nii.gz").touch()
    reading = read(tmp_path, mapping, list(clinical.values()))
    assert reading.left_out == []
    assert Counter(record["sex"] for record in reading.records) == {"male": 89, "female": 76, None: 120}
    assert len({record["subject"] for record in reading.records}) == 285
    assert Counter(record["site"] for record in reading.records if not record["barcode"]) == {"CBICA": 88, "2013": 30}
    assert reading.remarks == [
        "165 of 285 cases have a sex: 89 male, 76 female; only patients of TCGA can have one, "
        "so it is tied to their sites and scanners",
        "men among the cases of known sex, by grade: HGG 62 of 100 (62%); LGG 27 of 65 (42%); "
        "where these differ, sex tells of the grade",
        "cases without a TCGA barcode, so without sex and age: 118; sites: 2013, CBICA",
        "cases with a barcode and no known sex: 2",
    ]
