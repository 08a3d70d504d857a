"""What a cohort holds, as a table to read and a sheet of pictures to look at before anything is trained on it."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, product, zip_longest
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bundle.cohorts.reading import Reading
from bundle.cohorts.record import Record, in_random_order
from bundle.cohorts.verify import VOLUMES
from bundle.files import write_whole

UNKNOWN = "unknown"
COLUMNS = 8  # of the sheet
MODALITIES = ("image", "flair", "t1ce", "t2", "t1")  # the first that a record has is shown, or else its first image


def summary(reading: Reading, attribute: str, stratum: str | None, roles: Collection[str]) -> str:
    """Subjects by stratum, group and role, what was left out and why, remarks; every subject counts once.

    Args:
        attribute: a column of the records; so is ``stratum``, if there is one.
        roles: those that the jobs need, of which each wants people of every group and stratum.
    """
    records = reading.records
    shown = [name for name in (stratum, attribute) if name is not None]
    columns = pd.DataFrame([{name: record.get(name) for name in ("subject", "role", *shown)} for record in records])
    people = columns.groupby("subject", sort=False).first()  # the first known value
    rows = [people[name].fillna(UNKNOWN).astype(str) for name in shown]
    table = pd.crosstab(rows, people["role"], margins=True, margins_name="all")
    lines = [f"{len(records)} images or volumes of {len(people)} subjects", "", table.to_string(), ""]
    lines += [f"left out: {len(reading.left_out)}", *(f"{n:8d}  {reason}" for reason, n in reading.reasons())]
    lines += [f"Caution: {role} has nobody of {cell}." for role, cell in _empty_cells(people, shown, roles)]
    return "\n".join([*lines, *(f"Remark: {remark}" for remark in reading.remarks)])


def contact_sheet(records: Sequence[Record], attribute: str, path: str | Path, number: int = 24) -> Path:
    """A PNG of ``number`` pictures, or middle slices of volumes, drawn at random and evenly over the groups."""
    chosen = _evenly(records, attribute, number)
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(1.6 * COLUMNS, 1.8 * rows), layout="constrained")
    for place, record in enumerate(chosen):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.imshow(_shown(record), cmap="gray")
        axes.set_title(f"{record.get(attribute) or UNKNOWN}, {record['role']}", fontsize=8)
        axes.set_axis_off()
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return write_whole(path, png.getvalue())


def _empty_cells(people: pd.DataFrame, columns: Sequence[str], roles: Collection[str]) -> Iterator[tuple[str, str]]:
    """Roles and groups, of every stratum that there is, that nobody belongs to."""
    known = people.dropna(subset=list(columns))
    cells = [", ".join(values) for values in known[list(columns)].astype(str).itertuples(index=False)]
    there = set(zip(known["role"], cells, strict=True))
    yield from (pair for pair in product(roles, sorted(set(cells))) if pair not in there)


def _evenly(records: Sequence[Record], attribute: str, number: int) -> list[Record]:
    """One person of each group in turn, by the middle one of their images."""
    people: dict[str, list[Record]] = {}
    for record in in_random_order(records):
        people.setdefault(record["subject"], []).append(record)
    groups: dict[str, list[Record]] = {}
    for own in people.values():
        known = [record for record in own if record.get(attribute) is not None] or own
        groups.setdefault(str(known[0].get(attribute)), []).append(known[len(known) // 2])
    turns = chain.from_iterable(zip_longest(*groups.values()))
    return [record for record in turns if record is not None][:number]


def _shown(record: Record) -> np.ndarray:
    images = {name: str(value) for name, value in record.items() if isinstance(value, Path)}
    path = next((images[name] for name in MODALITIES if name in images), next(iter(images.values())))
    if path.lower().endswith(VOLUMES):
        volume = nib.as_closest_canonical(nib.load(path))
        return np.rot90(np.asarray(volume.dataobj[..., volume.shape[2] // 2], dtype=float))
    if Path(path).is_dir() or path.lower().endswith(".dcm"):
        return _dicom(path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB" if picture.mode not in ("L", "1") else "L").resize((160, 160)))


def _dicom(path: str) -> np.ndarray:
    from monai.transforms import LoadImage  # slow to import, and few need it

    values = np.asarray(LoadImage(image_only=True)(path)).T
    return values if values.ndim == 2 else values[len(values) // 2]
