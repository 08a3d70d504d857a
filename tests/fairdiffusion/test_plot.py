"""The table and the picture of a search."""

import csv
import io

from matplotlib.image import imread

from bundle.fairdiffusion.plot import picture, write_record
from bundle.fairdiffusion.record import Window, table
from tests.fairdiffusion.toy import GROUPS

WINDOWS = [
    Window(3, [0.1, 0.2, 0.3, 0.4, 0.5], 0.75, {"race": 0.5, "sex": 0.25}, None),
    Window(6, [0.5, 0.4, 0.3, 0.2, 0.1], 0.5, {"race": 0.5}, -0.4),
]


def test_the_table_has_a_row_per_window():
    first, second = csv.DictReader(io.StringIO(table(WINDOWS, GROUPS).decode()))
    assert (first["iteration"], first["scale/race/black"], first["acquisition"]) == ("3", "0.2", "")
    assert (second["gap"], second["gap/race"], second["gap/sex"], second["acquisition"]) == ("0.5", "0.5", "", "-0.4")
    assert len(first) == 1 + 5 + 1 + 2 + 1


def test_numbers_leave_out_what_is_not_there():
    assert WINDOWS[0].numbers() == {"gap": 0.75, "gap/race": 0.5, "gap/sex": 0.25}
    assert WINDOWS[1].numbers() == {"gap": 0.5, "gap/race": 0.5, "acquisition": -0.4}


def test_the_picture_is_1200_pixels_wide_and_shows_what_changed():
    images = [imread(io.BytesIO(picture(windows, GROUPS))) for windows in (WINDOWS, WINDOWS[:1])]
    assert images[0].shape[1] == 1200
    assert (images[0] != images[1]).any()


def test_both_files_are_written(tmp_path):
    write_record(WINDOWS, GROUPS, tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["perturbation.csv", "perturbation.png"]
