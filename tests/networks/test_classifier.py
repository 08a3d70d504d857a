"""Calibration by temperature, and prediction in batches."""

import pytest
import torch
from torch import nn

from bundle.networks.classifier import AttributeClassifier


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return AttributeClassifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)))


@pytest.fixture
def images():
    return torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_probabilities_and_predictions_agree_in_eval_mode(classifier, images):
    predicted = classifier.predict(images, batch_size=3)
    assert not classifier.training
    assert torch.allclose(predicted, classifier.probabilities(images), atol=1e-6)
    assert torch.allclose(predicted.sum(1), torch.ones(10))
    assert not predicted.requires_grad


def test_in_eval_mode_an_image_and_its_mirror_read_the_same(classifier, images):
    classifier.eval()
    apart = [classifier.backbone(images), classifier.backbone(images.flip(-1))]
    assert not torch.allclose(*apart, atol=1e-3)
    assert torch.allclose(classifier(images), (apart[0] + apart[1]) / 2, atol=1e-6)
    assert torch.allclose(classifier(images), classifier(images.flip(-1)), atol=1e-6)


def test_images_of_another_size_are_resized(images):
    classifier = AttributeClassifier(nn.Flatten(), image_size=2).eval()
    # halves of an image and of its mirror, each pixel the mean of four: a box is what antialiasing makes of a constant
    flat = torch.full((1, 1, 4, 4), 0.25)
    flat[..., :2] = 0.75
    assert classifier(flat).shape == (1, 4)
    assert torch.allclose(classifier(flat), torch.full((1, 4), 0.5), atol=1e-6)
    as_they_are = images[:, :, :2, :2]
    assert torch.allclose(classifier(as_they_are), (as_they_are + as_they_are.flip(-1)).flatten(1) / 2)


def test_images_in_half_precision_are_resized_as_numbers(images):
    """A decoder under autocast leaves them so; torch resizes none on a CPU, and elsewhere with fewer digits."""
    classifier, half = AttributeClassifier(nn.Flatten(), image_size=2).eval(), images.half()
    assert torch.equal(classifier(half), classifier(half.float()))


def test_in_training_it_reads_each_image_alone(classifier, images):
    classifier.backbone[1].p = 0.0
    assert torch.equal(classifier(images), classifier.backbone(images))


def test_the_temperature_divides_the_logits(classifier, images):
    classifier.eval()
    plain = classifier(images)
    classifier.temperature.fill_(2.0)
    assert torch.allclose(classifier(images), plain / 2)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_calibration_finds_the_planted_temperature(classifier, overconfidence):
    """Labels are drawn from softmax(z); a network that says overconfidence * z is to be divided by it."""
    stream = torch.Generator().manual_seed(1)
    true = 1.5 * torch.randn(20_000, 3, generator=stream)
    labels = torch.multinomial(true.softmax(1), 1, generator=stream).flatten()
    assert classifier.calibrate(overconfidence * true, labels) == pytest.approx(overconfidence, rel=0.03)
    assert float(classifier.temperature) == pytest.approx(overconfidence, rel=0.03)


def test_logits_that_hardly_differ_are_calibrated_too(classifier):
    """A network hardly trained: labels are drawn at four times its logits, where plain L-BFGS leaves all bounds."""
    stream = torch.Generator().manual_seed(1)
    difference = 0.1 * torch.randn(144, generator=stream)
    labels = (torch.rand(144, generator=stream) < (4 * difference).sigmoid()).long()
    logits = torch.stack([-difference / 2, difference / 2], 1)
    assert 0.1 < classifier.calibrate(logits, labels) < 0.6  # 1 / 4, from few images


def test_calibrating_twice_changes_nothing(classifier):
    stream = torch.Generator().manual_seed(1)
    backbone = 3 * torch.randn(5_000, 3, generator=stream)
    labels = torch.multinomial((backbone / 3).softmax(1), 1, generator=stream).flatten()
    first = classifier.calibrate(backbone / classifier.temperature, labels)
    assert classifier.calibrate(backbone / classifier.temperature, labels) == pytest.approx(first, rel=1e-3)


def test_the_temperature_is_saved(classifier):
    classifier.temperature.fill_(1.7)
    other = AttributeClassifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)))
    other.load_state_dict(classifier.state_dict())
    assert float(other.temperature) == pytest.approx(1.7)
