"""Whether images show the lesion that their prompt asks for.

A reader (geometry on the phantom, a classifier elsewhere) misses lesions and sees some that are not there, and may err
more in one group than in another. Tuning changes the groups' proportions, so the plain share of images read as having a
lesion would change by the reader's error alone. Therefore lesion and group are counted together: the cells are
(group, lesion or not), the confusion of the cells is measured on images where both are known, and the adjusted count of
the cells is summed over the groups.

    q(b, r) = sum over (a, l) of pi(a, l) M[(a, l), (b, r)]        b: group called, r: read;  a: group, l: lesion
    share of images with a lesion = sum over a of pi(a, yes)

Nothing is assumed about how often lesions come in either group, nor that judge and reader err independently. What is
assumed is that both err on generated images as they do on the validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from bundle.evaluation.estimate import Estimate, symmetric
from bundle.evaluation.prevalence import AdjustedCount, JudgeRates, adjusted_count, judge_rates


@dataclass(frozen=True)
class LesionShare:
    """Share of images that show a lesion, over all and by group, the plain share read, and how many images.

    ``plausible`` is False when the share lies outside [0, 1] beyond its error: then the reader errs otherwise on these
    images than on the validation images, and the interval is the whole range.
    """

    share: Estimate
    by_group: dict[str, float]
    raw: float
    n: int
    plausible: bool


def reader_rates(
    read: ArrayLike,
    called: ArrayLike,
    lesion: ArrayLike,
    truth: ArrayLike,
    subjects: ArrayLike,
    groups: Sequence[str],
) -> JudgeRates:
    """Measure reader and judge together on images of known group and lesion.

    Args:
        read: (N,) bool, whether the reader sees a lesion.
        called: (N,) index of the group that the judge calls.
        lesion: (N,) bool, whether there is a lesion.
        truth: (N,) index of the true group.
        subjects: (N,) identifiers of persons.
        groups: names of the groups.

    Raises:
        InputError: fewer than two subjects with, or without, a lesion in a group.
    """
    cells = [f"{group}, {state}" for group in groups for state in ("no lesion", "lesion")]
    return judge_rates(_cell(called, read), _cell(truth, lesion), subjects, cells)


def lesion_faithfulness(
    read: ArrayLike, prompted: ArrayLike, called: ArrayLike, rates: JudgeRates, confidence: float = 0.95
) -> dict[str, LesionShare | None]:
    """Share of images with a lesion where the prompt asks for one and where it does not.

    Args:
        read: (N,) bool, whether the reader sees a lesion.
        prompted: (N,) bool, whether the prompt asks for one.
        called: (N,) index of the group that the judge calls.
        rates: of reader and judge, from `reader_rates`.
        confidence: of the intervals (delta method, t quantile, ends cut to [0, 1]).

    Returns:
        `lesion_prompted` and `lesion_not_prompted`; None where there is no such image.

    Raises:
        ValueError: arguments differ in length.
    """
    cells, prompted = _cell(called, read), np.asarray(prompted, dtype=bool)
    if cells.shape != prompted.shape:
        raise ValueError(f"read, prompted: shapes {cells.shape} and {prompted.shape}; give one value per image")
    chosen = {"lesion_prompted": prompted, "lesion_not_prompted": ~prompted}
    return {key: _share(cells[mask], rates, confidence) if mask.any() else None for key, mask in chosen.items()}


def _share(cells: NDArray[np.int64], rates: JudgeRates, confidence: float) -> LesionShare:
    count = adjusted_count(cells, rates)
    value, variance = count.value[1::2].sum(), count.covariance[1::2, 1::2].sum()  # odd cells have a lesion
    share = symmetric(value, variance, quantile=t.ppf((1 + confidence) / 2, count.degrees))
    plausible = share.low <= 1 and share.high >= 0
    known = count.measurable and plausible
    low, high = np.clip([share.low, share.high], 0, 1).tolist() if known else (0.0, 1.0)
    share = replace(share, low=low, high=high)
    return LesionShare(share, _by_group(count), float((cells % 2).mean()), len(cells), plausible)


def _by_group(count: AdjustedCount) -> dict[str, float]:
    """Share with a lesion in each group; NaN for a group with no image to speak of, under half a percent."""
    without, with_lesion = count.value.reshape(-1, 2).T
    total = without + with_lesion
    names = [cell.removesuffix(", no lesion") for cell in count.groups[::2]]
    shares = np.where(total > 0.005, with_lesion / np.where(total > 0.005, total, 1), np.nan)
    return dict(zip(names, shares.tolist(), strict=True))


def _cell(group: ArrayLike, lesion: ArrayLike) -> NDArray[np.int64]:
    return 2 * np.asarray(group).astype(np.int64) + np.asarray(lesion, dtype=bool)
