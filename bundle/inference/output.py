"""A folder of generated images with their manifest, written batch by batch and gone on with after a stop.

settings.json   what the images are made with; there from the beginning
images/         000000.png, 000001.png, ...
nifti/          the same pixels, where they are asked for
manifest.csv    a row for each image; .manifest.csv while it grows
manifest.json   the settings, counts, the judge's calls; written last, so it is there when all is
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.files import file_digest, write_whole
from bundle.images import as_bytes
from bundle.inference import formats, manifest
from bundle.inference.prompts import Drawn, InTurn

logger = logging.getLogger(__name__)


class Judge(Protocol):
    def predict(self, images: Tensor, *, first: int) -> Tensor: ...


class Output:
    """Writes what an evaluator makes, and knows which images are there already.

    Args:
        folder: of the images; one that holds images of other settings is refused.
        wanted: what each of the ``number`` images shall show.
        judge: classifier whose probabilities of the groups of ``attribute`` go into the manifest.
        networks: by name, those that make and read the images; their digests are compared like the settings.
        settings: what else the images depend on, the ``seed`` among it.
        batch_size: of the evaluator; a stopped job goes on by whole batches, because the last bits of a number may
            depend on what else is in its batch.
        nifti: whether NIfTI files are written beside the pictures.
        pixel_size: in mm; None where it is not known.
    """

    def __init__(
        self,
        folder: str | Path,
        wanted: InTurn | Drawn,
        number: int,
        judge: Judge,
        attribute: Attribute,
        networks: Mapping[str, nn.Module],
        settings: Mapping[str, Any],
        batch_size: int,
        nifti: bool = False,
        pixel_size: float | None = None,
    ):
        self.folder, self.wanted, self.number, self.batch_size = Path(folder), wanted, number, batch_size
        self.judge, self.attribute, self.networks = judge, attribute, dict(networks)
        self.settings = {**settings, "nifti": nifti, "pixel_size": pixel_size}
        self.images, self.table = self.folder / "images", self.folder / "manifest.csv"
        self.growing, self.manifest = self.folder / ".manifest.csv", self.folder / "manifest.json"

    @cached_property
    def head(self) -> dict:
        """What holds for all images."""
        facts = {"num_images": self.number, "batch_size": self.batch_size, "prompts": self.wanted.digest()}
        return manifest.head(self.networks, {**self.settings, **facts})

    @cached_property
    def done(self) -> int:
        """How many images of whole batches were there at the beginning, with their rows."""
        rows = sum(1 for _ in self._rows())
        return rows if rows == self.number else rows - rows % self.batch_size

    @property
    def complete(self) -> bool:
        return self.done == self.number

    def start(self) -> None:
        """Make the folder ready to be gone on with. Raises InputError where it holds images of other settings."""
        path = self.folder / "settings.json"
        if path.is_file():
            manifest.require_same(path, self.head)
        elif self.images.exists() or self.table.exists():
            raise InputError(f"{self.folder}: holds images and no settings.json; give another --output_dir")
        write_whole(path, manifest.to_json(self.head))
        for stray in self.folder.glob("*/.*"):  # of a file that was being written
            stray.unlink()
        self._cut_table()
        logger.info("%s: %d of %d images are there", self.folder, self.done, self.number)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write the images of a batch, then their rows."""
        pixels = as_bytes(engine.state.output["pred"])
        indices = engine.state.batch["index"].tolist()
        readings = self.judge.predict(pixels.float() / 255, first=indices[0]).tolist()
        lines = [self._write(*item) for item in zip(indices, pixels.numpy(), readings, strict=True)]
        with self.growing.open("ab") as stream:
            stream.write(b"".join(lines))

    def finish(self) -> None:
        """Give the table its name, and write the manifest."""
        self.growing.replace(self.table)
        columns = manifest.columns(self.attribute)
        content = {
            **self.head,
            "images": {"number": self.number, "folder": "images", "nifti": "nifti" if self.settings["nifti"] else None},
            "table": {"file": self.table.name, "sha256": file_digest(self.table), "columns": columns},
            "judge": manifest.calls(self.table, self.attribute),
        }
        write_whole(self.manifest, manifest.to_json(content))
        logger.info("%s: %d images", self.manifest, self.number)

    def _write(self, index: int, pixels: NDArray[np.uint8], readings: Sequence[float]) -> bytes:
        """Write one image; its row."""
        request, seed, name = self.wanted[index], self.settings["seed"], f"{index:06d}"
        facts = {"Prompt": request.prompt, "Seed": str(seed), "Index": str(index)}
        write_whole(self.images / f"{name}.png", formats.png(pixels, facts))
        if self.settings["nifti"]:
            content = formats.nifti(pixels, self.settings["pixel_size"])
            write_whole(self.folder / "nifti" / f"{name}.nii.gz", content)
        cells = [f"{name}.png", index, seed, request.prompt, request.stated or "", manifest.pixel_digest(pixels)]
        return manifest.line([*cells, *(f"{probability:.6f}" for probability in readings)])

    def _rows(self) -> Iterator[bytes]:
        """Rows of the leading images that are there, whole."""
        path = self.growing if self.growing.is_file() else self.table
        if not path.is_file():
            return
        with path.open("rb") as lines:
            next(lines)
            for index, row in zip(range(self.number), lines):
                if not row.endswith(b"\n") or not self._there(index):
                    return
                yield row

    def _there(self, index: int) -> bool:
        name = f"{index:06d}"
        files = [self.images / f"{name}.png"]
        if self.settings["nifti"]:
            files.append(self.folder / "nifti" / f"{name}.nii.gz")
        return all(file.is_file() for file in files)

    def _cut_table(self) -> None:
        """Leave the rows of the images that are done, in a table that can grow."""
        header = manifest.line(manifest.columns(self.attribute))
        size = len(header) + sum(len(row) for row, _ in zip(self._rows(), range(self.done)))
        if self.table.is_file():
            self.manifest.unlink(missing_ok=True)
            self.table.replace(self.growing)
        if not self.growing.is_file():
            write_whole(self.growing, header)
        os.truncate(self.growing, size)
