"""Batches as functions of the iteration."""

import itertools

import ignite.distributed as idist
import pytest
import torch
from monai.inferers import DiffusionInferer
from torch import nn

from bundle.training.draws import (
    Batches,
    CaptionDraw,
    DenoisingBatch,
    DenoisingDraw,
    ImageDataset,
    ImageDraw,
    LatentDataset,
)
from tests.toy import scheduler


@pytest.fixture
def latents():
    """Ten latents filled with their number; image i has captions 2 i and 2 i + 1, whose contexts hold their number."""
    numbers = torch.arange(10.0).view(-1, 1, 1, 1).expand(10, 2, 4, 4)
    contexts = torch.arange(1.0, 21.0).view(-1, 1, 1).expand(20, 3, 5)
    return LatentDataset(numbers, torch.arange(20).view(10, 2), contexts)


def denoising(latents, **changes):
    settings = {"num_timesteps": 1000, "batch_size": 8, "seed": 0, "dropout": 0.0}
    return DenoisingDraw(latents, torch.zeros(1, 3, 5), **{**settings, **changes})


def values(tensor):
    return tensor.flatten(1)[:, 0].tolist()


class TestDraws:
    def test_it_starts_where_it_is_told(self):
        draws = Batches(lambda iteration: {"iteration": iteration})
        assert [batch["iteration"] for batch in itertools.islice(draws, 3)] == [0, 1, 2]
        draws.start = 7
        assert [batch["iteration"] for batch in itertools.islice(draws, 2)] == [7, 8]


class TestDenoising:
    def test_a_function_of_seed_purpose_and_iteration(self, latents):
        def noise(iteration=3, **changes):
            return denoising(latents, **changes)(iteration)["noise"]

        assert torch.equal(noise(), noise())
        others = [noise(4), noise(seed=1), noise(purpose="anchor")]
        assert not any(torch.equal(noise(), other) for other in others)

    def test_each_latent_keeps_its_caption(self, latents):
        batch = denoising(latents)(0)
        assert values(batch["context"]) == [2 * value + 1 for value in values(batch["image"])]
        assert batch["noise"].shape == batch["image"].shape == (8, 2, 4, 4)

    def test_wordings_by_their_shares(self, latents):
        batch = denoising(latents, batch_size=4000, wordings=(0.75, 0.25))(0)
        second = batch["context"][:, 0, 0] == 2 * batch["image"][:, 0, 0, 0] + 2
        # standard error sqrt(.75 * .25 / 4000) = .007
        assert float(second.float().mean()) == pytest.approx(0.25, abs=0.03)

    def test_dropped_contexts_are_the_null_context(self, latents):
        batch = denoising(latents, batch_size=4000, dropout=0.1)(0)
        assert float((batch["context"] == 0).all(-1).all(-1).float().mean()) == pytest.approx(0.1, abs=0.02)

    def test_the_index_is_where_the_latents_stand(self, latents):
        batch = denoising(latents)(0)
        assert batch["index"].tolist() == values(batch["image"])

    def test_latents_by_their_probabilities(self, latents):
        sampling = torch.tensor([6.0, 2.0, *[0.0] * 8])
        batch = denoising(latents, batch_size=4000, sampling=sampling)(0)
        # standard error sqrt(.75 * .25 / 4000) = .007
        assert float((batch["index"] == 0).float().mean()) == pytest.approx(0.75, abs=0.03)
        assert int(batch["index"].max()) == 1

    def test_timesteps_cover_the_schedule(self, latents):
        timesteps = denoising(latents, batch_size=4000, num_timesteps=10)(0)["timesteps"]
        assert timesteps.unique().tolist() == list(range(10))

    def test_processes_share_one_batch(self, latents, monkeypatch):
        whole = denoising(latents, dropout=0.5)(2)
        monkeypatch.setattr(idist, "get_world_size", lambda: 2)
        halves = []
        for rank in (0, 1):
            monkeypatch.setattr(idist, "get_rank", lambda rank=rank: rank)
            halves.append(denoising(latents, dropout=0.5)(2))
        for key, value in whole.items():
            assert torch.equal(torch.cat([half[key] for half in halves]), value)


