"""The denoising loss of fixed latents: by hand, with common noise, and what it leaves untouched."""

import pytest
import torch

from bundle.errors import InputError
from bundle.training.draws import DenoisingBatch
from bundle.training.probe import denoising_probe
from tests.toy import LATENT, Denoiser, scheduler


@pytest.fixture
def denoiser():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Denoiser(dropout=0.5)


def made(prediction="v_prediction", number=5, per_latent=4, **changes):
    stream = torch.Generator().manual_seed(1)
    latents, contexts = (torch.randn((number, *shape), generator=stream) for shape in (LATENT, (2, 3)))
    prepare = DenoisingBatch(scheduler(prediction))
    arguments = {"prepare": prepare, "num_timesteps": 1000, "per_latent": per_latent, "seed": 3}
    return denoising_probe(latents, contexts, **{**arguments, **changes})


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_the_losses_are_those_of_a_loop_by_hand(denoiser, prediction):
    """Noised latent sqrt(a) x + sqrt(1 - a) e; target e, or v = sqrt(a) e - sqrt(1 - a) x (Salimans and Ho, 2022)."""
    probe = made(prediction)
    found = probe.losses(denoiser, batch_size=2)
    assert denoiser.training
    denoiser.eval()
    kept = scheduler(prediction).alphas_cumprod
    for n in range(5):
        for k, timestep in enumerate(probe.timesteps):
            a, x, e = kept[timestep], probe.latents[n], probe.noise[k]
            noised = a.sqrt() * x + (1 - a).sqrt() * e
            target = e if prediction == "epsilon" else a.sqrt() * e - (1 - a).sqrt() * x
            output = denoiser(noised[None], timestep[None], probe.contexts[n][None])[0]
            assert float(found[n, k]) == pytest.approx(float((output - target).square().mean()), rel=1e-5)


def test_timesteps_are_the_middles_of_equal_parts():
    assert made().timesteps.tolist() == [125, 375, 625, 875]


def test_latents_that_are_alike_have_the_same_loss_at_every_timestep(denoiser):
    """Noise is common to all latents: nothing but the latent and its context can tell two apart."""
    probe = made()
    probe.latents[1:], probe.contexts[1:] = probe.latents[0], probe.contexts[0]
    losses = probe.losses(denoiser)
    assert torch.allclose(losses, losses[:1].expand_as(losses), rtol=1e-6)
    assert losses[0].unique().numel() == 4


def test_it_is_the_same_each_time_and_moves_nothing(denoiser):
    """Dropout is off, the mode comes back, and the global stream is not touched."""
    probe, state = made(), torch.get_rng_state()
    first = probe.losses(denoiser.train())
    assert denoiser.training
    assert torch.equal(first, probe.losses(denoiser.eval()))
    assert not denoiser.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.requires_grad
    assert first.dtype == torch.float32


def test_the_error_is_in_single_precision_under_autocast(denoiser):
    """Predictions of 400 in half precision: their squares, 160000, are beyond its largest number, 65504."""

    class Half(torch.nn.Linear):
        def forward(self, x, timesteps, context):
            return torch.full_like(x, 400, dtype=torch.half)

    losses = made().losses(Half(1, 1))
    assert torch.isfinite(losses).all()
    assert losses.min() > 150_000


def test_the_mode_comes_back_when_the_network_fails():
    class Broken(torch.nn.Linear):
        def forward(self, x, timesteps, context):
            raise RuntimeError("broken")

    network = Broken(1, 1)
    with pytest.raises(RuntimeError, match="broken"):
        made().losses(network)
    assert network.training


def test_impossible_probes_are_refused():
    with pytest.raises(InputError, match="no latents"):
        made(number=0)
    for number in (0, 1001):
        with pytest.raises(InputError, match=f"{number} timesteps of 1000; give from 1 to 1000"):
            made(per_latent=number)
    with pytest.raises(ValueError, match="2 latents, 3 contexts"):
        denoising_probe(torch.zeros(2, *LATENT), torch.zeros(3, 2, 3), None, 1000, 1, 0)
