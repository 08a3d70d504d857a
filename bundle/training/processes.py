"""Several processes that train as one: torchrun starts them, each has its part of every batch, and the step is that of
the whole batch.

What is drawn for a batch is drawn whole by every process, which takes its part (:mod:`bundle.randomness`); DDP takes
the mean of the gradients. What is left are the places within a network where the images of a batch meet: its
statistics, and what it draws itself.
"""

from __future__ import annotations

import atexit
import logging
import os
from datetime import timedelta
from functools import partialmethod
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import batch_norm, dropout
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from bundle.errors import InputError
from bundle.randomness import local_part

PATIENCE = timedelta(hours=2)  # that processes wait for each other: one alone makes the caches


def join() -> None:
    """Make this process one of those that torchrun has started; the first alone shows progress.

    Raises InputError where torchrun did not start it.
    """
    if "LOCAL_RANK" not in os.environ:
        raise InputError(
            "configs/multi_gpu.yaml: no LOCAL_RANK in the environment; start by torchrun: docs/clusters.md"
        )
    idist.initialize("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    atexit.register(idist.finalize)
    if idist.get_rank() != 0:
        tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
        logging.disable(logging.INFO)


def own_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


class Together(DistributedDataParallel):
    """DDP whose forward does to its part of a batch what one process would have done to it within the whole."""

    def __init__(self, module: nn.Module, device: torch.device):
        super().__init__(module, device_ids=[device] if device.type == "cuda" else None)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        with _WholeBatch():
            return super().forward(*inputs, **options)


class _WholeBatch(TorchFunctionMode):
    """Replaces the functions of torch by which the images of a batch touch each other."""

    def __torch_function__(self, function: Any, types: Any, inputs: tuple = (), options: dict | None = None) -> Any:
        return REPLACED.get(function, function)(*inputs, **(options or {}))


def _randn_like(input: Tensor, **options: Any) -> Tensor:
    return local_part(torch.randn(_whole(input), dtype=input.dtype, device=input.device, **options))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0:
        return input
    kept = torch.empty(_whole(input), dtype=input.dtype, device=input.device).bernoulli_(1 - p)
    return input * local_part(kept.div_(1 - p))


def _whole(part: Tensor) -> tuple[int, ...]:
    return (idist.get_world_size() * len(part), *part.shape[1:])


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """By the mean and variance of the whole batch, in fp32; their gradients, too, are those of all processes."""
    if not training:
        return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = [0, *range(2, input.ndim)]
    size = idist.get_world_size()
    values = input.float()
    mean = all_reduce(values.mean(axes)) / size
    centred = values - _channels(mean, input)
    variance = all_reduce(centred.square().mean(axes)) / size
    if running_mean is not None:
        count = size * input.numel() / input.shape[1]
        running_mean.lerp_(mean.detach().to(running_mean), momentum)
        running_var.lerp_((variance.detach() * count / (count - 1)).to(running_var), momentum)
    result = centred * _channels((variance + eps).rsqrt(), input)
    if weight is not None:
        result = result * _channels(weight, input) + _channels(bias, input)
    return result.to(input.dtype)


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """Values (C,) beside a tensor (N, C, ...)."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


REPLACED = {torch.randn_like: _randn_like, dropout: _dropout, batch_norm: _batch_norm}
