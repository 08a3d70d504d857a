"""BraTS 2018, 2019 and 2020, and the TCGA part of them as TCIA gives it out, with the sex from TCGA's clinical tables.

Source: the BraTS challenge (Menze et al. 2015; Bakas et al. 2017, 2018), and TCIA's "Segmentation Labels and Radiomic
Features for the Pre-operative Scans" of TCGA-GBM and TCGA-LGG. Layouts, each file ``.nii.gz`` or ``.nii``::

    {HGG,LGG}/Brats18_TCIA01_131_1/Brats18_TCIA01_131_1_{t1,t1ce,t2,flair,seg}.nii.gz   2018; 2019 with BraTS19_
    BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz              the grade is in the mapping
    TCGA-02-0006/TCGA-02-0006_1996.08.23_{t1,t1Gd,t2,flair,GlistrBoost_ManuallyCorrected}.nii.gz

None of them holds a sex. ``name_mapping.csv`` of the 2019 and 2020 releases gives the TCGA barcode of a BraTS id, and
TCGA's clinical tables give the sex and age of a barcode. Who is not of TCGA has neither.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.cohorts.folders import walk
from bundle.cohorts.reading import LeftOut, Reading
from bundle.cohorts.record import Record
from bundle.cohorts.tables import age_band, coded, known, one_value, read_table
from bundle.cohorts.tcga_clinical import BARCODE_FORM, NOBODY, patient_of, people_of
from bundle.errors import InputError

MODALITIES = ("t1", "t1ce", "t2", "flair")
# The end of a file's name, in lower case, and what the file is.
FILES = {name: name for name in (*MODALITIES, "seg")} | {
    "t1gd": "t1ce",
    "glistrboost_manuallycorrected": "seg",
    "glistrboost": "automatic",
}
# One mask of the 2020 release was never renamed.
ODD_FILES = {("brats20_training_355", "w39_1998.09.19_segm"): "seg"}
# Glioblastoma (GBM), the name of a TCGA collection, is what BraTS calls high grade.
GRADES = {"hgg": "HGG", "gbm": "HGG", "lgg": "LGG"}

BARCODE = "TCGA_TCIA_subject_ID"
NO_ROW = "a row of the name mapping without a case folder"
# Why a case that is kept is listed nevertheless: one of its facts is not.
DISAGREE = {
    "sex": "the clinical tables disagree on the sex",
    "age": "the clinical tables disagree on the age",
    "grade": "the folder and the name mapping disagree on the grade",
}

_BRATS = re.compile(r"(brats\d\d)_([a-z0-9]+)_[\w-]+", re.IGNORECASE)
_DATE = r"(?:\d{4}[.-]\d\d[.-]\d\d_)?"
_VOLUME = re.compile(r"(.+)\.nii(?:\.gz)?", re.IGNORECASE)


def read(
    root: str | Path,
    name_mapping: str | Path | None = None,
    clinical: str | Path | Sequence[str | Path] = (),
    modalities: str | Sequence[str] = MODALITIES,
) -> Reading:
    """Read the cohort: one record per case, ordered by folder. No image is opened.

    ``subject`` is the TCGA barcode where it is known, which is the same in all years, else the BraTS id. A record also
    has ``case`` (the folder's name), ``barcode``, ``grade`` ("HGG", "LGG"), ``site`` (of TCIA folders TCGA's
    number of it), ``sex``, ``age`` (whole years) and ``age_band``, each None if unknown, a path for each modality, and
    ``seg``.

    Args:
        root: the folder with the case folders, or one above it.
        name_mapping: ``name_mapping.csv`` of the 2019 release, or for 2020 folders of that release; not needed for
            folders named by barcode.
        clinical: tables of TCGA patients, from cBioPortal or GDC.
        modalities: which of ``MODALITIES`` every case must have; the others are not looked at.

    Raises:
        InputError: a bad table or option, a folder that cannot be listed, a case or a person twice, nobody left.
    """
    asked = _modalities(modalities)
    mapping = [] if name_mapping is None else _mapping(Path(name_mapping))
    people = people_of(clinical)
    folders, left_out = _case_folders(Path(root))
    rows = _by_name(mapping)
    records = []
    for folder, names in folders.items():
        images, problems = _images(folder, names, asked)
        facts, conflicts = _facts(folder, rows, people, name_mapping)
        left_out += [LeftOut(item.reason, item.file, facts["subject"], item.detail) for item in problems]
        if images:
            records.append(facts | images)
            left_out += conflicts
    _check_people(Path(root), records, left_out)
    _check_tables(records, name_mapping, rows, bool(people))
    left_out += _rows_without_folder(mapping, folders, name_mapping)
    return Reading(records, left_out, [*_remarks(records, rows), *_conflict_remarks(left_out)])


def join(name_mapping: str | Path, clinical: str | Path | Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """The name mapping's rows with what the clinical tables know of the person; needs no image.

    Returns:
        one dictionary per row: ``ids`` (column, such as "BraTS_2018_subject_ID", to the id; without unknown ones),
        ``barcode``, ``grade``, ``sex``, ``age`` (None if unknown), and ``disagreements`` of the tables, pairs of a fact
        ("sex", "age") and who says what.

    Raises:
        InputError: for a bad table, or two rows with one id or barcode.
    """
    people = people_of(clinical)
    return [row | people.get(row["barcode"], NOBODY) for row in _mapping(Path(name_mapping))]


# --- tables ------------------------------------------------------------------------------------------------------


def _mapping(path: Path) -> list[dict[str, Any]]:
    """Rows of the name mapping: ids by column, oldest year first, barcode and grade."""
    table = read_table(path, ("Grade", BARCODE))
    columns = sorted(name for name in table[0] if re.fullmatch(r"BraTS_20\d\d_subject_ID", name))
    if not columns:
        raise InputError(f"{path}: no column 'BraTS_2018_subject_ID' or of another year; take the table as published")
    seen: set[str] = set()
    rows = []
    for line, row in enumerate(table, 2):
        ids = {name: row[name] for name in columns if known(row[name]) is not None}
        barcode = patient_of(row[BARCODE])
        if barcode is None and known(row[BARCODE]) is not None:
            raise InputError(
                f"{path}: row {line}, column '{BARCODE}': '{row[BARCODE]}' is no TCGA barcode; correct it or write NA"
            )
        for name in (*ids.values(), *([barcode] if barcode else [])):
            if name.lower() in seen:
                raise InputError(f"{path}: row {line}: '{name}' is in an earlier row or column too; keep one")
            seen.add(name.lower())
        grade = coded(row["Grade"], GRADES, f"{path}: row {line}, column 'Grade'")
        rows.append({"ids": ids, "barcode": barcode, "grade": grade})
    return rows


def _by_name(mapping: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rows of the name mapping by each of their ids, in lower case, and by barcode; unknown ids join nothing."""
    rows = {}
    for row in mapping:
        rows |= dict.fromkeys((name.lower() for name in row["ids"].values()), row)
        if row["barcode"] is not None:
            rows[row["barcode"]] = row
    return rows


