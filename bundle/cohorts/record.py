"""The records that all cohorts share: one dictionary per subject, in a JSON list beside the images.

A record has ``subject`` (a person's id, text), one image path per modality (``t1``, ``flair``, ... and perhaps
``seg``), relative to the datalist's folder, and one column per attribute, such as ``"sex": "female"``. An unknown value
is null in the file and None in Python: missing, never guessed.
"""

import difflib
import gzip
import hashlib
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.errors import InputError
from bundle.files import write_whole

Record = dict[str, Any]

_TCGA = re.compile("TCGA_[A-Z0-9]{2}_[A-Z0-9]{4}")
_HEADERS = {348: nib.nifti1.header_dtype, 540: nib.nifti2.header_dtype}


def read_datalist(
    path: str | Path,
    modalities: Sequence[str],
    attributes: Mapping[str, Sequence[str]] | None = None,
    optional: Sequence[str] = ("seg",),
    unique: str = "subject",
) -> list[Record]:
    """Read a datalist and check all that can be checked before any compute.

    Args:
        path: JSON file, a list of records.
        modalities: image columns that every record must have.
        attributes: attribute -> its group names; None stands for an unknown group.
        optional: image columns that a record may have.
        unique: the column in which no two records agree: "subject" for volumes; subjects may have many pictures.

    Returns:
        the records, image paths resolved against the datalist's folder, every attribute present (None if unknown).

    Raises:
        InputError: for a missing or truncated file, a missing column, an unknown group name, a repeated subject, a
            person in two roles or in two groups of one attribute.
    """
    path = Path(path)
    records = _read_json(path)
    seen: dict[str, int] = {}
    for number, record in enumerate(records):
        where = f"{path}: record {number}"
        subject = record.get("subject") if isinstance(record, dict) else None
        if not isinstance(subject, str) or not subject:
            raise InputError(f"{where}: no 'subject'; give every record the subject's id as text")
        value = record.get(unique)
        if not isinstance(value, str):
            raise InputError(f"{where}: no '{unique}'; give every record one, as text")
        if value in seen:
            raise InputError(f"{where}: {unique} '{value}' is also record {seen[value]}; keep one record a {unique}")
        seen[value] = number
    resolved = [_resolve(path, record, modalities, optional) for record in records]
    for name, groups in (attributes or {}).items():
        _check_attribute(path, resolved, name, groups)
    _check_persons(path, resolved, ["role", *(attributes or {})])
    return resolved


def write_datalist(path: str | Path, records: Sequence[Record]) -> None:
    """Write a datalist in one step, so that no half-written file is ever read.

    Values of type ``Path`` are written relative to the datalist's folder; everything else as it is.
    """
    text = json.dumps([_relative(record, Path(path).parent) for record in records], indent=1)
    write_whole(path, f"{text}\n".encode())


