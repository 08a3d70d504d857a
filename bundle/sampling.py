"""Deterministic sampling (DDIM) and gradients of a loss on its result with respect to the denoiser's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bundle.errors import InputError

Noise = Callable[[Tensor, int], Tensor]  # (x_i (B, C, h, w), step i) -> predicted noise (B, C, h, w)


@dataclass(frozen=True)
class Schedule:
    """DDIM (eta = 0) over T of the training timesteps, from noise to image.

    ``timesteps`` (T,); ``signal`` a_i and ``noise`` s_i (T + 1,), the last being the end of the chain, 1 and 0 unless
    the scheduler keeps some noise there; ``steps`` A_i = s_i / a_i - s_{i+1} / a_{i+1} > 0 (T,). All float64:
    x_{i+1} / a_{i+1} = x_i / a_i - A_i eps_i.
    """

    timesteps: Tensor
    signal: Tensor
    noise: Tensor
    prediction: str

    @classmethod
    def from_scheduler(cls, scheduler: nn.Module, num_steps: int) -> Schedule:
        """The chain of a MONAI scheduler (its betas and prediction type) with ``num_steps`` leading-spaced steps.

        Of a DDIMScheduler also the offset of the timesteps, and the end of the chain that it is set to. Raises
        InputError for a prediction type other than epsilon and v_prediction, and for too many steps.
        """
        prediction = str(getattr(scheduler.prediction_type, "value", scheduler.prediction_type))
        if prediction not in ("epsilon", "v_prediction"):
            raise InputError(f"scheduler.prediction_type '{prediction}': use epsilon or v_prediction")
        train_steps, offset = len(scheduler.alphas_cumprod), getattr(scheduler, "steps_offset", 0)
        if not 1 <= num_steps <= train_steps - offset:
            raise InputError(f"num_steps {num_steps}: use 1 to {train_steps - offset}")
        timesteps = torch.arange(num_steps - 1, -1, -1) * (train_steps // num_steps) + offset
        end = getattr(scheduler, "final_alpha_cumprod", torch.ones(()))
        kept = torch.cat([scheduler.alphas_cumprod.cpu()[timesteps], end.cpu()[None]]).double()
        return cls(timesteps, kept.sqrt(), (1 - kept).sqrt(), prediction)

    @property
    def steps(self) -> Tensor:
        ratio = self.noise / self.signal
        return ratio[:-1] - ratio[1:]

    def __len__(self) -> int:
        return len(self.timesteps)


def guided_noise(
    denoiser: nn.Module, schedule: Schedule, context: Tensor, null_context: Tensor, guidance: float
) -> Noise:
    """The noise prediction that DDIM follows: eps_null + guidance (eps_context - eps_null).

    ``context`` (B, L, C), ``null_context`` (1, L, C). Both branches are one forward pass; at guidance 1 the null
    branch is left out. A v-prediction becomes noise by eps = a v + s x, in the precision of x (fp32 under autocast).
    """

    def noise(x: Tensor, step: int) -> Tensor:
        both = guidance != 1.0
        inputs = torch.cat([x, x]) if both else x
        states = torch.cat([context, null_context.expand(len(x), -1, -1)]) if both else context
        timesteps = schedule.timesteps[step].to(x.device).expand(len(inputs))
        predicted = denoiser(inputs, timesteps=timesteps, context=states).to(x.dtype)
        if both:
            conditional, unconditional = predicted.chunk(2)
            predicted = unconditional + guidance * (conditional - unconditional)
        if schedule.prediction == "v_prediction":
            predicted = float(schedule.signal[step]) * predicted + float(schedule.noise[step]) * x
        return predicted

    return noise


def ddim_step(x: Tensor, noise: Tensor, schedule: Schedule, step: int) -> Tensor:
    """x_{i+1} from x_i and the predicted noise (DDIM, Song et al. 2021, eq. 12 with sigma = 0)."""
    scale = float(schedule.signal[step + 1] / schedule.signal[step])
    return scale * x - float(schedule.signal[step + 1] * schedule.steps[step]) * noise


def sample(noise: Noise, x: Tensor, schedule: Schedule, first: int = 0) -> list[Tensor]:
    """All states of the chain from step ``first`` on, [x_T, ..., x_0] by default, tensors like ``x`` (B, C, h, w).

    Builds the graph when gradients are enabled; call under ``torch.no_grad()`` to generate.
    """
    chain = [x]
    for step in range(first, len(schedule)):
        chain.append(ddim_step(chain[-1], noise(chain[-1], step), schedule, step))
    return chain


def noised(latents: Tensor, noise: Tensor, schedule: Schedule, step: int) -> Tensor:
    """The state x_i = a_i x_0 + s_i noise that the chain has at ``step``, for clean ``latents`` x_0 (B, C, h, w)."""
    return float(schedule.signal[step]) * latents + float(schedule.noise[step]) * noise


def step_weights(schedule: Schedule, mode: str, num_last: int = 1) -> Tensor:
    """Weight c_i of each step in the surrogate gradient -sum_i c_i <g, d eps_i / d theta>; shape (T,).

    ``decoupled``: -d x_T / d eps_i = a_T A_i, the exact gradient without the coupling of the steps (a_T, the signal at
    the end of the chain, is 1 unless some noise stays there). ``adjusted``: their geometric mean at every step (Shen et
    al., ICLR 2024). ``truncated``: the same on the last ``num_last`` steps alone; one such step is DRaFT-1 (Clark et
    al., ICLR 2024), more differ from DRaFT-K by the coupling, which is left out here too.
    """
    steps = schedule.signal[-1] * schedule.steps
    if mode == "decoupled":
        return steps
    if mode == "adjusted":
        return steps.log().mean().exp().expand(len(steps)).clone()
    if mode == "truncated":
        return torch.where(torch.arange(len(steps)) >= len(steps) - num_last, steps, 0.0)
    raise ValueError(f"gradient mode '{mode}': use adjusted, decoupled, truncated or exact")


def surrogate_gradient(
    noise: Noise,
    chain: Sequence[Tensor],
    gradient: Tensor,
    weights: Tensor,
    steps: Sequence[int],
    parameters: Sequence[nn.Parameter],
    scale: float = 1.0,
) -> list[Tensor]:
    """Gradient for each parameter of -(T / K) sum over ``steps`` of weights_i <g, eps(x_i)>, one graph at a time.

    ``chain`` the states of :func:`sample`; ``gradient`` g = dL/dx_0 (B, C, h, w); ``weights`` (T,); ``steps`` the K
    indices that are followed. ``scale`` multiplies the result inside the backward pass (loss scaling).
    """
    total = [torch.zeros_like(parameter) for parameter in parameters]
    factor = scale * len(weights) / len(steps)
    for step in steps:
        if weights[step] == 0:
            continue
        predicted = noise(chain[step].detach(), step)
        surrogate = -factor * float(weights[step]) * (gradient * predicted).sum()
        for accumulated, part in zip(total, torch.autograd.grad(surrogate, parameters, allow_unused=True), strict=True):
            if part is not None:
                accumulated.add_(part)
    return total


def exact_gradient(
    noise: Noise,
    x: Tensor,
    schedule: Schedule,
    gradient: Tensor,
    parameters: Sequence[nn.Parameter],
    scale: float = 1.0,
) -> list[Tensor]:
    """Gradient of scale <g, x_0> through the whole chain; memory grows with T. For comparison only."""
    with torch.enable_grad():
        outcome = scale * (gradient * sample(noise, x, schedule)[-1]).sum()
    grads = torch.autograd.grad(outcome, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]
