"""From a data set as it is published to the datalist that every job reads."""

import csv
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bundle.cohorts.reading import LeftOut, Reading, write_left_out
from bundle.cohorts.record import read_datalist, split_by_subject
from bundle.cohorts.summary import summary
from bundle.errors import InputError
from scripts.prepare_cohort import ROLES, prepare_cohort, with_roles
from tests.forked import call


@pytest.fixture
def pictures(tmp_path):
    """Sixty pictures of forty people in a folder with a table; one file is broken, three people have no sex."""
    root, rng = tmp_path / "root", np.random.default_rng(0)
    root.mkdir()
    rows = [["subject", "image", "sex", "caption"]]
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (20, 24), dtype=np.uint8)).save(root / f"{i}.png")
        sex = "" if i % 40 < 3 else ("female", "male")[i % 2]
        rows.append([f"p{i % 40}", f"{i}.png", sex, "photograph of a lesion"])
    (root / "7.png").write_bytes((root / "7.png").read_bytes()[:50])
    with (root / "people.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return root


def prepared(root, out, **options):
    prepare_cohort("table", str(root), str(out), table=str(root / "people.csv"), **options)
    return json.loads(out.read_text())


def test_what_is_written(pictures, tmp_path, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in pictures.iterdir()}
    records = prepared(pictures, tmp_path / "out" / "cohort.json")
    assert len(records) == 59
    assert {record["role"] for record in records} <= set(ROLES)
    assert {record["role"] for record in records if record["sex"] is None} == {"source"}
    read = read_datalist(tmp_path / "out" / "cohort.json", ["image"], {"sex": ["female", "male"]}, (), "image")
    assert len(read) == 59  # every path leads to its file, nobody has two roles
    printed = capsys.readouterr().out
    assert "59 images or volumes of 40 subjects" in printed
    assert "1  picture that cannot be read" in printed
    left_out = list(csv.DictReader((tmp_path / "out" / "cohort_left_out.csv").open()))
    assert [(row["subject"], row["file"].endswith("7.png")) for row in left_out] == [("p7", True)]
    assert (tmp_path / "out" / "cohort.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "cohort.txt").read_text().strip() in printed
    assert {path.name: path.stat().st_mtime_ns for path in pictures.iterdir()} == before


def test_without_verification_no_image_is_opened(pictures, tmp_path):
    records = prepared(pictures, tmp_path / "cohort.json", verify=False)
    assert len(records) == 60
    assert not (tmp_path / "cohort.png").exists()


def test_roles_by_choice(pictures, tmp_path):
    records = prepared(pictures, tmp_path / "cohort.json", verify=False, roles={"source": 0.5, "guide": 0.5})
    assert {record["role"] for record in records} == {"source", "guide"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "--root", "nowhere"], "--root nowhere: no such folder; correct the path"),
        (["tabel"], "cohort 'tabel': not known; use table"),
        (["ham10000", "--malignent", "x"], "--malignent: ham10000 has no such option; use --malignant"),
        (["table", "--out", "cohort.csv"], "--out cohort.csv: a datalist is a JSON file"),
        (["table", "--out", "{root}/cohort.json"], "lies in the data set's folder"),
        (["table", "--table", "{root}/nobody.csv"], "nobody.csv: no such file"),
        (["table", "--attribute", "race"], "--attribute race: no subject has one"),
        (["table", "--roles", "{'source': 0.9}"], "must sum to 1"),
        (["table", "--roles", "{'train': 0.8, 'test': 0.2}"], "--roles: 'train' is no role; write a share for some of"),
        (["table", "--roles", "0.5"], "--roles: '0.5' is no role"),
        (["table", "--stratum", "grad"], "--stratum grad: no such column; there are"),
        (["table", "--attribute", "caption"], "all who have one are 'photograph of a lesion', and two groups"),
        (["table", "--table", "{root}/../cohort.json"], "cohort.json: is one of the given tables"),
        (["table", "--out", "{root}/../a file/cohort.json"], "its folder cannot be made ("),
    ],
)
def test_bad_input_ends_with_one_line(pictures, tmp_path, arguments, message):
    (tmp_path / "a file").touch()
    given = {"--root": str(pictures), "--out": str(tmp_path / "cohort.json")}
    if arguments[0] == "table":
        given["--table"] = str(pictures / "people.csv")
    given |= dict(zip(arguments[1::2], (word.replace("{root}", str(pictures)) for word in arguments[2::2])))
    words = [word for pair in given.items() for word in pair]
    status, last = call(prepare_cohort, [arguments[0], *words, "--noverify"])
    assert status == 1
    assert last.startswith("error: "), last
    assert message in last
    assert not (tmp_path / "cohort.json").exists()


def people(number, sexes=("female", "male", None)):
    return [{"subject": f"p{i}", "sex": sexes[i % len(sexes)], "image": f"{i}.png"} for i in range(number)]


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 5))
def test_nobody_moves_when_others_join(some, more, seed):
    def roles(number):
        return {record["subject"]: record["role"] for record in with_roles(people(number), "sex", ROLES, seed)}

    few, many = roles(some), roles(some + more)
    assert {subject: many[subject] for subject in few} == few


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.integers(0, 9))
def test_all_images_of_a_subject_go_together_and_none_is_lost(subjects, seed):
    records = [{"subject": subject, "image": i} for i, subject in enumerate(subjects)]
    parts = split_by_subject(records, {"a": 0.5, "b": 0.3, "c": 0.2}, seed)
    places = {}
    for name, part in parts.items():
        for record in part:
            assert places.setdefault(record["subject"], name) == name
    assert sorted(record["image"] for part in parts.values() for record in part) == list(range(len(records)))


