"""Slices of a cohort's images, through the transforms of the config, kept on disk after the first time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import Dataset
from monai.data.utils import pickle_hashing
from monai.transforms import Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from bundle.attributes import Attribute
from bundle.cohorts.record import Record
from bundle.errors import InputError
from bundle.files import write_whole
from bundle.images import Images, Places, Some, StoredImages, as_bytes, kept_images, mapped, write_array, write_images
from bundle.weights import digest

if TYPE_CHECKING:
    from bundle.networks.latent import LatentAutoencoder

MIN_LESION_PIXELS = 12
EDEMA, ENHANCING, LABELS = (2,), (3, 4), 4  # of a BraTS segmentation, and its highest label; enhancing was 4 until 2023
PATHS = ("t1", "t1ce", "t2", "flair", "seg", "image")  # columns of a record that are no facts
BATCH_SIZE = 64
FORMAT = 3  # of the kept files: another one makes them anew


@dataclass(frozen=True)
class Slices:
    """Images (N, C, H, W) in [0, 1], on disk as a rule, and one row of facts per slice: the record's columns, and of a
    slice of a volume ``modality``, ``level``, ``lesion`` and ``side``."""

    images: Images
    rows: list[dict]

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, places: Places = slice(None)) -> Tensor:
        """Images in [0, 1], float32, in memory."""
        return self.images[places]

    def where(self, keep: Callable[[Mapping], bool]) -> Slices:
        """The slices whose row satisfies ``keep``."""
        return self.at([i for i, row in enumerate(self.rows) if keep(row)])

    def first(self, number: int) -> Slices:
        return self.at(range(min(number, len(self))))

    def per_subject(self, number: int) -> Slices:
        """``number`` slices of each subject; from one subject to the next others, so that all kinds of slices serve."""
        places: dict[str, list[int]] = {}
        for place, subject in enumerate(self.subjects()):
            places.setdefault(subject, []).append(place)
        kept = set()
        for turn, own in enumerate(places.values()):
            kept.update(own[(turn * number + i) % len(own)] for i in range(min(number, len(own))))
        return self.at(sorted(kept))

    def halves(self) -> tuple[Slices, Slices]:
        """The slices of the first half of the subjects, and those of the others."""
        subjects = list(dict.fromkeys(self.subjects()))
        first = subjects[: len(subjects) // 2]
        return self.of(first), self.without(first)

    def of(self, subjects: Iterable[str]) -> Slices:
        """The slices of these subjects."""
        chosen = set(subjects)
        return self.where(lambda row: row["subject"] in chosen)

    def without(self, subjects: Iterable[str]) -> Slices:
        """The slices of all other subjects."""
        chosen = set(subjects)
        return self.where(lambda row: row["subject"] not in chosen)

    def subjects(self) -> list[str]:
        return [row["subject"] for row in self.rows]

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that depend on every image."""
        content = hashlib.sha256()
        for part in _parts(len(self)):
            content.update(as_bytes(self.pixels(part)).numpy().tobytes())
        return content.hexdigest()[:16]

    def at(self, places: Sequence[int]) -> Slices:
        """The slices at these places."""
        return Slices(Some(self.images, places), [self.rows[i] for i in places])


def _parts(number: int, label: str | None = None) -> Iterable[Tensor]:
    """The numbers below ``number`` in batches, behind a bar where it has a label."""
    return tqdm(torch.arange(number).split(BATCH_SIZE), label, unit="batch", leave=False, disable=label is None)


def volume_slices(
    records: Sequence[Record],
    modalities: Sequence[str],
    levels: Sequence[str],
    transform: Callable,
    cache_dir: str | Path,
    label: str = "slices",
) -> Slices:
    """Slices of every record and modality, in that order.

    ``transform`` turns {"image", "seg"} into "image" and "seg" of shape (levels, H, W), image in [0, 1]; ``levels``
    names them.
    """
    files, rows = [], []
    for record in records:
        facts = {key: value for key, value in record.items() if key not in (*PATHS, *modalities)}
        for modality in modalities:
            files.append({"image": record[modality], "seg": record["seg"]})
            rows.append([{**facts, "modality": modality, "level": level} for level in levels])
    return file_slices(files, rows, transform, cache_dir, label)


@idist.one_rank_first()  # the others find what it has made
def file_slices(
    files: Sequence[Mapping[str, str]],
    rows: Sequence[Sequence[dict]],
    transform: Callable,
    cache_dir: str | Path,
    label: str = "slices",
) -> Slices:
    """What ``transform`` makes of each file, in that order: the slices of an image and its segmentation, {"image",
    "seg"}, or one picture {"image"} of shape (C, H, W).

    ``rows`` holds for every file what is known of each of its slices. All cores work, a bar shows progress, and the
    result is kept in two files of ``cache_dir``, named by MONAI's hash of all that it depends on, the files' sizes and
    dates included; of the images there are never more in memory than the cores work on.
    """
    if isinstance(transform, Randomizable):
        transform.set_random_state(0)  # a Compose carries a generator, whose state would make the key follow the seed
    stamps = [[_stamp(path) for path in item.values()] for item in files]
    key = pickle_hashing([list(files), stamps, list(rows), transform, FORMAT]).decode()
    images, facts = (Path(cache_dir) / f"slices_{key}.{kind}" for kind in ("npy", "json"))
    if not (images.is_file() and facts.is_file()):
        found: list[dict] = []

        def shown() -> Iterator[Tensor]:
            for known, item in zip(rows, _loaded(files, transform, label), strict=True):
                found.extend({**row, **more} for row, more in zip(known, item["found"], strict=True))
                yield item["image"]

        write_images(shown(), sum(map(len, rows)), images)
        write_whole(facts, json.dumps(found).encode())
    return Slices(StoredImages(images), _read_rows(facts))


