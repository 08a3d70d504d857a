"""One row per section, set of images, group and metric."""

import csv
import io

import pytest

from bundle.evaluation.rows import rows, to_csv, write_csv
from tests.evaluation.made_up import bare, full

HEADER = ["section", "side", "group", "metric", "estimate", "low", "high", "n", "method", "flags"]


def only(report, **wanted):
    found = [row for row in rows(report) if all(getattr(row, key) == value for key, value in wanted.items())]
    assert len(found) == 1
    return found[0]


def test_figures_of_a_row():
    report = full()
    row = only(report, section="representation", side="after", group="male", metric="proportion", flags="aligned")
    assert (row.estimate, row.n) == (pytest.approx(0.576), 2048)
    assert (row.low, row.high) == (pytest.approx(0.55), pytest.approx(0.602))
    row = only(report, section="memorisation", side="after", group="male")
    assert (row.estimate, row.low, row.n, row.flags) == (pytest.approx(0.013), pytest.approx(0.004), 1024, "flagged")
    row = only(report, section="quality", side="real", group="female", metric="kid, clip")
    assert (row.estimate, row.n) == (pytest.approx(0.012 * 0.08), 400)
    assert only(report, section="seeds", group="male", metric="standard deviation").estimate == 0.0081
    assert only(report, section="judges", side="second judge", metric="auc").estimate == 0.957
    assert only(report, section="obedience", side="before", group="female").estimate == pytest.approx(0.94)


@pytest.mark.parametrize("report", [full(), full(("young", "middle", "old"))])
def test_no_two_rows_say_the_same(report):
    keys = [(row.section, row.side, row.group, row.metric, row.method) for row in rows(report)]
    assert len(set(keys)) == len(keys)
    sections = {"representation", "methods", "round trip", "prompts", "faithfulness", "obedience", "quality"}
    assert {key[0] for key in keys} == sections | {"diversity", "memorisation", "guidance", "change", "seeds", "judges"}


@pytest.mark.parametrize("absent", [True, False])
def test_what_was_not_measured_has_no_row(absent):
    found = rows(bare(absent=absent))
    # two proportions, gap and tipping point, two recalls of the judge
    assert [row.metric for row in found] == ["proportion", "proportion", "gap", "tipping point", "recall", "recall"]


def test_csv(tmp_path):
    path = write_csv(full(), tmp_path / "new" / "report.csv")
    read = list(csv.reader(io.StringIO(path.read_text())))
    assert read[0] == HEADER
    assert len(read) == len(rows(full())) + 1
    assert {len(row) for row in read} == {10}
    assert path.read_text() == to_csv(full())
