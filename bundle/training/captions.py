"""Captions of slices as indices into a table of distinct texts, so that each text is embedded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bundle.prompts import detailed_caption, detailed_stated_caption, neutral_caption, stated_caption

if TYPE_CHECKING:
    from bundle.cohorts.slices import Slices
    from bundle.conditioning import Clip
    from bundle.networks.pretrained import TextEncoder

WORDINGS = {
    "neutral": neutral_caption,
    "stated": stated_caption,
    "detailed": detailed_caption,
    "detailed_stated": detailed_stated_caption,
}


@dataclass(frozen=True)
class Captions:
    """``texts``, P distinct captions; ``index`` (N, V) of each image's V wordings in them."""

    texts: list[str]
    index: Tensor

    @property
    def first(self) -> list[str]:
        """Each image's caption in the first wording, N of them."""
        return [self.texts[i] for i in self.index[:, 0].tolist()]


def caption_slices(slices: Slices, wordings: Sequence[str]) -> Captions:
    """Captions of every slice in the given wordings, keys of ``WORDINGS``."""
    worded = [[WORDINGS[name](row) for name in wordings] for row in slices.rows]
    texts = sorted({text for captions in worded for text in captions})
    number = {text: i for i, text in enumerate(texts)}
    return Captions(texts, torch.tensor([[number[text] for text in captions] for captions in worded]))


def embed(text_encoder: Clip | TextEncoder, texts: Sequence[str], batch_size: int = 256) -> Tensor:
    """Contexts (P, L, C) of texts."""
    parts = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    return torch.cat([text_encoder.context(part) for part in parts])


def embed_groups(text_encoder: Clip | TextEncoder, texts: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """By group the contexts (P, L, C) of its texts."""
    return {group: embed(text_encoder, own) for group, own in texts.items()}
