"""FairGenMed: 10,000 subjects with one SLO fundus picture each (Harvard Ophthalmology AI Lab, FairDiffusion).

Layout: ``train/``, ``val/`` and ``test/`` with ``data_NNNNN.npz`` (codes of the person, and large arrays that are never
read here) and ``slo_fundus_NNNNN.jpg`` beside it; ``data_summary.csv``, there or one level up, holds the conditions,
one row per npz file. What npz file and table say differently of a subject counts as unknown and is remarked on.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.cohorts import tables
from bundle.cohorts.folders import entries
from bundle.cohorts.reading import LeftOut, Reading
from bundle.cohorts.record import Record
from bundle.errors import InputError

TABLE = "data_summary.csv"
SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}


def _words(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _numbered(*names: str) -> dict[str, str]:
    """Codes 0, 1, ... in this order, and the words themselves."""
    return {str(code): name for code, name in enumerate(names)} | _words(*names)


# Fact -> the field of the npz or the column of the table that may hold it -> its codes and words; negative is unknown.
# A column that is no field of the npz has words alone, because the set documents no codes for it.
CODES: dict[str, dict[str, dict[str, str]]] = {
    "sex": {"male": _numbered("female", "male") | tables.SEX, "gender": tables.SEX, "sex": tables.SEX},
    "race": {
        "race": _numbered("asian", "black", "white")
        | {"black or african american": "black", "white or caucasian": "white"}
    },
    "ethnicity": {
        "hispanic": _numbered("non-hispanic", "hispanic"),
        "ethnicity": _words("non-hispanic", "hispanic"),
    },
    "language": {"language": _numbered("english", "spanish", "other")},
    "marital_status": {
        "maritalstatus": _numbered("married or partnered", "single", "divorced", "widowed", "legally separated")
    },
    "glaucoma": {
        "glaucoma": _numbered("non-glaucoma", "glaucoma") | {"no": "non-glaucoma", "yes": "glaucoma"},
    },
    "vision_loss": {"md_severity": _words("normal", "mild", "moderate", "severe")},
    "cup_disc_ratio": {"cdr_status": _words("normal", "borderline", "abnormal")},
    "refraction": {
        "se_status": _words("hyperopia", "emmetropia", "myopia"),
        # The sign of the spherical equivalent; the authors' reader knows this second naming.
        "near_vision_refraction_stage": _words("hyperopia", "emmetropia", "myopia")
        | {"positive": "hyperopia", "neutral": "emmetropia", "negative": "myopia"},
    },
}
PERSON = ("race", "sex", "ethnicity")  # what a stated prompt names, in this order; the groups that the paper reports
CONDITIONS = ("glaucoma", "vision_loss", "cup_disc_ratio", "refraction")  # what every prompt names, in this order
NEEDED = ("race", "male", "hispanic", "glaucoma")  # fields of the npz that a prompt is made of

_NEGATIVE = re.compile(r"-\d+(\.\d*)?")  # the authors' mark of an unknown value
_NPZ = re.compile(r"data_(\d+)\.npz", re.IGNORECASE)
_PICTURE = re.compile(r"slo_fundus_(\d+)\.jpe?g", re.IGNORECASE)
_FIELDS = (*dict.fromkeys(name for names in CODES.values() for name in names), "age")
_CAPITALS = {"asian": "Asian", "black": "Black", "white": "White"} | {
    "hispanic": "Hispanic",
    "non-hispanic": "non-Hispanic",
}


def read(root: str | Path) -> Reading:
    """Read the data set: one record per npz file that has its picture and its row, by split and number.

    Args:
        root: the folder that holds ``train``, ``val`` and perhaps ``test``.

    Returns:
        records with ``subject``, ``image``, ``split``, ``caption`` and ``stated``, the facts of ``CODES`` in words,
        ``age`` (years) and ``age_band``, each None if unknown.

    Raises:
        InputError: for a missing table, column or folder, an unknown code, a subject in two splits, an npz file with
            pickled objects in a field that is needed; and when nothing can be used.
    """
    root = Path(root)
    pairs, left_out = _pairs(_splits(root))
    table, rows = _read_rows(root)
    whole, lacking = _sort_out(pairs, rows, table)
    records, left_out, conflicts = [], left_out + lacking, []
    for pair, fields in zip(whole, _read_all([pair["npz"] for pair in whole]), strict=True):
        if isinstance(fields, LeftOut):
            left_out.append(fields)
            continue
        record, contradicted = _record(pair, fields, rows[pair["subject"]], table)
        records.append(record)
        conflicts += [(name, record["subject"]) for name in contradicted]
    if not records:
        reason = Reading([], left_out).reasons()[0][0]
        raise InputError(f"{root}: no subject can be used, most often: {reason}; unpack the whole archive there")
    return Reading(records, left_out, [*_unknown(records), *_contradictions(conflicts), *_smallest(records)])


def caption(record: Mapping[str, str | None]) -> str:
    """The prompt that names the known conditions, and no attribute of the person."""
    return _prompt(record, ())


def stated(record: Mapping[str, str | None]) -> str:
    """The paper's prompt: race, sex and ethnicity, then the conditions; what is unknown is not named.

    A blank stands before every word: groups are found by it, so that "Hispanic" is not found in "non-Hispanic".
    """
    return _prompt(record, PERSON)


def _prompt(record: Mapping[str, str | None], person: Sequence[str]) -> str:
    words = [_CAPITALS.get(record[name], record[name]) for name in person if record[name]]
    patient = " ".join([*words, "patient"])
    conditions = ", ".join(_condition(name, record[name]) for name in CONDITIONS if record[name])
    article = "an" if patient.startswith("Asian") else "a"
    return f"SLO fundus image of {article} {patient}{' with ' if conditions else ''}{conditions}"


def _condition(name: str, value: str) -> str:
    if name == "vision_loss":
        return "normal vision" if value == "normal" else f"{value} vision loss"
    return f"{value} cup-disc ratio" if name == "cup_disc_ratio" else value


# --- files -------------------------------------------------------------------------------------------------------


def _splits(root: Path) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for entry in entries(root):
        split = SPLITS.get(entry.name.lower())
        if split is None or not entry.is_dir():
            continue
        if split in folders:
            raise InputError(f"{root}: both {folders[split].name} and {entry.name} for the split '{split}'; keep one")
        folders[split] = root / entry.name
    for split in ("train", "val"):
        if split not in folders:
            raise InputError(f"{root}: no folder '{split}'; give the folder that holds train, val and perhaps test")
    return {split: folders[split] for split in ("train", "val", "test") if split in folders}


def _pairs(folders: Mapping[str, Path]) -> tuple[list[Record], list[LeftOut]]:
    """Every npz file with its picture, None where there is none, and the files that belong to no npz file."""
    pairs: dict[str, Record] = {}
    left_out = []
    for split, folder in folders.items():
        paths = [folder / entry.name for entry in entries(folder)]
        npz = {match[1]: path for path in paths if (match := _NPZ.fullmatch(path.name))}
        pictures = {match[1]: path for path in paths if (match := _PICTURE.fullmatch(path.name))}
        for number, path in npz.items():
            pair = {"subject": f"data_{number}", "split": split, "npz": path, "image": pictures.get(number)}
            first = pairs.setdefault(pair["subject"], pair)
            if first is not pair:
                raise InputError(f"{path}: subject '{pair['subject']}' is also in {first['npz'].parent}; keep one")
        lone = [path for number, path in pictures.items() if number not in npz]
        other = sorted(set(paths) - set(npz.values()) - set(pictures.values()))
        left_out += [LeftOut("a picture without its npz file", str(path)) for path in lone]
        left_out += [LeftOut("a file that is not of this layout", str(path)) for path in other]
    return list(pairs.values()), left_out


def _sort_out(
    pairs: Sequence[Record], rows: Mapping[str, tables.Row], table: Path
) -> tuple[list[Record], list[LeftOut]]:
    """The npz files that have a picture and a row, and the files and rows that lack something."""
    whole, left_out = [], []
    for pair in pairs:
        if pair["image"] is None:
            left_out.append(LeftOut("an npz file without its picture", str(pair["npz"]), pair["subject"]))
        elif pair["subject"] not in rows:
            left_out.append(LeftOut(f"an npz file without its row of {TABLE}", str(pair["npz"]), pair["subject"]))
        else:
            whole.append(pair)
    lone = sorted(rows.keys() - {pair["subject"] for pair in pairs})
    left_out += [LeftOut(f"a row of {TABLE} without its npz file", str(table), subject) for subject in lone]
    return whole, left_out


# --- table and npz -----------------------------------------------------------------------------------------------


def _read_rows(root: Path) -> tuple[Path, dict[str, tables.Row]]:
    """The table's path, and its rows by subject."""
    table = next((file for file in (root / TABLE, root.parent / TABLE) if file.is_file()), None)
    if table is None:
        raise InputError(f"{root / TABLE}: no such table, nor one level up; put the data set's table there")
    rows: dict[str, tables.Row] = {}
    for row in tables.read_table(table, ["filename", *CODES["vision_loss"], *CODES["cup_disc_ratio"]]):
        subject = row["filename"].rpartition("/")[2].removesuffix(".npz")
        if subject in rows:
            raise InputError(f"{table}: column 'filename': two rows for '{row['filename']}'; keep one")
        rows[subject] = row
    if not CODES["refraction"].keys() & row.keys():
        raise InputError(f"{table}: no column '{' or '.join(CODES['refraction'])}'; copy the whole table")
    return table, rows


