"""The page: one file that needs nothing else, accessible, and complete with and without each part of a report."""

import base64
import functools
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from bundle.evaluation.page import FOLDER, page, write_page
from tests.evaluation.made_up import bare, full, pictures

AGES = ("young", "middle", "old")
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Tags with their attributes, the text, and whether every tag that was opened was closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


REPORTS = {
    "two": full(),
    "three": full(AGES),
    "bare": bare(),
    "bare, three": bare(AGES),
    "null": bare(absent=False),
}


@functools.cache
def page_of(name):
    return page(REPORTS[name])


@pytest.fixture(scope="module")
def html():
    return page(full(), pictures())


@pytest.fixture(scope="module")
def two(html):
    return Reader(html)


def test_nothing_is_loaded(html):
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert "<script" not in html
    assert "@import" not in html
    sources = re.findall(r'src="([^"]{,30})', html)
    assert sources
    assert all(source.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for source in sources)
    assert "url(" not in html


@pytest.mark.parametrize("name", ["two", "three"])
def test_size(name):
    assert len(page_of(name).encode()) < 1_000_000


def test_same_bytes_again(html, tmp_path):
    path = write_page(full(), pictures(), tmp_path / "new" / "report.html")
    assert path.read_bytes() == html.encode()


@pytest.mark.parametrize("name", REPORTS)
def test_accessible(name):
    read = Reader(page_of(name))
    assert read.open == []
    assert read.all("html") == [{"lang": "en"}]
    assert len(read.all("h1")) == 1
    assert all(image["alt"] for image in read.all("img"))
    assert len(read.all("table")) == len(read.all("caption"))
    assert {head["scope"] for head in read.all("th")} == {"col", "row"}
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"] for link in read.all("a")} <= {f"#{name}" for name in ids}


def test_every_number_is_said(two):
    for words in (
        "57.6 % (55.0 to 60.2) of the images; target 58.0 %",
        "Tipping point 2.3 points",
        "largest change seen 1.1 points",
        "9f2c41d07a5be316",
        "noised and denoised (strength 0.2)",
        "0.0760 (0.0665 to 0.0855)",
        "1.3 points (0.4 to 2.2)",
        "linear probe on CLIP",
        "7 limits",
        "author must fill",
        "monai 1.6.1",
        "drawn with seed 7",
    ):
        assert words in two.text
    assert "Not measured" not in two.text


@pytest.mark.parametrize("absent", [True, False])
def test_what_was_not_measured_is_said(absent):
    text = Reader(page_of("bare" if absent else "null")).text
    missing = [sentence.split(".")[0] for sentence in text.split("Not measured. ")[1:]]
    # true share, scores, label shift, round trip, other judges, methods, faithfulness, obedience, quality, by group,
    # diversity, memorisation, guidance, seeds, trajectory, pairs of images, environment
    assert len(missing) == 17
    assert "Memorisation needs the training images and a hold-out of subjects that the generator never saw" in missing
    assert "Only one set of images was given" in text
    assert "before" not in text.replace("before you quote", "").replace("Images before and after", "")
    assert "None" not in text


OPTIONAL = sorted(set(full()["after"]) - set(bare()["after"]))


@pytest.mark.parametrize("part", OPTIONAL)
def test_each_part_may_be_measured_alone(part):
    report = bare()
    report["after"][part] = full()["after"][part]
    read = Reader(page(report))
    assert read.open == []
    assert len(read.all("section")) == 17


@pytest.mark.parametrize("part", OPTIONAL)
def test_each_part_may_be_missing_alone(part, monkeypatch):
    monkeypatch.setattr("bundle.evaluation.page.draw", lambda report: {})  # figures are tested on their own
    report = full()
    report["before"][part] = report["after"][part] = report["real"][part] = None
    with_null = page(report)
    for side in ("before", "after", "real"):
        del report[side][part]
    assert page(report) == with_null
    assert Reader(with_null).open == []


