"""Which group each generated image should show so that a batch has the target proportions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import ot
import torch
from scipy.stats import binom
from torch import Tensor

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.evaluation.prevalence import JudgeRates, judge_rates

if TYPE_CHECKING:
    from bundle.cohorts.slices import Slices
    from bundle.networks.classifier import AttributeClassifier
    from bundle.networks.latent import LatentAutoencoder

NUM_DRAWS = 100


@dataclass(frozen=True)
class Assignment:
    """``expected`` (N, G): probability that each image belongs to each group in an ideal batch; rows sum to one."""

    expected: Tensor

    @property
    def label(self) -> Tensor:
        """The group to show, (N,)."""
        return self.expected.argmax(1)

    @property
    def uncertainty(self) -> Tensor:
        """Probability that the group to show is another one, (N,), in [0, 1 - 1/G]."""
        return 1 - self.expected.amax(1)

    def weight(self, max_uncertainty: float | None = None) -> Tensor:
        """How much each image counts, (N,): one minus its uncertainty as a share of the largest one (1 - 2u for two
        groups), or, with ``max_uncertainty``, the published cut: 1 up to it and 0 above (Shen et al., ICLR 2024)."""
        if max_uncertainty is not None:
            return (self.uncertainty <= max_uncertainty).float()
        groups = self.expected.shape[1]
        return 1 - self.uncertainty * groups / (groups - 1)


def assign(probabilities: Tensor, target: Tensor, generator: torch.Generator) -> Assignment:
    """Expected optimal-transport assignment of images to groups.

    The number of images per group in an ideal batch is multinomial(N, target); for each such count the images are
    moved to groups at least total distance ||p_j - e_g||, and the assignments are averaged over the counts. For two
    groups that is a ranking by probability and a binomial tail, exactly; for more, ``NUM_DRAWS`` draws.

    Args:
        probabilities: of the guide, (N, G), rows summing to one.
        target: proportions (G,), summing to one.
        generator: breaks ties and draws the counts.

    Raises ValueError when a probability is not finite.
    """
    if not torch.isfinite(probabilities).all():
        raise ValueError("the guide's probabilities are not finite")
    target = target.double().cpu()
    scores = probabilities.detach().double().cpu()
    if scores.shape[1] == 2:
        expected = _assign_two(scores[:, 1], float(target[1]), generator)
    else:
        expected = _assign_many(scores, target, generator)
    return Assignment(expected.to(probabilities.device, torch.float32))


def _assign_two(score: Tensor, proportion: float, generator: torch.Generator) -> Tensor:
    # Rank k (from the lowest score) shows group 1 exactly when at most k images of the batch show group 0.
    number = len(score)
    shuffled = torch.randperm(number, generator=generator)
    order = shuffled[score[shuffled].argsort(stable=True)]
    tail = torch.from_numpy(binom.cdf(np.arange(number), number, 1 - proportion))
    second = torch.empty(number, dtype=torch.float64)
    second[order] = tail
    return torch.stack([1 - second, second], 1)


def _assign_many(scores: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    number, groups = scores.shape
    shuffled = torch.randperm(number, generator=generator)
    cost = torch.cdist(scores[shuffled], torch.eye(groups, dtype=torch.float64)).numpy()
    draws = torch.multinomial(target, number * NUM_DRAWS, replacement=True, generator=generator)
    counts = torch.nn.functional.one_hot(draws.view(NUM_DRAWS, number), groups).sum(1).double().numpy()
    plans = [ot.emd(np.ones(number), count, cost) for count in counts]
    return torch.from_numpy(np.mean(plans, axis=0))[shuffled.argsort()]


def assign_per_stratum(
    probabilities: Tensor, strata: list[str], targets: Mapping[str, Tensor], generator: torch.Generator
) -> Assignment:
    """:func:`assign` within each stratum; ``strata`` names the stratum of each image, ``targets`` holds (G,) for each.

    Raises ValueError for a stratum without a target.
    """
    unknown = sorted(set(strata) - set(targets))
    if unknown:
        raise ValueError(f"stratum '{unknown[0]}' has no target; there are {', '.join(sorted(targets))}")
    expected = torch.empty_like(probabilities, dtype=torch.float32)
    for stratum in sorted(set(strata)):
        members = torch.tensor([i for i, name in enumerate(strata) if name == stratum], device=probabilities.device)
        expected[members] = assign(probabilities[members], targets[stratum], generator).expected
    return Assignment(expected)


def guide_target(target: Tensor, rates: Tensor) -> Tensor:
    """Proportions that the guide reads when the true ones are ``target``: q* = target M, (G,).

    ``rates`` M (G, G): share of true group a (row) that the guide calls b (column) on decoded images. For two groups
    q* = f + (s - f) target.
    """
    return target.double() @ rates.double()


def on_simplex(shares: Tensor) -> Tensor:
    """Shares (G,) cut to [0, 1] and divided by their sum."""
    cut = shares.clamp(0, 1)
    return cut / cut.sum()


@dataclass
class IntegralAction:
    """Shifts the assigned proportions by what the batches have missed so far.

    ``gain`` times the running sum of (q* - batch share), begun when the batch share first comes within ``start`` of
    q* and limited to +- ``limit`` (no wind-up). The sum survives a restart through ``state_dict``.
    """

    gain: float
    start: float = 0.1
    limit: float = 0.1

    def __post_init__(self) -> None:
        self.sum: Tensor | None = None

    def __call__(self, target: Tensor) -> Tensor:
        """The proportions to assign, (G,), on the simplex."""
        if self.sum is None:
            return target
        return on_simplex(target + (self.gain * self.sum).clamp(-self.limit, self.limit))

    def update(self, target: Tensor, share: Tensor) -> None:
        """Take in the share (G,) of one batch."""
        missed = target - share.double().cpu()
        if self.sum is None and missed.abs().max() <= self.start:
            self.sum = torch.zeros_like(missed)
        if self.sum is not None and self.gain:
            bound = self.limit / self.gain
            self.sum = (self.sum + missed).clamp(-bound, bound)

    def state_dict(self) -> dict:
        return {"sum": self.sum}

    def load_state_dict(self, state: dict) -> None:
        self.sum = state["sum"]


def overall_target(targets: Mapping[str, Tensor], strata: Sequence[str], shares: Tensor) -> Tensor:
    """Proportions (G,) of all images when each stratum has its ``targets`` (G,): prompts have ``strata`` and ``shares``
    (P,). Raises InputError for a stratum without one."""
    missing = sorted(set(strata) - set(targets))
    if missing:
        raise InputError(f"target: no proportions for stratum '{missing[0]}'; there are {', '.join(sorted(targets))}")
    return torch.stack([targets[name] for name in strata]).T @ shares


def _proportions(attribute: Attribute, written: Mapping[str, float] | None, rows: Sequence[Mapping]) -> Tensor:
    """Target proportions (G,): as written, or those of the subjects of ``rows`` (the target cohort)."""
    if written is not None:
        return torch.from_numpy(attribute.proportions(written, "target"))
    return torch.from_numpy(attribute.observed_proportions(rows, "target cohort"))


def check_written(attribute: Attribute, written: Mapping | None, stratum: str | None) -> None:
    """Raise InputError for what cannot be target proportions, before any cohort is read."""
    if written is None:
        return
    by_stratum = stratum is not None and isinstance(written, Mapping)
    for shares in written.values() if by_stratum else [written]:
        attribute.proportions(shares, "target")


def target_proportions(
    attribute: Attribute,
    written: Mapping | None,
    rows: Sequence[Mapping],
    stratum: str | None = None,
) -> dict[str, Tensor]:
    """Stratum -> target proportions (G,); "all" is always there, for prompts that belong to no single stratum.

    ``written`` gives {group: proportion}, or with a ``stratum`` column {stratum: {group: proportion}}; "all" is then
    the mean of these over the subjects of ``rows`` that have one of the strata. Without it the proportions are those
    of ``rows``, overall and within each value of the column. Raises InputError for what cannot be proportions.
    """
    if stratum is None:
        return {"all": _proportions(attribute, written, rows)}
    if written is not None:
        named = {name: attribute.proportions(shares, f"target, {name}") for name, shares in written.items()}
        strata = {row["subject"]: str(row.get(stratum)) for row in rows}.values()
        sizes = [sum(value == name for value in strata) for name in named]
        if not all(sizes):
            empty = list(named)[sizes.index(0)]
            raise InputError(f"target: stratum '{empty}' is not in column '{stratum}' of the cohort; correct its name")
        mean = np.average(list(named.values()), axis=0, weights=sizes)
        return {"all": torch.from_numpy(mean)} | {name: torch.from_numpy(p) for name, p in named.items()}
    values = sorted({str(row[stratum]) for row in rows if row.get(stratum) is not None})
    parts = {value: [row for row in rows if str(row.get(stratum)) == value] for value in values} | {"all": list(rows)}
    return {name: _proportions(attribute, None, part) for name, part in parts.items()}


def guide_rates(
    guide: AttributeClassifier, autoencoder: LatentAutoencoder, slices: Slices, attribute: Attribute
) -> JudgeRates:
    """How the guide calls slices of known group after the autoencoder; ``matrix`` (G, G) is what :func:`guide_target`
    takes.

    ``slices`` show subjects that the guide was not trained on. Raises InputError when a group has fewer than two.
    """
    truth = attribute.indices(slices.rows)
    known = np.flatnonzero(truth >= 0)
    calls = guide.predict(autoencoder.reconstruct(slices.pixels(torch.from_numpy(known)))).argmax(1)
    return judge_rates(calls.numpy(), truth[known], np.asarray(slices.subjects())[known], attribute.groups)
