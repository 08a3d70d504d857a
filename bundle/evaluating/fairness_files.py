"""The report on equal quality as a table to read, as CSV with one line for each figure, and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.files import write_whole
from bundle.images import Images

Entry = dict[str, Any]
GAPS = {"auc_gap": "AUC", "demographic_parity": "demographic parity", "equalized_odds": "equalised odds"}
SHOWN = 8  # images of a group in the picture
DIRECTIONS = {  # what a classifier of the finding was trained on, and what it was tested on
    "generated_to_real": "trained on generated, tested on real",
    "real_to_real": "the same, trained on real",
    "real_to_generated": "trained on real, tested on generated",
    "real_to_decoded": "the same, tested on decoded real slices",
}


def to_csv(report: Entry) -> str:
    """One line for each figure: section, attribute, group, space, measure, value, low, high, p, n."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["section", "attribute", "group", "space", "measure", "value", "low", "high", "p", "n"])
    for attribute, entry in report["attributes"].items():
        for section, group, space, measure, estimate, n in _rows(entry):
            if estimate is not None:
                figures = [estimate["value"], *estimate.get("ci95", ("", "")), estimate.get("p", "")]
                writer.writerow([section, attribute, group, space, measure, *figures, "" if n is None else n])
    return stream.getvalue()


def _rows(entry: Entry) -> Iterator[tuple]:
    """Section, group, space, measure, estimate and number of images of every figure of one attribute."""
    for side in ("generated", "ceiling"):
        yield from _quality_rows(side, entry[side])
    yield from _by_group("denoising", "", "denoising loss", entry["denoising_loss"])
    for name, found in entry["semantic"].items():
        yield from _semantic_rows(name, found)
    if entry["change"]:
        for space, found in entry["change"]["kid"].items():
            yield from _by_group("change", space, "kid", found)
        yield from _by_group("change", "", "denoising loss", entry["change"]["denoising_loss"])
        for name, found in entry["change"]["semantic"].items():
            yield from ((f"change {name}", "", "", measure, estimate, None) for measure, estimate in found.items())


def _quality_rows(side: str, entry: Entry) -> Iterator[tuple]:
    parts = {"": entry["quality"]}
    if entry["by_group"]:
        parts |= {group: found["quality"] for group, found in entry["by_group"]["groups"].items()}
        for space, found in entry["by_group"]["difference"].items():
            yield side, "difference", space, "kid", found["kid"], entry["by_group"]["n_each"]
    for group, spaces in parts.items():
        for space, found in spaces.items():
            for measure in ("kid", "fd", "precision", "recall", "density", "coverage"):
                yield side, group, space, measure, found[measure], found["n"]


def _by_group(section: str, space: str, measure: str, found: Entry) -> Iterator[tuple]:
    yield section, "", space, measure, found["overall"], None
    for group, estimate in found["groups"].items():
        yield section, group, space, measure, estimate, None
    yield section, "difference", space, measure, found["difference"], None


def _semantic_rows(name: str, found: Entry) -> Iterator[tuple]:
    for measure in ("auc", "accuracy"):
        yield name, "", "", measure, found[measure], found["n"]
        for group, own in found["groups"].items():
            yield name, group, "", measure, own[measure], own["n"]
    for gap in GAPS:
        yield name, "gap", "", gap, found[gap], found["n"]
    yield name, "difference", "", "auc", found["contrast"], found["n"]
    if found["equity_scaled"] is not None:
        yield name, "legacy", "", "equity-scaled auc", {"value": found["equity_scaled"]}, found["n"]
        yield name, "legacy", "", "equity-scaled auc, groups alike", {"value": found["equity_scaled_fair"]}, found["n"]


def fairness_table(report: Entry) -> str:
    """The report as lines of text, one part for each attribute."""
    return "\n\n".join(_table(name, entry, report) for name, entry in report["attributes"].items())


def _table(name: str, entry: Entry, report: Entry) -> str:
    groups = entry["groups"]
    counts = report["n_each"][name]
    apart = f"{groups[1]} - {groups[0]}" if len(groups) == 2 else "worst - best"
    rows = [(name, *groups, apart), ("images", *(str(counts[group]) for group in groups), "")]
    for side, title in (("generated", "generated"), ("ceiling", "real, decoded")):
        rows += _distance_rows(entry[side], groups, title)
    rows.append(_line("denoising loss", entry["denoising_loss"], groups))
    for direction, title in DIRECTIONS.items():
        rows += _auc_rows(entry["semantic"][direction], groups, title)
    if entry["change"]:
        rows += _change_rows(entry["change"], groups)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(max(lines, key=len)), *lines[1:]])


