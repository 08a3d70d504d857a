"""What the documents say of the coverage study: its figure, its table, and whether its bars are held."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bundle.files import write_whole
from scripts.jobs import markdown, replace_section
from scripts.results import Bar, percent

FIGURE, PAGE = Path("docs/coverage.svg"), Path("docs/results.md")
BAND, FLOOR = (0.93, 0.975), 0.925  # the bars: mean coverage, and that of every cell

# Colours of Okabe and Ito, which the colour-blind tell apart, each with a shape of its own.
OURS = (("#0072B2", "o"), ("#009E73", "s"), ("#B5558C", "^"))  # the purple a little darker, for contrast on white
NAIVE = ("#D55E00", "X")
INK, GREY = "#222222", "#E4E4E4"

Row = Mapping[str, Any]


def write_document(study: Mapping[str, Any], figure: Path, page: Path) -> None:
    """Write the figure, and the section between the lines ``coverage`` of the page."""
    main = [row for row in study["cells"] if row["slices"] == study["slices"][0]]
    write_whole(figure, draw(main, study["repeats"]))
    replace_section(page, "coverage", section(study, os.path.relpath(figure, page.parent)))


def section(study: Mapping[str, Any], figure: str) -> str:
    """Figure, table and bars, in Markdown."""
    main, *others = (([row for row in study["cells"] if row["slices"] == s], s) for s in study["slices"])
    rows = [_line(f"{100 * a:g} %", str(n), cells) for (a, n), cells in _blocks(main[0])]
    for cells, slices in [main, *others]:
        rows.append(_line("**all**", _slices(slices), cells))
    header = "accuracy,subjects,mean,worst cell,mean width,naive: mean,naive: best cell,naive: worst cell,naive: width"
    verdict = "; ".join(f"{bar.name}: {bar}" for bar in bars(main[0]))
    whole = max(study["cells"], key=lambda row: row["whole"])
    parts = [f"![{alt_text(main[0])}]({figure})", markdown(header.split(","), rows), f"Bars: {verdict}."]
    for cells, slices in others:
        parts.append(f"Outside the bars, {_slices(slices)}: {_beside(cells)}.")
    if whole["whole"]:
        most = f"{percent(whole['whole'])} of them in one cell ({_at(whole)}, {_slices(whole['slices'])})"
        parts.append(f"An interval that is all of 0 to 100 % holds any proportion: at most {most} were such.")
    return "\n\n".join(parts)


def bars(cells: Sequence[Row]) -> Iterator[Bar]:
    """The two conditions of the study."""
    average, worst = mean(row["coverage"] for row in cells), min(cells, key=lambda row: row["coverage"])
    low, high = BAND
    yield Bar(f"mean coverage {100 * low:g} to {100 * high:g} %", percent(average), low <= average <= high)
    yield Bar(f"no cell under {100 * FLOOR:g} %", _told(worst), worst["coverage"] >= FLOOR)


def alt_text(cells: Sequence[Row]) -> str:
    """The figure in a sentence, from the numbers."""

    def told(key: str) -> str:
        values = [row[key] for row in cells]
        return f"{percent(mean(values))} on average and {percent(min(values))} at worst"

    ours, naive = told("coverage"), told("naive_coverage")
    return f"Coverage of 95 % intervals: that of the adjusted count {ours}, that of the naive count {naive}."


def draw(cells: Sequence[Row], repeats: int) -> bytes:
    """SVG, 900 pixels wide: a column per accuracy, all of the scale above, the neighbourhood of 95 % below.

    Its bytes depend on the arguments alone. Letters are drawn as paths, so that they look the same everywhere.
    """
    accuracies = sorted({row["accuracy"] for row in cells})
    style = {"svg.hashsalt": "coverage", "svg.fonttype": "path", "font.size": 9.5, "axes.edgecolor": "#888888"}
    with matplotlib.rc_context({**style, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(9.375, 6.0), layout="constrained")
        axes = figure.subplots(2, len(accuracies), sharex=True, sharey="row", squeeze=False, height_ratios=(1, 1.15))
        for column, accuracy in zip(axes.T, accuracies, strict=True):
            own = [row for row in cells if row["accuracy"] == accuracy]
            column[0].set_title(f"judge: {100 * accuracy:g} % accurate", fontsize=10.5)
            for ax in column:
                _adjusted(ax, own, repeats)
            _naive(column[0], own)
        _label(figure, axes, cells)
        stream = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _adjusted(ax: Axes, cells: Sequence[Row], repeats: int) -> None:
    """Coverage by proportion, one series per number of subjects; upright lines are what chance leaves open."""
    low, high = (100 * end for end in BAND)
    ax.axhspan(low, high, color=GREY, lw=0, label=f"bar for the mean: {low:g} to {high:g} %", zorder=0)
    ax.axhline(95, color="#888888", lw=0.8, zorder=1)
    blocks = list(_blocks(cells))
    for i, ((_, subjects), rows) in enumerate(blocks):
        colour, shape = OURS[i % len(OURS)]
        # Side by side, for else they hide each other.
        x = [100 * row["proportion"] + 3.2 * (i - (len(blocks) - 1) / 2) for row in rows]
        y = np.array([row["coverage"] for row in rows])
        error = 196 * np.sqrt(y * (1 - y) / repeats)
        name = f"adjusted count, {subjects} subjects"
        ax.errorbar(x, 100 * y, error, fmt=shape, color=colour, ms=5.5, elinewidth=1.1, label=name, zorder=3)


def _naive(ax: Axes, cells: Sequence[Row]) -> None:
    """The naive count knows nothing of the judge's subjects, so it is one series: the mean over their numbers."""
    proportions = sorted({row["proportion"] for row in cells})
    covered = [100 * mean(row["naive_coverage"] for row in cells if row["proportion"] == p) for p in proportions]
    colour, shape = NAIVE
    x = [100 * p for p in proportions]
    ax.plot(x, covered, shape, ls=":", lw=1.2, color=colour, ms=6.5, label="naive count", zorder=4)


