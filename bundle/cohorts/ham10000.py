"""HAM10000: dermoscopy pictures of pigmented skin lesions (Tschandl, Rosendahl, Kittler; Scientific Data 5, 2018).

Layout (Harvard Dataverse, doi 10.7910/DVN/DBW86T): ``HAM10000_metadata`` (``.csv``, ``.tab`` or no ending; commas or
tabs; seven columns, or eight with ``dataset``) beside the folders ``HAM10000_images_part_1`` and ``..._part_2`` with
``ISIC_*.jpg``; copies have one folder ``HAM10000_images``, or the pictures beside the table.

FairDiffusion's ``new_train.csv`` and ``new_test.csv`` are read by position, their pickled pictures never.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.cohorts.folders import file_names
from bundle.cohorts.reading import LeftOut, Reading, leave_unknown, with_several
from bundle.cohorts.record import Record
from bundle.cohorts.tables import (
    SEX,
    age_band,
    cells_by_position,
    coded,
    known,
    number,
    one_value,
    paths,
    read_table,
    split_of,
    years,
)
from bundle.errors import InputError

SIZE = 10_015  # rows of the published table
TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images", ".")
DX = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("akiec", "bcc", "mel")

# FairDiffusion's tables: what stands where, counted from 0, and their codes. Other data sets number otherwise.
POSITIONS = {"path": 9, "age_band": 11, "sex": 12, "condition": 13}
AGE_FLAGS = {"0": "under 60", "1": "60 and over"}
LABELS = {"0": "benign", "1": "malignant"}
PICKLES = (".pkl", ".pickle", ".pck", ".p")

MODALITY = "dermoscopy image of a skin lesion"


def read(
    root: str | Path,
    malignant: Sequence[str] = MALIGNANT,
    table: str | Path | Sequence[str | Path] | None = None,
) -> Reading:
    """Read the cohort: one record per picture, in the table's order.

    Args:
        root: the folder that holds the official table and the pictures.
        malignant: the diagnoses (of ``DX``) whose ``condition`` is malignant; all others are benign.
        table: FairDiffusion's table or tables, which then choose the pictures and give ``split``, ``condition``, sex
            and age class; the official table in ``root`` still says which lesion a picture shows.

    Returns:
        records with ``subject`` (the lesion), ``image``, ``image_id``, ``sex``, ``age`` (years), ``age_band``, ``dx``,
        ``dx_type``, ``localization``, ``condition``, ``caption`` and ``stated``.

    Raises:
        InputError: for a missing table or column, an unknown code, a pickle, or when no picture is there.
    """
    root = Path(root)
    official = read_metadata(_find_table(root), malignant)
    chosen = official if table is None else _as_in_the_paper(official, table)
    pictures, left_out = _list_pictures(root)
    records = []
    for row in chosen.records:
        image = pictures.pop(row["image_id"], None)
        if image is None:
            left_out.append(LeftOut("no picture for this row", row["image_id"], row["subject"]))
        else:
            records.append(row | {"image": image, "caption": caption(row), "stated": stated(row)})
    if not records:
        raise InputError(f"{root}: no picture of the table's {len(chosen.records)}; unpack {' and '.join(FOLDERS[:2])}")
    known_ids = {row["image_id"] for row in official.records}
    left_out += [
        LeftOut("a picture without a row in the official table", str(path.relative_to(root)))
        for name, path in pictures.items()
        if name not in known_ids
    ]
    return Reading(records, chosen.left_out + left_out, chosen.remarks + _remarks_on_groups(records))


def read_metadata(path: str | Path, malignant: Sequence[str] = MALIGNANT) -> Reading:
    """Read the official table alone: records as :func:`read` gives them, without pictures and captions.

    Args:
        malignant: the diagnoses whose ``condition`` is malignant.

    Raises:
        InputError: for a missing column, an unknown code, or two rows for one picture.
    """
    path = Path(path)
    codes = _check_codes(malignant)
    rows = read_table(path, COLUMNS)
    records = [_record(row, f"{path}: image '{row['image_id']}'", codes) for row in rows]
    _check_ids(path, records)
    remarks = ["the table has no patient: the subject is the lesion, and a person with two lesions is two subjects"]
    if len(rows) != SIZE:
        remarks.append(f"{len(rows):,} rows, {SIZE:,} were published: an altered or partial copy")
    zeros = sum(number(row["age"], "") == 0 for row in rows)
    if zeros:
        remarks.append(f"rows of age 0, which may mean unknown or an infant, taken as unknown: {zeros:,}")
    return Reading(records, remarks=remarks + _settle_sex(records))


def caption(row: Mapping) -> str:
    """Caption of a picture that names no attribute of the person."""
    return f"{MODALITY}, {row['condition']}"


def stated(row: Mapping) -> str:
    """The caption with sex and age class in FairDiffusion's order; an unknown one is not named.

    That paper's order is kept: modality, sex, age class, condition. The words are this bundle's own.
    """
    return ", ".join(filter(None, (MODALITY, row["sex"], row["age_band"], row["condition"])))


# --- the official table ------------------------------------------------------------------------------------------


def _find_table(root: Path) -> Path:
    if root.is_file():
        _refuse_pickle(root)
        raise InputError(f"{root}: a file; give the folder that holds {TABLES[0]} and the pictures")
    found = [root / name for name in TABLES if (root / name).is_file()]
    if found:
        return found[0]
    for name in file_names(root):
        _refuse_pickle(root / name)
    raise InputError(f"{root}: no table {TABLES[0]}; give the folder that holds it and the pictures")


def _refuse_pickle(path: Path) -> None:
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path}: pickles can run code and are never loaded; "
            f"use the official jpg files beside {TABLES[0]}, and 'table' for new_train.csv and new_test.csv"
        )


def _check_codes(malignant: Sequence[str]) -> tuple[str, ...]:
    codes = (malignant,) if isinstance(malignant, str) else tuple(malignant)
    wrong = [code for code in codes if code not in DX]
    if wrong or not codes:
        raise InputError(f"--malignant: unknown code '{(*wrong, '')[0]}'; use some of {', '.join(DX)}")
    return codes


def _record(row: Mapping[str, str], where: str, malignant: Sequence[str]) -> Record:
    dx = row["dx"].lower()
    if dx not in DX:
        raise InputError(
            f"{where}, column 'dx': unknown code '{row['dx']}'; the official table has {', '.join(DX)}, take that one"
        )
    if not row["lesion_id"]:
        raise InputError(f"{where}, column 'lesion_id': empty; take the official table, pictures are split by lesion")
    age = years(row["age"], f"{where}, column 'age'") or None  # 0 may mean unknown
    return {
        "subject": row["lesion_id"],
        "image_id": row["image_id"],
        "sex": coded(row["sex"], SEX, f"{where}, column 'sex'"),
        "age": age,
        "age_band": age_band(age),
        "dx": dx,
        "dx_type": (known(row["dx_type"]) or "").lower() or None,
        "localization": (known(row["localization"]) or "").lower() or None,
        "condition": "malignant" if dx in malignant else "benign",
    }


def _check_ids(path: Path, records: Sequence[Record]) -> None:
    for name, times in Counter(record["image_id"] for record in records).items():
        if times > 1:
            raise InputError(f"{path}: {times} rows for image '{name}'; keep one")
        if not name or re.search(r"[/\\]", name):
            raise InputError(f"{path}: column 'image_id': '{name}' is no name of a picture; take the official table")


def _settle_sex(records: Sequence[Record]) -> list[str]:
    unclear = leave_unknown(records, "sex")
    return [f"lesions with two sexes, left unknown: {len(unclear):,}, the first {unclear[0]}"] if unclear else []


# --- pictures ----------------------------------------------------------------------------------------------------


def _list_pictures(root: Path) -> tuple[dict[str, Path], list[LeftOut]]:
    """Pictures by id, and the files that are none; each folder is listed once."""
    pictures: dict[str, Path] = {}
    left_out = []
    for folder in FOLDERS:
        for name in file_names(root / folder):
            path = root / folder / name
            file = str(path.relative_to(root))
            if path.suffix.lower() in PICKLES:
                left_out.append(LeftOut("a pickle, which can run code", file))
            elif path.suffix.lower() not in (".jpg", ".jpeg"):
                if folder != ".":  # beside the table stand licences, tables and archives
                    left_out.append(LeftOut("not a jpg file", file))
            elif path.stem in pictures:
                left_out.append(LeftOut("a second file of the same picture", file))
            else:
                pictures[path.stem] = path
    return pictures, left_out


def _remarks_on_groups(records: Sequence[Record]) -> list[str]:
    unknown = [f"{name} {sum(record[name] is None for record in records)}" for name in ("sex", "age_band")]
    return [
        f"unknown among {len(records):,} pictures: {', '.join(unknown)}",
        f"{_shares(records, 'age_band', '60 and over')}: where these differ, age and sex are tied",
        f"{_shares(records, 'condition', 'malignant')}: a difference that a fair model should keep, not remove",
    ]


def _shares(records: Sequence[Record], column: str, value: str) -> str:
    parts = []
    for sex in ("female", "male"):
        values = [record[column] for record in records if record["sex"] == sex and record[column] is not None]
        if values:
            parts.append(f"{100 * values.count(value) / len(values):.1f} % of {len(values):,} {sex} pictures")
    return f"{value}: {' and '.join(parts) or 'no picture with a known sex'}"


# --- FairDiffusion's tables --------------------------------------------------------------------------------------


def _as_in_the_paper(official: Reading, table: str | Path | Sequence[str | Path]) -> Reading:
    """The pictures that FairDiffusion's tables list, with their split and labels."""
    rows = {row["image_id"]: row for row in official.records}
    found: dict[str, Record] = {}
    left_out = []
    for path in paths(table):
        _refuse_pickle(path)
        split = split_of(path, ("train", "test"), "call the tables new_train.csv and new_test.csv")
        for line, cells in enumerate(_cells(path), 2):
            name = re.split(r"[/\\]", cells[POSITIONS["path"]])[-1].rpartition(".")[0]
            where = f"{path}: row {line}"
            if name in found:
                raise InputError(f"{where}, column {POSITIONS['path']}: '{name}' is listed twice; keep one row")
            if name in rows:
                found[name] = rows[name] | {"split": split, "paper": _paper_labels(cells, where)}
            else:
                left_out.append(LeftOut("a row whose picture the official table does not list", name, detail=where))
    if not found:
        raise InputError(
            f"{table}: no row names a picture of the official table; give the two tables that belong to it"
        )
    left_out += [
        LeftOut("a row of the official table that the given tables leave out", name, row["subject"])
        for name, row in rows.items()
        if name not in found
    ]
    chosen = list(found.values())
    return Reading(chosen, left_out, official.remarks + _settle_labels(chosen) + _remarks_on_splits(chosen))