# --- folders -----------------------------------------------------------------------------------------------------


def _modalities(asked: str | Sequence[str]) -> tuple[str, ...]:
    asked = (asked,) if isinstance(asked, str) else tuple(asked)
    unknown = [name for name in asked if name not in MODALITIES]
    if unknown or not asked:
        raise InputError(f"--modalities {list(asked)}: use one or more of {', '.join(MODALITIES)}")
    return asked


def _case_folders(root: Path) -> tuple[dict[Path, list[str]], list[LeftOut]]:
    """Case folders with the names of their volumes, and volumes that lie elsewhere."""
    folders: dict[Path, list[str]] = {}
    places: dict[str, Path] = {}
    strays: list[LeftOut] = []
    for place, names, inner in walk(root):
        folder = Path(place)
        # What macOS adds to archives holds no image, but repeats the names of the folders.
        if "__MACOSX" in folder.relative_to(root).parts:
            continue
        volumes = [name for name in names if _VOLUME.fullmatch(name)]
        if not _is_case(folder.name):
            reason = "not in a folder named by a BraTS id or a TCGA barcode"
            strays += [LeftOut(reason, str(folder / name)) for name in volumes]
        elif volumes or not inner:
            first = places.setdefault(folder.name.lower(), folder)
            if first != folder:
                raise InputError(f"{folder}: case '{folder.name}' is also at {first}; keep one of the folders")
            folders[folder] = volumes
    if not folders:
        raise InputError(f"{root}: no folder named by a BraTS id or a TCGA barcode; give the unpacked training folder")
    return folders, strays


