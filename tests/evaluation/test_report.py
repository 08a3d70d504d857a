"""The report's keys and figures, as JSON and as a table."""

import json

import numpy as np
import pytest
import torch

from bundle.errors import InputError
from bundle.evaluation.estimate import Estimate
from bundle.evaluation.faithfulness import lesion_faithfulness, reader_rates
from bundle.evaluation.prevalence import adjusted_count, judge_rates, paired_difference
from bundle.evaluation.report import across_reports, assemble, judge_card, package_versions, share_row, side, write_json
from bundle.evaluation.table import table

SEXES = ("female", "male")
TARGET = {"female": 0.42, "male": 0.58}
KEYS = {
    "attribute", "groups", "target", "margin", "prompts", "judge", "detectable_gap", "real", "before", "after",
    "kid_change", "trajectory", "seconds", "versions",
}  # fmt: skip
SIDE_KEYS = {
    "n", "verdict", "proportion", "ci95", "raw_proportion", "true_proportion", "gap", "ambiguity", "agreement", "kid",
    "clip_similarity", "faithfulness", "guidance",
}  # fmt: skip


@pytest.fixture(scope="module")
def rates():
    truth = np.repeat([0, 1], 500)
    calls = np.where(np.arange(1000) % 20 == 0, 1 - truth, truth)  # 5 % wrong in both groups
    return judge_rates(calls, truth, np.arange(1000), SEXES)


def calls_of(male, n=2048):
    return (np.arange(n) < round(n * (0.05 + 0.9 * male))).astype(int)


def one_side(rates, male, n=2048, **more):
    calls = calls_of(male, n)
    p = np.where(np.arange(n) % 10 == 0, 0.6, 0.95)  # a tenth is ambiguous
    p = np.where(calls == 1, p, 1 - p)
    truth = np.arange(200) // 100
    lesion = np.arange(200) % 2
    reader = reader_rates(lesion, truth, lesion, truth, np.arange(200), SEXES)
    return side(
        np.stack([1 - p, p], axis=1),
        np.where(np.arange(n) % 50 == 0, 1 - calls, calls),
        rates,
        TARGET,
        true_count=adjusted_count(calls, rates),
        kid={"clip": Estimate(0.0123, 0.01, 0.0146, 0.0012)},
        clip_similarity=torch.tensor(0.973),
        lesions=lesion_faithfulness(np.arange(n) % 2, np.arange(n) % 2, calls, reader),
        guidance=[share_row(calls[::16], rates, TARGET, scale=4)],
        **more,
    )


@pytest.fixture(scope="module")
def report(rates):
    return report_of(rates)


def report_of(rates):
    return assemble(
        attribute="sex",
        groups=SEXES,
        target=TARGET,
        prompts=["axial FLAIR MR of a head"],
        judge=judge_card(rates, auc=np.float32(0.985)),
        real={"ambiguity": 0.09, "agreement": 0.95, "n": 500},
        before=one_side(rates, 0.85),
        after=one_side(rates, 0.58),
        change=paired_difference(calls_of(0.85), calls_of(0.58), rates),
        kid_change={"clip": Estimate(-0.002, -0.004, 0.0, 0.001)},
        trajectory=[share_row(np.arange(512) % 2, rates, TARGET, iteration=10, seconds=61.5)],
        seconds={"align": 250.2, "evaluate": 180},
        versions=package_versions("torch", "numpy"),
    )


def by_name(text):
    """Lines of the table by the name that stands before the first gap of two spaces."""
    return {line.partition("  ")[0]: line for line in text.splitlines()}


def test_keys(report):
    assert set(report) >= KEYS
    assert set(report["before"]) >= SIDE_KEYS
    assert set(report["after"]) >= SIDE_KEYS
    assert set(report["judge"]) >= {"auc", "subjects", "sensitivity", "specificity"}
    assert set(report["real"]) >= {"ambiguity", "agreement", "n"}
    assert set(report["after"]["faithfulness"]) >= {"lesion_prompted", "lesion_not_prompted"}
    assert set(report["after"]["guidance"][0]) >= {"scale", "n", "proportion", "ci95", "gap"}
    assert set(report["trajectory"][0]) >= {"iteration", "seconds", "n", "proportion", "gap"}
    assert set(report["kid_change"]["clip"]) == {"value", "ci95"}
    assert set(report["seconds"]) == {"align", "evaluate"}


