"""CheXpert: chest X-rays with labels taken from their reports by rules (Irvin et al., AAAI 2019).

Layout (Stanford AIMI): ``CheXpert-v1.0-small/`` (or ``CheXpert-v1.0/``) with ``train.csv`` and ``valid.csv``, whose
column Path reads ``CheXpert-v1.0-small/train/patientNNNNN/studyN/viewN_frontal.jpg``. Race and ethnicity are in another
table, ``CHEXPERT DEMO.xlsx`` (PATIENT, GENDER, AGE_AT_CXR, PRIMARY_RACE, ETHNICITY).

FairDiffusion's ``chexpert_sample_{train_6000,val_1000,test_3000}.csv`` are read by position.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bundle.cohorts.chexpert_people import PATIENT, ethnicity, race, read_demographics, remark_on_wordings
from bundle.cohorts.folders import walk
from bundle.cohorts.reading import LeftOut, Reading, with_several
from bundle.cohorts.record import Record
from bundle.cohorts.tables import (
    SEX,
    Row,
    age_band,
    cells_by_position,
    coded,
    one_value,
    paths,
    read_table,
    split_of,
    years,
)
from bundle.errors import InputError

FOLDERS = ("CheXpert-v1.0-small", "CheXpert-v1.0")
SPLITS = {"train.csv": ("train", "train"), "valid.csv": ("valid", "val")}  # table: its folder, and the split's name
LABELS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
STATES = {"1": "present", "0": "absent", "-1": "uncertain"}
VIEWS = {"frontal": "frontal", "lateral": "lateral"}
PROJECTIONS = {"ap": "ap", "pa": "pa", "ll": "ll", "rl": "rl"}
UNCERTAIN = {"negative": "absent", "positive": "present", "leave out": None}

# FairDiffusion's samples: what stands where, counted from 0; the labels follow each other from the first.
POSITIONS = {"sex": 3, "race": 5, "ethnicity": 6, "labels": 9, "file": 24}

OTHER_TABLE = "give FairDiffusion's sample, and leave 'table' out for train.csv and valid.csv"

PICTURES = (".jpg", ".jpeg", ".png")
# An absolute path, or one with dots, does not fit.
_PATH = re.compile(r"(?:CheXpert[^/\\]*/)?((?:train|valid)/(patient\d+)/study\d+/view\d+_\w+\.jpg)")


def read(
    root: str | Path,
    view: str = "frontal",
    uncertain: str = "negative",
    label: str = "Pleural Effusion",
    demographics: str | Path | None = None,
    table: str | Path | Sequence[str | Path] | None = None,
) -> Reading:
    """Read the cohort: one record per picture, in the tables' order.

    Args:
        root: the folder with ``train.csv`` and ``valid.csv``, or its parent; with ``table``, that of the pictures.
        view: "frontal", "lateral" or "all".
        uncertain: what a label of -1 counts as: "negative", "positive" or "leave out".
        label: one of ``LABELS``; it becomes ``condition``, present or absent.
        demographics: the table with race and ethnicity, xlsx or csv.
        table: FairDiffusion's sample tables, instead of the official ones.

    Returns:
        records with ``subject`` (the patient), ``image``, ``view``, ``projection``, ``sex``, ``race``, ``ethnicity``,
        ``age`` (years), ``age_band``, ``condition``, ``split``, ``caption`` and ``stated``.

    Raises:
        InputError: for a missing table or column, an unknown code or option, or when no picture is left.
    """
    _check_options(view, uncertain, label)
    root = _find_root(Path(root)) if table is None else Path(root)
    rows = list(_official_rows(root, label) if table is None else _sample_rows(table, label))
    people, remarks = ([], []) if demographics is None else read_demographics(demographics)
    if table is not None:
        remarks += remark_on_wordings("the samples", "race", [(row["wording"], row["race"]) for row in rows])
    remarks += _settle_people(rows, people)
    remarks += [f"no {name}, a partial copy" for name in SPLITS if table is None and not (root / name).is_file()]
    reading = _select(rows, root, _list_pictures(root, table is not None), (view, uncertain))
    if not reading.records:
        raise InputError(_nothing_left(root, reading))
    remarks += _remarks_on_labels(reading.records, label, uncertain)
    records = [_finished(row, label, uncertain) for row in reading.records]
    return Reading(records, reading.left_out, remarks + _remarks_on_groups(records, label))


def caption(record: Mapping) -> str:
    """Caption of a picture that names no attribute of the person."""
    return ", ".join((_modality(record), record["finding"]))


def stated(record: Mapping) -> str:
    """The caption with sex and race in FairDiffusion's order; an unknown one is not named.

    That paper's order is kept: modality, sex, race, label. The words are this bundle's own.
    """
    words = (_modality(record), record["sex"], (record["race"] or "").capitalize(), record["finding"])
    return ", ".join(filter(None, words))


def _modality(record: Mapping) -> str:
    return f"{record['view']} chest X-ray" if record["view"] else "chest X-ray"


def _finding(label: str, condition: str) -> str:
    if label == "No Finding":
        return "no finding" if condition == "present" else "some finding"
    return f"{label.lower()} {condition}"


# --- the official tables -----------------------------------------------------------------------------------------


def _check_options(view: str, uncertain: str, label: str) -> None:
    options = {"view": (view, (*VIEWS, "all")), "uncertain": (uncertain, tuple(UNCERTAIN)), "label": (label, LABELS)}
    for name, (value, allowed) in options.items():
        if value not in allowed:
            near = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(allowed)}"
            raise InputError(f"--{name}: unknown value '{value}'; {hint}")


def _find_root(root: Path) -> Path:
    found = [folder for folder in (root, *(root / name for name in FOLDERS)) if _tables(folder)]
    if not found:
        raise InputError(f"{root}: no table {' or '.join(SPLITS)}; give the folder {FOLDERS[0]}, which holds them")
    if len(found) > 1:
        raise InputError(f"{root}: tables in {found[0]} and in {found[1]}; give one of these folders")
    return found[0]


def _tables(folder: Path) -> list[Path]:
    return [folder / name for name in SPLITS if (folder / name).is_file()]


def _official_rows(root: Path, label: str) -> Iterator[Record]:
    """What the rows of both tables say, ``state`` of the label included."""
    seen = set()
    for path in _tables(root):
        for line, row in enumerate(read_table(path, ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", label)), 2):
            record = _official_row(row, f"{path}: row {line}", label)
            if record["file"] in seen:
                raise InputError(f"{path}: row {line}, column 'Path': '{row['Path']}' is there twice; keep one row")
            seen.add(record["file"])
            yield record | {"split": SPLITS[path.name][1]}


def _official_row(row: Row, where: str, label: str) -> Record:
    match = _PATH.fullmatch(row["Path"])
    if match is None:
        raise InputError(
            f"{where}, column 'Path': '{row['Path']}' is not of the form {FOLDERS[0]}/train/patientNNNNN/studyN/"
            "viewN_frontal.jpg, inside the data set's folder; take the official table"
        )
    return {
        "subject": match[2],
        "file": match[1],
        "view": coded(row["Frontal/Lateral"], VIEWS, f"{where}, column 'Frontal/Lateral'") or _view(match[1]),
        "projection": coded(row["AP/PA"], PROJECTIONS, f"{where}, column 'AP/PA'"),
        "sex": coded(row["Sex"], SEX, f"{where}, column 'Sex'"),
        "race": None,
        "ethnicity": None,
        "age": years(row["Age"], f"{where}, column 'Age'"),
        "state": coded(row[label], STATES, f"{where}, column '{label}'"),
    }


def _view(file: str) -> str | None:
    """The view that a file's name tells."""
    return next((view for view in VIEWS if view in file.rpartition("/")[2].lower()), None)


