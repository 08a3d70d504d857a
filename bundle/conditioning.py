"""CLIP through open_clip: a frozen text tower that conditions the denoiser, a frozen image tower that compares."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import get_model_preprocess_cfg
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bundle.errors import InputError


class Clip(nn.Module):
    """Both towers of one open_clip model with its tokenizer.

    Args:
        name: an open_clip model name, or ``local-dir:FOLDER`` with ``open_clip_config.json`` and weights.
        pretrained: a tag that open_clip knows, or the path of a local checkpoint; not used with ``local-dir:``.
        trainable: leave the weights trainable (only for training the CLIP itself).

    Raises InputError when the model or its weights cannot be had, or its text tower is not open_clip's own.
    """

    def __init__(self, name: str, pretrained: str | None = None, trainable: bool = False):
        super().__init__()
        try:
            self.model = open_clip.create_model(
                name, pretrained=pretrained, load_weights=not trainable, require_pretrained=not trainable
            )
            self.tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # open_clip, the hub client and torch raise many kinds
            raise InputError(
                f"CLIP '{name}', pretrained '{pretrained}': {' '.join(str(error).split())[:160]}; give a name and tag "
                "of open_clip.list_pretrained(), a local checkpoint, or 'local-dir:FOLDER'"
            ) from error
        if isinstance(getattr(self.model, "text", None), HFTextEncoder):
            raise InputError(
                f"CLIP '{name}': its text tower is a language model of another library, which gives no state per "
                "token here; take a model with a text tower of open_clip's own"
            )
        config = get_model_preprocess_cfg(self.model)
        size = config["size"]
        self.image_size = (size, size) if isinstance(size, int) else tuple(size)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)
        if not trainable:
            self.eval().requires_grad_(False)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit embeddings of N images and N texts, each (N, D), and the scale of their similarities: for training."""
        return self.model(self.prepare(images), tokens)[:3]

    def prepare(self, images: Tensor) -> Tensor:
        """Grey or RGB images (N, C, H, W) in [0, 1] -> what the image tower expects, on its device, (N, 3, h, w);
        differentiable."""
        images = images.to(self.mean.device)
        if images.shape[-2:] != self.image_size:
            images = interpolate(images.float(), self.image_size, mode="bilinear", antialias=True)
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.std

    def image_features(self, images: Tensor) -> Tensor:
        """Unit image embeddings (N, D) of images (N, C, H, W), grey or RGB, in [0, 1]; differentiable."""
        return self.model.encode_image(self.prepare(images), normalize=True)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit text embeddings (N, D)."""
        return self.model.encode_text(self.tokenize(prompts), normalize=True)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token indices (N, L) on the model's device."""
        return self.tokenizer(list(prompts)).to(self.mean.device)

    def cut(self, prompts: Sequence[str]) -> list[bool]:
        """Whether the text tower reads only the beginning of each prompt: it has room for so many tokens."""
        room = self.tokenize([""]).shape[1]
        wider = self.tokenizer([*prompts, ""], context_length=room + 1)
        return (wider[:-1, -1] != wider[-1, -1]).tolist()  # the empty prompt ends in padding

    @torch.no_grad()
    def context(self, prompts: Sequence[str]) -> Tensor:
        """Per-token states of the last text layer (N, L, C), the denoiser's cross-attention context.

        The null context of classifier-free guidance is ``context([""])``.
        """
        outputs = self.model.forward_intermediates(
            text=self.tokenize(prompts), text_indices=1, normalize_intermediates=True, intermediates_only=True
        )
        return outputs["text_intermediates"][-1]