def _read_all(paths: Sequence[Path]) -> list[tables.Row | LeftOut]:
    # Threads, because most of the time goes into waiting for the disk.
    with ThreadPoolExecutor(16) as pool:
        return list(tqdm(pool.map(_fields, paths), total=len(paths), desc="npz files", unit="file", leave=False))


def _fields(path: Path) -> tables.Row | LeftOut:
    """The person's fields of an npz file as text; the large arrays in it are not touched, and nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in NEEDED if name not in archive.files]
            if missing:
                return LeftOut("an npz file that lacks a field", str(path), path.stem, missing[0])
            return {name: _text(archive, path, name) for name in _FIELDS if name in archive.files}
    except InputError:
        raise
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        return LeftOut("an npz file that cannot be read", str(path), path.stem, type(error).__name__)


def _text(archive: Mapping[str, np.ndarray], path: Path, name: str) -> str:
    try:
        value = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"{path}: field '{name}': pickled objects, which are never loaded; store a number or plain text"
        ) from None
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise InputError(f"{path}: field '{name}': not one value; store one number or one text")
    item = value.item()
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    return item if isinstance(item, str) else f"{item:g}"


# --- records -----------------------------------------------------------------------------------------------------


def _record(pair: Record, fields: tables.Row, row: tables.Row, table: Path) -> tuple[Record, list[str]]:
    """The record of one subject, and the names of the facts that npz file and table say differently."""
    sources = ((f"{pair['npz']}: field", fields), (f"{table}: file '{row['filename']}', column", row))
    facts: Record = {}
    contradicted = []
    for fact, names in CODES.items():
        values = [
            _group(source[name], codes, f"{where} '{name}'")
            for where, source in sources
            for name, codes in names.items()
            if name in source
        ]
        facts[fact], conflict = tables.one_value(values)
        contradicted += [fact] * conflict
    ages = [_age(source.get("age"), f"{where} 'age'") for where, source in sources]
    conflict = None not in ages and abs(ages[0] - ages[1]) >= 1  # one of them may be rounded
    facts["age"] = None if conflict else next((age for age in ages if age is not None), None)
    facts["age_band"] = tables.age_band(facts["age"])
    contradicted += ["age"] * conflict
    contradicted += ["split"] * (SPLITS.get(row.get("use", "").lower(), pair["split"]) != pair["split"])
    place = {name: pair[name] for name in ("subject", "image", "split")}
    return place | facts | {"caption": caption(facts), "stated": stated(facts)}, contradicted


def _group(text: str, codes: Mapping[str, str], where: str) -> str | None:
    return None if _NEGATIVE.fullmatch(text) else tables.coded(text, codes, where)


def _age(text: str | None, where: str) -> float | None:
    return tables.years(None if text and _NEGATIVE.fullmatch(text) else text, where)


# --- remarks -----------------------------------------------------------------------------------------------------


def _unknown(records: Sequence[Record]) -> Iterator[str]:
    for name in (*CODES, "age"):
        unknown = sum(record[name] is None for record in records)
        if unknown:
            yield f"{name} is unknown for {unknown} of {len(records)} subjects"


def _contradictions(conflicts: Iterable[tuple[str, str]]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for name, subject in conflicts:
        found.setdefault(name, []).append(subject)
    for name, subjects in found.items():
        taken = "the folder decides" if name == "split" else "taken as unknown"
        yield f"{name} is contradictory for {len(subjects)} subjects, the first is {subjects[0]}; {taken}"


def _smallest(records: Sequence[Record]) -> Iterator[str]:
    """The smallest group of the test split, by which its rates are known worst; it may be empty."""
    test = [record for record in records if record["split"] == "test"]
    counts = {
        (name, group): sum(record[name] == group for record in test)
        for name in PERSON
        for codes in CODES[name].values()
        for group in codes.values()
    }
    if test:
        name, group = min(counts, key=counts.get)
        yield f"the smallest group of the test split is {name} {group}, {counts[name, group]} of {len(test)} subjects"
