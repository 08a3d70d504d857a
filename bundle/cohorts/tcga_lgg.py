"""The public TCGA-LGG slices as Buda et al. prepared them (Computers in Biology and Medicine 109, 2019).

Layout: ``kaggle_3m/<patient>_<date>/<patient>_<date>_<slice>.tif`` with ``..._<slice>_mask.tif`` beside it, and
``kaggle_3m/data.csv`` with one row per patient. The pictures are axial, anterior up, the patient's left on the right;
slice numbers grow from the skull base upwards. Their channels are pre-contrast, FLAIR and post-contrast.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bundle.attributes import Attribute
from bundle.cohorts.record import Record, deal_subjects, in_random_order
from bundle.cohorts.slices import Slices, file_slices, oversampled
from bundle.errors import InputError

# Codes of data.csv; an empty cell is unknown. Other data sets number the sexes the other way round.
CODES: dict[str, tuple[str, dict[int, str]]] = {
    "sex": ("gender", {1: "female", 2: "male"}),
    "grade": ("neoplasm_histologic_grade", {1: "G2", 2: "G3"}),
    "side": ("laterality", {1: "left", 2: "midline", 3: "right"}),
}
AGE = "age_at_initial_pathologic"

ROLES = ("source", "target", "guide", "judge", "validation", "everyone")

_SLICE = re.compile(r"_(\d+)\.tif")


def read(root: str | Path) -> list[dict[str, Any]]:
    """Read the cohort: one record per slice, ordered by patient folder and slice number.

    Args:
        root: the folder that holds ``data.csv`` (``kaggle_3m``), or its parent.

    Returns:
        records with ``subject``, ``image`` and ``mask`` (paths), ``modality`` ("flair"), ``sex``, ``grade``, ``side``,
        ``age`` (years) and ``site`` (each None if unknown), ``slice`` (its number), ``level`` (0 at the subject's
        lowest slice here, 1 at the highest), and ``lesion_pixels`` (of the mask, at the file's resolution).

    Raises:
        InputError: for a missing table, column, row or mask, and for a code that the table's key does not know.
    """
    root = Path(root)
    root = root if (root / "data.csv").is_file() else root / "kaggle_3m"
    patients = _read_table(root / "data.csv")
    records = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        subject = folder.name.rpartition("_")[0]  # the table leaves the date out
        if subject not in patients:
            raise InputError(f"{root / 'data.csv'}: no row for '{subject}' of folder {folder.name}; add it")
        records.extend(patients[subject] | row for row in _read_slices(folder, subject))
    if not records:
        raise InputError(f"{root}: no slices in <patient>_<date> folders; unpack the whole archive there")
    return records


def tcga_slices(
    role: str,
    records: Sequence[Record],
    attribute: Attribute,
    levels: Sequence[str],
    transform: Callable,
    cache_dir: str | Path,
    source: Mapping[str, float],
) -> Slices:
    """Slices of one role (``ROLES``) that the patients of this small cohort can play.

    Half of them, evenly by group and site, measure: ``judge`` and ``validation`` are the same people, so the judge must
    be cross-fitted. The others make the images: ``source`` (slices repeated until the groups have the shares of that
    argument), ``target`` (as they are) and ``guide``; a patient of unknown group serves source and target alone.
    ``everyone`` is both halves, for cross-validation.

    Args:
        records: from :func:`read`.
        levels: names of equal parts of the range of slices, from the skull base upwards.
        transform: {"image", "seg"} to "image" and "seg" of shape (1, H, W), image in [0, 1].
    """
    if role not in ROLES:
        raise InputError(f"role '{role}': this cohort has {', '.join(ROLES)}; ask for one of them")
    cohort = _all_slices(records, levels, transform, cache_dir)
    known = cohort.where(lambda row: row[attribute.name] in attribute.groups)
    measuring = deal_subjects(known.rows, 2, [attribute.name, "site"])[1]
    if role == "everyone":
        return known
    if role in ("judge", "validation"):
        return known.of(measuring)
    if role == "guide":
        return known.without(measuring)
    making = cohort.without(measuring)
    return oversampled(making, attribute, source) if role == "source" else making


def _all_slices(records: Sequence[Record], levels: Sequence[str], transform: Callable, cache_dir: str | Path) -> Slices:
    records = in_random_order(records)
    files = [{"image": record["image"], "seg": record["mask"]} for record in records]
    facts = [{key: value for key, value in record.items() if key not in ("image", "mask")} for record in records]
    rows = [[row | {"level": levels[min(int(row["level"] * len(levels)), len(levels) - 1)]}] for row in facts]
    return file_slices(files, rows, transform, cache_dir)


def flair(picture: torch.Tensor) -> torch.Tensor:
    """The FLAIR channel (1, H, W) of a picture (3, H, W)."""
    return picture[1:2]


def scale_head(image: torch.Tensor, value: float = 0.45) -> torch.Tensor:
    """Scale a slice so that the head's median becomes ``value``, cut to [0, 1]; any shape.

    The scans come with any overall brightness, and their background is not 0. What is above the slice's mean counts as
    head. The median hardly moves with a bright lesion or with the fat of the scalp.
    """
    head = image[image > image.mean()]
    return torch.clip(image * (value / head.median()), 0, 1) if len(head) else torch.zeros_like(image)


def _read_table(path: Path) -> dict[str, dict[str, Any]]:
    """Attributes of every patient by id."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; give the folder that holds data.csv") from None
    needed = ["Patient", AGE, *(column for column, _ in CODES.values())]
    missing = [column for column in needed if column not in (rows[0] if rows else {})]
    if missing:
        raise InputError(f"{path}: no column '{missing[0]}'; take data.csv as published")
    patients: dict[str, dict[str, Any]] = {}
    for row in rows:
        subject = row["Patient"]
        if subject in patients:
            raise InputError(f"{path}: two rows for '{subject}'; keep one")
        patients[subject] = _attributes(row, f"{path}: patient '{subject}'")
    return patients


