"""The report as rows for a spreadsheet: one per section, set of images, group and metric.

The columns are those of `Row`. Values are as in the report: proportions are not clipped; an empty cell
was not measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bundle.evaluation.wording import at, calibration
from bundle.files import write_whole

Entry = dict[str, Any]

ADJUSTED = "adjusted count, test inversion"
KID_METHOD = "unbiased KID, jackknife over subjects"
QUALITY_METHODS = {"kid": KID_METHOD} | dict.fromkeys(
    ("fd", "precision", "recall", "density", "coverage"), "equal n, half-sampling"
)


@dataclass(frozen=True)
class Row:
    """One figure of the report; `group` is empty where the figure is of all images."""

    section: str
    side: str
    group: str
    metric: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int | None
    method: str
    flags: str


def rows(report: Entry) -> list[Row]:
    """Every figure that was measured, in the order of the page.

    Args:
        report: as `report.assemble` returns it; whatever is null or absent has no row.
    """
    made = [row for side in ("before", "after") if report.get(side) for row in _side(side, report[side])]
    return [*made, *_side_quality("real", report.get("real") or {}), *_between(report), *_judges(report)]


def to_csv(report: Entry) -> str:
    """The rows as CSV with a header, lines ended by a line feed."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [column.name for column in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows(report))
    return stream.getvalue()


def write_csv(report: Entry, path: str | Path) -> Path:
    """Write the rows as CSV, whole or not at all, and return the path."""
    return write_whole(path, to_csv(report).encode())


def _side(side: str, entry: Entry) -> Iterator[Row]:
    flags = ";".join([entry["verdict"], *(entry.get("flags") or ())])
    yield from _shares("representation", side, entry, "proportion", ADJUSTED, flags=flags)
    yield from _shares("representation", side, entry, "true proportion", ADJUSTED, prefix="true_")
    for name in ("gap", "tipping_point", "detectable_gap", "equivalence_p"):
        yield from _single("representation", side, "", name.replace("_", " "), entry.get(name), entry["n"], ADJUSTED)
    for name in ("second_judge", "guide"):
        method = f"{ADJUSTED}, {name.replace('_', ' ')}"
        other = entry.get(name) or {}
        flags = "differs" if other.get("differ") else ""
        yield from _shares("representation", side, {"n": entry["n"], **other}, "proportion", method, flags=flags)
    for method, values in (entry.get("methods") or {}).items():
        yield from _shares("methods", side, {"n": entry["n"], "proportion": values}, "proportion", method)
    for trip in entry.get("round_trip") or ():
        method, flags = f"judge measured on {calibration(trip)} images", trip.get("verdict") or ""
        yield from _shares("round trip", side, {"n": entry["n"], **trip}, "proportion", method, flags=flags)
    for row in entry.get("prompt_rows") or ():
        yield from _shares("prompts", side, row, f"proportion, prompt '{row['prompt']}'", ADJUSTED)
    yield from _facts(side, entry)
    yield from _obedience(side, entry)
    yield from _side_quality(side, entry)
    yield from _memorisation(side, entry.get("memorisation") or {})
    for row in entry.get("guidance") or ():
        yield from _shares("guidance", side, row, f"proportion, scale {row['scale']:g}", ADJUSTED)


def _facts(side: str, entry: Entry) -> Iterator[Row]:
    method = "corrected for the reader's errors"
    for column, fact in (at(entry, "faithfulness", "facts") or {}).items():
        for group, found in {"": fact.get("share"), **(fact.get("by_group") or {})}.items():
            n = fact.get("n") if group == "" else None
            yield from _estimate("faithfulness", side, group, f"{column} as asked", found, n, method)
    shown = entry.get("faithfulness") or {}
    for key, metric in (("lesion_prompted", "lesion, asked for"), ("lesion_not_prompted", "lesion, not asked for")):
        found = {"value": shown.get(key), "ci95": shown.get(f"{key}_ci95")}
        yield from _estimate("faithfulness", side, "", metric, found, shown.get(f"{key}_n"), method)


def _obedience(side: str, entry: Entry) -> Iterator[Row]:
    obedience = entry.get("obedience") or {}
    for group, found in (obedience.get("groups") or {}).items():
        value = {"value": found.get("proportion"), "ci95": found.get("ci95")}
        yield from _estimate("obedience", side, group, "images of the group asked for", value, found.get("n"), ADJUSTED)
    yield from _estimate("obedience", side, "", "difference of calls", obedience.get("difference"), None, "calls")


