"""What lies in the folders of a data set. Links are followed, but for one that leads in a circle, which is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundle.errors import InputError


def entries(folder: str | Path) -> list[os.DirEntry]:
    """What lies in a folder, by name, without links that lead nowhere; nothing where there is no such folder.

    Raises:
        InputError: for a folder that must not be read, and a link that leads to itself.
    """
    try:
        with os.scandir(folder) as found:
            there = [entry for entry in found if not entry.is_symlink() or _leads_somewhere(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); correct the path, the link or its permissions"
        ) from None
    return sorted(there, key=lambda entry: entry.name)


def file_names(folder: str | Path) -> list[str]:
    """The names of a folder's files, as :func:`entries` finds them."""
    return [entry.name for entry in entries(folder) if entry.is_file()]


def walk(folder: str | Path, above: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every folder from this one on, by name, with the names of its files and of its folders.

    Args:
        above: real paths of the folders from which links led here.

    Raises:
        InputError: as :func:`entries`, and for a link back to a folder that holds it.
    """
    found = entries(folder)
    folders = [entry for entry in found if entry.is_dir()]
    yield str(folder), [entry.name for entry in found if not entry.is_dir()], [entry.name for entry in folders]
    for entry in folders:
        yield from walk(entry.path, _entered(entry, above))


def _leads_somewhere(link: os.DirEntry) -> bool:
    try:
        return bool(link.stat())
    except FileNotFoundError:
        return False


def _entered(entry: os.DirEntry, above: tuple[str, ...]) -> tuple[str, ...]:
    """``above`` and, if the entry is a link, the folder that it leads out of; only a link costs a look at the disk."""
    if not entry.is_symlink():
        return above
    target = os.path.realpath(entry.path)
    passed = (*above, os.path.realpath(os.path.dirname(entry.path)))
    if any(os.path.commonpath((folder, target)) == target for folder in passed):
        raise InputError(f"{entry.path}: a link back to {target}, which holds it; remove the link")
    return passed
