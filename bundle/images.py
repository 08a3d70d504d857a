"""Images on disk that are read where they are looked at, so that how many there are costs no memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
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

    def _file(self) -> np.ndarray:
        """Opened anew each time: pages that were looked at go back when the mapping ends."""
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: damaged ({error}); delete it and run the job again") from error


class ByteImages:
    """Images in memory as bytes, (N, C, H, W) uint8, a quarter of what they take as numbers."""

    def __init__(self, pixels: Tensor):
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, places: Places) -> Tensor:
        return self.pixels[places if isinstance(places, slice) else torch.as_tensor(places)].float() / 255


class Some:
    """Chosen ones of other images, in the order of ``places`` (B,)."""

    def __init__(self, images: Images, places: Sequence[int] | np.ndarray):
        self.images, self.places = images, np.asarray(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, places: Places) -> Tensor:
        return self.images[self.places[places if isinstance(places, slice) else np.asarray(places)]]


def as_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, 255 for 1."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def write_images(batches: Iterable[Tensor], number: int, path: str | Path) -> StoredImages:
    """Write ``number`` images (C, H, W) in [0, 1], given in batches, as bytes; the file appears once it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            written = _write_all(batches, number, stream)
        if written != number:
            raise ValueError(f"{path}: {written} images where {number} were announced")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return StoredImages(path)


def _write_all(batches: Iterable[Tensor], number: int, stream: BinaryIO) -> int:
    written = 0
    for batch in batches:
        content = as_bytes(batch).cpu().contiguous().numpy()
        if not written:
            header = {"descr": "|u1", "fortran_order": False, "shape": (number, *content.shape[1:])}
            np.lib.format.write_array_header_1_0(stream, header)
        stream.write(content.tobytes())
        written += len(content)
    return written
