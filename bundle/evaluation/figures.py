"""Figures of the report as SVG, each with an alternative text made from the same numbers.

The bytes depend on the report alone: no date, fixed ids. Letters are drawn as paths, so that a figure looks the same on
every machine; what it says is in its alternative text and in the table beside it. Series differ by colour (Okabe and
Ito's, which colour-blind readers can tell apart) and by the shape of their markers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from bundle.evaluation.drawing import SETTINGS, TARGET, Mark, Style, as_svg, canvas, draw_grid, draw_marks
from bundle.evaluation.wording import at, calibration, clipped, count, difference, estimate, known, percent, share

Entry = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, what it says in words, and the line below it."""

    svg: bytes
    alt: str
    caption: str


BEFORE, AFTER = Style("#D55E00", "s"), Style("#0072B2", "o")
REAL, SECOND, GUIDE, TRUTH = Style("#5b6570", "D"), Style("#009E73", "v"), Style("#CC79A7", "^"), Style("#222b36", "X")
SIDES = {"before": BEFORE, "after": AFTER}


def draw(report: Entry) -> dict[str, Picture]:
    """Every figure that the report has numbers for, by name.

    Args:
        report: as `report.assemble` returns it; where `before` is null there was one set of images only.
    """
    makers = {
        "representation": _representation,
        "scores": _scores,
        "calibrations": _calibrations,
        "methods": _methods,
        "facts": _facts,
        "quality": _quality_by_group,
        "diversity": _diversity,
        "memorisation": _memorisation,
        "guidance": _guidance,
        "seeds": _seeds,
        "trajectory": _trajectory,
    }
    with matplotlib.rc_context(SETTINGS):
        drawn = {name: maker(report) for name, maker in makers.items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def side_names(report: Entry) -> dict[str, str]:
    """What `before` and `after` are called; a single set of images is neither."""
    return {"before": "before", "after": "after"} if report.get("before") else {"after": "generated"}


def shown_groups(report: Entry) -> list[str]:
    """Groups that figures show: of two groups the last, because the other is its complement."""
    return report["groups"][-1:] if len(report["groups"]) == 2 else list(report["groups"])


def _representation(report: Entry) -> Picture | None:
    def marks(group: str) -> Iterator[Mark]:
        for key, name in side_names(report).items():
            entry, style = report[key], SIDES[key]
            yield from _share_mark(f"{name}, judge", entry, group, style)
            yield from _share_mark(f"{name}, true share", entry, group, TRUTH, "true_")
            yield from _share_mark(f"{name}, second judge", entry.get("second_judge"), group, SECOND)
            yield from _share_mark(f"{name}, guide", entry.get("guide"), group, GUIDE)

    caption = "Proportions with 95 % intervals; the band is the margin around the target (dashed)."
    return _forest_by_group(report, marks, "Proportion among generated images", caption)


def _calibrations(report: Entry) -> Picture | None:
    def marks(group: str) -> Iterator[Mark]:
        for key, name in side_names(report).items():
            for row in report[key].get("round_trip") or ():
                yield from _share_mark(f"{name}: {calibration(row)}", row, group, SIDES[key])

    caption = "The same images, counted with the judge's error rates on real images prepared in several ways."
    return _forest_by_group(report, marks, "Proportion by calibration of the judge", caption)


def _methods(report: Entry) -> Picture | None:
    def marks(group: str) -> Iterator[Mark]:
        for key, name in side_names(report).items():
            for method, values in (report[key].get("methods") or {}).items():
                if at(values, group) is not None:
                    yield Mark(f"{name}: {method.upper()}", values[group], None, SIDES[key])

    caption = "Five estimators of the same proportion, without intervals; the method of the verdict is ACC."
    return _forest_by_group(report, marks, "Proportion by estimator", caption)


def _seeds(report: Entry) -> Picture | None:
    seeds = report.get("seeds") or {}

    def marks(group: str) -> Iterator[Mark]:
        for row in seeds.get("values") or ():
            if at(row, "proportion", group) is not None:
                yield Mark(f"seed {row['seed']}", row["proportion"][group], None, AFTER)
        if at(seeds, "mean", "value") is not None and group == report["groups"][-1]:
            yield Mark("mean of seeds", seeds["mean"]["value"], seeds["mean"]["ci95"], TRUTH)

    caption = "One marker per seed, and their mean with a 95 % interval over seeds."
    return _forest_by_group(report, marks, "Proportion by seed", caption)


def _share_mark(label: str, entry: Any, group: str, style: Style, prefix: str = "") -> Iterator[Mark]:
    value, ends = at(entry, f"{prefix}proportion", group), at(entry, f"{prefix}ci95", group)
    if value is not None:
        yield Mark(label, clipped(value), ends if known(ends) else None, style)


def _forest_by_group(report: Entry, marks: Callable[[str], Iterator[Mark]], title: str, caption: str) -> Picture | None:
    """A panel per shown group with the target and its margin."""
    panels = {group: list(marks(group)) for group in shown_groups(report)}
    if not any(panels.values()):
        return None
    figure, axes = canvas(
        len(panels),
        0.7 + 0.25 * max(map(len, panels.values())),
        columns=3,
        title=_title(report, title),
    )
    first = next(iter(panels.values()))
    for ax, (group, panel) in zip(axes, panels.items(), strict=True):
        _draw_target(ax.axvspan, ax.axvline, report, group)
        draw_marks(ax, [_scaled(mark) for mark in panel])
        ax.set_xlim(-1, 101)
        _name_panel(ax, report, group)
        if panel is not first and [mark.label for mark in panel] == [mark.label for mark in first]:
            ax.tick_params(labelleft=False)
    alt = " ".join(
        f"{title}, {group}. Target {percent(report['target'][group])}. " + "; ".join(map(_say_share, panel)) + "."
        for group, panel in panels.items()
    )
    return Picture(as_svg(figure), alt, caption)


def _title(report: Entry, title: str) -> str:
    """Title of a figure with a panel per shown group; a lone panel's group and target stand in it."""
    groups = shown_groups(report)
    return title if len(groups) > 1 else f"{title}: {groups[0]}, % (target {percent(report['target'][groups[0]])})"


def _name_panel(ax: Axes, report: Entry, group: str) -> None:
    if len(shown_groups(report)) > 1:
        ax.set_title(f"{group}, %\ntarget {percent(report['target'][group])}")


def _draw_target(span: Callable, line: Callable, report: Entry, group: str) -> None:
    """The target, dashed, in the band of its margin."""
    target, margin = report["target"][group], report["margin"]
    span(100 * (target - margin), 100 * (target + margin), color="#009E73", alpha=0.13, lw=0)
    line(100 * target, color=TARGET, lw=1.2, ls=(0, (4, 3)))


def _scaled(mark: Mark) -> Mark:
    return Mark(mark.label, 100 * mark.value, mark.ends and [100 * end for end in mark.ends], mark.style)


def _say_share(mark: Mark) -> str:
    entry = {"proportion": {"": mark.value}, "ci95": {"": mark.ends}}
    return f"{mark.label} {share(entry, '')}"


def _scores(report: Entry) -> Picture | None:
    names = {key: (report[key].get("scores"), name, SIDES[key]) for key, name in side_names(report).items()}
    series = [
        entry for entry in ((at(report, "real", "scores"), "real", REAL), *names.values()) if at(entry[0], "counts")
    ]
    if not series:
        return None
    figure, (ax,) = canvas(1, 2.3)
    for scores, name, style in series:
        shares = np.asarray(scores["counts"], float) / max(sum(scores["counts"]), 1)
        filled = {"fill": True, "alpha": 0.22} if style is REAL else {"lw": 1.6, "ls": "--" if style is BEFORE else "-"}
        ax.stairs(100 * shares, scores["edges"], color=style.colour, label=name, **filled)
    ax.set_xlabel(f"Judge's probability of {report['groups'][-1]}")
    ax.set_ylabel("Images, %")
    ax.legend(loc="upper center", ncols=3)
    draw_grid(ax, "y")
    alt = f"Histogram of the judge's probability of {report['groups'][-1]}. " + " ".join(
        f"{name}: {percent(_above(scores))} of {count(sum(scores['counts']))} images at 0.5 or more."
        for scores, name, _ in series
    )
    return Picture(as_svg(figure), alt, "Share of images by the judge's probability; the real images are the cohort's.")


def _above(scores: Entry) -> float:
    """Share of the images in bins whose lower edge is at or above one half."""
    inside = np.asarray(scores["edges"][:-1]) >= 0.5
    return float(np.asarray(scores["counts"])[inside].sum() / max(sum(scores["counts"]), 1))


def _facts(report: Entry) -> Picture | None:
    marks = []
    columns = {key: (report[key], name, SIDES[key]) for key, name in side_names(report).items()}
    for column in _names(entry for entry, _, _ in columns.values()):
        for entry, name, style in (*columns.values(), (report.get("real"), "real", REAL)):
            found = at(entry, "faithfulness", "facts", column, "share")
            if at(found, "value") is not None:
                marks.append(Mark(f"{column}, {name}", clipped(found["value"]), found.get("ci95"), style))
    if not marks:
        return None
    figure, (ax,) = canvas(1, 0.7 + 0.25 * len(marks))
    draw_marks(ax, [_scaled(mark) for mark in marks])
    ax.set_xlim(0, 100)
    ax.set_title("Images that show what their prompt states, %")
    alt = "Share of images that show what their prompt states. " + "; ".join(map(_say_share, marks)) + "."
    return Picture(as_svg(figure), alt, "Shares with 95 % intervals, corrected for the reader's errors.")


def _names(entries: Iterator[Entry]) -> list[str]:
    return list(dict.fromkeys(name for entry in entries for name in at(entry, "faithfulness", "facts") or {}))


def _quality_by_group(report: Entry) -> Picture | None:
    """KID of each group, a panel per feature space."""
    panels: dict[str, list[Mark]] = {}
    for entry, name, style in _columns(report):
        for group, measured in (at(entry, "by_group", "groups") or {}).items():
            for space, values in (measured.get("quality") or {}).items():
                kid = values.get("kid")
                if at(kid, "value") is not None:
                    panels.setdefault(space, []).append(Mark(f"{group}, {name}", kid["value"], kid.get("ci95"), style))
    caption = "Lower is nearer to real images; 'real' compares real images with real ones."
    return _number_panels(panels, "KID by group, features of", caption)


def _diversity(report: Entry) -> Picture | None:
    marks = []
    for entry, name, style in _columns(report):
        groups = at(entry, "by_group", "groups") or {}
        for group, measured in {"all": entry, **groups}.items():
            found = at(measured, "diversity", "ms_ssim")
            if at(found, "value") is not None:
                marks.append(Mark(f"{group}, {name}", found["value"], found.get("ci95"), style))
    panels = {"all and by group": marks} if marks else {}
    caption = "Higher means more alike, so less varied; compare with real images."
    return _number_panels(panels, "MS-SSIM of pairs,", caption)


def _columns(report: Entry) -> list[tuple[Entry, str, Style]]:
    sides = [(report[key], name, SIDES[key]) for key, name in side_names(report).items()]
    return [*sides, (report.get("real") or {}, "real", REAL)]


def _number_panels(panels: Mapping[str, list[Mark]], title: str, caption: str) -> Picture | None:
    if not panels:
        return None
    figure, axes = canvas(len(panels), 0.7 + 0.25 * max(map(len, panels.values())))
    for ax, (name, marks) in zip(axes, panels.items(), strict=True):
        draw_marks(ax, marks)
        ax.set_title(f"{title} {name}")
    return Picture(
        as_svg(figure), " ".join(f"{title} {name}: {_say_numbers(x)}." for name, x in panels.items()), caption
    )


def _say_numbers(marks: Sequence[Mark]) -> str:
    return "; ".join(f"{mark.label} {estimate({'value': mark.value, 'ci95': mark.ends})}" for mark in marks)


def _memorisation(report: Entry) -> Picture | None:
    marks = []
    for key, name in side_names(report).items():
        for group, entry in (at(report[key], "memorisation", "groups") or {}).items():
            if at(entry, "excess", "value") is not None:
                excess = entry["excess"]
                marks.append(Mark(f"{group}, {name}", excess["value"], excess.get("ci95"), SIDES[key]))
    if not marks:
        return None
    figure, (ax,) = canvas(1, 0.7 + 0.25 * len(marks))
    ax.axvline(0, color=TARGET, lw=1.2, ls=(0, (4, 3)))
    draw_marks(ax, [_scaled(mark) for mark in marks])
    ax.set_title("Generated images next to a training image, beyond unseen real ones, points")
    said = "; ".join(f"{m.label} {difference({'value': m.value, 'ci95': m.ends})}" for m in marks)
    caption = "Zero (dashed) is what unseen real images show; an interval above zero points to copying."
    return Picture(as_svg(figure), f"Excess of images next to a training image. {said}.", caption)


def _guidance(report: Entry) -> Picture | None:
    rows = {key: report[key].get("guidance") or [] for key in side_names(report)}
    caption = "Lines join the scales measured; bands (95 %) hold for all scales at once, where measured."
    return _curves(report, rows, "scale", "Guidance scale", "Proportion by guidance scale", caption)


def _trajectory(report: Entry) -> Picture | None:
    rows = {"after": report.get("trajectory") or []}
    caption = "Proportion during tuning, with 95 % intervals; the band is the margin around the target (dashed)."
    return _curves(report, rows, "iteration", "Iteration", "Proportion during tuning", caption)


def _curves(
    report: Entry, series: Mapping[str, list[Entry]], axis: str, xlabel: str, title: str, caption: str
) -> Picture | None:
    """Proportion of each shown group along an axis, a line per side with the band of its intervals."""
    if not any(series.values()):
        return None
    groups, names = shown_groups(report), side_names(report)
    figure, axes = canvas(len(groups), 2.2, columns=3, title=_title(report, title))
    for ax, group in zip(axes, groups, strict=True):
        _draw_target(ax.axhspan, ax.axhline, report, group)
        for key, rows in series.items():
            _draw_curve(ax, [row for row in rows if at(row, "proportion", group) is not None], group, axis, key, names)
        ax.set_ylim(0, 100)
        ax.set_xlabel(xlabel)
        _name_panel(ax, report, group)
        draw_grid(ax, "y")
    if len(series) > 1:
        axes[0].legend(loc="best", ncols=2)
    said = [_say_curve(rows, group, axis, names[key]) for group in groups for key, rows in series.items() if rows]
    return Picture(as_svg(figure), f"{title}. " + " ".join(said), caption)


def _draw_curve(ax: Axes, rows: list[Entry], group: str, axis: str, key: str, names: Mapping[str, str]) -> None:
    style, x = SIDES[key], [row[axis] for row in rows]
    ends = [_band(row, group) for row in rows]
    if rows and all(map(known, ends)):
        low, high = 100 * np.array(ends).T
        ax.fill_between(x, low, high, color=style.colour, alpha=0.16, lw=0)
    y = [100 * clipped(row["proportion"][group]) for row in rows]
    ax.plot(x, y, color=style.colour, marker=style.marker, ms=5, lw=1.5, label=names[key])


def _band(row: Entry, group: str) -> Sequence[float] | None:
    simultaneous = at(row, "ci_simultaneous", group)
    return simultaneous if known(simultaneous) else at(row, "ci95", group)


def _say_curve(rows: list[Entry], group: str, axis: str, name: str) -> str:
    values = (f"{share({**row, 'ci95': {group: _band(row, group)}}, group)} at {row[axis]:g}" for row in rows)
    return f"{group}, {name}: " + ", ".join(values) + "."
