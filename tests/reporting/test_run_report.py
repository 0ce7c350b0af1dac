"""The whole report: what is in it for every kind of run, what never is, and how it looks in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from vitrail.data.audit import Audit
from vitrail.data.findings import Finding
from vitrail.errors import CheckpointError
from vitrail.reporting import run_report
from vitrail.reporting.report_inside import Inside
from vitrail.reporting.run_report import write_report

MEGABYTES_8 = 8_000_000
NOT_INSPECTED = "The inside of the model is not shown, as it could not be inspected"


class Page(HTMLParser):
    """A page's elements; unclosed ones, skipped headings and pictures without words are errors."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.headings: list[int] = []
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []
        assert self.headings.count(1) == 1
        steps = zip(self.headings, self.headings[1:], strict=False)
        assert all(after <= before + 1 for before, after in steps)
        assert self.links <= self.places
        assert all(self.alts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        assert not any(name.startswith("on") for name in known)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in known:
            assert known["id"] not in self.places
            self.places.add(str(known["id"]))
        if tag == "a":
            assert str(known["href"]).startswith("#")
            self.links.add(str(known["href"])[1:])
        if tag == "img":
            self.sources.append(str(known["src"]))
            self.alts.append(known["alt"] or "")
        if tag == "th":
            assert known["scope"] in ("row", "col")
        if tag == "html":
            assert known["lang"] == "en"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def written(run: Any, **how: Any) -> tuple[Page, Any]:
    done = write_report(run.directory, run.classifier, run.images, **how)
    text = done.path.read_text(encoding="utf-8")
    assert len(text) < MEGABYTES_8
    assert "/home/ann" not in text
    assert str(run.path.parent) not in text
    page = Page(text)
    assert {"main", "header", "nav", "footer"} <= {*page.tags}
    assert not {"script", "link", "iframe"} & {*page.tags}
    assert all(source.startswith("data:image/") for source in page.sources)
    return page, done


@pytest.fixture(scope="module")
def whole(kept_run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Any]:
    """The report of a finished run with all that belongs to it."""
    path = tmp_path_factory.mktemp("whole") / "photos-digits-1"
    shutil.copytree(kept_run.path, path)
    moved = type(kept_run)(type(kept_run.directory)(path), kept_run.classifier, kept_run.images)
    return written(moved)


@pytest.fixture(autouse=True)
def _not_inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test but that of the whole report waits for the figures of the model's inside."""
    monkeypatch.setattr(run_report, "look_inside", lambda *told, **how: Inside(missing=(NOT_INSPECTED,)))


def test_a_finished_run_lacks_nothing(whole: tuple[Page, Any]) -> None:
    page, done = whole
    assert done.missing == ()
    assert "What this report lacks" not in page.text
    for heading in (
        "What stands out", "Data", "Training", "Results", "By class", "Confusions",
        "Can its probabilities be believed?",
        "Best", "Worst", "Least certain", "Inside the model", "Cost", "How to make it again", "All settings",
    ):  # fmt: skip
        assert f"\n{heading}\n" in page.text or f"{heading}\n" in page.text, heading
    assert "vitrail train --recipe photos-digits-1" in page.text
    assert "vitrail train DATA --recipe digits" in page.text
    assert "class 0" in page.text
    assert "f00" in page.text
    assert any(alt.startswith("Evidence for class ") for alt in page.alts)
    assert done.card == done.path.with_name("README.md")
    assert "/home/ann" not in done.card.read_text(encoding="utf-8")
    assert done.to_json() == {
        "run": str(done.path.parent),
        "model": "vit_micro_conv4_8",
        "report": str(done.path),
        "card": str(done.card),
        "bytes": done.path.stat().st_size,
        "missing": [],
    }


def test_nothing_is_asked_of_the_network(whole: tuple[Page, Any]) -> None:
    text = whole[1].path.read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in text
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text


def test_no_images_leaves_every_image_out(made_run: Any) -> None:
    page, done = written(made_run, no_images=True)
    assert done.missing == (NOT_INSPECTED, "Images were left out, as asked for")
    assert not any(
        alt.startswith(("Image of", "Evidence", "Training images", "The surest", "Images")) for alt in page.alts
    )
    assert any(alt.startswith("Confusion matrix") for alt in page.alts)
    assert "It holds small copies of images" not in page.text
    assert "It holds no image of the data and no name of an image's file." in page.text


def test_no_images_leaves_their_names_out_too(made_run: Any) -> None:
    one, other, broken = "ward 7/patient_Jane_Doe_17.png", "Jane Doe/scan.png", "Doe, Jane.jpg"
    audit = Audit(
        dataset="photos",
        classes=("class 0", "class 1"),
        counts={"all": (3, 4)},
        num_images={"all": 7},
        broken={"all": ((broken, f"{broken} is empty"),)},
        ignored=("Jane Doe.txt",),
        findings=(
            Finding("exact_duplicate", "all", (one, other), f"{one} = {other}", {"exact": True, "hash": "0"}),
            Finding("size", "all", (other,), f"{other} is 3x3", {}),
        ),
        statistics={},
        notes=(),
    )
    made_run.directory.audit_path.write_text(json.dumps(audit.to_dict()), encoding="utf-8")
    named, done = written(made_run)
    assert "patient_Jane_Doe_17.png" in named.text
    assert "Doe" not in done.card.read_text(encoding="utf-8")
    page, done = written(made_run, no_images=True, notes=("Left out: Doe, Jane (2).png is damaged",))
    text = done.path.read_text(encoding="utf-8") + done.card.read_text(encoding="utf-8") + str(done.missing)
    assert "Doe" not in text
    assert "ward 7" not in text
    assert not re.search(r"test/\d+\.png", text)
    assert "Exact copies: 1 (file 1 = file 2)" in page.text
    assert "1 broken file: file 3 is empty" in page.text
    assert "file 2 is 3x3" in page.text
    assert "Left out: an image is damaged" in page.text
    assert re.search(r"image \d+\n", page.text)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"multilabel": True}, "Commonest mistakes"),
        ({"test": False}, "There were no test images"),
        ({"finished": False}, "The run has not finished"),
        ({"channels": 3, "side": 224, "num_images": 6}, "This model sorts images into 3 classes"),
    ],
)
def test_other_kinds_of_runs(other_run: Callable[..., Any], kind: dict[str, Any], said: str) -> None:
    page, done = written(other_run(**kind))
    assert said in page.text
    if kind == {"multilabel": True}:
        assert "the evidence for one label, which is named under it" in page.text
        shown = [alt for alt in page.alts if alt.startswith("Evidence for ")]
        assert shown
        assert all(re.fullmatch(r"Evidence for class \d in the same image", alt) for alt in shown)
    assert done.missing == (NOT_INSPECTED,)
    assert (done.card is None) == (kind == {"finished": False})


