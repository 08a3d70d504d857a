"""A picture of a search: scales, gap and acquisition over the iterations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from bundle.fairdiffusion.record import Window, table
from bundle.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bundle.fairdiffusion.groups import Groups

# Okabe and Ito's colours, which the colour-blind tell apart; a line style for each tells more.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# Given, because a layout that is computed takes as long as the drawing.
MARGINS = {"left": 0.13, "right": 0.81, "top": 0.98, "bottom": 0.07, "hspace": 0.15}
STYLES = ("-", "--", ":", "-.")


def write_record(windows: Sequence[Window], groups: Groups, folder: str | Path) -> None:
    """Write ``perturbation.csv`` and ``perturbation.png`` to ``folder``, each whole."""
    write_whole(Path(folder) / "perturbation.csv", table(windows, groups))
    write_whole(Path(folder) / "perturbation.png", picture(windows, groups))


def picture(windows: Sequence[Window], groups: Groups) -> bytes:
    """PNG, 1200 pixels wide, of at least one window: a panel per attribute's scales, the gap, the acquisition."""
    number = len(groups.attributes)
    figure = Figure(figsize=(10, 4.5 + 1.6 * number), dpi=120)
    heights = [1.0] * number + [1.4, 1.0]
    panels = figure.subplots(number + 2, 1, sharex=True, height_ratios=heights, gridspec_kw=MARGINS)
    iterations = [window.iteration for window in windows]
    for place, axes in enumerate(panels[:number]):
        _scales(axes, iterations, windows, groups, place)
    _gaps(panels[-2], iterations, windows, groups)
    bounds = np.array([window.acquisition for window in windows], dtype=float)  # None becomes nan
    panels[-1].plot(iterations, bounds, "o-", color=COLOURS[0])
    panels[-1].set(ylabel="bound of the next\npoint (minus gap)", xlabel="iteration at the end of the window")
    for axes in panels:
        axes.grid(color="#dfe4ea")
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels(panels)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _scales(axes: Axes, iterations: list[int], windows: Sequence[Window], groups: Groups, number: int) -> None:
    attribute, places = groups.attributes[number], groups.of_attribute(number)
    for order, (place, group) in enumerate(zip(places, attribute.groups, strict=True)):
        style = {"color": COLOURS[order % len(COLOURS)], "linestyle": STYLES[order % len(STYLES)], "marker": "."}
        axes.plot(iterations, [window.scales[place] for window in windows], label=group, **style)
    axes.set(ylabel=f"scale of noise,\n{attribute.name}", ylim=(-0.05, 1.05))
    _legend(axes)


def _gaps(axes: Axes, iterations: list[int], windows: Sequence[Window], groups: Groups) -> None:
    values = [window.gap for window in windows]
    axes.plot(iterations, values, "o-", color="#222b36", label="gap, all attributes")
    axes.step(iterations, np.fmin.accumulate(values), where="post", color="#8a94a0", label="smallest so far")
    for number, attribute in enumerate(groups.attributes if len(groups.attributes) > 1 else ()):
        parts = [window.gaps.get(attribute.name, float("nan")) for window in windows]
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[(number + 1) % len(STYLES)]}
        axes.plot(iterations, parts, label=f"gap, {attribute.name}", **style)
    axes.set(ylabel="range of the\ngroups' losses")
    axes.set_ylim(bottom=0)
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
