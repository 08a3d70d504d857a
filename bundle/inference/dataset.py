"""By index, a prompt and the noise that becomes its image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from bundle.inference.prompts import Drawn, InTurn
from bundle.randomness import generator


class PromptDataset(Dataset):
    """{"image": noise x_T of ``shape`` (C, h, w), "prompt", "index"}; each depends on seed, index and prompt alone.

    The noise of an index is the same for every prompt and model, so that images of two jobs pair up.
    """

    def __init__(self, wanted: InTurn | Drawn, number: int, seed: int, shape: Sequence[int]):
        self.wanted, self.number, self.seed, self.shape = wanted, number, seed, tuple(shape)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict:
        noise = torch.randn(self.shape, generator=generator(self.seed, "inference noise", index))
        return {"image": noise, "prompt": self.wanted[index].prompt, "index": index}
