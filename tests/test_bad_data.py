"""Bad data ends the preparation before any compute, with a last line that names file, field and remedy; what can be
left out is left out and listed."""

import csv
import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.prepare_cohort import prepare_cohort
from tests.forked import call
from tests.miniatures import COHORTS


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Each data set's miniature and the options to read it with, made once."""
    made = {}
    for name, make in COHORTS.items():
        folder = tmp_path_factory.mktemp(name)
        made[name] = (folder, make(folder / "root"))
    return made


@pytest.fixture
def prepare(published, tmp_path):
    """A function that prepares a damaged copy of a miniature: exit status, last line, and the list, if there is one."""

    def run(name, damage, **changes):
        original, options = published[name]
        copy = tmp_path / name
        shutil.copytree(original, copy)
        options = json.loads(json.dumps(options).replace(str(original), str(copy)))
        changed = damage(copy / "root")
        options |= changed if isinstance(changed, dict) else {}
        given = {"root": copy / "root", "out": tmp_path / "cohort.json", "attribute": ATTRIBUTES.get(name, "sex")}
        given |= {**options, **changes}
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        status, last = call(prepare_cohort, [name, *words])
        out = tmp_path / "cohort.json"
        return status, last, json.loads(out.read_text()) if out.is_file() else None

    run.folder = tmp_path
    return run


ATTRIBUTES = {"fairgenmed": "race"}


def edit(path, change):
    path.write_text(change(path.read_text()))


def cells(path, change):
    """Rewrite a table by a function of its rows."""
    with path.open(newline="") as stream:
        table = change(list(csv.reader(stream)))
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(table)


def cell(path, row, column, value):
    def change(table):
        table[row][table[0].index(column)] = value
        return table

    cells(path, change)


def without_column(path, column):
    def change(table):
        place = table[0].index(column)
        return [row[:place] + row[place + 1 :] for row in table]

    cells(path, change)


def ham(root):
    return root / "HAM10000_metadata.csv"


def chex(root):
    return root / "CheXpert-v1.0-small" / "train.csv"


def people(root):
    return root / "people.csv"


def mapping(root):
    return root.parent / "tables" / "mapping.csv"


def clinic(root):
    return root.parent / "tables" / "tcga.csv"


def npz(root, **fields):
    path = sorted((root / "train").glob("*.npz"))[0]
    np.savez(path, **{**dict(np.load(path)), **fields})


def repeated(path):
    edit(path, lambda text: text + text.splitlines()[1] + "\n")


def no_images(root):
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png")]:
        path.unlink()


def loop(root):
    (root / "HGG" / "again").symlink_to(root)


