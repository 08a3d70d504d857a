"""Captions of slices: what a radiologist would type, with or without the person's sex and age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from bundle.attributes import Attribute
from bundle.errors import InputError

MODALITY = {"t1": "T1", "t1ce": "contrast-enhanced T1", "t2": "T2", "flair": "FLAIR"}
GRADE = {"HGG": "high-grade glioma", "LGG": "low-grade glioma", "G2": "grade 2 glioma", "G3": "grade 3 glioma"}
PERSON = {"female": "woman", "male": "man"}
SIZES = {"small": 0.03, "medium-sized": 0.1}  # lesions up to these shares of the head's area; larger ones are large


def neutral_caption(row: Mapping) -> str:
    """Caption of an image that names no attribute of the person.

    ``row`` holds a ``caption`` of its own, or ``modality``, ``level`` (words) and ``lesion`` (whether this slice shows
    one); ``grade`` and ``side`` are named where they are known and the slice shows a lesion.
    """
    if row.get("caption"):
        return row["caption"]
    view = f"axial {MODALITY.get(row['modality'], row['modality'])} brain MRI, {row['level']} level"
    if not row["lesion"]:
        return f"{view}, no tumor"
    tumor = GRADE.get(row.get("grade"), "glioma")
    side = f" in the {row['side']} hemisphere" if row.get("side") in ("left", "right") else ""
    return f"{view}, {tumor}{side}"


def stated_caption(row: Mapping) -> str:
    """The neutral caption with sex and, where known, age; a person of unknown sex stays a 'patient'. A row with a
    ``stated`` caption of its own has that one."""
    return row.get("stated") or f"{neutral_caption(row)}, {_person(row)}"


def detailed_caption(row: Mapping) -> str:
    """The neutral caption with what else the segmentation shows: the lesion's size, edema, enhancement."""
    return ", ".join([neutral_caption(row), *_details(row)])


def detailed_stated_caption(row: Mapping) -> str:
    """The stated caption with the same details."""
    return ", ".join([stated_caption(row), *_details(row)])


def _person(row: Mapping) -> str:
    age = f"{row['age']:.0f}-year-old " if row.get("age") else ""
    return age + PERSON.get(row.get("sex"), "patient")


def _details(row: Mapping) -> list[str]:
    """Phrases for what is known; nothing for a slice without a lesion."""
    share = row.get("lesion_share")
    size = [] if share is None else [f"{next((name for name, most in SIZES.items() if share <= most), 'large')} lesion"]
    signs = {True: "with", False: "without"}
    known = [(row.get("edema"), "edema"), (row.get("enhancing"), "enhancement")]
    return size + [f"{signs[present]} {sign}" for present, sign in known if present is not None]


def caption_frequencies(rows: Sequence[Mapping]) -> tuple[list[str], torch.Tensor]:
    """Distinct neutral captions of ``rows``, sorted, and their shares, shape (P,)."""
    counts = Counter(neutral_caption(row) for row in rows)
    captions = sorted(counts)
    shares = torch.tensor([counts[caption] for caption in captions], dtype=torch.float64)
    return captions, shares / shares.sum()


def caption_strata(rows: Sequence[Mapping], captions: Sequence[str], column: str | None) -> list[str]:
    """The stratum that each caption belongs to: the value of ``column`` that all its rows share, else "all".

    Raises InputError for a column that no row has.
    """
    if column is None:
        return ["all"] * len(captions)
    if not any(column in row for row in rows):
        raise InputError(f"stratum '{column}': no such column; the cohort has {', '.join(sorted(rows[0]))}")
    return ["all" if value is None else value for value in _shared(rows, captions, column)]


def caption_facts(
    rows: Sequence[Mapping], captions: Sequence[str], columns: Sequence[str]
) -> dict[str, list[str | None]]:
    """By column, of those that the rows have, what each caption asks for: the value that all its rows share."""
    found = {column: _shared(rows, captions, column) for column in columns if any(column in row for row in rows)}
    return {column: asked for column, asked in found.items() if any(asked)}


def stated_prompts(rows: Sequence[Mapping], captions: Sequence[str], attribute: Attribute) -> dict[str, list[str]]:
    """By group, for each neutral caption the commonest caption of its rows that states the group, and where there is
    none, the caption with the group's word."""
    seen: dict[tuple[str, str], Counter] = {}
    for row in rows:
        key = (row.get(attribute.name), neutral_caption(row))
        seen.setdefault(key, Counter())[stated_caption(row)] += 1

    def stated(group: str, caption: str) -> str:
        found = seen.get((group, caption))
        return min(found, key=lambda text: (-found[text], text)) if found else f"{caption}, {PERSON.get(group, group)}"

    return {group: [stated(group, caption) for caption in captions] for group in attribute.groups}


def _shared(rows: Sequence[Mapping], captions: Sequence[str], column: str) -> list[str | None]:
    """The value of ``column`` that all rows of a caption have, for each caption; None where they differ or lack it."""
    values: dict[str, set] = {caption: set() for caption in captions}
    for row in rows:
        values[neutral_caption(row)].add(row.get(column))
    shared = (next(iter(found)) if len(found := values[caption]) == 1 else None for caption in captions)
    return [None if value is None else str(value) for value in shared]
