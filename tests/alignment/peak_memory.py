"""Print the peak memory of one alignment step over that of its set-up, in bytes.

python -m tests.alignment.peak_memory GRADIENT STEPS
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from bundle.alignment.options import AlignmentOptions
from bundle.alignment.reference import reference_pool
from bundle.alignment.step import AlignmentStep
from bundle.alignment.targets import IntegralAction
from bundle.generation import Sampler, draw
from bundle.networks.classifier import AttributeClassifier
from bundle.sampling import Schedule
from tests.toy import Denoiser, frozen, scheduler

SIDE = 32


class MeanTower(nn.Module):
    def image_features(self, images):
        return nn.functional.normalize(images.flatten(1), dim=1)


def peak() -> int:
    """Bytes, from Linux; not ``ru_maxrss``, which begins at the size of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(gradient: str, num_steps: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    denoiser = Denoiser(hidden=64)
    guide = frozen(AttributeClassifier(nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 2))))
    schedule = Schedule.from_scheduler(scheduler(), num_steps)
    sampler = Sampler(schedule, 2.0, torch.randn(1, 2, 3), torch.zeros(1, 2, 3), lambda latents: latents.mean(1, True))
    draws = draw(0, "pool", 8, torch.ones(1, dtype=torch.float64), (2, SIDE, SIDE))
    with tempfile.TemporaryDirectory() as cache:
        pool = reference_pool(denoiser, sampler, guide, MeanTower(), draws, cache)
    step = AlignmentStep(
        options=AlignmentOptions(num_steps=num_steps, pool_size=8, batch_size=8, gradient=gradient),
        targets={"all": torch.tensor([0.5, 0.5])},
        strata=["all"],
        sampler=sampler,
        guide=guide,
        clip=MeanTower(),
        pool=pool,
        rates=torch.eye(2),
        integral=IntegralAction(gain=0.1),
        seed=0,
    )
    before = peak()
    step(denoiser, 0)
    print(peak() - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
