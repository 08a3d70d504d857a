"""The evaluation of equal quality on generators whose every property is known: bands of the images say who and what."""

import csv
import json
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.errors import InputError
from bundle.evaluating.asked import Finding, choose_asked, some_slices
from bundle.evaluating.fairness import FairnessEvaluation
from bundle.evaluation.estimate import Estimate
from bundle.evaluation.likeness import between_groups
from bundle.evaluation.quality import kid, kid_change
from bundle.generation import draw
from bundle.training.captions import caption_slices
from bundle.training.fit import fit_classifier

SEX = Attribute("sex", ["female", "male"])
GRADE = Finding("grade", ["LGG", "HGG"], {"lesion": True})
LATENT = (1, 4, 4)


class Generator(nn.Module):
    """In place of a denoiser: how bright the finding of women and of men shows, 1 as in real images."""

    def __init__(self, women, men):
        super().__init__()
        self.signal = nn.Parameter(torch.tensor([women, men]))


def images_of(sex, grade, noise):
    """(N, 1, 16, 16): four rows say the sex, four how much of the finding shows, the others are noise (N, 16)."""
    spread = noise.sigmoid()
    shown = 0.25 + 0.5 * grade[:, None] + 0.25 * (spread[:, :4] - 0.5)
    rows = torch.cat([sex[:, None].expand(-1, 4) / 2, shown, spread[:, 4:12]], 1)
    return rows.clamp(0, 1).view(-1, 1, 16, 1).expand(-1, -1, -1, 16).contiguous()


def contexts_of(texts):
    """(P, 1, 2): sex and grade as the texts state them."""
    said = [[float(", man" in text), float("high-grade" in text)] for text in texts]
    return torch.tensor(said).view(-1, 1, 2)


@dataclass(frozen=True)
class Sampler:
    contexts: torch.Tensor
    guidance: float = 2.0
    schedule: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(signal=torch.ones(2)))

    def batches(self, denoiser, draws, guidance, label):
        sex, grade = self.contexts[draws.prompt, 0].unbind(1)
        signal = denoiser.signal.detach()[sex.long()]
        yield from images_of(sex, grade * signal, draws.noise.flatten(1)).split(16)


class Same:
    """In place of an autoencoder, one that loses a little light."""

    mean = torch.zeros(1)

    def reconstruct(self, images):
        return 0.95 * images

    def state_dict(self):
        return {}


class Probe:
    """Losses (N, 2) of latents, larger for women the less a generator shows of them; each latent has its own."""

    timesteps = torch.tensor([250, 750])

    def __init__(self, slices):
        self.women = torch.from_numpy(SEX.indices(slices.rows)) == 0
        self.own = torch.linspace(0, 0.1, len(slices))

    def losses(self, denoiser):
        lost = torch.where(self.women, 1 - denoiser.signal[0].item(), 1 - denoiser.signal[1].item())
        return torch.stack([lost + self.own, lost + self.own + 0.2], 1)


def build():
    return nn.Sequential(nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten(), nn.Linear(4, 2))


def features(images):
    return nn.functional.normalize(images[:, 0, :, 0] + 0.1, dim=1)


def people(number, prefix, seed):
    """Two slices of each person, of which the first shows a lesion."""
    rng = np.random.default_rng(seed)
    sex, grade = rng.permutation(np.arange(number) % 2), rng.permutation(np.arange(number) % 2)
    place, lesion = np.repeat(np.arange(number), 2), np.tile([True, False], number)
    shown = torch.from_numpy(grade[place] * lesion).float()
    noise = torch.from_numpy(rng.normal(size=(2 * number, 16))).float()
    images = images_of(torch.from_numpy(sex[place]).float(), shown, noise)
    rows = [
        {
            "subject": f"{prefix}{person:03d}",
            "sex": SEX.groups[sex[person]],
            "grade": GRADE.values[grade[person]],
            "lesion": bool(seen),
            "modality": "t1",
            "level": "middle",
        }
        for person, seen in zip(place, lesion, strict=True)
    ]
    return Slices((images * 255).round() / 255, rows)


REAL, JUDGED = people(120, "v", 1), people(120, "j", 2)
FIT = partial(fit_classifier, build, iterations=40, batch_size=32, learning_rate=0.2, seed=0)


