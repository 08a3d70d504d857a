"""One iteration of the alignment, top to bottom; knows no trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from torch import Tensor, nn

from bundle.alignment.losses import hold, image_consistency, marginal_loss, text_consistency, transport_loss
from bundle.alignment.options import AlignmentOptions
from bundle.alignment.reference import ReferencePool
from bundle.alignment.targets import Assignment, IntegralAction, assign_per_stratum, guide_target, on_simplex
from bundle.conditioning import Clip
from bundle.generation import Draws, Sampler
from bundle.randomness import generator, local_part
from bundle.sampling import Noise, exact_gradient, step_weights, surrogate_gradient

if TYPE_CHECKING:
    from bundle.networks.classifier import AttributeClassifier


@dataclass
class StepResult:
    """``gradients`` per parameter, times the given scale, of this process; ``share`` (G,) called by the guide and
    ``losses`` over all processes; ``images`` (b, 1, H, W) of this process."""

    gradients: list[Tensor]
    losses: dict[str, float]
    target: Tensor
    share: Tensor
    images: Tensor


@dataclass
class AlignmentStep:
    """What the iteration needs besides the denoiser.

    Args:
        targets: stratum -> true target proportions (G,); one stratum named "all" when there are none.
        strata: stratum of each prompt (P,).
        pool: of ``options.pool_size`` draws.
        rates: the guide's share of true group a called b on decoded images (G, G).
        prompt_bank: CLIP's text features of all prompts (P, F), for the text side of the consistency.
    """

    options: AlignmentOptions
    targets: Mapping[str, Tensor]
    strata: Sequence[str]
    sampler: Sampler
    guide: AttributeClassifier
    clip: Clip
    pool: ReferencePool
    rates: Tensor
    integral: IntegralAction
    seed: int
    prompt_bank: Tensor | None = None
    autocast: Callable = field(default=nullcontext)

    def __call__(self, denoiser: nn.Module, iteration: int, scale: float = 1.0) -> StepResult:
        """Gradients of the alignment for the trainable parameters of ``denoiser`` (not a DDP wrapper).

        ``iteration`` counts from 0 and alone decides what is drawn; ``scale`` multiplies the backward passes. Images
        that are not finite give gradients that are not.
        """
        index = local_part(self.pool.indices(self.seed, iteration, self.options.batch_size))
        draws = self.pool.draws[index]
        chain = self._chain(denoiser, draws)
        probabilities = self._look(chain[-1])
        everyone = idist.all_gather(probabilities)
        prompts = idist.all_gather(draws.prompt)
        assignment, target = self._assign(everyone, prompts, iteration)
        share = torch.bincount(everyone.argmax(1), minlength=everyone.shape[1]).double().cpu() / len(everyone)
        own = slice(idist.get_rank() * len(index), (idist.get_rank() + 1) * len(index))
        assignment = Assignment(assignment.expected[own])
        latent_gradient, losses, images = self._latent_gradient(chain[-1], assignment, target, everyone, index, scale)
        gradients = self._weight_gradient(denoiser, chain, latent_gradient / scale, draws, iteration, scale)
        self.integral.update(target, share)
        losses = {name: idist.all_reduce(value) / idist.get_world_size() for name, value in losses.items()}
        return StepResult(gradients, losses, target, share, images)

    def _parts(self, number: int) -> Sequence[Tensor]:
        """Places of the images that the denoiser is given at once."""
        return torch.arange(number).split(self.options.denoiser_batch or number)

    def _chain(self, denoiser: nn.Module, draws: Draws) -> list[Tensor]:
        with self.autocast():
            chains = [self.sampler.chain(denoiser, draws[part]) for part in self._parts(len(draws))]
        return [torch.cat(states) for states in zip(*chains, strict=True)]

    @torch.no_grad()
    def _look(self, latents: Tensor) -> Tensor:
        with self.autocast():
            parts = [self.guide(self.sampler.decode(part)) for part in latents.split(self.options.micro_batch)]
        return torch.cat(parts).float().softmax(1)

    def _assign(self, probabilities: Tensor, prompts: Tensor, iteration: int):
        """The groups to show, and the overall proportions q* that the guide should read."""
        strata = [self.strata[int(prompt)] for prompt in prompts]
        aims = {name: guide_target(target, self.rates) for name, target in self.targets.items()}
        overall = torch.stack([aims[name] for name in strata]).mean(0)
        shift = self.integral(overall) - overall
        aims = {name: on_simplex(aim + shift) for name, aim in aims.items()}
        ties = generator(self.seed, "assignment", iteration)
        # Where an image is not finite, any assignment will do: its loss is not finite either.
        return assign_per_stratum(probabilities.nan_to_num(), strata, aims, ties), overall

    def _latent_gradient(self, latents, assignment, target, everyone, index, scale):
        """scale * dL/dx_0 (b, C, h, w), mean loss terms, and the images; one decoder graph per micro-batch."""
        options, number, gradients, images = self.options, len(latents), [], []
        terms = {"alignment": 0.0, "consistency": 0.0}
        weight = hold(assignment, self.pool.call[index.to(self.pool.call.device)], options.changing)
        for part in torch.arange(number).split(options.micro_batch):
            leaf = latents[part].detach().requires_grad_()
            with torch.enable_grad(), self.autocast():
                decoded = self.sampler.decode(leaf)
                logits = self.guide(decoded).float()
                if options.alignment_loss == "transport":
                    chosen = Assignment(assignment.expected[part])
                    alignment = (
                        transport_loss(logits / options.softening, chosen, options.max_uncertainty).sum() / number
                    )
                else:
                    share = len(part) / number
                    alignment = share * marginal_loss(logits.softmax(1), target, everyone.mean(0))
                consistency = (weight[part] * self._consistency(decoded, index[part])).sum() / number
                total = alignment + options.consistency * consistency
            gradients.append(torch.autograd.grad(scale * total, leaf)[0].float())
            terms["alignment"] += float(alignment.detach())
            terms["consistency"] += float(consistency.detach())
            images.append(decoded.detach().float())
        return torch.cat(gradients), terms, torch.cat(images)

    def _consistency(self, images: Tensor, index: Tensor) -> Tensor:
        features = self.clip.image_features(images).float()
        reference = self.pool.features[index.to(self.pool.features.device)].to(features)
        if self.options.consistency_side == "text":
            return text_consistency(features, reference, self.prompt_bank)
        return image_consistency(features, reference)

    def _weight_gradient(self, denoiser, chain, gradient, draws: Draws, iteration: int, scale: float) -> list[Tensor]:
        parameters = [p for p in denoiser.parameters() if p.requires_grad]
        training = denoiser.training
        denoiser.eval()  # the noise that was sampled is the noise that is followed: no dropout
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for part in self._parts(len(draws)):
            states = [state[part] for state in chain]
            noise = self._noise(denoiser, draws.prompt[part])
            torch._foreach_add_(total, self._followed(noise, states, gradient[part], parameters, iteration, scale))
        denoiser.train(training)
        return total

    def _noise(self, denoiser: nn.Module, prompt: Tensor) -> Noise:
        """The guided noise prediction with a graph."""

        def noise(x: Tensor, step: int) -> Tensor:
            with torch.enable_grad(), self.autocast():
                return self.sampler.noise(denoiser, prompt)(x, step)

        return noise

    def _followed(self, noise: Noise, chain, gradient, parameters, iteration: int, scale: float) -> list[Tensor]:
        schedule = self.sampler.schedule
        if self.options.gradient == "exact":
            return exact_gradient(noise, chain[0], schedule, gradient, parameters, scale)
        weights = step_weights(schedule, self.options.gradient, self.options.num_followed)
        steps = torch.arange(len(schedule))
        if self.options.gradient != "truncated":
            order = torch.randperm(len(schedule), generator=generator(self.seed, "followed steps", iteration))
            steps = order[: self.options.num_followed]
        return surrogate_gradient(noise, chain, gradient, weights, steps.tolist(), parameters, scale)
