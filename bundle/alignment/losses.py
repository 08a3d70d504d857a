"""Terms of the alignment, each a function of what the networks say about a batch of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from bundle.alignment.targets import Assignment


def transport_loss(logits: Tensor, assignment: Assignment, max_uncertainty: float | None = None) -> Tensor:
    """Cross entropy of the guide to the assigned groups, each image weighted by its certainty; per image, (N,).

    ``logits`` (N, G). Divided by N and not by the sum of weights, so that a batch at the target pulls little.
    """
    return assignment.weight(max_uncertainty) * cross_entropy(logits, assignment.label, reduction="none")


def marginal_loss(probabilities: Tensor, target: Tensor, overall_mean: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the target from the batch's mean probability; the abstract read literally.

    Args:
        probabilities: of this process's images, (n, G), with graph.
        target: proportions (G,).
        overall_mean: mean probability over all processes, detached, (G,).

    The value is the divergence of the overall mean; the gradient is that of it for every process's share. All images
    at p = target solve it too, which is why it is not the default.
    """
    own = probabilities.mean(0)
    mean = (overall_mean + own - own.detach()).clamp_min(1e-6)
    return kl_div(mean.log(), target.to(mean), reduction="sum")


def image_consistency(features: Tensor, reference: Tensor) -> Tensor:
    """1 - cosine of unit CLIP image embeddings (N, D) and the reference's; per image, (N,)."""
    return 1 - (features * reference).sum(1)


def text_consistency(features: Tensor, reference: Tensor, bank: Tensor, temperature: float = 0.01) -> Tensor:
    """Distillation of what CLIP says in words; per image, (N,).

    Kullback-Leibler divergence between the softmax similarities to a bank of prompts (P, D) of the reference image
    (teacher) and of the image (student); Hinton et al., 2015, with CLIP's similarities as logits.
    """
    student = torch.log_softmax(features @ bank.T / temperature, 1)
    teacher = torch.log_softmax(reference @ bank.T / temperature, 1)
    return kl_div(student, teacher, reduction="none", log_target=True).sum(1)


def hold(assignment: Assignment, reference_call: Tensor, changing: float) -> Tensor:
    """How tightly each image is held to its reference, (N,): 1, or ``changing`` where it must change group."""
    return torch.where(assignment.label == reference_call, 1.0, changing)
