"""The manifest of generated images: a table with a row for each, and what holds for all of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import bundle
from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.inference.formats import NOTE
from bundle.weights import digest

COLUMNS = {
    "file": "name below images/",
    "index": "of the image; with the seed it fixes the noise",
    "seed": "of the job",
    "prompt": "the text that the image was made from",
    "stated": "group that the prompt states, empty where it states none; not what the image shows",
    "sha256": "of the pixels, rows from the top, 8 bits a channel",
}
PACKAGES = ("torch", "monai", "open_clip_torch", "diffusers", "transformers")
MEANING = "raw calls of a classifier, its errors not counted: no fact about an image; the evaluation counts them"


def columns(attribute: Attribute) -> dict[str, str]:
    """Names of the table's columns and what they hold."""
    readings = {reading(group): f"the judge's probability of {group}" for group in attribute.groups}
    return {**COLUMNS, **readings}


def reading(group: str) -> str:
    """The column of the judge's probabilities of a group."""
    return f"judge_{group}"


def line(cells: Sequence[Any]) -> bytes:
    """A row of the table."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue().encode()


def read_rows(table: Path) -> Iterator[dict[str, str]]:
    """Rows of the table, one at a time."""
    with table.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


def head(networks: Mapping[str, nn.Module], settings: Mapping[str, Any]) -> dict:
    """What holds for all images: that they are synthetic, and what they are made with."""
    return {
        "synthetic": True,
        "note": NOTE,
        "bundle": bundle.__version__,
        "versions": {name: version(name) for name in PACKAGES},
        "networks": {name: digest(network) for name, network in networks.items()},
        "settings": dict(settings),
    }


def calls(table: Path, attribute: Attribute) -> dict:
    """Shares of the groups that the judge calls, in all and by the group that the prompt states."""
    counts: dict[str, Counter] = {"": Counter()}
    for row in read_rows(table):
        called = max(attribute.groups, key=lambda group: float(row[reading(group)]))
        for key in {"", row["stated"]}:
            counts.setdefault(key, Counter())[called] += 1
    shares = {
        key: {"n": found.total(), "share": {group: found[group] / found.total() for group in attribute.groups}}
        for key, found in sorted(counts.items())
    }
    return {"meaning": MEANING, "attribute": attribute.name, **shares.pop(""), "by_stated": shares}


def require_same(path: Path, now: Mapping) -> None:
    """Raise InputError unless the head that ``path`` holds is the one of ``now``."""
    earlier, present = _flat(read_json(path)), _flat(now)
    for name in sorted(earlier.keys() | present.keys()):
        if earlier.get(name) != present.get(name):
            raise InputError(
                f"{path}: made with {name} = {earlier.get(name)}, now {present.get(name)}; "
                "give another --output_dir or delete that folder"
            )


def read_json(path: Path) -> dict:
    """What a file holds. Raises InputError for one that is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the manifest.json of a finished job") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete that folder and run the job again") from None


def to_json(content: Mapping) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of pixels (C, H, W) as they stand in a file: rows from the top, the channels of a pixel together."""
    return hashlib.sha256(np.moveaxis(pixels, 0, -1).tobytes()).hexdigest()


def _flat(content: Mapping, path: str = "") -> dict[str, str]:
    """Values of nested dictionaries as text, by their keys joined by dots."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": json.dumps(value)}
    return flat
