"""Transforms of the slice pipeline that MONAI lacks; dictionary transforms in MONAI's manner."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from PIL import Image

from bundle.errors import InputError

PHOTOMETRIC = "00280004"  # the DICOM tag that says which end of the values is shown bright


class ScaleForegroundd(MapTransform):
    """Scale intensities so that 0 stays 0 and a percentile of the foreground (> 0) takes a given value, cut to [0, 1].

    The median is the robust choice: a bright lesion, whatever its size, leaves the brain's brightness as it is. MONAI's
    percentile scaling counts the background, whose share varies with the head's size.

    Raises InputError for an image without foreground.
    """

    def __init__(
        self, keys: KeysCollection, percentile: float = 50, value: float = 0.45, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.percentile, self.value = percentile, value

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        record = dict(data)
        for key in self.key_iterator(record):
            image = record[key]
            foreground = convert_to_tensor(image, track_meta=False)[image > 0]
            if foreground.numel() == 0:
                raise InputError(f"{_source(image, key)}: no voxel above 0; give a skull-stripped volume")
            rank = max(1, round(self.percentile / 100 * foreground.numel()))
            record[key] = torch.clip(image * (self.value / foreground.kthvalue(rank).values), 0, 1)
        return record


class SliceLevelsd(MapTransform):
    """Pick axial slices at fractions of the foreground's extent along the last axis.

    Takes images (1, H, W, D), gives (levels, H, W); the affine stays, so that pixel sizes can still be changed. Level
    0 is the lowest slice in which `source_key` is above 0, level 1 the highest.

    Raises InputError for a source without foreground.
    """

    def __init__(
        self, keys: KeysCollection, levels: Sequence[float], source_key: str, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.levels, self.source_key = tuple(levels), source_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        record = dict(data)
        source = convert_to_tensor(record[self.source_key], track_meta=False)
        filled = torch.nonzero((source > 0).flatten(0, -2).any(dim=0)).flatten()
        if filled.numel() == 0:
            raise InputError(f"{_source(source, self.source_key)}: no voxel above 0; give a skull-stripped volume")
        low, high = int(filled[0]), int(filled[-1])
        slices = [round(low + level * (high - low)) for level in self.levels]
        for key in self.key_iterator(record):
            record[key] = record[key][0, :, :, slices].movedim(-1, 0).contiguous()
        return record


def in_channels(picture: Image.Image, channels: int) -> Image.Image:
    """A picture in grey (1) or in colour (3), whatever mode its file has."""
    return picture.convert("L" if channels == 1 else "RGB")


def middle_square(image: torch.Tensor) -> torch.Tensor:
    """The middle (C, S, S) of an image (C, H, W), where S is its shorter side."""
    side = min(image.shape[-2:])
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def as_monochrome2(image: MetaTensor) -> torch.Tensor:
    """A DICOM image whose high values are meant dark (MONOCHROME1) with its values turned round; others as they are."""
    kind = image.meta.get(PHOTOMETRIC, {}).get("Value", [None])[0]
    return image.max() - image if kind == "MONOCHROME1" else image


def middle_slice(image: torch.Tensor) -> torch.Tensor:
    """The middle slice (W, H) of a volume (W, H, D); a plane as it is."""
    return image[..., image.shape[-1] // 2] if image.ndim == 3 else image


def _source(image: torch.Tensor, key: Hashable) -> str:
    """The file an image came from, for messages."""
    return image.meta.get("filename_or_obj", str(key)) if isinstance(image, MetaTensor) else str(key)
