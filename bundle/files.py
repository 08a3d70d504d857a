"""Files that are either whole or not there."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write beside `path`, then rename, so that no reader meets half a file; makes missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
    return path


def write_tensors(content: object, path: str | Path) -> Path:
    """``torch.save`` through :func:`write_whole`; read it with ``torch.load(path, weights_only=True)``."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return write_whole(path, stream.getvalue())
