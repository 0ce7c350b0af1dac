import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vitrail.data.audit import Audit, audit_dataset, read_all
from vitrail.data.dataset import ImageSet
from vitrail.data.findings import KINDS, Finding
from vitrail.data.headers import Header
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.errors import CheckpointError
from vitrail.reporting import audit_report
from vitrail.reporting.audit_report import audit_html, write_audit_report

HOSTILE = '<script>alert("1")</script>/a&b.png'


class Page(HTMLParser):
    """The elements, attributes and text of a page; unclosed and unopened elements are an error."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attributes)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def image_set(number, channels=3, side=40, labels=None):
    colours = np.random.default_rng(number).integers(0, 256, (number, 1, 1, channels), dtype=np.uint8)
    pixels = np.broadcast_to(colours, (number, side, side, channels))
    names = tuple(f"ant/{index}.png" for index in range(number))
    return ImageSet(pixels, np.zeros(number, np.int64) if labels is None else labels, names)


def audit_of(images, *findings, classes=("ant", "bee"), **more):
    counts = {split: (len(found), *([0] * (len(classes) - 1))) for split, found in images.items()}
    number = {split: len(found) for split, found in images.items()}
    return Audit("photos", classes, counts, number, {}, (), findings, **more)


def pictures(page):
    return [source for source in page.sources if source.startswith("data:")]


def decoded(source):
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_a_set_without_findings():
    images = {"all": image_set(3)}
    page = Page(audit_html(audit_of(images), images))
    assert "Nothing was found that is wrong." in page.text
    assert "photos: 3 images of 2 classes" in page.text
    assert pictures(page) == []


def test_findings_are_shown_with_their_images_and_the_labels_of_these():
    images = {"train": image_set(4), "test": image_set(2, labels=np.array([0, 1]))}
    shared = Finding(
        "shared_between_splits", "train/test", ("ant/3.png", "ant/1.png"), "both are equal",
        {"num_first": 1, "exact": True, "hash": "0"},
    )  # fmt: skip
    odd = Finding("dark", "train", ("ant/2.png",), "ant/2.png is very dark")
    broken = Finding("broken", "train", ("ant/gone.png",), "ant/gone.png is empty")
    page = Page(audit_html(audit_of(images, shared, odd, broken), images))
    assert [line for line in page.text.splitlines() if re.search(r" \(\d\)$", line)] == [
        "Files that cannot be read (1)", "In two splits (1)", "Very dark (1)"
    ]  # fmt: skip
    assert "both are equal" in page.text
    shown = pictures(page)
    assert len(shown) == 3
    pixels = [images["train"].pixels[3], images["test"].pixels[1], images["train"].pixels[2]]
    for source, own in zip(shown, pixels, strict=True):
        assert np.abs(np.asarray(decoded(source), int) - own).max() < 8  # JPEG
    assert "bee" in page.text


def test_small_images_are_shown_to_the_bit():
    for channels in (1, 3):
        images = {"all": image_set(1, channels, side=8)}
        page = Page(audit_html(audit_of(images, Finding("dark", "all", ("ant/0.png",), "dark")), images))
        (source,) = pictures(page)
        np.testing.assert_array_equal(np.atleast_3d(np.asarray(decoded(source))), images["all"].pixels[0])


def test_padding_that_is_marked_is_white():
    pixels = np.zeros((1, 8, 8, 4), np.uint8)
    pixels[0, :, 2:6] = [10, 20, 30, 255]
    images = {"all": ImageSet(pixels, np.zeros(1, np.int64), ("a",))}
    (source,) = pictures(Page(audit_html(audit_of(images, Finding("dark", "all", ("a",), "dark")), images)))
    shown = np.asarray(decoded(source))
    assert (shown[:, :2] == 255).all()
    assert (shown[:, 2:6] == [10, 20, 30]).all()


def test_names_are_text_whatever_they_hold():
    names = (HOSTILE, "été/\udcff.png")
    images = {"all": ImageSet(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int64), names)}
    findings = [Finding("dark", "all", (name, names[0]), f"{name} is dark") for name in names]
    text = audit_html(audit_of(images, *findings, classes=(HOSTILE, "b"), notes=(HOSTILE,)), images)
    text.encode("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 4
    assert "été/\\udcff.png" in page.text


def test_the_page_asks_for_nothing_from_elsewhere():
    images = {"all": image_set(2)}
    page = Page(audit_html(audit_of(images, Finding("dark", "all", ("ant/0.png",), "dark")), images))
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert not {"script", "link", "iframe"} & {*page.tags}


def test_thousands_of_findings_are_capped_and_counted():
    images = {"all": image_set(500, side=8)}
    findings = [Finding(kind, "all", (f"ant/{n}.png",), "odd") for kind in ("dark", "blurred") for n in range(500)]
    findings += [
        Finding("exact_duplicate", "all", images["all"].names, "all equal", {"exact": True, "hash": "0"})
    ] * 2000
    text = audit_html(audit_of(images, *findings), images)
    page = Page(text)
    assert len(pictures(page)) == audit_report.MOST_FINDINGS * (2 + audit_report.MOST_IMAGES)
    assert "And 460 more, which vitrail audit --json names." in page.text
    assert "Exact copies (2,000)" in page.text
    assert len(text) < 500_000


def test_many_classes_are_capped_and_counted():
    images = {"all": image_set(1)}
    page = Page(audit_html(audit_of(images, classes=tuple(f"class {n}!" for n in range(1000))), images))
    assert "class 199!" in page.text
    assert "class 200!" not in page.text
    assert "And 800 more." in page.text


def test_modes_sizes_and_ratios_are_drawn_as_bars():
    images = {"all": image_set(1)}
    statistics = {"splits": {"train": {"modes": {"RGB": 1000, "grey": 300}}, "test": {"modes": {"RGB": 200}}}}
    headers = {"train": {"a": Header(300, 200, "RGB"), "b": Header(110, 200, "RGB")}, "test": {"c": Header(9, 9, "L")}}
    text = audit_html(audit_of(images, statistics=statistics), images, headers)
    bars = re.findall(r"<tr><td>([^<]+)</td><td[^>]+>([^<]+)</td>.*width: ([.0-9]+)%.></span>", text)
    assert [bar for bar in bars if bar[1] != "0" and bar[0] not in ("ant", "bee")] == [
        ("RGB", "1,200", "100.0"),
        ("grey", "300", "25.0"),
        ("below 16", "1", "100.0"),
        ("128 to 256", "1", "100.0"),
        ("256 to 384", "1", "100.0"),
        ("0.5 to 0.67", "1", "100.0"),
        ("0.9 to 1.1", "1", "100.0"),
        ("1.5 to 2", "1", "100.0"),
    ]
    assert ("16 to 32", "0", "0.0") in bars  # between the first and the last


def test_every_kind_has_a_title():
    assert {*audit_report._TITLES} == {*KINDS}


def test_a_preview_is_part_of_the_page(tmp_path):
    picture = tmp_path / "preview.png"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(picture)
    images = {"all": image_set(1)}
    page = Page(audit_html(audit_of(images), images, preview=picture))
    assert [decoded(source).size for source in pictures(page)] == [(3, 2)]


def test_nothing_of_a_file_but_its_pixels_gets_into_the_page(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"ant": 3, "bee": 3}, suffix=".jpg")
    image = Image.open(root / "ant" / "000.jpg")
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0)})
    for name in ("000.jpg", "copy.jpg"):
        image.save(root / "ant" / name, exif=exif, comment=b"secret comment")
    assert b"SecretCamera" in (root / "ant" / "000.jpg").read_bytes()
    dataset, size = open_dataset(root), Preprocess(image_size=(40, 40), channels=3, fit="pad")
    path = tmp_path / "audit.html"
    write_audit_report(audit_dataset(dataset, size), read_all(dataset, size), path)
    shown = pictures(Page(path.read_text(encoding="utf-8")))
    assert len(shown) >= 2
    for source in shown:
        assert len(decoded(source).getexif()) == 0
        content = base64.b64decode(source.partition(",")[2])
        assert b"Secret" not in content
        assert b"secret" not in content


def test_a_full_disk_is_said_and_the_old_report_stays(tmp_path, files_of_at_most):
    images, path = {"all": image_set(1)}, tmp_path / "audit.html"
    path.write_text("old", encoding="utf-8")
    with files_of_at_most(100), pytest.raises(CheckpointError, match=r"audit\.html"):
        write_audit_report(audit_of(images), images, path)
    assert path.read_text(encoding="utf-8") == "old"
