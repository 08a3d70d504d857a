"""The pool of reference images: made once, dealt out evenly, never mixed up with another base's."""

from dataclasses import replace

import pytest
import torch

from bundle.alignment.reference import ReferencePool, reference_pool
from bundle.generation import Draws
from tests.toy import toy_step


@pytest.fixture
def made(tmp_path):
    """A denoiser, what the pool is made with, and a function that makes it and counts the denoiser's batches."""
    denoiser, step = toy_step(tmp_path / "elsewhere")
    parts = {"sampler": step.sampler, "guide": step.guide, "clip": step.clip, "draws": step.pool.draws}

    def make(batch_size=7, **changes):
        calls = []
        hook = denoiser.register_forward_hook(lambda *_: calls.append(1))
        pool = reference_pool(denoiser, **{**parts, **changes}, cache=tmp_path / "pool", batch_size=batch_size)
        hook.remove()
        return pool, len(calls) // 6  # steps of the chain

    make.denoiser, make.step, make.folder = denoiser, step, tmp_path / "pool"
    return make


def test_it_holds_what_the_untuned_model_shows(made):
    pool, batches = made()
    images = made.step.sampler.decode(made.step.sampler.chain(made.denoiser, pool.draws)[-1])
    assert batches == 4  # 24 images in batches of 7
    assert torch.allclose(pool.features, made.step.clip.image_features(images), atol=1e-6)
    assert torch.equal(pool.call, made.step.guide(images).argmax(1))
    assert not pool.features.requires_grad


def test_it_is_made_once(made):
    first, _ = made()
    again, batches = made()
    assert batches == 0
    assert torch.equal(first.features, again.features)


def test_it_goes_on_where_it_was_stopped(made, monkeypatch):
    whole, _ = made()
    for path in made.folder.iterdir():
        path.unlink()

    look, twice = made.step.clip.image_features, iter([True, True])

    def stopped(images):
        if not next(twice, False):
            raise KeyboardInterrupt
        return look(images)

    monkeypatch.setattr(made.step.clip, "image_features", stopped)
    with pytest.raises(KeyboardInterrupt):
        made()
    monkeypatch.undo()
    resumed, batches = made(batch_size=5)  # 14 of 24 were kept; another batch size does no harm
    assert batches == 2
    assert torch.allclose(resumed.features, whole.features, atol=1e-6)
    assert torch.equal(resumed.call, whole.call)


@pytest.mark.parametrize("change", ["weights", "guidance", "noise", "prompts", "prediction"])
def test_what_changes_the_images_makes_another_pool(made, change):
    made()
    sampler, draws = made.step.sampler, made.step.pool.draws
    changes = {}
    if change == "weights":
        with torch.no_grad():
            made.denoiser.leave.bias += 0.1
    elif change == "guidance":
        changes["sampler"] = replace(sampler, guidance=3.0)
    elif change == "prediction":
        changes["sampler"] = replace(sampler, schedule=replace(sampler.schedule, prediction="epsilon"))
    elif change == "noise":
        changes["draws"] = Draws(draws.prompt, draws.noise + 0.1)
    else:
        changes["draws"] = Draws(2 - draws.prompt, draws.noise)
    _, batches = made(**changes)
    assert batches == 4
    assert len(list(made.folder.iterdir())) == 2


class TestDealing:
    LOGITS = torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
    POOL = ReferencePool(Draws(torch.zeros(24), torch.zeros(24)), torch.zeros(24), LOGITS)

    def test_every_image_once_before_any_twice(self):
        dealt = torch.cat([self.POOL.indices(0, iteration, 6) for iteration in range(12)])  # 72 = 3 rounds of 24
        for part in dealt.split(24):
            assert sorted(part.tolist()) == list(range(24))
        assert not torch.equal(dealt[:24], dealt[24:48])

    def test_a_function_of_seed_and_iteration(self):
        assert torch.equal(self.POOL.indices(3, 7, 6), self.POOL.indices(3, 7, 6))
        assert not torch.equal(self.POOL.indices(3, 7, 6), self.POOL.indices(4, 7, 6))

    def test_every_batch_spans_what_the_guide_reads(self):
        rank = self.LOGITS.diff(dim=1)[:, 0].argsort().argsort()  # log-odds of the second group, ranked from 0
        for iteration in range(8):
            ranks = rank[self.POOL.indices(0, iteration, 6)].sort().values
            assert (ranks // 4).tolist() == list(range(6))  # one of every 24 / 6 neighbours

    def test_batches_differ_in_their_share_by_one_image_at_most(self):
        called = [int(self.POOL.call[self.POOL.indices(0, iteration, 6)].sum()) for iteration in range(4)]
        assert sum(called) == int(self.POOL.call.sum())
        assert max(called) - min(called) <= 1
