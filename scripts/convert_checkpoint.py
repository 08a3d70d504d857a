"""Weights of the archived package `monai-generative` (0.2) for a network of this bundle's configs.

    python -m scripts.convert_checkpoint old/autoencoder.pth --network autoencoder_def --scale_factor 0.98 \\
        --out outputs/old/autoencoder.pt
    python -m scripts.convert_checkpoint old/diffusion_model.pth --network denoiser_def --out outputs/old/denoiser.pt

Nothing is written before the old network and the new one have given the same outputs for the same inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn
from yaml import YAMLError

from bundle.errors import InputError
from bundle.files import write_tensors
from bundle.networks.latent import LatentAutoencoder
from bundle.networks.legacy import TOLERANCE, load_legacy
from scripts.jobs import start


def convert_checkpoint(
    old: str,
    network: str,
    out: str,
    config_file: str | Sequence[str] = "configs/common.yaml",
    scale_factor: float | None = None,
) -> None:
    """Write an old state dict under the names of MONAI core, in full precision.

    Args:
        old: file of the old weights, bare or in a checkpoint.
        network: entry of the config that declares the network: an AutoencoderKL, perhaps in a LatentAutoencoder, or a
            DiffusionModelUNet, with the arguments of its training (num_channels is now called channels).
        out: file to write, which every job reads: autoencoder.pt or denoiser.pt of a models_dir.
        config_file: one file, or several laid over one another.
        scale_factor: what the old training multiplied latents by; a LatentAutoencoder needs it (1 where it did not).
    """
    if Path(out).is_dir() or Path(out).resolve() == Path(old).resolve():
        raise InputError(f"--out {out}: is the old file, or a folder; give the name of a file to write")
    whole, inner, arguments = _declared(config_file, network)
    _scale(whole, network, scale_factor)
    difference = load_legacy(inner, arguments, old)
    # Not in the half precision of a release, whose rounding alone would be a thousand times the difference allowed.
    path = write_tensors(whole.state_dict(), out)
    proof = f"outputs differ from the old network's by at most {difference:.1g} ({TOLERANCE:.0g} would be allowed)"
    print(f"{path}: {type(inner).__name__}, {proof}")


def _declared(config_file: str | Sequence[str], network: str) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """The network of a config's entry, the one of MONAI in it, and the arguments of that."""
    parser = _parser(config_file)
    entry = _component(parser, network)
    place = f"{network}::autoencoder" if "autoencoder" in entry else network
    entry = _component(parser, place)
    if "num_channels" in entry:
        raise InputError(f"{config_file}: num_channels of {place} is the old name; write channels")
    try:
        whole = parser.get_parsed_content(network)
        arguments = {name: parser.get_parsed_content(f"{place}::{name}") for name in entry if not name.startswith("_")}
    except (RuntimeError, ValueError, ImportError) as error:  # MONAI's names the class; its cause, the argument
        raise InputError(f"{config_file}: {network}: {error.__cause__ or error}; correct its arguments") from error
    return whole, whole if place == network else whole.autoencoder, arguments


def _parser(config_file: str | Sequence[str]) -> ConfigParser:
    """The config, with what its macros bring."""
    for file in [config_file] if isinstance(config_file, str) else config_file:
        if not Path(file).is_file():
            raise InputError(f"--config_file {file}: no such file; correct the path")
    try:
        parser = ConfigParser(ConfigParser.load_config_files(config_file))
        parser.parse()
    except (ValueError, OSError, KeyError, YAMLError) as error:
        raise InputError(f"--config_file {config_file}: not readable as configs: {error}; correct it") from error
    return parser


def _component(parser: ConfigParser, name: str) -> dict[str, Any]:
    entry = parser.get(name)
    if not isinstance(entry, dict) or "_target_" not in entry:
        raise InputError(f"--network {name}: the config declares none there; give autoencoder_def or denoiser_def")
    return entry


def _scale(network: nn.Module, name: str, factor: float | None) -> None:
    """Set the statistics of latents so that standardising them is multiplying by the factor."""
    if not isinstance(network, LatentAutoencoder):
        if factor is not None:
            raise InputError(f"--scale_factor: {name} has no latents to scale; leave it out")
        return
    if type(factor) not in (int, float) or not 0 < factor < float("inf"):
        given = "not given" if factor is None else factor
        raise InputError(f"--scale_factor: {given}; give that of the old training, above 0, and 1 where there was none")
    network.mean.zero_()
    network.std.fill_(1 / factor)


if __name__ == "__main__":
    start(convert_checkpoint)
