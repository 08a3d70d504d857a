"""The report as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Entry = dict[str, Any]
Row = tuple[str, str, str, str]


def table(report: Entry) -> str:
    """The report as lines of text: one row per measure, columns before, after and real.

    The real column holds the target's proportions, and of the other measures those of real slices of the target cohort.
    """
    rows = [("", "before", "after", "real / target"), *_proportion_rows(report), *_quality_rows(report)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 6))
    return "\n".join([*lines, "", *_footer(report)])


def _proportion_rows(report: Entry) -> Iterator[Row]:
    sides, groups = (report["before"], report["after"]), report["groups"]
    yield "images", *(str(entry["n"]) for entry in (*sides, report["real"]))
    for group in groups:
        yield group, *(_share(entry, group) for entry in sides), _percent(report["target"][group])
    if any(entry["true_proportion"] for entry in sides):
        for group in groups:
            yield f"{group}, true share", *(_share(entry, group, "true_") for entry in sides), ""
    yield f"{groups[-1]}, change", "", _change(report["change"], groups[-1]), ""
    for name, stratum in report.get("strata", {}).items():
        shares = (_share(stratum[side], groups[-1]) for side in ("before", "after"))
        yield f"{groups[-1]}, {name}", *shares, _percent(stratum["target"][groups[-1]])
    yield _row("gap", sides, lambda entry: _percent(entry["gap"]))
    yield f"verdict within {_percent(report['margin'])}", *(entry["verdict"] for entry in sides), ""
    yield _row("tipping point", sides, lambda entry: _percent(entry["tipping_point"]))
    for old, new in zip(*(entry["guidance"] for entry in sides), strict=True):
        yield f"{groups[-1]}, guidance {new['scale']:g}", _share(old, groups[-1]), _share(new, groups[-1]), ""


def _quality_rows(report: Entry) -> Iterator[Row]:
    sides = (report["before"], report["after"])
    columns = (*sides, report["real"])
    yield _row("ambiguous", columns, lambda entry: _percent(entry["ambiguity"]))
    yield _row("guide and judge agree", columns, lambda entry: _percent(entry["agreement"]))
    for space, change in report["kid_change"].items():
        yield _row(f"KID, {space}", columns, lambda entry, space=space: _estimate(entry["kid"].get(space)))
        yield f"KID change, {space}", "", _estimate(change), ""
    yield _row("CLIP similarity", sides, lambda entry: _number(entry["clip_similarity"]))
    for key, name in (("lesion_prompted", "lesion, asked for"), ("lesion_not_prompted", "lesion, not asked for")):
        yield _row(name, sides, lambda entry, key=key: _lesion(entry["faithfulness"], key))


def _footer(report: Entry) -> Iterator[str]:
    judge, seconds = report["judge"], report["seconds"]
    yield f"Judge: AUC {_number(judge['auc'])} on {judge['subjects']} subjects. Intervals: 95 %."
    yield f"Smallest detectable gap: {_percent(report['detectable_gap'])}."
    yield "Seconds: " + ", ".join(f"{name} {_number(value)}" for name, value in seconds.items()) + "."
    for name in ("before", "after"):
        yield from (f"Caution, {name}: {text}." for text in report[name]["cautions"])


def _row(name: str, entries: Sequence[Entry], show: Callable[[Entry], str]) -> Row:
    return (name, *map(show, entries), *[""] * (3 - len(entries)))


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