def _attributes(row: Mapping[str, str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {"subject": row["Patient"], "modality": "flair", "age": _number(row, AGE, where)}
    for name, (column, names) in CODES.items():
        code = _number(row, column, where)
        if code is not None and code not in names:
            raise InputError(f"{where}, column '{column}': unknown code {code}; the codes are {names}")
        found[name] = names.get(code)
    parts = row["Patient"].split("_")
    return found | {"site": parts[1] if len(parts) > 1 else None}


def _number(row: Mapping[str, str], column: str, where: str) -> int | None:
    """A whole number, which some tools write as ``2.0``; None for an empty cell."""
    text = (row[column] or "").strip()
    try:
        return int(float(text)) if text else None
    except ValueError:
        raise InputError(f"{where}, column '{column}': '{text}' is no number; leave unknown cells empty") from None


def _read_slices(folder: Path, subject: str) -> Iterator[dict[str, Any]]:
    """Paths, position and lesion of every slice of one folder, from the skull base upwards."""
    numbered = sorted(
        (int(match[1]), path) for path in folder.iterdir() if (match := _SLICE.fullmatch(path.name[len(folder.name) :]))
    )
    for number, path in numbered:
        mask = path.with_name(f"{path.stem}_mask.tif")
        if not mask.is_file():
            raise InputError(f"{path}: subject '{subject}', field 'mask': {mask.name} is missing; restore it")
        lowest, highest = numbered[0][0], numbered[-1][0]
        yield {
            "image": str(path),
            "mask": str(mask),
            "slice": number,
            "level": (number - lowest) / (highest - lowest) if highest > lowest else 0.5,
            "lesion_pixels": _lesion_pixels(mask),
        }


def _lesion_pixels(mask: Path) -> int:
    try:
        with Image.open(mask) as image:
            return int(np.count_nonzero(np.asarray(image)))
    except OSError as error:
        raise InputError(f"{mask}: cannot be read as an image ({error}); copy it again") from None
