"""Quality by group: everything at one n, and the planted collapse of a group is seen."""

import numpy as np
import pytest
import torch

from bundle.evaluation.distances import frechet_distance
from bundle.evaluation.estimate import difference
from bundle.evaluation.likeness import (
    Texts,
    agreement_with_text,
    common_sizes,
    compared,
    diversity,
    halves,
    likeness,
    some,
)
from bundle.evaluation.quality import kid
from bundle.evaluation.readings import Readings

GROUPS = ("female", "male")


def images_and_features(rng, number, spread=1.0):
    features = spread * rng.standard_normal((number, 8))
    images = torch.from_numpy(rng.random((number, 1, 24, 24)).astype(np.float32))
    return images, features.astype(np.float32)


def readings(number, seed, male=0.5, each=1, spread=(1.0, 1.0)):
    """``each`` images a subject; the features of women and men spread as told."""
    rng = np.random.default_rng(seed)
    groups = (np.arange(number) // each % 100 < 100 * male).astype(int)
    images, features = images_and_features(rng, number)
    features *= np.array(spread, dtype=np.float32)[groups][:, None]
    return Readings(images, {}, {"space": features}, {}, np.arange(number) // each, groups)


def test_halves_share_no_subject():
    parts = halves(readings(200, 0, each=4))
    assert not set(parts.first.subjects) & set(parts.second.subjects)
    assert len(parts.first) + len(parts.second) == 200


def test_one_number_for_all():
    """300 real images, half of them women, in halves of 150 with 75 of either; of 400 generated 80 are women."""
    real, made = readings(300, 0, each=1), readings(400, 1, male=0.8)
    assert common_sizes([made], real, 2) == (150, 75 if (halves(real).first.groups == 0).sum() >= 75 else 70)
    few = made[np.flatnonzero(made.groups == 1)[:200]]
    assert common_sizes([few], real, 2)[1] == 0
    assert common_sizes([made], readings(300, 0, each=30), 2) == (0, 0)  # ten people


def test_some_are_drawn_once_and_always_the_same():
    made = readings(50, 0)
    chosen = some(made, 20)
    assert len(set(chosen.subjects.tolist())) == 20
    assert (some(made, 20).subjects == chosen.subjects).all()
    assert some(made, 50) is made


def test_the_distances_are_those_of_the_images_drawn():
    made, real = readings(200, 1), readings(150, 2)
    found = compared(made, real, 100)["space"]
    x, y = (some(part, 100).features["space"] for part in (real, made))
    assert found["n"] == 100
    assert found["fd"].value == pytest.approx(frechet_distance(x, y))
    assert found["fd"].low >= 0
    assert found["coverage"].high <= 1
    assert compared(made, real, 0) == {}


def test_a_group_that_collapsed_is_the_worst():
    real, made = readings(400, 0), readings(400, 1, spread=(1.0, 0.2))
    sizes = common_sizes([made], real, 2)
    found = likeness(made, real, sizes, GROUPS, "judge")["by_group"]
    assert found["worst"] == {"space": "male"}
    assert found["difference"]["space"]["kid"].low > 0
    assert found["n_each"] == sizes[1]
    quality = {group: entry["quality"]["space"] for group, entry in found["groups"].items()}
    assert quality["male"]["coverage"].high < quality["female"]["coverage"].low


def test_a_collapsed_group_is_caught_and_an_honest_one_is_not():
    """The spread of one group's features shrunk to two fifths, 100 images of each: 100 repeats."""
    found = {0.4: 0, 1.0: 0}
    for seed in range(100):
        real = some(readings(400, 3 * seed), 400)
        for spread in found:
            made = readings(200, 3 * seed + 1, spread=(1.0, spread))
            pairs = [(made[made.groups == g], some(real[real.groups == g], 100)) for g in range(2)]
            women, men = (kid(r.features["space"], m.features["space"], r.subjects) for m, r in pairs)
            away = difference(men, women)
            found[spread] += away.low > 0 or away.high < 0
    assert found[0.4] >= 90
    assert found[1.0] <= 10


def test_without_enough_of_a_group_nothing_is_said_of_it():
    made = readings(100, 1, male=1.0)
    entry = likeness(made, readings(400, 0), common_sizes([made], readings(400, 0), 2), GROUPS, "judge")
    assert (entry["by_group"], entry["equity_scaled"]) == (None, None)
    assert entry["quality"]["space"]["n"] == 100
    assert entry["diversity"]["pairs"] == 50


def test_text_and_image():
    """Images of unit features e_1, prompts e_1 and (e_1 + e_2) / sqrt(2): scores 100 and 70.7, half each."""
    made = readings(40, 0)
    unit = np.tile(np.eye(8)[0] * np.sqrt(8), (40, 1))
    made = Readings(made.images, {}, {"space": unit}, {}, made.subjects, made.groups)
    texts = Texts("space", np.stack([np.eye(8)[0], (np.eye(8)[0] + np.eye(8)[1]) / np.sqrt(2)]))
    entry = agreement_with_text(made, np.arange(40) % 2, texts)
    assert entry["value"] == pytest.approx(50 + 50 / np.sqrt(2))
    assert (entry["n"], entry["space"]) == (40, "space")


def test_diversity_says_what_it_rests_on():
    entry = diversity(readings(60, 0))
    assert (entry["n"], entry["pairs"], entry["scales"]) == (60, 30, 2)
