"""What a finished classifier leaves: weights, calibrated, and figures on subjects that did not calibrate it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.networks.classifier import AttributeClassifier
from bundle.training.release import _divided, release_classifier, release_denoiser, roughness, trained_on

SEX = Attribute("sex", ["female", "male"])


class Same(nn.Module):
    """In place of an autoencoder: shows images as they are."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def reconstruct(self, images):
        return images


@pytest.fixture
def brightness():
    """A classifier whose logits are ten times too far from 0, and slices whose brightness goes with the sex."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    nn.init.constant_(backbone[1].bias, 0.0)
    backbone[1].weight.data = torch.tensor([[-20.0], [20.0]])
    backbone[1].bias.data = torch.tensor([10.0, -10.0])
    return AttributeClassifier(backbone)


def slices(subjects):
    draw = torch.Generator().manual_seed(0)
    sex = [SEX.groups[i % 2] for i in range(subjects) for _ in range(6)]
    value = torch.tensor([s == "male" for s in sex]) * 0.2 + 0.4 + 0.25 * torch.randn(len(sex), generator=draw)
    images = ((value.clamp(0, 1) * 255).round() / 255).view(-1, 1, 1, 1)
    rows = [{"subject": f"p{i // 6}", "sex": s} for i, s in enumerate(sex)]
    return Slices(images, [*rows[:-1], rows[-1] | {"sex": None}])


@pytest.mark.parametrize("subjects", [10, 60])
def test_a_classifier_is_calibrated_and_its_figures_are_entered(brightness, tmp_path, subjects):
    held_out, path = slices(subjects), str(tmp_path / "guide.pt")
    release_classifier(brightness, SEX, slices(3), held_out, held_out.images, path, "command")
    figures = json.loads((tmp_path / "manifest.json").read_text())["guide.pt"]["figures"]
    assert trained_on(str(tmp_path), "guide.pt") == ["p0", "p1", "p2"]
    with pytest.raises(InputError, match="subjects.json: no subjects of 'judge.pt'; train it"):
        trained_on(str(tmp_path), "judge.pt")
    assert figures["temperature"] > 2
    assert 0.6 < figures["auc_plain"] < 0.9
    assert figures["accuracy_decoded"] == pytest.approx(figures["accuracy_plain"], abs=0.02)


def test_subjects_are_divided_unless_they_are_few():
    subjects = np.repeat([f"p{i}" for i in range(80)], 3)
    calibrating, measuring = _divided(subjects)
    assert not set(subjects[calibrating]) & set(subjects[measuring])
    assert (calibrating | measuring).all()
    assert 20 < len(set(subjects[measuring])) < 60
    calibrating, measuring = _divided(subjects[:60])
    assert calibrating.all()
    assert measuring.all()


def test_roughness_is_the_mean_step_between_neighbours():
    image = torch.tensor([[0.0, 1.0], [0.5, 0.5]])[None, None]
    # along the columns |.5 - 0| and |.5 - 1|, mean .5; along the rows 1 and 0, mean .5
    assert float(roughness(image)) == pytest.approx(1.0)


def test_samples_left_as_noise_or_empty_are_not_clean(tmp_path):
    """Of eight samples five are smooth, two noise and one empty."""
    draw = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 16).expand(1, 16, 16)
    noise, empty = [torch.rand(1, 16, 16, generator=draw) for _ in range(2)], [torch.zeros(1, 16, 16)]
    made = torch.stack([*[ramp * scale for scale in (0.8, 0.9, 1.0, 1.0, 0.7)], *noise, *empty])
    sampler = SimpleNamespace(images=lambda denoiser, draws, label: made)
    real = Slices((ramp.expand(3, 1, 16, 16) * 255).round() / 255, [{}] * 3)
    path, sheet = tmp_path / "denoiser.pt", tmp_path / "out" / "samples.png"
    release_denoiser(
        nn.Linear(1, 1), sampler, None, real, Same(), {"final_loss": 0.2}, str(path), str(sheet), "command"
    )
    figures = json.loads((tmp_path / "manifest.json").read_text())["denoiser.pt"]["figures"]
    assert figures == {"final_loss": 0.2, "clean": 5 / 8}
    assert sheet.read_bytes().startswith(b"\x89PNG")
