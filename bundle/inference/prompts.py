"""What each image shall show: prompts as the user gives them, or captions of a cohort."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bundle.attributes import Attribute
from bundle.cohorts.tables import known, read_table, read_text
from bundle.errors import InputError
from bundle.prompts import caption_frequencies, stated_prompts
from bundle.randomness import generator

if TYPE_CHECKING:
    from bundle.conditioning import Clip
    from bundle.networks.pretrained import TextEncoder

logger = logging.getLogger(__name__)

STATED = "stated"  # the column of a file with the group that a prompt states
DEFAULT_NUMBER = 64  # images of a cohort's captions


@dataclass(frozen=True)
class Request:
    """A ``prompt``, and the group that it states, None where it states none."""

    prompt: str
    stated: str | None = None


@dataclass(frozen=True)
class InTurn:
    """Given requests one after another, from the first again where there are more images."""

    given: Sequence[Request]

    def __getitem__(self, index: int) -> Request:
        return self.given[index % len(self.given)]

    def texts(self) -> list[str]:
        return [request.prompt for request in self.given]

    def digest(self) -> str:
        """Sixteen hexadecimal digits that depend on every request."""
        return _digest([[request.prompt, request.stated] for request in self.given])


@dataclass(frozen=True)
class Drawn:
    """Captions drawn by their ``shares`` (P,), each by its index alone; with ``groups`` (N,), in the wording that
    states the group of that index: ``stated`` holds by group the P captions that do."""

    seed: int
    captions: Sequence[str]
    shares: Tensor
    groups: Sequence[str] | None = None
    stated: Mapping[str, Sequence[str]] | None = None

    def __getitem__(self, index: int) -> Request:
        stream = generator(self.seed, "inference prompt", index)
        caption = int(torch.multinomial(self.shares, 1, generator=stream))
        if self.groups is None:
            return Request(self.captions[caption])
        group = self.groups[index]
        return Request(self.stated[group][caption], group)

    def texts(self) -> list[str]:
        return [*self.captions] if self.stated is None else [text for own in self.stated.values() for text in own]

    def digest(self) -> str:
        """Sixteen hexadecimal digits that depend on every caption, its share, and the groups."""
        return _digest([self.texts(), self.shares.tolist(), self.groups and [*self.groups]])


def given_requests(
    prompts: str | Sequence[str] | None, file: str | None, column: str, attribute: Attribute
) -> list[Request]:
    """Requests of a prompt, of a list of prompts, or of a ``file``; none where neither is given.

    A text file has one prompt a line; a CSV or JSON file has them in ``column``, and perhaps in the column ``stated``
    the groups that they state. Raises InputError for what is no prompt, is empty, or states an unknown group.
    """
    if prompts is not None and file is not None:
        raise InputError("prompts and prompts_file: both are given; leave one out")
    if prompts is not None:
        return [Request(_clean(text, "prompts", place)) for place, text in enumerate(_listed(prompts), 1)]
    if file is None:
        return []
    rows = _rows(Path(file), column)
    if not rows:
        raise InputError(f"{file}: no prompt in it; write one a line")
    texts = [_clean(row.get(column), file, place) for place, row in enumerate(rows, 1)]
    groups = [_group(row.get(STATED), attribute, f"{file}: prompt {place}") for place, row in enumerate(rows, 1)]
    return [Request(*both) for both in zip(texts, groups, strict=True)]


def number_of_images(asked: int | None, given: Sequence[Request]) -> int:
    """How many images: as ``asked``, otherwise one of each request, or 64 of a cohort's captions.

    Raises InputError for what is no positive whole number.
    """
    return positive(asked, "num_images") if asked is not None else len(given) or DEFAULT_NUMBER


def positive(value: Any, field: str) -> int:
    """The value itself. Raises InputError for what is no whole number from 1 up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{field}: {value!r}; give a whole number from 1 up")
    return value


