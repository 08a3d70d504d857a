"""What instruments read from images, one row each, in a single pass: the statistics work on these rows.

Images are looked at batch by batch and forgotten, so that twenty thousand need little more memory than two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from bundle.images import Images, Some


class Classifier(Protocol):
    """Probabilities of the groups (B, G) of images (B, C, H, W), of which the first is number ``first`` of them all,
    showing ``subjects`` (B,) where these are known."""

    def predict(self, images: Tensor, subjects: Sequence[str] | None = None, *, first: int = 0) -> Tensor: ...


@dataclass(frozen=True)
class Instruments:
    """Who looks at images: ``classifiers``, of which one is the "judge"; feature ``spaces``, images (B, C, H, W) to
    (B, d); ``readers``, which read a fact by geometry, images to (B,)."""

    classifiers: Mapping[str, Classifier]
    spaces: Mapping[str, Callable[[Tensor], Tensor]]
    readers: Mapping[str, Callable[[NDArray], NDArray]] = field(default_factory=dict)
    batch_size: int = 64


@dataclass(frozen=True, eq=False)
class Readings:
    """N images and what was read from them.

    ``probabilities`` (N, G) by classifier, ``features`` (N, d) by space, ``read`` (N,) by reader; ``subjects`` (N,)
    whom they show, every generated image being its own; ``groups`` (N,) index of the group where it is known or was
    asked for, -1 elsewhere.
    """

    images: Images
    probabilities: Mapping[str, NDArray]
    features: Mapping[str, NDArray]
    read: Mapping[str, NDArray]
    subjects: NDArray
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, places: ArrayLike) -> Readings:
        """Those at the places (B,), indices or a mask."""
        places = np.arange(len(self))[np.asarray(places)]
        tables = (self.probabilities, self.features, self.read)
        chosen = ({name: rows[places] for name, rows in table.items()} for table in tables)
        return Readings(Some(self.images, places), *chosen, self.subjects[places], self.groups[places])

    def calls(self, classifier: str = "judge") -> NDArray[np.int64]:
        """Index of the likeliest group (N,)."""
        return self.probabilities[classifier].argmax(1)

    def of_groups(self, groups: ArrayLike) -> Readings:
        """The same with these groups (N,)."""
        return replace(self, groups=np.asarray(groups))


@torch.no_grad()
def read(
    images: Images,
    instruments: Instruments,
    subjects: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    label: str = "reading",
) -> Readings:
    """Show images to all instruments, with a progress bar; without ``subjects`` (N,) they are generated."""
    known = None if subjects is None else np.asarray(subjects)
    tables: dict[str, dict[str, list[NDArray]]] = {"probabilities": {}, "features": {}, "read": {}}
    batches = torch.arange(len(images)).split(instruments.batch_size)
    for places in tqdm(batches, desc=label, unit="batch", leave=False):
        batch = images[places]
        people = None if known is None else known[places.numpy()].tolist()
        for name, classifier in instruments.classifiers.items():
            found = classifier.predict(batch, people, first=int(places[0])).numpy()
            tables["probabilities"].setdefault(name, []).append(found)
        for name, space in instruments.spaces.items():
            tables["features"].setdefault(name, []).append(_of_order_one(space(batch).cpu().float().numpy()))
        for name, reader in instruments.readers.items():
            tables["read"].setdefault(name, []).append(reader(batch.numpy()))
    joined = {kind: {n: np.concatenate(parts) for n, parts in table.items()} for kind, table in tables.items()}
    number = len(images)
    return Readings(
        images,
        **joined,
        subjects=np.arange(number) if known is None else known,
        groups=np.full(number, -1) if groups is None else np.asarray(groups),
    )


def _of_order_one(features: NDArray) -> NDArray:
    """Features whose elements are of order one, the size that KID's kernel was made for: unit features times sqrt(d).

    With x.y/d near 0 the kernel is linear, and would see the mean of a set and nothing of its spread.
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.allclose(length, 1, atol=1e-3)
    return features * np.sqrt(features.shape[1], dtype=features.dtype) if unit else features
