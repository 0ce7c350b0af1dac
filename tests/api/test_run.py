"""A run in Python and in a notebook."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser

import vitrail


class Page(HTMLParser):
    """The texts of a page whose tags are closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_a_run_shows_its_result_and_its_pictures(digits_run):
    run = vitrail.Run(digits_run)
    page = Page(run._repr_html_())
    assert page.texts[page.texts.index("test accuracy") + 1].startswith(f"{run.result['test']['accuracy']:.2%} (95 %")
    assert len(page.pictures) == 2
    assert all(picture.startswith("data:image/png;base64,") for picture in page.pictures)


def test_names_of_runs_are_shown_as_text(digits_run, tmp_path):
    shutil.copytree(digits_run, tmp_path / "<i>&co")
    page = Page(vitrail.Run(tmp_path / "<i>&co")._repr_html_())
    assert str(tmp_path / "<i>&co") in page.texts


def test_a_figure_shows_itself(digits_run):
    picture = vitrail.Run(digits_run).figures()["confusion"]
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert picture._repr_png_() == picture.path.read_bytes()


def test_a_run_writes_its_report(digits_run, tmp_path):
    report = vitrail.Run(digits_run).report(no_images=True, output=tmp_path / "report.html", device="cpu")
    assert report.path == tmp_path / "report.html"
    assert "<h1>digits</h1>" in report.path.read_text(encoding="utf-8")