def _cells(path: Path) -> list[list[str]]:
    last = max(POSITIONS.values())
    remedy = f"give FairDiffusion's table, and leave 'table' out for {TABLES[0]}"
    header, *rows = cells_by_position(path, last + 1, remedy)
    if "ISIC_" in header[POSITIONS["path"]]:
        raise InputError(f"{path}: row 1 is no header; add one, or the first picture would be lost")
    return rows


def _paper_labels(cells: Sequence[str], where: str) -> dict[str, str | None]:
    codes = {"age_band": AGE_FLAGS, "sex": SEX, "condition": LABELS}
    labels = {
        name: coded(cells[POSITIONS[name]], words, f"{where}, column {POSITIONS[name]} ({name})")
        for name, words in codes.items()
    }
    if labels["condition"] is None:
        raise InputError(f"{where}, column {POSITIONS['condition']} (condition): empty; write 0 or 1")
    return labels


def _settle_labels(rows: Sequence[Record]) -> list[str]:
    """Lay the paper's labels over the official ones, in place; returns remarks on where they disagree.

    Sex and age class must agree, or they are left unknown. Which diagnoses the paper calls malignant is not published,
    so its own label counts.
    """
    counts: Counter[str] = Counter()
    for row in rows:
        paper = row.pop("paper")
        counts["with an age class here and no age in the official table"] += bool(paper["age_band"]) > bool(row["age"])
        counts["whose label, which counts, differs from --malignant"] += paper["condition"] != row["condition"]
        row["condition"] = paper["condition"]
        for name in ("sex", "age_band"):
            row[name], clash = one_value((row[name], paper[name]))
            counts[f"that contradict the official {name}, which is left unknown"] += clash
        if row["age_band"] is None:
            row["age"] = None
    return [f"rows of the given tables {fact}: {times:,}" for fact, times in counts.items() if times]


def _remarks_on_splits(rows: Sequence[Record]) -> list[str]:
    both = len(with_several(rows, "split"))
    return [f"lesions in train and in test of the given tables: {both:,}; split by lesion instead"] if both else []