def evaluation_in(folder, women=0.1, men=1.0, **changes):
    """A generator that shows men's findings and, by default, hardly women's."""
    asked = changes.pop("asked", None) or choose_asked(REAL, [SEX], 80)
    captions = caption_slices(asked, ["stated"])
    settings = {
        "denoiser": Generator(women, men),
        "sampler": Sampler(contexts_of(captions.texts)),
        "attributes": [SEX],
        "asked": asked,
        "captions": captions,
        "real": REAL,
        "real_training": JUDGED,
        "finding": GRADE,
        "autoencoder": Same(),
        "spaces": {"rows": features},
        "probe": Probe(asked),
        "fit": FIT,
        "output_dir": str(folder / "out"),
        "images_dir": str(folder / "images"),
        "seed": 0,
        "latent_shape": LATENT,
    }
    return FairnessEvaluation(**{**settings, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fairness")


@pytest.fixture(scope="module")
def report(folder):
    return evaluation_in(folder).run()


@pytest.fixture(scope="module")
def kept(report, folder):
    with np.load(folder / "out" / "scores.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def compared(report, folder):
    """A generator that shows everything, from the same prompts and noise, beside the first."""
    changes = {"output_dir": str(folder / "better"), "compared_with": str(folder / "out")}
    return evaluation_in(folder, women=1.0, **changes).run()


class TestChoice:
    def test_all_groups_have_as_many_spread_over_the_subjects(self):
        asked = choose_asked(REAL, [SEX], 40)
        assert np.bincount(SEX.indices(asked.rows)).tolist() == [40, 40]
        assert len(set(asked.subjects())) == 80  # there are 60 of either sex
        assert 25 <= sum(row["lesion"] for row in asked.rows) <= 55  # one of two slices each: 40 on average, sd 4.5

    def test_more_than_there_are_subjects_takes_a_second_slice_of_some(self):
        asked = choose_asked(REAL, [SEX], 80)
        counts = np.unique(asked.subjects(), return_counts=True)[1]
        assert (len(asked), len(counts), counts.max()) == (160, 120, 2)

    def test_it_does_not_depend_on_who_else_is_there(self):
        few = Slices(REAL.images[:160], REAL.rows[:160])
        chosen = [(row["subject"], row["lesion"]) for row in choose_asked(few, [SEX], 1000).rows]
        assert chosen == [(row["subject"], row["lesion"]) for row in few.rows]
        first, all_of_them = (choose_asked(part, [SEX], 20).rows for part in (few, REAL))
        assert first == all_of_them

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_every_other_subject_has_all_kinds_of_slices_too(self, number):
        """Six slices of 400 subjects: a sixth of each kind, 200 number / 6 with a standard deviation under 6."""
        rows = [{"subject": f"p{person:03d}", "kind": kind} for person in range(400) for kind in range(6)]
        taken = some_slices(Slices(torch.zeros(2400, 1), rows), number)
        assert np.unique(taken.subjects(), return_counts=True)[1].tolist() == [number] * 400
        kinds = [row["kind"] for row in taken.rows if int(row["subject"][1:]) % 2]
        assert np.abs(np.bincount(kinds, minlength=6) - 200 * number / 6).max() < 25

    def test_what_is_chosen_of_chosen_slices_has_all_kinds_again(self):
        """Of 400 subjects two of six slices, of these one: 400 / 6 of each kind, standard deviation 7.5."""
        rows = [{"subject": f"p{i // 6:03d}", "kind": i % 6, "sex": SEX.groups[i // 6 % 2]} for i in range(2400)]
        asked = choose_asked(some_slices(Slices(torch.zeros(2400, 1), rows), 2), [SEX], 200)
        assert np.abs(np.bincount([row["kind"] for row in asked.rows]) - 400 / 6).max() < 25

    def test_images_and_rows_stay_together(self):
        asked = choose_asked(REAL, [SEX], 30)
        place = {(row["subject"], row["lesion"]): i for i, row in enumerate(REAL.rows)}
        chosen = [place[row["subject"], row["lesion"]] for row in asked.rows]
        assert torch.equal(asked.pixels(), REAL.pixels(chosen))
        assert chosen == sorted(chosen)

    def test_two_attributes_are_joined(self):
        grade = Attribute("grade", ["LGG", "HGG"])
        asked = choose_asked(REAL, [SEX, grade], 50)
        for attribute in (SEX, grade):
            assert (np.bincount(attribute.indices(asked.rows)) >= 50).all()
        assert 100 <= len(asked) < 200

    def test_a_group_of_hardly_anybody_is_refused(self):
        few = Slices(REAL.images[:30], REAL.rows[:30])
        with pytest.raises(InputError, match="sex: .* among the validation subjects, at least 20 are needed"):
            choose_asked(few, [SEX], 40)


class TestFinding:
    def test_labels_where_the_finding_can_be_seen(self):
        rows = [
            {"grade": "LGG", "lesion": True},
            {"grade": "HGG", "lesion": True},
            {"grade": "HGG", "lesion": False},
            {"grade": None, "lesion": True},
            {"lesion": True},
        ]
        assert GRADE.labels(rows).tolist() == [0, 1, -1, -1, -1]

    def test_numbers_are_values_like_words(self):
        assert Finding("glaucoma", [0, 1]).labels([{"glaucoma": "1"}, {"glaucoma": 0}]).tolist() == [1, 0]

    def test_two_values_are_needed(self):
        with pytest.raises(InputError, match="finding 'grade'.*give two"):
            Finding("grade", ["LGG", "LGG"])


def test_images_are_those_of_their_prompts(report, folder, kept):
    evaluation = evaluation_in(folder)
    noise = draw(0, "fairness", 160, torch.ones(1), LATENT).noise.flatten(1)
    sex = torch.from_numpy(SEX.indices(evaluation.asked.rows))
    grade = torch.tensor([float(row["grade"] == "HGG" and row["lesion"]) for row in evaluation.asked.rows])
    expected = images_of(sex.float(), grade * torch.tensor([0.1, 1.0])[sex], noise)
    length = 16**0.5  # unit features are brought to elements of order one
    assert kept["features_rows"] == pytest.approx(length * features(expected).numpy(), abs=0.01)


def test_semantic_correlation_by_group(report, kept):
    """Trained on real images: the finding of men is read from generated ones without error, that of women hardly."""
    found = report["attributes"]["sex"]["semantic"]
    asked = choose_asked(REAL, [SEX], 80)
    labels, groups = GRADE.labels(asked.rows), SEX.indices(asked.rows)
    scores = kept["real_to_generated"]
    for group, name in enumerate(SEX.groups):
        own = (groups == group) & (labels >= 0)
        expected = roc_auc_score(labels[own], scores[own])
        assert found["real_to_generated"]["groups"][name]["auc"]["value"] == pytest.approx(expected)
        assert found["real_to_generated"]["groups"][name]["n"] == own.sum()
    assert found["real_to_generated"]["groups"]["male"]["auc"]["value"] > 0.99
    assert found["real_to_generated"]["worst"] == "female"
    assert found["real_to_generated"]["equalized_odds"]["value"] > 0.8  # hardly a woman is called positive
    assert found["real_to_real"]["auc"]["value"] > 0.9
    assert found["real_to_real"]["subjects"] == 120
    assert found["real_to_generated"]["equalized_odds"]["p"] == 1 / 200  # as no deal of the groups' names
    assert found["real_to_decoded"]["auc"]["value"] == pytest.approx(found["real_to_real"]["auc"]["value"], abs=0.1)
    contrast = found["real_to_generated"]["contrast"]
    assert 0 < contrast["ci95"][0] < contrast["value"] < contrast["ci95"][1]  # men minus women


def test_quality_by_group_beside_the_ceiling(report, kept):
    """At equal n: 60 people a group, 30 in either half, of two slices each."""
    entry = report["attributes"]["sex"]
    groups = entry["generated"]["by_group"]["groups"]
    assert entry["generated"]["by_group"]["n_each"] == entry["ceiling"]["by_group"]["n_each"] <= 60
    assert groups["female"]["quality"]["rows"]["kid"]["value"] > groups["male"]["quality"]["rows"]["kid"]["value"]
    assert entry["generated"]["by_group"]["membership"] == "prompt"
    assert entry["ceiling"]["by_group"]["worst"]["rows"] in SEX.groups


def test_denoising_loss_by_group(report):
    """Women lose 1 - .1 = .9, men 0, and each latent i / (N - 1) / 10; the mean of two timesteps adds .1."""
    found = report["attributes"]["sex"]["denoising_loss"]
    women = SEX.indices(choose_asked(REAL, [SEX], 80).rows) == 0
    own = np.linspace(0, 0.1, 160)
    assert found["groups"]["female"]["value"] == pytest.approx(1.0 + own[women].mean())
    assert found["groups"]["male"]["value"] == pytest.approx(0.1 + own[~women].mean())
    assert found["overall"]["value"] == pytest.approx(np.mean(0.1 + 0.9 * women + own))
    assert found["difference"]["value"] == pytest.approx(-0.9 + own[~women].mean() - own[women].mean())
    low, high = found["difference"]["ci95"]
    assert low < found["difference"]["value"] < high < -0.8


def test_the_files(report, folder):
    out = folder / "out"
    assert json.loads((out / "fairness.json").read_text()) == report
    assert report["n_each"] == {"sex": {"female": 80, "male": 80}}
    assert report["finding"] == {"column": "grade", "values": ["LGG", "HGG"], "only": {"lesion": True}}
    rows = list(csv.DictReader((out / "fairness.csv").open()))
    women = [row for row in rows if (row["section"], row["group"], row["measure"]) == ("generated", "female", "kid")]
    kid_of = report["attributes"]["sex"]["generated"]["by_group"]["groups"]["female"]["quality"]["rows"]["kid"]
    assert [float(women[0][key]) for key in ("value", "low", "high")] == [kid_of["value"], *kid_of["ci95"]]
    assert {"generated", "ceiling", "denoising", "real_to_generated"} <= {row["section"] for row in rows}
    table = (out / "fairness.txt").read_text()
    assert len(table.splitlines()) < 32
    assert table.count("equity-scaled, legacy") == 2 + 4  # distances of both sides, AUCs of four directions
    assert (out / "samples.png").stat().st_size > 2000


def test_a_second_evaluation_samples_no_more(report, folder, monkeypatch):
    monkeypatch.setattr(Sampler, "batches", None)
    again = evaluation_in(folder, output_dir=str(folder / "again"))
    assert again.run()["attributes"] == report["attributes"]


class TestComparison:
    def test_a_model_beside_itself_changes_by_nothing(self, report, folder):
        changes = {"output_dir": str(folder / "self"), "compared_with": str(folder / "out")}
        found = evaluation_in(folder, **changes).run()["attributes"]["sex"]["change"]
        kid_changes = found["kid"]["rows"]
        estimates = [
            *(entry for part in found["semantic"].values() for entry in part.values()),
            *(kid_changes["overall"], kid_changes["difference"], *kid_changes["groups"].values()),
            *(found["denoising_loss"]["overall"], *found["denoising_loss"]["groups"].values()),
        ]
        assert len(estimates) == 2 * 5 + 4 + 3
        assert all(entry == {"value": 0, "ci95": [0, 0]} for entry in estimates)

    def test_another_model_is_compared_image_by_image(self, report, compared, folder, kept):
        change = compared["attributes"]["sex"]["change"]
        both = [entry["attributes"]["sex"]["semantic"]["real_to_generated"] for entry in (report, compared)]
        assert change["semantic"]["real_to_generated"]["auc"]["value"] == pytest.approx(
            both[1]["auc"]["value"] - both[0]["auc"]["value"]
        )
        odds = change["semantic"]["real_to_generated"]["equalized_odds"]
        assert odds["ci95"][1] < -0.2  # women are no longer behind
        assert change["kid"]["rows"]["groups"]["female"]["ci95"][1] < 0
        assert change["kid"]["rows"]["groups"]["male"]["value"] == 0
        women = change["denoising_loss"]["groups"]["female"]
        assert women == pytest.approx({"value": -0.9, "ci95": pytest.approx([-0.9, -0.9])})  # the same of every woman

    def test_the_change_of_kid_is_that_of_the_group(self, compared, folder, kept):
        with np.load(folder / "better" / "scores.npz", allow_pickle=False) as file:
            after = file["features_rows"]
        subjects = np.array(REAL.subjects())
        first = np.isin(subjects, np.unique(subjects)[::2]) & (SEX.indices(REAL.rows) == 0)
        women = SEX.indices(choose_asked(REAL, [SEX], 80).rows) == 0
        decoded = Same().reconstruct(REAL.pixels())  # what the generated images are compared with
        real = 4 * features(decoded).numpy()[first]
        expected = kid_change(real, kept["features_rows"][women], after[women], subjects[first])
        found = compared["attributes"]["sex"]["change"]["kid"]["rows"]["groups"]["female"]
        assert found["value"] == pytest.approx(expected.value, abs=1e-4)  # decoded slices are kept as bytes
        difference = kid(real, after[women], subjects[first]).value - (
            kid(real, kept["features_rows"][women], subjects[first]).value
        )
        assert found["value"] == pytest.approx(difference, abs=1e-4)

    def test_the_table_shows_it(self, compared, folder):
        assert "change from" in (folder / "better" / "fairness.txt").read_text()

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"seed": 1}, "another 'seed'"),
            ({"asked": choose_asked(REAL, [SEX], 70)}, "another 'subjects'"),
            ({"fit": partial(FIT, iterations=41)}, "another 'classifier'"),
            ({"spaces": {"other": features}}, "another 'spaces'"),
            ({"finding": Finding("grade", ["HGG", "LGG"], {"lesion": True})}, "another 'finding'"),
            ({"reference": "plain"}, "another 'reference'"),
        ],
    )
    def test_what_cannot_be_paired_is_refused(self, report, folder, changes, what):
        evaluation = evaluation_in(folder, compared_with=str(folder / "out"), **changes)
        with pytest.raises(InputError, match=what):
            evaluation.check()

    def test_a_folder_without_an_evaluation_is_refused(self, folder, tmp_path):
        with pytest.raises(InputError, match=r"scores\.npz: no such file"):
            evaluation_in(folder, compared_with=str(tmp_path)).check()


def test_of_three_groups_the_change_is_that_of_the_gap_there_was():
    """KIDs .1, .2 and .5 become .2, .3 and .3: between the first and the last .4 becomes .1, a change of -.3."""
    changes = [Estimate(value, value, value, 0.0) for value in (0.1, 0.1, -0.2)]
    assert between_groups(changes, by=[0.1, 0.2, 0.5]).value == pytest.approx(-0.2 - 0.1)


class TestRefusals:
    def test_a_judge_that_knows_the_validation_people(self, tmp_path):
        with pytest.raises(InputError, match="real_training and validation share 120 subject"):
            evaluation_in(tmp_path, real_training=REAL).run()

    def test_a_finding_that_no_row_has(self, tmp_path):
        with pytest.raises(InputError, match="finding 'tumour': 0 of 'no' and 0 of 'yes' among the slices of prompts"):
            evaluation_in(tmp_path, finding=Finding("tumour", ["no", "yes"])).run()

    def test_a_group_with_nobody_in_validation(self, tmp_path):
        other = Attribute("sex", ["female", "other"])
        with pytest.raises(InputError, match="sex: 0 of the validation subjects are 'other'"):
            evaluation_in(tmp_path, attributes=[other]).run()

    def test_an_attribute_that_the_prompts_do_not_state(self, tmp_path):
        rows = [{**row, "hand": ("left", "right")[int(row["subject"][1:]) // 7 % 2]} for row in REAL.rows]
        hand, real = Attribute("hand", ["left", "right"]), Slices(REAL.images, rows)
        with pytest.raises(InputError, match="hand: the prompt '.*' is used for '.*' and for '.*'; state the group"):
            evaluation_in(tmp_path, attributes=[hand], real=real, asked=choose_asked(real, [hand], 60)).run()

    def test_an_unknown_reference(self, tmp_path):
        with pytest.raises(InputError, match="reference 'raw': give decoded or plain"):
            evaluation_in(tmp_path, reference="raw").run()

    def test_nothing_is_written_before_that(self, tmp_path):
        with pytest.raises(InputError):
            evaluation_in(tmp_path, finding=Finding("tumour", ["no", "yes"])).run()
        assert not list(tmp_path.rglob("*"))


def test_halves_without_a_group_still_give_a_report(tmp_path):
    """Men and women in turn by their numbers: either half of the people has but one sex."""
    ordered = np.argsort(np.repeat([SEX.groups.index(row["sex"]) for row in REAL.rows[::2]], 2), kind="stable")
    places = [
        place for pair in zip(ordered[:120:2], ordered[120::2], strict=True) for p in pair for place in (p, p + 1)
    ]
    rows = [{**REAL.rows[place], "subject": f"w{number // 2:03d}"} for number, place in enumerate(places)]
    turns = Slices(REAL.images[places], rows)
    found = evaluation_in(tmp_path, real=turns, asked=choose_asked(turns, [SEX], 80)).run()["attributes"]["sex"]
    assert found["generated"]["by_group"] is None
    assert found["generated"]["quality"]["rows"]["kid"]["value"] > 0
    assert "KID, generated: too few images by group" in (tmp_path / "out" / "fairness.txt").read_text()
