"""The checklist: what the report answers, and what is left to the author."""

import pytest

from bundle.evaluation.checklist import AUTHOR, checklist, to_markdown
from tests.evaluation.made_up import bare, full


def answers(report):
    return {item.number: item.answer.replace("\u00a0", " ") for item in checklist(report)}


def test_the_parts_have_their_items():
    """Six, four, four, five and four items: Miao et al. 2025, the form to be filled in."""
    numbers = [item.number for item in checklist(full())]
    assert numbers == [
        *(f"1.{k}" for k in range(1, 7)), *(f"2.{k}" for k in range(1, 5)), *(f"3-4.{k}" for k in range(1, 5)),
        *(f"5.{k}" for k in range(1, 6)), *(f"6.{k}" for k in range(1, 5)),
    ]  # fmt: skip


def test_answers_name_the_field_and_its_value():
    found = answers(full())
    assert found["1.2"] == "answered by attribute: sex; target: female 42.0 %, male 58.0 %; margin: 5.0 points"
    assert found["2.4"] == "answered by judge.subjects: 400; after.memorisation.groups.all.holdout: 600"
    assert found["3-4.2"].endswith("male −29.4 points to −25.4 points; after.equivalence_p: p < 0.001")
    assert found["5.3"].endswith("more near-copies than by chance in male")
    assert found["6.2"].endswith("seconds: 30 min in all")  # 1520.4 + 61.2 + 240.0 = 1821.6 s
    for number in ("1.1", "1.3", "1.4", "2.2", "3-4.4", "5.2", "5.5", "6.1", "6.3"):  # no measurement answers these
        assert found[number] == AUTHOR


@pytest.mark.parametrize("absent", [True, False])
def test_what_was_not_measured_answers_nothing(absent):
    found = answers(bare(absent=absent))
    assert found["5.4"] == found["6.2"] == found["6.4"] == AUTHOR
    assert found["3-4.3"] == "answered by after.verdict: aligned; after.n: 2,048; after.tipping_point: 2.3 points"


def test_markdown():
    text = to_markdown(full())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 23 + 2 * 5  # 23 items in five tables with head and rule
    assert all(line.count(" | ") == 3 for line in rows)
    assert f"{sum(answer != AUTHOR for answer in answers(full()).values())} of 23 items" in text
    assert "| 1.1 | The clinical problem that the model is meant for | author must fill |  |" in text
