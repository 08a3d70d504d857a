"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch

from bundle.errors import InputError


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write beside `path`, then rename, so that no reader meets half a file; makes missing folders.

    Of several processes that train as one the first alone writes.
    """
    path = Path(path)
    if idist.get_rank() != 0:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
    return path


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, read in parts."""
    content = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while part := stream.read(1 << 20):
            content.update(part)
    return content.hexdigest()


def write_tensors(content: object, path: str | Path) -> Path:
    """``torch.save`` through :func:`write_whole`."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return write_whole(path, stream.getvalue())


def read_tensors(path: str | Path, device: torch.device | str = "cpu") -> Any:
    """What :func:`write_tensors` wrote, without pickle; on the CPU a tensor's pages are read when it is looked at.

    Raises InputError for a file that is damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=str(device) == "cpu")
    except Exception as error:  # a damaged archive surfaces as many kinds of error
        raise InputError(f"{path}: damaged ({type(error).__name__}); delete it and run the job again") from error
