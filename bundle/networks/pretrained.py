"""A Stable-Diffusion-class pipeline in diffusers' format behind the interfaces of denoiser, autoencoder and context.

``base`` is a local folder or the name of a repository of the hub. Weights are read from safetensors alone, in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
import transformers
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from bundle.errors import InputError
from bundle.networks.latent import LatentAutoencoder
from bundle.weights import load_weights

SCHEDULES = {"linear": "linear_beta", "scaled_linear": "scaled_linear_beta"}  # diffusers' names and MONAI's


class PretrainedDenoiser(nn.Module):
    """diffusers' ``UNet2DConditionModel`` called as MONAI's ``DiffusionModelUNet`` is."""

    def __init__(self, unet: diffusers.UNet2DConditionModel):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Prediction (B, C, h, w) for latents x at ``timesteps`` (B,), conditioned on ``context`` (B, L, D)."""
        return self.unet(x, timesteps, encoder_hidden_states=context).sample


class ColourAutoencoder(nn.Module):
    """diffusers' ``AutoencoderKL``, made for colour in [-1, 1], for grey or colour images in [0, 1].

    Grey is repeated thrice on the way in; on the way out it is the mean of the three.
    """

    def __init__(self, autoencoder: diffusers.AutoencoderKL, image_channels: int):
        super().__init__()
        self.autoencoder, self.image_channels = autoencoder, image_channels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction of the posterior mean, that mean, and the posterior deviation."""
        mean, deviation = self.encode(images)
        return self.decode(mean), mean, deviation

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and deviation (N, C, h, w) of images (N, 1 or 3, H, W) in [0, 1]."""
        posterior = self.autoencoder.encode(2 * images.expand(-1, 3, -1, -1) - 1).latent_dist
        return posterior.mean, posterior.std

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, 1 or 3, H, W), not clamped; differentiable."""
        images = (self.autoencoder.decode(latents).sample + 1) / 2
        return images.mean(1, keepdim=True) if self.image_channels == 1 else images


class TextEncoder(nn.Module):
    """The frozen CLIP text tower of a pipeline with its tokenizer."""

    def __init__(self, tokenizer: transformers.CLIPTokenizer, tower: transformers.CLIPTextModel):
        super().__init__()
        self.tokenizer, self.tower = tokenizer, tower
        self.eval().requires_grad_(False)

    def cut(self, prompts: Sequence[str]) -> list[bool]:
        """Whether the text tower reads only the beginning of each prompt."""
        return [len(tokens) > self.tokenizer.model_max_length for tokens in self.tokenizer(list(prompts)).input_ids]

    @torch.no_grad()
    def context(self, prompts: Sequence[str]) -> Tensor:
        """Per-token states (N, L, D) of the last layer; every prompt is padded, or cut, to the tokenizer's length."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return self.tower(tokens.input_ids.to(self.tower.device)).last_hidden_state


def load_denoiser(base: str) -> PretrainedDenoiser:
    """The pipeline's U-Net. Raises InputError for one that asks for more than latents, timesteps and a context."""
    unet = _part(diffusers.UNet2DConditionModel, base, "unet")
    config = unet.config
    if config.addition_embed_type or config.class_embed_type or config.in_channels != config.out_channels:
        remedy = "take one of Stable Diffusion 1's or 2's kind, without inpainting"
        raise InputError(f"pretrained '{base}', unet: it takes more than latents and prompts; {remedy}")
    return PretrainedDenoiser(unet)


def load_autoencoder(base: str, image_channels: int, device: torch.device | str = "cpu") -> LatentAutoencoder:
    """The pipeline's autoencoder, frozen, with the scale of the latents that its U-Net was trained on."""
    inner = _part(diffusers.AutoencoderKL, base, "vae")
    found = LatentAutoencoder(ColourAutoencoder(inner, image_channels), inner.config.latent_channels)
    found.mean.fill_(inner.config.shift_factor or 0.0)
    found.std.fill_(1 / inner.config.scaling_factor)
    return found.to(device).eval().requires_grad_(False)


def latent_shape(base: str, image_size: int) -> tuple[int, int, int]:
    """Channels, height and width of the latents of square images. Raises InputError where the size does not divide."""
    config = _read(diffusers.AutoencoderKL, base, "vae", reader="load_config")
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if image_size % factor:
        raise InputError(f"image_size {image_size}: the autoencoder of '{base}' needs a multiple of {factor}")
    return config["latent_channels"], image_size // factor, image_size // factor


def load_text_encoder(base: str, device: torch.device | str = "cpu") -> TextEncoder:
    """The pipeline's tokenizer and CLIP text tower, frozen."""
    tokenizer = _read(transformers.CLIPTokenizer, base, "tokenizer")
    return TextEncoder(tokenizer, _part(transformers.CLIPTextModel, base, "text_encoder")).to(device)


def load_scheduler(base: str) -> DDIMScheduler:
    """The noise schedule that the pipeline was trained with, sampled by DDIM, as MONAI's scheduler.

    Raises InputError for a schedule that MONAI does not have, or timesteps that are not leading-spaced.
    """
    config = _read_scheduler(base)
    if config.beta_schedule not in SCHEDULES or config.trained_betas is not None or config.rescale_betas_zero_snr:
        remedy = f"take one with beta_schedule {' or '.join(SCHEDULES)} and signal left at the last timestep"
        raise InputError(f"pretrained '{base}', scheduler: '{config.beta_schedule}' is not supported; {remedy}")
    if config.timestep_spacing != "leading":
        remedy = "set timestep_spacing to leading in its scheduler_config.json"
        raise InputError(f"pretrained '{base}', scheduler: timestep_spacing '{config.timestep_spacing}'; {remedy}")
    return DDIMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        schedule=SCHEDULES[config.beta_schedule],
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        set_alpha_to_one=config.set_alpha_to_one,
        steps_offset=1,  # diffusers' pipeline sets it so, whatever the file says,
        clip_sample=False,  # and this, since latents know no range
    )


def save_pipeline(base: str, weights: str | Path, folder: str | Path) -> Path:
    """Write the pipeline of ``base`` in diffusers' format, with ``weights``, a tuned denoiser's, in its U-Net."""
    tuned = load_weights(load_denoiser(base), weights)
    options = {"unet": tuned.unet, "safety_checker": None, "requires_safety_checker": False}
    pipeline = _read(diffusers.StableDiffusionPipeline, base, None, use_safetensors=True, **options)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


def _part(kind, base: str, subfolder: str) -> nn.Module:
    """A network of the pipeline. Raises InputError where its weights are not all there."""
    network, info = _read(kind, base, subfolder, use_safetensors=True, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(f"pretrained '{base}', {subfolder}: no weights for {missing[0]}; give a {kind.__name__}")
    return network.float().eval()


def _read_scheduler(base: str):
    config = _read(diffusers.DDIMScheduler, base, "scheduler", reader="load_config")
    return diffusers.DDIMScheduler.from_config(config).config


def _read(kind, base: str, subfolder: str | None, reader: str = "from_pretrained", **options):
    """What one of the libraries reads. Raises InputError for whatever it raises: a hub client has many errors."""
    place = {} if subfolder is None else {"subfolder": subfolder}
    try:
        return getattr(kind, reader)(base, **place, **options)
    except Exception as error:
        detail = " ".join(str(error).split())[:160]
        raise InputError(
            f"pretrained '{base}', {subfolder or 'pipeline'}: {detail}; give a folder, or a name of the hub, of a "
            "Stable Diffusion pipeline with weights as safetensors"
        ) from error
