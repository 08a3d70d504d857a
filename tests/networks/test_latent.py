"""Latents with mean 0 and standard deviation 1, whatever the autoencoder's own scale."""

import pytest
import torch
from monai.networks.nets import AutoencoderKL
from torch import nn

from bundle.networks.latent import LatentAutoencoder


class Halves(nn.Module):
    """An exact autoencoder: two latent channels are 3 I + 1 and -2 I."""

    def encode(self, images):
        mean = torch.cat([3 * images + 1, -2 * images], 1)
        return mean, torch.ones_like(mean)

    def decode(self, latents):
        return (latents[:, :1] - 1) / 3


@pytest.fixture
def images():
    return torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def exact(images):
    network = LatentAutoencoder(Halves(), channels=2)
    network.standardise(images.split(16))
    return network


def test_statistics_are_those_of_all_batches_together(exact, images):
    mean, std = float(images.mean()), float(images.std())
    assert exact.mean.flatten().tolist() == pytest.approx([3 * mean + 1, -2 * mean], abs=1e-5)
    assert exact.std.flatten().tolist() == pytest.approx([3 * std, 2 * std], abs=1e-5)


def test_latents_are_standardised_and_decoding_undoes_it(exact, images):
    latents = exact.encode(images)
    assert latents.mean((0, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert latents.std((0, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert torch.allclose(exact.decode(latents), images, atol=1e-5)
    assert torch.allclose(exact.reconstruct(images), images, atol=1e-5)


def test_reconstructions_are_clamped_and_decoding_is_not(exact):
    beyond = torch.full((1, 1, 8, 8), 1.5)
    latents = exact.encode(beyond)
    assert exact.decode(latents).max() > 1.4
    assert exact.reconstruct(beyond).max() == 1


def test_statistics_are_saved(exact):
    other = LatentAutoencoder(Halves(), channels=2)
    other.load_state_dict(exact.state_dict())
    assert torch.equal(other.std, exact.std)


def test_monai_autoencoder_fits():
    torch.manual_seed(0)
    inner = AutoencoderKL(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(4, 4),
        attention_levels=(False, False),
        num_res_blocks=1,
        norm_num_groups=2,
        latent_channels=3,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )
    network, images = LatentAutoencoder(inner, channels=3), torch.rand(2, 1, 16, 16)
    network.standardise([images])
    reconstruction, mean, deviation = network(images)
    assert (reconstruction.shape, mean.shape, deviation.shape) == (images.shape, (2, 3, 8, 8), (2, 3, 8, 8))
    latents = network.encode(images).requires_grad_()
    (gradient,) = torch.autograd.grad(network.decode(latents).sum(), latents)
    assert gradient.abs().sum() > 0
    assert not network.reconstruct(images).requires_grad
