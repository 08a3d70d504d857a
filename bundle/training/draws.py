"""Batches as functions of the iteration, so that a resumed run sees what an uninterrupted one would have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bundle.images import Images
from bundle.randomness import generator, local_part


class Batches:
    """An endless iterable of batches for Ignite; ``start`` is the first iteration, set by a checkpoint at resume.

    ``draw`` maps an iteration (from 0) to a batch.
    """

    def __init__(self, draw: Callable[[int], dict]):
        self.draw = draw
        self.start = 0

    def __iter__(self) -> Iterator[dict]:
        return (self.draw(iteration) for iteration in count(self.start))


class LatentDataset(Dataset):
    """Latents (N, C, h, w) with the caption indices (N, V) of each: which of V wordings is drawn per use.

    ``contexts`` (P, L, C) are the embeddings that the indices point to.
    """

    def __init__(self, latents: Tensor, captions: Tensor, contexts: Tensor):
        self.latents, self.captions, self.contexts = latents, captions, contexts

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict:
        return {"image": self.latents[index], "context": self.contexts[self.captions[index, 0]]}


class DenoisingDraw:
    """Latents, noise, timesteps and contexts of one iteration of denoising training.

    Args:
        dataset: latents and contexts.
        null_context: embedding of the empty prompt, (1, L, C), which replaces a share ``dropout`` of the contexts so
            that the denoiser can be guided (Ho and Salimans, 2022).
        num_timesteps: of the noise schedule.
        wordings: share of each of the V wordings; the first alone by default.
        sampling: how often each latent is drawn (N,), up to a common factor; all alike by default.
    """

    def __init__(
        self,
        dataset: LatentDataset,
        null_context: Tensor,
        num_timesteps: int,
        batch_size: int,
        seed: int,
        dropout: float = 0.1,
        wordings: Sequence[float] = (1.0,),
        purpose: str = "denoising",
        sampling: Tensor | None = None,
    ):
        self.sampling = sampling
        self.dataset, self.null_context, self.num_timesteps = dataset, null_context, num_timesteps
        self.batch_size, self.seed, self.dropout, self.purpose = batch_size, seed, dropout, purpose
        self.wordings = torch.tensor(wordings, dtype=torch.float64)

    def __call__(self, iteration: int) -> dict:
        stream = generator(self.seed, self.purpose, iteration)
        data, size = self.dataset, self.batch_size
        if self.sampling is None:
            index = torch.randint(len(data), (size,), generator=stream)
        else:
            index = torch.multinomial(self.sampling, size, replacement=True, generator=stream)
        wording = torch.multinomial(self.wordings, size, replacement=True, generator=stream)
        timesteps = torch.randint(self.num_timesteps, (size,), generator=stream)
        noise = torch.randn((size, *data.latents.shape[1:]), generator=stream)
        dropped = torch.rand(size, generator=stream) < self.dropout
        index, wording, timesteps, noise, dropped = map(local_part, (index, wording, timesteps, noise, dropped))
        context = data.contexts[data.captions[index, wording]]
        context = torch.where(dropped.view(-1, 1, 1).to(context.device), self.null_context, context)
        return {
            "image": data.latents[index],
            "noise": noise,
            "timesteps": timesteps,
            "context": context,
            "index": index,
        }


class DenoisingBatch:
    """MONAI's ``prepare_batch`` for latents: inputs, the scheduler's training target, and the inferer's arguments."""

    def __init__(self, scheduler: nn.Module):
        self.scheduler = scheduler
        self.velocity = str(getattr(scheduler.prediction_type, "value", scheduler.prediction_type)) == "v_prediction"

    def __call__(self, batch: dict, device, non_blocking: bool = False, **_):
        moved = {key: value.to(device, non_blocking=non_blocking) for key, value in batch.items()}
        latents, noise, timesteps = moved["image"], moved["noise"], moved["timesteps"]
        target = self.scheduler.get_velocity(latents, noise, timesteps) if self.velocity else noise
        return latents, target, (), {"noise": noise, "timesteps": timesteps, "condition": moved["context"]}


class ImageDataset(Dataset):
    """Images with their labels (N,), and perhaps the same images through the autoencoder."""

    def __init__(self, images: Images, labels: Tensor | None = None, decoded: Images | None = None):
        self.images, self.labels, self.decoded = images, labels, decoded

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> dict:
        item = {"image": self.images[index]}
        return item if self.labels is None else {**item, "label": self.labels[index]}


class ImageDraw:
    """Images and labels of one iteration; half of them, where there are any, as the autoencoder shows them.

    ``jitter`` is the largest relative change of contrast and ``shift`` the largest displacement in pixels, so that a
    classifier leans on neither; ``flip`` mirrors half of the images left to right.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        seed: int,
        jitter: float = 0.0,
        flip: bool = False,
        shift: int = 0,
    ):
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.jitter, self.flip, self.shift = jitter, flip, shift

    def __call__(self, iteration: int) -> dict:
        stream = generator(self.seed, "images", iteration)
        index = torch.randint(len(self.dataset), (self.batch_size,), generator=stream)
        decoded = torch.rand(self.batch_size, generator=stream) < 0.5
        gain = 1 + self.jitter * (2 * torch.rand(self.batch_size, 1, 1, 1, generator=stream) - 1)
        mirrored = torch.rand(self.batch_size, generator=stream) < 0.5 * self.flip
        shifts = torch.randint(-self.shift, self.shift + 1, (self.batch_size, 2), generator=stream)
        index, decoded, gain, mirrored, shifts = map(local_part, (index, decoded, gain, mirrored, shifts))
        item = self.dataset[index]
        if self.dataset.decoded is not None:
            item["image"][decoded] = self.dataset.decoded[index[decoded]]
        item["image"] = (item["image"] * gain).clamp(0, 1)
        item["image"][mirrored] = item["image"][mirrored].flip(-1)
        if self.shift:
            moved = [image.roll(by, (-2, -1)) for image, by in zip(item["image"], shifts.tolist(), strict=True)]
            item["image"] = torch.stack(moved)
        return item


class CaptionDraw:
    """Pairs of image and caption, every caption of a batch a different one: CLIP's loss takes all others as wrong.

    Args:
        dataset: images.
        captions: index (N, V) of each image's V wordings in ``texts``.
        tokens: of the distinct texts, (P, L).
    """

    def __init__(self, dataset: ImageDataset, captions: Tensor, tokens: Tensor, batch_size: int, seed: int):
        self.dataset, self.captions, self.tokens = dataset, captions, tokens
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, iteration: int) -> dict:
        stream = generator(self.seed, "captions", iteration)
        order = torch.randperm(len(self.dataset), generator=stream)[: 8 * self.batch_size]
        wording = torch.randint(self.captions.shape[1], (len(order),), generator=stream)
        chosen: dict[int, int] = {}
        for index, text in zip(order.tolist(), self.captions[order, wording].tolist(), strict=True):
            chosen.setdefault(text, index)
        texts = local_part(torch.tensor(list(chosen)[: self.batch_size])).tolist()
        item = self.dataset[torch.tensor([chosen[text] for text in texts])]
        return {"image": item["image"], "tokens": self.tokens[texts]}
