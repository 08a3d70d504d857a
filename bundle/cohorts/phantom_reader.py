"""Reading the phantom's trait and lesion back from a slice by geometry alone: a truth that is no classifier.

Both readers take axial slices as the slice pipeline makes them (anterior up, 1.5 mm pixels, background 0) and work on
T1, T1ce and FLAIR, where the ventricles are dark; `read_lesion` needs FLAIR or T1ce. T2 is not supported.
"""

import numpy as np
from scipy import ndimage

BACKGROUND = 0.06  # a decoded image's background is not exactly 0
SMALLEST_HEAD = 100  # pixels
SMALLEST_LESION = 12  # pixels
LESION_CONTRAST = 1.35  # to the tissue around it; grey matter stays below on T1ce and FLAIR
LARGEST = 2.5  # |log area ratio| is cut here, so that a side that is not seen does not read as infinite


def read_trait(images: np.ndarray) -> np.ndarray:
    """Asymmetry of the lateral ventricles, |log ratio of their areas|, from slices (N, 1, H, W) in [0, 1] to (N,).

    The midline is the head's long axis; the areas are the dark regions that reach it. An image in which no ventricle
    is found reads 0, and one in which only one side is found reads the cut of 2.5.
    """
    return np.array([_asymmetry(image[0]) for image in np.asarray(images, dtype=np.float64)])


def read_lesion(images: np.ndarray) -> np.ndarray:
    """Whether a lesion is visible in FLAIR or T1ce slices (N, 1, H, W) in [0, 1]: (N,) bool.

    A lesion is a connected region away from the brain's edge that is much brighter than the tissue around it: oedema on
    FLAIR, enhancement on T1ce. An image without a head has none.
    """
    return np.array([_has_lesion(image[0]) for image in np.asarray(images, dtype=np.float64)], dtype=bool)


def _head(image: np.ndarray) -> np.ndarray:
    """Mask of the head: the largest region above background, with its holes filled."""
    regions, count = ndimage.label(ndimage.binary_closing(image > BACKGROUND, iterations=2))
    if count == 0:
        return np.zeros(image.shape, bool)
    sizes = np.bincount(regions.ravel())[1:]
    return ndimage.binary_fill_holes(regions == 1 + sizes.argmax())


def _frame(head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates across and along the head's long axis (its midline), with the origin in the centroid."""
    rows, columns = np.nonzero(head)
    centre = rows.mean(), columns.mean()
    axes = np.linalg.eigh(np.cov(np.stack([rows, columns])))[1]
    along = axes[:, 1] * np.sign(axes[0, 1] or 1)  # the long axis, pointing to posterior
    grid = np.indices(head.shape) - np.reshape(centre, (2, 1, 1))
    return along[0] * grid[1] - along[1] * grid[0], along[0] * grid[0] + along[1] * grid[1]


def _asymmetry(image: np.ndarray) -> float:
    head = _head(image)
    if head.sum() < SMALLEST_HEAD:
        return 0.0
    across, along = _frame(head)
    tissue = np.median(image[head])
    smooth = ndimage.gaussian_filter(image, 0.7)
    dark = _ventricles(smooth < 0.62 * tissue, across, along, np.sqrt(head.sum()))
    darkness = np.clip((0.95 * tissue - smooth) / (0.6 * tissue), 0, 1) * ndimage.binary_dilation(dark)
    sides = np.array([darkness[across < 0].sum(), darkness[across > 0].sum()])
    if sides.sum() == 0:
        return 0.0
    return float(min(abs(np.log((sides[0] + 1) / (sides[1] + 1))), LARGEST))


def _ventricles(dark: np.ndarray, across: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    """Dark regions of the middle of the head that come near the midline and are no thin fissure."""
    central = (across / (0.36 * size)) ** 2 + (along / (0.42 * size)) ** 2 < 1
    regions, _ = ndimage.label(ndimage.binary_opening(dark & central, np.ones((3, 3))))
    near = np.unique(regions[np.abs(across) < 0.09 * size])
    return np.isin(regions, near[near > 0])


def _has_lesion(image: np.ndarray) -> bool:
    head = _head(image)
    if head.sum() < SMALLEST_HEAD:
        return False
    contrast = ndimage.gaussian_filter(image, 0.7) / _tissue_around(image, head)
    inner = ndimage.binary_erosion(head, iterations=3)
    regions, count = ndimage.label((contrast > LESION_CONTRAST) & inner)
    return count > 0 and np.bincount(regions.ravel())[1:].max() >= SMALLEST_LESION


def _tissue_around(image: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Brightness of the tissue around each pixel: it follows the receive field, not lesions or fluid."""
    median = np.median(image[head])
    usual = np.clip(image, 0.8 * median, 1.2 * median) * head
    weight = ndimage.gaussian_filter(head.astype(float), 14)
    return ndimage.gaussian_filter(usual, 14) / np.maximum(weight, 0.01)
