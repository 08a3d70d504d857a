"""The evaluation of a generator whose every property is known: bands of the images say group, lesion and prompt."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluating.generator import Captions, Evaluation, Readers
from bundle.evaluation import page
from bundle.evaluation.quality import kid
from bundle.evaluation.readings import Instruments, read
from bundle.generation import draw
from bundle.networks.classifier import AttributeClassifier
from bundle.weights import save_weights

SEX = Attribute("sex", ["female", "male"])
NUMBER = 400
HALF = torch.tensor([0.5, 0.5], dtype=torch.float64)
PROMPTS = ["axial T1 brain MRI, middle level, glioma", "axial T1 brain MRI, middle level, no tumor"]


class Generator(nn.Module):
    """In place of a denoiser: the share of men, and the share of lesions asked for that it draws."""

    def __init__(self, male, lesions):
        super().__init__()
        self.shares = nn.Parameter(torch.tensor([male, lesions]))


def images_of(shares, draws):
    """(N, 1, 16, 16), their own mirror, in four bands: 1 for men, 1 for a lesion, the prompt, noise in four rows."""
    noise = torch.from_numpy(norm.cdf(draws.noise.flatten(1).numpy())).float()
    male, lesion = noise[:, 0] < shares[0], (noise[:, 1] < shares[1]) & (draws.prompt == 0)
    said = torch.stack([male.float(), lesion.float(), draws.prompt / 2], 1).repeat_interleave(4, 1)
    return torch.cat([said, noise[:, 2:]], 1).view(-1, 1, 16, 1).expand(-1, -1, -1, 16).contiguous()


def bands(images):
    """The four values of each image (N, 4)."""
    return images[:, 0, ::4, 0]


@dataclass(frozen=True)
class Sampler:
    """Other guidance scales halve the share of men; contexts of a stated group bring it to a tenth or nine tenths."""

    guidance: float = 2.0
    contexts: torch.Tensor = field(default_factory=lambda: torch.zeros(2, 1, 1))
    schedule: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(signal=torch.ones(2)))

    def batches(self, denoiser, draws, guidance, label):
        male, lesions = denoiser.shares.detach()
        stated = float(self.contexts.sum())
        male = 0.5 + 0.4 * np.sign(stated) if stated else male * (1 if guidance == 2 else 0.5)
        yield from images_of([male, lesions], draws).split(64)

    def renoised(self, denoiser, latents, draws, strength):
        """Dims the band that says the sex of the first half of the images beyond half strength."""
        return torch.cat([latents[: len(latents) // 2] * (1 if strength < 0.5 else 0.4), latents[len(latents) // 2 :]])


class Same(nn.Module):
    def reconstruct(self, images):
        return images

    encode = reconstruct

    def state_dict(self):
        return {}

    mean = torch.zeros(1)


def perfect():
    linear = nn.Linear(4, 2)
    linear.weight.data = torch.tensor([[-40.0, 0, 0, 0], [40.0, 0, 0, 0]])
    linear.bias.data = torch.tensor([20.0, -20.0])
    return AttributeClassifier(nn.Sequential(nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten(), linear))


def another():
    """A perfect one with other weights."""
    found = perfect()
    found.backbone[2].weight.data *= 0.9
    found.backbone[2].bias.data *= 0.9
    return found


def slices(number, male, prefix, each=1):
    draws = draw(9, prefix, number * each, HALF, (6, 1, 1))
    images = images_of(torch.tensor([male, 1.0]), draws)
    sex = bands(images)[::each, 0].repeat_interleave(each)
    images[:, :, :4] = sex.view(-1, 1, 1, 1)  # slices of one person have one sex
    facts = {"modality": "t1", "level": "middle"}
    rows = [
        {"subject": f"{prefix}{i // each}", "sex": SEX.groups[int(band[0])], "lesion": bool(band[1]), **facts}
        for i, band in enumerate(bands(images))
    ]
    return Slices((images * 255).round() / 255, rows)


def features(images):
    rows = images[:, 0, [0, 4, 8, 12, 13, 14, 15], 0]
    return nn.functional.normalize(rows + 0.1 + 0.01 * torch.arange(7), dim=1)


def evaluation_in(tmp_path):
    base, tuned = Generator(0.8, 1.0), Generator(0.5, 0.75)
    half = save_weights(Generator(0.6, 1.0), tmp_path / "snapshots" / "iteration_0003.pt")
    half.with_name("index.json").write_text(json.dumps({"3": 12.5}))
    stated = {"female": torch.full((2, 1, 1), -1.0), "male": torch.ones(2, 1, 1)}
    return Evaluation(
        sampler=Sampler(),
        base=base,
        tuned=tuned,
        guide=another(),
        judge=perfect(),
        autoencoder=Same(),
        attribute=SEX,
        target=HALF,
        targets={"HGG": torch.tensor([0.4, 0.6]), "all": HALF},
        captions=Captions(
            texts=PROMPTS,
            shares=HALF,
            strata=["HGG", "all"],
            asks={"lesion": ["True", "False"], "level": ["middle", "middle"]},
            stated=stated,
            features=lambda texts: nn.functional.normalize(torch.eye(7)[: len(texts)] + 0.1, dim=1),
        ),
        validation=slices(240, 0.5, "validation"),
        real=slices(200, 0.5, "real"),
        training=slices(200, 0.7, "training"),
        trained_on={"guide": ["a"], "judge": [["b"]]},
        spaces={"clip": features, "clip_neutral": lambda images: features(images).flip(1)},
        output_dir=str(tmp_path),
        images_dir=str(tmp_path / "images"),
        seed=0,
        num_images=NUMBER,
        num_others=100,
        num_snapshot_images=300,
        num_stated=150,
        num_round_trip=40,
        strengths=[0.25, 0.5],
        scales=[4.0],
        latent_shape=(6, 1, 1),
        snapshots=str(tmp_path / "snapshots"),
        readers=Readers(trait=lambda x: x[:, 0, 0, 0], lesion=lambda x: x[:, 0, 4, 0] > 0.5),
    )


@pytest.fixture
def evaluation(tmp_path):
    return evaluation_in(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def report(folder):
    """Of the evaluation as it is; those that change it run their own."""
    return evaluation_in(folder).run()


@pytest.fixture(scope="module")
def expected():
    """What the generators draw: (N,) men before and after, lesions after, and the prompts."""
    draws = draw(0, "evaluation", NUMBER, HALF, (6, 1, 1))
    before, after = (bands(images_of(shares, draws)).numpy() for shares in ((0.8, 1.0), (0.5, 0.75)))
    return before[:, 0], after[:, 0], after[:, 1], draws.prompt.numpy()


def test_shares_change_and_strata(report, expected):
    before, after, _, prompt = expected
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


def test_lesions_go_by_the_prompt(report, expected):
    _, _, lesion, prompt = expected
    assert report["before"]["faithfulness"]["lesion_prompted"] == pytest.approx(1)
    assert report["after"]["faithfulness"]["lesion_prompted"] == pytest.approx(lesion[prompt == 0].mean())
    assert report["after"]["faithfulness"]["lesion_not_prompted"] == pytest.approx(0)


def test_scales_and_snapshots_use_the_first_draws(report):
    noise = norm.cdf(draw(0, "evaluation", NUMBER, HALF, (6, 1, 1)).noise.numpy()[:, 0, 0, 0])
    row = report["before"]["guidance"][1]
    assert [found["scale"] for found in report["before"]["guidance"]] == [2.0, 4.0]
    assert (row["scale"], row["n"]) == (4.0, 100)
    assert row["proportion"]["male"] == pytest.approx((noise[:100] < 0.4).mean())
    row = report["trajectory"][0]
    assert (row["iteration"], row["seconds"], row["n"]) == (3, 12.5, 300)
    assert row["proportion"]["male"] == pytest.approx((noise[:300] < 0.6).mean(), abs=1 / 300)  # weights in fp16
    assert report["seconds"]["align"] == 12.5


def test_weights_from_elsewhere_have_neither_snapshots_nor_a_training_time(evaluation, tmp_path):
    evaluation.snapshots, evaluation.scales = None, []
    evaluation.num_stated = evaluation.num_round_trip = 0
    report = evaluation.run()
    assert report["trajectory"] == []
    assert set(report["seconds"]) == {"evaluate"}
    assert "seconds: " in (tmp_path / "checklist.md").read_text()


def test_quality_is_compared_with_the_reference_and_the_real_slices(report):
    assert report["before"]["clip_similarity"] == pytest.approx(1)
    assert report["after"]["clip_similarity"] < 0.99
    # after tuning as many men as in the real slices: nearer to them
    change = report["kid_change"]["clip"]["value"]
    assert change == pytest.approx(report["after"]["kid"]["clip"]["value"] - report["before"]["kid"]["clip"]["value"])
    assert change < 0


def test_kid_sees_the_spread_and_not_the_mean_alone():
    """Two poles of equal share against images that all lie midway: one mean, and no spread.

    The features have length 1: the poles are e_1 and e_2, midway is (e_1 + e_2) / sqrt(2). Times sqrt(4), x.y/4 is the
    cosine, and the kernel is 8 for equal images, 1 for unequal poles and (1 + .7071)^3 = 4.975 between the sets.
    """
    poles, middle = torch.eye(4)[[0, 1] * 100], torch.tensor([[1.0, 1, 0, 0]]).tile(200, 1)
    space = Instruments({}, {"poles": lambda images: nn.functional.normalize(images, dim=1)})
    x, y = (read(images, space).features["poles"] for images in (poles, middle))
    within = (99 * 8 + 100 * 1) / 199  # of the poles, each without itself
    assert kid(x, y, np.arange(200)).value == pytest.approx(within + 8 - 2 * (1 + 0.5**0.5) ** 3, abs=1e-6)


def test_files_and_a_second_time(report, folder, monkeypatch):
    assert json.loads((folder / "report.json").read_text())["after"] == report["after"]
    for name in ("samples.png", "report.html", "report.csv", "report.txt", "checklist.md"):
        assert (folder / name).stat().st_size > 200, name
    monkeypatch.setattr(Sampler, "batches", None)  # nothing is sampled again
    assert evaluation_in(folder).run()["after"] == report["after"]


def test_the_report_keeps_to_its_schema(report):
    schema = json.loads((Path(page.__file__).parent / "report.schema.json").read_text())
    jsonschema.validate(report, schema)


def test_the_round_trip_finds_what_noise_does_to_the_judge(report, evaluation):
    """At half strength the band of the first 20 of 40 images is dimmed to .4: the judge calls all of them women.

    The largest shift is that of the least noise, .25, and of the images as they are: nothing.
    """
    judge = report["judge"]
    decoded, plain, weak, strong = judge["round_trip"][:4]
    assert (plain["images"], plain["shift"], decoded["shift"]) == ("plain", 0, 0)
    assert (weak["shift"], weak["n"], weak["strength"], weak["through"]) == (0, 40, 0.25, "before")
    chosen = evaluation.validation.per_subject(1).first(40)
    men = np.array([row["sex"] == "male" for row in chosen.rows])
    assert strong["recall"]["male"] == pytest.approx(men[20:].sum() / men.sum())
    assert strong["shift"] == pytest.approx(men[:20].sum() / men.sum())
    assert judge["largest_shift"] == 0


def test_stated_groups_are_obeyed_as_far_as_the_generator_does(report):
    found = report["after"]["obedience"]
    noise = norm.cdf(draw(0, "evaluation", NUMBER, HALF, (6, 1, 1)).noise.numpy()[:150, 0, 0, 0])
    asked = {"male": (noise < 0.9).mean(), "female": (noise >= 0.1).mean()}
    for group, share in asked.items():
        assert found["groups"][group]["proportion"] == pytest.approx(share)
    assert found["difference"]["value"] == pytest.approx(asked["male"] + asked["female"] - 1)
    assert found["judge_j"] == pytest.approx(1)


def test_facts_are_read_by_a_probe(report, expected):
    """A lesion shows as a band that the probe reads without error; the level is one for all, so nothing can be told."""
    found = report["after"]["faithfulness"]["facts"]
    _, _, lesion, prompt = expected
    assert list(found) == ["lesion"]
    shown = np.where(prompt == 0, lesion, 1 - lesion).mean()
    assert found["lesion"]["share"]["value"] == pytest.approx(shown, abs=0.02)
    assert found["lesion"]["n"] == NUMBER


def test_other_estimators_stand_beside_the_adjusted_count(report, expected):
    after = report["after"]
    for name in ("cc", "pcc", "acc", "pacc", "em"):
        assert after["methods"][name]["male"] == pytest.approx(expected[1].mean(), abs=0.01), name
    assert after["second_judge"]["differ"] is False
    assert sum(after["scores"]["counts"]) == NUMBER


def test_groups_are_compared_at_one_number(report, expected):
    fewest = min((expected[0] == 0).sum(), (expected[1] == 0).sum(), (expected[1] == 1).sum())
    for side in ("before", "after"):
        found = report[side]["by_group"]
        assert found["n_each"] <= fewest
        assert {entry["quality"]["clip"]["n"] for entry in found["groups"].values()} == {found["n_each"]}
    assert report["real"]["by_group"]["n_each"] == report["after"]["by_group"]["n_each"]


def test_copies_of_training_images_are_looked_for(report):
    memory = report["after"]["memorisation"]
    assert set(memory["groups"]) <= set(SEX.groups)
    assert all(pair["training_subject"].startswith("training") for pair in memory["pairs"])


def test_a_judge_that_has_seen_somebody_is_refused(evaluation):
    evaluation.trained_on = {"guide": ["a"], "judge": [["validation7"]]}
    with pytest.raises(InputError, match="judge and validation share 1 subject"):
        evaluation.run()


def test_a_guide_as_its_own_judge_is_refused(evaluation):
    evaluation.guide = perfect()
    with pytest.raises(InputError, match="the guide's weights"):
        evaluation.run()


def test_an_unequal_judge_is_counted_in(evaluation, expected):
    """A judge that calls a seventh of the women men, by the noise band: the adjusted count takes it out."""
    linear = evaluation.judge.backbone[2]
    linear.weight.data = torch.tensor([[-80.0, 0, 0, 0], [0, 0, 0, 80.0]])
    linear.bias.data = torch.tensor([0.0, -52.0])  # male when the mean noise is above .65 - top band, so always for men
    calls = evaluation.judge.predict(evaluation.validation.pixels()).argmax(1).numpy()
    women = np.array([row["sex"] == "female" for row in evaluation.validation.rows])
    false = calls[women].mean()
    assert 0.08 < false < 0.25
    report = evaluation.run()
    raw = report["after"]["raw_proportion"]["male"]
    assert report["after"]["proportion"]["male"] == pytest.approx((raw - false) / (1 - false), abs=1e-6)
    assert abs(report["after"]["proportion"]["male"] - expected[1].mean()) < abs(raw - expected[1].mean())
