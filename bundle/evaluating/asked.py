"""What an evaluation of equal quality asks a model for: a finding, in people of every group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.evaluation.likeness import FEWEST
from bundle.randomness import generator

if TYPE_CHECKING:
    from bundle.cohorts.slices import Slices


@dataclass(frozen=True)
class Finding:
    """What images show and prompts ask for: a column of the rows and its two values, without the finding and with it.

    ``only``: column -> the value that a row must have, where not every slice shows the finding.
    """

    column: str
    values: Sequence[str]
    only: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if len(set(map(str, self.values))) != 2:
            raise InputError(f"finding '{self.column}', values {list(self.values)}: give two, without it and with it")

    def labels(self, rows: Sequence[Mapping]) -> NDArray[np.int64]:
        """0 or 1 for each row, -1 where it is not known or not to be seen, (N,)."""
        place = {str(value): label for label, value in enumerate(self.values)}
        seen = (all(row.get(key) == value for key, value in self.only.items()) for row in rows)
        return np.array([place.get(str(row.get(self.column)), -1) if s else -1 for row, s in zip(rows, seen)])


def choose_asked(slices: Slices, attributes: Sequence[Attribute], num_each: int) -> Slices:
    """The slices whose stated captions are the prompts: of every group of every attribute ``num_each``, or all it has.

    Spread over the subjects; which slice of a subject depends on its id alone, so that all models get the same.
    Raises InputError for a group of which there are fewer than `FEWEST` subjects.
    """
    subjects = slices.subjects()
    chosen: set[int] = set()
    for attribute in attributes:
        index = attribute.indices(slices.rows)
        for group, name in enumerate(attribute.groups):
            members = np.flatnonzero(index == group)
            people = {subjects[place] for place in members}
            if len(people) < FEWEST:
                raise InputError(
                    f"{attribute.name}: {len(people)} '{name}' among the validation subjects, at least {FEWEST} are "
                    "needed; leave the group out or give a larger cohort"
                )
            chosen.update(_spread(members.tolist(), subjects)[:num_each])
    return slices.at(sorted(chosen))


def _spread(members: Sequence[int], subjects: Sequence[str]) -> list[int]:
    """Members in turns: one of every subject, then a second one of every subject, and so on."""
    people = list(_shuffled(members, subjects, "prompts").values())
    return [own[turn] for turn in range(max(map(len, people))) for own in people if turn < len(own)]


def some_slices(slices: Slices, number: int) -> Slices:
    """``number`` slices of each subject, whichever: every set of subjects has all kinds of slices in like shares.

    Where they are taken in turn (`Slices.per_subject`), every other subject may have those of one modality alone, and
    two halves of the people are then unlike.
    """
    own = _shuffled(range(len(slices)), slices.subjects(), "slices").values()
    return slices.at(sorted(place for places in own for place in places[:number]))


def _shuffled(members: Sequence[int], subjects: Sequence[str], purpose: str) -> dict[str, list[int]]:
    """Members by subject, in an order that depends on the subject's id and the purpose alone."""
    own: dict[str, list[int]] = {}
    for place in members:
        own.setdefault(subjects[place], []).append(place)
    orders = {s: torch.randperm(len(p), generator=generator(0, f"{purpose} {s}")) for s, p in own.items()}
    return {subject: [own[subject][i] for i in order] for subject, order in orders.items()}
