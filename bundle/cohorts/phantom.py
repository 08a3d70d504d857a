"""The phantom cohort: synthetic brains on disk in the layout of BraTS 2018, for tests and the demonstration.

    <root>/<cohort>/{HGG,LGG}/<subject>/<subject>_{t1,t1ce,t2,flair,seg}.nii.gz
    <root>/<cohort>/datalist.json    records with paths relative to its folder
    <root>/<cohort>/truth.csv        what generated each subject

A subject depends on the seed, its cohort and its number alone, so order, processes and interruptions change nothing.
`phantom_anatomy` draws the brains; `phantom_reader` reads the trait and the lesion back from an image.
"""

import csv
import io
import json
import os
import shutil
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import ignite.distributed as idist
import nibabel
import numpy as np
from tqdm import tqdm

from bundle.cohorts.phantom_anatomy import MODALITIES, Subject, draw_subject, render
from bundle.cohorts.phantom_reader import read_lesion, read_trait
from bundle.cohorts.record import write_datalist
from bundle.errors import InputError
from bundle.files import write_whole

__all__ = ["COHORTS", "Cohort", "draw_cohort", "generate", "read_lesion", "read_trait"]

VERSION = 1  # raise it when the anatomy changes: cohorts on disk are then made anew
FIELD_OF_VIEW = np.array([240.0, 240.0, 155.0])  # mm, as in BraTS


@dataclass(frozen=True)
class Cohort:
    """How many subjects a cohort has, which share of them are men, and how much more the women vary than the men."""

    size: int
    male: float
    variety: float = 1.0


VARIETY = 2.5  # of the uneven cohorts

COHORTS = {
    "source": Cohort(600, 0.90),
    "target": Cohort(400, 0.58),
    "guide": Cohort(600, 0.50),
    "judge": Cohort(600, 0.50),
    "validation": Cohort(1000, 0.50),
}
# The same once more, with women who vary more: they are rare in the source, and harder to learn.
COHORTS |= {f"uneven_{name}": replace(cohort, variety=VARIETY) for name, cohort in COHORTS.items()}


@idist.one_rank_first()  # the others find what it has made
def generate(
    root: str | os.PathLike,
    cohort: str,
    shape: tuple[int, int, int] = (120, 120, 19),
    subjects: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write a cohort where it is not there yet and return the path of its `datalist.json`.

    `shape` is the grid laid over BraTS's field of view of 240 x 240 x 155 mm, so (240, 240, 155) is BraTS's own 1 mm;
    `subjects` keeps the first so many, which hold the cohort's proportion to within two subjects; `workers` is the
    number of processes (default: all cores). An interrupted call continues; a cohort made with another shape, seed
    or version of the anatomy is replaced.

    Raises InputError for an unknown cohort, a number of subjects it does not have, or a folder of another origin.
    """
    sexes = _sexes(cohort, seed)
    count = len(sexes) if subjects is None else subjects
    if not 0 < count <= len(sexes):
        raise InputError(f"phantom cohort '{cohort}': subjects is {count}; choose 1 to {len(sexes)}")
    if len(shape) != 3 or min(shape) < 8:
        raise InputError(f"phantom cohort '{cohort}': shape is {list(shape)}; give three numbers of voxels from 8 up")
    folder = _claim(Path(root) / cohort, {"version": VERSION, "shape": [int(n) for n in shape], "seed": seed})
    datalist = folder / "datalist.json"
    if _complete(datalist, count):
        return datalist
    write = partial(_write_subject, folder, tuple(shape), seed)
    with ProcessPoolExecutor(workers) as pool:
        jobs = pool.map(write, range(count), sexes[:count], chunksize=4)
        written = list(tqdm(jobs, total=count, desc=f"phantom {cohort}", unit="subject"))
    _write_truth(folder / "truth.csv", [truth for _, truth in written])
    write_datalist(datalist, [record for record, _ in written])
    return datalist


def draw_cohort(cohort: str, count: int | None = None, seed: int = 0) -> list[Subject]:
    """Draw the first `count` subjects of a cohort without rendering or writing anything."""
    return [_draw(cohort, seed, index, sex) for index, sex in enumerate(_sexes(cohort, seed)[:count])]


def _sexes(cohort: str, seed: int, block: int = 4) -> list[str]:
    """Sexes in order: exactly the cohort's share, and in every prefix to within two."""
    if cohort not in COHORTS:
        raise InputError(f"phantom cohort '{cohort}' is unknown; choose one of {', '.join(COHORTS)}")
    size, male = COHORTS[cohort].size, COHORTS[cohort].male
    quota = np.diff(np.rint(np.arange(size + 1) * male)).astype(int)
    rng = _generator(cohort, seed)
    order = np.concatenate([rng.permutation(quota[start : start + block]) for start in range(0, size, block)])
    return [("female", "male")[man] for man in order]


def _generator(cohort: str, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(cohort.encode()), *numbers])


