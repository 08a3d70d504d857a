"""Weights of the archived package `monai-generative` (0.2), in the networks of MONAI core that succeeded it.

Attention blocks of the old autoencoder, and of the old U-Net without conditioning, own weights ``proj_attn`` that no
forward pass uses. Core's ``load_old_state_dict`` puts them into its ``out_proj``, which is applied, and so makes
another network without a word; what it does not find in a file it leaves random. Here names are translated, nothing may
be left over or missing, and the old network itself says whether the new one does the same. (Release 0.1 did apply them;
its files have other names, and do not fit.)
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import monai
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from torch import Tensor, nn

from bundle.errors import InputError
from bundle.weights import read_state

TOLERANCE = 1e-6
NAMES = (  # of tensors, in a file and in core
    (r"\.to_out\.0\.", ".out_proj."),
    (r"(?<!\.attn[12])\.(to_[qkv])\.", r".attn.\1."),
    (r"\b(decoder\.blocks\.\d+|upsampler)\.conv\.conv\.", r"\1.postconv.conv."),
)
ARGUMENTS = {"channels": "num_channels", "use_checkpoint": "use_checkpointing"}  # in core, and as they were called
ONLY_IN_CORE = ("include_fc", "use_combined_linear")
# How an output is computed, not what it is: the first needs a GPU in the old package, the second is for half precision.
COMPUTED = ("use_flash_attention", "upcast_attention")


def load_legacy(network: nn.Module, arguments: Mapping[str, Any], path: str | Path) -> float:
    """Fill a network of MONAI core with the weights of its predecessor, once both are shown to do the same.

    Args:
        network: ``DiffusionModelUNet`` or ``AutoencoderKL``. With ``include_fc`` its unused projections become the
            identity; without, it has none.
        arguments: those that it was built with, in core's names.
        path: state dict of the old network, bare or in a checkpoint, perhaps of ``DataParallel``.

    Returns:
        The largest difference between outputs of both for the same random input, in double precision; relative to the
        largest output where that is above 1.

    Raises:
        InputError: the file does not fit the old network, whole, or core cannot do what that did. The network is then
            as it was.
    """
    arguments = _complete(type(network), arguments)
    state = _read(path)
    old = _filled(_predecessor(type(network), arguments), state, path, "declare the network that it was trained as")
    renamed, remedy = _core_state(state, network), f"leave {' and '.join(ONLY_IN_CORE)} at their defaults"
    new = _filled(type(network)(**arguments), renamed, path, remedy)
    difference = _largest_difference(old, new, arguments, path)
    if not difference <= TOLERANCE:  # nor if it is no number
        raise InputError(f"{path}: outputs of core's network and of the old one differ by {difference:.1g}; not usable")
    _filled(network, renamed, path, remedy)
    return difference


def package(module: str) -> ModuleType:
    """A module of `monai-generative`. Raises InputError where that is not installed: nothing else is a proof."""
    if not hasattr(monai.config, "IgniteInfo"):  # from where some of its modules import it, as MONAI once had it
        monai.config.IgniteInfo = monai.utils.IgniteInfo
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of decorators that nothing here uses
            return importlib.import_module(f"generative.{module}")
    except ModuleNotFoundError as error:
        raise InputError(f"monai-generative: {error}; install it as requirements.txt names it") from error


def _predecessor(network: type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """The old network for the arguments of core's. Raises InputError where core has none that does the same."""
    if network not in (AutoencoderKL, DiffusionModelUNet):
        raise InputError(f"{network.__name__}: not read from old files; only AutoencoderKL and DiffusionModelUNet are")
    if arguments.get("use_convtranspose"):
        raise InputError("use_convtranspose: core's kernels have another size than the old ones; train it anew in core")
    named = {ARGUMENTS.get(key, key): value for key, value in arguments.items() if key not in ONLY_IN_CORE}
    return getattr(package("networks.nets"), network.__name__)(**named)


def _core_state(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Old weights under the names of core, for ``network``; the projections that were never applied are left out."""
    renamed = {}
    for name, value in state.items():
        if ".proj_attn." not in name:
            for old, new in NAMES:
                name = re.sub(old, new, name)
            renamed[name] = value
    for name, value in network.state_dict().items():
        if ".attn.out_proj." in name:  # those of transformers, which were applied, lie in .attn1. and .attn2.
            renamed[name] = torch.eye(len(value)) if name.endswith("weight") else torch.zeros(len(value))
    return renamed


@torch.no_grad()
def _largest_difference(old: nn.Module, new: nn.Module, arguments: Mapping[str, Any], path: str | Path) -> float:
    """Between outputs of two networks for the same random input, as :func:`load_legacy` returns it.

    In single precision, the order of sums in attention alone makes 1e-5 in a network of usual size.
    """
    inputs = _random_inputs(arguments)
    expected = _outputs(old.double().eval(), inputs)
    if not any(output.any() for output in expected):  # the last layer of a U-Net begins at zero
        raise InputError(f"{path}: outputs of the old network are 0 and prove nothing; give weights that were trained")
    pairs = zip(expected, _outputs(new.double().eval(), inputs), strict=True)
    return torch.stack([(a - b).abs().max() / a.abs().max().clamp(min=1) for a, b in pairs]).max().item()


def _complete(network: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with the defaults, for a network that computes in double precision on any machine."""
    bound = inspect.signature(network).bind(**arguments)
    bound.apply_defaults()
    return bound.arguments | {name: False for name in COMPUTED if name in bound.arguments}


def _read(path: str | Path) -> dict[str, Tensor]:
    state = read_state(path)
    prefix = "module." if all(name.startswith("module.") for name in state) else ""  # of DataParallel
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _filled(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, remedy: str) -> nn.Module:
    """The network with all of a state. Raises InputError, before anything is loaded, for one that does not fit."""
    wanted = network.state_dict()
    wrong = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": [name for name in wanted if name in state and wanted[name].shape != state[name].shape],
    }
    found = "; ".join(f"{_few(names)} {what}" for what, names in wrong.items() if names)
    if found:
        raise InputError(f"{path}: does not fit {type(network).__name__}: {found}; {remedy}")
    network.load_state_dict(state)
    return network


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _random_inputs(arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Inputs of two images, 2 pixels wide at the lowest resolution, in double precision."""
    generator = torch.Generator().manual_seed(0)
    shape = (arguments["in_channels"], *[2 ** len(arguments["channels"])] * arguments["spatial_dims"])
    inputs = {"x": torch.randn(2, *shape, generator=generator, dtype=torch.double)}
    if "with_conditioning" in arguments:  # a U-Net
        inputs["timesteps"] = torch.tensor([7, 700])
    if arguments.get("with_conditioning"):
        width = arguments["cross_attention_dim"]
        inputs["context"] = torch.randn(2, 5, width, generator=generator, dtype=torch.double)
    if arguments.get("num_class_embeds"):
        inputs["class_labels"] = torch.tensor([0, arguments["num_class_embeds"] - 1])
    return inputs


def _outputs(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """All that depends on the weights; an autoencoder's forward would add noise."""
    if hasattr(network, "reconstruct"):
        return *network.encode(inputs["x"]), network.reconstruct(inputs["x"])
    return (network(**inputs),)
