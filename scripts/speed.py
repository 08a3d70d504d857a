"""What an iteration of the alignment takes, beside other ways to send the same loss back through the sampler.

    python -m scripts.benchmark speed     # some half an hour on 2 cores

All ways share networks, noise, prompts and loss in one process, in turn; memory is that of a process of its own each.
Published codes differ from these re-statements in more than the gradient: they also sample the untuned model anew in
every iteration, for which the alignment has a pool.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from bundle.alignment.options import AlignmentOptions
from bundle.alignment.reference import ReferencePool
from bundle.alignment.step import AlignmentStep
from bundle.alignment.targets import IntegralAction
from bundle.generation import Sampler, draw
from bundle.sampling import Noise, Schedule, ddim_step, step_weights
from bundle.tuning import trainable
from scripts.jobs import markdown

FOLLOWED, MICRO, ROUNDS, PROMPTS = 4, 16, 3, 8
NETWORKS = ("denoiser", "autoencoder", "guide", "clip")
SIZES = [(10, 16, 1), (20, 16, 1), (20, 8, 1), (20, 8, 2), (50, 16, 1), (20, 64, 1)]  # steps, batch, width


@dataclass
class Case:
    """An iteration to be made: networks of align.yaml, the denoiser ``width`` times as wide, and ``batch`` images."""

    num_steps: int
    batch: int
    width: int

    def __post_init__(self) -> None:
        parser = ConfigParser()
        parser.read_config("configs/align.yaml")
        parser.parse()
        parser["denoiser_def"]["channels"] = [self.width * size for size in parser["denoiser_def"]["channels"]]
        self.device = parser.get_parsed_content("device")
        networks = (parser.get_parsed_content(f"{name}_def").to(self.device) for name in NETWORKS)
        self.denoiser, autoencoder, self.guide, self.clip = networks
        for network in (autoencoder, self.guide, self.clip):
            network.eval().requires_grad_(False)
        self.decode = autoencoder.decode
        schedule = Schedule.from_scheduler(parser.get_parsed_content("scheduler"), self.num_steps)
        contexts = self.clip.context([f"axial FLAIR brain MRI, {number}" for number in range(PROMPTS)])
        self.sampler = Sampler(schedule, 2.0, contexts, self.clip.context([""]), self.decode)
        shares = torch.full((PROMPTS,), 1 / PROMPTS, dtype=torch.float64)
        self.draws = draw(0, "speed", self.batch, shares, parser.get_parsed_content("latent_shape"))
        stream = torch.Generator().manual_seed(0)
        features = torch.randn(self.batch, self.clip.text_features([""]).shape[1], generator=stream)
        self.features = normalize(features, dim=1).to(self.device)
        self.targets = torch.randint(2, (self.batch,), generator=stream).to(self.device)
        self.parameters = list(trainable(self.denoiser).values())

    def step(self, gradient: str = "adjusted", followed: int = FOLLOWED) -> AlignmentStep:
        """The alignment itself."""
        logits = torch.randn(self.batch, 2, generator=torch.Generator().manual_seed(1)).to(self.device)
        return AlignmentStep(
            options=AlignmentOptions(
                num_steps=self.num_steps,
                pool_size=self.batch,
                batch_size=self.batch,
                gradient=gradient,
                num_followed=followed,
                micro_batch=MICRO,
                denoiser_batch=MICRO,
            ),
            targets={"all": torch.tensor([0.42, 0.58], dtype=torch.float64)},
            strata=["all"] * PROMPTS,
            sampler=self.sampler,
            guide=self.guide,
            clip=self.clip,
            pool=ReferencePool(self.draws, self.features, logits),
            rates=torch.eye(2, dtype=torch.float64),
            integral=IntegralAction(gain=0.05),
            seed=0,
        )

    def parts(self) -> Sequence[Tensor]:
        """Images whose graphs are held at once, in every way the same number."""
        return torch.arange(self.batch).split(MICRO)

    def noise(self, part: Tensor) -> Noise:
        return self.sampler.noise(self.denoiser, self.draws.prompt[part])

    def start(self, part: Tensor) -> Tensor:
        return self.draws.noise[part].to(self.device)

    def loss(self, latents: Tensor, part: Tensor) -> Tensor:
        """Of a part of the batch: the guide's cross entropy, and the images' distance from the references."""
        images = self.decode(latents)
        similar = (self.clip.image_features(images) * self.features[part.to(self.device)]).sum(1)
        alignment = cross_entropy(self.guide(images), self.targets[part.to(self.device)], reduction="sum")
        return (alignment + 4 * (1 - similar).sum()) / self.batch


def ours(case: Case, gradient: str = "adjusted", followed: int = FOLLOWED) -> list[Tensor]:
    """The alignment's iteration."""
    return case.step(gradient, followed)(case.denoiser, 0).gradients


def passes_alone(case: Case) -> None:
    """Only what the iteration must pass through the networks, forwards and backwards, and nothing in between."""
    schedule = case.sampler.schedule
    for part in case.parts():
        noise, x = case.noise(part), case.start(part)
        with torch.no_grad():
            for step in range(len(schedule)):
                noise(x, step)
            case.guide(case.decode(x))
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(case.loss(leaf, part), leaf)
        for step in range(FOLLOWED):
            torch.autograd.grad(noise(x, step).sum(), case.parameters)


