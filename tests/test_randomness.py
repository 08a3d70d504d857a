"""Draws depend on what they are for and on nothing else."""

import itertools

import ignite.distributed as idist
import pytest
import torch

from bundle.randomness import generator, local_part


def numbers(*key):
    return tuple(torch.rand(4, generator=generator(*key)).tolist())


def test_the_same_key_gives_the_same_stream_whatever_else_was_drawn():
    first = numbers(3, "noise", 7)
    torch.rand(100)
    torch.manual_seed(99)
    assert numbers(3, "noise", 7) == first


def test_the_global_stream_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    numbers(0, "noise")
    assert torch.equal(torch.rand(3), expected)


def test_every_part_of_the_key_counts():
    keys = list(itertools.product((0, 1, 11), ("noise", "prompt", "1"), (0, 1, 10)))
    assert len({numbers(*key) for key in keys}) == len(keys)


def test_the_value_is_pinned():
    """A release that changed this would change every run."""
    assert torch.randint(10**6, (3,), generator=generator(0, "pool", 0)).tolist() == [742135, 501020, 211932]


class TestLocalPart:
    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_processes_share_out_the_batch_in_order(self, monkeypatch, size):
        drawn = torch.arange(8)
        monkeypatch.setattr(idist, "get_world_size", lambda: size)
        parts = []
        for rank in range(size):
            monkeypatch.setattr(idist, "get_rank", lambda rank=rank: rank)
            parts.append(local_part(drawn))
        assert {len(part) for part in parts} == {8 // size}
        assert torch.equal(torch.cat(parts), drawn)

    def test_a_batch_that_does_not_divide(self, monkeypatch):
        monkeypatch.setattr(idist, "get_world_size", lambda: 3)
        with pytest.raises(ValueError, match="batch of 8 does not divide by 3 processes; change batch_size"):
            local_part(torch.arange(8))
