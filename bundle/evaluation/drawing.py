"""How the report's figures look: settings, the page's width, rows with intervals, and SVG whose bytes depend on nothing
but the figure."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 6.9  # inches: the text column of a printed page; type of 9 points is 12 pixels there
INK, GRID, TARGET = "#222b36", "#dfe4ea", "#222b36"
SETTINGS = {
    "svg.hashsalt": "report",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


@dataclass(frozen=True)
class Style:
    """Colour and marker of a series."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Mark:
    """A row of a forest plot: a value with its interval."""

    label: str
    value: float
    ends: Sequence[float] | None
    style: Style


def draw_marks(ax: Axes, marks: Sequence[Mark]) -> None:
    """Rows from top to bottom: a line for the interval, a marker for the value."""
    for row, mark in enumerate(marks):
        colour = mark.style.colour
        if mark.ends:
            ax.plot(mark.ends, [row, row], color=colour, lw=2.2, solid_capstyle="butt")
        ax.plot([mark.value], [row], mark.style.marker, color=colour, ms=6.5, mec="white", mew=0.7, clip_on=False)
    ax.set_yticks(range(len(marks)), [mark.label for mark in marks])
    ax.set_ylim(len(marks) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    draw_grid(ax, "x")


def draw_grid(ax: Axes, axis: str) -> None:
    """Lines across one axis, behind what is drawn."""
    ax.grid(axis=axis, color=GRID, lw=0.8)
    ax.set_axisbelow(True)


def canvas(panels: int, height: float, columns: int = 1, title: str = "") -> tuple[Figure, Sequence[Axes]]:
    """A figure of the page's width with panels, `height` inches each, in rows of at most so many columns."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.1 + 0.22 * bool(title)), layout="constrained")
    if title:
        figure.suptitle(title, x=0.005, ha="left", size=9.5, weight="bold")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[panels:]:
        ax.set_axis_off()
    return figure, axes[:panels]


def as_svg(figure: Figure) -> bytes:
    """The figure's bytes, the same for the same figure."""
    stream = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return re.sub(rb"\n\s+", b"\n", stream.getvalue())  # a tenth of the bytes are indents
