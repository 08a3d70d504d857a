"""Tables of clinical facts as they really come: with marks of byte order, many words for unknown, codes for groups."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from bundle.errors import InputError

# What tables write where they know nothing; compared in lower case.
MISSING = {
    *("", "na", "n/a", "nan", "none", "null", "-", "--", "?", "unknown", "not reported", "not available"),
    *("[not available]", "[unknown]", "[not evaluated]", "[not applicable]", "unspecified", "declined", "refused"),
}
# The words for sex that mean the same in every data set. Numbers do not: each module says what its own mean.
SEX = {"female": "female", "f": "female", "woman": "female", "male": "male", "m": "male", "man": "male"}
OLDEST = 120  # years
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}

Row = dict[str, str]


def read_table(path: str | Path, columns: Sequence[str] | None, separator: str | None = None) -> list[Row]:
    """Rows of a text table with a header, as text without spaces around it; a byte order mark and all line ends are
    fine.

    Args:
        columns: those that must be there, each once; all others are kept too, and need no name of their own, but where
            this is None.
        separator: the table's, or None for the one that finds these columns.

    Raises:
        InputError: no such file, not text, no rows, a missing column, another separator, an open quote, a row of
            another length (empty ones do not count).
    """
    path = Path(path)
    text = read_text(path)
    lines = text.splitlines()
    if not lines or not lines[0].strip():
        raise InputError(f"{path}: the table is empty; copy it again")
    chosen = separator or _separator(lines[0], columns or ())
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=chosen, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a table ({error}); close every quote and copy it again") from None
    header = [name.strip() for name in rows[0]]
    _check_header(path, header, columns)
    filled = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    if not filled:
        raise InputError(f"{path}: a header and no rows; copy the table again")
    for number, row in enumerate(filled, 2):
        if len(row) != len(header):
            raise InputError(
                f"{path}: row {number} has {len(row)} cells, the header {len(header)}; "
                "put quotes around cells that hold the separator"
            )
    return [dict(zip(header, (cell.strip() for cell in row), strict=True)) for row in filled]


def read_text(path: Path) -> str:
    """Text in UTF-8 without its byte order mark. Raises InputError where there is none."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); correct the path or its permissions") from None


def cells_by_position(path: str | Path, needed: int, remedy: str) -> list[list[str]]:
    """Cells of a CSV file, its header first, whose names may be empty or repeat; every row has at least ``needed``.

    Raises:
        InputError: no such file, not a table, too few columns; ``remedy`` says what to give instead.
    """
    try:
        frame = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as a table ({reason}); give the CSV file as published") from None
    if frame.shape[1] < needed:
        raise InputError(f"{path}: {frame.shape[1]} columns, by position {needed} are needed; {remedy}")
    return frame.fillna("").values.tolist()


def paths(given: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """One path, several, or none, as a list."""
    return [Path(given)] if isinstance(given, str | Path) else [Path(item) for item in given or ()]


def split_of(path: Path, splits: Sequence[str], remedy: str) -> str:
    """The split that a table's name tells. Raises InputError, with the ``remedy``, where it tells none."""
    found = [split for split in splits if split in path.stem.lower().split("_")]
    if not found:
        raise InputError(f"{path}: the name tells no split; {remedy}")
    return found[0]


def known(text: str | None) -> str | None:
    """The text, or None where it is one of the many words for unknown."""
    return None if text is None or text.strip().lower() in MISSING else text.strip()


def coded(text: str | None, names: Mapping[str, str], where: str) -> str | None:
    """The group that a cell's code or word stands for, None where it is unknown.

    ``names`` maps codes, in lower case, to groups; a whole number may come as ``2.0``. Raises InputError, naming
    ``where`` (file, row, column), for any other code.
    """
    found = known(text)
    if found is None:
        return None
    code = found.lower()
    whole = code.removesuffix(".0")
    group = names.get(code, names.get(whole))
    if group is None:
        raise InputError(f"{where}: unknown code '{found}'; use one of {', '.join(names)}, or leave it empty")
    return group


def number(text: str | None, where: str) -> float | None:
    """A number, None where it is unknown. Raises InputError, naming ``where``, for anything else."""
    found = known(text)
    try:
        return None if found is None else float(found)
    except ValueError:
        raise InputError(f"{where}: '{found}' is no number; correct it or leave it empty") from None


def years(text: str | None, where: str) -> float | None:
    """An age in years, a whole number as such, None where it is unknown.

    Raises:
        InputError: naming ``where``, for what is no number, or none between 0 and ``OLDEST``.
    """
    age = number(text, where)
    if age is not None and not 0 <= age <= OLDEST:
        raise InputError(f"{where}: {text} is no age in years; correct it or leave it empty")
    return int(age) if age is not None and age.is_integer() else age


def age_band(age: float | None, bounds: Sequence[float] = (60,)) -> str | None:
    """The band of an age in years by its lower bounds: "under 60", "60 and over"; "40 to 59" between two of them."""
    if age is None:
        return None
    below = [bound for bound in bounds if age >= bound]
    above = [bound for bound in bounds if age < bound]
    if not below:
        return f"under {above[0]:g}"
    return f"{below[-1]:g} to {above[0] - 1:g}" if above else f"{below[-1]:g} and over"


def one_value(values: Iterable[str | None]) -> tuple[str | None, bool]:
    """The value that all known ones share, or None, and whether they contradict each other."""
    found = {value for value in values if value is not None}
    return (next(iter(found)) if len(found) == 1 else None), len(found) > 1


def _separator(header: str, columns: Sequence[str]) -> str:
    """The separator by which the header has most of the columns."""

    def found(separator: str) -> tuple[int, int]:
        names = {name.strip().strip('"') for name in header.split(separator)}
        return len(names & set(columns)), len(names)

    return max(SEPARATORS, key=found)


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str] | None) -> None:
    unique = set(header if columns is None else columns)
    repeated = sorted({name for name in header if name and header.count(name) > 1} & unique)
    if repeated:
        raise InputError(f"{path}: two columns '{repeated[0]}'; rename or remove one")
    missing = [name for name in columns or () if name not in header]
    if missing and len(header) == 1:
        raise InputError(
            f"{path}: no column '{missing[0]}', the header is one cell '{header[0][:60]}'; "
            f"separate the columns by {' or '.join(SEPARATORS.values())}"
        )
    if missing:
        written = {name.lower(): name for name in header}
        near = difflib.get_close_matches(missing[0].lower(), written, n=1)
        hint = f"rename '{written[near[0]]}'" if near else f"there are {', '.join(header[:8])}"
        raise InputError(f"{path}: no column '{missing[0]}'; {hint}")
