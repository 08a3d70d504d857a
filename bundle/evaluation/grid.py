"""Images before and after, in pairs, as one picture."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from bundle.files import write_whole

# Sizes in pixels of the picture.
WIDTH, TITLE, CAPTION, LABEL, MARGIN, SPACE = 1200, 64, 34, 20, 16, 4


def sample_grid(
    before: ArrayLike,
    after: ArrayLike,
    prompts: Sequence[str],
    p_before: ArrayLike,
    p_after: ArrayLike,
    path: str | Path,
    group: str = "male",
    note: str = "",
    pairs_per_row: int = 4,
) -> Path:
    """Draw pairs of images made from the same noise and prompt as a PNG 1,200 pixels wide; return its path.

    Labels of a pair that the judge calls differently before and after are bold.

    Args:
        before: (N, C, H, H) images in [0, 1], grey or RGB.
        after: the same shape.
        prompts: N texts, shown shortened.
        p_before: (N,) the judge's probability of `group`.
        p_after: the same after.
        path: of the PNG; its bytes depend on the other arguments alone.
        group: name of the group whose probability is given.
        note: added to the legend, such as how the pairs were chosen.
        pairs_per_row: fewer make the images larger.

    Raises:
        ValueError: arguments that do not match.
    """
    images = np.stack([np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)], axis=1)
    p = np.stack([np.ravel(p_before), np.ravel(p_after)], axis=1)
    if images.ndim != 5 or images.shape[2] not in (1, 3) or not len(images) == len(p) == len(prompts) > 0:
        raise ValueError(f"images: {images.shape} for {len(prompts)} prompts; give (N, 1 or 3, H, H) and N prompts")
    pair_width = (WIDTH - MARGIN) // pairs_per_row
    size = (pair_width - MARGIN - SPACE) // 2
    pair_height = CAPTION + LABEL + size + MARGIN
    rows = -(-len(images) // pairs_per_row)
    figure = Figure(figsize=(WIDTH / 100, (TITLE + rows * pair_height) / 100), dpi=100, facecolor="white")
    title = "Synthetic images before and after, in pairs from the same noise and prompt"
    legend = f"p: the judge's probability of {group}; bold where its call changes" + f"; {note}" * bool(note)
    _text(figure, WIDTH / 2, 10, title, size=14, ha="center", weight="bold")
    _text(figure, WIDTH / 2, 36, legend, size=10, ha="center")
    for k, prompt in enumerate(prompts):
        row, column = divmod(k, pairs_per_row)
        x, y = MARGIN + column * pair_width, TITLE + row * pair_height
        _text(figure, x, y, "\n".join(textwrap.wrap(prompt, pair_width // 7, max_lines=2, placeholder=" ...")), size=9)
        _draw_pair(figure, np.moveaxis(images[k], 1, -1), p[k], x, y + CAPTION, size)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return write_whole(path, png.getvalue())


def _draw_pair(figure: Figure, pair: NDArray, p: NDArray, x: float, y: float, size: int) -> None:
    width, height = figure.get_size_inches() * 100
    weight = "bold" if (p[0] > 0.5) != (p[1] > 0.5) else "normal"
    for name, image, probability, left in zip(("before", "after"), pair, p, (x, x + size + SPACE), strict=True):
        _text(figure, left, y, f"{name}: p = {probability:.2f}", size=10, weight=weight)
        axes = figure.add_axes((left / width, 1 - (y + LABEL + size) / height, size / width, size / height))
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()


def _text(figure: Figure, x: float, y: float, text: str, **style: str | int) -> None:
    width, height = figure.get_size_inches() * 100
    figure.text(x / width, 1 - y / height, text, **{"ha": "left", "va": "top", **style})
