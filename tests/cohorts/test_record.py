"""Datalists: what is checked before any compute, and splits that keep a subject together."""

import gzip
import json
import os
import time
from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from bundle.cohorts.record import (
    deal_subjects,
    in_random_order,
    read_datalist,
    require_disjoint,
    split_by_subject,
    write_datalist,
)
from bundle.errors import InputError

SEX = {"sex": ["female", "male"]}


@pytest.fixture
def volume():
    values = np.random.default_rng(0).integers(0, 900, (12, 10, 8)).astype(np.int16)
    return nib.Nifti1Image(values, np.eye(4))


@pytest.fixture
def cohort(tmp_path, volume):
    """Two subjects in a folder, and a function that writes the list, changed, and reads it."""
    for name in ("a", "b"):
        nib.save(volume, tmp_path / f"{name}_t1.nii.gz")
        nib.save(volume, tmp_path / f"{name}_flair.nii")
    records = [
        {"subject": "a", "t1": "a_t1.nii.gz", "flair": "a_flair.nii", "sex": "female", "age": 40},
        {"subject": "b", "t1": "b_t1.nii.gz", "flair": "b_flair.nii", "sex": None},
    ]

    def read(*changes, modalities=("t1", "flair"), attributes=SEX):
        for record, change in zip(records, changes):
            record.update(change)
        (tmp_path / "list.json").write_text(json.dumps(records))
        return read_datalist(tmp_path / "list.json", modalities, attributes)

    read.folder = tmp_path
    return read


def test_paths_are_resolved_and_unknown_is_none(cohort):
    first, second = cohort({}, {"sex": None})
    assert first["t1"] == str(cohort.folder / "a_t1.nii.gz")
    assert first["age"] == 40
    assert "seg" not in first
    assert (first["sex"], second["sex"]) == ("female", None)


def test_an_absent_column_of_one_record_is_missing(cohort):
    first, second = cohort({"grade": "HGG"}, attributes={"grade": ["HGG", "LGG"]})
    assert (first["grade"], second["grade"]) == ("HGG", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"subject": ""}], "record 0: no 'subject'"),
        ([{}, {"subject": 7}], "record 1: no 'subject'"),
        ([{}, {"subject": "a"}], "record 1: subject 'a' is also record 0"),
        ([{"t1": None}], "subject 'a', field 't1': no image path"),
        ([{"t1": "gone.nii.gz"}], "field 't1': .*gone.nii.gz does not exist; correct the path"),
        ([{"seg": "gone.nii.gz"}], "field 'seg': .*does not exist"),
        ([{"sex": "Male"}], "field 'sex': unknown group 'Male'; did you mean 'male'"),
        ([{"sex": 2}], "unknown group 2; use one of"),
        ([{"sex": None}], "list.json: field 'sex': no record has this attribute; add the column"),
    ],
)
def test_bad_records_are_named(cohort, changes, message):
    with pytest.raises(InputError, match=message):
        cohort(*changes)


@pytest.mark.parametrize(("name", "remedy"), [("seg", "an image of zeros"), ("t1", "ask for other modalities")])
def test_the_remedy_fits_the_image_that_is_missing(cohort, name, remedy):
    with pytest.raises(InputError, match=f"'{name}': no image path; add it, .*{remedy}"):
        cohort({name: None}, modalities=["t1", "seg"])


@pytest.mark.parametrize("text", ["{}", "[]", "[{", "[1]"])
def test_what_is_no_datalist(tmp_path, text):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match=r"list\.json.*(write|give)"):
        read_datalist(tmp_path / "list.json", ["t1"])


def test_a_missing_datalist(tmp_path):
    with pytest.raises(InputError, match="no such datalist; prepare the cohort"):
        read_datalist(tmp_path / "list.json", ["t1"])


@pytest.mark.parametrize("keep", [0, 3, 200, 0.5, -3])
@pytest.mark.parametrize("name", ["a_t1.nii.gz", "a_flair.nii"])
def test_truncated_images_are_found(cohort, name, keep):
    file = cohort.folder / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=f"subject 'a', field .*{name} .*copy it again"):
        cohort()


def test_a_file_that_is_no_nifti(cohort):
    (cohort.folder / "a_t1.nii.gz").write_bytes(b"<html>" * 200)
    with pytest.raises(InputError, match="field 't1': .*cannot be read as an image"):
        cohort()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_formats_and_byte_orders_are_read(cohort, kind, order):
    header = kind.header_class(endianness=order)
    nib.save(kind(np.zeros((5, 6, 7), np.float32), np.eye(4), header), cohort.folder / "a_t1.nii.gz")
    assert nib.load(cohort.folder / "a_t1.nii.gz").header.endianness == order
    cohort()


def test_several_gzip_members_make_a_sound_file(cohort, volume):
    content = volume.to_bytes()
    (cohort.folder / "a_t1.nii.gz").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    cohort()


