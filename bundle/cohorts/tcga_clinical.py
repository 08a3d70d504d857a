"""TCGA's clinical tables, from cBioPortal or GDC: sex and age of a patient, by the barcode."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bundle.cohorts.tables import OLDEST, SEX, coded, known, number, one_value, paths, read_table
from bundle.errors import InputError

# Columns of clinical tables, the first that is there counts: cBioPortal, then GDC in its spellings over the years.
PATIENT_COLUMNS = (
    "Patient ID",
    "case_submitter_id",
    "cases.submitter_id",
    "submitter_id",
    "bcr_patient_barcode",
    "Case_ID",
)
SEX_COLUMNS = ("Sex", "Person Gender", "Gender", "gender", "demographic.gender", "sex_at_birth")
AGE_COLUMNS = {  # and the unit of a plain number
    "Diagnosis Age": "years",
    "age_at_index": "years",
    "demographic.age_at_index": "years",
    "Age_at_diagnosis": "years",
    "age_at_diagnosis": "days",
    "diagnoses.age_at_diagnosis": "days",
}
DAYS = 365.25  # of a year
SAME_AGE = 2  # years by which tables may differ, by rounding and by the day that they count from
NOBODY = {"sex": None, "age": None, "disagreements": ()}

BARCODE_FORM = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")
_AGE = re.compile(r"(\d+) years?(?: \d+ days?)?")


def patient_of(text: str | None) -> str | None:
    """The patient of a TCGA barcode, of which ``TCGA-02-0006-01`` names a sample; None for what is no barcode."""
    patient = "-".join((known(text) or "").upper().replace("_", "-").split("-")[:3])
    return patient if BARCODE_FORM.fullmatch(patient) else None


def people_of(clinical: str | Path | Sequence[str | Path] | None) -> dict[str, dict[str, Any]]:
    """Sex, age (completed years) and ``disagreements`` of every patient of the clinical tables, by barcode.

    Raises:
        InputError: for a table without a column of patients or of sex, or without a patient of TCGA, and unknown codes.
    """
    found = defaultdict(list)
    for path in paths(clinical):
        for patient, sex, age in _clinical_rows(path):
            found[patient].append((sex, age, path))
    return {patient: _agreed(rows) for patient, rows in found.items()}


def _agreed(rows: Sequence[tuple[str | None, int | None, Path]]) -> dict[str, Any]:
    """What the rows of one patient say together; a fact on which they disagree is unknown."""
    sex, sexes_differ = one_value(sex for sex, _, _ in rows)
    ages = [age for _, age, _ in rows if age is not None]
    ages_differ = bool(ages) and max(ages) - min(ages) > SAME_AGE
    disagreements = []
    if sexes_differ:
        disagreements.append(("sex", _said((sex, path) for sex, _, path in rows)))
    if ages_differ:
        disagreements.append(("age", _said((age, path) for _, age, path in rows)))
    age = ages[0] if ages and not ages_differ else None
    return {"sex": sex, "age": age, "disagreements": tuple(disagreements)}


def _said(values: Iterable[tuple[Any, Path]]) -> str:
    return "; ".join(dict.fromkeys(f"{value} in {path}" for value, path in values if value is not None))


def _clinical_rows(path: Path) -> Iterator[tuple[str, str | None, int | None]]:
    """Patient, sex and age of every row whose patient is of TCGA; tables may hold other studies too."""
    table = read_table(path, ())
    patient, sex = (_column(path, table[0], names) for names in (PATIENT_COLUMNS, SEX_COLUMNS))
    age = next((name for name in AGE_COLUMNS if name in table[0]), None)
    table = read_table(path, [name for name in (patient, sex, age) if name is not None])  # which must be there once
    rows = [(found, row) for row in table if (found := patient_of(row[patient])) is not None]
    if not rows:
        raise InputError(f"{path}: column '{patient}' holds no TCGA barcode; give a clinical table of TCGA")
    for found, row in rows:
        where = f"{path}: patient '{found}', column"
        years = None if age is None else _years(_cell(row[age]), AGE_COLUMNS[age], f"{where} '{age}'")
        yield found, coded(_cell(row[sex]), SEX, f"{where} '{sex}'"), years


def _cell(text: str) -> str:
    """A cell without the apostrophe that GDC puts before its ``--`` for unknown."""
    return text.removeprefix("'")


def _column(path: Path, there: Iterable[str], names: Sequence[str]) -> str:
    for name in names:
        if name in there:
            return name
    wanted, found = " or ".join(f"'{name}'" for name in names), ", ".join(list(there)[:6])
    raise InputError(f"{path}: no column {wanted}; rename the one that holds it, there are {found}")


def _years(text: str, unit: str, where: str) -> int | None:
    """Completed years of an age, written in words ("51 years 108 days") or as a number in ``unit``."""
    words = _AGE.fullmatch(text.lower())
    value = float(words[1]) if words else number(text, where)
    if value is None:
        return None
    days = unit == "days" and not words
    years = value / DAYS if days else value
    if not 0 <= years <= OLDEST or (days and value <= OLDEST):  # so few days can only have been years
        raise InputError(
            f"{where}: {text} is no age in {unit}; correct it, or rename the column to the one for its unit"
        )
    return int(years)