def _loaded(files: Sequence[Mapping[str, str]], transform: Callable, label: str) -> Iterable[dict]:
    """What becomes of each file, in their order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    stream = torch.Generator()  # torch's own must not depend on whether the slices were there already
    loader = DataLoader(Dataset(files, _Described(transform)), batch_size=None, num_workers=cores, generator=stream)
    return tqdm(loader, desc=label, unit="file", leave=False)


def _read_rows(path: Path) -> list[dict]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run the job again") from error


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


class _Described:
    """A transform whose images are (slices, C, H, W), and whose segmentation is kept as facts."""

    def __init__(self, transform: Callable):
        self.transform = transform

    def __call__(self, item: dict) -> dict:
        data = self.transform(item)
        image = convert_to_tensor(data["image"], track_meta=False)
        if "seg" not in item:
            return {"image": image[None], "found": [{}]}
        seg = convert_to_tensor(data["seg"], track_meta=False)
        return {"image": image[:, None], "found": [_found(*both) for both in zip(image, seg, strict=True)]}


def _found(image: Tensor, seg: Tensor) -> dict:
    """What the segmentation (H, W) of a slice shows; None where a fact has no meaning or its labels are not BraTS'."""
    lesion, known = seg > 0, bool((seg <= LABELS).all())
    pixels = int(lesion.sum())
    found = {"lesion": pixels >= MIN_LESION_PIXELS, "lesion_pixels": pixels}
    if not found["lesion"]:
        return found | {"side": None, "lesion_share": None, "edema": None, "enhancing": None}
    # Columns run to the patient's left: a lesion whose centroid lies right of the head's middle is on the left.
    columns = torch.arange(image.shape[-1], dtype=torch.float32)
    return found | {
        "side": "left" if _centroid(lesion, columns) > _centroid(image > 0, columns) else "right",
        "lesion_share": pixels / max(1, int((image > 0).sum())),
        "edema": _shows(seg, EDEMA) if known else None,
        "enhancing": _shows(seg, ENHANCING) if known else None,
    }


def _shows(seg: Tensor, labels: Sequence[int]) -> bool:
    return sum(int((seg == label).sum()) for label in labels) >= MIN_LESION_PIXELS


def _centroid(mask: Tensor, columns: Tensor) -> Tensor:
    weight = mask.sum(-2).float()
    return (weight * columns).sum(-1) / weight.sum(-1).clamp_min(1)


@idist.one_rank_first()  # the others find what it has made
def encoded(slices: Slices, encoder: nn.Module, cache_dir: str | Path) -> Tensor:
    """Latents (N, C, h, w) of slices: posterior means by ``encoder.encode``, kept on disk after the first time.

    The file is named by a digest of the images and of the encoder's weights, and read where a latent is asked for.
    """
    path = Path(cache_dir) / f"latents_{slices.fingerprint()}_{digest(encoder)}.npy"
    if not path.is_file():
        device = next(encoder.parameters()).device
        parts = (slices.pixels(part).to(device) for part in _parts(len(slices), "latents"))
        with torch.no_grad():
            write_array((encoder.encode(images).cpu().numpy() for images in parts), len(slices), path)
    return torch.from_numpy(mapped(path))


@idist.one_rank_first()  # the others find what it has made
def reconstructed(
    slices: Slices, autoencoder: LatentAutoencoder, cache_dir: str | Path, label: str = "slices"
) -> StoredImages:
    """Slices through the autoencoder, what a perfect denoiser would show; kept on disk as latents are."""
    path = Path(cache_dir) / f"decoded_{slices.fingerprint()}_{digest(autoencoder)}.npy"
    parts = _parts(len(slices), f"{label} through the autoencoder")
    return kept_images(lambda: (autoencoder.reconstruct(slices.pixels(part)) for part in parts), len(slices), path)


def with_proportions(slices: Slices, attribute: Attribute, written: Mapping[str, float] | None, number: int) -> Slices:
    """About ``number`` slices of whole subjects in the written proportions, or, without any, in the cohort's own; fewer
    where a group has not enough. Raises InputError when it has nobody.
    """
    groups = attribute.indices(slices.rows)
    if written is None:
        shares = attribute.observed_proportions(slices.rows, "cohort")
    else:
        shares = attribute.proportions(written, "target")
    subjects = np.array(slices.subjects())
    members = [list(dict.fromkeys(subjects[groups == group])) for group in range(len(shares))]
    wanted = number * len(set(subjects)) / len(slices)
    total = min([wanted, *(len(found) / share for found, share in zip(members, shares, strict=True) if share > 0)])
    if total == 0:
        raise InputError("target: asks for a group of which the cohort has nobody; ask for none of it or add some")
    return slices.of(s for found, share in zip(members, shares, strict=True) for s in found[: round(total * share)])


def oversampled(slices: Slices, attribute: Attribute, written: Mapping[str, float]) -> Slices:
    """Slices repeated so that the groups have the written shares of those whose group is known.

    No group loses a slice, and within a group all are repeated equally often, give or take once.
    """
    groups = attribute.indices(slices.rows)
    members = [np.flatnonzero(groups == group) for group in range(len(attribute.groups))]
    shares = attribute.proportions(written, "source")
    for name, found, share in zip(attribute.groups, members, shares, strict=True):
        if share > 0 and not len(found):
            raise InputError(f"source: no slice of group '{name}' to repeat; ask for none of it or add some")
    total = max(len(found) / share for found, share in zip(members, shares, strict=True) if share > 0)
    repeated = [np.resize(found, round(total * share)) for found, share in zip(members, shares, strict=True)]
    index = np.sort(np.concatenate([np.flatnonzero(groups < 0), *repeated]))
    return slices.at(index.tolist())
