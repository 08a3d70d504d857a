"""What must be the same in two evaluations for their images to pair up, and what the earlier one has kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bundle.errors import InputError
from bundle.weights import digest

SCORES = "scores.npz"


def read_earlier(folder: str | Path, same: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The arrays that an evaluation has kept in ``folder``. Raises InputError where it has not, or where one of those
    in ``same`` differs."""
    path = Path(folder) / SCORES
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of a finished evaluation as compared_with")
    with np.load(path, allow_pickle=False) as file:
        found = dict(file)
    for name, value in same.items():
        if name not in found or not np.array_equal(found[name], value):
            raise InputError(f"{path}: another '{name}' than here; evaluate both models with the same options")
    return found


def digest_of(texts: Sequence[str]) -> str:
    """Sixteen hexadecimal digits that depend on every text: whom and what an evaluation was of is not passed on."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def described(work: Callable) -> str:
    """What a callable of a config does, in words: functions by name and options, methods of networks by the weights."""
    if isinstance(work, partial):
        options = {name: described(v) if callable(v) else v for name, v in work.keywords.items()}
        return f"{work.func.__name__} {dict(sorted(options.items()))}"
    owner = getattr(work, "__self__", None)
    return f"{work.__name__} {digest(owner)}" if isinstance(owner, nn.Module) else getattr(work, "__name__", repr(work))
