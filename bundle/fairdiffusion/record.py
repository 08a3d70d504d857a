"""What a window of the search found, and the table of all windows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundle.fairdiffusion.groups import safe_name

if TYPE_CHECKING:
    from bundle.fairdiffusion.groups import Groups


@dataclass(frozen=True)
class Window:
    """One window of a search.

    ``iteration`` is its last, counted from 1; ``scales`` (G) are those it trained with (in the published mode, where
    they move on at every step, the last of them); ``gap`` is what was observed,
    ``gaps`` each attribute's part; ``acquisition`` is the bound at the point proposed after it, None without one.
    """

    iteration: int
    scales: list[float]
    gap: float
    gaps: dict[str, float]
    acquisition: float | None

    def numbers(self) -> dict[str, float]:
        """What the window found, by the names of the metrics."""
        gaps = {f"gap/{safe_name(name)}": part for name, part in self.gaps.items()}
        bound = {} if self.acquisition is None else {"acquisition": self.acquisition}
        return {"gap": self.gap, **gaps, **bound}


def table(windows: Sequence[Window], groups: Groups) -> bytes:
    """CSV with one row per window; a cell is empty where an attribute was left out or nothing was proposed."""
    attributes = [attribute.name for attribute in groups.attributes]
    head = [f"scale/{name}" for name in groups.names] + ["gap"] + [f"gap/{name}" for name in attributes]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["iteration", *head, "acquisition"])
    for window in windows:
        gaps = [window.gaps.get(name, "") for name in attributes]
        writer.writerow([window.iteration, *window.scales, window.gap, *gaps, window.acquisition])
    return stream.getvalue().encode()
