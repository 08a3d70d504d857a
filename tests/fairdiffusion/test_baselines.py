"""The baselines against restatements in numpy, and on the stock trainer."""

import math

import numpy as np
import pytest
import torch
from monai.engines.utils import IterationEvents

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.fairdiffusion.baselines import FixedNoise, GroupDRO, Importance, WeightedLoss, balanced
from bundle.fairdiffusion.groups import Groups
from bundle.fairdiffusion.perturbation import published_weights
from tests.fairdiffusion.toy import GROUPS, toy_job, toy_members
from tests.toy import At

SEX = Groups([Attribute("sex", ["female", "male"])])


def one(*places):
    return torch.tensor(places)[:, None]


class TestFixedNoise:
    def test_it_is_the_published_weights_with_scales_of_one(self):
        noise = FixedNoise(GROUPS, seed=0)
        members = toy_members()
        weights = torch.cat([noise.weights(iteration, members, torch.ones(24)) for iteration in range(2000)])
        assert float((weights < 0).float().mean()) == pytest.approx(0.5 * math.erfc(0.5), abs=0.01)  # Phi(-1 / sqrt 2)
        assert float(weights.mean()) == pytest.approx(1, abs=4 * math.sqrt(2 / 48000))
        assert torch.equal(noise.weights(3, members, torch.ones(24)), weights[72:96])

    def test_the_unknown_add_no_noise(self):
        assert FixedNoise(GROUPS, seed=0).weights(0, torch.full((4, 2), -1), torch.ones(4)).tolist() == [1] * 4

    def test_no_scale_is_plain_training(self):
        handler = WeightedLoss(FixedNoise(GROUPS, seed=0, scale=0.0), toy_members())
        assert torch.equal(toy_job(handler).run().weights(), toy_job().run().weights())
        assert published_weights(torch.zeros(5), toy_members(), (0, 3), torch.ones(24, 2)).tolist() == [1] * 24


class TestImportance:
    def test_by_hand(self):
        """Three women, one man: (1/2) / (3/4) = 2/3 and (1/2) / (1/4) = 2, of mean (3 x 2/3 + 2) / 4 = 1."""
        importance = Importance(SEX, one(0, 0, 0, 1))
        assert importance.weights(0, one(0, 1), torch.ones(2)).tolist() == pytest.approx([2 / 3, 2])

    def test_a_target(self):
        importance = Importance(SEX, one(0, 0, 0, 1), {"sex": {"female": 0.9}})
        assert importance.weights(0, one(0, 1), torch.ones(2)).tolist() == pytest.approx([1.2, 0.4])

    def test_the_mean_over_the_training_latents_is_one(self):
        """Attributes that depend on each other, and some unknown: the product's own mean is not one."""
        members = torch.tensor([[0, 3]] * 5 + [[1, 4]] * 2 + [[2, 4]] + [[-1, 4]] * 3 + [[0, -1]])
        importance = Importance(GROUPS, members)
        weights = importance.weights(0, members, torch.ones(12))
        assert float(importance.mean) != pytest.approx(1, abs=0.01)
        assert float(weights.double().mean()) == pytest.approx(1)
        # Race known 9 times: asian 6, (1/3) / (6/9) = 1/2. Sex known 11 times: male 6, (1/2) / (6/11) = 11/12.
        raw = weights.double() * importance.mean
        assert raw[[-1, 8]].tolist() == pytest.approx([1 / 2, 11 / 12])

    def test_what_cannot_be_weighed_is_refused(self):
        with pytest.raises(InputError, match="group 'sex/male': no training latent"):
            Importance(SEX, one(0, 0))
        with pytest.raises(InputError, match="targets: no attribute 'age'"):
            Importance(SEX, one(0, 1), {"age": {"old": 0.5}})
        with pytest.raises(InputError, match="targets::sex: unknown group 'men'"):
            Importance(SEX, one(0, 1), {"sex": {"men": 0.5}})


