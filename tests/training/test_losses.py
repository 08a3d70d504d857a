"""Losses of the stages before the alignment, by hand."""

import math

import pytest
import torch
from torch import nn

from bundle.training.losses import AutoencoderLoss, ContrastiveLoss, LabelLoss, caption_batch, reconstruction_batch


class TestAutoencoder:
    IMAGES = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]]])
    SHOWN = torch.tensor([[[[0.4, 0.0], [0.4, 0.0]]]])  # a vertical edge that is not there
    MEAN, ONE = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)

    def test_pixels_and_edges(self):
        # pixels: (.4 + 0 + .4 + 0) / 4 = .2; down the columns nothing changes; along the rows .4 everywhere
        loss = AutoencoderLoss(edge_weight=0.5, kl_weight=0.0)
        assert float(loss((self.SHOWN, self.MEAN, self.ONE), self.IMAGES)) == pytest.approx(0.2 + 0.5 * 0.4)

    def test_posterior(self):
        # a standard normal costs nothing; mean 2 and deviation e: (4 + e^2 - 2 - 1) / 2
        loss = AutoencoderLoss(kl_weight=1.0)
        assert float(loss((self.IMAGES, self.MEAN, self.ONE), self.IMAGES)) == 0
        posterior = (self.IMAGES, self.MEAN + 2, self.ONE * math.e)
        assert float(loss(posterior, self.IMAGES)) == pytest.approx((1 + math.e**2) / 2)


def test_pairs_that_match_cost_nothing_and_others_do():
    features = torch.eye(4)
    loss, scale = ContrastiveLoss(), torch.tensor(100.0)
    assert float(loss((features, features, scale), None)) == pytest.approx(0, abs=1e-6)
    # every image like every text: log 4
    same = torch.ones(4, 4) / 2
    assert float(loss((same, same, scale), None)) == pytest.approx(math.log(4), rel=1e-5)


def test_pairs_keep_their_tokens():
    batch = {"image": torch.zeros(2, 1, 4, 4), "tokens": torch.tensor([[1], [2]])}
    images, target, (tokens,), named = caption_batch(batch, torch.device("cpu"))
    assert torch.equal(tokens, batch["tokens"])
    assert target is images
    assert named == {}


def test_labels_that_are_unknown_do_not_count():
    logits, labels = torch.randn(6, 2), torch.tensor([0, 1, -1, 1, -1, 0])
    expected = torch.nn.functional.cross_entropy(logits[labels >= 0], labels[labels >= 0])
    assert torch.allclose(LabelLoss()(logits, labels), expected)
    assert torch.equal(
        LabelLoss()(logits[:2], labels[:2]), nn.CrossEntropyLoss(ignore_index=-1)(logits[:2], labels[:2])
    )


def test_an_image_is_its_own_target():
    image, target = reconstruction_batch({"image": torch.rand(2, 1, 4, 4)}, torch.device("cpu"))
    assert target is image
