"""Lesion shares under a reader whose error differs between groups."""

import numpy as np
import pytest

from bundle.evaluation.faithfulness import lesion_faithfulness, reader_rates

SEXES = ("female", "male")
SENSITIVITY, FALSE_POSITIVE = np.array([0.80, 0.97]), np.array([0.15, 0.02])  # of the reader, female and male
JUDGE = 0.95


def seen(rng, sex, lesion):
    """What judge and reader say of images of known sex and lesion."""
    called = np.where(rng.random(len(sex)) < JUDGE, sex, 1 - sex)
    return rng.random(len(sex)) < np.where(lesion, SENSITIVITY[sex], FALSE_POSITIVE[sex]), called


def measured_rates(rng, subjects=400):
    """Both lesion states of every subject, as slices with and without lesion give."""
    subject = np.repeat(np.arange(subjects), 2)
    sex, lesion = subject % 2, np.tile([0, 1], subjects)
    read, called = seen(rng, sex, lesion)
    return reader_rates(read, called, lesion, sex, subject, SEXES)


def generated(rng, n, male, lesion_share):
    sex = (rng.random(n) < male).astype(int)
    return seen(rng, sex, rng.random(n) < np.broadcast_to(lesion_share, 2)[sex])


def test_by_hand_with_a_perfect_judge_and_reader():
    truth = np.repeat([0, 0, 1, 1], 3)
    lesion = np.tile([0, 1], 6)
    rates = reader_rates(lesion, truth, lesion, truth, np.arange(12), SEXES)
    # Asked for: 3 of 4 women and 1 of 2 men show it, 4 of 6; not asked for: 1 of 4, a woman among two.
    read = [1, 1, 1, 0, 1, 0, 1, 0, 0, 0]
    called = [0, 0, 0, 0, 1, 1, 0, 0, 1, 1]
    shares = lesion_faithfulness(read, [1] * 6 + [0] * 4, called, rates)
    asked, not_asked = shares["lesion_prompted"], shares["lesion_not_prompted"]
    assert (asked.n, not_asked.n) == (6, 4)
    assert asked.share.value == asked.raw == pytest.approx(4 / 6)
    assert asked.by_group == pytest.approx({"female": 3 / 4, "male": 1 / 2})
    assert not_asked.share.value == pytest.approx(1 / 4)
    assert not_asked.by_group == pytest.approx({"female": 1 / 2, "male": 0})
    assert 0 <= asked.share.low < asked.share.value < asked.share.high <= 1


def test_a_change_of_composition_is_no_change_of_faithfulness():
    """85 % male becomes 50 %; lesions stay where they were, yet the share read changes with the reader's error."""
    rng = np.random.default_rng(0)
    rates = measured_rates(rng, 8000)
    shares = []
    for male in (0.85, 0.50):
        prompted = np.arange(80_000) % 2 == 0
        asked, not_asked = generated(rng, 40_000, male, 0.95), generated(rng, 40_000, male, 0.03)
        read, called = (np.stack(pair, axis=1).ravel() for pair in zip(asked, not_asked, strict=True))
        shares.append(lesion_faithfulness(read, prompted, called, rates))
    for key, true in (("lesion_prompted", 0.95), ("lesion_not_prompted", 0.03)):
        before, after = (share[key] for share in shares)
        assert abs(after.raw - before.raw) > 0.04
        assert after.share.value == pytest.approx(true, abs=0.015)
        assert before.share.value == pytest.approx(true, abs=0.015)


def test_a_lesion_that_fades_in_one_group_is_seen_there():
    rng = np.random.default_rng(1)
    read, called = generated(rng, 60_000, 0.5, [0.60, 0.95])
    share = lesion_faithfulness(read, np.ones(60_000), called, measured_rates(rng, 8000))["lesion_prompted"]
    assert share.by_group == pytest.approx({"female": 0.60, "male": 0.95}, abs=0.03)
    assert share.share.value == pytest.approx((0.60 + 0.95) / 2, abs=0.02)


def test_interval_covers():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        read, called = generated(rng, 512, 0.6, [0.85, 0.95])
        share = lesion_faithfulness(read, np.ones(512), called, measured_rates(rng, 300))["lesion_prompted"].share
        hits += share.low <= 0.4 * 0.85 + 0.6 * 0.95 <= share.high
    assert 0.91 <= hits / 300 <= 0.99


def test_no_image_of_a_kind():
    rng = np.random.default_rng(3)
    read, called = generated(rng, 50, 0.5, 0.9)
    shares = lesion_faithfulness(read, np.ones(50), called, measured_rates(rng))
    assert shares["lesion_not_prompted"] is None
    assert shares["lesion_prompted"].n == 50


def test_a_group_without_images_has_no_share():
    truth, lesion = np.repeat([0, 1], 40), np.tile([0, 1], 40)
    rates = reader_rates(lesion, truth, lesion, truth, np.arange(80), SEXES)
    share = lesion_faithfulness(np.ones(60), np.ones(60), np.ones(60), rates)["lesion_prompted"]
    assert np.isnan(share.by_group["female"])
    assert share.by_group["male"] == pytest.approx(1)


def test_reader_that_sees_nothing_measures_nothing():
    truth, lesion = np.repeat([0, 1], 40), np.tile([0, 1], 40)
    rates = reader_rates(np.zeros(80), truth, lesion, truth, np.arange(80), SEXES)
    share = lesion_faithfulness(np.zeros(9), np.ones(9), np.zeros(9), rates)["lesion_prompted"].share
    assert (share.low, share.high) == (0, 1)


def test_cell_without_subjects_is_named():
    with pytest.raises(ValueError, match="'male, lesion' has 0 subject"):
        reader_rates([0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], range(6), SEXES)


def test_lengths_must_match():
    rates = measured_rates(np.random.default_rng(4), 20)
    with pytest.raises(ValueError, match="one value per image"):
        lesion_faithfulness([1, 0], [1], [0, 1], rates)
