"""Figures: the same bytes from the same report, words made of its numbers, none where nothing was measured."""

import re
from xml.etree import ElementTree

import pytest

from bundle.evaluation.figures import draw
from tests.evaluation.made_up import bare, full

NAMES = {
    "representation", "scores", "calibrations", "methods", "facts", "quality", "diversity", "memorisation", "guidance",
    "seeds", "trajectory",
}  # fmt: skip


@pytest.fixture(scope="module")
def two():
    return draw(full())


def said(picture):
    return picture.alt.replace("\u00a0", " ")


def test_every_part_has_its_figure(two):
    assert set(two) == NAMES
    assert set(draw(bare())) == set(draw(bare(absent=False))) == {"representation"}


def test_same_bytes_again(two):
    again = draw(full())
    assert {name: picture.svg for name, picture in again.items()} == {
        name: picture.svg for name, picture in two.items()
    }


def test_figures_stand_alone(two):
    for picture in two.values():
        root = ElementTree.fromstring(picture.svg)
        assert root.tag.endswith("svg")
        links = re.findall(rb'(?:href|src)="([^"]*)"|url\(([^)]*)\)', picture.svg)
        assert all((a or b).startswith(b"#") for a, b in links)  # nothing outside the file
        assert b"<text" not in picture.svg  # letters are paths: no font is needed
        assert b"<dc:date" not in picture.svg


def test_words_say_the_numbers(two):
    assert "Target 58.0 %. before, judge 85.0 % (82.4 to 87.6)" in said(two["representation"])
    assert "after, second judge 58.7 % (55.6 to 61.8)" in said(two["representation"])
    assert "after: PACC 57.6 %" in said(two["methods"])
    assert "after: noised and denoised (strength 0.2) 56.7 % (54.0 to 59.4)" in said(two["calibrations"])
    assert "male, after 1.3 points (0.4 to 2.2)" in said(two["memorisation"])
    # the band drawn is the simultaneous one: 57.6 ± (4.2 + 1.6) points
    assert "57.6 % (51.8 to 63.4) at 3" in said(two["guidance"])
    assert "mean of seeds 57.7 % (54.2 to 61.1)" in said(two["seeds"])
    assert "all, real 0.290 (0.282 to 0.298)" in said(two["diversity"])
    scores = full()["after"]["scores"]["counts"]
    assert f"after: {100 * sum(scores[10:]) / 2048:.1f} % of 2,048 images at 0.5 or more" in said(two["scores"])


def test_three_groups_have_a_panel_each():
    words = said(draw(full(("young", "middle", "old")))["representation"])
    assert all(f"Proportion among generated images, {group}." in words for group in ("young", "middle", "old"))


def test_impossible_proportions_are_drawn_cut():
    report = bare()
    report["after"]["proportion"] = {"female": -0.02, "male": 1.02}
    report["after"]["ci95"] = {"female": [0.0, 0.03], "male": [0.97, 1.0]}
    assert "generated, judge 100.0 % (97.0 to 100.0)" in said(draw(report)["representation"])
