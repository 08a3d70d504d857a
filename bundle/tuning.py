"""What is tuned of a network, and the same network with other values of just that.

All of its weights, or low-rank adapters beside frozen ones (LoRA, Hu et al., ICLR 2022). The untuned network and the
averaged one differ from the tuned one in these alone, so that of the rest one copy serves all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bundle.errors import InputError

ATTENTION = ("to_q", "to_k", "to_v")  # as MONAI's and diffusers' networks call them


def tunable(network: nn.Module, lora: Mapping[str, Any] | None = None, seed: int = 0) -> nn.Module:
    """``network`` ready for training: with all its weights, or, given the arguments of peft's ``LoraConfig``, such as
    {"r": 8}, with new adapters alone, which start without effect, from the ``seed``. Their layers are those of the
    attention unless ``target_modules`` names others.

    Raises InputError for arguments that peft refuses and for layers that are not linear.
    """
    if lora is None:
        return network.requires_grad_(True).train()
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds, for adapters alone

    try:
        config = LoraConfig(**{"target_modules": list(ATTENTION), **lora})
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # what the job computed before, or found computed, must not matter
            adapted = inject_adapter_in_model(config, network)
    except (TypeError, ValueError) as error:
        raise InputError(f"lora {dict(lora)}: {error}; give arguments of peft.LoraConfig, such as r: 8") from error
    layers = [layer.get_base_layer() for layer in adapted.modules() if hasattr(layer, "lora_A")]
    if not all(isinstance(layer, nn.Linear) for layer in layers) or config.use_dora:
        raise InputError(f"lora {dict(lora)}: only plain adapters of linear layers can be merged; name such layers")
    return adapted.train()


def trainable(network: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters themselves, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


class Trainable:
    """The trainable parameters of a network as a checkpoint keeps them: adapters without what they are added to."""

    def __init__(self, network: nn.Module):
        self.network = network

    def state_dict(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in trainable(self.network).items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, parameter in trainable(self.network).items():
            parameter.copy_(state[name])


class Variant(nn.Module):
    """A network, always in eval mode, with ``values`` of its own for the trainable parameters: the present ones first.

    Its state dict is that of the network as it was before adapters were added, with these merged.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self._network = (network,)  # in a tuple: its weights are not this module's
        self.values = {name: parameter.detach().clone() for name, parameter in trainable(network).items()}

    def forward(self, *inputs: Any, **options: Any) -> Any:
        (network,) = self._network
        training = network.training
        network.eval()
        try:
            return functional_call(network, self.values, inputs, options)
        finally:
            network.train(training)

    def state_dict(self) -> dict[str, Tensor]:
        (network,) = self._network
        return merged(network, {**network.state_dict(), **self.values})


def merged(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ``network`` with what its adapters add put into the weights, under the names without adapters."""
    plain = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        if layer != name:
            down, up = (state[f"{layer}.lora_{side}.default.weight"] for side in "AB")
            value = value + network.get_submodule(layer).scaling["default"] * up @ down
        plain[name.replace(".base_layer.", ".")] = value
    return plain
