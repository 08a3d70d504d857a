"""The sampler against diffusers', gradients against autograd, finite differences and closed forms."""

from itertools import combinations

import pytest
import torch
from torch import nn

from bundle.sampling import (
    Schedule,
    exact_gradient,
    guided_noise,
    sample,
    step_weights,
    surrogate_gradient,
)
from tests.toy import Denoiser, scheduler

BATCH = 3


@pytest.fixture
def noisy():
    """x_T, contexts and the gradient of some loss, in double precision."""
    torch.manual_seed(0)
    x, context, gradient = torch.randn(BATCH, 2, 4, 4), torch.randn(BATCH, 2, 3), torch.randn(BATCH, 2, 4, 4)
    return x.double(), context.double(), gradient.double()


@pytest.fixture
def denoiser():
    torch.manual_seed(1)
    return Denoiser().double()


def noise_of(network, schedule, context, guidance=2.0):
    return guided_noise(network, schedule, context, torch.zeros_like(context[:1]), guidance)


def gradients(network, schedule, x, context, g, mode, steps=None, guidance=2.0):
    """The surrogate gradient along the chain from ``x``, all parameters in one vector."""
    noise = noise_of(network, schedule, context, guidance)
    with torch.no_grad():
        chain = sample(noise, x, schedule)
    steps = range(len(schedule)) if steps is None else steps
    parts = surrogate_gradient(noise, chain, g, step_weights(schedule, mode), steps, list(network.parameters()))
    return torch.cat([part.flatten() for part in parts])


def close(found, expected):
    return torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def autograd(network, outcome):
    parts = torch.autograd.grad(outcome, list(network.parameters()), allow_unused=True)
    filled = [torch.zeros_like(p) if part is None else part for p, part in zip(network.parameters(), parts)]
    return torch.cat([part.flatten() for part in filled])


class BlindToImage(Denoiser):
    """Predicts noise from time and text alone: the steps of the chain are not coupled."""

    def forward(self, x, timesteps, context):
        return super().forward(torch.zeros_like(x), timesteps, context)


class Converted(nn.Module):
    """The v-prediction that says the same as an eps-prediction: v = (eps - s x) / a."""

    def __init__(self, denoiser, alphas):
        super().__init__()
        self.denoiser, self.alphas = denoiser, alphas

    def forward(self, x, timesteps, context):
        kept = self.alphas[timesteps].view(-1, 1, 1, 1)
        return (self.denoiser(x, timesteps, context) - (1 - kept).sqrt() * x) / kept.sqrt()


class TestSchedule:
    def test_steps_are_leading_spaced_and_end_without_noise(self):
        schedule = Schedule.from_scheduler(scheduler(), 12)
        assert schedule.timesteps.tolist() == [83 * i for i in range(11, -1, -1)]  # 1000 // 12 = 83
        assert (schedule.signal[-1], schedule.noise[-1]) == (1, 0)
        assert torch.allclose(schedule.signal**2 + schedule.noise**2, torch.ones(13).double())

    def test_the_steps_are_positive_and_sum_to_the_first_noise_to_signal_ratio(self):
        schedule = Schedule.from_scheduler(scheduler(), 20)
        assert (schedule.steps > 0).all()
        assert float(schedule.steps.sum()) == pytest.approx(float(schedule.noise[0] / schedule.signal[0]))

    @pytest.mark.parametrize(
        ("num_steps", "largest", "smallest"),
        [(20, 2.62, 0.029), (50, 1.43, 0.029)],  # computed apart from this code, for the betas .00085 to .012
    )
    def test_known_steps(self, num_steps, largest, smallest):
        steps = Schedule.from_scheduler(scheduler(), num_steps).steps
        assert float(steps.max()) == pytest.approx(largest, abs=0.005)
        assert float(steps.min()) == pytest.approx(smallest, abs=0.0005)

    def test_what_cannot_be_sampled_is_refused(self):
        with pytest.raises(ValueError, match="prediction_type 'sample'"):
            Schedule.from_scheduler(scheduler("sample"), 10)
        for number in (0, 1001):
            with pytest.raises(ValueError, match="use 1 to 1000"):
                Schedule.from_scheduler(scheduler(), number)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("num_steps", [1, 7, 20])
def test_sampler_against_diffusers(prediction, num_steps):
    from diffusers import DDIMScheduler

    torch.manual_seed(0)
    network, x, context = Denoiser(), torch.randn(BATCH, 2, 4, 4), torch.randn(BATCH, 2, 3)
    schedule = Schedule.from_scheduler(scheduler(prediction), num_steps)
    theirs = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="leading",
    )
    theirs.set_timesteps(num_steps)
    with torch.no_grad():
        ours = sample(noise_of(network, schedule, context, guidance=3.0), x, schedule)[-1]
        for timestep in theirs.timesteps:
            time = timestep.expand(BATCH)
            conditional, null = network(x, time, context), network(x, time, torch.zeros_like(context))
            x = theirs.step(null + 3 * (conditional - null), timestep, x, eta=0.0).prev_sample
    assert torch.allclose(ours, x, atol=1e-5, rtol=1e-5)


