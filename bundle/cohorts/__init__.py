"""Cohorts: one module per data set, each turning a folder into records; ``record`` holds what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.attributes import Attribute
from bundle.cohorts import phantom
from bundle.cohorts.record import Record, in_random_order, read_datalist, require_disjoint
from bundle.cohorts.slices import Slices, file_slices, volume_slices
from bundle.errors import InputError


def datalist_slices(
    role: str,
    datalists: str | Mapping[str, str | Path],
    attribute: Attribute,
    modalities: Sequence[str],
    levels: Sequence[str],
    transform: Callable,
    cache_dir: str | Path,
) -> Slices:
    """Slices of volumes that a datalist with the column ``role`` names, or one datalist per role, in random order.

    All datalists that are there are checked first, so that a fault of a later role is found before any compute. Raises
    InputError for a role that nobody has, for whatever ``read_datalist`` finds wrong, and when judge or validation
    share a subject with each other or with those who make the images.
    """
    if isinstance(datalists, str):
        records = _of_role(role, datalists, _read(datalists, attribute, modalities))
    else:
        records = _from_several(role, datalists, attribute, modalities)
    ordered = in_random_order(records)
    return volume_slices(ordered, modalities, levels, transform, cache_dir, label=f"slices of {role}")


def picture_slices(
    role: str | None, datalist: str | Path, attribute: Attribute, transform: Callable, cache_dir: str | Path
) -> Slices:
    """Pictures that a datalist names, in random order, of a ``role`` by the column of that name, or of everybody;
    ``transform`` turns {"image"} into (C, H, W) in [0, 1]. Raises InputError as ``datalist_slices`` does."""
    read = read_datalist(datalist, ["image"], {attribute.name: attribute.groups}, ("mask",), unique="image")
    records = in_random_order(read if role is None else _of_role(role, datalist, read))
    files = [{"image": record["image"]} for record in records]
    rows = [[{key: value for key, value in record.items() if key not in ("image", "mask")}] for record in records]
    return file_slices(files, rows, transform, cache_dir, label=f"pictures of {role or 'everybody'}")


def _of_role(role: str, datalist: str | Path, records: Sequence[Record]) -> list[Record]:
    found = [record for record in records if record.get("role") == role]
    if not found:
        roles = sorted({str(record.get("role")) for record in records})
        raise InputError(
            f"{datalist}: nobody has the role '{role}', there are {', '.join(roles)}; prepare with --roles"
        )
    return found


def _from_several(
    role: str, datalists: Mapping[str, str | Path], attribute: Attribute, modalities: Sequence[str]
) -> list[Record]:
    if role not in datalists:
        raise InputError(f"datalists: no '{role}'; give its datalist, there are {', '.join(sorted(datalists))}")
    wanted = {name: path for name, path in datalists.items() if name == role or Path(path).is_file()}
    records = {name: _read(path, attribute, modalities) for name, path in wanted.items()}
    _require_independent(records)
    return records[role]


def _require_independent(records: Mapping[str, Sequence[Record]]) -> None:
    subjects = {role: {record["subject"] for record in part} for role, part in records.items()}
    for role in ("source", "target", "guide"):
        measuring = {name: subjects[name] for name in ("judge", "validation") if name in subjects}
        require_disjoint(**{role: subjects.get(role, set())}, **measuring)


def phantom_slices(
    role: str,
    root: str | Path,
    shape: Sequence[int],
    attribute: Attribute,
    modalities: Sequence[str],
    family: str = "",
    **pipeline: Any,
) -> Slices:
    """Slices of the phantom cohort ``family`` + ``role``, generated in a grid of ``shape`` when it is not there yet;
    ``pipeline`` as for ``volume_slices``.

    Raises InputError for a cohort that the phantom does not have.
    """
    records = _read(phantom.generate(root, f"{family}{role}", tuple(shape)), attribute, modalities)
    return volume_slices(records, modalities, **pipeline, label=f"slices of {role}")


def _read(datalist: str | Path, attribute: Attribute, modalities: Sequence[str]) -> list[Record]:
    return read_datalist(datalist, [*modalities, "seg"], {attribute.name: attribute.groups})
