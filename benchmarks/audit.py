"""How long an audit takes without the check of labels, part by part. Needs VITRAIL_DATA with the sets that are named.

Aim: CIFAR-10, 60,000 images in Parquet, in under two minutes on two cores, nothing cached.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from command import run_vitrail
from table import print_machine, print_markdown

from vitrail.data.audit import audit_dataset, read_all
from vitrail.data.full_audit import audit_fully
from vitrail.data.near_duplicates import near_thumbnails
from vitrail.data.preprocess import Preprocess
from vitrail.data.quality import measure
from vitrail.data.sources import open_dataset
from vitrail.data.stored_forms import stored_findings
from vitrail.data.thumbnails import join_thumbnails, make_thumbnails

SIDES = {"clothing": 224}  # of sets whose images differ in size; others are audited at their own


def parts(name: str) -> tuple[int, dict[str, float]]:
    """The number of images, and the seconds that each part takes, and that all of it takes again from the cache."""
    source = Path(os.environ["VITRAIL_DATA"], name)
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[what], started = now - started, now

    dataset = open_dataset(source)
    rows, columns, channels = dataset.shape
    size = (SIDES[name], SIDES[name]) if name in SIDES else (rows, columns)
    preprocess = Preprocess(image_size=size, channels=channels, fit="crop")
    images = read_all(dataset, preprocess)
    lap("reading")
    audit_dataset(dataset, preprocess)
    lap("counts, equal images")
    thumbnails = join_thumbnails([make_thumbnails(found.blocks()) for found in images.values()])
    lap("thumbnails")
    near_thumbnails(thumbnails)
    lap("near copies")
    for found in images.values():
        for block in found.blocks(1024):
            measure(block, preprocess)
    lap("empty, dark, bright, blurred")
    if dataset.headers is not None:
        stored_findings({split: dataset.headers(split) for split in images})
    lap("headers")
    again = open_dataset(source)
    audit_fully(again, preprocess)
    lap("all, images cached")
    return sum(map(len, images.values())), seconds


def main() -> None:
    """The whole command first, in a new process and with an empty cache, then its parts in this one."""
    names = sys.argv[1:] or ["cifar10", "mnist", "clothing"]
    print_machine()
    columns: list[list[str]] = []
    headings: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["VITRAIL_CACHE"] = cache
            started = time.perf_counter()
            run_vitrail("audit", str(Path(os.environ["VITRAIL_DATA"], name)), "--no-labels")
            whole = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as cache:
            os.environ["VITRAIL_CACHE"] = cache
            number, seconds = parts(name)
        headings = ["vitrail audit --no-labels", *seconds]
        columns.append([f"{value:.1f}" for value in (whole, *seconds.values())])
        names[names.index(name)] = f"{name}, {number:,} images"
    print_markdown(("seconds", *names), [(heading, *row) for heading, *row in zip(headings, *columns, strict=True)])


if __name__ == "__main__":
    main()