def _is_case(name: str) -> bool:
    return bool(_BRATS.fullmatch(name) or BARCODE_FORM.fullmatch(name.upper()))


def _images(folder: Path, names: Sequence[str], asked: Sequence[str]) -> tuple[dict[str, Path], list[LeftOut]]:
    """The images of a case, empty where one is missing or there are two, and what is not among them."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name in names:
        found[_kind(folder.name, name)].append(folder / name)
    unused = [LeftOut("neither a sequence nor a segmentation by its name", str(path)) for path in found.pop("", [])]
    automatic = found.pop("automatic", [])
    if found["seg"]:
        unused += [LeftOut("the manually corrected segmentation is used instead", str(path)) for path in automatic]
    else:
        found["seg"] = automatic
    wanted = (*asked, "seg")
    missing = [name for name in wanted if not found[name]]
    twice = [path.name for name in wanted if len(found[name]) > 1 for path in found[name]]
    if missing:
        reason = "no segmentation" if missing == ["seg"] else f"no {missing[0]}"
        return {}, [*unused, LeftOut(reason, str(folder), detail=f"missing: {', '.join(missing)}")]
    if twice:
        return {}, [*unused, LeftOut("two files for one image", str(folder), detail=", ".join(twice))]
    return {name: found[name][0] for name in wanted}, unused


def _kind(case: str, name: str) -> str:
    """What a volume is, by its name: a value of ``FILES``, or "" for a name that says nothing or another case."""
    case, stem = case.lower(), _VOLUME.fullmatch(name)[1].lower()
    match = re.fullmatch(rf"{re.escape(case)}_{_DATE}({'|'.join(FILES)})", stem)
    return FILES[match[1]] if match else ODD_FILES.get((case, stem), "")


# --- facts and checks --------------------------------------------------------------------------------------------


def _facts(
    folder: Path, rows: Mapping[str, Mapping], people: Mapping[str, Mapping], name_mapping: str | Path | None
) -> tuple[Record, list[LeftOut]]:
    """What is known of a case without its images, and what its sources disagree on."""
    case = folder.name
    row = rows.get(patient_of(case) or case.lower(), {"ids": {}, "barcode": None, "grade": None})
    barcode = patient_of(case) or row["barcode"]
    person = people.get(barcode, NOBODY)
    grade, grades_differ = one_value((_grade(folder), row["grade"]))
    disagreements = list(person["disagreements"])
    if grades_differ:
        disagreements.append(("grade", f"{_grade(folder)} by the folder; {row['grade']} in {name_mapping}"))
    facts = {
        "subject": barcode or case,
        "case": case,
        "barcode": barcode,
        "grade": grade,
        "site": _site(case, row["ids"]),
        "sex": person["sex"],
        "age": person["age"],
        "age_band": age_band(person["age"]),
    }
    return facts, [LeftOut(DISAGREE[fact], str(folder), barcode or case, detail) for fact, detail in disagreements]


def _grade(folder: Path) -> str | None:
    """The grade that the name of the folder above says: ``HGG``, or ``..._TCGA_GBM_...``."""
    words = re.split(r"[^a-z]+", Path(os.path.abspath(folder)).parent.name.lower())
    grade, _ = one_value(GRADES.get(word) for word in words)
    return grade


def _site(case: str, ids: Mapping[str, str]) -> str | None:
    """The middle of the case's name; of an older id where the new one has none (``BraTS20_Training_001``)."""
    if patient_of(case):
        return case.split("-")[1].upper()
    for name in (case, *reversed(ids.values())):
        match = _BRATS.fullmatch(name)
        if match and match[2].lower() not in ("training", "validation", "testing"):
            return match[2]
    return None