def _label(figure: Figure, axes: np.ndarray, cells: Sequence[Row]) -> None:
    lowest = min(100 * min(row["coverage"] for row in cells) - 1.5, 91)
    for (row, bottom, top), step in zip(((axes[0], -4, 104), (axes[1], lowest, 100)), (25, 1), strict=True):
        row[0].set_ylim(bottom, top)
        row[0].yaxis.set_major_locator(matplotlib.ticker.MultipleLocator(step))
        for ax in row:
            ax.set_xlim(0, 100)
            ax.set_xticks(sorted({100 * cell["proportion"] for cell in cells}))
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(colors=INK, length=3)
    axes[0, 0].set_ylabel("coverage, %")
    axes[1, 0].set_ylabel("coverage, %, enlarged")
    figure.supxlabel("true proportion, %", fontsize=9.5, color=INK)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    order = [*range(2, len(labels)), 1, 0]  # matplotlib gives the band and the line of the naive count first
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="outside upper center", ncols=3, frameon=False
    )


def _blocks(cells: Sequence[Row]) -> Iterator[tuple[tuple[float, int], list[Row]]]:
    """Cells by accuracy and subjects, in order."""
    for accuracy, subjects in sorted({(row["accuracy"], row["subjects"]) for row in cells}):
        yield (accuracy, subjects), [r for r in cells if (r["accuracy"], r["subjects"]) == (accuracy, subjects)]


def _line(first: str, second: str, cells: Sequence[Row]) -> tuple[str, ...]:
    ours, naive = ([row[key] for row in cells] for key in ("coverage", "naive_coverage"))
    widths = [percent(mean(row[key] for row in cells)) for key in ("width", "naive_width")]
    shown = [percent(value) for value in (mean(ours), min(ours), mean(naive), max(naive), min(naive))]
    return first, second, *shown[:2], widths[0], *shown[2:], widths[1]


def _beside(cells: Sequence[Row]) -> str:
    worst, low = min(cells, key=lambda row: row["coverage"]), sum(row["coverage"] < FLOOR for row in cells)
    average = percent(mean(row["coverage"] for row in cells))
    return f"mean {average}, worst cell {_told(worst)}; {low} of {len(cells)} cells under {100 * FLOOR:g} %"


def _told(cell: Row) -> str:
    return f"{percent(cell['coverage'])} ({_at(cell)})"


def _slices(number: int) -> str:
    return f"{number} slice{'s' * (number > 1)} a subject"


def _at(cell: Row) -> str:
    accuracy, proportion = (f"{100 * cell[key]:g} %" for key in ("accuracy", "proportion"))
    return f"accuracy {accuracy}, {cell['subjects']} subjects, proportion {proportion}"
