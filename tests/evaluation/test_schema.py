"""The JSON schema of the report takes every report that we make, and refuses what a reader could not use."""

import copy
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from bundle.evaluation.prevalence import judge_rates, paired_difference
from bundle.evaluation.report import assemble, judge_card, side
from tests.evaluation.made_up import bare, full

SCHEMA = json.loads((Path(__file__).parents[2] / "bundle/evaluation/report.schema.json").read_text())
CHECK = jsonschema.Draft202012Validator(SCHEMA)
AGES = ("young", "middle", "old")


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("report", [full(), full(AGES), bare(), bare(AGES), bare(absent=False)])
def test_made_up_reports_pass(report):
    CHECK.validate(json.loads(json.dumps(report)))


def test_a_report_that_was_measured_passes():
    truth = np.repeat([0, 1], 100)
    rates = judge_rates(truth, truth, np.arange(200), ("female", "male"))
    blind = judge_rates(np.zeros(200, int), truth, np.arange(200), ("female", "male"))
    p = np.tile([0.4, 0.6], (600, 1))
    for judge in (rates, blind):  # of the blind one's proportions nothing is known
        entry = side(p, np.ones(600, int), judge, [0.5, 0.5])
        report = assemble(
            attribute="sex",
            groups=("female", "male"),
            target=[0.5, 0.5],
            prompts=["a head"],
            judge=judge_card(judge, None),
            real={"ambiguity": 0.1, "agreement": 0.9, "n": 500},
            before=entry,
            after=entry,
            change=paired_difference([0, 1], [1, 1], judge),
            kid_change={},
            trajectory=[],
            seconds={"align": 1.0},
            versions={"numpy": "2"},
            schema_version="2",
        )
        CHECK.validate(report)


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        (["schema_version"], "1"),
        (["groups"], ["female"]),
        (["target", "male"], 1.2),
        (["after"], None),
        (["after", "verdict"], "fair"),
        (["after", "ci95", "male"], [0.5]),
        (["after", "gap"], -0.1),
        (["after", "methods", "guess"], {"male": 0.5}),
        (["after", "label_shift", "p_value"], 1.5),
        (["after", "quality", "clip", "kid"], 0.07),
        (["after", "by_group", "membership"], "name"),
        (["after", "scores", "counts", 0], -1),
        (["real", "n"], None),
        (["judge", "recall", "male"], 92),
        (["judge", "round_trip", 0, "images"], "blurred"),
        (["seeds", "n"], 2.5),
        (["seconds", "judge"], -1),
    ],
)
def test_wrong_entries_are_refused(where, wrong):
    report = copy.deepcopy(full())
    entry = report
    for key in where[:-1]:
        entry = entry[key]
    entry[where[-1]] = wrong
    assert not CHECK.is_valid(report)


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_what_every_report_has_may_not_be_left_out(key):
    report = full()
    del report[key]
    assert not CHECK.is_valid(report)
