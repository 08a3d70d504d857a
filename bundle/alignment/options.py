"""The options of an iteration, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from bundle.errors import InputError

CHOICES = {
    "alignment_loss": ("transport", "marginal"),
    "consistency_side": ("image", "text"),
    "gradient": ("adjusted", "decoupled", "truncated", "exact"),
}


@dataclass(frozen=True)
class AlignmentOptions:
    """What one chooses for :class:`~bundle.alignment.step.AlignmentStep`.

    Args:
        num_steps: T of the sampler.
        pool_size: noises and prompts whose reference images are made once; a multiple of ``batch_size``.
        alignment_loss: "transport" (default) or "marginal", which knows no strata.
        stratum: column within whose values there are targets, or None.
        max_uncertainty: None weighs images by certainty; a number is the published cut.
        softening: divides the guide's logits in the transport loss. A guide that is sure right beside its boundary
            stops pushing there, and leaves images that other classifiers read otherwise; above 1 they are pushed on.
        consistency: weight of the CLIP term; "image" or "text" side by ``consistency_side``.
        changing: how tightly an image that must change group is held, relative to one that must not.
        gradient: "adjusted", "decoupled", "truncated" or "exact"; ``num_followed`` K steps of T.
        micro_batch: images decoded with a graph at once.
        denoiser_batch: images that the denoiser is given at once, here and in the passes that are followed; None: all.
            Fewer take less memory, and on a small network more time.

    Raises InputError for an option that does not exist.
    """

    num_steps: int
    pool_size: int
    batch_size: int = 32
    alignment_loss: str = "transport"
    stratum: str | None = None
    max_uncertainty: float | None = None
    softening: float = 1.0
    consistency: float = 4.0
    consistency_side: str = "image"
    changing: float = 0.2
    gradient: str = "adjusted"
    num_followed: int = 4
    micro_batch: int = 16
    denoiser_batch: int | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} '{getattr(self, name)}': use {', '.join(choices[:-1])} or {choices[-1]}")
        if self.alignment_loss == "marginal" and self.stratum is not None:
            raise InputError(f"alignment_loss 'marginal': knows no strata, not '{self.stratum}'; use transport or none")
        if not 1 <= self.num_followed <= self.num_steps:
            raise InputError(f"num_followed {self.num_followed}: use 1 to {self.num_steps}")
        if self.denoiser_batch is not None and self.denoiser_batch < 1:
            raise InputError(f"denoiser_batch {self.denoiser_batch}: use 1 or more, or null for all images at once")
        if self.batch_size < 1 or self.pool_size < 1 or self.pool_size % self.batch_size:
            raise InputError(f"pool_size {self.pool_size}: use a multiple of batch_size, {self.batch_size}")
