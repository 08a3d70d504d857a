"""The evaluation on images whose every property is known: pixels say group, lesion and prompt."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluating import Evaluation, Readers
from bundle.evaluation.quality import kid
from bundle.generation import draw
from bundle.networks.classifier import AttributeClassifier
from bundle.weights import save_weights

SEX = Attribute("sex", ["female", "male"])
NUMBER = 400


class Generator(nn.Module):
    """In place of a denoiser: the share of men, and the share of lesions asked for that it draws."""

    def __init__(self, male, lesions):
        super().__init__()
        self.shares = nn.Parameter(torch.tensor([male, lesions]))


def images_of(shares, draws):
    """(N, 1, 4, 1), their own mirror: from the top 1 for men, 1 for a lesion, the prompt, and noise."""
    noise = torch.from_numpy(norm.cdf(draws.noise.flatten(1).numpy())).float()
    male, lesion = noise[:, 0] < shares[0], (noise[:, 1] < shares[1]) & (draws.prompt == 0)
    return torch.stack([male.float(), lesion.float(), draws.prompt / 2, noise[:, 2]], 1).view(-1, 1, 4, 1)


class Sampler:
    guidance, contexts, schedule = 2.0, torch.zeros(2, 1, 1), SimpleNamespace(signal=torch.ones(2))

    def images(self, denoiser, draws, scale, label):
        shares = denoiser.shares.detach() * torch.tensor([1.0 if scale == 2 else 0.5, 1.0])
        return images_of(shares, draws)


class Same(nn.Module):
    def reconstruct(self, images):
        return images

    def state_dict(self):
        return {}

    mean = torch.zeros(1)


def perfect():
    linear = nn.Linear(4, 2)
    linear.weight.data = torch.tensor([[-40.0, 0, 0, 0], [40.0, 0, 0, 0]])
    linear.bias.data = torch.tensor([20.0, -20.0])
    return AttributeClassifier(nn.Sequential(nn.Flatten(), linear))


def slices(number, male, prefix):
    draws = draw(9, prefix, number, torch.tensor([0.5, 0.5], dtype=torch.float64), (3, 1, 1))
    images = images_of(torch.tensor([male, 1.0]), draws)
    rows = [
        {"subject": f"{prefix}{i}", "sex": SEX.groups[int(image[0])], "lesion": bool(image[1])}
        for i, image in enumerate(images.flatten(1))
    ]
    return Slices((images * 255).round().to(torch.uint8), rows)


@pytest.fixture
def evaluation(tmp_path):
    base, tuned = Generator(0.8, 1.0), Generator(0.5, 0.75)
    half = save_weights(Generator(0.6, 1.0), tmp_path / "snapshots" / "iteration_0003.pt")
    half.with_name("index.json").write_text(json.dumps({"3": 12.5}))
    return Evaluation(
        sampler=Sampler(),
        base=base,
        tuned=tuned,
        guide=perfect(),
        judge=perfect(),
        autoencoder=Same(),
        attribute=SEX,
        target=torch.tensor([0.5, 0.5], dtype=torch.float64),
        targets={"HGG": torch.tensor([0.4, 0.6]), "all": torch.tensor([0.5, 0.5])},
        prompts=["a tumor", "no tumor"],
        prompt_shares=torch.tensor([0.5, 0.5], dtype=torch.float64),
        prompt_lesion=[True, False],
        prompt_strata=["HGG", "all"],
        validation=slices(200, 0.5, "validation"),
        real=slices(200, 0.5, "real"),
        trained_on={"guide": ["a"], "judge": [["b"]]},
        spaces={"clip": lambda images: nn.functional.normalize(images.flatten(1) + 0.1, dim=1)},
        output_dir=str(tmp_path),
        images_dir=str(tmp_path / "images"),
        seed=0,
        num_images=NUMBER,
        num_others=100,
        num_snapshot_images=300,
        scales=[4.0],
        latent_shape=(3, 1, 1),
        snapshots=str(tmp_path / "snapshots"),
        readers=Readers(trait=lambda x: x[:, 0, 0, 0], lesion=lambda x: x[:, 0, 1, 0] > 0.5),
    )


@pytest.fixture
def expected(evaluation):
    """What the generators draw: (N,) men before and after, lesions after, and the prompts."""
    draws = draw(0, "evaluation", NUMBER, evaluation.prompt_shares, (3, 1, 1))
    before, after = (images_of(shares, draws).flatten(1).numpy() for shares in ((0.8, 1.0), (0.5, 0.75)))
    return before[:, 0], after[:, 0], after[:, 1], draws.prompt.numpy()


def test_shares_change_and_strata(evaluation, expected):
    report, (before, after, _, prompt) = evaluation.run(), expected
    assert report["before"]["raw_proportion"]["male"] == pytest.approx(before.mean())
    assert report["after"]["raw_proportion"]["male"] == pytest.approx(after.mean())
    # a judge without an error: the adjusted count is the plain one
    assert report["after"]["proportion"]["male"] == pytest.approx(after.mean())
    assert report["after"]["true_proportion"]["male"] == pytest.approx(after.mean())
    assert report["change"]["value"]["male"] == pytest.approx(after.mean() - before.mean())
    assert (report["before"]["verdict"], report["after"]["agreement"]) == ("not aligned", 1.0)
    stratum = report["strata"]["HGG"]
    assert stratum["target"]["male"] == pytest.approx(0.6)
    assert stratum["before"]["proportion"]["male"] == pytest.approx(before[prompt == 0].mean())
    assert stratum["after"]["n"] == (prompt == 0).sum()
    assert list(report["strata"]) == ["HGG"]


def test_lesions_go_by_the_prompt(evaluation, expected):
    report, (_, _, lesion, prompt) = evaluation.run(), expected
    assert report["before"]["faithfulness"]["lesion_prompted"] == pytest.approx(1)
    assert report["after"]["faithfulness"]["lesion_prompted"] == pytest.approx(lesion[prompt == 0].mean())
    assert report["after"]["faithfulness"]["lesion_not_prompted"] == pytest.approx(0)


def test_scales_and_snapshots_use_the_first_draws(evaluation):
    report = evaluation.run()
    noise = norm.cdf(draw(0, "evaluation", NUMBER, evaluation.prompt_shares, (3, 1, 1)).noise.numpy()[:, 0, 0, 0])
    row = report["before"]["guidance"][0]
    assert (row["scale"], row["n"]) == (4.0, 100)
    assert row["proportion"]["male"] == pytest.approx((noise[:100] < 0.4).mean())
    row = report["trajectory"][0]
    assert (row["iteration"], row["seconds"], row["n"]) == (3, 12.5, 300)
    assert row["proportion"]["male"] == pytest.approx((noise[:300] < 0.6).mean(), abs=1 / 300)  # weights in fp16
    assert report["seconds"]["align"] == 12.5


def test_quality_is_compared_with_the_reference_and_the_real_slices(evaluation):
    report = evaluation.run()
    assert report["before"]["clip_similarity"] == pytest.approx(1)
    assert report["after"]["clip_similarity"] < 0.99
    # after tuning as many men as in the real slices: nearer to them
    change = report["kid_change"]["clip"]["value"]
    assert change == pytest.approx(report["after"]["kid"]["clip"]["value"] - report["before"]["kid"]["clip"]["value"])
    assert change < 0


def test_kid_sees_the_spread_and_not_the_mean_alone(evaluation):
    """Two poles of equal share against images that all lie midway: one mean, and no spread.

    The features have length 1: the poles are e_1 and e_2, midway is (e_1 + e_2) / sqrt(2). Times sqrt(4), x.y/4 is the
    cosine, and the kernel is 8 for equal images, 1 for unequal poles and (1 + .7071)^3 = 4.975 between the sets.
    """
    evaluation.spaces = {"poles": lambda images: nn.functional.normalize(images, dim=1)}
    poles = evaluation._features(torch.eye(4)[[0, 1] * 100])["poles"]
    middle = evaluation._features(torch.tensor([[1.0, 1, 0, 0]]).tile(200, 1))["poles"]
    found = kid(poles, middle, np.arange(200)).value
    within = (99 * 8 + 100 * 1) / 199  # of the poles, each without itself
    assert found == pytest.approx(within + 8 - 2 * (1 + 0.5**0.5) ** 3, abs=1e-6)


def test_files_and_a_second_time(evaluation, tmp_path, monkeypatch):
    report = evaluation.run()
    assert json.loads((tmp_path / "report.json").read_text())["after"] == report["after"]
    assert (tmp_path / "samples.png").is_file()
    monkeypatch.setattr(Sampler, "images", None)  # nothing is sampled again
    assert evaluation.run()["after"] == report["after"]


def test_a_judge_that_has_seen_somebody_is_refused(evaluation):
    evaluation.trained_on = {"guide": ["a"], "judge": [["validation7"]]}
    with pytest.raises(InputError, match="judge and validation share 1 subject"):
        evaluation.run()


def test_an_unequal_judge_is_counted_in(evaluation, expected):
    """A judge that calls a fifth of the women men, by the noise pixel: the adjusted count takes it out."""
    linear = evaluation.judge.backbone[1]
    linear.weight.data = torch.tensor([[-80.0, 0, 0, 0], [0, 0, 0, 80.0]])
    linear.bias.data = torch.tensor([0.0, -64.0])  # male when the noise is above .8 - top left, so always for men
    calls = evaluation.judge.predict(evaluation.validation.pixels()).argmax(1).numpy()
    women = np.array([row["sex"] == "female" for row in evaluation.validation.rows])
    false = calls[women].mean()
    assert 0.1 < false < 0.3
    report = evaluation.run()
    raw = report["after"]["raw_proportion"]["male"]
    assert report["after"]["proportion"]["male"] == pytest.approx((raw - false) / (1 - false), abs=1e-6)
    assert abs(report["after"]["proportion"]["male"] - expected[1].mean()) < abs(raw - expected[1].mean())
