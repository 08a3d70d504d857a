"""An attribute of a person, its groups, and proportions of the groups as users write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.errors import InputError

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Attribute:
    """A column of the datalist (``name``) and the values that count as groups; any other value is missing."""

    name: str
    groups: tuple[str, ...]

    def __init__(self, name: str, groups: Sequence[str]):
        if len(groups) < 2 or len(set(groups)) != len(groups):
            raise InputError(f"attribute '{name}', groups {list(groups)}: give at least two different groups")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "groups", tuple(groups))

    def indices(self, rows: Iterable[Mapping]) -> np.ndarray:
        """Group index of each row, -1 where the attribute is missing; shape (N,)."""
        index = {group: i for i, group in enumerate(self.groups)}
        return np.array([index.get(row.get(self.name), -1) for row in rows], dtype=np.int64)

    def proportions(self, written: Mapping[str, float], where: str) -> np.ndarray:
        """Proportions in the order of ``groups``, shape (G,).

        ``written`` names every group, or all but one, which gets the rest. Raises InputError, naming ``where`` (the
        config field), for an unknown group, a number outside [0, 1], or proportions that do not sum to one.
        """
        if not isinstance(written, Mapping):
            raise InputError(f"{where}: {written!r}; give a proportion for each of {', '.join(self.groups)}")
        unknown = sorted(set(written) - set(self.groups))
        if unknown:
            raise InputError(f"{where}: unknown group '{unknown[0]}'; {self.name} has {', '.join(self.groups)}")
        try:
            values = {group: float(value) for group, value in written.items()}
        except (TypeError, ValueError):
            raise InputError(f"{where}: {dict(written)} holds what is no number; give shares between 0 and 1") from None
        missing = [group for group in self.groups if group not in values]
        if len(missing) == 1:
            values[missing[0]] = 1.0 - sum(values.values())
        elif missing:
            raise InputError(f"{where}: no proportion for {', '.join(missing)}; give all groups or all but one")
        total = sum(values.values())
        if abs(total - 1.0) > TOLERANCE:
            raise InputError(f"{where}: proportions sum to {total:g}; change them so that they sum to 1")
        if any(not -TOLERANCE <= value <= 1 + TOLERANCE for value in values.values()):
            raise InputError(f"{where}: {dict(written)} leaves [0, 1]; give shares between 0 and 1")
        return np.clip([values[group] for group in self.groups], 0.0, 1.0)

    def observed_proportions(self, rows: Iterable[Mapping], where: str) -> np.ndarray:
        """Share of each group among the subjects of ``rows``, each subject counted once; shape (G,).

        Raises InputError when no subject has the attribute, or one subject has two values of it.
        """
        groups: dict[str, int] = {}
        rows = list(rows)
        for row, index in zip(rows, self.indices(rows), strict=True):
            if index >= 0 and groups.setdefault(row["subject"], index) != index:
                raise InputError(f"{where}: subject '{row['subject']}' has two values of {self.name}; keep one")
        if not groups:
            raise InputError(f"{where}: no subject has a known {self.name}; add the column or give numbers")
        return np.bincount(list(groups.values()), minlength=len(self.groups)) / len(groups)
