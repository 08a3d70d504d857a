"""How often the adjusted count's interval holds the true proportion, on simulated judges, beside the naive count's.

python -m scripts.coverage simulate     # every cell 2,000 times: docs/results/coverage.json, then as below
python -m scripts.coverage table        # write docs/coverage.svg and the section of docs/results.md again
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from tqdm import tqdm

from bundle.errors import InputError
from bundle.evaluation.prevalence import adjusted_count, judge_rates
from scripts.coverage_page import FIGURE, PAGE, write_document
from scripts.jobs import read_json, start, write_json
from scripts.results import RESULTS

ACCURACIES, SUBJECTS, PROPORTIONS = (0.7, 0.8, 0.9, 0.95), (100, 200, 400), (0.1, 0.3, 0.5, 0.7, 0.9)
SLICES = (8, 1)  # the main design, and the one that leaves a subject a single image
GENERATED, ICC, SEED = 1024, 0.6, 0
JSON = RESULTS / "coverage.json"


@dataclass(frozen=True)
class Cell:
    """A judge's accuracy, the subjects (both groups) and slices of each it is measured on, and the true proportion."""

    accuracy: float
    subjects: int
    proportion: float
    slices: int


@dataclass(frozen=True)
class Covered:
    """What one cell gave: how often each interval held the truth, mean widths, and how often it was all of [0, 1]."""

    coverage: float
    width: float
    whole: float
    naive_coverage: float
    naive_width: float


def all_cells() -> list[Cell]:
    """Every combination, the main design first."""
    return [Cell(*rest, slices) for slices, *rest in product(SLICES, ACCURACIES, SUBJECTS, PROPORTIONS)]


def simulated_calls(rng: np.random.Generator, accuracy: float, truth: NDArray, slices: int) -> NDArray[np.int64]:
    """Calls (subjects, slices) by Gaussian scores: groups 2 Phi^-1(accuracy) apart, slices of a subject correlated."""
    subject = rng.normal(size=(len(truth), 1)) * np.sqrt(ICC)
    score = subject + rng.normal(size=(len(truth), slices)) * np.sqrt(1 - ICC)
    return (score + norm.ppf(accuracy) * (2 * truth[:, None] - 1) > 0).astype(np.int64)


def wilson(share: ArrayLike, n: int, confidence: float = 0.95) -> NDArray[np.float64]:
    """Ends (..., 2) of the interval of a proportion counted among n (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    share, z2 = np.asarray(share, dtype=float), norm.ppf((1 + confidence) / 2) ** 2
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2)))
    return np.stack([share + z2 / (2 * n) - half, share + z2 / (2 * n) + half], axis=-1) / (1 + z2 / n)


def cover(cell: Cell, repeats: int) -> Covered:
    """Measure a new judge and count new images ``repeats`` times; a function of its arguments alone."""
    key = [SEED, *(round(1000 * number) for number in asdict(cell).values())]
    rng = np.random.default_rng(key)
    truth = np.repeat([0, 1], cell.subjects // 2)
    images, persons = np.repeat(truth, cell.slices), np.repeat(np.arange(len(truth)), cell.slices)
    ends, called = np.empty((repeats, 2)), np.empty(repeats)
    for i in range(repeats):
        measured = simulated_calls(rng, cell.accuracy, truth, cell.slices)
        rates = judge_rates(measured.ravel(), images, persons, ("first", "second"))
        generated = (rng.random(GENERATED) < cell.proportion).astype(np.int64)
        count = adjusted_count(simulated_calls(rng, cell.accuracy, generated, 1).ravel(), rates)
        ends[i], called[i] = count.interval()[1], count.raw[1]
    coverage, width = _held(ends, cell.proportion)
    whole = float((np.diff(ends) == 1).mean())
    return Covered(coverage, width, whole, *_held(wilson(called, GENERATED), cell.proportion))


def _held(ends: NDArray[np.float64], truth: float) -> tuple[float, float]:
    low, high = ends.T
    return float(((low <= truth) & (truth <= high)).mean()), round(float((high - low).mean()), 5)


def study(cells: Sequence[Cell], repeats: int, processes: int | None = None) -> dict:
    """What every cell gave, as it goes to the JSON file; the number of processes changes nothing but the time."""
    # Processes are spawned: a fork copies the locks of whatever threads have been started.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        covered = list(tqdm(pool.map(partial(cover, repeats=repeats), cells), total=len(cells), unit="cell"))
    rows = [{**asdict(cell), **asdict(result)} for cell, result in zip(cells, covered, strict=True)]
    slices = list(dict.fromkeys(cell.slices for cell in cells))
    return {"repeats": repeats, "generated": GENERATED, "slices": slices, "icc": ICC, "cells": rows}


def simulate(repeats: int = 2000, processes: int | None = None) -> None:
    """Carry out the study and write its file, figure and section."""
    if repeats < 1:
        raise InputError(f"repeats: {repeats}; give at least 1, and 2,000 for the documents")
    write_json(study(all_cells(), repeats, processes), JSON)
    table()


def table(results: str | Path = JSON, figure: str | Path = FIGURE, page: str | Path = PAGE) -> None:
    """Write the figure, and the section of the page, from the file of the study."""
    measured = read_json(Path(results))
    if not measured:
        raise InputError(f"{results}: not there; run python -m scripts.coverage simulate")
    write_document(measured, Path(figure), Path(page))


if __name__ == "__main__":
    start({"simulate": simulate, "table": table})