def _distance_rows(entry: Entry, groups: Sequence[str], title: str) -> list[tuple]:
    if not entry["by_group"]:
        return [(f"KID, {title}: too few images by group", *[""] * (len(groups) + 1))]
    found, rows = entry["by_group"], []
    for space in found["worst"]:
        own = [found["groups"][group]["quality"][space] for group in groups]
        kids, fds = ([_shown(distances[name]) for distances in own] for name in ("kid", "fd"))
        legacy, n = entry["equity_scaled"][space]["fd"], found["n_each"]
        scaled = f"equity-scaled, legacy: {_alike(legacy['value'], legacy['fair'])}"
        rows.append((f"KID, {title}, {space}, {n} each", *kids, _shown(found["difference"][space]["kid"])))
        rows.append((f"FD, {title}, {space}", *fds, scaled))
    return rows


def _auc_rows(found: Entry, groups: Sequence[str], title: str) -> list[tuple]:
    blank = [""] * (len(groups) - 1)
    aucs = [_shown(found["groups"][group]["auc"]) for group in groups]
    gaps = [(f"  gap, {name}", *blank, "", _gap(found[key])) for key, name in GAPS.items()]
    scaled = found["equity_scaled"]
    legacy = "" if scaled is None else f"equity-scaled, legacy: {_alike(scaled, found['equity_scaled_fair'])}"
    overall = ("  in all", _shown(found["auc"]), *blank, legacy)
    return [(f"AUC, {title}", *aucs, _shown(found["contrast"])), overall, *gaps]


def _change_rows(change: Entry, groups: Sequence[str]) -> list[tuple]:
    rows = [(f"change from {Path(change['compared_with']).name}", *[""] * (len(groups) + 1))]
    rows += [_line(f"  KID, {space}", found, groups) for space, found in change["kid"].items()]
    rows.append(_line("  denoising loss", change["denoising_loss"], groups))
    for direction, found in change["semantic"].items():
        worst = [_shown(found["auc"]), *[""] * (len(groups) - 1)]
        rows.append((f"  AUC in all, {DIRECTIONS[direction]}", *worst, ""))
        rows.append(("  AUC of the worst group", _shown(found["worst_auc"]), *worst[1:], ""))
    return rows


def _line(title: str, found: Entry, groups: Sequence[str]) -> tuple:
    return (title, *(_shown(found["groups"][group]) for group in groups), _shown(found["difference"]))


def _shown(estimate: Entry | None) -> str:
    """Value and interval."""
    if estimate is None:
        return "-"
    low, high = estimate["ci95"]
    return f"{estimate['value']:z.3g} [{low:z.3g}, {high:z.3g}]"


def _gap(gap: Entry | None) -> str:
    """A largest minus a smallest value, with what it would be were the groups alike."""
    return "-" if gap is None else f"{_alike(gap['value'], gap['chance'])}, p {gap['p']:.2g}"


def _alike(value: float, fair: float) -> str:
    return f"{value:.3g} (groups alike: {fair:.3g})"


def draw_samples(attribute: Attribute, asked: Slices, images: Images, path: Path, show_real: bool) -> None:
    """Of each group a row of generated images, and perhaps below each the real slice whose caption was its prompt."""
    index, rows = attribute.indices(asked.rows), []
    for group, name in enumerate(attribute.groups):
        places = torch.from_numpy(np.flatnonzero(index == group)[:SHOWN])
        rows.append((f"{name}, synthetic", images[places]))
        if show_real:
            rows.append((f"{name}, real, of the same prompts", asked.pixels(places)))
    figure = Figure(figsize=(1.5 * SHOWN, 1.7 * len(rows)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), SHOWN, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (title, shown) in zip(grid, rows, strict=True):
        line[0].set_title(title, loc="left", fontsize=11)
        for axes, image in zip(line, shown.movedim(1, -1).numpy()):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    write_whole(path, stream.getvalue())