def test_roles_have_their_shares_in_every_group():
    made = with_roles(people(6000), "sex", ROLES, 0)
    for sex in ("female", "male"):
        roles = [record["role"] for record in made if record["sex"] == sex]
        for role, share in ROLES.items():
            # standard error at most sqrt(.3 * .7 / 2000) = .0102
            assert roles.count(role) / len(roles) == pytest.approx(share, abs=0.04)


def test_the_summary_counts_people_and_says_what_is_missing():
    records = [
        {"subject": "a", "sex": "female", "grade": "HGG", "role": "source", "image": "1"},
        {"subject": "a", "sex": "female", "grade": "HGG", "role": "source", "image": "2"},
        {"subject": "b", "sex": "male", "grade": "HGG", "role": "source", "image": "3"},
        {"subject": "c", "sex": None, "grade": "LGG", "role": "guide", "image": "4"},
    ]
    reading = Reading(records, [LeftOut("no image", "x.png"), LeftOut("no image", "y.png")], ["it rained"])
    text = summary(reading, "sex", "grade", ROLES)
    assert "4 images or volumes of 3 subjects" in text
    assert "left out: 2" in text
    assert "2  no image" in text
    assert "Remark: it rained" in text
    assert "Caution: guide has nobody of HGG, female." in text
    assert "Caution: validation has nobody of HGG, male." in text  # nor anybody else
    assert "LGG" not in text.partition("Caution")[2]  # where nobody's sex is known
    assert "Caution: source" not in text
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in text.splitlines() if line.startswith(("HGG", "LGG"))}
    assert rows[("LGG", "unknown")] == ["1", "0", "1"]


def test_one_known_value_of_a_person_is_enough_for_the_summary():
    records = [
        {"subject": "a", "sex": "female", "role": "guide", "image": "1"},
        {"subject": "a", "sex": None, "role": "guide", "image": "2"},
        {"subject": "b", "sex": "male", "role": "guide", "image": "3"},
    ]
    assert "unknown" not in summary(Reading(records), "sex", None, ROLES)


def test_a_person_in_two_groups_counts_as_unknown(pictures, tmp_path, capsys):
    text = (pictures / "people.csv").read_text().splitlines()
    head, rows = text[0], [f"{row},{'under 60' if i < 30 else '60 and over'}" for i, row in enumerate(text[1:])]
    (pictures / "people.csv").write_text("\n".join([f"{head},age_band", *rows]) + "\n")
    records = prepared(pictures, tmp_path / "cohort.json", verify=False, attribute="age_band")
    # p0 to p19 have pictures 0 to 19 and 40 to 59
    assert {r["subject"] for r in records if r["age_band"] is None} == {f"p{i}" for i in range(20)}
    assert "subjects with two values of age_band, left unknown: 20, the first p0" in capsys.readouterr().out
    read_datalist(tmp_path / "cohort.json", ["image"], {"age_band": ["under 60", "60 and over"]}, (), "image")


def test_the_list_of_what_is_left_out(tmp_path):
    path = write_left_out([LeftOut("no image", "a, b.png", "p1", 'says "no"')], tmp_path / "left_out.csv")
    [row] = csv.DictReader(path.open())
    assert row == {"reason": "no image", "file": "a, b.png", "subject": "p1", "detail": 'says "no"'}


def test_shares_of_roles_that_cannot_be():
    with pytest.raises(InputError, match="must sum to 1"):
        with_roles(people(9), "sex", {"source": 0.5}, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table", "chexpert"])
def test_three_hundred_thousand_rows_take_less_than_a_minute(name, tmp_path):
    """The files are empty: whoever opened one would fail."""
    places = [f"CheXpert-v1.0/train/patient{i // 3:05d}/study1/view{i % 3}_frontal.jpg" for i in range(300_000)]
    head = {
        "table": "subject,image,sex,caption",
        "chexpert": "Path,Sex,Age,Frontal/Lateral,AP/PA,Pleural Effusion",
    }[name]
    root, rows = tmp_path / "root", [head]
    for i, place in enumerate(places):
        sex = ("Female", "Male")[i // 3 % 2]
        rows.append(f"p{i // 3},{place},{sex},chest X-ray" if name == "table" else f"{place},{sex},50,Frontal,AP,1.0")
        if i % 3 == 0:
            (root / place).parent.mkdir(parents=True)
        (root / place).touch()
    (root / "CheXpert-v1.0" / "train.csv").write_text("\n".join(rows) + "\n")
    options = {"table": str(root / "CheXpert-v1.0" / "train.csv")} if name == "table" else {}
    started = time.monotonic()
    prepare_cohort(name, str(root), str(tmp_path / "cohort.json"), verify=False, **options)
    assert time.monotonic() - started < 60
    assert len(json.loads((tmp_path / "cohort.json").read_text())) == 300_000
