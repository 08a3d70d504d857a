"""Write the datalist that every job reads, from a data set as it is published.

    python -m scripts.prepare_cohort ham10000 --root /data/ham10000 --out data/ham10000.json
    python -m scripts.prepare_cohort brats18 --root /data/brats18 --out data/brats18.json \
        --name_mapping name_mapping.csv --clinical "['gbm.tsv','lgg.tsv']"

Beside the datalist: a CSV of what was left out and why, a sheet of pictures, the printed summary as text. The data set
is only read. What each one holds, and its options: docs/data.md.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundle.cohorts.reading import leave_unknown, write_left_out
from bundle.cohorts.record import Record, split_by_subject, write_datalist
from bundle.cohorts.summary import contact_sheet, summary
from bundle.cohorts.verify import verify as verify_images
from bundle.errors import InputError
from bundle.files import write_whole
from scripts.jobs import start

COHORTS = ("brats18", "chexpert", "fairgenmed", "ham10000", "roco", "table", "tcga_lgg")
ROLES = {"source": 0.3, "target": 0.2, "guide": 0.2, "judge": 0.15, "validation": 0.15}


def prepare_cohort(
    name: str,
    root: str,
    out: str,
    attribute: str = "sex",
    stratum: str | None = None,
    roles: Mapping[str, float] | None = None,
    seed: int = 0,
    verify: bool = True,
    **options: Any,
) -> None:
    """Read the data set, look into its images, give every subject a role, and write the datalist.

    Args:
        name: one of the data sets in docs/data.md.
        root: its folder.
        out: the datalist, a JSON file outside ``root``.
        attribute: column whose groups the summary counts; who has none of them gets the role source, which needs none,
            and so does a subject whose rows contradict each other.
        stratum: another column to count by, such as grade.
        roles: share of the subjects that each role gets; a subject keeps its role when others join the cohort.
        seed: of the roles.
        verify: open every image; without it only names are looked at, which takes no time.
        options: of the data set.
    """
    shares = _roles(roles or ROLES)
    read, path = _reader(name, options), _outside(Path(out), Path(root), options)
    reading = read(Path(root), **options)
    unclear = leave_unknown(reading.records, attribute)
    if unclear:
        remark = f"subjects with two values of {attribute}, left unknown: {len(unclear)}, the first {unclear[0]}"
        reading = replace(reading, remarks=[*reading.remarks, remark])
    _check_columns(reading.records, attribute, stratum)
    if verify:
        sound, bad = verify_images(reading.records, path.with_suffix(".verified.jsonl"))
        reading = replace(reading, records=sound, left_out=[*reading.left_out, *bad])
    reading = replace(reading, records=with_roles(reading.records, attribute, shares, seed))
    text = summary(reading, attribute, stratum, shares)
    write_left_out(reading.left_out, path.with_name(f"{path.stem}_left_out.csv"))
    if verify:
        contact_sheet(reading.records, attribute, path.with_suffix(".png"))
    write_whole(path.with_suffix(".txt"), f"{text}\n".encode())
    write_datalist(path, reading.records)
    print(f"{text}\n\n{path}")


def with_roles(records: list[Record], attribute: str, shares: Mapping[str, float], seed: int) -> list[Record]:
    """Records with the column ``role``, one for all of a subject; in the given shares among those of known group."""
    known = {record["subject"] for record in records if record.get(attribute) is not None}
    parts = split_by_subject((record for record in records if record["subject"] in known), shares, seed)
    roles = {record["subject"]: role for role, part in parts.items() for record in part}
    return [{**record, "role": roles.get(record["subject"], "source")} for record in records]


def _check_columns(records: list[Record], attribute: str, stratum: str | None) -> None:
    groups = {record[attribute] for record in records if record.get(attribute) is not None}
    if len(groups) < 2:
        found = f"all who have one are '{groups.pop()}'" if groups else "no subject has one"
        raise InputError(
            f"--attribute {attribute}: {found}, and two groups are needed; give another, or the table that holds it"
        )
    columns = sorted({name for record in records for name in record})
    if stratum is not None and stratum not in columns:
        raise InputError(f"--stratum {stratum}: no such column; there are {', '.join(columns)}")


def _roles(shares: Any) -> Mapping[str, float]:
    wrong = [name for name in shares if name not in ROLES] if isinstance(shares, Mapping) else [shares]
    if wrong:
        raise InputError(f"--roles: '{wrong[0]}' is no role; write a share for some of {', '.join(ROLES)}")
    return shares


def _reader(name: str, options: Mapping[str, Any]):
    if name not in COHORTS:
        near = difflib.get_close_matches(str(name), COHORTS, n=1) or COHORTS
        raise InputError(f"cohort '{name}': not known; use {' or '.join(near)}")
    read = importlib.import_module(f"bundle.cohorts.{name}").read
    known = dict(list(inspect.signature(read).parameters.items())[1:])
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise InputError(f"--{option}: {name} needs it; see docs/data.md")
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1) or known
            raise InputError(f"--{option}: {name} has no such option; use {', '.join(f'--{word}' for word in near)}")
    return read


def _outside(out: Path, root: Path, options: Mapping[str, Any]) -> Path:
    if not root.exists():
        raise InputError(f"--root {root}: no such folder; correct the path")
    if out.suffix != ".json":
        raise InputError(f"--out {out}: a datalist is a JSON file; give a name that ends in .json")
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"--out {out}: lies in the data set's folder {root}, which is only read; give another place")
    given = [value for values in options.values() for value in (values if isinstance(values, list) else [values])]
    if any(isinstance(value, str) and Path(value).resolve() == out.resolve() for value in given):
        raise InputError(f"--out {out}: is one of the given tables, which are only read; give another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: its folder cannot be made ({error.strerror}); give another place") from None
    return out


if __name__ == "__main__":
    start(prepare_cohort)
