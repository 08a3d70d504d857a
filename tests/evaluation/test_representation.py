"""What is said beside the adjusted count: calibration, design effect, round trips, stated groups; swapped labels."""

import numpy as np
import pytest
import torch

from bundle.evaluation.readings import Readings
from bundle.evaluation.representation import (
    People,
    by_prompt,
    calibration_error,
    design_effect,
    histogram,
    in_proportion,
    judge_details,
    obedience,
    representation,
)
from tests.evaluation.simulate import simulate

SEXES = ("female", "male")
TARGET = {"female": 0.4, "male": 0.6}


def readings(probabilities, groups=None, subjects=None, **others):
    """Images of which only the judge's probabilities (N, 2), or those of men (N,), are known."""
    p = {name: _two(rows) for name, rows in {"judge": probabilities, **others}.items()}
    number = len(p["judge"])
    return Readings(
        torch.zeros(number, 1, 1, 1),
        p,
        {},
        {},
        np.arange(number) if subjects is None else np.asarray(subjects),
        np.full(number, -1) if groups is None else np.asarray(groups),
    )


def _two(p):
    p = np.asarray(p, dtype=float)
    return p if p.ndim == 2 else np.stack([1 - p, p], axis=1)


def simulated(seed, share=0.6, accuracy=0.9, **how):
    found = simulate(np.random.default_rng(seed), accuracy, 400, 4, 1024, share, **how)
    return readings(found.generated), People(SEXES, readings(found.validation, found.truth, found.subjects))


class TestSwappedLabels:
    """A planted fault: female and male are exchanged in the table of the validation subjects, or in the prompts."""

    def test_of_the_people_the_judge_is_then_worse_than_chance_and_nothing_is_measured(self):
        found = {False: 0, True: 0}
        for seed in range(100):
            made, people = simulated(seed)
            for swapped in found:
                labels = 1 - people.readings.groups if swapped else people.readings.groups
                own = People(SEXES, people.readings.of_groups(labels))
                entry = representation(made, own, [], TARGET)
                found[swapped] += entry["round_trip"][0]["ci95"]["male"] == [0, 1]
        assert found[True] >= 90
        assert found[False] <= 10

    def test_of_the_prompts_the_judge_then_moves_the_wrong_way(self):
        """Images of the stated groups, of which each prompt gets the other's: 128 each, a judge of accuracy .9."""
        found = {False: 0, True: 0}
        for seed in range(100):
            women, people = simulated(seed, share=0.05)
            men, _ = simulated(1000 + seed, share=0.95)
            for swapped in found:
                stated = dict(zip(SEXES, (men, women) if swapped else (women, men), strict=True))
                first = {group: made[np.arange(128)] for group, made in stated.items()}
                found[swapped] += obedience(first, people)["difference"].high < 0
        assert found[True] >= 90
        assert found[False] <= 10


def test_a_second_judge_that_knows_nothing_says_nothing():
    made, people = simulated(0)
    rng = np.random.default_rng(0)
    guess = lambda part: rng.random(len(part))  # noqa: E731
    made = readings(made.probabilities["judge"], second=guess(made))
    known = people.readings
    people = People(SEXES, readings(known.probabilities["judge"], known.groups, known.subjects, second=guess(known)))
    assert representation(made, people, [], TARGET)["second_judge"] is None


def test_a_second_judge_that_agrees_does_not_differ():
    made, people = simulated(0)
    p = made.probabilities["judge"]
    known = people.readings
    own = readings(known.probabilities["judge"], known.groups, known.subjects, second=known.probabilities["judge"])
    entry = representation(readings(p, second=p), People(SEXES, own), [], TARGET)["second_judge"]
    assert (entry["differ"], entry["difference"].value) == (False, 0)


def test_scores_fill_bins_and_weights_count():
    entry = histogram([0, 0.04, 0.06, 1.0], [1, 2, 4, 8])
    assert entry["counts"][[0, 1, 19]].tolist() == [3, 4, 8]
    assert len(entry["edges"]) == 21


def test_people_in_the_targets_proportions():
    """Four women, one of them unclear, and one clear man; the target is 60 % men.

    Each woman counts .4 / 4, so .1 of the images are unclear; the guide errs on another woman: agreement .9.
    """
    people = People(SEXES, readings([0.1, 0.1, 0.1, 0.4, 0.9], [0, 0, 0, 0, 1], guide=[0.8, 0.1, 0.1, 0.4, 0.9]))
    entry = in_proportion(people, TARGET)
    assert entry["ambiguity"] == pytest.approx(0.1)
    assert entry["agreement"] == pytest.approx(0.9)
    assert entry["scores"]["counts"].sum() == pytest.approx(5)
    assert entry["scores"]["counts"][18] == pytest.approx(0.6 * 5)  # the man's .9


def test_calibration_error_by_hand():
    """Ten images at .9, of which 6 are right: .3 off; ten at .65, all right: .35 off. Half each: .325."""
    p = _two([0.9] * 10 + [0.65] * 10)
    truth = np.array([1] * 6 + [0] * 4 + [1] * 10)
    assert calibration_error(p, truth) == pytest.approx(0.325)


def test_design_effect_of_copies_is_their_number():
    """Each of 40 persons four times the same slice: a variance four times that of independent images.

    The ridge of the rates, one call at random, adds .25 / (20 x 19) to V = s (1 - s) / 19.
    """
    person = np.repeat(np.arange(40), 4)
    truth = person % 2
    wrong = person % 8 < 2  # a quarter of either group
    people = People(SEXES, readings(np.where(wrong, 1 - truth, truth), truth, person))
    s = 0.75
    clustered = (20 * s * (1 - s) + 0.25) / (20 * 19)
    assert design_effect(people) == pytest.approx(clustered / (s * (1 - s) / 80))


def test_the_largest_shift_is_that_of_the_least_noise():
    truth = np.arange(200) % 2
    people = People(SEXES, readings(truth, truth))

    def treated(errors, strength):
        calls = np.where(np.arange(200) < 2 * errors, 1 - truth, truth)
        return People(SEXES, readings(calls, truth), "noised and denoised", strength)

    entry = judge_details(people, [treated(2, 0.1), treated(30, 0.25)])
    assert [trip["shift"] for trip in entry["round_trip"]] == [0, pytest.approx(0.02), pytest.approx(0.3)]
    assert entry["largest_shift"] == pytest.approx(0.02)
    assert entry["youden"] == 1


def test_prompts_with_few_images_are_not_listed():
    truth = np.arange(100) % 2
    people = People(SEXES, readings(truth, truth))
    made, prompt = readings(np.arange(50) % 2), np.repeat([0, 1, 2], [20, 19, 11])
    rows = by_prompt(made, prompt, ["a", "b", "c"], people)
    assert [(row["prompt"], row["n"]) for row in rows] == [("a", 20)]
    assert rows[0]["proportion"]["male"] == pytest.approx(0.5)
