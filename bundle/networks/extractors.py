"""Image features for the measures of quality and copying, from the encoders of torchvision and timm.

A distance between sets of images is one within a feature space, and every encoder has its own blind spots, so that more
than one should be asked. (An image tower of open_clip is `bundle.conditioning.Clip(...).image_features`.) The whole
image is resized to the side that the encoder was made for, without a crop, since what lies at the border of a scan
counts; one filter, antialiased, in floating point. Nothing is ever downloaded: weights come from a local file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bundle.errors import InputError
from bundle.files import file_digest
from bundle.weights import read_state


class Extractor(nn.Module):
    """A frozen encoder with its own preparation of images.

    Args:
        network: maps prepared images (B, 3, h, w) to features (B, d).
        size: height and width that it expects.
        mean, std: of the three channels of its training images.
        weights: what names the weights in a report.
    """

    def __init__(
        self, network: nn.Module, size: tuple[int, int], mean: Sequence[float], std: Sequence[float], weights: str
    ):
        super().__init__()
        self.network, self.size, self.weights = network, size, weights
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, d) of images (B, C, H, W) in [0, 1], grey (C = 1, repeated thrice) or RGB."""
        images = images.to(self.mean)
        if images.shape[-2:] != self.size:
            images = interpolate(images, self.size, mode="bilinear", antialias=True)
        return self.network((images.expand(-1, 3, -1, -1) - self.mean) / self.std)


@dataclass(frozen=True, eq=False)
class _Encoder:
    """A network without its classification layer, the names of what was left out, and the images that it expects."""

    network: nn.Module
    heads: tuple[str, ...]
    size: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]


def load_extractor(kind: str, name: str, weights: str | Path, device: torch.device | str = "cpu") -> Extractor:
    """An encoder with weights from a local file; its features are what its classification layer would be given.

    Args:
        kind: ``torchvision`` or ``timm``.
        name: a classifier of ``torchvision.models.list_models(torchvision.models)``, or of ``timm.list_models()``,
            there with the tag of its weights if they want other means than the architecture's first.
        weights: a state dict, ``.safetensors`` or by ``torch.save``, in the library's own names of layers; that of the
            classification layer, for whatever classes, may be in it and is not used. The first sixteen digits of the
            file's SHA-256 become ``Extractor.weights``.
        device: where the features are computed, and returned.

    Raises:
        InputError: no such kind or encoder, or a file that is missing, damaged, or of another network.
    """
    if kind not in KINDS:
        raise InputError(f"kind '{kind}': no such source of encoders; give one of {', '.join(KINDS)}")
    encoder, path = KINDS[kind](name), Path(weights)
    state = {key: value for key, value in read_state(path).items() if not key.startswith(encoder.heads)}
    try:
        encoder.network.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in state.items()})
    except (RuntimeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: does not fit {kind} '{name}': {detail}; give the weights of that network") from error
    digest = file_digest(path)[:16]
    return Extractor(encoder.network, encoder.size, encoder.mean, encoder.std, digest).to(device)


def _torchvision(name: str) -> _Encoder:
    if name not in torchvision.models.list_models(torchvision.models):
        remedy = "give one of torchvision.models.list_models(torchvision.models)"
        raise InputError(f"torchvision '{name}': no such classifier; {remedy}")
    network = torchvision.models.get_model(name, weights=None)
    images = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    layers = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise InputError(f"torchvision '{name}': it has no linear layer to take off; give another encoder")
    network.set_submodule(layers[-1], nn.Identity())
    return _Encoder(network, (f"{layers[-1]}.",), (images.crop_size[0],) * 2, images.mean, images.std)


def _timm(name: str) -> _Encoder:
    try:
        if not timm.is_model(name):  # a name of a model hub, which timm would fetch
            raise RuntimeError("unknown to timm")
        network = timm.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise InputError(f"timm '{name}': {error}; give one of timm.list_models()") from error
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    images = timm.data.resolve_model_data_config(network)
    size = tuple(images["input_size"][1:])
    return _Encoder(network, tuple(f"{head}." for head in heads), size, images["mean"], images["std"])


KINDS = {"torchvision": _torchvision, "timm": _timm}
