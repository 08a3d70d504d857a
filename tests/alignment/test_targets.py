"""Assignments against exhaustive optimal transport, the guide's own space, and the integral action."""

import itertools

import numpy as np
import ot
import pytest
import torch
from scipy.stats import binom

from bundle.alignment.losses import transport_loss
from bundle.alignment.targets import (
    Assignment,
    IntegralAction,
    assign,
    assign_per_stratum,
    check_written,
    guide_rates,
    guide_target,
    overall_target,
    target_proportions,
)
from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.randomness import generator

SEX = Attribute("sex", ["female", "male"])
PROPORTIONS = (0.0, 0.1, 0.37, 0.5, 0.63, 1.0)
BATCHES = (1, 2, 7, 24)


def stream():
    return generator(0, "test")


def two_groups(score):
    score = torch.as_tensor(score, dtype=torch.float64)
    return torch.stack([1 - score, score], 1)


def target_of(proportion):
    return torch.tensor([1 - proportion, proportion], dtype=torch.float64)


def transport_over_all_counts(probabilities, proportion):
    """The definition: optimal transport for every number of images of group 1, weighted by its binomial chance."""
    number = len(probabilities)
    cost = np.linalg.norm(probabilities[:, None].numpy() - np.eye(2), axis=2)
    plans = [ot.emd(np.ones(number), np.array([number - n, n], dtype=float), cost) for n in range(number + 1)]
    return np.tensordot(binom.pmf(np.arange(number + 1), number, proportion), np.array(plans), axes=1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("proportion", PROPORTIONS)
class TestTwoGroups:
    def test_against_transport_over_all_counts(self, proportion, batch):
        probabilities = two_groups(torch.rand(batch, generator=stream(), dtype=torch.float64))
        expected = transport_over_all_counts(probabilities, proportion)
        found = assign(probabilities, target_of(proportion), stream()).expected
        assert np.allclose(found, expected, atol=1e-6)

    def test_mean_is_the_target(self, proportion, batch):
        probabilities = two_groups(torch.rand(batch, generator=stream()))
        mean = assign(probabilities, target_of(proportion), stream()).expected.double().mean(0)
        assert mean.tolist() == pytest.approx([1 - proportion, proportion], abs=1e-6)

    def test_order_of_the_batch_does_not_matter(self, proportion, batch):
        probabilities = two_groups(torch.rand(batch, generator=stream()))
        order = torch.randperm(batch, generator=stream())
        found = assign(probabilities, target_of(proportion), stream()).expected
        assert torch.equal(assign(probabilities[order], target_of(proportion), stream()).expected, found[order])


def test_the_share_that_is_assigned_is_not_the_mirrored_one():
    """At 24 images and 63 % there are 15 of group 1, 20 with u <= .2 (13 of group 1, 7 of group 0)."""
    assignment = assign(two_groups(torch.linspace(0.02, 0.98, 24)), target_of(0.63), stream())
    kept = assignment.weight(0.2).bool()
    assert int(assignment.label.sum()) == 15
    assert (int(assignment.label[kept].sum()), int((1 - assignment.label[kept]).sum())) == (13, 7)
    assert assignment.label.tolist() == [0] * 9 + [1] * 15  # the images most like group 1 are to show it


def test_ties_are_broken_at_random_and_by_the_generator():
    probabilities = two_groups(torch.full((8,), 0.5))
    first, again = (assign(probabilities, target_of(0.3), stream()).expected for _ in range(2))
    other = assign(probabilities, target_of(0.3), generator(1, "test")).expected
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.allclose(first.sort(0).values, other.sort(0).values)


def test_not_a_number_is_refused():
    probabilities = two_groups([0.2, float("nan")])
    with pytest.raises(ValueError, match="not finite"):
        assign(probabilities, target_of(0.5), stream())


class TestManyGroups:
    TARGET = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    @staticmethod
    def brute_force(probabilities, target):
        """Every labelling of the batch, the cheapest for each count, averaged over the multinomial of the counts."""
        number, groups = probabilities.shape
        cost = torch.cdist(probabilities, torch.eye(groups).double())
        best: dict[tuple, tuple] = {}
        chance: dict[tuple, float] = {}
        for labels in itertools.product(range(groups), repeat=number):
            count = tuple(labels.count(group) for group in range(groups))
            price = float(sum(cost[i, label] for i, label in enumerate(labels)))
            best[count] = min(best.get(count, (np.inf, ())), (price, labels))
            chance[count] = chance.get(count, 0.0) + float(torch.tensor([target[label] for label in labels]).prod())
        return sum(torch.eye(groups)[list(best[count][1])].double() * chance[count] for count in best)

    def test_against_exhaustive_search(self):
        probabilities = torch.rand(5, 3, generator=stream(), dtype=torch.float64).softmax(1)
        found = torch.stack([assign(probabilities, self.TARGET, generator(i, "draws")).expected for i in range(40)])
        expected = self.brute_force(probabilities, self.TARGET)
        # 40 times 100 draws: an entry's standard error is at most sqrt(.25 / 4000) = .008
        assert (found.mean(0) - expected).abs().max() < 4 * 0.008

    def test_rows_sum_to_one_and_columns_to_the_target_on_average(self):
        probabilities = torch.rand(24, 3, generator=stream(), dtype=torch.float64).softmax(1)
        expected = assign(probabilities, self.TARGET, stream()).expected
        assert torch.allclose(expected.sum(1), torch.ones(24))
        # 2,400 draws of a group: standard error sqrt(.25 / 2400) = .01
        assert expected.mean(0).tolist() == pytest.approx(self.TARGET.tolist(), abs=0.04)

    def test_equal_images_are_treated_alike(self):
        """Without a shuffle the solver would give the first images of the batch to the first group, every time."""
        equal = torch.full((12, 3), 1 / 3, dtype=torch.float64)
        mean = torch.stack([assign(equal, self.TARGET, generator(i, "ties")).expected for i in range(60)]).mean(0)
        assert (mean - self.TARGET).abs().max() < 0.2

    def test_a_group_with_no_share_is_assigned_to_nobody(self):
        probabilities = torch.rand(6, 3, generator=stream(), dtype=torch.float64).softmax(1)
        target = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
        assert assign(probabilities, target, stream()).expected[:, 1].tolist() == [0.0] * 6


class TestCertainty:
    def test_two_groups(self):
        assignment = Assignment(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.3, 0.7]]))
        assert assignment.uncertainty.tolist() == pytest.approx([0, 0.5, 0.3])
        assert assignment.weight().tolist() == pytest.approx([1, 0, 1 - 2 * 0.3])
        assert assignment.weight(0.3).tolist() == [1, 0, 1]

    def test_three_groups(self):
        assignment = Assignment(torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0], [0.5, 0.25, 0.25]]))
        assert assignment.weight().tolist() == pytest.approx([0, 1, 1 - 0.5 * 3 / 2], abs=1e-6)

    @pytest.mark.parametrize(
        ("max_uncertainty", "still"),
        [(0.2, range(16, 22)), (None, range(19, 20))],
        ids=["published cut", "weights"],
    )
    def test_shares_at_which_nothing_pulls(self, max_uncertainty, still):
        """Of 32 images, n are surely of group 1 and the others surely not; the target is .58.

        Rank k is to be group 1 when F(k; 32, .42) > 1/2, which 19 are. With the cut at .2 only 16 of these and 11 of
        the others count, so that every n from 16 to 32 - 11 = 21 (shares .50 to .66) leaves the loss flat.
        """
        flat = []
        for number in range(33):
            logits = torch.zeros(32, 2)
            logits[:, 1] = 30 * (2.0 * (torch.arange(32) >= 32 - number) - 1)
            logits.requires_grad_()
            assignment = assign(logits.softmax(1), target_of(0.58), stream())
            (gradient,) = torch.autograd.grad(transport_loss(logits, assignment, max_uncertainty).sum(), logits)
            if gradient.norm() < 1e-6:
                flat.append(number)
        assert flat == list(still)