class TestGroupDRO:
    def test_it_is_the_rule_in_words(self):
        """q_g <- q_g exp(eta L_g) among those present, who keep what they had together; sum of q_g L_g over them."""
        random = np.random.default_rng(0)
        dro, q, eta = GroupDRO(GROUPS, step=0.5), [np.full(3, 1 / 3), np.full(2, 1 / 2)], 0.5
        for _ in range(3):
            labels = np.stack([random.integers(-1, 2, 10), random.integers(-1, 2, 10)], axis=1)  # nobody is white
            losses, expected = random.uniform(0, 2, 10), 0.0
            for a in range(2):
                means = [
                    losses[labels[:, a] == g].mean() if (labels[:, a] == g).any() else None for g in range(len(q[a]))
                ]
                present = [g for g, m in enumerate(means) if m is not None]
                together = sum(q[a][g] for g in present)
                grown = {g: q[a][g] * np.exp(eta * means[g]) for g in present}
                for g in present:
                    q[a][g] = together * grown[g] / sum(grown.values())
                expected += sum(q[a][g] * m for g, m in enumerate(means) if m is not None) / 2
            members = torch.from_numpy(np.where(labels < 0, -1, labels + np.array([0, 3])))
            weights = dro.weights(0, members, torch.from_numpy(losses))
            assert float((weights.double() * torch.from_numpy(losses)).mean()) == pytest.approx(expected, rel=1e-6)
            assert dro.q.tolist() == pytest.approx(np.concatenate(q).tolist())

    def test_the_worst_group_gains(self):
        dro = GroupDRO(SEX, step=0.1)
        for iteration in range(50):
            dro.weights(iteration, one(0, 0, 0, 1), torch.tensor([1.0, 1.0, 1.0, 2.0]))
        # Fifty times a difference of .1: odds of exp(5)
        assert float(dro.q[1] / dro.q[0]) == pytest.approx(math.exp(5))

    def test_a_rare_worse_group_gains_though_most_batches_lack_it(self):
        """In one of ten batches there is a man, of loss 1.2; women have 1: odds of exp(.5 x .2) for each of his ten."""
        dro = GroupDRO(SEX, step=0.5)
        for iteration in range(100):
            man = iteration % 10 == 0
            dro.weights(0, one(0, 0, 0, int(man)), torch.tensor([1.0, 1.0, 1.0, 1.2 if man else 1.0]))
        assert float(dro.q[1] / dro.q[0]) == pytest.approx(math.exp(10 * 0.5 * 0.2), rel=1e-6)

    def test_losses_that_are_no_numbers_leave_it_alone(self):
        dro = GroupDRO(SEX)
        dro.weights(0, one(0, 1), torch.tensor([torch.nan, 1.0]))
        assert dro.q.tolist() == [0.5, 0.5]

    def test_a_resumed_run_is_the_same(self, tmp_path):
        class Killed(Exception):
            pass

        def kill(_):
            raise Killed

        def handler():
            return WeightedLoss(GroupDRO(GROUPS, step=0.5), toy_members())

        whole = toy_job(handler()).run()
        killed = toy_job(handler(), tmp_path, (At(IterationEvents.FORWARD_COMPLETED, kill, 5),))
        with pytest.raises(Killed):
            killed.run()
        resumed = toy_job(handler(), tmp_path).run()
        assert torch.equal(resumed.weights(), whole.weights())
        assert torch.equal(resumed.handler.weighting.q, whole.handler.weighting.q)
        assert not torch.allclose(whole.handler.weighting.q[3:], torch.tensor(0.5, dtype=torch.float64))

    def test_a_weighting_without_state_has_an_empty_one(self):
        handler = WeightedLoss(Importance(GROUPS, toy_members()), toy_members())
        assert handler.state_dict() == {}
        handler.load_state_dict({})


class TestBalanced:
    def test_one_attribute_is_exact(self):
        """Three women share a half, one man has the other."""
        assert balanced(one(0, 0, 0, 1), SEX).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])

    def test_several_attributes_at_once(self):
        members = torch.tensor(
            [[0, 3]] * 40 + [[0, 4]] * 3 + [[1, 3]] * 5 + [[1, 4]] * 20 + [[2, 3]] * 2 + [[2, 4]] * 9
        )
        share = balanced(members, GROUPS)
        totals = [float(share[(members == place).any(1)].sum()) for place in range(5)]
        assert totals == pytest.approx([1 / 3] * 3 + [1 / 2] * 2)
        assert bool((share > 0).all())

    def test_the_unknown_keep_their_share(self):
        share = balanced(one(0, 0, 0, 1, -1), SEX)
        assert share.tolist() == pytest.approx([0.8 / 6] * 3 + [0.4, 0.2])

    def test_an_empty_group_is_refused(self):
        with pytest.raises(InputError, match="group 'sex/female': no training latent"):
            balanced(one(1, 1), SEX)
