"""Each term by hand, and what its gradient pulls on."""

import pytest
import torch
from torch.nn.functional import normalize

from bundle.alignment.losses import hold, image_consistency, marginal_loss, text_consistency, transport_loss
from bundle.alignment.targets import Assignment

ASSIGNMENT = Assignment(torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]))


class TestTransport:
    def test_cross_entropy_times_certainty(self):
        logits = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
        # labels 0, 1, -; weights 1 - .2, 1 - .8, 0; -log of 1/2 and of 1 / (1 + e)
        expected = [0.8 * 0.693147, 0.2 * 1.313262, 0.0]
        assert transport_loss(logits, ASSIGNMENT).tolist() == pytest.approx(expected, abs=1e-5)

    def test_published_cut(self):
        logits = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
        assert transport_loss(logits, ASSIGNMENT, 0.2).tolist() == pytest.approx([0.693147, 0, 0], abs=1e-5)


class TestMarginal:
    def test_value_is_the_divergence_of_the_mean(self):
        probabilities = torch.tensor([[0.9, 0.1], [0.7, 0.3]])
        value = marginal_loss(probabilities, torch.tensor([0.4, 0.6]), probabilities.mean(0))
        # .4 log(.4 / .8) + .6 log(.6 / .2)
        assert float(value) == pytest.approx(0.4 * -0.693147 + 0.6 * 1.098612, abs=1e-5)

    def test_target_of_zero_and_mean_of_zero_are_finite(self):
        probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
        for target in ([0.0, 1.0], [1.0, 0.0]):
            value = marginal_loss(probabilities, torch.tensor(target), probabilities.detach().mean(0))
            assert torch.isfinite(value)
            assert torch.isfinite(torch.autograd.grad(value, probabilities)[0]).all()

    def test_parts_of_a_batch_give_the_gradient_of_the_whole(self):
        """The mean over two processes' gradients, each for its half, is the gradient for all images."""
        logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
        target = torch.tensor([0.3, 0.7]).double()
        mean = logits.detach().softmax(1).mean(0)

        def gradient(rows):
            return torch.autograd.grad(marginal_loss(logits[rows].softmax(1), target, mean), logits)[0]

        assert torch.allclose((gradient(slice(0, 3)) + gradient(slice(3, 6))) / 2, gradient(slice(0, 6)))

    def test_solved_by_ambiguous_images(self):
        """Why it is not the default: every image at p = target is an optimum."""
        logits = torch.tensor([0.4, 0.6]).log().expand(5, 2).clone().requires_grad_()
        probabilities = logits.softmax(1)
        value = marginal_loss(probabilities, torch.tensor([0.4, 0.6]), probabilities.detach().mean(0))
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert torch.autograd.grad(value, logits)[0].abs().max() < 1e-6


class TestConsistency:
    def test_image_side_is_one_minus_cosine(self):
        features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
        reference = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        assert image_consistency(features, reference).tolist() == pytest.approx([0.0, 0.4, 2.0])

    def test_text_side_is_the_divergence_from_the_reference(self):
        bank = torch.eye(2)
        features, reference = normalize(torch.tensor([[3.0, 4.0]])), normalize(torch.tensor([[4.0, 3.0]]))
        student, teacher = torch.tensor([0.6, 0.8]).softmax(0), torch.tensor([0.8, 0.6]).softmax(0)
        expected = float((teacher * (teacher / student).log()).sum())
        found = text_consistency(features, reference, bank, temperature=1.0)
        assert found.tolist() == pytest.approx([expected], abs=1e-6)
        assert text_consistency(reference, reference, bank).tolist() == pytest.approx([0.0], abs=1e-6)

    def test_text_side_does_not_see_what_no_prompt_speaks_of(self):
        bank = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        reference = normalize(torch.tensor([[1.0, 1.0, 0.0]]))
        turned = torch.cat([reference[:, :2], torch.ones(1, 1)], 1)
        assert float(text_consistency(turned, reference, bank)) == pytest.approx(0.0, abs=1e-6)
        assert float(image_consistency(normalize(turned), reference)) > 0.1


def test_images_that_must_change_group_are_held_less_tightly():
    assert hold(ASSIGNMENT, torch.tensor([0, 0, 0]), 0.2).tolist() == pytest.approx([1.0, 0.2, 1.0])