def test_three_thousand_subjects_are_checked_within_seconds(tmp_path, volume):
    nib.save(volume, tmp_path / "volume.nii.gz")
    names = ("t1", "t1ce", "t2", "flair", "seg")
    records = [{"subject": f"s{n}", "sex": "male"} | dict.fromkeys(names, "volume.nii.gz") for n in range(3000)]
    write_datalist(tmp_path / "list.json", records)
    start = time.process_time()
    assert len(read_datalist(tmp_path / "list.json", names[:4], SEX)) == 3000
    assert time.process_time() - start < 3


def test_a_datalist_is_written_in_one_step(tmp_path, monkeypatch):
    target = tmp_path / "made" / "list.json"
    write_datalist(target, [{"subject": "a", "t1": tmp_path / "made" / "x" / "t1.nii", "note": "x/y"}])
    before = target.read_text()
    assert json.loads(before) == [{"subject": "a", "t1": "x/t1.nii", "note": "x/y"}]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_datalist(target, [{"subject": "b"}])
    assert target.read_text() == before


# --- splits ------------------------------------------------------------------------------------------------------


def subjects(count, first=0):
    return [{"subject": f"s{number}", "slice": k} for number in range(first, first + count) for k in range(2)]


def where(parts):
    return {record["subject"]: name for name, records in parts.items() for record in records}


def test_splits_keep_subjects_together_and_have_the_asked_sizes():
    fractions = {"train": 0.7, "validation": 0.2, "test": 0.1}
    parts = split_by_subject(subjects(2000), fractions, seed=3)
    assert sum(map(len, parts.values())) == 4000
    ids = {name: {record["subject"] for record in records} for name, records in parts.items()}
    require_disjoint(**ids)
    for name, share in fractions.items():
        assert len(ids[name]) / 2000 == pytest.approx(share, abs=0.035)  # over three standard errors


def test_no_subject_moves_when_others_join_and_the_seed_matters():
    fractions = {"train": 0.5, "test": 0.5}
    few, many = (where(split_by_subject(subjects(count), fractions, seed=1)) for count in (50, 200))
    assert few == {subject: many[subject] for subject in few}
    assert few != where(split_by_subject(subjects(50), fractions, seed=2))


def test_parts_may_be_empty_but_shares_must_sum_to_one():
    assert split_by_subject(subjects(9), {"train": 1.0, "test": 0.0})["test"] == []
    for fractions in ({"train": 0.5}, {"train": 1.5, "test": -0.5}):
        with pytest.raises(InputError, match="must sum to 1"):
            split_by_subject(subjects(2), fractions)


def test_the_first_of_a_cohort_are_of_all_parts():
    fractions = {"train": 0.5, "test": 0.5}
    part = where(split_by_subject(subjects(2000), fractions))
    first = [part[record["subject"]] for record in in_random_order(subjects(2000))[:100]]
    assert 30 <= first.count("test") <= 70  # standard error sqrt(100 / 4) = 5


def test_shared_subjects_are_refused():
    require_disjoint(guide=["a"], judge=["b"], base=["c"])
    with pytest.raises(InputError, match="guide and judge share 1 subject.*'b'"):
        require_disjoint(guide=["a", "b"], base=[], judge=iter(["b"]))


def test_subjects_are_dealt_out_evenly_within_every_value():
    records = [
        {"subject": f"p{i}", "sex": ("female", "male", None)[i % 3], "site": "xy"[i % 7 > 2], "slice": j}
        for i in range(40)
        for j in range(2)
    ]
    parts = deal_subjects(records, 3, ["sex", "site"])
    assert sorted(len(part) for part in parts) == [13, 13, 14]
    assert sorted(subject for part in parts for subject in part) == sorted({record["subject"] for record in records})
    columns = {record["subject"]: (record["sex"], record["site"]) for record in records}
    for length in (1, 2):
        for value in {pair[:length] for pair in columns.values()}:
            sizes = [sum(columns[subject][:length] == value for subject in part) for part in parts]
            assert max(sizes) - min(sizes) <= 1
    assert deal_subjects(reversed(records), 3, ["sex", "site"]) == parts
    assert deal_subjects(records, 3, ["sex", "site"], seed=1) != parts


def test_a_random_order_depends_on_ids_alone():
    """Files come by hospital: a 0, a 1, ... b 0, ...; the first half of the new order has both hospitals."""
    records = [{"subject": f"{site}{i}", "scan": scan} for site in "ab" for i in range(50) for scan in (0, 1)]
    ordered = in_random_order(records)
    assert [record["scan"] for record in ordered] == [0, 1] * 100
    assert ordered == in_random_order(sorted(records, key=lambda record: (record["scan"], record["subject"])))
    first = Counter(record["subject"][0] for record in ordered[:100])
    assert 30 < first["a"] < 70
    fewer = [record for record in records if record["subject"] != "a7"]
    assert in_random_order(fewer) == [record for record in ordered if record["subject"] != "a7"]
