"""Pictures of what a model under tuning makes, from the same noise each time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from bundle.files import write_whole
from bundle.generation import Draws, Sampler
from bundle.training.average import WeightAverage


class SampleGrids:
    """After given iterations writes images by the averaged weights, side by side, to ``folder/iteration_NNNN.png``."""

    def __init__(
        self, average: WeightAverage, sampler: Sampler, draws: Draws, folder: str | Path, iterations: Sequence[int]
    ):
        self.average, self.sampler, self.draws = average, sampler, draws
        self.folder, self.iterations = Path(folder), frozenset(iterations)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration in self.iterations and idist.get_rank() == 0:
            images = self.sampler.images(self.average.network, self.draws, label="sample grid")
            write_sheet(images, self.folder / f"iteration_{engine.state.iteration:04d}.png")


def write_sheet(images: Tensor, path: str | Path) -> Path:
    """Images (N, C, H, W) in [0, 1], grey or RGB, eight in a row, as a PNG."""
    grid = make_grid(images, nrow=8, padding=2).permute(1, 2, 0)  # three channels, of grey images too
    png = io.BytesIO()
    Image.fromarray((grid * 255).round().byte().numpy()).save(png, "png")
    return write_whole(path, png.getvalue())
