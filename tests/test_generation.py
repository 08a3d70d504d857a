"""Images by index: the same noise and prompt for any model, in any batch."""

from dataclasses import replace

import pytest
import torch

from bundle import generation
from bundle.generation import Sampler, draw, forecast
from bundle.sampling import Schedule
from tests.toy import LATENT, Denoiser, scheduler

SHARES = torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64)


@pytest.fixture
def sampler():
    torch.manual_seed(0)
    schedule = Schedule.from_scheduler(scheduler(), 5)
    return Sampler(schedule, 2.0, torch.randn(3, 2, 3), torch.zeros(1, 2, 3), lambda latents: latents.mean(1, True))


@pytest.fixture
def denoiser():
    torch.manual_seed(1)
    return Denoiser(dropout=0.5)


class TestDraw:
    def test_a_short_draw_begins_a_long_one(self):
        short, long = (draw(0, "pool", number, SHARES, LATENT) for number in (3, 9))
        assert torch.equal(short.prompt, long.prompt[:3])
        assert torch.equal(short.noise, long[:3].noise)
        assert (len(long), long.noise.shape) == (9, (9, *LATENT))

    def test_seed_and_purpose_separate(self):
        noises = [draw(*key, 2, SHARES, LATENT).noise for key in ((0, "pool"), (1, "pool"), (0, "evaluation"))]
        assert len({float(noise.sum()) for noise in noises}) == 3

    def test_prompts_follow_their_shares_and_noise_is_normal(self):
        drawn = draw(0, "pool", 2000, SHARES, (1, 2, 2))
        shares = drawn.prompt.bincount(minlength=3) / 2000
        # standard error at most sqrt(.25 / 2000) = .011
        assert shares.tolist() == pytest.approx(SHARES.tolist(), abs=0.04)
        assert float(drawn.noise.mean()) == pytest.approx(0, abs=4 / 8000**0.5)
        assert float(drawn.noise.std()) == pytest.approx(1, abs=0.03)


class TestSampler:
    def test_the_batch_does_not_matter(self, sampler, denoiser):
        draws = draw(0, "pool", 7, SHARES, LATENT)
        together = sampler.images(denoiser, draws)
        assert torch.allclose(sampler.images(denoiser, draws, batch_size=3), together, atol=1e-6)
        assert torch.allclose(sampler.images(denoiser, draws[4:5]), together[4:5], atol=1e-6)
        assert together.shape == (7, 1, 4, 4)
        assert (float(together.min()), float(together.max())) == (0, 1)  # clamped: these latents reach beyond

    def test_each_image_gets_its_prompt(self, sampler, denoiser):
        draws = draw(0, "pool", 2, SHARES, LATENT)
        same_noise = replace(draws, noise=draws.noise[:1].expand(2, -1, -1, -1), prompt=torch.tensor([0, 2]))
        end = sampler.chain(denoiser, same_noise)[-1]
        only = replace(sampler, contexts=sampler.contexts[2:])
        alone = only.chain(denoiser, replace(same_noise[:1], prompt=torch.tensor([0])))[-1]
        assert not torch.allclose(end[0], end[1])
        assert torch.allclose(end[1:], alone, atol=1e-6)

    def test_the_chain_has_no_graph_and_no_dropout_and_leaves_the_mode(self, sampler, denoiser):
        draws = draw(0, "pool", 2, SHARES, LATENT)
        for training in (True, False):
            denoiser.train(training)
            first, again = sampler.chain(denoiser, draws), sampler.chain(denoiser, draws)
            assert denoiser.training is training
            assert denoiser.dropout.training is training
            assert all(torch.equal(a, b) for a, b in zip(first, again))
            assert not first[-1].requires_grad
            assert len(first) == 6

    def test_another_guidance_scale(self, sampler, denoiser):
        draws = draw(0, "pool", 2, SHARES, LATENT)
        other = replace(sampler, guidance=4.0)
        assert torch.equal(sampler.images(denoiser, draws, guidance=4.0), other.images(denoiser, draws))
        assert not torch.equal(sampler.images(denoiser, draws), other.images(denoiser, draws))


class TestRenoised:
    @pytest.mark.parametrize(("strength", "steps"), [(0.01, 1), (0.4, 2), (1.0, 5)])
    def test_a_denoiser_that_knows_the_noise_gives_the_latents_back(self, sampler, strength, steps):
        """With eps exactly known x_0 = (x_i - s_i eps) / a_i, whatever the step."""
        draws = draw(0, "round trip", 3, SHARES, LATENT)
        latents = draw(1, "latents", 3, SHARES, LATENT).noise
        timesteps = []

        class Knowing(torch.nn.Module):
            def forward(self, x, timesteps, context):
                seen.append(int(timesteps[0]))
                return torch.cat([draws.noise, draws.noise])

        seen = timesteps
        knowing = replace(sampler, schedule=replace(sampler.schedule, prediction="epsilon"))
        images = knowing.renoised(Knowing(), latents, draws, strength)
        assert torch.allclose(images, latents.mean(1, True).clamp(0, 1), atol=1e-4)
        assert seen == sampler.schedule.timesteps[-steps:].tolist()

    def test_the_whole_chain_hardly_remembers_what_it_began_with(self, sampler, denoiser):
        draws = draw(0, "round trip", 2, SHARES, LATENT)
        latents = draw(1, "latents", 2, SHARES, LATENT).noise
        near, far = (sampler.renoised(denoiser, scale * latents, draws, 0.2) for scale in (1, 1.5))
        assert not torch.allclose(near, far, atol=1e-3)


def test_a_batch_tells_how_long_more_will_take(sampler, denoiser, monkeypatch, caplog):
    clock = iter([10.0, 13.0])
    monkeypatch.setattr(generation.time, "monotonic", lambda: next(clock))
    with caplog.at_level("INFO"):
        seconds = forecast(sampler, denoiser, draw(0, "pool", 5, SHARES, LATENT), 400, "alignment")
    assert seconds == 240  # 3 s for 5 images
    assert "alignment: about 4 min here (the work of 400 images)" in caplog.text