@pytest.mark.parametrize(
    ("verdict", "tone"), [("aligned", "aligned"), ("not aligned", "not-aligned"), ("cannot tell", "cannot-tell")]
)
def test_the_verdict_is_a_word_and_a_sign(verdict, tone):
    report = bare()
    report["after"]["verdict"] = verdict
    read = Reader(page(report))
    assert {"id": "verdict", "class": f"verdict {tone}"} in read.all("section")
    assert f"{verdict.capitalize()} " in read.text
    signs = [attributes.get("class") for attributes in read.all("svg")]
    assert signs == ["icon"]


def test_blind_judge_is_not_measurable():
    """A judge that knows nothing leaves null proportions and the whole range."""
    report = bare()
    nothing = {"proportion": dict.fromkeys(report["groups"]), "ci95": dict.fromkeys(report["groups"], (0.0, 1.0))}
    report["after"] = {**report["after"], **nothing, "gap": None, "verdict": "cannot tell", "tipping_point": 0.0}
    report["detectable_gap"] = None
    assert "not measurable with this judge" in Reader(page(report)).text


def test_a_verdict_without_basis_is_flagged_beside_it(monkeypatch):
    monkeypatch.setattr("bundle.evaluation.page.draw", lambda report: {})
    sound = full()
    refuted, fragile = full(), full()
    refuted["after"]["label_shift"]["rejected"] = True
    fragile["after"]["tipping_point"] = 0.0109  # the round trip changed a rate by 1.1 points
    flags = ("Assumption refuted", "Fragile")
    found = [[flag in Reader(page(report)).text for flag in flags] for report in (sound, refuted, fragile)]
    assert found == [[False, False], [True, False], [False, True]]


def test_text_of_others_is_escaped():
    report = bare()
    report["after"]["prompt_rows"] = full()["after"]["prompt_rows"]
    report["prompts"][0] = report["after"]["prompt_rows"][0]["prompt"] = "<script>alert('x')</script>"
    assert "<script" not in page(report)


def test_images_are_lossless_and_labelled(two):
    image = np.arange(256, dtype=float).reshape(16, 16) / 255
    shown = [image, image[None], np.stack([image, image / 2, image / 4]), pictures()["pairs"][0][0]]
    html = page(bare(), {"pairs": [(shown[0], shown[1], "a head", 0.9, 0.1), (shown[2], shown[3], "a head", 0.9, 0.1)]})
    found = [base64.b64decode(text) for text in re.findall(r'data:image/png;base64,([^"]+)', html)]
    expected = [np.rint(255 * np.squeeze(np.moveaxis(x, 0, -1) if x.ndim == 3 else x)) for x in shown]
    for png, pixels in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), pixels)
    given = page(bare(), {"pairs": [(found[0], found[1], "a head", 0.9, 0.1)]})
    assert base64.b64encode(found[0]).decode() in given  # the bytes of a PNG stay as they are
    assert two.text.count("SYNTHETIC") == 4 * 2 + 3  # of the closest pairs the right-hand image is real
    assert two.text.count("TRAINING") == 3
    alts = [image["alt"] for image in two.all("img")]
    assert "Synthetic image before tuning, probability of male 0.91, prompt: axial FLAIR MR of a head" in alts
    assert "Training image nearest to the synthetic image beside it, at distance 0.110" in alts


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8\)"):
        page(bare(), {"closest": [(np.zeros((2, 8, 8)), np.zeros((8, 8)), 0.1, "male")]})


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear))


def test_text_can_be_read():
    """Contrast of at least 4.5 (WCAG 2.2) of every colour of text on every ground, and no type under 12 pixels."""
    css = (FOLDER / "page.css").read_text()
    named = dict(re.findall(r"--(\w+): (#\w+)", css))
    grounds = ["#ffffff", named["wash"], *re.findall(r"--tint: (#\w{6})", css)]
    for name in ("ink", "soft", "blue", "good", "bad", "open"):
        for ground in grounds:
            high, low = sorted((luminance(named[name]), luminance(ground)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)
    screen = css.partition("@media print")[0]
    assert all(float(size) * 16 >= 12 for size in re.findall(r"font-size: ([\d.]+)rem", screen))
    assert all(float(size) / 72 * 96 >= 12 for size in re.findall(r"font-size: ([\d.]+)pt", css))