def group_counts(
    proportions: Mapping[str, float] | None, attribute: Attribute, number: int, given: Sequence[Request]
) -> list[int] | None:
    """How many of ``number`` images state each group, exactly in the ``proportions``; None where none is to be stated.

    Raises InputError for proportions that do not fit the attribute, or come with prompts of the user's own.
    """
    if proportions is None:
        return None
    if given:
        raise InputError(
            "proportions: they choose the wording of a cohort's captions, and prompts are given; leave one out, or "
            f"write a prompts_file with the column {STATED}"
        )
    return largest_remainder(attribute.proportions(proportions, "proportions"), number)


def requests(
    given: Sequence[Request],
    rows: Sequence[Mapping] | None,
    counts: Sequence[int] | None,
    attribute: Attribute,
    seed: int,
) -> InTurn | Drawn:
    """What is ``given``, otherwise captions of the ``rows`` of a cohort in their frequencies: neutral ones, or, with
    ``counts``, ones that state each group so often."""
    if given:
        return InTurn(given)
    captions, shares = caption_frequencies(rows)
    if counts is None:
        return Drawn(seed, captions, shares)
    return Drawn(seed, captions, shares, _mixed(counts, attribute, seed), stated_prompts(rows, captions, attribute))


def largest_remainder(shares: np.ndarray, number: int) -> list[int]:
    """Whole numbers (G,) that sum to ``number`` and are nearest to its ``shares`` (Hamilton's method); the first group
    wins where remainders are equal."""
    exact = shares * number
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - counts).round(9), kind="stable")
    counts[order[: number - counts.sum()]] += 1
    return counts.tolist()


def warn_of_cut(text_encoder: Clip | TextEncoder, wanted: InTurn | Drawn, batch_size: int = 256) -> None:
    """Say in one line how many prompts are longer than what the text tower reads: it cuts them silently."""
    texts = sorted(set(wanted.texts()))
    parts = (texts[i : i + batch_size] for i in range(0, len(texts), batch_size))
    cut = [text for part in parts for text, long in zip(part, text_encoder.cut(part), strict=True) if long]
    if cut:
        logger.warning(
            "prompts: %d of %d are longer than what the text tower reads, and their ends do not count: '%s'",
            *(len(cut), len(texts), cut[0]),
        )


def _mixed(counts: Sequence[int], attribute: Attribute, seed: int) -> list[str]:
    """Every group as often as counted, in an order that depends on the seed alone."""
    groups = [group for group, count in zip(attribute.groups, counts, strict=True) for _ in range(count)]
    order = torch.randperm(len(groups), generator=generator(seed, "inference groups"))
    return [groups[i] for i in order.tolist()]


def _listed(prompts: Any) -> list:
    """A prompt or prompts as the command line gives them, which reads a list only where every prompt has quotes."""
    if isinstance(prompts, tuple) or (isinstance(prompts, str) and prompts.lstrip().startswith(("[", "("))):
        raise InputError(
            f"prompts: {str(prompts)[:80]} was not read as it was meant; give a prompts_file, or write "
            "--prompts \"['one, prompt', 'another']\""
        )
    listed = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(listed, list) or not listed:
        raise InputError(f"prompts: {prompts!r}; give a list of texts, or a prompts_file")
    return listed


def _rows(path: Path, column: str) -> list[Mapping]:
    kind = path.suffix.lower()
    if kind == ".txt":
        return [{column: line} for line in read_text(path).splitlines() if line.strip()]
    if kind == ".csv":
        return read_table(path, [column])
    if kind != ".json":
        raise InputError(f"{path}: prompts are read from .txt, .csv and .json; rename or convert it")
    try:
        rows = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}); correct it") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: no list; write a list of texts, or of objects with '{column}'")
    return [row if isinstance(row, Mapping) else {column: row} for row in rows]


def _clean(text: Any, where: str, place: int) -> str:
    """A prompt on one line."""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: prompt {place} is {text!r}; write a text")
    return " ".join(text.split())


def _group(text: Any, attribute: Attribute, where: str) -> str | None:
    group = known(None if text is None else str(text))
    if group is not None and group not in attribute.groups:
        raise InputError(
            f"{where}: column {STATED}: unknown group '{group}'; {attribute.name} has {', '.join(attribute.groups)}"
        )
    return group


def _digest(content: Iterable) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
