"""A pipeline of diffusers behind our interfaces: the same images, the same scale, and clear refusals."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from monai.inferers import DiffusionInferer

from bundle.errors import InputError
from bundle.generation import Draws, Sampler
from bundle.networks.pretrained import (
    latent_shape,
    load_autoencoder,
    load_denoiser,
    load_scheduler,
    load_text_encoder,
    save_pipeline,
)
from bundle.sampling import Schedule, step_weights
from bundle.training.draws import DenoisingBatch
from bundle.weights import save_weights
from tests.pipelines import save_tiny_pipeline

PROMPTS = ["a brain mr", "an axial flair of a woman, longer than the tower has room for"]
STEPS, GUIDANCE, SIZE = 7, 3.0, 16


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def base(request, tmp_path_factory):
    return str(save_tiny_pipeline(tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture(scope="module")
def eps_base(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("eps"))


def noise(base, number=2):
    return torch.randn(number, *latent_shape(base, SIZE), generator=torch.Generator().manual_seed(3))


def sampler(base, channels=3):
    encoder = load_text_encoder(base)
    schedule = Schedule.from_scheduler(load_scheduler(base), STEPS)
    decode = load_autoencoder(base, channels).decode
    return Sampler(schedule, GUIDANCE, encoder.context(PROMPTS), encoder.context([""]), decode)


def theirs(base, start):
    """Images (N, 3, H, W) by the pipeline itself."""
    pipeline = StableDiffusionPipeline.from_pretrained(base, use_safetensors=True, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "np"}
    return torch.from_numpy(pipeline(PROMPTS, latents=start, **options).images).permute(0, 3, 1, 2)


class TestSampling:
    def test_images_are_those_of_the_pipeline(self, base):
        start = noise(base)
        ours = sampler(base).images(load_denoiser(base), Draws(torch.tensor([0, 1]), start))
        expected = theirs(base, start)
        assert (ours - expected).abs().max() < 1e-4
        assert (expected[0] - expected[1]).abs().max() > 0.05  # both prompts were read
        grey = sampler(base, channels=1).images(load_denoiser(base), Draws(torch.tensor([0, 1]), start))
        unclamped = (ours > 0).all(1, keepdim=True) & (ours < 1).all(1, keepdim=True)
        assert torch.allclose(grey[unclamped], expected.mean(1, keepdim=True)[unclamped], atol=1e-4)

    def test_so_are_those_of_a_saved_pipeline(self, base, tmp_path):
        denoiser = load_denoiser(base)
        for parameter in denoiser.parameters():
            parameter.data.mul_(1.1)
        weights = save_weights(denoiser, tmp_path / "model.pt")
        folder = str(save_pipeline(base, weights, tmp_path / "pipeline"))
        start = noise(base)
        ours = sampler(base).images(denoiser, Draws(torch.tensor([0, 1]), start))
        assert (ours - theirs(folder, start)).abs().max() < 0.02  # weights in half precision
        assert (ours - theirs(base, start)).abs().max() > 0.02

    def test_the_chain_ends_where_the_scheduler_says(self, eps_base):
        """x_T / a_T = x_0 / a_0 - sum of A_i eps_i: with one noise for all steps both ends are known."""
        scheduler = load_scheduler(str(eps_base))
        schedule = Schedule.from_scheduler(scheduler, STEPS)
        assert schedule.timesteps.tolist() == [853, 711, 569, 427, 285, 143, 1]  # 1000 // 7 = 142, offset 1
        assert float(schedule.signal[-1] ** 2) == pytest.approx(float(scheduler.alphas_cumprod[0]))
        # -d x_T / d eps_i = a_T A_i, summed: a_T (s_0 / a_0 - s_T / a_T)
        end = schedule.signal[-1] * schedule.noise[0] / schedule.signal[0] - schedule.noise[-1]
        assert float(step_weights(schedule, "decoupled").sum()) == pytest.approx(float(end))


def test_a_prompt_that_the_text_tower_cuts_is_named(eps_base):
    # 16 tokens, of which the beginning and the end take two; here a letter is one
    assert load_text_encoder(str(eps_base)).cut(["a" * 14, "a" * 15]) == [False, True]


class TestTraining:
    def test_noise_and_target_are_the_schedulers(self, base):
        scheduler = load_scheduler(base)
        reference = StableDiffusionPipeline.from_pretrained(base, use_safetensors=True, safety_checker=None).scheduler
        latents, added = noise(base), noise(base).flip(0)
        timesteps = torch.tensor([10, 900])
        batch = {"image": latents, "noise": added, "timesteps": timesteps, "context": torch.zeros(2, 3, 32)}
        _, target, _, arguments = DenoisingBatch(scheduler)(batch, "cpu")
        velocity = reference.config.prediction_type == "v_prediction"
        expected = reference.get_velocity(latents, added, timesteps) if velocity else added
        assert torch.allclose(target, expected, atol=1e-6)
        noisy = DiffusionInferer(scheduler)(latents, lambda x, **_: x, **arguments)
        assert torch.allclose(noisy, reference.add_noise(latents, added, timesteps), atol=1e-6)


class TestAutoencoder:
    def test_latents_have_the_scale_that_the_unet_was_trained_on(self, eps_base):
        images = torch.rand(2, 3, SIZE, SIZE)
        vae = StableDiffusionPipeline.from_pretrained(eps_base, use_safetensors=True, safety_checker=None).vae
        with torch.no_grad():
            expected = 0.18215 * vae.encode(2 * images - 1).latent_dist.mean
            shown = vae.decode(expected / 0.18215).sample / 2 + 0.5
        ours = load_autoencoder(str(eps_base), 3)
        assert torch.allclose(ours.encode(images), expected, atol=1e-6)
        assert torch.allclose(ours.decode(expected), shown, atol=1e-6)

    def test_grey_is_colour_without_colour(self, eps_base):
        grey, colour = load_autoencoder(str(eps_base), 1), load_autoencoder(str(eps_base), 3)
        images = torch.rand(2, 1, SIZE, SIZE)
        assert torch.equal(grey.encode(images), colour.encode(images.expand(-1, 3, -1, -1)))
        reconstruction, mean, deviation = grey(images)
        assert reconstruction.shape == images.shape
        assert torch.allclose(reconstruction, colour(images)[0].mean(1, keepdim=True))
        assert mean.shape == deviation.shape == (2, *latent_shape(str(eps_base), SIZE))

    def test_a_size_that_does_not_divide(self, eps_base):
        with pytest.raises(InputError, match="multiple of 2"):
            latent_shape(str(eps_base), 33)


def changed(folder, tmp_path, part, file, **entries):
    """A copy of a pipeline with other entries in one of its configs."""
    copy = tmp_path / "copy"
    for path in folder.rglob("*"):
        target = copy / path.relative_to(folder)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    config = copy / part / file
    config.write_text(json.dumps({**json.loads(config.read_text()), **entries}))
    return str(copy)


class TestRefusals:
    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ({"beta_schedule": "squaredcos_cap_v2"}, "squaredcos_cap_v2"),
            ({"rescale_betas_zero_snr": True}, "signal left"),
            ({"timestep_spacing": "trailing"}, "leading"),
        ],
    )
    def test_schedules(self, eps_base, tmp_path, entries, message):
        base = changed(eps_base, tmp_path, "scheduler", "scheduler_config.json", **entries)
        with pytest.raises(InputError, match=message):
            load_scheduler(base)

    def test_samples_are_not_predicted(self, eps_base, tmp_path):
        base = changed(eps_base, tmp_path, "scheduler", "scheduler_config.json", prediction_type="sample")
        with pytest.raises(InputError, match="prediction_type 'sample'"):
            Schedule.from_scheduler(load_scheduler(base), STEPS)

    def test_a_network_without_its_weights(self, eps_base, tmp_path):
        base = changed(eps_base, tmp_path, "unet", "config.json", layers_per_block=2)
        with pytest.raises(InputError, match="unet"):
            load_denoiser(base)
        base = changed(eps_base, tmp_path, "text_encoder", "config.json", num_hidden_layers=3)
        with pytest.raises(InputError, match="no weights for"):
            load_text_encoder(base)

    def test_a_unet_that_wants_more(self, eps_base, tmp_path):
        base = changed(eps_base, tmp_path, "unet", "config.json", class_embed_type="timestep")
        with pytest.raises(InputError, match="unet"):
            load_denoiser(base)

    def test_weights_by_pickle(self, eps_base, tmp_path):
        base = changed(eps_base, tmp_path, "unet", "config.json")
        folder = tmp_path / "copy" / "unet"
        (folder / "diffusion_pytorch_model.safetensors").unlink()
        torch.save({}, folder / "diffusion_pytorch_model.bin")
        with pytest.raises(InputError, match="safetensors"):
            load_denoiser(base)

    def test_no_pipeline_there(self, tmp_path):
        with pytest.raises(InputError, match="give a folder, or a name of the hub"):
            load_denoiser(str(tmp_path / "nowhere"))