def test_the_end_of_the_chain_is_a_sum_over_its_noises(noisy, denoiser):
    """x_0 = x_T / a - sum_i A_i eps_i, whatever the noises are."""
    x, context, _ = noisy
    schedule = Schedule.from_scheduler(scheduler("epsilon"), 10)
    noise = noise_of(denoiser, schedule, context)
    with torch.no_grad():
        chain = sample(noise, x, schedule)
        noises = torch.stack([noise(chain[i], i) for i in range(10)])
    expected = x / schedule.signal[0] - (schedule.steps.view(-1, 1, 1, 1, 1) * noises).sum(0)
    assert torch.allclose(chain[-1], expected, atol=1e-10)


class TestGuidance:
    def test_factors_of_both_branches(self, noisy):
        """eps = eps_null + w (eps_context - eps_null): the gradient is w to one branch and 1 - w to the other."""

        class TwoNumbers(nn.Module):
            def __init__(self):
                super().__init__()
                self.stated = nn.Parameter(torch.tensor(0.3).double())
                self.null = nn.Parameter(torch.tensor(0.1).double())

            def forward(self, x, timesteps, context):
                named = (context.abs().sum((1, 2)) > 0).view(-1, 1, 1, 1)
                return torch.where(named, self.stated, self.null).expand_as(x)

        x, context, g = noisy
        schedule = Schedule.from_scheduler(scheduler("epsilon"), 5)
        for guidance in (2.0, 7.5):
            stated, null = gradients(TwoNumbers(), schedule, x, context, g, "decoupled", guidance=guidance)
            whole = -schedule.steps.sum() * g.sum()
            assert float(stated) == pytest.approx(float(guidance * whole))
            assert float(null) == pytest.approx(float((1 - guidance) * whole))

    def test_scale_one_needs_no_null_branch(self, noisy, denoiser):
        x, context, _ = noisy
        schedule = Schedule.from_scheduler(scheduler(), 5)
        seen = []
        denoiser.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
        one = noise_of(denoiser, schedule, context, guidance=1.0)(x, 0)
        nearly_one = noise_of(denoiser, schedule, context, guidance=1.0 + 1e-12)(x, 0)
        assert seen == [BATCH, 2 * BATCH]
        assert torch.allclose(one, nearly_one)

    def test_half_precision_predictions_are_widened_before_the_sum(self, noisy):
        class Half(nn.Module):
            def forward(self, x, timesteps, context):
                return torch.full_like(x, 1 / 3, dtype=torch.bfloat16)

        x, context, _ = (value.float() for value in noisy)
        schedule = Schedule.from_scheduler(scheduler("epsilon"), 5)
        predicted = noise_of(Half(), schedule, context, guidance=7.5)(x, 0)
        assert predicted.dtype == torch.float32
        assert torch.allclose(predicted, torch.tensor(1 / 3).bfloat16().float())


