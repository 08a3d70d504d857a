"""Images of the untuned model from a fixed pool of noises and prompts, made once and kept on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundle.conditioning import Clip
from bundle.files import read_tensors, write_tensors
from bundle.generation import Draws, Sampler
from bundle.randomness import generator
from bundle.weights import digest

if TYPE_CHECKING:
    from bundle.networks.classifier import AttributeClassifier


@dataclass(frozen=True)
class ReferencePool:
    """``draws`` of N images; CLIP ``features`` (N, D) and the guide's ``call`` (N,) of the reference's images."""

    draws: Draws
    features: Tensor
    call: Tensor

    def indices(self, seed: int, iteration: int, number: int) -> Tensor:
        """Which ``number`` entries an iteration (from 0) uses: the pool is dealt out in one shuffle after another."""
        size = len(self.draws)
        dealt = torch.arange(iteration * number, (iteration + 1) * number)
        rounds = dealt // size
        orders = {r: torch.randperm(size, generator=generator(seed, "pool order", r)) for r in rounds.unique().tolist()}
        return torch.stack([orders[r][i % size] for r, i in zip(rounds.tolist(), dealt, strict=True)])


@torch.no_grad()
def reference_pool(
    denoiser: nn.Module,
    sampler: Sampler,
    guide: AttributeClassifier,
    clip: Clip,
    draws: Draws,
    cache: str | Path,
    batch_size: int = 64,
) -> ReferencePool:
    """Sample, decode, and look at every image of ``draws`` with the untuned denoiser; resumes a stopped pool.

    A file of ``cache`` is named by a digest of all that its content depends on, so runs that share a base share it.
    """
    path = Path(cache) / f"reference_{_digest(denoiser, sampler, guide, clip, draws)}.pt"
    device = sampler.contexts.device
    done = read_tensors(path, device) if path.is_file() else {"features": [], "call": []}
    left = torch.arange(sum(map(len, done["call"])), len(draws))
    for index in tqdm(left.split(batch_size) if len(left) else (), desc="reference images", unit="batch", leave=False):
        images = sampler.decode(sampler.chain(denoiser, draws[index])[-1])
        done["features"].append(clip.image_features(images))
        done["call"].append(guide(images).argmax(1))
        write_tensors(done, path)
    return ReferencePool(draws, torch.cat(done["features"]), torch.cat(done["call"]))


def _digest(denoiser: nn.Module, sampler: Sampler, guide: nn.Module, clip: nn.Module, draws: Draws) -> str:
    schedule = sampler.schedule
    content = hashlib.sha256(f"{sampler.guidance} {schedule.prediction} {schedule.timesteps.tolist()}".encode())
    decoder = getattr(sampler.decode, "__self__", None)
    for network in filter(None, (denoiser, guide, clip, decoder)):
        content.update(digest(network).encode())
    for tensor in (draws.prompt, draws.noise, sampler.contexts, schedule.signal):
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