# --- race and ethnicity ------------------------------------------------------------------------------------------


def _settle_people(rows: Sequence[Record], people: Sequence[Record]) -> list[str]:
    """Give each row, in place, what all statements about its patient agree on; returns remarks on those that do not."""
    patients = {row["subject"] for row in rows}
    remarks = []
    for name in ("sex", "race", "ethnicity"):
        statements = defaultdict(set)
        for statement in (*rows, *people):
            statements[statement["subject"]].add(statement[name])
        settled = {subject: one_value(statements[subject]) for subject in patients}
        for row in rows:
            row[name] = settled[row["subject"]][0]
        unclear = sorted(subject for subject, (_, contradiction) in settled.items() if contradiction)
        if unclear:
            remarks.append(
                f"patients with two values of {name}, left unknown: {len(unclear):,}, the first {unclear[0]}"
            )
    if people:
        without = len(patients - {person["subject"] for person in people})
        remarks.append(f"patients without a row in the table of race and ethnicity: {without:,} of {len(patients):,}")
    elif not any(row["race"] or row["ethnicity"] for row in rows):
        remarks.append("race and ethnicity are unknown: --demographics is not given")
    return remarks


# --- FairDiffusion's samples -------------------------------------------------------------------------------------


def _sample_rows(table: str | Path | Sequence[str | Path], label: str) -> Iterator[Record]:
    """What the rows of the samples say; the patient and the view stand in the file's name, if anywhere."""
    seen = set()
    for path in paths(table):
        split = split_of(
            path, ("train", "val", "test"), "keep the name chexpert_sample_train_6000.csv, _val_ or _test_"
        )
        header, *rows = cells_by_position(path, 1 + max(POSITIONS.values()), OTHER_TABLE)
        if header[POSITIONS["file"]].lower().endswith(PICTURES):
            raise InputError(f"{path}: row 1 is no header; add one, or the first picture would be lost")
        for line, cells in enumerate(rows, 2):
            record = _sample_row(cells, f"{path}: row {line}", label)
            if record["file"] in seen:
                raise InputError(
                    f"{path}: row {line}, column {POSITIONS['file']}: '{record['file']}' is there twice; keep one"
                )
            seen.add(record["file"])
            yield record | {"split": split}


