"""A classifier trained in one call: it learns, from the seed alone, and counts rare classes alike."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from bundle.errors import InputError
from bundle.training.fit import balanced, fit_classifier, fit_probe

FIT = {"iterations": 40, "batch_size": 16, "learning_rate": 0.2, "device": "cpu"}


def build(dropout=0.1):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4, 2))


def images(number, seed=0, share=0.5):
    """Images (N, 1, 16, 16), brighter where the label is 1."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(number) < share).astype(int)
    levels = 60 + 140 * labels[:, None, None, None] + rng.normal(0, 15, (number, 1, 16, 16))
    return torch.from_numpy(levels.clip(0, 255)).float() / 255, labels


def weights(network):
    return nn.utils.parameters_to_vector(network.parameters())


def test_it_learns_and_comes_ready_for_use():
    network = fit_classifier(build, *images(120), seed=0, **FIT)
    tested, labels = images(60, seed=1)
    calls = network(tested).argmax(1).numpy()
    assert (calls == labels).mean() > 0.95
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_one_seed_gives_one_network_whatever_was_drawn_before():
    found = []
    for seed, drawn in ((0, 0), (0, 7), (1, 0)):
        torch.rand(drawn)
        found.append(weights(fit_classifier(partial(build, 0.5), *images(60), seed=seed, **FIT)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_global_stream_goes_on_as_if_nothing_had_been():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    fit_classifier(build, *images(60), seed=0, **FIT)
    assert torch.equal(torch.rand(4), expected)


def test_unknown_labels_change_nothing():
    pixels, labels = images(60)
    more = torch.cat([pixels, 1 - pixels]), np.concatenate([labels, np.full(60, -1)])
    plain, with_unknown = (weights(fit_classifier(build, *pair, seed=0, **FIT)) for pair in ((pixels, labels), more))
    assert torch.equal(plain, with_unknown)


def test_classes_count_alike():
    """Three of four images are of class 0: weights 4 / (2 * 3) and 4 / (2 * 1)."""
    assert balanced(torch.tensor([0, 0, 1, 0]), "x").tolist() == pytest.approx([4 / 6, 2])


def test_a_rare_class_is_not_given_up():
    """Grey images say nothing of the class, of which one in ten is 1: the network must be undecided, not sure of 0."""
    labels = (np.arange(400) % 10 == 0).astype(int)
    grey = torch.full((400, 1, 16, 16), 128 / 255)
    network = fit_classifier(build, grey, labels, seed=0, **{**FIT, "iterations": 200, "batch_size": 64})
    assert network(grey[:1]).softmax(1)[0, 1].item() == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("labels", [[1, 1, 1, -1], [0, 0, 0, 0], [-1, -1, -1, -1]])
def test_a_single_class_is_refused(labels):
    with pytest.raises(InputError, match="learning: classes of"):
        fit_classifier(build, images(4)[0], labels, seed=0, **FIT, label="learning")


class TestProbe:
    def test_it_is_the_logistic_regression_of_the_features(self):
        pixels, labels = images(80)
        tested, _ = images(20, seed=1)

        def features(batch):
            return batch.mean((1, 3))[:, :4]

        network = fit_probe(features, pixels, labels, strength=0.1)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced"))
        model.fit(features(pixels).double().numpy(), labels)
        scores = network(tested)
        expected = model.decision_function(features(tested).double().numpy())
        assert (scores[:, 1] - scores[:, 0]).numpy() == pytest.approx(expected, abs=1e-4)

    def test_unknown_labels_change_nothing_and_one_class_is_refused(self):
        pixels, labels = images(60)
        more = torch.cat([pixels, 1 - pixels]), np.concatenate([labels, np.full(60, -1)])
        found = [fit_probe(lambda batch: batch[:, 0, 0], *pair) for pair in ((pixels, labels), more)]
        assert torch.equal(found[0].slope, found[1].slope)
        with pytest.raises(InputError, match="3 classes; a probe tells two apart"):
            fit_probe(lambda batch: batch[:, 0, 0], pixels, np.arange(60) % 3)
        with pytest.raises(InputError, match="of women: classes of"):
            fit_probe(lambda batch: batch[:, 0, 0], pixels, np.zeros(60, int), label="of women")
