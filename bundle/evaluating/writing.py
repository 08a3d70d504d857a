"""The report in all its forms: a page to look at, JSON, CSV, text, a checklist, and the grid of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.evaluating.assessment import Side
from bundle.evaluation import checklist, report
from bundle.evaluation.grid import sample_grid
from bundle.evaluation.page import write_page
from bundle.evaluation.rows import write_csv
from bundle.evaluation.table import table
from bundle.files import write_whole
from bundle.images import Images

NUM_PAIRS = 16  # in the picture
CHOSEN = "up to half of the pairs chosen because it does"


def write(
    made: dict, output_dir: str, sides: Mapping[str, Side], prompts: Sequence[str], training: Images | None
) -> None:
    """Write ``report.{html,json,csv,txt}``, ``checklist.md`` and, of images in pairs, ``samples.png``; print the table
    and where the page is."""
    folder, text = Path(output_dir), table(made)
    pairs = _pairs(sides, prompts) if "before" in sides else []
    if pairs:
        columns = [list(column) for column in zip(*pairs, strict=True)]
        before, after, texts, p_before, p_after = columns
        grid = (np.stack(before), np.stack(after), texts, p_before, p_after)
        sample_grid(*grid, folder / "samples.png", group=made["groups"][-1], note=CHOSEN)
    closest = [] if training is None else _closest(made, sides["after"], training)
    write_whole(folder / "report.txt", (text + "\n").encode())
    write_whole(folder / "checklist.md", checklist.to_markdown(made).encode())
    write_csv(made, folder / "report.csv")
    report.write_json(made, folder / "report.json")
    page = write_page(made, {"pairs": pairs, "closest": closest}, folder / "report.html")
    print(f"\n{text}\n\nTo look at: {page}")


def _pairs(sides: Mapping[str, Side], prompts: Sequence[str]) -> list[tuple]:
    """Image before, image after, prompt, and the judge's probabilities of the last group."""
    before, after = (sides[name].made for name in ("before", "after"))
    shown = _changed_first(before.calls(), after.calls())
    index = sides["after"].prompt
    texts = ["" if index is None else prompts[index[place]] for place in shown]
    p = [made.probabilities["judge"][shown, -1].tolist() for made in (before, after)]
    return list(zip(before.images[shown].numpy(), after.images[shown].numpy(), texts, *p, strict=True))


def _closest(made: dict, side: Side, training: Images) -> list[tuple]:
    """Generated image, the training image nearest to it, their distance, and the group."""
    memory = made["after"]["memorisation"]
    return [
        (
            side.made.images[[pair["generated"]]][0].numpy(),
            training[[pair["training"]]][0].numpy(),
            pair["distance"],
            pair["group"],
        )
        for pair in memory["pairs"]
    ]


def _changed_first(before: NDArray, after: NDArray) -> NDArray[np.int64]:
    """Places of the pairs to show: half of them to images whose group changed, the others as they come."""
    changed = before != after
    chosen = np.concatenate([np.flatnonzero(changed)[: NUM_PAIRS // 2], np.flatnonzero(~changed)])
    return chosen[:NUM_PAIRS]
