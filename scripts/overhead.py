"""What the perturbation costs at the shipped sizes: per iteration beside plain training, and at the end of a window.

python -m scripts.benchmark overhead     # a few minutes; for figures worth keeping, with nothing else running
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from bundle.fairdiffusion.search import repaired_proposal
from scripts.jobs import markdown

CONFIG = "configs/train_fairdiffusion.yaml"
PAIRS, REPEATS, WARM = 60, 7, 5
GROUPS, OBSERVATIONS = 7, 50  # the most that a paper's data set has, and the most that the search looks at


def measure() -> dict[str, Any]:
    """Seconds and ratios, each a median with its quartiles."""
    jobs = {method: _job(method) for method in ("plain", "repaired")}
    pairs = np.array([_pair(jobs, number) for number in range(WARM + PAIRS)][WARM:])
    parser, _ = jobs["repaired"]
    search, window = parser.get_parsed_content("perturbation").search, parser.get_parsed_content("window")
    network = parser.get_parsed_content("network")
    probe = np.array(_repeated(lambda _: search.measure(network)))
    stream = torch.Generator().manual_seed(0)
    scales = torch.rand((OBSERVATIONS, GROUPS), generator=stream, dtype=torch.float64)
    objective = -(scales[:, 0] - 0.3).square() + 0.01 * torch.randn(OBSERVATIONS, generator=stream)
    proposal = np.array(_repeated(lambda seed: repaired_proposal(scales, objective, seed)))
    return {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "pairs": PAIRS,
        "iteration": _quartiles(pairs[:, 0]),
        "ratio": _quartiles(pairs[:, 1] / pairs[:, 0]),
        "window": window,
        "probe": _quartiles(probe),
        "probe_share": _quartiles(probe / (window * np.median(pairs[:, 0]))),
        "search": _quartiles(proposal),
    }


def _job(method: str) -> tuple[ConfigParser, SupervisedTrainer]:
    """A trainer that nothing is attached to but the method."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.parse()
    parser["method"] = method
    parser["train"]["handlers"] = [parser["train"]["handlers"][0]]
    trainer = parser.get_parsed_content("train::trainer")
    return parser, trainer


def _pair(jobs: Mapping[str, tuple[ConfigParser, SupervisedTrainer]], number: int) -> list[float]:
    """Seconds of one iteration on the same batch, plain and weighted; every other time the other one first."""
    batch, seconds = jobs["plain"][0].get_parsed_content("train::draws").draw(number), {}
    for method in sorted(jobs, reverse=bool(number % 2)):
        trainer = jobs[method][1]
        trainer.state.iteration, trainer.state.epoch_length, trainer.state.batch = 1, 1000, batch  # no window ends
        started = time.perf_counter()
        trainer._iteration(trainer, batch)
        seconds[method] = time.perf_counter() - started
    return [seconds["plain"], seconds["repaired"]]


def _repeated(work: Callable[[int], Any]) -> list[float]:
    seconds = []
    for number in range(REPEATS + 1):
        started = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def _quartiles(values: np.ndarray) -> list[float]:
    """Median, lower and upper quartile."""
    return [round(float(value), 5) for value in np.percentile(values, [50, 25, 75])]


def overhead_table(result: Mapping[str, Any]) -> str:
    """Each cost with its bar; median and quartiles."""
    if not result:
        return ""
    added = [100 * (value - 1) for value in result["ratio"]]
    rows = [
        ("an iteration, plain", _shown(result["iteration"], "s"), ""),
        ("what the handler adds to it", _shown(added, "%"), "3 %"),
        (f"probe pass, of a window of {result['window']} iterations", _percent(result["probe_share"]), "10 %"),
        (f"fit and proposal, {GROUPS} groups, {OBSERVATIONS} observations", _shown(result["search"], "s"), "2 s"),
    ]
    title = f"median [quartiles], {result['pairs']} pairs, {result['threads']} threads on {result['cores']} cores"
    return markdown(("cost", title, "bar"), rows)


def _shown(values: Sequence[float], unit: str) -> str:
    middle, low, high = values
    return f"{middle:z.2f} {unit} [{low:z.2f}, {high:z.2f}]"


def _percent(values: Sequence[float]) -> str:
    return _shown([100 * value for value in values], "%")
