"""A judge that has seen whom it judges, or that steered what it judges, proves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from bundle.cohorts.record import require_disjoint
from bundle.errors import InputError
from bundle.networks.classifier import AttributeClassifier
from bundle.networks.cross_fitted import CrossFittedJudge
from bundle.weights import digest

Judge = AttributeClassifier | CrossFittedJudge


def require_unseen(trained_on: Mapping[str, Sequence], judge: Judge, validation: Sequence[str]) -> None:
    """Raise InputError when guide, a member of the judge, and the validation subjects that it judges share somebody.

    A plain judge is one member that judges all. The members of a cross-fitted one were trained on validation subjects,
    but none on those that it judges. A second judge is held to the same; it may share subjects with the judge.
    """
    for seen, judged in zip(trained_on["judge"], judge.divide(validation), strict=True):
        require_disjoint(guide=trained_on.get("guide", ()), judge=seen, validation=judged)
    second = trained_on.get("second_judge", ())
    require_disjoint(guide=trained_on.get("guide", ()), second_judge=second, validation=validation)


def require_another(guide: nn.Module, judge: Judge) -> None:
    """Raise InputError when the guide is the judge, or a member of it: images were tuned until it was content."""
    members = judge.members if isinstance(judge, CrossFittedJudge) else [judge]
    if digest(guide) in [digest(member) for member in members]:
        raise InputError("judge: has the guide's weights; give a judge of its own, trained on other subjects")


def require_holdout(training: Sequence[str], validation: Sequence[str], real: Sequence[str]) -> None:
    """Raise InputError when the generator learned from a subject by whom its copies, or its quality, are measured."""
    require_disjoint(training=training, validation=validation)
    require_disjoint(training=training, real=real)
