"""The comparison of training methods for equal quality: its runs, what is kept of each, and the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import t, ttest_1samp

from scripts.jobs import command, markdown

METHODS = ("plain", "fixed_noise", "published", "repaired", "importance", "group_dro", "balanced")
BASE = "base"  # the model that all start from, as it is
SEEDS = (0, 1, 2, 3, 4)
ATTRIBUTE, SPACE = "sex", "clip_neutral"  # what the phantom's table shows

Report = Mapping[str, Any]


@dataclass(frozen=True)
class FairnessRun:
    """Training from the shared base by one method, and its evaluation beside plain training of the same seed."""

    method: str
    seed: int
    report = "fairness.json"

    @property
    def name(self) -> str:
        return f"{self.method}_{self.seed}"

    @property
    def compared_with(self) -> str | None:
        """Name of the run whose images are compared with, one by one."""
        return None if self.method in (BASE, METHODS[0]) else f"{METHODS[0]}_{self.seed}"

    def commands(self, work: Path) -> list[list[str]]:
        shared = {"seed": self.seed, "output_dir": work / self.name}
        evaluate = {**shared, "images_dir": work / "images"}
        if self.method == BASE:
            evaluate["weights"] = "models/denoiser.pt"
        if self.compared_with:
            evaluate["compared_with"] = work / self.compared_with
        train = command("training", ["configs/train_fairdiffusion.yaml"], **shared, method=self.method)
        return [
            *([] if self.method == BASE else [train]),
            command("evaluating", ["configs/evaluate_fairness.yaml"], **evaluate),
        ]


def fairness_runs(seeds: Iterable[int] = SEEDS) -> list[FairnessRun]:
    """Every method with every seed; the seeds in turn, so that an interrupted comparison has whole rows."""
    return [FairnessRun(method, seed) for seed in seeds for method in (*METHODS, BASE)]


def kept(name: str, report: Report) -> dict:
    """What the documents need of a report; ``name`` is that of the run, method and seed."""
    method, _, seed = name.rpartition("_")
    attributes = {attribute: _kept(entry) for attribute, entry in report["attributes"].items()}
    shared = {key: report[key] for key in ("n", "n_each", "finding", "seconds", "versions")}
    return {"method": method, "seed": int(seed), "attributes": attributes, **shared}


def _kept(entry: Report) -> dict:
    """Of one attribute: quality by group and space, what images mean, the denoising loss, and the paired changes."""
    sides = {side: _quality(entry[side]["by_group"]) for side in ("generated", "ceiling")}
    return {**sides, **{key: entry[key] for key in ("denoising_loss", "semantic", "change")}}


def _quality(by_group: Report) -> dict:
    measures = ("kid", "fd", "precision", "recall", "coverage")
    groups = {
        group: {space: {name: found[name] for name in measures} for space, found in entry["quality"].items()}
        for group, entry in by_group["groups"].items()
    }
    return {"n_each": by_group["n_each"], "groups": groups, "difference": by_group["difference"]}


# What the table shows of a run: heading -> the figure. A smaller gap is nearer to equal.
FIGURES = {
    "worst group's KID": lambda run: max(_kids(run)),
    "KID, gap": lambda run: max(_kids(run)) - min(_kids(run)),
    "AUC": lambda run: _auc(run)["auc"]["value"],
    "worst group's AUC": lambda run: min(found["auc"]["value"] for found in _auc(run)["groups"].values()),
    "denoising loss": lambda run: run["attributes"][ATTRIBUTE]["denoising_loss"]["overall"]["value"],
    "worst group's loss": lambda run: max(
        found["value"] for found in run["attributes"][ATTRIBUTE]["denoising_loss"]["groups"].values()
    ),
}


def _kids(run: Report) -> list[float]:
    return [group[SPACE]["kid"]["value"] for group in run["attributes"][ATTRIBUTE]["generated"]["groups"].values()]


def _auc(run: Report) -> Report:
    return run["attributes"][ATTRIBUTE]["semantic"]["generated_to_real"]


def fairness_table(results: Mapping[str, Report]) -> str:
    """Method by method the mean over the seeds with its interval; below, the changes from plain training, whose first
    figure was chosen beforehand: its p is Holm's over the methods."""
    if not results:
        return ""
    runs = {(run["method"], run["seed"]): run for run in results.values()}
    methods = [name for name in (BASE, *METHODS) if any(method == name for method, _ in runs)]
    seeds = {name: sorted(seed for method, seed in runs if method == name) for name in methods}
    values = [
        (
            name,
            len(seeds[name]),
            *(_spread([figure(runs[name, seed]) for seed in seeds[name]]) for figure in FIGURES.values()),
            *(_seconds([runs[name, seed] for seed in seeds[name]])),
        )
        for name in methods
    ]
    values.append(("ceiling", 1, *_ceiling(next(iter(results.values()))), "-", "-"))
    first = markdown(("method", "seeds", *FIGURES, "s, training", "s, in all"), values)
    pairs = {
        name: [seed for seed in seeds[name] if (METHODS[0], seed) in runs] for name in methods if name != METHODS[0]
    }
    changes = {
        name: [[f(runs[name, s]) - f(runs[METHODS[0], s]) for s in both] for f in FIGURES.values()]
        for name, both in pairs.items()
        if both
    }
    if not changes:
        return first
    p = _holm({name: found[0] for name, found in changes.items()})
    rows = [(name, len(found[0]), p[name], *map(_spread, found)) for name, found in changes.items()]
    heading = ("change from plain", "seeds", f"p, {next(iter(FIGURES))}", *FIGURES)
    return f"{first}\n\n{markdown(heading, rows)}"


def _ceiling(run: Report) -> list[str]:
    """Of real people's slices in place of generated ones, and of a classifier that learned from real ones."""
    entry = run["attributes"][ATTRIBUTE]
    kids = [group[SPACE]["kid"]["value"] for group in entry["ceiling"]["groups"].values()]
    auc = entry["semantic"]["real_to_real"]
    worst = min(found["auc"]["value"] for found in auc["groups"].values())
    return [f"{value:z.3f}" for value in (max(kids), max(kids) - min(kids), auc["auc"]["value"], worst)] + ["-", "-"]


def _holm(changes: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Of each method the p of a paired t test over the seeds, adjusted for the number of methods (Holm, 1979); the base
    is no method."""
    tested = {name: values for name, values in changes.items() if name != BASE and len(values) > 1}
    raw = {name: float(ttest_1samp(values, 0).pvalue) for name, values in tested.items()}
    adjusted, least = {}, 0.0
    for place, name in enumerate(sorted(raw, key=raw.get)):
        least = max(least, min(1.0, (len(raw) - place) * raw[name]))
        adjusted[name] = f"{least:.3f}"
    return {name: adjusted.get(name, "-") for name in changes}


def _spread(values: Sequence[float]) -> str:
    """The mean, and the 95 % interval of a t distribution over the seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):z.3f} [{mean(values) - half:z.3f}, {mean(values) + half:z.3f}]"


def _seconds(runs: Sequence[Report]) -> tuple[str, str]:
    """Medians over the runs that were carried out in one go: of the training, and of everything."""
    timed = [run["seconds"] for run in runs if "wall" in run["seconds"]]
    if not timed:
        return "-", "-"
    training = [seconds["steps"][0] for seconds in timed if len(seconds["steps"]) == 2]
    return f"{median(training):.0f}" if training else "-", f"{median(seconds['wall'] for seconds in timed):.0f}"
