"""Look into every image of a cohort before a training does: what cannot be used is left out and listed, with why."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from tqdm import tqdm

from bundle.cohorts.reading import LeftOut
from bundle.cohorts.record import Record
from bundle.errors import InputError

VOLUMES = (".nii", ".nii.gz")
MAY_BE_EMPTY = ("seg", "mask")  # columns of images that show nothing where there is no lesion
RULES = 1  # of what is wrong with an image; others are asked of every file anew
SAME_PLACE = 1e-3  # mm, or its fraction of a direction: affines that differ less are one


def verify(records: Sequence[Record], journal: str | Path) -> tuple[list[Record], list[LeftOut]]:
    """Read all images of every record with all cores; returns the sound records, and what is left out.

    What was looked at stands in ``journal``, one line a record, by path, size and time of change, so that a stopped
    verification goes on, and a second one looks at new files only. Raises InputError when nothing is left.
    """
    journal = Path(journal)
    stamps = [_stamp(_images(record)) for record in records]
    known = _read_journal(journal)
    left = [place for place, stamp in enumerate(stamps) if stamp not in known]
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a") as lines:
        for place, found in zip(left, _problems([_images(records[place]) for place in left]), strict=True):
            known[stamps[place]] = found
            print(json.dumps([stamps[place], found]), file=lines, flush=True)
    sound = [record for record, stamp in zip(records, stamps, strict=True) if known[stamp] is None]
    if not sound:
        file, reason, detail = known[stamps[0]]
        raise InputError(f"{file}: {reason} ({detail}), and no other image can be used either; copy them again")
    bad = ((record["subject"], known[stamp]) for record, stamp in zip(records, stamps, strict=True) if known[stamp])
    return sound, [LeftOut(reason, file, subject, detail) for subject, (file, reason, detail) in bad]


def problem(images: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The first thing wrong with the images of one record (column -> path): file, reason, detail; None if sound."""
    first: nib.Nifti1Image | None = None
    for name, path in images.items():
        may_be_empty = name in MAY_BE_EMPTY
        if not path.lower().endswith(VOLUMES):
            found = _picture_problem(path, may_be_empty)
        else:
            found, volume = _volume_problem(path, may_be_empty)
            if found is None:
                found, first = _difference(first, volume), first or volume
        if found is not None:
            return path, *found
    return None


def _images(record: Record) -> dict[str, str]:
    return {name: str(value) for name, value in record.items() if isinstance(value, Path)}


def _stamp(images: Mapping[str, str]) -> str:
    def one(path: str) -> str:
        try:
            status = os.stat(path)
        except OSError as error:
            return f"{path} {error.strerror}"
        return f"{path} {status.st_size} {status.st_mtime_ns}"

    return f"{RULES}: {' '.join(map(one, images.values()))}"


def _read_journal(path: Path) -> dict[str, list | None]:
    """What earlier verifications found; the last line of one that was killed may be broken off."""
    known = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            stamp, found = json.loads(line)
        except ValueError:
            continue
        known[stamp] = found
    return known


def _problems(jobs: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str, str] | None]:
    if not jobs:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ProcessPoolExecutor(cores) as pool:
        yield from tqdm(pool.map(problem, jobs, chunksize=16), total=len(jobs), desc="verifying", unit="record")


def _picture_problem(path: str, may_be_empty: bool) -> tuple[str, str] | None:
    if Path(path).is_dir() or path.lower().endswith(".dcm"):
        return _dicom_problem(Path(path))
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                return "animated picture", f"{picture.n_frames} frames"
            if picture.mode == "CMYK" or picture.mode.startswith(("I", "F")):
                return ("CMYK picture" if picture.mode == "CMYK" else "picture of more than 8 bits"), picture.mode
            extremes = picture.convert("L").getextrema()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return "picture that cannot be read", _short(error)
    if extremes[0] == extremes[1] and not may_be_empty:
        return "picture of one colour", str(extremes[0])
    return None


def _dicom_problem(path: Path) -> tuple[str, str] | None:
    try:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            pydicom.dcmread(file).pixel_array  # noqa: B018
    except Exception as error:  # decoders have errors of their own
        return "DICOM image that cannot be read", _short(error)
    return None


def _volume_problem(path: str, may_be_empty: bool) -> tuple[tuple[str, str] | None, nib.Nifti1Image | None]:
    try:
        volume = nib.load(path)
        values = np.asanyarray(volume.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        return ("volume that cannot be read", _short(error)), None
    if values.ndim != 3:
        return ("volume that is not three-dimensional", str(values.shape)), None
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return ("volume with NaN or infinite voxels", f"{int((~np.isfinite(values)).sum())} of them"), None
    if not values.any() and not may_be_empty:
        return ("volume of zeros", ""), None
    return None, volume


def _difference(first: nib.Nifti1Image | None, volume: nib.Nifti1Image) -> tuple[str, str] | None:
    """How the grid of a volume differs from that of the record's first."""
    if first is None:
        return None
    if first.shape != volume.shape:
        return "volumes of one subject differ in shape", f"{volume.shape}, the first has {first.shape}"
    away = float(np.abs(first.affine - volume.affine).max())
    return None if away <= SAME_PLACE else ("volumes of one subject differ in affine", f"by {away:g}")


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
