"""Cohorts: one module per data set, each turning a folder into records; ``record`` holds what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bundle.attributes import Attribute
from bundle.cohorts import phantom
from bundle.cohorts.record import read_datalist
from bundle.cohorts.slices import Slices, volume_slices


def phantom_slices(
    role: str,
    root: str | Path,
    attribute: Attribute,
    modalities: Sequence[str],
    levels: Sequence[str],
    transform: Callable,
    cache_dir: str | Path,
    subjects: int | None = None,
) -> Slices:
    """Slices of one phantom cohort (``role``), whose volumes are generated when they are not there yet."""
    datalist = phantom.generate(root, role, subjects=subjects)
    records = read_datalist(datalist, modalities, {attribute.name: attribute.groups})
    return volume_slices(records, modalities, levels, transform, cache_dir, label=f"slices of {role}")