class TestStrata:
    def test_each_stratum_has_its_own_target(self):
        score = torch.rand(20, generator=stream())
        strata = ["low"] * 8 + ["high"] * 12
        mixed = torch.randperm(20, generator=stream())
        targets = {"low": target_of(0.25), "high": target_of(0.75)}
        found = assign_per_stratum(two_groups(score)[mixed], [strata[i] for i in mixed], targets, stream()).expected
        low = torch.tensor([strata[i] == "low" for i in mixed])
        assert found[low, 1].mean().item() == pytest.approx(0.25)
        assert found[~low, 1].mean().item() == pytest.approx(0.75)
        alone = assign(two_groups(score)[mixed][low], target_of(0.25), stream()).expected
        assert torch.allclose(found[low], alone)

    def test_a_stratum_without_target(self):
        with pytest.raises(ValueError, match="stratum 'G4' has no target; there are G2, G3"):
            assign_per_stratum(two_groups([0.5]), ["G4"], {"G2": target_of(0.5), "G3": target_of(0.5)}, stream())


class TestGuideSpace:
    def test_two_groups(self):
        """q* = f + (s - f) target: .2 + (.9 - .2) .58 = .606."""
        rates = torch.tensor([[0.8, 0.2], [0.1, 0.9]])
        assert guide_target(target_of(0.58), rates).tolist() == pytest.approx([0.394, 0.606])

    def test_a_perfect_guide_changes_nothing(self):
        target = torch.tensor([0.2, 0.5, 0.3])
        assert guide_target(target, torch.eye(3)).tolist() == pytest.approx(target.tolist())

    def test_rates_are_counted_on_decoded_slices_of_known_groups(self):
        class Slices:
            values = torch.tensor([0.1, 0.9, 0.8, 0.6, 0.55, 0.2, 0.9])

            def __init__(self, *sexes):
                self.rows = [{"sex": sex, "subject": str(number)} for number, sex in enumerate(sexes)]

            def subjects(self):
                return [row["subject"] for row in self.rows]

            def pixels(self, index):
                return self.values[index].view(-1, 1, 1, 1)

        class Darker:
            def reconstruct(self, images):
                return images - 0.15

        class Guide:  # male from .5 on
            def predict(self, images):
                score = images.flatten()
                return torch.stack([torch.full_like(score, 0.5), score], 1)

        slices = Slices("female", "female", "male", "male", "male", "male", None)
        rates = guide_rates(Guide(), Darker(), slices, SEX)
        # decoded: women -.05 and .75; men .65, .45, .40 and .05 (before decoding three of four were above .5)
        assert rates.matrix.tolist() == [[0.5, 0.5], [0.75, 0.25]]
        with pytest.raises(InputError, match="female"):
            guide_rates(Guide(), Darker(), Slices(*["male"] * 7), SEX)


