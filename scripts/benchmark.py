"""Runs whose results the documents show. Each leaves one JSON file in ``docs/results``; a run that has one is skipped.

python -m scripts.benchmark qualify     # seeds 0 to 2, the anchor on the source, a target given by number
python -m scripts.benchmark ablation    # the default beside itself without one part each, seeds 0 to 2
python -m scripts.benchmark fairness    # methods for equal quality beside plain training, seeds 0 to 4
python -m scripts.benchmark compose     # equal quality, then the right proportion
python -m scripts.benchmark overhead    # what the perturbation costs
python -m scripts.benchmark speed       # an iteration of the alignment beside other ways to the same gradient
python -m scripts.benchmark stable_diffusion  # the alignment at the size of Stable Diffusion 1.5, on a GPU
python -m scripts.benchmark generation  # seconds and memory of inference.yaml, and a job that is killed
python -m scripts.benchmark budget      # seconds of each part of `make align`, from nothing
python -m scripts.benchmark table       # write the tables into the documents again
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from bundle.cohorts import phantom
from scripts import composition
from scripts import fairness as equal_quality
from scripts import generation as making
from scripts import overhead as costs
from scripts import speed as iteration
from scripts import stable_diffusion as large
from scripts.jobs import JobFailed, command, duration, read_json, run, shown, start, write_json
from scripts.results import RESULTS, summary, write_tables

SEEDS = (0, 1, 2)
NUM_IMAGES = 2048  # of a qualifying run, and of each of its snapshots
NUM_SNAPSHOTS = 5
COHORTS = ("source", "target", "judge", "validation")


@dataclass(frozen=True)
class Run:
    """An alignment and its evaluation; ``both`` are options of the two, ``overlay`` a config laid over align.yaml."""

    name: str
    seed: int
    align: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    both: Mapping[str, Any] = field(default_factory=dict)
    overlay: str | None = None
    report = "report.json"

    def commands(self, work: Path) -> tuple[list[str], list[str]]:
        """Both commands; runs of one seed share the images of the untuned model."""
        shared = {"seed": self.seed, "output_dir": work / self.name, **self.both}
        configs = ["configs/align.yaml", *([self.overlay] if self.overlay else [])]
        align = command("training", configs, **shared, **self.align)
        images = {"images_dir": work / "images"}
        return align, command("evaluating", ["configs/evaluate.yaml"], **shared, **images, **self.evaluate)


def last_third(iterations: int, number: int) -> list[int]:
    """``number`` iterations spread evenly over the last third, the last one included."""
    return [math.ceil(iterations * (2 / 3 + i / (3 * (number - 1)))) for i in range(number)]


def qualifying_runs(iterations: int) -> list[Run]:
    """The runs by which the method is judged; no seed is ever replaced."""
    align = {"stop": False, "snapshots::iterations": last_third(iterations, NUM_SNAPSHOTS)}
    evaluate = {"num_images": NUM_IMAGES, "num_snapshot_images": NUM_IMAGES}
    source, by_number = {**align, "anchor": "source"}, {"target": {"male": 0.3}}
    return [
        *(Run(f"seed_{seed}", seed, align, evaluate) for seed in SEEDS),
        Run("source_anchor_0", 0, source, evaluate),
        Run("male_30_0", 0, source, evaluate, by_number),
    ]


SHORT = {"scales": [], "num_stated": 0, "num_round_trip": 0}  # an evaluation of the main images alone

# What is changed beside the default, and the options that change it.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no_anchor": {"align": {"anchor_weight": 0}},
    "plain": {"overlay": "configs/plain.yaml"},
    "marginal": {"align": {"alignment_loss": "marginal"}},
    "truncated": {"align": {"gradient": "truncated", "num_followed": 1}},
    "no_consistency": {"align": {"consistency": 0}},
    "threshold": {"align": {"max_uncertainty": 0.2}},
    "no_integral": {"align": {"integral_gain": 0}},
}


def ablation_runs() -> list[Run]:
    """Every variant with every seed; the seeds in turn, so that an interrupted ablation compares whole rows."""
    runs = []
    for seed in SEEDS:
        for name, changed in VARIANTS.items():
            align = {"num_snapshots": 1, **changed.get("align", {})}
            runs.append(Run(f"{name}_{seed}", seed, align, SHORT, overlay=changed.get("overlay")))
    return runs


def qualify(work_dir: str = "outputs/qualifying") -> None:
    """Carry out the qualifying runs and keep each ``report.json`` with its commands."""
    iterations = ConfigParser.load_config_file("configs/align.yaml")["iterations"]

    def kept(_: str, report: dict) -> dict:
        return {**report, "scheduled": iterations}

    carry_out(qualifying_runs(iterations), Path(work_dir), RESULTS / "qualifying", kept)


def ablation(work_dir: str = "outputs/ablation") -> None:
    """Carry out the ablation and keep the figures of its table."""
    carry_out(ablation_runs(), Path(work_dir), RESULTS / "ablation", summary)


def fairness(work_dir: str = "outputs/fairness", seeds: Sequence[int] = equal_quality.SEEDS) -> None:
    """Carry out the comparison of methods for equal quality and keep the figures of its table.

    ``seeds`` in parts where several machines, or one thread each, share the work.
    """
    runs, work = equal_quality.fairness_runs(seeds), Path(work_dir)
    done = {item.name for item in runs if (RESULTS / "fairness" / f"{item.name}.json").is_file()}
    needed = {item.compared_with for item in runs if item.name not in done}
    for name in needed & done:
        if not (work / name / "scores.npz").is_file():  # the results are of another machine or folder
            (RESULTS / "fairness" / f"{name}.json").unlink()
    carry_out(runs, work, RESULTS / "fairness", equal_quality.kept)


def compose(work_dir: str = "outputs/composition", seed: int = 0) -> None:
    """Equal quality first, the right proportion then; keep what both have reached."""
    composition.compose(Path(work_dir), seed, RESULTS / "composition.json")
    write_tables()


def overhead() -> None:
    """Measure what the perturbation costs at the shipped sizes."""
    write_json(costs.measure(), RESULTS / "overhead.json")
    write_tables()


def speed() -> None:
    """Measure an iteration of the alignment beside other ways to the same gradient; a stopped run is gone on with."""
    path = RESULTS / "speed.json"
    for result in iteration.measure(read_json(path)):
        write_json(result, path)
        write_tables()


def stable_diffusion(work_dir: str = "outputs/stable_diffusion") -> None:
    """Measure the alignment at the size of Stable Diffusion 1.5, or without a GPU of a much smaller pipeline; a stopped
    run is gone on with."""
    path = RESULTS / "stable_diffusion.json"
    for result in large.measure(Path(work_dir), read_json(path)):
        write_json(result, path)
        write_tables()


def generation(work_dir: str = "outputs/generation") -> None:
    """Measure what generation takes, from an empty folder."""
    shutil.rmtree(work_dir, ignore_errors=True)
    write_json(making.measure(Path(work_dir)), RESULTS / "generation.json")
    write_tables()


def carry_out(runs: Sequence[Run], work: Path, results: Path, kept: Callable[[str, dict], dict]) -> None:
    """Run what has no result yet; ``kept(name, report)`` goes to ``results/<name>.json``, with commands and seconds.

    A run that fails is reported and passed over; then the exit code is 1, and the next call tries it again.
    """
    left = [run for run in runs if not (results / f"{run.name}.json").is_file()]
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them done; about {duration(expected(results, len(left)))}")
    failed = []
    for number, item in enumerate(left, 1):
        remaining = duration(expected(results, len(left) - number + 1))
        print(f"[{number}/{len(left)}] {item.name}, log {work / item.name}/log.txt; left: {remaining}", flush=True)
        try:
            result = _carry_out_one(item, work, kept)
        except JobFailed as error:
            failed.append(item.name)
            print(f"  failed: {error}", file=sys.stderr, flush=True)
            continue
        write_json(result, results / f"{item.name}.json")
        write_tables()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the same command tries them again")


def _carry_out_one(item: Run, work: Path, kept: Callable[[str, dict], dict]) -> dict:
    folder, commands, ended = work / item.name, item.commands(work), [time.monotonic()]
    continued = folder.is_dir()
    for words in commands:
        run(words, folder / "log.txt")
        ended.append(time.monotonic())
    result = kept(item.name, read_json(folder / item.report))
    if not continued:
        steps = [round(late - early) for early, late in pairwise(ended)]
        result["seconds"] |= {"wall": round(ended[-1] - ended[0]), "steps": steps}
    return {**result, "commands": [shown(words) for words in commands]}


def expected(results: Path, number: int) -> float | None:
    """Seconds that ``number`` runs will take, going by the mean of those that ran in one go; None before the first."""
    seconds = [read_json(path)["seconds"] for path in results.glob("*.json")]
    walls = [entry["wall"] for entry in seconds if "wall" in entry]
    if not number:
        return 0.0
    return number * sum(walls) / len(walls) if walls else None


def budget(work_dir: str = "outputs/budget") -> None:
    """Time each part of ``make align`` in empty folders, cohorts included, and keep its picture in docs/."""
    work = Path(work_dir)
    shutil.rmtree(work, ignore_errors=True)
    folders = {"dataset_dir": str(work / "phantom"), "cache_dir": str(work / "cache")}
    parts = _time_cohorts(folders)
    align, evaluate = Run("align", 0, both={**folders, "tracking_uri": f"sqlite:///{work}/mlflow.db"}).commands(work)
    for name, words in (("align", align), ("evaluate", evaluate)):
        print(shown(words), flush=True)
        started = time.monotonic()
        run(words, work / "align" / "log.txt")
        parts[name] = time.monotonic() - started
    training = read_json(work / "align" / "report.json")["seconds"]["align"]
    parts["set-up of the alignment"] = parts.pop("align") - training
    parts["iterations of the alignment"] = training
    parts["evaluation"] = parts.pop("evaluate")
    shutil.copy(work / "align" / "samples.png", "docs/samples.png")
    rounded = {name: round(seconds) for name, seconds in parts.items()}
    write_json({"cores": os.cpu_count(), "seconds": rounded}, RESULTS / "budget.json")
    write_tables()


def _time_cohorts(folders: Mapping[str, str]) -> dict[str, float]:
    parser = ConfigParser()
    parser.read_config("configs/align.yaml")
    parser.update(dict(folders))
    load = parser.get_parsed_content("load_cohort")
    seconds = {}
    for part, make in (("volumes", lambda role: phantom.generate(folders["dataset_dir"], role)), ("slices", load)):
        started = time.monotonic()
        for role in COHORTS:
            make(role)
        seconds[f"{part} of the {len(COHORTS)} cohorts"] = time.monotonic() - started
    return seconds


if __name__ == "__main__":
    start(
        {
            "qualify": qualify,
            "ablation": ablation,
            "fairness": fairness,
            "compose": compose,
            "overhead": overhead,
            "generation": generation,
            "speed": speed,
            "stable_diffusion": stable_diffusion,
            "budget": budget,
            "table": write_tables,
        }
    )
