"""Weights and gaps against closed forms and small examples by hand."""

import math

import pytest
import torch

from bundle.fairdiffusion.perturbation import (
    published_gap,
    published_weights,
    relative,
    repaired_gap,
    repaired_weights,
)
from bundle.fairdiffusion.weighting import reweigh
from tests.fairdiffusion.toy import GROUPS, toy_members

SCALES = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])


def drawn(number, attributes=2):
    return torch.randn((number, attributes), generator=torch.Generator().manual_seed(0))


def test_published_weights_by_hand():
    """1 + .3 x 2 + .4 x (-1) = 1.2."""
    weights = published_weights(SCALES, torch.tensor([[2, 3]]), GROUPS.offsets, torch.tensor([[2.0, -1.0]]))
    assert weights.tolist() == pytest.approx([1.2])


def test_repaired_weights_by_hand():
    """exp(.3 x 2 - .09 / 2 - .4 - .16 / 2) = exp(.075)."""
    weights = repaired_weights(SCALES, torch.tensor([[2, 3]]), torch.tensor([[2.0, -1.0]]))
    assert weights.tolist() == pytest.approx([math.exp(0.075)])


def test_published_unknown_reads_the_scale_before_its_attribute():
    """For race that is the last of all, .5; for sex it is white's, .3."""
    members = torch.tensor([[-1, 3], [0, -1]])
    weights = published_weights(SCALES, members, GROUPS.offsets, torch.ones(2, 2))
    assert weights.tolist() == pytest.approx([1 + 0.5 + 0.4, 1 + 0.1 + 0.3])


def test_repaired_unknown_has_no_part():
    members = torch.tensor([[-1, 3], [-1, -1]])
    weights = repaired_weights(SCALES, members, torch.ones(2, 2))
    assert weights.tolist() == pytest.approx([math.exp(0.4 - 0.08), 1.0])


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_repaired_weights_are_positive_and_of_mean_one(scale):
    """E exp(s xi - s^2 / 2) = 1; with two attributes the variance is exp(2 s^2) - 1."""
    number = 200_000
    members = toy_members(5).repeat(number // 5, 1)
    weights = repaired_weights(torch.full((5,), scale), members, drawn(number)).double()
    error = math.sqrt((math.exp(2 * scale**2) - 1) / number)
    assert float(weights.mean()) == pytest.approx(1, abs=4 * error)
    assert float(weights.var()) == pytest.approx(math.exp(2 * scale**2) - 1, rel=0.15)
    assert weights.min() > 0


def test_more_than_a_quarter_of_the_published_weights_are_negative():
    """With three attributes at scale one, 1 + a normal of variance 3: P(w < 0) = Phi(-1 / sqrt(3)) = .2819."""
    number = 200_000
    members = torch.tensor([[0, 1, 2]]).expand(number, 3)
    weights = published_weights(torch.ones(3), members, (0, 1, 2), drawn(number, 3))
    expected = 0.5 * math.erfc(1 / math.sqrt(3) / math.sqrt(2))
    assert expected == pytest.approx(0.2819, abs=1e-4)
    assert float((weights < 0).float().mean()) == pytest.approx(expected, abs=0.005)
    assert float(weights.mean()) == pytest.approx(1, abs=0.02)


class TestGap:
    members = torch.tensor([[0, 3], [1, 4], [1, 3], [2, 4], [-1, 3]])
    losses = torch.tensor([1.0, 2.0, 4.0, 5.0, 9.0])

    def test_by_hand(self):
        """Race 1, 3, 5: range 4. Sex (1 + 4 + 9) / 3 = 14 / 3 and 7 / 2: range 7 / 6."""
        for gap in (
            published_gap(self.losses, self.members, GROUPS),
            repaired_gap(self.losses, self.members, GROUPS, 1),
        ):
            assert gap.by_attribute == pytest.approx({"race": 4, "sex": 7 / 6}, rel=1e-6)
            assert gap.total == pytest.approx(4 + 7 / 6, rel=1e-6)

    def test_an_absent_group_is_published_as_the_best_there_is(self):
        gap = published_gap(self.losses[:3], self.members[:3], GROUPS)
        assert gap.by_attribute == pytest.approx({"race": 0, "sex": 0.5})
        assert repaired_gap(self.losses[:3], self.members[:3], GROUPS, 1).by_attribute["race"] == pytest.approx(2)

    def test_small_groups_and_lonely_ones_are_left_out(self):
        """With at least two of each, race has black alone; with four, nothing remains."""
        assert repaired_gap(self.losses, self.members, GROUPS, 2).by_attribute == pytest.approx({"sex": 7 / 6})
        assert repaired_gap(self.losses, self.members, GROUPS, 4) is None


def test_relative_losses_weigh_timesteps_alike():
    """Columns (1, 3) and (200, 200): relative .5, 1.5 and 1, 1; means .75 and 1.25, whatever the scale of a column."""
    losses = torch.tensor([[1.0, 200.0], [3.0, 200.0]])
    assert relative(losses).tolist() == pytest.approx([0.75, 1.25])
    assert relative(losses * torch.tensor([7.0, 0.1])).tolist() == pytest.approx([0.75, 1.25])


class State:
    """An engine after its forward pass, with batch and output."""

    def __init__(self, prediction, label):
        self.output = {"pred": prediction, "label": label, "loss": torch.nan}
        self.batch, self.iteration = {"index": torch.arange(len(label))}, 1
        self.state = self


class Given:
    def __init__(self, weights):
        self.given = torch.tensor(weights)

    def weights(self, iteration, members, losses):
        self.losses = losses
        return self.given


def test_the_loss_is_the_mean_of_weighted_errors():
    """Errors of 1 and 4 (squares of 1 and 2), weights 3 and .5: (3 + 2) / 2."""
    engine = State(torch.tensor([[1.0, 1.0], [2.0, -2.0]], requires_grad=True), torch.zeros(2, 2))
    given = Given([3.0, 0.5])
    reweigh(engine, toy_members(), given)
    assert given.losses.tolist() == [1, 4]
    assert float(engine.output["loss"].detach()) == 2.5
    assert engine.output["weight_min"] == 0.5


def test_half_precision_predictions_do_not_overflow():
    """400^2 = 160000 > 65504, the largest number of half precision."""
    engine = State(torch.full((2, 3), 400, dtype=torch.half, requires_grad=True), torch.zeros(2, 3, dtype=torch.half))
    assert torch.nn.functional.mse_loss(engine.output["pred"], engine.output["label"]).isinf()
    reweigh(engine, toy_members(), Given([1.001, 1.001]))
    assert engine.output["loss"].dtype == torch.float32
    assert float(engine.output["loss"].detach()) == pytest.approx(160_160)


def test_autocast_leaves_the_loss_in_single_precision():
    """Eight bits of bfloat16 would round the weight 1.001 to 1."""
    engine = State(torch.full((2, 3), 1.0, dtype=torch.bfloat16, requires_grad=True), torch.zeros(2, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reweigh(engine, toy_members(), Given([1.001, 1.001]))
    assert float(engine.output["loss"].detach()) == pytest.approx(1.001, rel=1e-6)