def _draw(cohort: str, seed: int, index: int, sex: str) -> Subject:
    variety = COHORTS[cohort].variety if sex == "female" else 1.0
    return draw_subject(sex, _generator(cohort, seed, index), variety)


def _claim(folder: Path, parameters: dict) -> Path:
    """Make the cohort's folder, emptied first if it was generated with other parameters."""
    marker = folder / "parameters.json"
    if marker.exists() and json.loads(marker.read_text()) == parameters:
        return folder
    # another process may be writing the very same marker
    content = [path for path in folder.glob("*") if not path.name.startswith(marker.name)]
    if content and not marker.exists():
        raise InputError(f"{folder}: not empty and without a phantom's parameters.json; choose another root")
    if marker.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(marker, json.dumps(parameters).encode())
    return folder


def _complete(datalist: Path, count: int) -> bool:
    """Whether the datalist has that many subjects and each still has its folder; a deleted one is made again."""
    if not datalist.exists():
        return False
    records = json.loads(datalist.read_text())
    return len(records) == count and all((datalist.parent / record["t1"]).parent.exists() for record in records)


def _write_subject(folder: Path, shape: tuple[int, int, int], seed: int, index: int, sex: str) -> tuple[dict, dict]:
    """Render and write one subject unless it is there; return its record and its row of truth."""
    name = f"Phantom_{folder.name}_{index + 1:04d}"
    subject = _draw(folder.name, seed, index, sex)
    place = folder / subject.grade / name
    if not place.exists():
        partial_place = folder / f"{name}.partial{os.getpid()}"
        partial_place.mkdir(exist_ok=True)
        for kind, volume in _volumes(subject, shape).items():
            nibabel.save(volume, partial_place / f"{name}_{kind}.nii.gz")
        place.parent.mkdir(exist_ok=True)
        _rename_folder(partial_place, place)
    paths = {kind: place / f"{name}_{kind}.nii.gz" for kind in (*MODALITIES, "seg")}
    record = {"subject": name, **paths, "sex": sex, "grade": subject.grade, "age": subject.age}
    return record, {"subject": name, **_truth(subject)}


def _rename_folder(source: Path, destination: Path) -> None:
    try:
        source.rename(destination)
    except OSError:
        if not destination.exists():
            raise
        shutil.rmtree(source)  # another process has written the same subject meanwhile


def _volumes(subject: Subject, shape: tuple[int, int, int]) -> dict[str, nibabel.Nifti1Image]:
    """NIfTI volumes in BraTS's orientation: array axes to the left, posterior, superior."""
    spacing = FIELD_OF_VIEW / shape
    signs = np.array([-1, -1, 1])
    origin = -signs * (FIELD_OF_VIEW - spacing) / 2
    axes = [first + sign * step * np.arange(n) for first, sign, step, n in zip(origin, signs, spacing, shape)]
    images, segmentation = render(subject, *axes)
    affine = np.diag([*(signs * spacing), 1.0])
    affine[:3, 3] = origin
    return {kind: _nifti(volume, affine) for kind, volume in {**images, "seg": segmentation}.items()}


def _nifti(volume: np.ndarray, affine: np.ndarray) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    return image


def _truth(subject: Subject) -> dict:
    right, left = subject.ventricles
    lesion = subject.lesion
    return {
        "sex": subject.sex,
        "asymmetry": round(subject.asymmetry, 4),
        "larger_side": subject.larger_side,
        "ventricle_right_mm2": round(np.pi * right.half_width * right.half_length, 1),
        "ventricle_left_mm2": round(np.pi * left.half_width * left.half_length, 1),
        "brain_width_mm": round(2 * subject.semi_axes[0], 1),
        "brain_length_mm": round(2 * subject.semi_axes[1], 1),
        "brain_height_mm": round(2 * subject.semi_axes[2], 1),
        "tilt_degrees": round(np.degrees(subject.tilt), 2),
        "lesion_side": "right" if lesion.centre[0] > 0 else "left",
        "lesion_radius_mm": round(lesion.radius, 1),
        "lesion_level_mm": round(lesion.centre[2], 1),
    }


def _write_truth(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
