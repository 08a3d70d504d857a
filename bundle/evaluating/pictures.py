"""Images in folders, whatever wrote them: found, checked before any compute, and kept in one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import nibabel
import pydicom
import torch
from monai.data.utils import pickle_hashing
from monai.utils import convert_to_tensor
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from bundle.cohorts.folders import walk
from bundle.errors import InputError
from bundle.images import StoredImages, write_images

KINDS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg"), "picture"),
    **dict.fromkeys((".nii", ".nii.gz"), "volume"),
    ".dcm": "dicom",
}
FEWEST = 4  # images of which anything can be said
BATCH_SIZE = 64


def read_pictures(
    folder: str | Path,
    names: Sequence[str],
    transforms: Mapping[str, Callable],
    cache_dir: str | Path,
    shape: Sequence[int],
) -> StoredImages:
    """Images (N, C, H, W) of the pictures of these names, from ``picture_names``, in a folder.

    Args:
        transforms: by kind, picture, volume and dicom, what turns {"image": path} into (C, H, W) in [0, 1].
        cache_dir: where the images are kept, under a name that depends on files and transforms.
        shape: (C, H, W) of the real images.

    Raises:
        InputError: an image that cannot be read, is of another size than the others, or does not become one of
            ``shape``.
    """
    files = [str(Path(folder) / name) for name in names]
    _check_sizes(files)
    chosen = {kind: transforms[kind] for kind in {_kind(file) for file in files}}
    stamps = [(name, os.stat(file).st_size, os.stat(file).st_mtime_ns) for name, file in zip(names, files, strict=True)]
    key = pickle_hashing([str(Path(folder).resolve()), stamps, sorted(chosen.items()), list(shape)]).decode()
    path = Path(cache_dir) / f"pictures_{key}.npy"
    if not path.is_file():
        write_images(_batches(files, chosen, tuple(shape), str(folder)), len(files), path)
    return StoredImages(path)


def require_same_names(folders: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError unless all folders hold files of the same names: those come from one prompt and noise."""
    (first, names), *others = folders.items()
    for other, found in others:
        odd = sorted(set(names) ^ set(found))
        if odd:
            raise InputError(
                f"{other}: '{odd[0]}' has no partner between it and {first} ({len(odd)} of these); "
                "name images of one prompt and noise alike in both folders"
            )


def picture_names(folder: str | Path) -> list[str]:
    """Names of all pictures in a folder and the folders in it, relative to it, sorted. Raises InputError where there is
    no such folder, or hardly an image in it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of the images")
    found = [os.path.relpath(os.path.join(place, name), folder) for place, files, _ in walk(folder) for name in files]
    names = sorted(name for name in found if not Path(name).name.startswith(".") and _kind(name))
    if len(names) < FEWEST:
        raise InputError(
            f"{folder}: {len(names)} image(s) among {len(found)} files; at least {FEWEST} are needed, "
            f"of the kinds {', '.join(KINDS)}"
        )
    return names


def _kind(name: str) -> str | None:
    lower = name.lower()
    return next((kind for suffix, kind in KINDS.items() if lower.endswith(suffix)), None)


def _check_sizes(files: Sequence[str]) -> None:
    """Look at the heads of all files: pictures of two sizes are of two models, or half of them went through another
    program."""
    first = _size(files[0])
    for file in tqdm(files, desc="sizes", unit="file", leave=False):
        if _size(file) != first:
            sizes = (" x ".join(map(str, size)) for size in (_size(file), first))
            raise InputError(f"{file}: {next(sizes)} pixels, '{files[0]}' has {next(sizes)}; give images of one size")


def _size(file: str) -> tuple[int, ...]:
    try:
        if _kind(file) == "picture":
            with Image.open(file) as picture:
                return picture.size
        if _kind(file) == "dicom":
            head = pydicom.dcmread(file, stop_before_pixels=True)
            return int(head.Columns), int(head.Rows)
        return tuple(n for n in nibabel.load(file).shape if n > 1)
    except Exception as error:  # the three libraries raise many kinds
        raise _unreadable(file, error) from error


def _batches(
    files: Sequence[str], transforms: Mapping[str, Callable], shape: tuple[int, ...], label: str
) -> Iterator[Tensor]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    stream = torch.Generator()  # torch's own is for the jobs
    loader = DataLoader(_Files(files, transforms, shape), BATCH_SIZE, num_workers=cores, generator=stream)
    try:
        yield from tqdm(loader, desc=label, unit="batch", leave=False)
    except InputError as error:  # a worker hands its whole traceback on as the message
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


class _Files:
    """Files as images (C, H, W) of the right shape."""

    def __init__(self, files: Sequence[str], transforms: Mapping[str, Callable], shape: tuple[int, ...]):
        self.files, self.transforms, self.shape = list(files), dict(transforms), shape

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Tensor:
        file = self.files[place]
        try:
            image = convert_to_tensor(self.transforms[_kind(file)]({"image": file})["image"], track_meta=False)
        except Exception as error:  # readers and transforms raise many kinds
            raise _unreadable(file, error) from error
        if tuple(image.shape) != self.shape:
            raise InputError(f"{file}: becomes {tuple(image.shape)}, the real images are {self.shape}; see --channels")
        return image.float()


def _unreadable(file: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{file}: cannot be read as an image ({reason}); repair it, or take it out of the folder")