def hooks(case: Case) -> list[Tensor]:
    """Every step's noise prediction is kept with its graph, its input detached; a hook on it puts the weight of its
    step into the gradient that comes through the scheduler (Shen et al., ICLR 2024, their code re-stated)."""
    schedule = case.sampler.schedule
    factors = (step_weights(schedule, "adjusted") / step_weights(schedule, "decoupled")).tolist()

    def chain(noise: Noise, x: Tensor) -> Tensor:
        for step, factor in enumerate(factors):
            predicted = noise(x.detach(), step)
            predicted.register_hook(partial(torch.mul, factor))
            x = ddim_step(x, predicted, schedule, step)
        return x

    return _through(case, chain)


def full(case: Case, recompute: bool = False) -> list[Tensor]:
    """Backpropagation through all of the chain, its steps computed again on the way back or kept."""
    schedule = case.sampler.schedule

    def chain(noise: Noise, x: Tensor) -> Tensor:
        for step in range(len(schedule)):
            predicted = checkpoint(noise, x, step, use_reentrant=False) if recompute else noise(x, step)
            x = ddim_step(x, predicted, schedule, step)
        return x

    return _through(case, chain)


def _through(case: Case, chain: Callable[[Noise, Tensor], Tensor]) -> list[Tensor]:
    """Gradients by one backward pass through the loss and ``chain`` for each part of the batch."""
    case.denoiser.eval()
    total = [torch.zeros_like(parameter) for parameter in case.parameters]
    for part in case.parts():
        loss = case.loss(chain(case.noise(part), case.start(part)), part)
        torch._foreach_add_(total, list(torch.autograd.grad(loss, case.parameters)))
    return total


WAYS: dict[str, Callable[[Case], Any]] = {
    "ours": ours,
    "its passes alone": passes_alone,
    "DRaFT-1": partial(ours, gradient="truncated", followed=1),
    "hooks on every step": hooks,
    "full backpropagation": full,
    "full, steps recomputed": partial(full, recompute=True),
}


def measure(earlier: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For each size and way: seconds, ratios to ours within the rounds, memory over that of the networks.

    Yields what is measured so far after each size; ``earlier``, of a run that was stopped on the same machine, is gone
    on with.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    sizes = list(earlier.get("sizes", [])) if earlier.get("device") == device else []
    done = {(size["steps"], size["batch"], size["width"]) for size in sizes}
    for size in tqdm([size for size in SIZES if size not in done], desc="sizes"):
        sizes.append(_measured(size))
        yield {"device": device, "rounds": ROUNDS, "sizes": sizes}


def _measured(size: tuple[int, int, int]) -> dict[str, Any]:
    case, rate = Case(*size), _matmul_rate()
    seconds = _rounds(case)
    ways = {
        name: {
            "seconds": _quartiles(seconds[name]),
            "ratio": _quartiles(seconds[name] / seconds["ours"]),
            "peak_mb": _peak(name, size),
        }
        for name in WAYS
    }
    share = float(_operations(case) / np.median(seconds["ours"]) / rate)
    steps, batch, width = size
    return {"steps": steps, "batch": batch, "width": width, "gflops": rate / 1e9, "matmul_share": share, "ways": ways}


def _rounds(case: Case) -> dict[str, np.ndarray]:
    """Seconds of each way, every round in another order; the first round warms up."""
    names, seconds = list(WAYS), {name: [] for name in WAYS}
    for number in range(ROUNDS + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            WAYS[name](case)
            _finish()
            seconds[name].append(time.perf_counter() - started)
    return {name: np.array(found[1:]) for name, found in seconds.items()}


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _operations(case: Case) -> float:
    with FlopCounterMode(display=False) as counter:
        ours(case)
    return counter.get_total_flops()


def _matmul_rate(side: int = 2048, repeats: int = 10) -> float:
    """Operations a second of this machine on square matrices."""
    matrix = torch.randn(side, side, device="cuda" if torch.cuda.is_available() else "cpu")
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        _finish()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / float(np.median(seconds))


def _peak(name: str, size: tuple[int, int, int]) -> int | None:
    """Megabytes that one iteration takes over its networks, in a process of its own; None where it was killed."""
    words = [sys.executable, "-m", "scripts.speed", name, *map(str, size)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def _print_peak(name: str, *size: str) -> None:
    case = Case(*map(int, size))
    before = _memory()
    WAYS[name](case)
    print(round((_memory() - before) / 1e6))


def _memory() -> int:
    """Bytes at the peak: of the GPU, or of this process (Linux)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def _quartiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in np.percentile(values, [50, 25, 75])]


def speed_table(result: Mapping[str, Any]) -> str:
    """Ratios with their quartiles, and memory, for each size."""
    if not result:
        return ""
    rows = []
    for size in result["sizes"]:
        place = f"T {size['steps']}, B {size['batch']}, width {size['width']}"
        for name, found in size["ways"].items():
            middle, low, high = found["ratio"]
            images = size["batch"] / found["seconds"][0]
            peak = "killed" if found["peak_mb"] is None else f"{found['peak_mb']:,} MB"
            rows.append((place, name, f"{middle:.2f} [{low:.2f}, {high:.2f}]", f"{images:.2f}", peak))
    header = ("size", "way", "seconds, of ours", "images a second", "peak memory")
    shares = ", ".join(f"{100 * size['matmul_share']:.0f} %" for size in result["sizes"])
    rates = [size["gflops"] for size in result["sizes"]]
    note = (
        f"Median [quartiles] of {result['rounds']} rounds on {result['device']}. Of the rate that the machine reaches "
        f"on square matrices ({min(rates):.0f} to {max(rates):.0f} GFLOP/s) ours keeps, size by size, {shares}."
    )
    return f"{markdown(header, rows)}\n\n{note}"


if __name__ == "__main__":
    _print_peak(*sys.argv[1:])