class TestIntegralAction:
    def test_begins_when_a_batch_comes_near(self):
        action, target = IntegralAction(gain=0.1, start=0.1), target_of(0.58)
        action.update(target, target_of(0.80))
        assert action(target).tolist() == target.tolist()
        action.update(target, target_of(0.66))  # first within .1
        action.update(target, target_of(0.78))  # goes on although it is far again
        # sum of what was missed: (.58 - .66) + (.58 - .78) = -.28; times .1
        assert action(target).tolist() == pytest.approx([0.42 + 0.028, 0.58 - 0.028])

    def test_is_limited_and_does_not_wind_up(self):
        action, target = IntegralAction(gain=0.5, start=1.0, limit=0.1), target_of(0.5)
        for _ in range(50):
            action.update(target, target_of(0.9))
        assert action(target).tolist() == pytest.approx([0.6, 0.4])
        action.update(target, target_of(0.3))  # .5 (.5 - .3) = .1: one batch is enough to be back at the target
        assert action(target).tolist() == pytest.approx([0.5, 0.5])

    def test_stays_on_the_simplex(self):
        action, target = IntegralAction(gain=1.0, start=1.0), target_of(0.95)
        action.update(target, target_of(0.5))
        assert action(target).tolist() == pytest.approx([0, 1])

    def test_no_gain_no_shift(self):
        action, target = IntegralAction(gain=0.0, start=1.0), target_of(0.5)
        action.update(target, target_of(0.9))
        assert action(target).tolist() == [0.5, 0.5]

    @pytest.mark.parametrize("begun", [False, True])
    def test_state_survives(self, begun, tmp_path):
        action, target = IntegralAction(gain=0.1, start=1.0 if begun else 0.0), target_of(0.5)
        action.update(target, target_of(0.7))
        torch.save(action.state_dict(), tmp_path / "state.pt")
        other = IntegralAction(gain=0.1)
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert other(target).tolist() == action(target).tolist()
        assert (other.sum is None) is not begun


