"""The same numbers from less memory."""

import copy

import pytest
import torch
from monai.networks.nets import AutoencoderKL
from torch import nn

from bundle.networks.pretrained import load_autoencoder, load_denoiser
from bundle.networks.recompute import recomputed
from tests.pipelines import save_tiny_pipeline


def kept(work):
    """Bytes of all that autograd keeps for the backward pass of what ``work`` returns, and the result."""
    seen = {}

    def note(tensor):
        seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = work()
    return sum(seen.values()), result


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(save_tiny_pipeline(tmp_path_factory.mktemp("base")))


def monai_autoencoder():
    return AutoencoderKL(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=[8, 8, 16],
        attention_levels=[False] * 3,
        num_res_blocks=2,
        norm_num_groups=4,
        latent_channels=4,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )


def compare(plain, work):
    other = recomputed(copy.deepcopy(plain))
    results = []
    for network in (plain, other):
        size, outcome = kept(lambda network=network: work(network))
        outcome.square().mean().backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        results.append((size, outcome.detach(), torch.cat([gradient.flatten() for gradient in gradients])))
    (size, outcome, gradient), (less, again, same) = results
    assert torch.equal(outcome, again)
    assert torch.allclose(gradient, same, rtol=1e-5, atol=1e-8)
    assert less < size / 2


def test_the_decoder_of_monai():
    torch.manual_seed(0)
    latents = torch.randn(2, 4, 8, 8)
    compare(monai_autoencoder(), lambda network: network.decode(latents))


def test_the_decoder_and_the_unet_of_a_pipeline(base):
    torch.manual_seed(0)
    latents, timesteps, context = torch.randn(2, 4, 8, 8), torch.tensor([5, 900]), torch.randn(2, 3, 32)
    autoencoder = load_autoencoder(base, 1).requires_grad_(True)
    compare(autoencoder, lambda network: network.decode(latents))
    compare(load_denoiser(base), lambda network: network(latents, timesteps, context))


def test_switched_off_and_unknown():
    network = nn.Linear(1, 1)
    assert recomputed(network, enabled=False) is network
    with pytest.raises(ValueError, match="Linear: none of"):
        recomputed(network)
