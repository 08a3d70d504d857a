"""Weights on disk: released ones in half precision, written in one step; all are read without pickle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from bundle.errors import InputError
from bundle.files import write_tensors

# Keys under which published checkpoints keep the weights beside other things.
NESTED = ("state_dict", "model", "diffusion")


def save_weights(network: nn.Module, path: str | Path) -> Path:
    """Write the state dict of ``network``, floating-point tensors as fp16."""
    half = {name: _halve(value.detach().cpu()) for name, value in network.state_dict().items()}
    return write_tensors(half, path)


def _halve(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() and value.numel() > 1 else value


def load_weights(network: nn.Module, path: str | Path | None, frozen: bool = True) -> nn.Module:
    """Fill ``network`` (in fp32) from a bare state dict and return it, for use (``frozen``) or for training.

    Without a ``path`` it keeps the weights that it has. Raises InputError for a file that is missing, damaged, or does
    not fit the network.
    """
    if path is not None:
        _fill(network, Path(path))
    return network.train(not frozen).requires_grad_(not frozen)


def _fill(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        remedy = "run the job that writes them (scripts.make_weights fills a models_dir) or correct the path"
        raise InputError(f"{path}: no such weights; {remedy}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive surfaces as many kinds of error
        raise InputError(f"{path}: not readable as weights ({type(error).__name__}); copy the file again") from error
    try:
        network.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    except (RuntimeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: does not fit the config's network: {detail}; use the weights made for it") from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a published file, ``.safetensors`` or by ``torch.save``, bare or in a checkpoint.

    Raises InputError for a file that is missing, damaged, or holds none.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights; they are not downloaded: get the file and correct the path")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file surfaces as many kinds of error
        remedy = "give a state dict, by torch.save or as .safetensors"
        raise InputError(f"{path}: not readable as weights ({type(error).__name__}); {remedy}") from error
    if isinstance(state, dict):
        state = next((state[key] for key in NESTED if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no state dict of tensors; save network.state_dict()")
    return state


def digest(network: nn.Module) -> str:
    """Sixteen hexadecimal digits that depend on every weight, rounded to the half precision that is released."""
    content = hashlib.sha256()
    for name, value in network.state_dict().items():
        content.update(name.encode() + _halve(value.detach().cpu()).contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
