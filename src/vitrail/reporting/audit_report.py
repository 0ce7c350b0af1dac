"""An audit as one HTML file that needs nothing else: sentences, classes, sizes, and every kind of finding with images.

Thumbnails are made of decoded pixels alone, so that nothing else of a file, such as where a photograph was taken, gets
into the report.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.checkpoint import write_atomically
from vitrail.data.audit import Audit
from vitrail.data.dataset import ImageSet
from vitrail.data.findings import KINDS, Finding, Kind
from vitrail.data.headers import Header
from vitrail.reporting.pages import data_uri, is_small, render, thumbnail

MOST_FINDINGS = 40  # of a kind that are shown, and of each the first images
MOST_IMAGES = 4
MOST_CLASSES = 200  # in the table
_SIDES = (16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)  # edges of bars
_RATIOS = (0.25, 0.33, 0.5, 0.67, 0.75, 0.9, 1.1, 1.33, 1.5, 2, 3, 4)

Headers = Mapping[str, Mapping[str, Header]]  # by split and name
Histogram = tuple[str, list[tuple[str, int, float]]]  # a title, and of each bar its name, count and width in per cent

_TITLES: Mapping[Kind, str] = {
    "broken": "Files that cannot be read",
    "shared_between_splits": "In two splits",
    "exact_duplicate": "Exact copies",
    "near_duplicate": "Near copies",
    "conflicting_labels": "Equal images under different labels",
    "suspicious_label": "Labels that may be wrong",
    "class_imbalance": "Rare classes",
    "size": "Odd sizes",
    "aspect_ratio": "Odd aspect ratios",
    "mode": "Odd modes",
    "exif_rotated": "Turned by EXIF",
    "empty": "Nearly empty",
    "dark": "Very dark",
    "bright": "Very bright",
    "blurred": "Blurred",
}


@dataclass(frozen=True)
class Thumbnail:
    """An image of a finding: its name, what stands under it, and the picture as a data: URI, "" where there is none."""

    name: str
    label: str
    source: str
    is_small: bool = False


@dataclass(frozen=True)
class Section:
    """The findings of one kind that are shown, and how many more there are."""

    kind: Kind
    title: str
    count: int
    shown: tuple[tuple[Finding, tuple[Thumbnail, ...]], ...]

    @property
    def num_more(self) -> int:
        """How many are not shown."""
        return self.count - len(self.shown)


def write_audit_report(
    audit: Audit,
    images: Mapping[str, ImageSet],
    path: Path,
    headers: Headers | None = None,
    preview: Path | None = None,
) -> None:
    """Write the report of an audit of `images`, with their files' `headers` and the picture `preview` if there is one.

    Raises CheckpointError if the disk refuses; an old file is replaced whole or not at all.
    """
    write_atomically(path, audit_html(audit, images, headers, preview))


def audit_html(
    audit: Audit, images: Mapping[str, ImageSet], headers: Headers | None = None, preview: Path | None = None
) -> str:
    """The report of an audit of `images` as HTML."""
    sections = list(_sections(audit, images))
    heading, *sentences = audit.sentences()
    return render(
        "audit.html",
        dataset=audit.dataset,
        heading=heading,
        sentences=sentences,
        notes=audit.notes,
        sections=sections,
        classes=_class_rows(audit),
        num_classes_more=max(0, len(audit.classes) - MOST_CLASSES),
        splits=["images" if split == "all" else split for split in audit.counts],
        histograms=list(_histograms(audit.statistics, headers or {})),
        preview=None if preview is None else data_uri(preview.read_bytes(), "png"),
    )


def _sections(audit: Audit, images: Mapping[str, ImageSet]) -> Iterator[Section]:
    """A section for each kind of which something was found, the images of all of them made small at once."""
    shown: dict[Kind, tuple[Finding, ...]] = {kind: audit.of_kind(kind) for kind in KINDS}
    wanted: dict[str, dict[str, None]] = {split: {} for split in images}
    for found in shown.values():
        for finding in found[:MOST_FINDINGS]:
            for split, name in _named(finding):
                if split in wanted:
                    wanted[split][name] = None
    pictures = {split: _thumbnails(images[split], [*names], audit.classes) for split, names in wanted.items()}
    for kind, found in shown.items():
        if found:
            cards = tuple(
                (
                    finding,
                    tuple(
                        pictures.get(split, {}).get(name, Thumbnail(name, "", "")) for split, name in _named(finding)
                    ),
                )
                for finding in found[:MOST_FINDINGS]
            )
            yield Section(kind, _TITLES[kind], len(found), cards)


def _named(finding: Finding) -> list[tuple[str, str]]:
    """The split and the name of the first images of a finding; of what is in two splits, some of each."""
    first, _, second = finding.split.partition("/")
    if not second:
        return [(first, name) for name in finding.images[:MOST_IMAGES]]
    number = finding.details["num_first"]
    half = MOST_IMAGES // 2
    before, after = finding.images[:number], finding.images[number:]
    return [*((first, name) for name in before[:half]), *((second, name) for name in after[:half])]


def _thumbnails(images: ImageSet, names: Sequence[str], classes: Sequence[str]) -> dict[str, Thumbnail]:
    """The thumbnails of the images that are called so, by name; those that were left out have none."""
    places = {name: index for index, name in enumerate(images.names)}
    known = [name for name in names if name in places]
    thumbnails: dict[str, Thumbnail] = {}
    for name in known:
        index = places[name]
        pixels = images.pixels[np.array([index])][0]
        label = images.labels[index]
        told = [classes[place] for place in (np.flatnonzero(label).tolist() if label.ndim else [int(label)])]
        thumbnails[name] = Thumbnail(name, ", ".join(told), thumbnail(pixels), is_small(pixels))
    return thumbnails


def _class_rows(audit: Audit) -> list[tuple[str, list[tuple[int, float]]]]:
    """For each class its images in each split, and how long a bar they make, in per cent of the longest."""
    most = max((max(counts, default=0) for counts in audit.counts.values()), default=0) or 1
    rows = zip(audit.classes, *audit.counts.values(), strict=True)
    return [
        (name, [(count, round(100 * count / most, 1)) for count in counts])
        for name, *counts in list(rows)[:MOST_CLASSES]
    ]


def _histograms(statistics: Mapping[str, Any], headers: Headers) -> Iterator[Histogram]:
    """How many images have which mode, longer side and ratio, as far as their files say."""
    modes: Counter[str] = Counter()
    for found in statistics.get("splits", {}).values():
        modes.update(found.get("modes", {}))
    if modes:
        yield _bars("Modes", modes.most_common())
    every = [header for found in headers.values() for header in found.values()]
    if not every:
        return
    sides = [max(header.rows, header.columns) for header in every]
    places = [bisect_right(_SIDES, side) for side in sides]
    yield _bars("Longer sides, pixels", _counted(places, _SIDES, "{:,}"))
    places = [bisect_right(_RATIOS, header.columns / header.rows) for header in every]
    yield _bars("Width to height", _counted(places, _RATIOS, "{:g}"))


def _counted(places: Sequence[int], edges: Sequence[float], form: str) -> list[tuple[str, int]]:
    """How many of the places are between which edges, from the first to the last that has any."""
    counts = Counter(places)
    names = [
        f"below {form.format(edges[0])}",
        *(f"{form.format(low)} to {form.format(high)}" for low, high in pairwise(edges)),
        f"{form.format(edges[-1])} and more",
    ]
    return [(names[place], counts[place]) for place in range(min(counts), max(counts) + 1)]


def _bars(title: str, counts: Sequence[tuple[str, int]]) -> Histogram:
    most = max(count for _, count in counts) or 1
    return title, [(name, count, round(100 * count / most, 1)) for name, count in counts]