def test_figures(report):
    before, after = report["before"], report["after"]
    # 2,048 images: round(2048 (.05 + .9 .85)) = 1,669 called male, (1669 / 2048 - .05) / .9 = .84994.
    assert before["raw_proportion"]["male"] == 1669 / 2048
    assert before["proportion"]["male"] == pytest.approx((1669 / 2048 - 0.05) / 0.9)
    assert before["gap"] == pytest.approx(before["proportion"]["male"] - 0.58)
    # of 2,048 pairs 1,669 - 1,171 are called differently
    assert report["change"]["value"]["male"] == pytest.approx((1171 - 1669) / 2048 / 0.9)
    assert (before["verdict"], after["verdict"]) == ("not aligned", "aligned")
    assert before["ci95"]["male"][0] < before["proportion"]["male"] < before["ci95"]["male"][1]
    assert before["true_proportion"] == before["proportion"]
    assert after["ambiguity"] == 205 / 2048
    assert after["agreement"] == 1 - 41 / 2048
    assert after["faithfulness"]["lesion_prompted"] == pytest.approx(1)
    assert after["faithfulness"]["lesion_not_prompted"] == pytest.approx(0)
    assert report["detectable_gap"] == pytest.approx(2.8016 * after["standard_error"], rel=1e-4)
    assert report["judge"] == {
        "auc": pytest.approx(0.985),
        "subjects": 1000,
        "sensitivity": pytest.approx(0.95),
        "specificity": pytest.approx(0.95),
        "recall": {"female": pytest.approx(0.95), "male": pytest.approx(0.95)},
    }
    assert after["cautions"] == []


def test_json_is_plain_and_null_where_nothing_was_measured(report, tmp_path):
    changed = {**report, "real": {"ambiguity": float("nan"), "n": np.int64(3), "agreement": np.inf}, "x": (1, [2.5])}
    path = write_json(changed, tmp_path / "new" / "report.json")
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["real"] == {"ambiguity": None, "n": 3, "agreement": None}
    assert read["x"] == [1, [2.5]]
    assert read["before"] == report["before"]
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_failed_write_leaves_the_old_file(report, tmp_path):
    path = write_json({"old": 1}, tmp_path / "report.json")
    with pytest.raises(TypeError):
        write_json({**report, "bad": object()}, path)
    assert json.loads(path.read_text()) == {"old": 1}


def test_table_has_the_figures(report):
    text = table(report)
    rows = by_name(text)
    assert "85.0 % [" in rows["male"]
    assert rows["male"].rstrip().endswith("58.0 %")
    assert "not aligned" in rows["verdict within 5.0 %"]
    assert "10.0 %" in rows["ambiguous"]
    assert rows["ambiguous"].endswith("9.0 %")
    assert "0.0123 [0.01, 0.0146]" in rows["KID, clip"]
    assert "-0.002 [-0.004, 0]" in rows["KID change, clip"]
    assert "100.0 % [" in rows["lesion, asked for"]
    assert rows["male, guidance 4"].count("[") == 2
    assert "Seconds: align 250, evaluate 180." in text
    assert max(map(len, text.splitlines())) <= 120


def test_what_was_not_measured_is_a_dash(rates, report):
    p = np.tile([0.1, 0.9], (600, 1))
    bare = side(p, np.ones(600, int), rates, TARGET)
    text = table(
        assemble(
            **{
                **report,
                "judge": judge_card(rates, None),
                "before": bare,
                "after": bare,
                "change": paired_difference([0, 1], [1, 1], rates),
                "kid_change": {},
            }
        )
    )
    rows = by_name(text)
    assert rows["CLIP similarity"].split()[-2:] == ["-", "-"]
    assert rows["lesion, asked for"].split()[-2:] == ["-", "-"]
    assert "Judge: AUC - on 1000 subjects" in text
    assert bare["true_proportion"] is None


