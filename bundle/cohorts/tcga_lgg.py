"""The public TCGA-LGG slices as Buda et al. prepared them (Computers in Biology and Medicine 109, 2019).

Layout: ``kaggle_3m/<patient>_<date>/<patient>_<date>_<slice>.tif`` with ``..._<slice>_mask.tif`` beside it, and
``kaggle_3m/data.csv`` with one row per patient. The pictures are axial, anterior up, the patient's left on the right;
slice numbers grow from the skull base upwards. Their channels are pre-contrast, FLAIR and post-contrast.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bundle.attributes import Attribute
from bundle.cohorts.folders import entries, file_names
from bundle.cohorts.reading import LeftOut, Reading
from bundle.cohorts.record import Record, deal_subjects, in_random_order
from bundle.cohorts.slices import Slices, file_slices, oversampled
from bundle.cohorts.tables import Row, coded, read_table, years
from bundle.errors import InputError

# Codes of data.csv; an empty cell is unknown. Other data sets number the sexes the other way round.
CODES = {
    "sex": ("gender", {"1": "female", "2": "male"}),
    "grade": ("neoplasm_histologic_grade", {"1": "G2", "2": "G3"}),
    "side": ("laterality", {"1": "left", "2": "midline", "3": "right"}),
}
AGE = "age_at_initial_pathologic"

ROLES = ("source", "target", "guide", "judge", "validation", "everyone")

_SLICE = re.compile(r"_(\d+)\.tif")


def read(root: str | Path) -> Reading:
    """Read the cohort: one record per slice, ordered by patient folder and slice number.

    Args:
        root: the folder that holds ``data.csv`` (``kaggle_3m``), or its parent.

    Returns:
        with records of ``subject``, ``image`` and ``mask`` (paths), ``modality`` ("flair"), ``sex``, ``grade``,
        ``side``, ``age`` (years) and ``site`` (each None if unknown), ``slice`` (its number), ``level`` (0 at the
        subject's lowest slice here, 1 at the highest), and ``lesion_pixels`` (of the mask, at the file's resolution).

    Raises:
        InputError: for a missing table, column, row or mask, and for a code that the table's key does not know.
    """
    root = Path(root)
    root = root if (root / "data.csv").is_file() else root / "kaggle_3m"
    patients = _read_table(root / "data.csv")
    records, left_out = [], []
    folders = [root / entry.name for entry in entries(root) if entry.is_dir()]
    for folder in folders:
        subject = folder.name.rpartition("_")[0]  # the table leaves the date out
        if subject not in patients:
            raise InputError(f"{root / 'data.csv'}: no row for '{subject}' of folder {folder.name}; add it")
        slices, others = _read_slices(folder, subject)
        records += [patients[subject] | row for row in slices]
        left_out += others
    if not records:
        raise InputError(f"{root}: no slices in <patient>_<date> folders; unpack the whole archive there")
    without = sorted(patients.keys() - {folder.name.rpartition("_")[0] for folder in folders})
    left_out += [LeftOut("a row of data.csv without a folder", str(root / "data.csv"), subject) for subject in without]
    return Reading(records, left_out, _remarks(records))


def _remarks(records: Sequence[Record]) -> list[str]:
    people = {record["subject"]: record for record in records}.values()
    sites = Counter(record["site"] for record in people)
    unknown = sum(record["sex"] is None for record in people)
    return [
        f"{unknown} of {len(people)} patients have no sex in data.csv",
        f"patients by site: {', '.join(f'{site} {number}' for site, number in sites.most_common())}",
        "many of these patients are also in BraTS: never train on the one and test on the other",
    ]


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
    files = [{"image": str(record["image"]), "seg": str(record["mask"])} for record in records]
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


def _read_table(path: Path) -> dict[str, Record]:
    """Attributes of every patient by id."""
    patients: dict[str, Record] = {}
    for row in read_table(path, ["Patient", AGE, *(column for column, _ in CODES.values())]):
        subject = row["Patient"]
        if subject in patients:
            raise InputError(f"{path}: two rows for '{subject}'; keep one")
        patients[subject] = _attributes(row, f"{path}: patient '{subject}'")
    return patients


def _attributes(row: Row, where: str) -> Record:
    parts = row["Patient"].split("_")
    return {
        "subject": row["Patient"],
        "modality": "flair",
        "age": years(row[AGE], f"{where}, column '{AGE}'"),
        **{name: coded(row[column], codes, f"{where}, column '{column}'") for name, (column, codes) in CODES.items()},
        "site": parts[1] if len(parts) > 1 else None,
    }


def _read_slices(folder: Path, subject: str) -> tuple[list[Record], list[LeftOut]]:
    """Paths, position and lesion of every slice of one folder, from the skull base upwards, and its other files.

    Damage is refused and not left out, because jobs read this data set without a list in between.
    """
    names = file_names(folder)
    numbered = sorted((int(match[1]), name) for name in names if (match := _SLICE.fullmatch(name[len(folder.name) :])))
    records = []
    for number, name in numbered:
        mask = f"{name.removesuffix('.tif')}_mask.tif"
        if mask not in names:
            raise InputError(f"{folder / name}: subject '{subject}', field 'mask': {mask} is missing; restore it")
        lowest, highest = numbered[0][0], numbered[-1][0]
        level = (number - lowest) / (highest - lowest) if highest > lowest else 0.5
        images = {"image": folder / name, "mask": folder / mask}
        records.append(images | {"slice": number, "level": level, "lesion_pixels": _lesion_pixels(folder / mask)})
    used = {record[image].name for record in records for image in ("image", "mask")}
    others = [str(folder / name) for name in names if name not in used]
    left_out = [LeftOut("neither a slice nor its mask", name, subject) for name in others]
    return records, left_out + ([] if records else [LeftOut("a folder without slices", str(folder), subject)])


def _lesion_pixels(mask: Path) -> int:
    try:
        with Image.open(mask) as image:
            return int(np.count_nonzero(np.asarray(image)))
    except OSError as error:
        raise InputError(f"{mask}: cannot be read as an image ({error}); copy it again") from None
