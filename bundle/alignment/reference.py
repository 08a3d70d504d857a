"""Images of the untuned model from a fixed pool of noises and prompts, made once and kept on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ignite.distributed as idist
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
    """``draws`` of N images; CLIP ``features`` (N, D) and the guide's ``logits`` (N, G) of the reference's images."""

    draws: Draws
    features: Tensor
    logits: Tensor

    @property
    def call(self) -> Tensor:
        """Group that the guide reads, (N,)."""
        return self.logits.argmax(1)

    def indices(self, seed: int, iteration: int, number: int) -> Tensor:
        """Which ``number`` entries an iteration (from 0) uses; every entry once before any twice.

        Stratified by what the guide reads: entries are sorted by it and each batch takes one of every N / ``number``
        neighbours, so batches differ little in their share of the groups, and the alignment follows the model and
        not the luck of the draw. More than two groups are sorted by their mean index, which separates neighbours in
        the list of groups alone. ``number`` divides N.
        """
        batches = len(self.draws) // number
        turn, place = divmod(iteration, batches)
        groups = torch.arange(self.logits.shape[1], dtype=torch.float64)
        reading = self.logits.double().cpu().softmax(1) @ groups
        neighbours = reading.argsort(stable=True).view(number, batches)
        shuffled = torch.rand(number, batches, generator=generator(seed, "pool order", turn)).argsort(1)
        return neighbours.gather(1, shuffled)[:, place]


@idist.one_rank_first()  # the others find what it has made
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
    done = read_tensors(path, device) if path.is_file() else {"features": [], "logits": []}
    left = range(sum(map(len, done["logits"])), len(draws), batch_size)
    for first in tqdm(left, desc="reference images", unit="batch", leave=False, disable=not left):
        images = sampler.decode(sampler.chain(denoiser, draws[first : first + batch_size])[-1])
        done["features"].append(clip.image_features(images))
        done["logits"].append(guide(images))
        write_tensors(done, path)
    return ReferencePool(draws, torch.cat(done["features"]), torch.cat(done["logits"]))


def _digest(denoiser: nn.Module, sampler: Sampler, guide: nn.Module, clip: nn.Module, draws: Draws) -> str:
    schedule = sampler.schedule
    content = hashlib.sha256(f"{sampler.guidance} {schedule.prediction} {schedule.timesteps.tolist()}".encode())
    decoder = getattr(sampler.decode, "__self__", None)
    for network in filter(None, (denoiser, guide, clip, decoder)):
        content.update(digest(network).encode())
    for tensor in (draws.prompt, draws.noise, sampler.contexts, schedule.signal):
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
