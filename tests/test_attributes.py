"""Groups and the proportions that users write."""

import pytest

from bundle.attributes import Attribute
from bundle.errors import InputError

SEX = Attribute("sex", ["female", "male"])
AGE = Attribute("age_band", ["young", "middle", "old"])


def test_indices_and_missing_values():
    rows = [{"sex": "male"}, {"sex": "female"}, {"sex": None}, {}, {"sex": "unknown"}]
    assert SEX.indices(rows).tolist() == [1, 0, -1, -1, -1]


@pytest.mark.parametrize("groups", [["male"], ["male", "male"], []])
def test_an_attribute_needs_two_groups(groups):
    with pytest.raises(InputError, match="at least two different groups"):
        Attribute("sex", groups)


class TestWritten:
    @pytest.mark.parametrize(
        ("attribute", "written", "expected"),
        [
            (SEX, {"male": 0.58, "female": 0.42}, [0.42, 0.58]),
            (SEX, {"male": 0.3}, [0.7, 0.3]),
            (SEX, {"female": 1}, [1.0, 0.0]),
            (AGE, {"old": 0.5, "young": 0.2}, [0.2, 0.3, 0.5]),
        ],
    )
    def test_order_of_the_groups_and_the_rest(self, attribute, written, expected):
        assert attribute.proportions(written, "target").tolist() == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("attribute", "written", "message"),
        [
            (SEX, {"men": 0.3}, "target: unknown group 'men'; sex has female, male"),
            (SEX, {"male": 0.3, "female": 0.6}, "target: proportions sum to 0.9; change them so that they sum to 1"),
            (SEX, {"male": 1.3}, "leaves \\[0, 1\\]"),
            (SEX, {"male": float("nan")}, "leaves \\[0, 1\\]"),
            (SEX, {}, "no proportion for female, male; give all groups or all but one"),
            (AGE, {"old": 0.5}, "no proportion for young, middle"),
            (SEX, 0.58, "target: 0.58; give a proportion for each of female, male"),
        ],
    )
    def test_what_is_not_a_proportion(self, attribute, written, message):
        with pytest.raises(InputError, match=message):
            attribute.proportions(written, "target")


class TestObserved:
    def test_each_subject_counts_once(self):
        rows = [{"subject": name, "sex": sex} for name, sex in [("a", "male")] * 5 + [("b", "female"), ("c", None)]]
        assert SEX.observed_proportions(rows, "cohort").tolist() == [0.5, 0.5]

    def test_a_group_that_nobody_belongs_to(self):
        rows = [{"subject": "a", "age_band": "old"}]
        assert AGE.observed_proportions(rows, "cohort").tolist() == [0, 0, 1]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"subject": "a", "sex": None}], "cohort: no subject has a known sex"),
            ([{"subject": "a", "sex": "male"}, {"subject": "a", "sex": "female"}], "subject 'a' has two values of sex"),
        ],
    )
    def test_what_cannot_be_counted(self, rows, message):
        with pytest.raises(InputError, match=message):
            SEX.observed_proportions(rows, "cohort")
