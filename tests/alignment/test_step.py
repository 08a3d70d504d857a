"""One iteration without a trainer: its gradient against autograd through everything, and what it draws."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bundle.alignment.losses import hold
from bundle.alignment.options import AlignmentOptions
from bundle.alignment.reference import reference_pool
from bundle.alignment.step import AlignmentStep
from bundle.alignment.targets import IntegralAction, assign, guide_target
from bundle.generation import Sampler, draw
from bundle.networks.classifier import AttributeClassifier
from bundle.randomness import generator
from bundle.sampling import Schedule, sample
from tests.toy import changed, frozen, scheduler, toy_step


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def once(denoiser, step, iteration=0, scale=1.0, **changes):
    """One iteration, before anything is known of earlier ones."""
    return changed(step, integral=IntegralAction(gain=0.1, start=1.0), **changes)(denoiser, iteration, scale)


def moved(denoiser):
    """Away from the reference, so that the consistency term has a gradient."""
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05)
    return denoiser


def through_everything(denoiser, step, iteration=0):
    """The loss of an iteration with a graph from the weights to the images, and its gradient."""
    index = step.pool.indices(step.seed, iteration, step.options.batch_size)
    draws = step.pool.draws[index]
    end = sample(step.sampler.noise(denoiser, draws.prompt), draws.noise, step.sampler.schedule)[-1]
    images = step.sampler.decode(end)
    options = step.options
    logits, target = step.guide(images), guide_target(step.targets["all"], step.rates)
    found = assign(logits.softmax(1), target, generator(step.seed, "assignment", iteration))
    if options.alignment_loss == "transport":
        softer = logits / options.softening
        alignment = (
            found.weight(options.max_uncertainty) * cross_entropy(softer, found.label, reduction="none")
        ).mean()
    else:
        alignment = (target * (target / logits.softmax(1).double().mean(0)).log()).sum()
    distance = 1 - (step.clip.image_features(images) * step.pool.features[index]).sum(1)
    consistency = (hold(found, step.pool.call[index], options.changing) * distance).mean()
    total = alignment + options.consistency * consistency
    return {"alignment": float(alignment.detach()), "consistency": float(consistency.detach())}, flat(
        torch.autograd.grad(total, list(denoiser.parameters()))
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"softening": 3.0},
        {"max_uncertainty": 0.2},
        {"alignment_loss": "marginal"},
        {"batch_size": 6, "micro_batch": 4},
    ],
    ids=["transport", "softer guide", "published cut", "marginal", "ragged micro-batches"],
)
def test_exact_gradient_and_losses_against_autograd(tmp_path, changes):
    denoiser, step = toy_step(tmp_path, gradient="exact", **changes)
    moved(denoiser)
    losses, gradient = through_everything(denoiser, step)
    result = step(denoiser, 0)
    assert result.losses == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert torch.allclose(flat(result.gradients), gradient, rtol=1e-3, atol=1e-6)


def test_a_chain_of_one_step_has_nothing_to_couple(tmp_path):
    denoiser, step = toy_step(tmp_path)
    sampler = replace(step.sampler, schedule=Schedule.from_scheduler(scheduler(), 1))
    moved(denoiser)
    exact, *others = (
        flat(once(denoiser, step, sampler=sampler, gradient=mode, num_followed=1).gradients)
        for mode in ("exact", "decoupled", "adjusted", "truncated")
    )
    for other in others:
        assert torch.allclose(exact, other, rtol=1e-4, atol=1e-6)


def test_the_micro_batch_does_not_matter(tmp_path):
    denoiser, step = toy_step(tmp_path)
    moved(denoiser)
    for loss in ("transport", "marginal"):
        found = [flat(once(denoiser, step, alignment_loss=loss, micro_batch=size).gradients) for size in (1, 3, 8)]
        assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
        assert torch.allclose(found[0], found[2], rtol=1e-4, atol=1e-6)


def test_neither_does_the_number_that_the_denoiser_is_given_at_once(tmp_path):
    denoiser, step = toy_step(tmp_path)
    moved(denoiser)
    for mode in ("adjusted", "exact"):
        found = [once(denoiser, step, gradient=mode, denoiser_batch=size) for size in (None, 3, 1)]
        assert torch.allclose(flat(found[0].gradients), flat(found[1].gradients), rtol=1e-4, atol=1e-6)
        assert torch.allclose(flat(found[0].gradients), flat(found[2].gradients), rtol=1e-4, atol=1e-6)
        assert torch.allclose(found[0].images, found[2].images, atol=1e-6)


def test_scale_multiplies_the_gradient_once(tmp_path):
    denoiser, step = toy_step(tmp_path)
    for mode in ("adjusted", "exact"):
        plain, scaled = (once(denoiser, step, scale=scale, gradient=mode) for scale in (1.0, 65536.0))
        assert torch.allclose(65536 * flat(plain.gradients), flat(scaled.gradients), rtol=1e-5)
        assert scaled.losses == plain.losses


@pytest.mark.parametrize("mode", ["adjusted", "exact"])
def test_autocast_of_every_pass(tmp_path, mode):
    """bfloat16 inside the networks; states, gradients and losses stay fp32 and close to those without."""
    denoiser, step = toy_step(tmp_path, gradient=mode)
    half = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    seen = []
    denoiser.leave.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    plain, rounded = once(denoiser, step), once(denoiser, step, autocast=half)
    assert set(seen[: len(seen) // 2]) == {torch.float32}
    assert set(seen[len(seen) // 2 :]) == {torch.bfloat16}
    assert {gradient.dtype for gradient in rounded.gradients} == {torch.float32}
    assert rounded.images.dtype == torch.float32
    assert torch.cosine_similarity(flat(plain.gradients), flat(rounded.gradients), dim=0) > 0.98
    assert rounded.losses["alignment"] == pytest.approx(plain.losses["alignment"], rel=0.1)


def test_the_iteration_alone_decides_what_is_drawn(tmp_path):
    denoiser, step = toy_step(tmp_path)
    first = once(denoiser, step, 4)
    torch.rand(10)
    again, other = once(denoiser, step, 4), once(denoiser, step, 5)
    assert torch.equal(flat(first.gradients), flat(again.gradients))
    assert not torch.equal(first.images, other.images)


def test_before_any_tuning_the_images_are_the_reference(tmp_path):
    denoiser, step = toy_step(tmp_path)
    result = step(denoiser, 0)
    index = step.pool.indices(0, 0, 8)
    assert result.losses["consistency"] == pytest.approx(0, abs=1e-6)
    assert torch.equal(step.guide(result.images).argmax(1), step.pool.call[index])
    assert result.share.tolist() == [float((step.pool.call[index] == group).double().mean()) for group in (0, 1)]


def test_text_side_of_the_consistency(tmp_path):
    bank = torch.nn.functional.normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    denoiser, step = toy_step(tmp_path, consistency_side="text", prompt_bank=bank)
    assert step(denoiser, 0).losses["consistency"] == pytest.approx(0, abs=1e-4)
    assert step(moved(denoiser), 0).losses["consistency"] > 1e-3


def test_the_denoiser_is_followed_as_it_was_sampled(tmp_path):
    """No dropout in either phase, and the mode it came in."""
    denoiser, step = toy_step(tmp_path)
    expected = flat(once(denoiser, step).gradients)
    denoiser.dropout.p = 0.9
    denoiser.train()
    assert torch.equal(flat(once(denoiser, step).gradients), expected)
    assert denoiser.dropout.training
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def test_frozen_parameters_are_left_out(tmp_path):
    denoiser, step = toy_step(tmp_path)
    whole = once(denoiser, step).gradients
    denoiser.enter.requires_grad_(False)
    assert torch.allclose(flat(once(denoiser, step).gradients), flat(whole[2:]), atol=1e-7)


def test_images_that_are_not_finite_give_gradients_that_are_not(tmp_path):
    denoiser, step = toy_step(tmp_path)
    with torch.no_grad():
        denoiser.leave.bias.fill_(float("nan"))
    assert not torch.isfinite(flat(step(denoiser, 0).gradients)).all()


class TestTargets:
    def test_what_is_aimed_at_is_in_the_guides_space(self, tmp_path):
        denoiser, step = toy_step(tmp_path)
        # f + (s - f) target = .05 + (.9 - .05) .4 = .39
        assert step(denoiser, 0).target.tolist() == pytest.approx([0.61, 0.39])

    def test_the_integral_moves_what_is_assigned_but_not_what_is_aimed_at(self, tmp_path):
        denoiser, step = toy_step(tmp_path, integral=IntegralAction(gain=10.0, start=1.0, limit=0.1))
        first = step(denoiser, 0)
        missed = first.target - first.share
        assert step.integral.sum.tolist() == pytest.approx(missed.clamp(-0.01, 0.01).tolist())
        shifted = step.integral(first.target)
        assert shifted[1] - first.target[1] == pytest.approx(0.1 * float(missed[1].sign()))
        assert step(denoiser, 1).target.tolist() == pytest.approx(first.target.tolist())

    def test_overall_target_is_that_of_the_prompts_strata(self, tmp_path):
        targets = {"low": torch.tensor([0.8, 0.2]), "high": torch.tensor([0.2, 0.8]), "all": torch.tensor([0.5, 0.5])}
        strata = ["low", "high", "all"]
        denoiser, step = toy_step(tmp_path, targets=targets, strata=strata, rates=torch.eye(2))
        prompts = step.pool.draws.prompt[step.pool.indices(0, 0, 8)].tolist()
        expected = sum(targets[strata[prompt]] for prompt in prompts) / 8
        assert step(denoiser, 0).target.tolist() == pytest.approx(expected.tolist())


class TwoModes(nn.Module):
    """The ideal noise prediction for x_0 = +place or -place, give or take .3, with a share of the former.

    Log-odds of the share and the place are its only parameters.
    """

    def __init__(self, alphas):
        super().__init__()
        self.alphas = alphas
        self.odds = nn.Parameter(torch.tensor(0.9).logit())
        self.place = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, timesteps, context):
        kept = self.alphas[timesteps].view(-1, 1, 1, 1)
        a, s = kept.sqrt(), (1 - kept).sqrt()
        variance = (0.3 * a) ** 2 + s**2
        positive = (self.odds + 2 * a * self.place * x / variance).sigmoid()
        gain = 0.3**2 * a / variance
        centre = (2 * positive - 1) * self.place
        return (x - a * (centre + gain * (x - a * centre))) / s


class Blind(nn.Module):
    def image_features(self, images):
        return torch.ones(len(images), 1)


@pytest.mark.parametrize("loss", ["transport", "marginal"])
def test_a_generator_of_two_modes_reaches_the_target(tmp_path, loss):
    """From a share of .9 to .5: transport moves images over, `marginal` makes them ambiguous as well."""
    plan = scheduler("epsilon")
    denoiser = TwoModes(plan.alphas_cumprod)
    linear = nn.Linear(1, 2)
    linear.weight.data, linear.bias.data = torch.tensor([[0.0], [3.0]]), torch.zeros(2)
    guide = frozen(AttributeClassifier(nn.Sequential(nn.Flatten(), linear)))
    nothing = torch.zeros(1, 1, 1)
    sampler = Sampler(Schedule.from_scheduler(plan, 8), 1.0, nothing, nothing, lambda latents: latents)
    shares = torch.ones(1, dtype=torch.float64)
    pool = reference_pool(denoiser, sampler, guide, Blind(), draw(0, "pool", 256, shares, (1, 1, 1)), tmp_path)
    options = AlignmentOptions(
        num_steps=8,
        pool_size=256,
        batch_size=64,
        alignment_loss=loss,
        consistency=0.0,
        micro_batch=64,
    )
    step = AlignmentStep(
        options=options,
        targets={"all": torch.tensor([0.5, 0.5])},
        strata=["all"],
        sampler=sampler,
        guide=guide,
        clip=Blind(),
        pool=pool,
        rates=torch.eye(2),
        integral=IntegralAction(gain=0.1),
        seed=0,
    )
    fresh = draw(0, "fresh", 1024, shares, (1, 1, 1))

    def look():
        """Share called, mean probability, and how far the probabilities are from undecided."""
        probability = guide(sampler.chain(denoiser, fresh)[-1]).softmax(1)[:, 1]
        return [float(value.float().mean()) for value in (probability > 0.5, probability, (probability - 0.5).abs())]

    share, _, certainty = look()
    assert share == pytest.approx(0.9, abs=0.05)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 60)
    for iteration in range(60):
        for parameter, gradient in zip(denoiser.parameters(), step(denoiser, iteration).gradients):
            parameter.grad = gradient
        optimiser.step()
        schedule.step()
    share, mean, certain = look()
    assert (share if loss == "transport" else mean) == pytest.approx(0.5, abs=0.05)  # three standard errors
    assert (certain > 0.95 * certainty) is (loss == "transport")
