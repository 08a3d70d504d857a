"""What a data set's folder holds: records, and whatever was left out of them, so that nothing is dropped silently."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.cohorts.record import Record
from bundle.files import write_whole


@dataclass(frozen=True)
class LeftOut:
    """One thing that is not among the records: which ``file``, of which ``subject`` (if known), and why.

    ``file`` is its path, or the id by which a table names it. ``reason`` is a sentence that many items share, so that
    they can be counted; ``detail`` is what differs.
    """

    reason: str
    file: str = ""
    subject: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Reading:
    """Records of a data set, one dictionary each, what was ``left_out``, and ``remarks`` on what the labels cannot say.

    A record has ``subject`` (text), image paths as ``Path`` (``image``, or one per modality, and perhaps ``seg``),
    and facts: the attributes (None where unknown) and, where the data set has wordings of its own, ``caption``, which
    does not name the sex, or whatever else ``stated`` adds.
    """

    records: list[Record]
    left_out: list[LeftOut] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def reasons(self) -> list[tuple[str, int]]:
        """Why things were left out, and how many for each reason, most frequent first."""
        return Counter(item.reason for item in self.left_out).most_common()


def with_several(records: Iterable[Record], name: str) -> list[str]:
    """Subjects whose records have more than one known value of a column, by their ids."""
    found: dict[str, set] = defaultdict(set)
    for record in records:
        found[record["subject"]].add(record.get(name))
    return sorted(subject for subject, values in found.items() if len(values - {None}) > 1)


def leave_unknown(records: Sequence[Record], name: str) -> list[str]:
    """Set a column to None, in place, for the subjects of :func:`with_several`; returns their ids."""
    unclear = dict.fromkeys(with_several(records, name))
    for record in records:
        if record["subject"] in unclear:
            record[name] = None
    return list(unclear)


def write_left_out(items: Sequence[LeftOut], path: str | Path) -> Path:
    """Write a table of what was left out, one line an item, in one step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("reason", "file", "subject", "detail"))
    writer.writerows((item.reason, item.file, item.subject, item.detail) for item in items)
    return write_whole(path, text.getvalue().encode())