def _side_quality(side: str, entry: Entry) -> Iterator[Row]:
    """Quality and diversity of all images and by group; also of the real images."""
    parts = {"": entry, **(at(entry, "by_group", "groups") or {})}
    if not entry.get("quality"):  # a report without quality at equal n still has KID
        for space, found in (entry.get("kid") or {}).items():
            yield from _estimate("quality", side, "", f"kid, {space}", found, entry.get("n"), KID_METHOD)
    for group, part in parts.items():
        for space, measures in (part.get("quality") or {}).items():
            for name, method in QUALITY_METHODS.items():
                found = measures.get(name)
                yield from _estimate("quality", side, group, f"{name}, {space}", found, measures.get("n"), method)
        varied = part.get("diversity") or {}
        method = f"{varied.get('pairs')} disjoint pairs, {varied.get('scales')} scales"
        yield from _estimate("diversity", side, group, "ms-ssim", varied.get("ms_ssim"), varied.get("n"), method)
        score = part.get("clip_score") or {}
        yield from _estimate("quality", side, group, "clip score", score, score.get("n"), "mean, t")
    for space, found in (at(entry, "by_group", "difference") or {}).items():
        flags = f"worst: {at(entry, 'by_group', 'worst', space)}" if at(entry, "by_group", "worst", space) else ""
        n = at(entry, "by_group", "n_each")
        yield from _estimate(
            "quality", side, "", f"kid difference of groups, {space}", found["kid"], n, KID_METHOD, flags
        )
    for space, measures in (entry.get("equity_scaled") or {}).items():
        for name, found in measures.items():
            metric = f"equity-scaled {name}, {space}"
            yield from _single("quality", side, "", metric, found["value"], None, "legacy")
            yield from _single("quality", side, "", f"{metric}, if fair", found["fair"], None, "permutation")


def _memorisation(side: str, entry: Entry) -> Iterator[Row]:
    method = f"hold-out quantile {entry.get('quantile')}, {entry.get('space')}"
    for group, found in (entry.get("groups") or {}).items():
        flags = "flagged" if found.get("flagged") else ""
        name = "" if group == "all" else group
        yield from _estimate(
            "memorisation", side, name, "excess below threshold", found["excess"], found.get("n"), method, flags
        )


def _between(report: Entry) -> Iterator[Row]:
    """Changes from before to after, and figures over seeds."""
    change = report.get("change") or {}
    shares = {"proportion": change.get("value"), "ci95": change.get("ci95")}
    yield from _shares("change", "change", shares, "proportion", "paired difference, test inversion")
    for space, found in (report.get("kid_change") or {}).items():
        yield from _estimate("change", "change", "", f"kid, {space}", found, None, KID_METHOD)
    seeds = report.get("seeds") or {}
    for row in seeds.get("values") or ():
        flags = row.get("verdict") or ""
        yield from _shares("seeds", "after", row, f"proportion, seed {row['seed']}", ADJUSTED, flags=flags)
    last, n = report["groups"][-1], seeds.get("n")
    yield from _estimate("seeds", "after", last, "mean proportion", seeds.get("mean"), n, "t over seeds")
    yield from _single("seeds", "after", last, "standard deviation", seeds.get("between_sd"), n, "between seeds")


def _judges(report: Entry) -> Iterator[Row]:
    for name in ("judge", "second_judge", "guide"):
        entry = report.get(name) or {}
        label, n = name.replace("_", " "), entry.get("subjects")
        yield from _single("judges", label, "", "auc", entry.get("auc"), n, "validation subjects")
        for group, value in (entry.get("recall") or {}).items():
            yield from _single("judges", label, group, "recall", value, n, "validation subjects")


def _shares(
    section: str, side: str, entry: Entry, metric: str, method: str, prefix: str = "", flags: str = ""
) -> Iterator[Row]:
    for group, value in (entry.get(f"{prefix}proportion") or {}).items():
        found = {"value": value, "ci95": at(entry, f"{prefix}ci95", group)}
        yield from _estimate(section, side, group, metric, found, entry.get("n"), method, flags)


def _estimate(
    section: str, side: str, group: str, metric: str, found: Any, n: int | None, method: str, flags: str = ""
) -> Iterator[Row]:
    """The row of an estimate, or of none where nothing was measured."""
    if at(found, "value") is not None:
        low, high = found.get("ci95") or (None, None)
        yield Row(section, side, group, metric, found["value"], low, high, n, method, flags)


def _single(
    section: str, side: str, group: str, metric: str, value: float | None, n: int | None, method: str
) -> Iterator[Row]:
    yield from _estimate(section, side, group, metric, {"value": value}, n, method)
