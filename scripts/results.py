"""What the documents say of the runs: bars held or missed, and tables; all of it read from ``docs/results``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from scripts.composition import composition_table
from scripts.fairness import fairness_table
from scripts.generation import generation_table
from scripts.jobs import duration, markdown, read_json, replace_section
from scripts.overhead import overhead_table
from scripts.speed import speed_table
from scripts.stable_diffusion import stable_diffusion_table

RESULTS = Path("docs/results")

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """One condition of a qualifying run, what was measured, and whether it holds."""

    name: str
    measured: str
    held: bool

    def __str__(self) -> str:
        return f"{self.measured}, {'held' if self.held else '**missed**'}"


def bars(report: Report) -> Iterator[Bar]:
    """Every condition that a single run can meet."""
    before, after, real = report["before"], report["after"], report["real"]
    yield Bar("gap before at least 15 points", percent(before["gap"]), before["gap"] >= 0.15)
    yield _at_most("gap after at most 5 points, judge", after["gap"], 0.05)
    yield _at_most("gap after at most 5 points, true share", after["true_gap"], 0.05)
    yield _trajectory_bar(report["trajectory"], report["scheduled"])
    for space, change in report["kid_change"].items():
        limit = 0.1 * max(before["kid"][space]["value"], real["kid"][space]["value"])
        name = f"KID, {space}: rises by at most 10 % of before's, or of real against real (upper end of the interval)"
        yield Bar(name, f"{change['ci95'][1]:.3g} of {limit:.3g}", change["ci95"][1] <= limit)
    away = abs(after["ambiguity"] - real["ambiguity"])
    measured = f"{percent(after['ambiguity'])}, real {percent(real['ambiguity'])}"
    yield Bar("ambiguity within 5 points of real", measured, away <= 0.05)
    measured = f"{percent(after['agreement'])}, real {percent(real['agreement'])}"
    least = max(0.85, real["agreement"] - 0.05)
    name = "guide and judge agree: at least 85 %, and at most 5 points less often than on real slices"
    yield Bar(name, measured, after["agreement"] >= least)
    yield from _lesion_bars(before["faithfulness"], after["faithfulness"])
    yield Bar('before is "not aligned"', before["verdict"], before["verdict"] == "not aligned")
    yield Bar('after is never "not aligned"', after["verdict"], after["verdict"] != "not aligned")


def _at_most(name: str, value: float | None, limit: float) -> Bar:
    return Bar(name, percent(value), value is not None and value <= limit)


def _trajectory_bar(trajectory: Sequence[Report], scheduled: int) -> Bar:
    name = "at least 5 snapshots, evenly over the last third, 2,048 images each: gaps at most 8 points"
    rows = [row for row in trajectory if 3 * row["iteration"] >= 2 * scheduled and row["n"] >= 2048]
    places, worst = [row["iteration"] for row in rows], max((row["gap"] for row in rows), default=None)
    apart = [late - early for early, late in pairwise(places)]
    # from the beginning of the last third to the last iteration, in steps that differ by the rounding alone
    even = len(rows) >= 5 and places[0] * 3 <= 2 * scheduled + 3 and places[-1] == scheduled
    even = even and max(apart) - min(apart) <= 1
    return Bar(name, f"{len(rows)}, largest {percent(worst)}", even and worst <= 0.08)


def _lesion_bars(before: Report, after: Report) -> Iterator[Bar]:
    """Adjusted and plain shares must both hold: where the former exceed 100 % they are rough."""
    keys = ("lesion_prompted", "lesion_not_prompted")
    asked, other = ([(before[k], after[k]) for k in (key, f"{key}_raw")] for key in keys)
    known = not any(share is None for pair in asked + other for share in pair)

    def bar(name: str, pairs: Sequence[tuple], holds: Callable[[float, float], bool]) -> Bar:
        measured = ", plain ".join(f"{percent(old)} to {percent(new)}" for old, new in pairs)
        return Bar(name, measured, known and all(holds(old, new) for old, new in pairs))

    yield bar("lesions asked for: in at least 85 % before", asked, lambda old, _: old >= 0.85)
    yield bar("lesions asked for: at most 5 points fewer", asked, lambda old, new: new >= old - 0.05)
    yield bar("lesions not asked for: at most 5 points more", other, lambda old, new: new <= old + 0.05)


def summary(name: str, report: Report) -> dict:
    """What the ablation's table needs of a report; ``name`` is that of the run, variant and seed."""
    variant, _, seed = name.rpartition("_")
    after = report["after"]
    kept = ("n", "proportion", "ci95", "gap", "true_gap", "verdict", "ambiguity", "agreement", "faithfulness")
    before = {key: report["before"][key] for key in ("gap", "kid")}
    shared = {key: report[key] for key in ("target", "kid_change", "seconds", "versions")}
    return {"variant": variant, "seed": int(seed), **{key: after[key] for key in kept}, "before": before, **shared}


def qualifying_table(reports: Mapping[str, Report]) -> str:
    """Bars by run, each with what was measured, and the count over the seeds."""
    if not reports:
        return ""
    found = {name: list(bars(report)) for name, report in reports.items()}
    first = next(iter(found.values()))
    rows = [(bar.name, *(str(column[i]) for column in found.values())) for i, bar in enumerate(first)]
    seeds = [report["after"]["verdict"] for name, report in reports.items() if name.startswith("seed_")]
    aligned = seeds.count("aligned")
    total = f'"aligned" in {aligned} of {len(seeds)} seeds'
    if len(seeds) == 3:
        total = str(Bar("", f"{total} (bar: 2 of 3)", aligned >= 2))
    return f"{markdown(('bar', *found), rows)}\n\nOver the seeds: {total}."


