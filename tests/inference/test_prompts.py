"""What each image shall show: every way of saying it, and what is refused."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from bundle.attributes import Attribute
from bundle.conditioning import Clip
from bundle.errors import InputError
from bundle.inference import prompts
from bundle.inference.prompts import (
    Drawn,
    InTurn,
    Request,
    given_requests,
    group_counts,
    largest_remainder,
    number_of_images,
    positive,
    requests,
    warn_of_cut,
)

SEX = Attribute("sex", ["female", "male"])
ROWS = [
    {"caption": "chest, no finding", "sex": "female", "stated": "chest, no finding, 40-year-old woman"},
    {"caption": "chest, no finding", "sex": "male"},
    {"caption": "chest, no finding", "sex": None},
    {"caption": "chest, effusion", "sex": "male"},
]


def given(prompts=None, file=None, column="prompt"):
    return given_requests(prompts, None if file is None else str(file), column, SEX)


class TestGiven:
    def test_a_prompt_keeps_its_commas_and_a_list_its_order(self):
        assert given("axial FLAIR brain MRI, no tumor") == [Request("axial FLAIR brain MRI, no tumor")]
        assert [request.prompt for request in given(["b, c", " a\n d "])] == ["b, c", "a d"]
        assert given() == []

    def test_a_text_file_has_one_a_line(self, tmp_path):
        path = tmp_path / "prompts.txt"
        path.write_text("first, with # and $\n\n@second\n")
        assert given(file=path) == [Request("first, with # and $"), Request("@second")]

    def test_a_table_names_the_column_and_perhaps_the_group(self, tmp_path):
        path = tmp_path / "prompts.csv"
        path.write_text('n,text,stated\n1,"a man, 40",male\n2,a patient,\n')
        assert given(file=path, column="text") == [Request("a man, 40", "male"), Request("a patient")]

    def test_json_holds_texts_or_objects(self, tmp_path):
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps(["one, two", {"prompt": "a woman", "stated": "female"}]))
        assert given(file=path) == [Request("one, two"), Request("a woman", "female")]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (("a", "b"), "was not read as it was meant"),  # what fire makes of a,b
            ("[a, b c, d]", "was not read as it was meant"),  # a list without quotes
            ([], "give a list of texts"),
            ({"a": 1}, "give a list of texts"),
            (["a", 3], "prompt 2 is 3"),
            (["a", "  "], "prompt 2 is '  '"),
        ],
    )
    def test_what_is_no_prompt_is_refused(self, value, message):
        with pytest.raises(InputError, match=message):
            given(value)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.txt", "\n \n", "no prompt in it"),
            ("header.csv", "prompt\n", "a header and no rows"),
            ("other.csv", "text\na\n", "no column 'prompt'"),
            ("gap.csv", "prompt,stated\na,\n,male\n", "prompt 2 is ''"),
            ("group.csv", "prompt,stated\na,Male\n", "unknown group 'Male'; sex has female, male"),
            ("empty.json", "[]", "no prompt in it"),
            ("object.json", "{}", "no list"),
            ("broken.json", "[", "not readable as JSON"),
            ("nothing.json", '[{"text": "a"}]', "prompt 1 is None"),
            ("prompts.docx", "a", "are read from .txt, .csv and .json"),
        ],
    )
    def test_a_file_that_holds_none_is_refused_by_name(self, tmp_path, name, content, message):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=message) as raised:
            given(file=tmp_path / name)
        assert name in str(raised.value)

    def test_a_file_that_is_not_there_and_one_too_many(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            given(file=tmp_path / "none.txt")
        with pytest.raises(InputError, match="both are given"):
            given("a", tmp_path / "none.txt")


class TestNumber:
    def test_one_of_each_prompt_unless_asked_otherwise(self):
        assert number_of_images(None, [Request("a")] * 3) == 3
        assert number_of_images(7, [Request("a")] * 3) == 7
        assert number_of_images(None, []) == prompts.DEFAULT_NUMBER

    @pytest.mark.parametrize("value", [0, -1, 2.5, "many", True])
    def test_what_is_no_number_of_images_is_refused(self, value):
        with pytest.raises(InputError, match="num_images: .*whole number from 1 up"):
            number_of_images(value, [])
        with pytest.raises(InputError, match="batch_size"):
            positive(value, "batch_size")


class TestProportions:
    @pytest.mark.parametrize(
        ("shares", "number", "counts"),
        [
            ([0.3, 0.7], 10, [3, 7]),
            ([0.3, 0.7], 5, [2, 3]),  # 1.5 and 3.5: the first wins
            ([1 / 3, 1 / 3, 1 / 3], 100, [34, 33, 33]),
            ([0.1, 0.2, 0.7], 7, [1, 1, 5]),  # 0.7, 1.4, 4.9
            ([0.0, 1.0], 3, [0, 3]),
        ],
    )
    def test_whole_numbers_by_largest_remainder(self, shares, number, counts):
        assert largest_remainder(np.array(shares), number) == counts

    def test_every_group_is_stated_exactly_so_often(self):
        counts = group_counts({"male": 0.3}, SEX, 50, [])
        wanted = requests([], ROWS, counts, SEX, seed=0)
        drawn = [wanted[index] for index in range(50)]
        assert Counter(request.stated for request in drawn) == {"female": 35, "male": 15}
        for request in drawn:
            assert request.prompt.endswith({"female": "woman", "male": "man"}[request.stated])
        assert "chest, no finding, 40-year-old woman" in {request.prompt for request in drawn}
        assert [wanted[index] for index in range(50)] == drawn
        groups = [request.stated for request in drawn]
        assert groups != sorted(groups)  # mixed, so that a part of the job has about the same proportions

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ({"male": 0.3, "female": 0.6}, "proportions: proportions sum to 0.9"),
            ({"man": 0.3}, "unknown group 'man'"),
            ("male", "give a proportion for each of female, male"),
        ],
    )
    def test_what_is_no_proportion_is_refused(self, written, message):
        with pytest.raises(InputError, match=message):
            group_counts(written, SEX, 10, [])

    def test_the_wording_of_given_prompts_is_not_chosen(self):
        with pytest.raises(InputError, match="prompts are given; leave one out"):
            group_counts({"male": 0.3}, SEX, 10, [Request("a")])
        assert group_counts(None, SEX, 10, [Request("a")]) is None


class TestRequests:
    def test_given_ones_come_in_turn(self):
        wanted = requests([Request("a"), Request("b", "male")], None, None, SEX, seed=0)
        assert [wanted[index].prompt for index in range(5)] == ["a", "b", "a", "b", "a"]

    def test_captions_come_in_their_frequencies_and_state_nobody(self):
        wanted = requests([], ROWS, None, SEX, seed=0)
        drawn = Counter(wanted[index] for index in range(1000))
        assert set(drawn) == {Request("chest, no finding"), Request("chest, effusion")}
        # standard error sqrt(.75 * .25 / 1000) = .014
        assert drawn[Request("chest, no finding")] / 1000 == pytest.approx(0.75, abs=0.06)

    def test_an_index_has_its_prompt_whatever_the_number_and_the_seed_changes_it(self):
        one, same, other = (requests([], ROWS, None, SEX, seed=seed) for seed in (0, 0, 1))
        drawn = [[wanted[index] for index in range(20)] for wanted in (one, same, other)]
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]

    def test_the_digest_depends_on_all_of_it(self):
        shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
        stated = {"female": ["a, woman", "b, woman"], "male": ["a, man", "b, man"]}
        made = [
            InTurn([Request("a")]),
            InTurn([Request("a", "male")]),
            Drawn(0, ["a", "b"], shares),
            Drawn(0, ["a", "c"], shares),
            Drawn(0, ["a", "b"], shares / 2),
            Drawn(0, ["a", "b"], shares, ["male", "female"], stated),
            Drawn(0, ["a", "b"], shares, ["female", "male"], stated),
        ]
        assert len({wanted.digest() for wanted in made}) == len(made)


def test_a_prompt_that_the_text_tower_cuts_is_named(root, caplog):
    clip = Clip(f"local-dir:{root / 'models' / 'clip'}")
    room = clip.tokenize([""]).shape[1] - 2  # beginning and end take one each
    fits, long = " ".join(["brain"] * room), " ".join(["brain"] * (room + 1))
    assert clip.cut([fits, long, ""]) == [False, True, False]
    assert torch.equal(clip.context([fits]), clip.context([long]))  # so silently
    with caplog.at_level("WARNING"):
        warn_of_cut(clip, InTurn([Request(fits), Request("a")]))
        assert caplog.text == ""
        warn_of_cut(clip, InTurn([Request(fits), Request(long)]))
    assert "1 of 2 are longer than what the text tower reads" in caplog.text