def test_an_unfinished_run_says_how_it_goes_on(other_run: Callable[..., Any]) -> None:
    page, _ = written(other_run(finished=False))
    assert "vitrail train --resume --out photos-digits-1" in page.text
    assert "Results" not in page.text
    assert "Learning" not in page.text
    assert any(alt.startswith("Loss and accuracy by epoch") for alt in page.alts)


def test_a_thousand_classes(other_run: Callable[..., Any]) -> None:
    run = other_run(num_classes=1000, num_images=1000)
    page, done = written(type(run)(run.directory, None, run.images))
    assert page.text.count("class 999") >= 1
    assert "All 1,000" in page.text
    assert not any(alt.startswith("Confusion matrix") for alt in page.alts)
    assert done.path.stat().st_size < MEGABYTES_8 / 2


def test_without_images_and_a_model_all_else_is_told(made_run: Any) -> None:
    run = type(made_run)(made_run.directory, None, {})
    page, done = written(run, notes=("The run's images, /home/ann/photos, are not here",))
    assert done.missing == (
        "The run's images, photos, are not here",
        NOT_INSPECTED,
        "The test images are not here, so that none is shown",
    )
    assert "What this report lacks" in page.text
    assert {"Mistakes", "Answers"} <= {*page.text.splitlines()}  # what the run drew itself
    assert "test/0000" in page.text


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("metrics.jsonl", "metrics.jsonl is missing or empty: how training went is not known"),
        ("environment.json", "environment.json is missing or damaged: versions and hardware are not known"),
        ("splits.json", "splits.json is missing or damaged: the splits are not known"),
        ("model.json", "model.json is missing or damaged: what the model takes is not known"),
        ("journal.jsonl", None),
    ],
)
def test_a_missing_file_leaves_the_rest(made_run: Any, name: str, missing: str | None) -> None:
    (made_run.path / name).unlink()
    shutil.rmtree(made_run.directory.figures_path)
    page, done = written(type(made_run)(made_run.directory, None, made_run.images))
    if missing is not None:
        assert missing in done.missing
    assert "Cost" in page.text


def test_answers_are_had_again_where_their_file_is_damaged(made_run: Any) -> None:
    path = made_run.directory.predictions_path / "test.parquet"
    path.write_bytes(b"torn")
    page, done = written(made_run)
    assert done.missing == (NOT_INSPECTED,)
    assert "Least certain" in page.text
    page, done = written(type(made_run)(made_run.directory, None, made_run.images))
    assert "predictions/test.parquet is missing or damaged: single answers are not known" in done.missing
    assert "Least certain" not in page.text


def test_names_are_text_whatever_they_hold(made_run: Any) -> None:
    hostile = '<script>alert("1")</script>'
    splits = json.loads(made_run.directory.splits_path.read_text(encoding="utf-8"))
    made_run.directory.splits_path.write_text(json.dumps({**splits, "dataset": hostile}), encoding="utf-8")
    journal = made_run.directory.journal.path
    journal.write_text(journal.read_text(encoding="utf-8").replace("class 1", json.dumps(hostile)[1:-1]), "utf-8")
    page, _ = written(type(made_run)(made_run.directory, None, {}))
    assert hostile in page.text