def share_table(reports: Mapping[str, Report]) -> str:
    """Run by run, the share of the last group before and after with its verdict."""
    if not reports:
        return ""
    rows = []
    for name, report in reports.items():
        group, before, after = report["groups"][-1], report["before"], report["after"]
        shares = [f"{percent(side['proportion'][group])} {_ends(side['ci95'][group])}" for side in (before, after)]
        true = after["true_proportion"]
        true_share = f"{percent(true[group])} {_ends(after['true_ci95'][group])}" if true else "-"
        rows.append((name, percent(report["target"][group]), *shares, true_share, after["verdict"]))
    group = next(iter(reports.values()))["groups"][-1]
    return markdown(("run", f"target, {group}", "before", "after", "after, true share", "verdict"), rows)


def ablation_table(results: Mapping[str, Report], order: Sequence[str] = ()) -> str:
    """Variant by variant: gaps of the seeds, KID change (mean, and highest upper end), agreement, seconds, verdicts."""
    if not results:
        return ""
    groups: dict[str, list[Report]] = {}
    for entry in sorted(results.values(), key=lambda entry: entry["seed"]):
        groups.setdefault(entry["variant"], []).append(entry)
    spaces = list(next(iter(results.values()))["kid_change"])
    names = [*(name for name in order if name in groups), *(name for name in groups if name not in order)]
    header = ("variant", "seeds", "gap", *(f"KID change, {space}" for space in spaces), "agreement", "s", "verdicts")
    return markdown(header, (_variant_row(name, groups[name], spaces) for name in names))


def _variant_row(name: str, entries: Sequence[Report], spaces: Sequence[str]) -> tuple[str, ...]:
    changes = [[entry["kid_change"][space] for entry in entries] for space in spaces]
    return (
        name,
        ", ".join(str(entry["seed"]) for entry in entries),
        ", ".join(percent(entry["gap"]) for entry in entries),
        *(f"{mean(c['value'] for c in change):.3g} (to {max(c['ci95'][1] for c in change):.3g})" for change in changes),
        ", ".join(percent(entry["agreement"]) for entry in entries),
        f"{median(entry['seconds']['align'] for entry in entries):.0f}",
        ", ".join(entry["verdict"] for entry in entries),
    )


def budget_table(measured: Report) -> str:
    """Seconds by part and in all."""
    if not measured:
        return ""
    seconds = measured["seconds"]
    rows = [*seconds.items(), ("**in all**", sum(seconds.values()))]
    return markdown(("part", f"seconds on {measured['cores']} cores"), rows)


def budget_line(measured: Report) -> str:
    """How long ``make align`` takes, in a sentence."""
    if not measured:
        return ""
    total = duration(sum(measured["seconds"].values()))
    return f"On {measured['cores']} cores without a GPU `make align` took {total}, installation not counted."


def full_size_table(measured: Report) -> str:
    """Minutes and memory by part, and the disk, of the run at BraTS's full size."""
    if not measured:
        return ""
    parts, disk = measured["parts"], measured["disk_mb"]
    rows = [(name, f"{part['seconds'] / 60:.1f}", f"{part['peak_mb'] / 1000:.1f} GB") for name, part in parts.items()]
    table = markdown(("part", f"minutes on {measured['cores']} cores", "memory at its peak"), rows)
    return f"{table}\n\nOn disk: volumes {disk['volumes'] / 1000:.1f} GB, cache {disk['cache']} MB."


def read_results(folder: Path) -> dict[str, Report]:
    """The JSON files of a folder by name."""
    return {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}


def write_tables(
    results: Path = RESULTS,
    page: Path = Path("docs/results.md"),
    front: Path = Path("README.md"),
    which: Path = Path("docs/which.md"),
    pipelines: Path = Path("docs/pipelines.md"),
) -> None:
    """Write every table that comes from ``docs/results`` into the documents."""
    qualifying = read_results(results / "qualifying")
    qualifying = {n: qualifying[n] for n in sorted(qualifying, key=lambda n: (not n.startswith("seed_"), n))}
    replace_section(page, "qualifying", qualifying_table(qualifying))
    replace_section(page, "shares", share_table(qualifying))
    replace_section(page, "ablation", ablation_table(read_results(results / "ablation"), ("default",)))
    replace_section(page, "fairness", fairness_table(read_results(results / "fairness")))
    replace_section(which, "composition", composition_table(read_json(results / "composition.json")))
    replace_section(page, "overhead", overhead_table(read_json(results / "overhead.json")))
    replace_section(page, "speed", speed_table(read_json(results / "speed.json")))
    large = read_json(results / "stable_diffusion.json")
    replace_section(page, "stable_diffusion", stable_diffusion_table(large))
    replace_section(pipelines, "generation", generation_table(read_json(results / "generation.json")))
    replace_section(page, "budget", budget_table(read_json(results / "budget.json")))
    replace_section(page, "full_size", full_size_table(read_json(results / "full_size.json")))
    replace_section(front, "shares", share_table(qualifying))
    replace_section(front, "time", budget_line(read_json(results / "budget.json")))


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:z.1f} %"


def _ends(interval: Sequence[float]) -> str:
    return f"[{', '.join(f'{100 * end:z.1f}' for end in interval)}]"