class Oracle(nn.Module):
    """Knows the clean image and answers with the true noise, or the true v = a noise - s image."""

    def __init__(self, image, prediction, alphas):
        super().__init__()
        self.image, self.prediction, self.alphas = image, prediction, alphas

    def forward(self, x, timesteps, context):
        kept = self.alphas[timesteps].view(-1, 1, 1, 1)
        noise = (x - kept.sqrt() * self.image) / (1 - kept).sqrt()
        return noise if self.prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * self.image


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_target_is_what_the_denoiser_is_to_predict(latents, prediction):
    plan = scheduler(prediction)
    batch = denoising(latents)(0)
    image, target, _, arguments = DenoisingBatch(plan)(batch, torch.device("cpu"))
    answer = DiffusionInferer(plan)(image, Oracle(image, prediction, plan.alphas_cumprod), **arguments)
    assert torch.allclose(answer, target, atol=1e-3)
    assert torch.equal(arguments["condition"], batch["context"])


class TestImages:
    # Image i is a row of the grey levels 10 i to 10 i + 3.
    LEVELS = torch.arange(0, 60, 10).view(6, 1, 1, 1) + torch.arange(4)
    DATA = ImageDataset(LEVELS / 255, labels=torch.arange(6))

    def test_images_keep_their_labels(self):
        batch = ImageDraw(self.DATA, 50, seed=0)(0)
        assert batch["image"].shape == (50, 1, 1, 4)
        assert torch.equal((batch["image"][:, 0, 0, 0] * 255).round().long() // 10, batch["label"])
        assert set(batch["label"].tolist()) == set(range(6))

    def test_half_are_shown_as_the_autoencoder_shows_them(self):
        data = ImageDataset(self.DATA.images, self.DATA.labels, decoded=self.DATA.images + 100 / 255)
        batch = ImageDraw(data, 2000, seed=0)(0)
        level = (batch["image"][:, 0, 0, 0] * 255).round().long()
        assert float((level >= 100).float().mean()) == pytest.approx(0.5, abs=0.05)
        assert torch.equal(level % 100 // 10, batch["label"])

    def test_mirrored_or_not(self):
        rows = ImageDraw(self.DATA, 400, seed=0, flip=True)(0)["image"][:, 0, 0]
        falling = rows[:, 0] > rows[:, -1]
        assert float(falling.float().mean()) == pytest.approx(0.5, abs=0.12)
        assert (rows[~falling].diff(dim=1) > 0).all()

    def test_contrast_varies_within_the_jitter(self):
        data = ImageDataset(torch.full((3, 1, 2, 2), 200 / 255))
        images = ImageDraw(data, 500, seed=0, jitter=0.2)(0)["image"]
        gain = images[:, 0, 0, 0] / (200 / 255)
        assert gain.min() < 0.85
        assert gain.min() >= 0.8 - 1e-6
        assert images.max() <= 1
        assert torch.equal(images.amin((1, 2, 3)), images.amax((1, 2, 3)))

    def test_the_data_set_is_not_changed(self):
        before = self.DATA.images.clone()
        draw = ImageDraw(ImageDataset(self.DATA.images, decoded=self.DATA.images), 50, seed=0, jitter=0.2, flip=True)
        first = draw(3)["image"].clone()
        assert torch.equal(draw(3)["image"], first)
        assert torch.equal(self.DATA.images, before)


class TestCaptions:
    def test_every_caption_of_a_batch_is_another_one(self):
        data = ImageDataset(torch.arange(40).view(40, 1, 1, 1) / 255)
        captions = torch.stack([torch.arange(40) % 5, torch.arange(40) % 5 + 5], 1)  # ten texts for forty images
        tokens = torch.arange(10).view(10, 1).expand(10, 3)
        draw = CaptionDraw(data, captions, tokens, batch_size=8, seed=0)
        for iteration in range(5):
            batch = draw(iteration)
            texts, images = batch["tokens"][:, 0].tolist(), (batch["image"] * 255).round().long().flatten().tolist()
            assert len(texts) == len(set(texts)) == 8
            assert [text % 5 for text in texts] == [image % 5 for image in images]
        assert torch.equal(draw(1)["image"], draw(1)["image"])

    def test_fewer_texts_than_images(self):
        data = ImageDataset(torch.zeros(40, 1, 1, 1))
        draw = CaptionDraw(data, torch.zeros(40, 1, dtype=torch.long), torch.zeros(1, 3), batch_size=8, seed=0)
        assert len(draw(0)["tokens"]) == 1