def _check_people(root: Path, records: Sequence[Record], left_out: Sequence[LeftOut]) -> None:
    """Refuse a cohort without cases, and one with a person twice."""
    if not records:
        first = next(item for item in left_out if item.detail)  # a case; single files have no detail
        raise InputError(f"{root}: no case can be used; the first, {first.file}: {first.reason} ({first.detail})")
    seen: dict[str, str] = {}
    for record in records:
        other = seen.setdefault(record["subject"], record["case"])
        if other != record["case"]:
            raise InputError(
                f"{root}: cases '{other}' and '{record['case']}' are one person, {record['subject']}; "
                "keep one of the folders, or read one year at a time"
            )


def _check_tables(
    records: Sequence[Record], name_mapping: str | Path | None, rows: Mapping[str, Mapping], has_people: bool
) -> None:
    """Refuse tables that have nothing to do with the cases."""
    unnamed = [record for record in records if patient_of(record["case"]) is None]
    if name_mapping is not None and unnamed and not any(_has_row(record, rows) for record in unnamed):
        raise InputError(
            f"{name_mapping}: no row for '{unnamed[0]['case']}' or any other case; give the mapping that has their year"
        )
    if has_people and name_mapping is None and len(unnamed) == len(records):
        raise InputError(
            f"--clinical: '{unnamed[0]['case']}' and all other cases have no TCGA barcode; give --name_mapping too"
        )


def _has_row(record: Record, rows: Mapping[str, Mapping]) -> bool:
    return record["case"].lower() in rows or record["barcode"] in rows


def _rows_without_folder(
    mapping: Iterable[Mapping], folders: Iterable[Path], name_mapping: str | Path | None
) -> list[LeftOut]:
    """Rows of the name mapping with an id of a year that is here, whose folder is not."""
    names = {folder.name.lower() for folder in folders}
    years = {match[1].lower() for folder in folders if (match := _BRATS.fullmatch(folder.name))}
    absent = (
        (row, name)
        for row in mapping
        for name in row["ids"].values()
        if name.lower() not in names and name.lower().startswith(tuple(f"{year}_" for year in years))
    )
    return [LeftOut(NO_ROW, str(name_mapping), row["barcode"] or name, name) for row, name in absent]


# --- remarks -----------------------------------------------------------------------------------------------------


def _remarks(records: Sequence[Record], rows: Mapping[str, Mapping]) -> Iterator[str]:
    """What a user must know of the facts that were joined."""
    sexes = Counter(record["sex"] for record in records)
    yield (
        f"{len(records) - sexes[None]} of {len(records)} cases have a sex: {sexes['male']} male, "
        f"{sexes['female']} female; only patients of TCGA can have one, so it is tied to their sites and scanners"
    )
    shares = "; ".join(_shares(records))
    if shares:
        yield f"men among the cases of known sex, by grade: {shares}; where these differ, sex tells of the grade"
    strangers = sorted({record["site"] or "unknown" for record in records if record["barcode"] is None})
    if strangers:
        count = sum(record["barcode"] is None for record in records)
        yield f"cases without a TCGA barcode, so without sex and age: {count}; sites: {', '.join(strangers)}"
    for count, text in (
        (sum(r["barcode"] is not None and r["sex"] is None for r in records), "with a barcode and no known sex"),
        (sum(r["grade"] is None for r in records), "without a known grade"),
        (sum(not _has_row(r, rows) for r in records) if rows else 0, "without a row in the name mapping"),
        (sum(_is_automatic(r["seg"]) for r in records), "with a segmentation that nobody corrected"),
    ):
        if count:
            yield f"cases {text}: {count}"


def _shares(records: Sequence[Record]) -> Iterator[str]:
    counts = Counter((record["grade"], record["sex"]) for record in records)
    for grade in dict.fromkeys(GRADES.values()):
        men, people = counts[grade, "male"], counts[grade, "male"] + counts[grade, "female"]
        if people:
            yield f"{grade} {men} of {people} ({men / people:.0%})"


def _is_automatic(path: Path) -> bool:
    return _VOLUME.fullmatch(path.name)[1].lower().endswith("glistrboost")


def _conflict_remarks(left_out: Sequence[LeftOut]) -> Iterator[str]:
    for fact, reason in DISAGREE.items():
        people = [item.subject for item in left_out if item.reason == reason]
        if people:
            yield f"{reason} of {', '.join(people)}: kept as cases of unknown {fact}"
