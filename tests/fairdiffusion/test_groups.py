"""Places of groups, and the balanced choice of a probe."""

import pytest
import torch

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.fairdiffusion.groups import Groups, choose_probe, counts
from bundle.training.tracking import numbers
from tests.fairdiffusion.toy import GROUPS, toy_members


def test_groups_stand_side_by_side():
    assert len(GROUPS) == 5
    assert GROUPS.offsets == (0, 3)
    assert list(GROUPS.of_attribute(1)) == [3, 4]
    assert GROUPS.names == ["race/asian", "race/black", "race/white", "sex/female", "sex/male"]


def test_members_are_places_and_unknown_is_minus_one():
    rows = [{"race": "white", "sex": "female"}, {"race": "asian"}, {"race": "", "sex": "male"}]
    assert GROUPS.members(iter(rows)).tolist() == [[2, 3], [0, -1], [-1, 4]]
    assert counts(GROUPS.members(rows), GROUPS).tolist() == [1, 0, 1, 1, 1]


def test_names_suit_mlflow():
    groups = Groups([Attribute("age/years", ["<60", ">=60"])])
    assert groups.names == ["age_years/_60", "age_years/__60"]
    assert set(numbers(dict.fromkeys(groups.names, 1.0))) == set(groups.names)


def test_groups_that_cannot_be_told_apart_are_refused():
    with pytest.raises(InputError, match="none given"):
        Groups([])
    with pytest.raises(InputError, match="two are called 'sex'"):
        Groups([Attribute("sex", ["f", "m"]), Attribute("sex", ["a", "b"])])
    with pytest.raises(InputError, match="two are called 'age/_60'"):
        Groups([Attribute("age", ["<60", ">60"])])


class TestProbe:
    def test_every_group_has_its_share(self):
        """100 of 5 groups: 20 each; one that holds fewer gives all it has."""
        members = toy_members(600)
        members[members[:, 0] == 2] = torch.tensor([0, 3])
        members[:9] = torch.tensor([2, 4])
        places = choose_probe(members, 100, GROUPS, seed=0)
        found = counts(members[places], GROUPS)
        assert found.min() >= 9
        assert bool((found[[0, 1, 3, 4]] >= 20).all())
        assert found[2] == 9
        assert places.tolist() == sorted(set(places.tolist()))
        assert len(places) <= 100

    def test_it_depends_on_the_seed_alone(self):
        members = toy_members(600)
        first = choose_probe(members, 100, GROUPS, seed=0)
        assert torch.equal(first, choose_probe(members, 100, GROUPS, seed=0))
        assert not torch.equal(first, choose_probe(members, 100, GROUPS, seed=1))

    def test_what_cannot_be_compared_is_refused(self):
        members = toy_members(600)
        with pytest.raises(InputError, match="under 8 for each of 5 groups; ask for more"):
            choose_probe(members, 39, GROUPS, seed=0)
        members[7:, 1] = 3
        members[:7, 1] = 4
        with pytest.raises(InputError, match="group 'sex/male': 7 latents to measure it on, 8 are needed"):
            choose_probe(members, 40, GROUPS, seed=0)
        assert counts(members[choose_probe(members, 40, GROUPS, seed=0, least=7)], GROUPS)[4] == 7
