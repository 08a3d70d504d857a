"""Cohorts: one module per data set, each turning a folder into records; ``record`` holds what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.attributes import Attribute
from bundle.cohorts import phantom
from bundle.cohorts.record import Record, in_random_order, read_datalist, require_disjoint
from bundle.cohorts.slices import Slices, volume_slices
from bundle.errors import InputError


def datalist_slices(
    role: str,
    datalists: Mapping[str, str | Path],
    attribute: Attribute,
    modalities: Sequence[str],
    levels: Sequence[str],
    transform: Callable,
    cache_dir: str | Path,
) -> Slices:
    """Slices of volumes that datalists name, one datalist per ``role`` (see ``cohorts.record``), in random order.

    All datalists that are there are checked first, so that a fault of a later role is found before any compute. Raises
    InputError for a role without a datalist, for whatever ``read_datalist`` finds wrong, and when judge or validation
    share a subject with each other or with those who make the images.
    """
    if role not in datalists:
        raise InputError(f"datalists: no '{role}'; give its datalist, there are {', '.join(sorted(datalists))}")
    wanted = {name: path for name, path in datalists.items() if name == role or Path(path).is_file()}
    records = {name: _read(path, attribute, modalities) for name, path in wanted.items()}
    _require_independent(records)
    ordered = in_random_order(records[role])
    return volume_slices(ordered, modalities, levels, transform, cache_dir, label=f"slices of {role}")


def _require_independent(records: Mapping[str, Sequence[Record]]) -> None:
    subjects = {role: {record["subject"] for record in part} for role, part in records.items()}
    for role in ("source", "target", "guide"):
        measuring = {name: subjects[name] for name in ("judge", "validation") if name in subjects}
        require_disjoint(**{role: subjects.get(role, set())}, **measuring)


def phantom_slices(
    role: str, root: str | Path, shape: Sequence[int], attribute: Attribute, modalities: Sequence[str], **pipeline: Any
) -> Slices:
    """Slices of one phantom cohort, generated in a grid of ``shape`` when it is not there yet; ``pipeline`` as for
    ``volume_slices``.

    Raises InputError for a cohort that the phantom does not have.
    """
    records = _read(phantom.generate(root, role, tuple(shape)), attribute, modalities)
    return volume_slices(records, modalities, **pipeline, label=f"slices of {role}")


def _read(datalist: str | Path, attribute: Attribute, modalities: Sequence[str]) -> list[Record]:
    return read_datalist(datalist, [*modalities, "seg"], {attribute.name: attribute.groups})