def test_a_report_elsewhere_comes_alone(made_run: Any, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made_run.path.rglob("*")}
    _, done = written(made_run, output=tmp_path / "other.html")
    assert (done.path, done.card) == (tmp_path / "other.html", None)
    assert {path: path.stat().st_mtime_ns for path in made_run.path.rglob("*")} == before


def test_a_full_disk_is_said_and_the_old_report_stays(made_run: Any, files_of_at_most: Callable[[int], Any]) -> None:
    (made_run.path / "report.html").write_text("old", encoding="utf-8")
    with files_of_at_most(100), pytest.raises(CheckpointError, match=r"report\.html could not be written"):
        write_report(made_run.directory, None, {})
    assert (made_run.path / "report.html").read_text(encoding="utf-8") == "old"


# In a browser


@pytest.fixture(scope="module")
def browser() -> list[str]:
    """The command of a headless Chromium; skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs chromium on the PATH")
    return [
        found,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
    ]


def run_browser(browser: list[str], profile: Path, *arguments: str) -> tuple[str, str]:
    command = [*browser, f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_screen(
    other_run: Callable[..., Any], browser: list[str], tmp_path: Path, width: int, dark: bool
) -> None:
    """A frame of the width of a phone holds the report; beside it a script writes what it measured of it."""
    run = other_run(num_classes=12, num_images=48, side=224, channels=3)
    text = written(run)[1].path.read_text(encoding="utf-8")
    # In the copy that is measured, a script may run; everything else is as in the report.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy in text
    measure = (
        "<script>addEventListener('load', () => { document.querySelectorAll('details').forEach(d => d.open = true);"
        "const wide = [...document.querySelectorAll('main *, header *, footer *')].filter(e => !e.closest('.wide') && "
        "!e.closest('.skip') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);"
        "document.title = JSON.stringify({inner: innerWidth, scroll: document.documentElement.scrollWidth, wide,"
        "paper: getComputedStyle(document.body).backgroundColor}); });</script>"
    )
    copy = tmp_path / "measured.html"
    copy.write_text(text.replace(policy, policy + "; script-src 'unsafe-inline'").replace("</body>", measure), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="page" src="measured.html" style="width: {width}px; height: 900px; border: 0"></iframe>',
        encoding="utf-8",
    )
    arguments = [
        f"--window-size={max(width, 500)},1000",
        "--virtual-time-budget=5000",
        "--allow-file-access-from-files",
    ]
    if dark:
        arguments.append("--blink-settings=preferredColorScheme=0")
    script = (
        "<script>addEventListener('load', () => setTimeout(() => { document.title = "
        "document.getElementById('page').contentDocument.title; }, 500));</script>"
    )
    frame.write_text(frame.read_text(encoding="utf-8") + script, encoding="utf-8")
    out, _ = run_browser(browser, tmp_path / "profile", *arguments, "--dump-dom", frame.as_uri())
    found = re.search(r"<title>(\{.*?\})</title>", out)
    assert found is not None, out[:2000]
    measured = json.loads(found[1].replace("&quot;", '"'))
    assert measured["inner"] == width
    assert measured["scroll"] <= width
    assert measured["wide"] == []
    channels = [int(value) for value in re.findall(r"\d+", measured["paper"])[:3]]
    assert (max(channels) < 64) == dark


@pytest.mark.slow
def test_a_browser_asks_for_nothing_and_complains_of_nothing(
    whole: tuple[Page, Any], browser: list[str], tmp_path: Path
) -> None:
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html><title>blank</title>", encoding="utf-8")
    asked: dict[str, set[str]] = {}
    for name, page in (("blank", blank), ("report", whole[1].path)):
        log = tmp_path / f"{name}.json"
        arguments = ["--enable-logging=stderr", "--v=0", f"--log-net-log={log}", "--dump-dom", page.as_uri()]
        out, err = run_browser(browser, tmp_path / name, *arguments)
        assert ("How to make it again" in out) == (name == "report")
        assert ":CONSOLE" not in err
        hosts = re.findall(r'"url":"(?:https?|ftp|wss?)://([^"/:?]*)', log.read_text(encoding="utf-8"))
        asked[name] = {*hosts}
    assert asked["report"] <= asked["blank"]  # what the browser asks for itself


@pytest.mark.slow
def test_it_prints(whole: tuple[Page, Any], browser: list[str], tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    run_browser(browser, tmp_path / "profile", f"--print-to-pdf={pdf}", whole[1].path.as_uri())
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 30


def test_the_same_run_has_the_same_report(made_run: Any) -> None:
    first = written(made_run)[1].path.read_bytes()
    assert written(made_run)[1].path.read_bytes() == first
