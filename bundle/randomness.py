"""Random draws as a function of what they are for, never of a global stream."""

import hashlib

import ignite.distributed as idist
import torch
from torch import Tensor

from bundle.errors import InputError

MAX_SEED = 2**63


def generator(seed: int, purpose: str, iteration: int = 0) -> torch.Generator:
    """A CPU generator whose stream depends on (seed, purpose, iteration) alone.

    A resumed run therefore draws what the uninterrupted one would have drawn. Several processes draw for the whole
    batch and take their part of it (:func:`local_part`), so that their number does not change what is drawn.
    """
    key = f"{seed}/{purpose}/{iteration}".encode()
    digest = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
    return torch.Generator().manual_seed(digest % MAX_SEED)


def local_part(drawn: Tensor) -> Tensor:
    """This process's share of what was drawn for the whole batch, along the first dimension.

    Raises InputError when the batch does not divide by the number of processes.
    """
    size, rank = idist.get_world_size(), idist.get_rank()
    if len(drawn) % size:
        raise InputError(f"batch of {len(drawn)} does not divide by {size} processes; change batch_size")
    return drawn.chunk(size)[rank]
