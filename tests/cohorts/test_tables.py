"""Tables as they really come, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.cohorts.tables import SEX, age_band, coded, known, number, one_value, read_table
from bundle.errors import InputError

COLUMNS = ["id", "sex"]


@pytest.fixture
def table(tmp_path):
    """A function that writes bytes and reads them as a table."""

    def read(content, **options):
        (tmp_path / "people.csv").write_bytes(content)
        return read_table(tmp_path / "people.csv", COLUMNS, **options)

    return read


@pytest.mark.parametrize(
    "content",
    [
        b"id,sex\na,F\nb,M\n",
        b"\xef\xbb\xbfid,sex\r\na,F\r\nb,M\r\n",  # byte order mark, Windows
        b"id\tsex\na\tF\nb\tM",
        b"id;sex\na; F\n\nb;M \n\n",
        b'"id","sex"\n"a","F"\n"b","M"\n',
    ],
)
def test_the_same_table_in_many_dresses(table, content):
    assert table(content) == [{"id": "a", "sex": "F"}, {"id": "b", "sex": "M"}]


def test_other_columns_are_kept_and_cells_may_hold_the_separator(table):
    assert table(b'id,note,sex\na,"one, two",F\n') == [{"id": "a", "note": "one, two", "sex": "F"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "people.csv: the table is empty; copy it again"),
        (b"id,sex\n", "a header and no rows"),
        (b"id,gender\na,F\n", "no column 'sex'; there are id, gender"),
        (b"id,Sexx\na,F\n", "no column 'sex'; rename 'Sexx'"),
        (b"id|sex\na|F\n", "no column 'id', the header is one cell 'id|sex'; separate the columns by commas or tabs"),
        (b"id,sex,sex\na,F,M\n", "two columns 'sex'; rename or remove one"),
        (b"id,sex\na,F,x\n", "row 2 has 3 cells, the header 2"),
        (b"id,sex\n\xff\xfe,F\n", "not UTF-8 text"),
    ],
)
def test_bad_tables(table, content, message):
    with pytest.raises(InputError) as caught:
        table(content)
    assert message in str(caught.value)


def test_a_missing_table_and_one_that_may_not_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file; correct the path"):
        read_table(tmp_path / "people.csv", COLUMNS)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path, COLUMNS)


@pytest.mark.parametrize("text", ["", "NA", " n/a ", "--", "Not Reported", "[Not Available]", "Unknown", "NaN", None])
def test_words_for_unknown(text):
    assert known(text) is None


def test_codes_and_words():
    words = ("F", "male", " MALE ", "", "Unknown")
    assert [coded(text, SEX, "x") for text in words] == [
        "female",
        "male",
        "male",
        None,
        None,
    ]
    assert [coded(text, {"1": "female", "2": "male"}, "x") for text in ("1", "2.0", "NA")] == ["female", "male", None]
    with pytest.raises(InputError, match="people.csv: row 3: unknown code '2'; use one of female, f, "):
        coded("2", SEX, "people.csv: row 3")


def test_numbers():
    assert (number("4.5", "x"), number("NA", "x")) == (4.5, None)
    with pytest.raises(InputError, match="people.csv: row 3: 'old' is no number"):
        number("old", "people.csv: row 3")


def test_age_bands():
    assert [age_band(age) for age in (59.9, 60, None)] == ["under 60", "60 and over", None]
    assert [age_band(age, (40, 60)) for age in (39, 40, 59, 60)] == ["under 40", "40 to 59", "40 to 59", "60 and over"]


def test_one_value():
    assert one_value(["a", None, "a"]) == ("a", False)
    assert one_value(["a", "b"]) == (None, True)
    assert one_value([None]) == (None, False)


@given(st.floats(0, 120), st.lists(st.integers(1, 110), min_size=1, max_size=4, unique=True).map(sorted))
def test_every_age_has_one_band(age, bounds):
    bands = [age_band(value, bounds) for value in (*bounds, bounds[0] - 1)]
    assert len(set(bands)) == len(bounds) + 1
    assert age_band(age, bounds) in bands
