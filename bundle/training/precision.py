"""Mixed precision as an argument."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch


def autocast(enabled: bool, dtype: torch.dtype = torch.float16) -> Callable[[], AbstractContextManager]:
    """What opens CUDA autocast for one pass, or a context that does nothing."""
    return partial(torch.autocast, "cuda", dtype) if enabled else nullcontext