class TestSurrogates:
    def test_decoupled_is_autograd_where_steps_are_not_coupled(self, noisy):
        x, context, g = noisy
        network = BlindToImage().double()
        schedule = Schedule.from_scheduler(scheduler("epsilon"), 10)
        end = sample(noise_of(network, schedule, context), x, schedule)[-1]
        expected = autograd(network, (g * end).sum())
        assert close(gradients(network, schedule, x, context, g, "decoupled"), expected)

    def test_decoupled_is_autograd_through_detached_inputs(self, noisy, denoiser):
        x, context, g = noisy
        schedule = Schedule.from_scheduler(scheduler(), 6)
        noise = noise_of(denoiser, schedule, context)
        end = sample(lambda state, i: noise(state.detach(), i), x, schedule)[-1]
        # The recursion keeps x_i, but all of eps = a v + s x is made from a detached one.
        expected = autograd(denoiser, (g * end).sum())
        assert close(gradients(denoiser, schedule, x, context, g, "decoupled"), expected)

    def test_adjusted_is_decoupled_reweighted(self, noisy, denoiser):
        """Both are sums over single steps; the adjusted weights are all the geometric mean of the A_i."""
        x, context, g = noisy
        schedule = Schedule.from_scheduler(scheduler(), 6)
        # One step followed is multiplied by T / K = 6.
        single = [gradients(denoiser, schedule, x, context, g, "decoupled", [i]) / 6 for i in range(6)]
        mean = schedule.steps.prod() ** (1 / 6)
        expected = sum(mean / a * part for a, part in zip(schedule.steps, single))
        assert close(gradients(denoiser, schedule, x, context, g, "adjusted"), expected)
        assert torch.allclose(gradients(denoiser, schedule, x, context, g, "decoupled"), sum(single))

    @pytest.mark.parametrize("mode", ["adjusted", "decoupled"])
    def test_random_subsets_average_to_all_steps(self, noisy, denoiser, mode):
        x, context, g = noisy
        schedule = Schedule.from_scheduler(scheduler(), 5)
        subsets = [gradients(denoiser, schedule, x, context, g, mode, pair) for pair in combinations(range(5), 2)]
        everything = gradients(denoiser, schedule, x, context, g, mode)
        assert close(torch.stack(subsets).mean(0), everything)

    def test_truncated_to_one_step_is_draft_1(self, noisy, denoiser):
        """DRaFT-1: backpropagate through the sampler, cut before the last step."""
        x, context, g = noisy
        schedule = Schedule.from_scheduler(scheduler(), 6)
        noise = noise_of(denoiser, schedule, context)
        with torch.no_grad():
            chain = sample(noise, x, schedule)
        last = schedule.signal[6] / schedule.signal[5] * chain[5] - schedule.steps[5] * noise(chain[5], 5)
        expected = autograd(denoiser, (g * last).sum())
        assert close(gradients(denoiser, schedule, x, context, g, "truncated"), expected)

    def test_truncated_keeps_the_last_steps(self):
        schedule = Schedule.from_scheduler(scheduler(), 5)
        weights = step_weights(schedule, "truncated", 2)
        assert weights.tolist() == [0, 0, 0, *schedule.steps[3:].tolist()]

    @pytest.mark.parametrize("mode", ["adjusted", "decoupled", "truncated", "exact"])
    def test_both_predictions_of_one_function_give_one_gradient(self, noisy, denoiser, mode):
        x, context, g = noisy
        found = []
        for prediction in ("epsilon", "v_prediction"):
            plan = scheduler(prediction)
            schedule = Schedule.from_scheduler(plan, 6)
            network = denoiser if prediction == "epsilon" else Converted(denoiser, plan.alphas_cumprod.double())
            if mode == "exact":
                noise, parameters = noise_of(network, schedule, context), list(network.parameters())
                parts = exact_gradient(noise, x, schedule, g, parameters)
                found.append(torch.cat([part.flatten() for part in parts]))
            else:
                found.append(gradients(network, schedule, x, context, g, mode))
        assert torch.allclose(*found, rtol=1e-6, atol=1e-9)

    def test_scale_multiplies_and_no_gradient_is_zero(self, noisy, denoiser):
        x, context, g = noisy
        schedule = Schedule.from_scheduler(scheduler(), 4)
        noise, unused = noise_of(denoiser, schedule, context), nn.Parameter(torch.ones(2).double())
        with torch.no_grad():
            chain = sample(noise, x, schedule)
        weights, parameters = step_weights(schedule, "adjusted"), [*denoiser.parameters(), unused]
        once = surrogate_gradient(noise, chain, g, weights, [0, 2], parameters)
        scaled = surrogate_gradient(noise, chain, g, weights, [0, 2], parameters, scale=1024.0)
        assert all(torch.allclose(1024 * a, b) for a, b in zip(once, scaled))
        assert once[-1].tolist() == [0, 0]
        assert exact_gradient(noise, x, schedule, g, parameters)[-1].tolist() == [0, 0]

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match="'adjsted': use adjusted, decoupled, truncated or exact"):
            step_weights(Schedule.from_scheduler(scheduler(), 4), "adjsted")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_exact_against_finite_differences(noisy, denoiser, prediction):
    x, context, g = noisy
    schedule = Schedule.from_scheduler(scheduler(prediction), 5)
    noise, parameters = noise_of(denoiser, schedule, context), list(denoiser.parameters())
    found = torch.cat([part.flatten() for part in exact_gradient(noise, x, schedule, g, parameters)])
    start = nn.utils.parameters_to_vector(parameters).detach()

    def outcome(vector):
        nn.utils.vector_to_parameters(vector, parameters)
        with torch.no_grad():
            return float((g * sample(noise, x, schedule)[-1]).sum())

    chosen = torch.linspace(0, len(start) - 1, 40).long()
    for index in chosen.tolist():
        step = torch.zeros_like(start)
        step[index] = 1e-5
        slope = (outcome(start + step) - outcome(start - step)) / 2e-5
        assert float(found[index]) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_exact_differs_from_decoupled_by_the_coupling(noisy, denoiser):
    """A check of the checks: with a denoiser that looks at x, the two are not the same."""
    x, context, g = noisy
    schedule = Schedule.from_scheduler(scheduler("epsilon"), 5)
    parts = exact_gradient(noise_of(denoiser, schedule, context), x, schedule, g, list(denoiser.parameters()))
    exact = torch.cat([part.flatten() for part in parts])
    decoupled = gradients(denoiser, schedule, x, context, g, "decoupled")
    assert (exact - decoupled).norm() > 0.01 * exact.norm()