ROWS = [
    {"subject": "a", "sex": "male", "grade": "HGG"},
    {"subject": "a", "sex": "male", "grade": "HGG"},
    {"subject": "b", "sex": "female", "grade": "HGG"},
    {"subject": "c", "sex": "male", "grade": "LGG"},
    {"subject": "d", "sex": None, "grade": "LGG"},
    {"subject": "e", "sex": "male", "grade": None},
]


def test_the_overall_target_goes_by_the_prompts():
    targets = {"HGG": torch.tensor([0.4, 0.6]), "LGG": torch.tensor([0.6, 0.4]), "all": torch.tensor([0.5, 0.5])}
    shares = torch.tensor([0.6, 0.1, 0.3])
    found = overall_target(targets, ["HGG", "LGG", "all"], shares)
    assert found.tolist() == pytest.approx([0.24 + 0.06 + 0.15, 0.36 + 0.04 + 0.15])


def test_a_stratum_of_the_prompts_without_a_target():
    with pytest.raises(InputError, match="target: no proportions for stratum 'G4'; there are all"):
        overall_target({"all": torch.tensor([0.5, 0.5])}, ["all", "G4"], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("written", "stratum", "message"),
    [
        ({"male": 0.7, "female": 0.7}, None, "sum to 1.4"),
        ({"mal": 0.3}, None, "unknown group 'mal'"),
        ({"HGG": {"male": 0.7}, "LGG": {"male": 1.7}}, "grade", "leaves"),
        ({"male": 0.3}, "grade", "give a proportion for each of female, male"),
        (0.3, "grade", "give a proportion for each of female, male"),
    ],
)
def test_what_cannot_be_proportions_is_found_without_a_cohort(written, stratum, message):
    with pytest.raises(InputError, match=message):
        check_written(SEX, written, stratum)


def test_proportions_that_can_be():
    check_written(SEX, None, None)
    check_written(SEX, {"male": 0.3}, None)
    check_written(SEX, {"HGG": {"male": 0.7}}, "grade")


class TestTargetProportions:
    def test_by_number(self):
        assert target_proportions(SEX, {"male": 0.3}, [])["all"].tolist() == pytest.approx([0.7, 0.3])

    def test_by_cohort_counts_subjects(self):
        assert target_proportions(SEX, None, ROWS)["all"].tolist() == pytest.approx([1 / 4, 3 / 4])

    def test_by_cohort_within_strata(self):
        found = target_proportions(SEX, None, ROWS, "grade")
        assert {name: value.tolist() for name, value in found.items()} == {
            "HGG": [0.5, 0.5],
            "LGG": [0.0, 1.0],
            "all": [0.25, 0.75],
        }

    def test_by_number_within_strata(self):
        rows = [*ROWS, {"subject": "f", "sex": "male", "grade": "LGG"}]  # a and b are HGG, c, d and f LGG
        found = target_proportions(SEX, {"HGG": {"male": 0.6}, "LGG": {"male": 0.4}}, rows, "grade")
        assert found["HGG"].tolist() == pytest.approx([0.4, 0.6])
        assert found["all"].tolist() == pytest.approx([1 - 0.48, (2 * 0.6 + 3 * 0.4) / 5])

    @pytest.mark.parametrize(
        ("written", "stratum", "message"),
        [
            ({"men": 0.3}, None, "target: unknown group 'men'"),
            ({"male": 0.3, "female": 0.3}, None, "sum to 0.6"),
            ({"HGG": {"male": 0.5, "female": 0.6}}, "grade", "target, HGG: .* sum to 1.1"),
            ({"male": 0.3}, "grade", "target, male: 0.3; give a proportion for each of female, male"),
            ({"HGG": {"male": 0.3}}, None, "unknown group 'HGG'"),
            ({"HGG": {"male": 0.3}, "G2": {"male": 0.3}}, "grade", "stratum 'G2' is not in column 'grade'"),
        ],
    )
    def test_what_is_not_a_proportion(self, written, stratum, message):
        with pytest.raises(InputError, match=message):
            target_proportions(SEX, written, ROWS, stratum)