def _sample_row(cells: Sequence[str], where: str, label: str) -> Record:
    file = cells[POSITIONS["file"]].strip().replace("\\", "/")
    if not file or file.startswith("/") or ".." in file.split("/"):
        raise InputError(
            f"{where}, column {POSITIONS['file']}: '{file}' is no file inside the data set's folder; correct it"
        )
    patient = next(filter(None, map(PATIENT.search, (file, *cells))), None)
    column = POSITIONS["labels"] + LABELS.index(label)
    return {
        "subject": patient[0] if patient else Path(file).stem,
        "file": file,
        "view": _view(file),
        "projection": None,
        "sex": coded(cells[POSITIONS["sex"]], SEX, f"{where}, column {POSITIONS['sex']} (sex)"),
        "race": race(cells[POSITIONS["race"]]),
        "ethnicity": ethnicity(cells[POSITIONS["ethnicity"]]),
        "age": None,
        "wording": cells[POSITIONS["race"]],
        "state": coded(cells[column], STATES, f"{where}, column {column} ({label})"),
    }


# --- pictures ----------------------------------------------------------------------------------------------------


def _list_pictures(root: Path, everywhere: bool) -> dict[str, str]:
    """Pictures below ``root``: where each is, by that path, and by its bare name where only one has it.

    Official pictures are in the folders of the splits; those of a sample may be ``everywhere``.
    """
    starts = [root] if everywhere else [root / name for name, _ in SPLITS.values()]
    found = ((Path(folder).relative_to(root), names) for start in starts for folder, names, _ in walk(start))
    files = [(folder / name).as_posix() for folder, names in found for name in names]
    pictures = [file for file in files if file.lower().endswith(PICTURES)]
    places = {file: file for file in pictures}
    if everywhere:
        times = Counter(map(_name, pictures))
        places |= {_name(file): file for file in pictures if times[_name(file)] == 1}
    return places


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _select(rows: Sequence[Record], root: Path, places: Mapping[str, str], options: tuple[str, str]) -> Reading:
    """Rows that have their picture and fit ``options`` (view, uncertain), and all the others."""
    view, uncertain = options
    records, left_out, used = [], [], set()
    for row in rows:
        place = places.get(row["file"])
        used.add(place)
        if view != "all" and row["view"] not in (view, None):
            reason = f"{row['view']} view"
        elif row["state"] == "uncertain" and UNCERTAIN[uncertain] is None:
            reason = "uncertain label"
        elif place is None:
            reason = "no picture for this row"
        else:
            records.append(row | {"image": root / place})
            continue
        left_out.append(LeftOut(reason, row["file"], row["subject"]))
    strays = sorted(set(places.values()) - used)
    return Reading(records, left_out + [LeftOut("a picture without a row in the tables", path) for path in strays])


def _nothing_left(root: Path, reading: Reading) -> str:
    reason, number_of = (reading.reasons() or [("no rows", 0)])[0]
    return f"{root}: nothing is left, {number_of:,} times: {reason}; unpack the pictures there, or change the options"


# --- records -----------------------------------------------------------------------------------------------------


def _finished(row: Record, label: str, uncertain: str) -> Record:
    """The record in the words that all data sets share."""
    record = {name: value for name, value in row.items() if name not in ("file", "state", "wording")}
    state = "absent" if row["state"] is None else row["state"]  # not mentioned is read as absent, as is usual here
    record["condition"] = UNCERTAIN[uncertain] if state == "uncertain" else state
    record["finding"] = _finding(label, record["condition"])
    record["age"] = row["age"] or None
    record["age_band"] = age_band(record["age"])
    return record | {"caption": caption(record), "stated": stated(record)}


def _remarks_on_labels(rows: Sequence[Record], label: str, uncertain: str) -> list[str]:
    states = Counter(row["state"] for row in rows)
    zeros = sum(row["age"] == 0 for row in rows)
    counted = {
        f"that do not mention {label.lower()} (blank), taken as absent": states[None],
        f"with an uncertain label (-1), taken as {UNCERTAIN[uncertain]}": states["uncertain"],
        "of age 0, taken as unknown": zeros,
        "of unknown sex": sum(row["sex"] is None for row in rows),
        "that name no patient, so that each counts as a subject of its own": sum(
            not PATIENT.match(row["subject"]) for row in rows
        ),
    }
    return [f"pictures {fact}: {times:,} of {len(rows):,}" for fact, times in counted.items() if times]


def _remarks_on_groups(records: Sequence[Record], label: str) -> list[str]:
    """Shares of the label by group, and patients whose pictures fall apart."""
    remarks = []
    for name in ("sex", "race"):
        found = defaultdict(list)
        for record in records:
            if record[name]:
                found[record[name]].append(record["condition"])
        shares = [
            f"{_percent(values, 'present')} of {len(values):,} {group}" for group, values in sorted(found.items())
        ]
        if found:
            remarks.append(f"{label.lower()} is present in {', '.join(shares)} pictures")
    several = {"split": "in more than one split of the tables", "age_band": "with pictures in two age classes"}
    counted = {words: len(with_several(records, name)) for name, words in several.items()}
    return remarks + [f"patients {words}: {times:,}" for words, times in counted.items() if times]


def _percent(values: Sequence[str], wanted: str) -> str:
    return f"{100 * values.count(wanted) / len(values):.1f} %"
