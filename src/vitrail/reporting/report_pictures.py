"""A run's figures as pictures within a page: their pixels and nothing else of their files, and none too large."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vitrail.errors import VitrailError
from vitrail.reporting.pages import data_uri
from vitrail.reporting.report_facts import RunFacts
from vitrail.reporting.report_findings import confused_pairs, coverage_rows, percent, worst_first
from vitrail.reporting.run_figures import draw_training_figures
from vitrail.runs import RunDirectory

MOST_BYTES = 250_000  # of one picture: with twenty of them and all examples a page stays below 8 MB
MOST_PIXELS = 16_000_000  # of a figure that is opened at all
MOST_CLASSES = 100  # of a confusion matrix; in a larger one nothing can be read
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # parts of a PNG file without which it is another picture
_QUALITIES = (85, 70)
_SHRINK = 0.7
_SHOWN = 0.75  # of a figure's own pixels, which are made for print


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows in words; the colours of a `dark` one may be turned over on a dark screen."""

    title: str
    source: str
    alt: str
    width: int
    height: int
    dark: bool = False
    caption: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def shown_width(self) -> int:
        """The width it is shown with where there is room, in pixels of a page."""
        return round(_SHOWN * self.width)

    @property
    def shown_height(self) -> int:
        """The height that goes with it."""
        return round(_SHOWN * self.height)


def embedded(
    path: Path, title: str, alt: str, *, dark: bool = False, caption: str = "", remarks: tuple[str, ...] = ()
) -> Figure | None:
    """The PNG file as a picture of at most `MOST_BYTES`; None where it is missing or damaged."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if image.format != "PNG" or width * height > MOST_PIXELS:
                return None
            image.verify()
        if len(content) <= MOST_BYTES:
            source = data_uri(_pixels_alone(content), "png")
        else:
            source = data_uri(_smaller(content), "jpeg")
    except (OSError, ValueError, SyntaxError, struct.error):  # SyntaxError: of a broken PNG
        return None
    return Figure(title, source, alt, width, height, dark, caption, remarks)


def _pixels_alone(content: bytes) -> bytes:
    """A PNG file without the parts that may tell of anything but its pixels; nothing is decoded, which takes time."""
    kept, place = [content[:8]], 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 12 + length
        if content[place + 4 : place + 8] in _NEEDED:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _smaller(content: bytes) -> bytes:
    """A PNG file as JPEG, at a lower quality and then smaller, until it is small enough."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = image.convert("RGB")
    while True:
        for quality in _QUALITIES:
            file = io.BytesIO()
            pixels.save(file, "jpeg", quality=quality)
            if file.tell() <= MOST_BYTES:
                return file.getvalue()
        pixels = pixels.resize((max(1, int(_SHRINK * pixels.width)), max(1, int(_SHRINK * pixels.height))))


def run_pictures(directory: RunDirectory, facts: RunFacts, *, samples: bool, answers: bool) -> dict[str, Figure]:
    """The figures of a run by name, those that are there; those of images only where `samples` or `answers` says so.

    A run that has not finished gets its curves drawn now.
    """
    path = directory.figures_path
    if not (path / "curves.png").is_file() and (facts.steps or facts.evaluations):
        with suppress(VitrailError, OSError, KeyError, TypeError):  # a folder that cannot be written to, damaged lines
            draw_training_figures(directory)
    wanted = {"curves": ("Learning curves", _curves_text(facts))}
    if facts.split is not None:
        wanted |= _drawn(facts)
    photographs: dict[str, tuple[str, str]] = {}
    if samples:
        photographs["samples"] = "Training images", "Training images of every class, each under its label"
    if answers:
        photographs["mistakes"] = "Mistakes", "The surest mistakes, each image under its label and the wrong answer"
        photographs["predictions"] = "Answers", "Images from all over the test, each under its label and its answer"
    found = {name: embedded(path / f"{name}.png", *told, dark=True) for name, told in wanted.items()}
    found |= {name: embedded(path / f"{name}.png", *told) for name, told in photographs.items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def _drawn(facts: RunFacts) -> dict[str, tuple[str, str]]:
    """Titles and descriptions of the figures of numbers that a finished run has."""
    judged = facts.judged
    if facts.multilabel:
        worst = worst_first(facts)[0]
        text = f"Average precision of each label beside chance; the mean is {judged['mean_average_precision'] or 0:.3f}"
        return {"average_precision": ("Average precision by label", f"{text}, the lowest that of {worst['class']}")}
    told = {
        "reliability": (
            "Reliability",
            f"Accuracy by confidence: on average the two differ by {100 * judged['ece']:.1f} points",
        ),
        "coverage": ("Accuracy and coverage", _coverage_text(facts)),
    }
    if len(facts.classes) <= MOST_CLASSES:
        told["confusion"] = ("Confusion matrix", _confusion_text(facts))
    return told


def _curves_text(facts: RunFacts) -> str:
    """Loss and accuracy by epoch in words."""
    if not facts.evaluations:
        return "Training loss by epoch"
    first, last = facts.evaluations[0], facts.evaluations[-1]
    best = max(facts.evaluations, key=lambda line: line["accuracy"])
    return (
        f"Loss and accuracy by epoch: validation accuracy is {percent(first['accuracy'])} after epoch "
        f"{first['epoch']:g}, {percent(last['accuracy'])} after epoch {last['epoch']:g}, at its highest "
        f"{percent(best['accuracy'])} after epoch {best['epoch']:g}; the last validation loss is {last['loss']:.3f}"
    )


def _confusion_text(facts: RunFacts) -> str:
    judged, pairs = facts.judged, confused_pairs(facts, most=3)
    right = round(judged["accuracy"] * judged["images"])
    told = [f"{facts.classes[pair.label]} taken for {facts.classes[pair.taken]} {pair.count} times" for pair in pairs]
    often = f"; most often {', '.join(told)}" if told else ""
    return f"Confusion matrix of {len(facts.classes)} classes: {right:,} of {judged['images']:,} images right{often}"


def _coverage_text(facts: RunFacts) -> str:
    rows = coverage_rows(facts.judged)
    told = [f"{accuracy} right of the surest {coverage}" for coverage, accuracy, _ in rows]
    return f"Accuracy by the share of images answered: {', '.join(told)}"