def pickled_picture(root):
    for path in list(root.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (root / "images.pkl").write_bytes(pickle.dumps([1]))


def two_splits(root):
    """A column of splits, and somebody of the other split who is called as the first."""
    halves = ["split", *["train"] * 30, *["test"] * 30]
    cells(people(root), lambda table: [[*row, split] for row, split in zip(table, halves)])
    cell(people(root), 59, "subject", "p0")


FATAL = {
    "ham10000: no table": ("ham10000", lambda r: ham(r).unlink(), ["HAM10000_metadata", "give the folder"]),
    "ham10000: missing column": ("ham10000", lambda r: without_column(ham(r), "sex"), ["metadata.csv", "'sex'"]),
    "ham10000: wrong separator": (
        "ham10000", lambda r: edit(ham(r), lambda text: text.replace(",", "|")), ["separate the columns"]
    ),
    "ham10000: unknown sex": ("ham10000", lambda r: cell(ham(r), 3, "sex", "X"), ["unknown code 'X'", "use one"]),
    "ham10000: a number for sex": ("ham10000", lambda r: cell(ham(r), 3, "sex", "1"), ["'sex'", "unknown code '1'"]),
    "ham10000: unknown diagnosis": ("ham10000", lambda r: cell(ham(r), 3, "dx", "melanoma"), ["'dx'", "melanoma"]),
    "ham10000: image twice": ("ham10000", lambda r: repeated(ham(r)), ["metadata.csv", "ISIC_", "keep one"]),
    "ham10000: age in words": ("ham10000", lambda r: cell(ham(r), 2, "age", "old"), ["'age'", "no number"]),
    "ham10000: not text": ("ham10000", lambda r: ham(r).write_bytes(b"\xff\xfe\x00l"), ["not UTF-8", "save"]),
    "ham10000: empty": ("ham10000", lambda r: ham(r).write_text(""), ["empty", "copy it again"]),
    "ham10000: a pickle": ("ham10000", pickled_picture, ["images.pkl", "pickles can run code", "jpg"]),
    "ham10000: no images": ("ham10000", no_images, ["root", "HAM10000"]),
    "ham10000: unknown option value": (
        "ham10000", lambda r: {"malignant": "['melanoma']"}, ["malignant", "melanoma", "akiec"]
    ),
    "chexpert: missing column": ("chexpert", lambda r: without_column(chex(r), "Sex"), ["train.csv", "'Sex'"]),
    "chexpert: unknown view": ("chexpert", lambda r: {"view": "top"}, ["view", "top", "frontal"]),
    "chexpert: unknown label": ("chexpert", lambda r: {"label": "Pleural Efusion"}, ["label", "Pleural Effusion"]),
    "chexpert: label is no code": (
        "chexpert", lambda r: cell(chex(r), 1, "Pleural Effusion", "7"), ["Pleural Effusion", "'7'"]
    ),
    "chexpert: path leaves the root": (
        "chexpert", lambda r: cell(chex(r), 1, "Path", "../../elsewhere/patient00001/study1/view1_frontal.jpg"),
        ["train.csv", "elsewhere"],
    ),
    "fairgenmed: pickled objects": (
        "fairgenmed", lambda r: npz(r, race=np.array({"race": 1}, dtype=object)), ["data_00001.npz", "race", "pickle"]
    ),
    "fairgenmed: unknown code": ("fairgenmed", lambda r: npz(r, race=np.array(7)), ["data_00001.npz", "race", "7"]),
    "fairgenmed: no summary": (
        "fairgenmed", lambda r: (r / "data_summary.csv").unlink(), ["data_summary.csv"]
    ),
    "brats18: mapping without its columns": (
        "brats18", lambda r: without_column(mapping(r), "TCGA_TCIA_subject_ID"), ["mapping.csv", "TCGA_TCIA_subject_ID"]
    ),
    "brats18: an id twice in the mapping": ("brats18", lambda r: repeated(mapping(r)), ["mapping.csv", "keep one"]),
    "brats18: unknown sex in the clinical table": (
        "brats18", lambda r: cell(clinic(r), 1, "Sex", "1"), ["tcga.csv", "'Sex'", "unknown code '1'"]
    ),
    "brats18: no sex column": ("brats18", lambda r: without_column(clinic(r), "Sex"), ["tcga.csv", "no column", "Sex"]),
    "brats18: a case twice": (
        "brats18",
        lambda r: shutil.copytree(sorted((r / "HGG").iterdir())[0], r / "LGG" / sorted((r / "HGG").iterdir())[0].name),
        ["is also at", "keep one"],
    ),
    "brats18: a loop of links": ("brats18", loop, ["again", "remove the link"]),
    "brats18: unknown modality": ("brats18", lambda r: {"modalities": "['flare']"}, ["flare", "flair"]),
    "roco: no captions": (
        "roco", lambda r: (r / "data/train/radiology/captions.txt").unlink(), ["captions", "train/radiology"]
    ),
    "roco: no licences": (
        "roco", lambda r: (r / "data/train/radiology/licences.txt").unlink(), ["licences.txt", "--licences null"]
    ),
    "roco: no image": ("roco", no_images, ["no figure is left", "no image"]),
    "roco: unknown body part": ("roco", lambda r: {"body_part": "hand"}, ["body_part hand", "brain"]),
    "table: missing column": ("table", lambda r: without_column(people(r), "subject"), ["people.csv", "subject"]),
    "table: numbers for sex": ("table", lambda r: cell(people(r), 1, "sex", "1"), ["people.csv", "sex", "codes"]),
    "table: one person, two sexes": (
        "table", lambda r: cell(people(r), 1, "subject", "p1"), ["people.csv", "p1", "sex"]
    ),
    "table: an image twice": ("table", lambda r: repeated(people(r)), ["people.csv", "images/0.png"]),
    "table: nobody has a sex": (
        "table", lambda r: edit(people(r), lambda text: text.replace("female", "NA").replace("male", "NA")), ["sex"]
    ),
    "table: path leaves the root": (
        "table", lambda r: cell(people(r), 1, "image", "../people.csv"), ["people.csv", "../people.csv"]
    ),
    "table: an absolute path": ("table", lambda r: cell(people(r), 1, "image", "/etc/hosts"), ["/etc/hosts"]),
    "table: no caption": ("table", lambda r: without_column(people(r), "caption"), ["caption"]),
    "table: no such table": ("table", lambda r: {"table": str(r / "nobody.csv")}, ["nobody.csv", "no such file"]),
    "table: an empty group": (
        "table", lambda r: edit(people(r), lambda text: text.replace("female", "male")), ["--attribute sex", "'male'"]
    ),
    "table: one person in two splits": ("table", two_splits, ["people.csv", "'p0'", "'split'"]),
    "ham10000: an open quote": (
        "ham10000", lambda r: edit(ham(r), lambda text: text.rstrip()[:-4] + '"back'), ["metadata.csv", "quote"]
    ),
    "tcga_lgg: a code for sex that is none": (
        "tcga_lgg", lambda r: cell(r / "data.csv", 1, "gender", "3"), ["data.csv", "'gender'", "'3'"]
    ),
    "tcga_lgg: a slice without its mask": (
        "tcga_lgg", lambda r: next(r.rglob("*_mask.tif")).unlink(), ["'mask'", "restore it"]
    ),
    "tcga_lgg: a patient twice": ("tcga_lgg", lambda r: repeated(r / "data.csv"), ["data.csv", "keep one"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FATAL)
def test_it_ends_with_one_line(case, prepare):
    name, damage, words = FATAL[case]
    status, last, written = prepare(name, damage)
    assert status == 1
    assert last.startswith("error: "), last
    assert [word for word in words if word not in last] == [], last
    assert written is None
    assert not list(prepare.folder.glob("cohort*"))


def first_case(root):
    return sorted((root / "HGG").iterdir())[0]


def volume(root, modality, values=None, affine=None):
    path = first_case(root) / f"{first_case(root).name}_{modality}.nii.gz"
    image = nib.load(path)
    values = np.asarray(image.dataobj) if values is None else values
    nib.save(nib.Nifti1Image(values, image.affine if affine is None else affine), path)


def shortened(path):
    path.write_bytes(path.read_bytes()[:-200])


def first_picture(root):
    return sorted([*root.rglob("*.jpg"), *root.rglob("*.png")])[0]


def again(path, mode):
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
    made = Image.fromarray(grey.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    made.save(path)


def animated(path):
    frames = [Image.fromarray(np.full((20, 20), 9 * i, np.uint8)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


LEFT_OUT = {
    "a case without one modality": ("brats18", lambda r: next(first_case(r).glob("*_t2.*")).unlink(), "t2"),
    "a case without a segmentation": ("brats18", lambda r: next(first_case(r).glob("*_seg.*")).unlink(), "seg"),
    "another shape": ("brats18", lambda r: volume(r, "t2", np.ones((40, 40, 9), np.int16)), "differ in shape"),
    "another affine": ("brats18", lambda r: volume(r, "t2", affine=np.eye(4)), "differ in affine"),
    "NaN": ("brats18", lambda r: volume(r, "t2", np.full((40, 40, 12), np.nan, np.float32)), "NaN"),
    "infinite": ("brats18", lambda r: volume(r, "t2", np.full((40, 40, 12), np.inf, np.float32)), "infinite"),
    "all zero": ("brats18", lambda r: volume(r, "t2", np.zeros((40, 40, 12), np.int16)), "volume of zeros"),
    "a truncated gzip": ("brats18", lambda r: shortened(next(first_case(r).glob("*_t2.*"))), "cannot be read"),
    "text named .nii.gz": ("brats18", lambda r: next(first_case(r).glob("*_t2.*")).write_text("x"), "cannot be read"),
    "a truncated picture": ("ham10000", lambda r: shortened(first_picture(r)), "cannot be read"),
    "text named .jpg": ("ham10000", lambda r: first_picture(r).write_text("sorry"), "cannot be read"),
    "a CMYK picture": ("ham10000", lambda r: again(first_picture(r), "CMYK"), "CMYK"),
    "a picture of 16 bits": ("table", lambda r: again(first_picture(r), "I;16"), "more than 8 bits"),
    "an animation": ("table", lambda r: animated(first_picture(r)), "animated"),
    "a row without its picture": ("ham10000", lambda r: first_picture(r).unlink(), "picture"),
    "a picture without a row": ("ham10000", lambda r: shutil.copy(first_picture(r), r / "ISIC_9999999.jpg"), "row"),
    "a caption without its figure": ("roco", lambda r: first_picture(r).unlink(), "no image"),
    "an npz without its picture": ("fairgenmed", lambda r: first_picture(r).unlink(), "picture"),
    "a damaged npz": ("fairgenmed", lambda r: shortened(sorted(r.rglob("*.npz"))[0]), ""),
    "a path to nothing": ("table", lambda r: cell(people(r), 1, "image", "images/none.png"), "not there"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_OUT)
def test_it_is_left_out_and_listed(case, prepare):
    name, damage, reason = LEFT_OUT[case]
    status, last, written = prepare(name, damage)
    assert status == 0, last
    assert len(written) == (60 if case == "a picture without a row" else 59)
    with (prepare.folder / "cohort_left_out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert any(reason in row["reason"] + row["detail"] for row in rows), rows


def nobody(table):
    cell(table, 1, "Patient ID", "NA")


DRESSES = {
    "a byte order mark": ("ham10000", lambda r: ham(r).write_bytes(b"\xef\xbb\xbf" + ham(r).read_bytes())),
    "Windows line ends": ("ham10000", lambda r: edit(ham(r), lambda text: text.replace("\n", "\r\n"))),
    "tabs": ("ham10000", lambda r: edit(ham(r), lambda text: text.replace(",", "\t"))),
    "codes of several kinds": ("table", lambda r: (cell(people(r), 1, "sex", "F"), cell(people(r), 2, "sex", "Male"))),
    "NA beside NA": ("brats18", lambda r: (cell(mapping(r), 1, "TCGA_TCIA_subject_ID", "NA"), nobody(clinic(r)))),
}  # fmt: skip


@pytest.mark.parametrize("case", DRESSES)
def test_what_can_be_understood_is(case, prepare):
    name, damage = DRESSES[case]
    status, last, written = prepare(name, damage)
    assert status == 0, last
    assert len(written) == 60
    known = [record["sex"] for record in written if record["sex"] is not None]
    assert len(known) == (59 if case == "NA beside NA" else 60)


def test_a_folder_that_may_not_be_read(prepare, monkeypatch):
    scandir = os.scandir

    def refuse(path):  # in place of permissions, which do not bind the superuser
        if str(path).endswith("HGG"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    def damage(root):
        monkeypatch.setattr(os, "scandir", refuse)

    status, last, _ = prepare("brats18", damage)
    assert status == 1
    assert "HGG: cannot be read (Permission denied); correct" in last


def test_there_are_enough_cases():
    assert len(FATAL) + len(LEFT_OUT) >= 30


def test_the_data_set_is_only_read(published, tmp_path):
    for name, (folder, options) in published.items():
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        given = {"root": folder / "root", "out": tmp_path / f"{name}.json", "attribute": ATTRIBUTES.get(name, "sex")}
        words = [word for key, value in (given | options).items() for word in (f"--{key}", str(value))]
        assert call(prepare_cohort, [name, *words])[0] == 0
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_list_names_files_that_are_there(published, tmp_path):
    folder, _ = published["ham10000"]
    out = tmp_path / "lists" / "ham.json"
    assert call(prepare_cohort, ["ham10000", "--root", str(folder / "root"), "--out", str(out)])[0] == 0
    for record in json.loads(out.read_text()):
        assert (Path(out).parent / record["image"]).is_file()