def test_a_judge_that_calls_everybody_the_same_measures_nothing():
    blind = judge_rates(np.zeros(1000, int), np.repeat([0, 1], 500), np.arange(1000), SEXES)
    rows = by_name(table(report_of(blind)))
    assert rows["male"].split()[1:3] == ["-", "-"]
    assert rows["male, change"].split()[2:] == ["-"]
    assert rows["gap"].split()[1:] == ["-", "-"]
    assert rows["verdict within 5.0 %"].count("cannot tell") == 2


def test_a_share_that_the_readers_errors_do_not_explain_is_shown_as_read(report):
    rough = {"lesion_prompted": 1.2, "lesion_prompted_ci95": [0.0, 1.0], "lesion_prompted_raw": 0.97}
    changed = {**report["after"], "faithfulness": {**report["after"]["faithfulness"], **rough}}
    assert by_name(table({**report, "after": changed}))["lesion, asked for"].rstrip().endswith("97.0 %, uncorrected")


def test_cautions():
    truth = np.repeat([0, 1], 20)
    calls = np.where(np.arange(40) % 20 < 13, truth, 1 - truth)  # recalls .65
    found = side(np.tile([0.9, 0.1], (30, 1)), np.zeros(30), judge_rates(calls, truth, np.arange(40), SEXES), TARGET)
    assert len(found["cautions"]) == 4  # not measurable, few subjects, few images, weak
    assert found["verdict"] == "cannot tell"


def test_judge_and_truth_that_contradict_each_other():
    """Of 400 images the judge calls 240 men, and the truth 240, 221 or 200; both err on one subject in twenty."""
    truth = np.repeat([0, 1], 500)
    calls = np.where(np.arange(1000) % 20, truth, 1 - truth)
    rates = judge_rates(calls, truth, np.arange(1000), SEXES)
    judged = np.eye(2)[(np.arange(400) % 5 > 1).astype(int)]
    # standard error of each: sqrt(.6 * .4 / 400 + .0006 of the rates) / .9 = 2.8 points; 1.96 sqrt(2) 2.8 = 7.8
    for men, caution in ((240, False), (221, False), (200, True)):
        true = adjusted_count(np.arange(400) < men, rates)
        found = side(judged, np.zeros(400), rates, TARGET, true_count=true)["cautions"]
        assert any("judge and true share differ by" in text for text in found) is caution


def test_three_groups():
    truth = np.repeat(np.arange(3), 100)
    rates = judge_rates(truth, truth, np.arange(300), ("low", "middle", "high"))
    p = np.eye(3)[np.arange(900) % 3]
    entry = side(p, np.arange(900) % 3, rates, [0.3, 0.3, 0.4])
    assert entry["proportion"] == pytest.approx({"low": 1 / 3, "middle": 1 / 3, "high": 1 / 3})
    assert entry["gap"] == pytest.approx((1 / 30 + 1 / 30 + 2 / 30) / 2)
    card = judge_card(rates, None)
    assert card["sensitivity"] is None
    assert card["recall"]["high"] == 1


class TestAcrossReports:
    def test_other_seeds_stand_beside_this_one(self, report, tmp_path):
        other = {**report, "seed": 1, "after": report["before"]}
        (tmp_path / "other.json").write_text(json.dumps(other))
        seeds = across_reports(0, report["after"], [tmp_path / "other.json"], SEXES)
        assert [row["seed"] for row in seeds["values"]] == [0, 1]
        shares = [report[side]["proportion"]["male"] for side in ("after", "before")]
        assert seeds["mean"].value == pytest.approx(sum(shares) / 2)

    def test_alone_there_is_nothing_to_compare(self, report):
        assert across_reports(0, report["after"], [], SEXES) is None

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "no report of an evaluation"),
            ('{"seed": 1}', "no report of an evaluation"),
            ("same", "of seed 0 again"),
        ],
    )
    def test_what_is_no_other_report_is_refused(self, report, tmp_path, content, message):
        path = tmp_path / "other.json"
        path.write_text(json.dumps({**report, "seed": 0}) if content == "same" else content)
        with pytest.raises(InputError, match=message):
            across_reports(0, report["after"], [path], SEXES)
