"""The groups of several attributes side by side, and a balanced choice of latents to measure them on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.randomness import generator


@dataclass(frozen=True)
class Groups:
    """The groups of all attributes in one row of G places: those of the first attribute, then the second's, and so on.

    Raises InputError for no attribute, two of one name, or two groups whose names differ only in what MLflow rejects.
    """

    attributes: tuple[Attribute, ...]

    def __init__(self, attributes: Sequence[Attribute]):
        object.__setattr__(self, "attributes", tuple(attributes))
        if not self.attributes:
            raise InputError("attributes: none given; name at least one whose groups are to be treated alike")
        names = [attribute.name for attribute in self.attributes]
        for what in (names, self.names):
            twice = sorted(name for name in set(what) if what.count(name) > 1)
            if twice:
                raise InputError(f"attributes: two are called '{twice[0]}'; leave one out or rename it")

    def __len__(self) -> int:
        return sum(len(attribute.groups) for attribute in self.attributes)

    @property
    def names(self) -> list[str]:
        """``attribute/group`` of each place, in letters that MLflow takes for the name of a metric."""
        pairs = [(attribute.name, group) for attribute in self.attributes for group in attribute.groups]
        return ["/".join(safe_name(part) for part in pair) for pair in pairs]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Place of each attribute's first group."""
        sizes = [len(attribute.groups) for attribute in self.attributes]
        return tuple(int(end) - size for end, size in zip(np.cumsum(sizes), sizes, strict=True))

    def of_attribute(self, number: int) -> range:
        """Places of the groups of one attribute, counted from 0."""
        start = self.offsets[number]
        return range(start, start + len(self.attributes[number].groups))

    def members(self, rows: Iterable[Mapping]) -> Tensor:
        """Place of each row's group for each attribute, -1 where it is unknown; (N, A) int64."""
        rows = list(rows)
        columns = []
        for attribute, offset in zip(self.attributes, self.offsets, strict=True):
            index = attribute.indices(rows)
            columns.append(np.where(index < 0, -1, index + offset))
        return torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))


def safe_name(text: str) -> str:
    """A name in letters that MLflow takes for the name of a metric; a slash would look like another level."""
    return re.sub(r"[^0-9A-Za-z_\-. ]", "_", text)


def counts(members: Tensor, groups: Groups) -> Tensor:
    """Number of rows of each group, (G,) int64, from ``members`` (N, A)."""
    return torch.bincount(members[members >= 0], minlength=len(groups))


def choose_probe(members: Tensor, number: int, groups: Groups, seed: int, least: int = 8) -> Tensor:
    """Places of latents that hold the same number of every group, as far as there are so many.

    Args:
        members: of the latents to choose from, (N, A).
        number: of latents wanted; ``number // G`` are drawn from each group, and one drawn twice counts once.
        least: how many of a group its mean loss needs.

    Returns:
        Places in ascending order without repeats, (M,) int64, M <= number.

    Raises:
        InputError: too few wanted, or a group of fewer than ``least`` latents, whose gap would never be measured.
    """
    share = number // len(groups)
    if share < least:
        raise InputError(f"probe of {number} latents: under {least} for each of {len(groups)} groups; ask for more")
    found = counts(members, groups)
    for name, number in zip(groups.names, found.tolist(), strict=True):
        if number < least:
            raise InputError(
                f"group '{name}': {number} latents to measure it on, {least} are needed; leave it out of the "
                "attribute's groups, give the probe's role more subjects, or lower probe_least"
            )
    chosen = []
    for group, name in enumerate(groups.names):
        places = (members == group).any(1).nonzero().flatten()
        order = torch.randperm(len(places), generator=generator(seed, f"probe/{name}"))
        chosen.append(places[order[:share]])
    return torch.cat(chosen).unique()