def split_by_subject(
    records: Iterable[Record], fractions: Mapping[str, float], seed: int = 0
) -> dict[str, list[Record]]:
    """Divide records by subject; where a subject goes depends on its id and the seed alone.

    So all scans of a subject stay together, and no subject moves when others join the cohort. The parts have the asked
    sizes on average.

    Args:
        fractions: name of the part -> its share; the shares sum to one.
    """
    if any(share < 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise InputError(f"fractions {dict(fractions)}: shares must not be negative and must sum to 1")
    bounds = list(itertools.accumulate(fractions.values()))
    parts: dict[str, list[Record]] = {name: [] for name in fractions}
    names = list(parts)
    for record in records:
        # Not the numbers that order them, or the first of a cohort would all be of one part.
        position = _position(record["subject"], f"part {seed}") * bounds[-1]
        parts[names[sum(position >= bound for bound in bounds[:-1])]].append(record)
    return parts


def deal_subjects(
    records: Iterable[Record], number: int, columns: Sequence[str] = (), seed: int = 0
) -> list[list[str]]:
    """Deal subjects out to ``number`` parts of equal size, to one subject; returns the ids of each part.

    Every value of the first column, and every combination of values of all columns, is spread as evenly, which counts
    where subjects are few. Here a subject may move when others join the cohort.
    """
    subjects: dict[str, Record] = {}
    for record in records:
        subjects.setdefault(record["subject"], record)

    def order(subject: str) -> tuple:
        return (*(str(subjects[subject].get(column)) for column in columns), _position(subject, seed))

    dealt = sorted(subjects, key=order)
    return [dealt[part::number] for part in range(number)]


def _position(subject: str, seed: int | str) -> float:
    """A number in [0, 1) that depends on the subject's id and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def in_random_order(records: Iterable[Record]) -> list[Record]:
    """Records ordered by a hash of the subject's id, those of one subject as they came.

    Folders and tables come sorted by hospital or diagnosis; whoever takes the first so many must not take one hospital.
    """
    return sorted(records, key=lambda record: _position(record["subject"], seed=0))


def require_disjoint(**roles: Iterable[str]) -> None:
    """Raise ``InputError`` when two roles, such as guide and judge, share a subject.

    Args:
        roles: name of the role -> subject ids.
    """
    people = [(name, {_person(subject) for subject in ids}) for name, ids in roles.items()]
    for (first, left), (second, right) in itertools.combinations(people, 2):
        shared = sorted(left & right)
        if shared:
            raise InputError(
                f"{first} and {second} share {len(shared)} subject(s), the first is '{shared[0]}'; "
                "give each role its own subjects"
            )


def _person(subject: str) -> str:
    """The id; a patient of TCGA, whom some data sets write with underscores, by the barcode with hyphens."""
    return subject.replace("_", "-") if _TCGA.fullmatch(subject) else subject


def _read_json(path: Path) -> list[Record]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such datalist; prepare the cohort first or correct the path") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); write the datalist again") from None
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: a datalist is a JSON list with at least one record; write the datalist again")
    return records


def _resolve(path: Path, record: Record, modalities: Sequence[str], optional: Sequence[str]) -> Record:
    """Copy a record with its images' paths resolved and the files checked."""
    resolved = dict(record)
    for name in [*modalities, *optional]:
        value = record.get(name)
        if value is None and name in optional and name not in modalities:
            continue
        where = f"{path}: subject '{record['subject']}', field '{name}'"
        if not isinstance(value, str):
            remedy = "an image of zeros where there is no lesion" if name == "seg" else "or ask for other modalities"
            raise InputError(f"{where}: no image path; add it, {remedy}")
        file = path.parent / value
        problem = _image_problem(file)
        if problem:
            raise InputError(f"{where}: {file} {problem}")
        resolved[name] = str(file)
    return resolved


def _check_attribute(path: Path, records: list[Record], name: str, groups: Sequence[str]) -> None:
    """Every value is a known group or missing, and not all are missing."""
    for record in records:
        value = record.setdefault(name, None)
        if value is not None and value not in groups:
            near = difflib.get_close_matches(str(value).lower(), list(groups), n=1)
            raise InputError(
                f"{path}: subject '{record['subject']}', field '{name}': unknown group {value!r}; "
                + (f"did you mean '{near[0]}'?" if near else f"use one of {list(groups)}, or null if it is not known")
            )
    if all(record[name] is None for record in records):
        raise InputError(f"{path}: field '{name}': no record has this attribute; add the column with {list(groups)}")


def _check_persons(path: Path, records: Sequence[Record], columns: Sequence[str]) -> None:
    """Of each column a subject has one value, or none."""
    for name in columns:
        values: dict[str, Any] = {}
        for record in records:
            value = record.get(name)
            if value is not None and values.setdefault(record["subject"], value) != value:
                both = f"{values[record['subject']]!r} and {value!r}"
                raise InputError(f"{path}: subject '{record['subject']}', field '{name}': {both}; keep one a person")


def _image_problem(file: Path) -> str | None:
    """What is wrong with an image file, and the remedy; None for a sound one. Only NIfTI is looked into."""
    try:
        if not file.stat().st_size:
            return "is empty; copy it again"
        if file.name.lower().endswith((".nii", ".nii.gz")) and not _nifti_complete(file):
            return "is truncated; copy it again"
    except FileNotFoundError:
        return "does not exist; correct the path or restore the file"
    except (OSError, ValueError, zlib.error) as error:
        return f"cannot be read as an image ({error}); copy it again"
    return None


def _nifti_complete(file: Path) -> bool:
    """Compare a NIfTI file's length with what its header announces.

    A gzip file ends with its uncompressed length (modulo 2^32), so nothing beyond the header is decompressed, unless
    that number is off; then the whole file decides (it may be made of several gzip members).
    """
    packed = file.suffix == ".gz"
    with file.open("rb") as stream:
        start = stream.read(2048)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - 4, 0))
        last = int.from_bytes(stream.read(), "little")
    announced = _nifti_size(zlib.decompressobj(wbits=31).decompress(start, 540) if packed else start[:540])
    if not packed:
        return size >= announced
    return last == announced % 2**32 or _unpacked_size(file) >= announced


def _nifti_size(header: bytes) -> int:
    """Length in bytes of the uncompressed file with this header, NIfTI-1 or -2, in either byte order."""
    for order in ("little", "big"):
        dtype = _HEADERS.get(int.from_bytes(header[:4], order))
        if dtype is not None and len(header) >= dtype.itemsize:
            fields = np.frombuffer(header, dtype.newbyteorder("<" if order == "little" else ">"), count=1)[0]
            shape = [int(n) for n in fields["dim"][1 : 1 + int(fields["dim"][0])]]
            return int(fields["vox_offset"]) + int(np.prod(shape, dtype=np.int64)) * int(fields["bitpix"]) // 8
    raise ValueError("no NIfTI header")


def _unpacked_size(file: Path) -> int:
    """Length of a gzip file's content, 0 when the file is broken off."""
    size = 0
    try:
        with gzip.open(file) as stream:
            while chunk := stream.read(2**20):
                size += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return 0
    return size


def _relative(record: Record, folder: Path) -> Record:
    # From a folder that is a link, ".." leads to where the real folder lies.
    linked = os.path.realpath(folder) != os.path.abspath(folder)
    seen_from = os.path.realpath if linked else os.path.abspath

    def written(path: Path) -> str:
        return Path(os.path.relpath(seen_from(path), seen_from(folder))).as_posix()

    return {key: written(value) if isinstance(value, Path) else value for key, value in record.items()}
