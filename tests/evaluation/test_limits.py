"""Every limit appears when its condition holds, and not when it does not; numbers are written as a reader expects."""

import copy

import pytest

from bundle.evaluation.limits import limits
from bundle.evaluation.wording import difference, duration, estimate, number, p_value, percent, points, share
from tests.evaluation.made_up import bare, est, full


def changed(*changes):
    """A report none of whose limits hold, with the values at the paths replaced."""
    report = copy.deepcopy(full())
    for path, value in (*HARMLESS, *changes):
        entry = report
        for key in path.split(".")[:-1]:
            entry = entry[int(key) if key.isdigit() else key]
        entry[path.rpartition(".")[2]] = value
    return report


HARMLESS = (
    ("after.quality", None),
    ("after.diversity", None),
    ("after.by_group.difference", {}),
    ("after.memorisation", None),
    ("seeds.values", [{"seed": k, "verdict": "aligned"} for k in range(3)]),
)


def test_no_sentence_without_a_number_that_asks_for_it():
    assert limits(changed()) == []


@pytest.mark.parametrize(
    ("change", "at_limit", "part"),
    [
        (("detectable_gap", 0.051), ("detectable_gap", 0.05), "5.1 points, more than the margin of 5.0 points"),
        (("after.n", 499), ("after.n", 500), "Only 499 images"),
        (("after.ci95.male", [0, 1]), ("after.ci95.male", [0.1, 1]), "not measurable"),
        (("after.verdict", "cannot tell"), ("after.verdict", "aligned"), "57.6 % (55.0 to 60.2), crosses the margin"),
        (("after.proportion.male", 1.02), ("after.proportion.male", 1.0), "male came out at 102.0 %"),
        (("after.tipping_point", 0.0109), ("after.tipping_point", 0.011), "change by 1.1 points"),
        (("judge.largest_shift", None), ("judge.largest_shift", 0.0), "not measured by a round trip"),
        (("judge.subjects", 199), ("judge.subjects", 200), "199 subjects"),
        (("judge.recall.male", 0.69), ("judge.recall.male", 0.7), "it recognises 69.0 % of male"),
        (("after.ambiguity", 0.103), ("after.ambiguity", 0.1), "unsure of 10.3 % of the generated"),
        (("prompts", ["a head"]), ("prompts", ["a head", "a chest"]), "come from one prompt"),
        (("seeds.n", 2), ("seeds.n", 3), "Only 2 seeds"),
        (("seeds.between_sd", 0.06), ("seeds.between_sd", 0.05), "standard deviation of 6.0 points"),
        (("seeds", None), ("seeds.n", 3), "of one run"),
        (("kid_change", {"clip": est(0.02, 0.01)}), ("kid_change", {"clip": est(0.01, 0.01)}), "rose by 0.0200"),
        (("after.by_group.n_each", 99), ("after.by_group.n_each", 100), "rests on 99 images"),
        (("after.by_group.membership", "judge"), ("after.by_group.membership", "prompt"), "groups by the judge"),
        (
            ("after.obedience.adjusted", est(0.9, 0.04)),
            ("after.obedience.adjusted", est(0.98, 0.04)),
            "not always obeyed",
        ),
        (("after.second_judge.differ", True), ("after.second_judge.differ", False), "Judge and second judge differ"),
        (("after.guide.differ", True), ("after.guide.differ", False), "Judge and guide differ"),
        (("after.true_ci95.male", [0.61, 0.7]), ("after.true_ci95.male", [0.6, 0.7]), "intervals that do not meet"),
        (("after.label_shift.rejected", True), ("after.label_shift.rejected", False), "(p = 0.212)"),
        (
            ("after.round_trip.2.verdict", "cannot tell"),
            ("after.round_trip.2.verdict", None),
            "Under 1 of 3 calibrations of the judge the verdict is another: 'cannot tell' with noised and denoised",
        ),
        # the margin around 58 % ends at 63 %
        (
            ("after.prompt_rows.0.ci95.male", [0.64, 0.7]),
            ("after.prompt_rows.0.ci95.male", [0.62, 0.7]),
            "For 1 of 3 prompts",
        ),
        (
            ("strata.high-grade glioma.after.ci95.male", [0.64, 0.7]),
            ("strata.high-grade glioma.after.ci95.male", [0.62, 0.7]),
            "Within high-grade glioma",
        ),
        (
            ("after.guidance.5.ci_simultaneous.male", [0.4, 0.52]),
            ("after.guidance.5.ci_simultaneous.male", [0.4, 0.54]),
            "At guidance scale 8",
        ),
    ],
)
def test_each_condition(change, at_limit, part):
    said = [sentence.replace("\u00a0", " ") for sentence in limits(changed(change))]
    assert any(part in sentence for sentence in said)
    assert not any(part in sentence.replace("\u00a0", " ") for sentence in limits(changed(at_limit)))


def test_quality_groups_and_copies():
    """The made-up images are far from real ones, alike, worse for men, and 1.3 points of them near copies."""
    said = "\n".join(limits(full())).replace("\u00a0", " ")
    assert "KID (clip) is 0.0760 (0.0665 to 0.0855), and between two sets of real images 0.000960" in said
    assert "MS-SSIM of pairs is 0.330 (0.324 to 0.336) against 0.290" in said
    assert "KID (clip) by 0.0266 (0.0114 to 0.0418), worst for male" in said
    assert "male 1.3 points (0.4 to 2.2) above chance" in said
    assert "2 'aligned', 1 'cannot tell'" in said


def test_what_was_not_measured_is_passed_over():
    assert len(limits(bare())) == len(limits(bare(absent=False))) == 2  # no round trip, and one run


def test_numbers():
    assert [number(x) for x in (0.9, 0.012345, 12.34, 999.4, 1234.5, 0, -0.5, None)] == [
        "0.900", "0.0123", "12.3", "999", "1,234", "0.00", "−0.500", "–",
    ]  # fmt: skip
    assert number(-2.13e-5) == "−2.13 × 10⁻⁵"
    assert percent(1.02) == "100.0\u00a0%"
    assert points(-0.0123) == "−1.2\u00a0points"
    assert points(-1e-9) == "0.0\u00a0points"
    assert (p_value(0.0004), p_value(0.212)) == ("p < 0.001", "p = 0.212")
    assert [duration(s) for s in (61.24, 250, 7260)] == ["61.2\u00a0s", "4\u00a0min", "2\u00a0h 1\u00a0min"]
    assert estimate(est(0.5, 0.1)) == "0.500 (0.400 to 0.600)"
    assert difference(est(-0.1, 0.02)) == "−10.0\u00a0points (−12.0 to −8.0)"
    assert difference({"value": 0.1, "ci95": None}) == "10.0\u00a0points"
    assert share({"proportion": {"a": -0.01}, "ci95": {"a": [0, 0.02]}}, "a") == "0.0\u00a0% (0.0 to 2.0)"
    assert share({"proportion": {"a": None}, "ci95": {"a": [None, None]}}, "a") == "–"
