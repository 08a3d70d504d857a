"""The judge of several members: who judges whom, and what is refused."""

import pytest
import torch
from torch import nn

from bundle.networks.classifier import AttributeClassifier
from bundle.networks.cross_fitted import CrossFittedJudge, load_judge
from bundle.weights import save_weights

FOLDS = [["a", "b"], ["c"], ["d"]]


class Says(nn.Module):
    """Logits that name the member and the image."""

    def __init__(self, number):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(float(number)))

    def forward(self, images):
        return torch.stack([self.number.expand(len(images)), images[:, 0, 0, 0]], 1)


@pytest.fixture
def judge():
    return CrossFittedJudge([AttributeClassifier(Says(number)).eval() for number in range(3)], FOLDS)


@pytest.fixture
def images():
    return torch.arange(7.0).view(7, 1, 1, 1)


def test_generated_images_are_dealt_out_and_keep_their_order(judge, images):
    logits = judge(images)
    assert logits.tolist() == [[i % 3, i] for i in range(7)]
    assert torch.equal(judge.predict(images, batch_size=2), logits.softmax(1).detach())
    assert judge(images[:2]).tolist() == [[0, 0], [1, 1]]


def test_a_part_of_the_images_is_dealt_out_as_in_the_whole(judge, images):
    whole, first = judge.predict(images), judge.predict(images[:4])
    assert torch.equal(torch.cat([first, judge.predict(images[4:], first=4)]), whole)
    assert torch.equal(judge.predict(images[5:6], first=5), whole[5:6])  # two of the members get none


def test_a_subject_is_judged_by_the_member_that_has_not_seen_it(judge, images):
    subjects = ["d", "a", "d", "b", "c", "stranger", "stranger"]
    assert judge.assigned(7, subjects).tolist() == [2, 0, 2, 0, 1, 5 % 3, 6 % 3]
    expected = torch.tensor([[2.0, 0], [0, 1], [2, 2], [0, 3], [1, 4], [2, 5], [0, 6]])
    assert torch.equal(judge.predict(images, subjects), expected.softmax(1))


def test_all_images_may_go_to_one_member(judge, images):
    assert torch.equal(judge.predict(images, ["c"] * 7), torch.stack([torch.ones(7), torch.arange(7.0)], 1).softmax(1))


def test_every_member_may_judge_a_stranger(judge):
    assert judge.divide(["a", "c", "stranger"]) == [["a", "stranger"], ["c", "stranger"], ["stranger"]]
    assert AttributeClassifier(Says(0)).divide(["a", "c"]) == [["a", "c"]]


def test_a_plain_classifier_takes_subjects_too(images):
    classifier = AttributeClassifier(Says(1))
    assert torch.equal(classifier.predict(images, ["a"] * 7), classifier.predict(images))


def test_members_are_loaded_from_their_own_files(tmp_path, images):
    paths = [tmp_path / f"judge_{number}.pt" for number in range(3)]
    for number, path in enumerate(paths):
        save_weights(AttributeClassifier(Says(number)), path)
    judge = load_judge(AttributeClassifier(Says(9)), paths, FOLDS)
    assert judge(images)[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    with pytest.raises(ValueError, match="2 members and 3 folds"):
        load_judge(AttributeClassifier(Says(9)), paths[:2], FOLDS)
