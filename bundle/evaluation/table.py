"""The report as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Entry = dict[str, Any]
Row = tuple[str, ...]


def table(report: Entry) -> str:
    """The report as lines of text: one row per measure, a column for each set of images and one of what is aimed at.

    That one holds the target's proportions, and of the other measures those of real images of the target cohort.
    """
    names = [name for name in ("before", "after") if report[name]]
    header = ("", *(names if len(names) > 1 else ["generated"]), "real / target")
    sides = [report[name] for name in names]
    rows = [header, *_proportion_rows(report, sides), *_quality_rows(report, sides)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * len(sides) + 2))
    return "\n".join([*lines, "", *_footer(report, names)])


def _proportion_rows(report: Entry, sides: Sequence[Entry]) -> Iterator[Row]:
    groups, last = report["groups"], report["groups"][-1]
    yield "images", *(str(entry["n"]) for entry in (*sides, report["real"]))
    for group in groups:
        yield group, *(_share(entry, group) for entry in sides), _percent(report["target"][group])
    if any(entry["true_proportion"] for entry in sides):
        for group in groups:
            yield f"{group}, true share", *(_share(entry, group, "true_") for entry in sides), ""
    if report["change"]:
        yield f"{last}, change", "", _change(report["change"], last), ""
    for name, stratum in report.get("strata", {}).items():
        shares = (_share(stratum[side], last) for side in ("before", "after") if side in stratum)
        yield f"{last}, {name}", *shares, _percent(stratum["target"][last])
    yield *_row("gap", sides, lambda entry: _percent(entry["gap"])), ""
    yield f"verdict within {_percent(report['margin'])}", *(entry["verdict"] for entry in sides), ""
    yield *_row("tipping point", sides, lambda entry: _percent(entry["tipping_point"])), ""
    yield *_row("label shift, p", sides, _label_shift), ""
    for rows in zip(*(entry["guidance"] for entry in sides), strict=True):
        yield f"{last}, guidance {rows[0]['scale']:g}", *(_share(row, last) for row in rows), ""


def _quality_rows(report: Entry, sides: Sequence[Entry]) -> Iterator[Row]:
    columns = (*sides, report["real"])
    yield _row("ambiguous", columns, lambda entry: _percent(entry["ambiguity"]))
    yield _row("guide and judge agree", columns, lambda entry: _percent(entry["agreement"]))
    for space in sides[0]["kid"]:
        yield _row(f"KID, {space}", columns, lambda entry, space=space: _estimate(entry["kid"].get(space)))
        if space in report["kid_change"]:
            yield f"KID change, {space}", "", _estimate(report["kid_change"][space]), ""
    yield *_row("CLIP similarity", sides, lambda entry: _number(entry["clip_similarity"])), ""
    for key, name in (("lesion_prompted", "lesion, asked for"), ("lesion_not_prompted", "lesion, not asked for")):
        yield *_row(name, sides, lambda entry, key=key: _lesion(entry["faithfulness"], key)), ""
    for fact, found in sides[-1]["faithfulness"].get("facts", {}).items():
        read = (entry["faithfulness"]["facts"][fact]["read"] for entry in sides)
        shown = (_with_ends(share["value"], share["ci95"]) for share in read)
        yield f"{fact} as asked, read so", *shown, _percent(found["expected"])


def _footer(report: Entry, names: Sequence[str]) -> Iterator[str]:
    judge, seconds = report["judge"], report["seconds"]
    yield f"Judge: AUC {_number(judge['auc'])} on {judge['subjects']} subjects. Intervals: 95 %."
    yield f"Smallest detectable gap: {_percent(report['detectable_gap'])}."
    yield "Seconds: " + ", ".join(f"{name} {_number(value)}" for name, value in seconds.items()) + "."
    for name in names:
        yield from (f"Caution, {name}: {text}." for text in report[name]["cautions"])


def _row(name: str, entries: Sequence[Entry], show: Callable[[Entry], str]) -> Row:
    return (name, *map(show, entries))


def _label_shift(entry: Entry) -> str:
    return _number((entry.get("label_shift") or {}).get("p_value"))


def _share(entry: Entry, group: str, prefix: str = "") -> str:
    if not entry[f"{prefix}proportion"]:
        return "-"
    return _with_ends(entry[f"{prefix}proportion"][group], entry[f"{prefix}ci95"][group])


def _change(change: Entry, group: str) -> str:
    if change["value"][group] is None:
        return "-"
    low, high = change["ci95"][group]
    return f"{100 * change['value'][group]:+z.1f} % [{100 * low:+z.1f}, {100 * high:+z.1f}]"


def _lesion(entry: Entry, key: str) -> str:
    """The share, or, where the reader's errors do not explain what it reads, what it reads."""
    ends = entry.get(f"{key}_ci95", ())
    return f"{_percent(entry[f'{key}_raw'])}, uncorrected" if list(ends) == [0, 1] else _with_ends(entry[key], ends)


def _with_ends(share: float | None, ends: Sequence[float]) -> str:
    """A share, which the report holds unclipped, as one that can be, with its interval."""
    if share is None:
        return "-"
    return f"{_percent(min(max(share, 0.0), 1.0))} [{', '.join(f'{100 * end:z.1f}' for end in ends)}]"


def _estimate(entry: Entry | None) -> str:
    return "-" if entry is None else f"{_number(entry['value'])} [{', '.join(map(_number, entry['ci95']))}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:z.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:z.3g}"
