"""The report as one page of HTML that opens without a network and prints well.

`page` fills the template `page.html.j2`; style, figures and images are inside the file, and there is no script. Its
bytes depend on the report and the pictures alone.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Template
from numpy.typing import ArrayLike
from PIL import Image

from bundle.evaluation import wording as words
from bundle.evaluation.checklist import checklist
from bundle.evaluation.figures import draw, shown_groups, side_names
from bundle.evaluation.limits import limits
from bundle.files import write_whole

Entry = dict[str, Any]
FOLDER = Path(__file__).parent
FILTERS = (
    words.calibration,
    words.clipped,
    words.count,
    words.difference,
    words.duration,
    words.estimate,
    words.number,
    words.p_value,
    words.percent,
    words.points,
    words.share,
    words.share_estimate,
)


@dataclass(frozen=True)
class Side:
    """A set of images: its key in the report, what the page calls it, and its entry."""

    key: str
    name: str
    entry: Entry


@dataclass(frozen=True)
class Pair:
    """The same noise before and after: two images as data URIs, and the judge's probability of the last group."""

    before: str
    after: str
    prompt: str
    p_before: float
    p_after: float


@dataclass(frozen=True)
class Closest:
    """A generated image and the training image nearest to it, as data URIs."""

    generated: str
    training: str
    distance: float
    group: str


def page(report: Entry, pictures: Mapping[str, Sequence] | None = None) -> str:
    """The whole page as HTML.

    Args:
        report: as `report.assemble` returns it; of what is null or absent the page says that it was not measured.
        pictures: `pairs`, tuples (before, after, prompt, p_before, p_after), and `closest`, tuples (generated,
            training, distance, group); either may be left out. An image is the bytes of a PNG, or an array (H, W) or
            (C, H, W) in [0, 1], grey or RGB.

    Raises:
        ValueError: an image has another shape.
    """
    pictures = pictures or {}
    return _template().render(
        report=report,
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        sides=[Side(key, name, report[key]) for key, name in side_names(report).items()],
        columns=[*side_names(report).items(), ("real", "real")],
        shown=shown_groups(report),
        last=report["groups"][-1],
        recall_heads=[f"Recall of {group}" for group in report["groups"]],
        called_heads=[f"called {group}" for group in report["groups"]],
        figures=draw(report),
        limits=limits(report),
        checklist=checklist(report),
        pairs=[Pair(_png(a), _png(b), prompt, p, q) for a, b, prompt, p, q in pictures.get("pairs", ())],
        closest=[Closest(_png(a), _png(b), d, group) for a, b, d, group in pictures.get("closest", ())],
    )


def write_page(report: Entry, pictures: Mapping[str, Sequence] | None, path: str | Path) -> Path:
    """Write the page, whole or not at all, and return its path; arguments as those of `page`."""
    return write_whole(path, page(report, pictures).encode())


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,
    )
    environment.filters.update({show.__name__: _of_defined(show) for show in FILTERS}, uri=_uri, score_bands=_bands)
    return environment.get_template("page.html.j2")


def _of_defined(show: Any) -> Any:
    """The filter, with what the report lacks as None."""
    return lambda value, *more: show(None if isinstance(value, ChainableUndefined) else value, *more)


def _bands(scores: Entry) -> list[str]:
    """Shares of the images with a score below 0.1, up to 0.5, up to 0.9 and above; bins count by their middle."""
    edges, counts = np.asarray(scores["edges"]), np.asarray(scores["counts"])
    band = np.digitize((edges[1:] + edges[:-1]) / 2, (0.1, 0.5, 0.9))
    return [words.percent(share) for share in np.bincount(band, counts, minlength=4) / max(counts.sum(), 1)]


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _png(image: bytes | ArrayLike) -> str:
    """An image as the data URI of a PNG with eight bits a channel."""
    if not isinstance(image, bytes):
        pixels = np.asarray(image, dtype=np.float64)
        pixels = pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1)
        if pixels.ndim == 3 and pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        if pixels.ndim != 2 and pixels.shape[2:] != (3,):
            raise ValueError(f"image: shape {np.shape(image)}; give (H, W), (1, H, W) or (3, H, W)")
        stream = io.BytesIO()
        Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(stream, "png", optimize=True)
        image = stream.getvalue()
    return "data:image/png;base64," + base64.b64encode(image).decode()
