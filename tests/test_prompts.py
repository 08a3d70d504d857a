"""Captions: what they say, and what the neutral ones must not."""

import pytest

from bundle.errors import InputError
from bundle.prompts import caption_frequencies, caption_strata, neutral_caption, stated_caption

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
