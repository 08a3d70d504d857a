"""Images on disk that are read where they are looked at, so that how many there are costs no memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.errors import InputError

Places = Sequence[int] | Tensor | slice


class Images(Protocol):
    """N images; ``images[places]`` are some of them, (B, C, H, W) float32 in [0, 1]. A tensor is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: Places) -> Tensor: ...


class StoredImages:
    """Images in one file of numpy's, (N, C, H, W) uint8; only what is asked for is read."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.shape = self._file().shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Places) -> Tensor:
        rows = places if isinstance(places, slice) else np.asarray(places)
        return torch.from_numpy(np.array(self._file()[rows])).float() / 255

    def _file(self) -> NDArray[np.uint8]:
        """Opened anew each time: pages that were looked at go back when the mapping ends."""
        return mapped(self.path)


class Some:
    """Chosen ones of other images, in the order of ``places`` (B,); none is copied before it is asked for."""

    def __init__(self, images: Images, places: Sequence[int] | NDArray[np.integer]):
        places = np.asarray(places, dtype=np.int64)
        further = isinstance(images, Some)
        self.images, self.places = (images.images, images.places[places]) if further else (images, places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, places: Places) -> Tensor:
        return self.images[self.places[places if isinstance(places, slice) else np.asarray(places)]]


def as_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, 255 for 1."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def kept_images(batches: Callable[[], Iterable[Tensor]], number: int, path: str | Path) -> StoredImages:
    """The images of a file, which is made from ``batches()`` where it is not there yet."""
    return StoredImages(path) if Path(path).is_file() else write_images(batches(), number, path)


def write_images(batches: Iterable[Tensor], number: int, path: str | Path) -> StoredImages:
    """Write ``number`` images (C, H, W) in [0, 1], given in batches, as bytes."""
    return StoredImages(write_array((as_bytes(batch).cpu().numpy() for batch in batches), number, path))


def mapped(path: str | Path) -> np.ndarray:
    """An array of which a page is read when it is looked at; changes stay in memory. Raises InputError if damaged."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run the job again") from error


def write_array(batches: Iterable[np.ndarray], number: int, path: str | Path) -> Path:
    """Write ``number`` rows, given in batches of which one is in memory at a time; the file appears once it is whole.

    Raises ValueError for another number.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            written = _write_all(batches, number, stream)
        if written != number:
            raise ValueError(f"{path}: {written} rows where {number} were announced")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write_all(batches: Iterable[np.ndarray], number: int, stream: BinaryIO) -> int:
    written = 0
    for batch in batches:
        if not written:
            kind = np.lib.format.dtype_to_descr(batch.dtype)
            header = {"descr": kind, "fortran_order": False, "shape": (number, *batch.shape[1:])}
            np.lib.format.write_array_header_1_0(stream, header)
        stream.write(batch.tobytes())
        written += len(batch)
    return written
