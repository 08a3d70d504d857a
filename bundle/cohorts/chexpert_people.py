"""Race and ethnicity of CheXpert's patients: a spreadsheet of its own, in the hospital's wordings."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from bundle.cohorts.record import Record
from bundle.cohorts.tables import SEX, Row, coded, known, one_value, read_table
from bundle.errors import InputError

DEMOGRAPHICS = ("PATIENT", "GENDER", "PRIMARY_RACE", "ETHNICITY")
# Race is free wording ("Black or African American", "White, non-Hispanic"): the words that decide. A wording with words
# of two groups, or with none of these, is unknown, and so are the groups that the papers do not have.
RACE_WORDS = {
    "asian": "asian",
    **dict.fromkeys(("black", "african"), "black"),
    **dict.fromkeys(("white", "caucasian"), "white"),
    **dict.fromkeys(("other", "native", "american indian", "pacific", "islander", "hawaiian", "multiple"), "none"),
}
ETHNICITIES = {
    **dict.fromkeys(("hispanic", "hispanic/latino", "hispanic or latino"), "hispanic"),
    **dict.fromkeys(("non-hispanic", "non-hispanic/non-latino"), "non-hispanic"),
    **dict.fromkeys(("not hispanic", "not hispanic or latino"), "non-hispanic"),
}

PATIENT = re.compile(r"patient\d+")


def read_demographics(path: str | Path) -> tuple[list[Record], list[str]]:
    """What the table of race and ethnicity says of each patient, and remarks on what it leaves unknown.

    Args:
        path: the table, as published (xlsx) or saved as csv.

    Raises:
        InputError: for a missing column, an unknown code of sex, or an xlsx file that cannot be read here.
    """
    path = Path(path)
    rows = _read_spreadsheet(path) if path.suffix.lower() == ".xlsx" else read_table(path, DEMOGRAPHICS)
    people = [_person(row, f"{path}: row {line}") for line, row in enumerate(rows, 2)]
    return people, [
        *remark_on_wordings(path.name, "race", [(row["PRIMARY_RACE"], race(row["PRIMARY_RACE"])) for row in rows]),
        *remark_on_wordings(path.name, "ethnicity", [(row["ETHNICITY"], ethnicity(row["ETHNICITY"])) for row in rows]),
    ]


@cache
def race(wording: str) -> str | None:
    """The group that free wording of race means, by ``RACE_WORDS``; None for any other and for two at once."""
    text = wording.lower()
    group, _ = one_value(name for words, name in RACE_WORDS.items() if re.search(rf"\b{words}\b", text))
    return None if group == "none" else group


def ethnicity(wording: str) -> str | None:
    """The group that a wording of ethnicity means, by ``ETHNICITIES``; None for any other."""
    return ETHNICITIES.get(wording.strip().lower())


def _read_spreadsheet(path: Path) -> list[Row]:
    if importlib.util.find_spec("openpyxl") is None:
        raise InputError(
            f"{path}: spreadsheets need the package openpyxl, which is not installed; save the sheet as CSV"
        )
    try:
        frame = pd.read_excel(path, dtype=str, keep_default_na=False).fillna("")
    except Exception as error:  # a damaged archive surfaces as many kinds of error
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as a spreadsheet ({reason}); copy it again or save it as CSV"
        ) from None
    missing = [name for name in DEMOGRAPHICS if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: no column '{missing[0]}'; rename yours, there are {', '.join(map(str, frame.columns[:8]))}"
        )
    return [{name: row[name].strip() for name in DEMOGRAPHICS} for row in frame.to_dict("records")]


def _person(row: Row, where: str) -> Record:
    if not PATIENT.fullmatch(row["PATIENT"]):
        raise InputError(f"{where}, column 'PATIENT': '{row['PATIENT']}' is not of the form patientNNNNN; correct it")
    sex = coded(row["GENDER"], SEX, f"{where}, column 'GENDER'")
    return {
        "subject": row["PATIENT"],
        "sex": sex,
        "race": race(row["PRIMARY_RACE"]),
        "ethnicity": ethnicity(row["ETHNICITY"]),
    }


def remark_on_wordings(table: str, name: str, pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    """How many wordings (with the group that each means) are of no group, and which; no remark where all are."""
    counts = Counter(known(wording) or "empty or unknown" for wording, group in pairs if group is None)
    if not counts:
        return []
    listed = ", ".join(f"{wording} {times:,}" for wording, times in counts.most_common())
    return [f"{table}: rows whose {name} is none of the groups, left unknown: {counts.total():,} ({listed})"]
