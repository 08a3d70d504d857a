"""A cross-fitted linear probe: who sees what, and what comes of labels and subjects that are few."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from bundle.errors import InputError
from bundle.evaluation.probe import fit_probe

PERSONS, IMAGES = 60, 4
SUBJECTS = np.repeat(np.arange(PERSONS), IMAGES)


def features_of(labels, rng, noise=1.0, size=6):
    """Features whose first columns are the label, one column a label."""
    drawn = noise * rng.normal(size=(len(labels), size))
    drawn[np.arange(len(labels)), labels] += 2
    return drawn


def test_members_never_see_the_subject_they_are_measured_on():
    """Labels are random per person and features nearly name the person: only leakage could tell the label."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(PERSONS) % 2)[SUBJECTS]
    features = rng.normal(size=(PERSONS, 80))[SUBJECTS] + 0.01 * rng.normal(size=(len(SUBJECTS), 80))
    probe = fit_probe(features, labels, SUBJECTS)
    assert roc_auc_score(labels, probe.own[:, 1]) < 0.75
    assert roc_auc_score(labels, probe.predict(features)[:, 1]) > 0.8  # here four members of five have seen the person


def test_own_is_the_prediction_of_the_one_member_fitted_without_the_subject():
    rng = np.random.default_rng(1)
    labels = (np.arange(PERSONS) % 3)[SUBJECTS]
    features = features_of(labels, rng)
    probe = fit_probe(features, labels, SUBJECTS)
    each = np.stack([member.predict_proba(features) for member in probe.members])
    matches = np.isclose(each, probe.own).all(axis=2)  # (members, images)
    assert (matches.sum(axis=0) == 1).all()
    own = matches.argmax(axis=0).reshape(PERSONS, IMAGES)
    assert (own == own[:, :1]).all()  # all images of a person in one fold
    for fold in range(5):  # 60 persons, 20 a label: 12 in each fold, 4 a label
        assert np.bincount(np.arange(PERSONS)[own[:, 0] == fold] % 3).tolist() == [4, 4, 4]
    seen = own.ravel() != 0
    scaler = StandardScaler().fit(features[seen])
    alone = LogisticRegression(max_iter=1000).fit(scaler.transform(features[seen]), labels[seen])
    np.testing.assert_allclose(each[0], alone.predict_proba(scaler.transform(features)), atol=1e-6)


def test_image_i_is_classified_by_member_i_modulo_their_number():
    rng = np.random.default_rng(2)
    labels = (np.arange(PERSONS) % 2)[SUBJECTS]
    probe = fit_probe(features_of(labels, rng), labels, SUBJECTS, folds=4)
    generated = features_of(np.arange(11) % 2, rng)
    predicted = probe.predict(generated)
    for i in range(11):
        np.testing.assert_allclose(predicted[i], probe.members[i % 4].predict_proba(generated[i : i + 1])[0])
    assert probe.predict(generated[:2]).shape == (2, 2)  # fewer images than members
    np.testing.assert_allclose(predicted.sum(axis=1), 1)


def test_its_error_on_validation_images_is_its_error_on_new_ones():
    rng = np.random.default_rng(3)
    labels = (np.arange(400) % 2)[np.repeat(np.arange(400), 2)]
    probe = fit_probe(features_of(labels, rng, noise=1.4), labels, np.repeat(np.arange(400), 2))
    new = rng.integers(0, 2, 4000)
    right = (probe.predict(features_of(new, rng, noise=1.4)).argmax(axis=1) == new).mean()
    # Centres 2 sqrt(2) apart, noise 1.4: the best classifier is right Phi(2 sqrt(2) / 2 / 1.4) = 84 % of the time.
    assert right == pytest.approx(0.84, abs=0.02)
    assert (probe.own.argmax(axis=1) == labels).mean() == pytest.approx(right, abs=0.04)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_label_of_one_subject_has_probability_nought_from_the_member_that_never_saw_it():
    rng = np.random.default_rng(4)
    labels = np.where(np.arange(PERSONS) == 0, 2, np.arange(PERSONS) % 2)[SUBJECTS]
    probe = fit_probe(features_of(labels, rng), labels, SUBJECTS)
    assert probe.own.shape == (len(labels), 3)
    assert (probe.own[labels == 2, 2] == 0).all()
    assert (probe.predict(features_of(labels, rng))[:, 2] > 0).any()
    np.testing.assert_allclose(probe.own.sum(axis=1), 1)


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize(
    ("labels", "subjects", "error", "message"),
    [
        (np.arange(8) % 2, np.arange(8) % 4, InputError, "subjects: 4, with at most 4 images of a label; give at lea"),
        (np.arange(8) % 2, np.arange(8), InputError, "subjects: 8, with at most 4 images of a label; give at least 5"),
        (np.ones(8, int), np.arange(8), InputError, r"labels: only \[1\]"),
        ((np.arange(8) == 0).astype(int), np.arange(8), InputError, "give each label two subjects"),
        (np.arange(8) % 2, np.arange(7), ValueError, "8, 8 and 7 rows"),
    ],
)
def test_input_that_cannot_be_used(labels, subjects, error, message):
    with pytest.raises(error, match=message):
        fit_probe(np.zeros((8, 2)), labels, subjects)
