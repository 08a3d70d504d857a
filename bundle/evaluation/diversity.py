"""How alike the images of one set are to each other, by MS-SSIM of random pairs; 1 is a set of copies.

The figure means something only beside that of real images of the same group: real brains are alike too. Images are read
a few at a time, so that their number costs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.metrics.regression import compute_ms_ssim
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate, symmetric

if TYPE_CHECKING:
    from bundle.images import Images

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first: Wang et al., sec. 3.2
WINDOW = 11  # pixels on a side of the Gaussian window
BATCH = 32  # pairs


@dataclass(frozen=True)
class Diversity:
    """Mean MS-SSIM over pairs, how many pairs, and on how many scales."""

    estimate: Estimate
    pairs: int
    scales: int


def ms_ssim_diversity(
    images: Images,
    number_of_pairs: int = 256,
    subjects: ArrayLike | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Diversity:
    """Mean multi-scale structural similarity of pairs of images (Wang et al., Asilomar 2003); low is diverse.

    Args:
        images: N of them; `images[places]` is (B, C, H, W), float in [0, 1], for a list of places.
        number_of_pairs: at most; fewer where there are fewer images or subjects.
        subjects: (N,) identifiers of persons; by default every image is its own.
        seed: of the pairs.
        confidence: of the t interval over pairs.

    A subject, with one image of his, is in one pair at most. So pairs are independent, where those of all images with
    all others would not be. The five scales' weights add up to one; of a small image the coarsest scales are left
    out and the other weights raised, so that only values on equally many scales compare.

    Raises:
        ValueError: subjects and images differ in number.
        InputError: fewer than four subjects or images, or sides under 11 pixels.
    """
    pairs = _disjoint_pairs(np.arange(len(images)) if subjects is None else np.asarray(subjects), len(images), seed)
    pairs = pairs[:number_of_pairs]
    scales = scales_for(min(images[[0]].shape[2:]))
    values = np.concatenate([_ms_ssim(images, pairs[i : i + BATCH], scales) for i in range(0, len(pairs), BATCH)])
    quantile = t.ppf((1 + confidence) / 2, len(values) - 1)
    return Diversity(symmetric(values.mean(), values.var(ddof=1) / len(values), quantile=quantile), len(values), scales)


def scales_for(side: int) -> int:
    """How many of the five scales an image of this side allows: 4 for 128 pixels, 5 from 176.

    The window must fit into the coarsest image, whose side is side / 2^(scales - 1). MONAI asks for more in between,
    that it fit into side / (scales - 1)^2. Raises InputError where not even the first scale fits.
    """
    fitting = [k for k in range(1, len(WEIGHTS) + 1) if side // max(2 ** (k - 1), (k - 1) ** 2) >= WINDOW]
    if not fitting:
        raise InputError(f"images: {side} pixels on the shorter side; MS-SSIM needs {WINDOW} or more")
    return max(fitting)


def _disjoint_pairs(subjects: NDArray, images: int, seed: int) -> NDArray[np.int64]:
    """All subjects in pairs (P, 2), in random order, each by the place of one image drawn from his."""
    if len(subjects) != images:
        raise ValueError(f"subjects: {len(subjects)} for {images} images; give one each")
    rng = np.random.default_rng(seed)
    order = rng.permutation(images)
    _, first = np.unique(subjects[order], return_index=True)
    if len(first) < 4:
        raise InputError(f"images: {len(first)} of different subjects; give 4 or more, which are two pairs")
    chosen = rng.permutation(order[first])
    return chosen[: len(chosen) // 2 * 2].reshape(-1, 2)


def _ms_ssim(images: Images, pairs: NDArray[np.int64], scales: int) -> NDArray[np.float64]:
    both = images[pairs.T.ravel().tolist()].float()
    first, second = both.chunk(2)
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    with torch.no_grad():
        values = compute_ms_ssim(first, second, spatial_dims=2, kernel_size=WINDOW, weights=weights.tolist())
    return values[:, 0].double().cpu().numpy()
