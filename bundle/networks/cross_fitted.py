"""A judge made of several classifiers, for cohorts too small to keep one half for training and one for measuring."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bundle.networks.classifier import AttributeClassifier
from bundle.weights import load_weights


class CrossFittedJudge(nn.Module):
    """K classifiers of one architecture, each trained without the subjects of one fold.

    A subject is judged by the member that has not seen it. Images of nobody, or of somebody in no fold, are dealt out:
    image i to member i mod K. So with folds of equal size generated images meet the errors that were measured.

    Args:
        members: the classifiers.
        folds: for each member the subjects that it has not seen.
    """

    def __init__(self, members: Sequence[AttributeClassifier], folds: Sequence[Sequence[str]]):
        super().__init__()
        if len(members) != len(folds):
            raise ValueError(f"{len(members)} members and {len(folds)} folds; give each member its fold")
        self.members = nn.ModuleList(members)
        self.fold = {subject: number for number, fold in enumerate(folds) for subject in fold}

    def forward(self, images: Tensor) -> Tensor:
        """Calibrated logits (N, G) of generated images, image i by member i mod K."""
        parts = [member(images[number :: len(self.members)]) for number, member in enumerate(self.members)]
        return _merged(parts, self.assigned(len(images)))

    def predict(
        self, images: Tensor, subjects: Sequence[str] | None = None, batch_size: int = 64, first: int = 0
    ) -> Tensor:
        """Probabilities (N, G) on the CPU of generated images, or of images of ``subjects`` (N,).

        ``first``: the number of the first image, where these are a part of all that are judged.
        """
        assigned = self.assigned(len(images), subjects, first)
        parts = []
        for number, member in enumerate(self.members):
            own = images[assigned == number]
            parts.append(member.predict(own, batch_size=batch_size) if len(own) else torch.empty(0))
        return _merged([part for part in parts if len(part)], assigned)

    def assigned(self, number: int, subjects: Sequence[str] | None = None, first: int = 0) -> Tensor:
        """The member that judges each of ``number`` images from the ``first`` on, (N,)."""
        dealt = [index % len(self.members) for index in range(first, first + number)]
        if subjects is not None:
            dealt = [self.fold.get(subject, member) for subject, member in zip(subjects, dealt, strict=True)]
        return torch.tensor(dealt)

    def divide(self, subjects: Sequence[str]) -> list[list[str]]:
        """For each member the subjects that it may judge: those of its fold, and those of none."""
        return [[s for s in subjects if self.fold.get(s, number) == number] for number in range(len(self.members))]


def load_judge(
    network: AttributeClassifier, paths: Sequence[str | Path], folds: Sequence[Sequence[str]]
) -> CrossFittedJudge:
    """The judge whose members are copies of ``network`` with the weights in ``paths``, ready for use."""
    return CrossFittedJudge([load_weights(copy.deepcopy(network), path) for path in paths], folds)


def _merged(parts: Sequence[Tensor], assigned: Tensor) -> Tensor:
    """Rows of the members, in the order of the images."""
    rows = torch.cat(list(parts))
    return rows[assigned.argsort(stable=True).argsort().to(rows.device)]
