"""Captions: what they say, and what the neutral ones must not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.attributes import Attribute
from bundle.errors import InputError
from bundle.prompts import (
    GRADE,
    MODALITY,
    caption_facts,
    caption_frequencies,
    caption_strata,
    detailed_caption,
    detailed_stated_caption,
    neutral_caption,
    stated_caption,
    stated_prompts,
)

PERSON = {"sex": "male", "age": 43}
ROW = {"modality": "flair", "level": "ventricular", "lesion": True, "grade": "LGG", "side": "left", **PERSON}


@pytest.mark.parametrize(
    ("change", "caption"),
    [
        ({}, "axial FLAIR brain MRI, ventricular level, low-grade glioma in the left hemisphere"),
        ({"lesion": False}, "axial FLAIR brain MRI, ventricular level, no tumor"),
        ({"grade": None, "side": None}, "axial FLAIR brain MRI, ventricular level, glioma"),
        ({"modality": "t1ce", "grade": "HGG"}, "axial contrast-enhanced T1 brain MRI, ventricular level, "
         "high-grade glioma in the left hemisphere"),
    ],
)  # fmt: skip
def test_neutral_captions(change, caption):
    assert neutral_caption({**ROW, **change}) == caption


def test_neutral_captions_do_not_depend_on_the_person():
    assert neutral_caption({**ROW, "sex": "female", "age": 80}) == neutral_caption({**ROW, "sex": None, "age": None})


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ({}, ", 43-year-old man"),
        ({"sex": "female", "age": None}, ", woman"),
        ({"sex": None}, ", 43-year-old patient"),
    ],
)
def test_stated_captions_add_the_person(change, end):
    row = {**ROW, **change}
    assert stated_caption(row) == neutral_caption(row) + end


@pytest.mark.parametrize(
    ("found", "details"),
    [
        ({"lesion_share": 0.02, "edema": True, "enhancing": False}, ", small lesion, with edema, without enhancement"),
        ({"lesion_share": 0.03, "edema": False, "enhancing": True}, ", small lesion, without edema, with enhancement"),
        ({"lesion_share": 0.1, "edema": None, "enhancing": None}, ", medium-sized lesion"),
        ({"lesion_share": 0.11}, ", large lesion"),
        ({"lesion": False, "lesion_share": None, "edema": None, "enhancing": None}, ""),
    ],
)
def test_details_are_what_the_segmentation_shows(found, details):
    row = {**ROW, **found}
    assert detailed_caption(row) == neutral_caption(row) + details
    assert detailed_stated_caption(row) == stated_caption(row) + details


def test_a_row_may_have_captions_of_its_own():
    row = {"caption": "dermoscopy image", "stated": "dermoscopy image, woman", "sex": "female"}
    assert [word(row) for word in (neutral_caption, stated_caption)] == [row["caption"], row["stated"]]
    assert stated_caption({**row, "stated": None}) == "dermoscopy image, woman"


ROWS = st.fixed_dictionaries(
    {
        "modality": st.sampled_from([*MODALITY, "pd"]),
        "level": st.sampled_from(["lower", "upper"]),
        "lesion": st.booleans(),
        "grade": st.sampled_from([*GRADE, None]),
        "side": st.sampled_from(["left", "right", None]),
        "sex": st.sampled_from(["female", "male", None]),
        "age": st.one_of(st.none(), st.integers(1, 110)),
        "lesion_share": st.one_of(st.none(), st.floats(0, 1)),
        "edema": st.sampled_from([True, False, None]),
        "enhancing": st.sampled_from([True, False, None]),
    }
)


@given(ROWS, ROWS)
def test_neutral_captions_tell_the_same_of_everybody(row, other):
    swapped = {**row, "sex": other["sex"], "age": other["age"]}
    for wording in (neutral_caption, detailed_caption):
        assert wording(swapped) == wording(row)
        assert not re.search(r"\b(wo)?man\b|year|None", wording(row))


@given(ROWS)
def test_stated_captions_begin_with_the_neutral_ones_and_name_what_is_known(row):
    stated = stated_caption(row)
    assert stated.startswith(neutral_caption(row))
    assert (
        re.search(r"\b(woman|man|patient)\b", stated)[0]
        == {"female": "woman", "male": "man", None: "patient"}[row["sex"]]
    )
    assert (f"{row['age']}-year-old" in stated) == (row["age"] is not None)
    assert "None" not in detailed_stated_caption(row)


def test_frequencies_are_shares_of_the_rows():
    rows = [ROW, {**ROW, "sex": "female"}, {**ROW, "lesion": False}, {**ROW, "side": "right"}]
    captions, shares = caption_frequencies(rows)
    assert captions == sorted(captions)
    assert dict(zip(captions, shares.tolist())) == {
        neutral_caption(ROW): 0.5,
        neutral_caption(rows[2]): 0.25,
        neutral_caption(rows[3]): 0.25,
    }


class TestStrata:
    SICK, HEALTHY = neutral_caption(ROW), neutral_caption({**ROW, "lesion": False})

    def strata(self, *grades):
        rows = [{**ROW, "grade": grade} for grade in grades]
        captions = sorted({neutral_caption(row) for row in rows})
        return dict(zip(captions, caption_strata(rows, captions, "grade")))

    def test_a_caption_that_names_its_stratum(self):
        assert sorted(self.strata("HGG", "LGG", "LGG").values()) == ["HGG", "LGG"]

    def test_a_caption_that_several_strata_share_belongs_to_none(self):
        rows = [{**ROW, "lesion": False}, {**ROW, "lesion": False, "grade": "HGG"}]
        assert caption_strata(rows, [self.HEALTHY], "grade") == ["all"]

    def test_a_missing_value_is_no_stratum(self):
        assert list(self.strata(None).values()) == ["all"]
        rows = [{**ROW, "site": "A"}, {**ROW, "site": None}]
        assert caption_strata(rows, [self.SICK], "site") == ["all"]

    def test_a_column_that_nobody_has(self):
        with pytest.raises(InputError, match="stratum 'grad': no such column; the cohort has age, grade"):
            caption_strata([ROW], [self.SICK], "grad")

    def test_without_a_column(self):
        assert caption_strata([ROW], [self.SICK, self.HEALTHY], None) == ["all", "all"]


class TestFacts:
    def test_what_all_rows_of_a_caption_share_is_asked_for(self):
        rows = [ROW, {**ROW, "lesion": False}]
        captions = [neutral_caption(row) for row in rows]
        found = caption_facts(rows, captions, ["level", "lesion", "age", "nothing"])
        assert found == {"level": [ROW["level"]] * 2, "lesion": ["True", "False"], "age": [str(ROW["age"])] * 2}

    def test_where_rows_differ_nothing_is(self):
        rows = [{**ROW, "lesion": False, "side": None, "grade": grade} for grade in ("HGG", "LGG")]
        assert caption_facts(rows, [neutral_caption(rows[0])], ["grade", "side"]) == {}


class TestStatedPrompts:
    SEX = Attribute("sex", ["female", "male"])

    def test_the_commonest_statement_of_the_caption_is_taken(self):
        rows = [{**ROW, "sex": "male", "age": age} for age in (50, 61, 61)]
        found = stated_prompts(rows, [neutral_caption(ROW)], self.SEX)
        assert found["male"] == [stated_caption(rows[1])]

    def test_without_such_a_row_the_group_is_named(self):
        found = stated_prompts([{**ROW, "sex": "male"}], [neutral_caption(ROW)], self.SEX)
        assert found["female"] == [f"{neutral_caption(ROW)}, woman"]
        age = Attribute("age_band", ["under 60", "60 and over"])
        assert stated_prompts([ROW], ["x"], age)["under 60"] == ["x, under 60"]
