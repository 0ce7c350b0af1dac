"""Wrong labels that are planted, and how many of them `vitrail audit` finds, on four sets.

For each set: what is suspected of the labels as they are, then with planted faults. Only planted ones count as right,
and no set is without faults of its own, so precision is a lower bound. `in force` is what the file of corrections
holds; `right` are those lines that bring the old label back, or drop an image whose label was changed. The last rows
are of a run that was trained on the faulty labels itself, whose vectors know them, and of one on the right labels.

    python benchmarks/label_issues.py [IMAGES]      of mnist and cifar10, by default 5,000
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from table import print_machine, print_markdown

import vitrail
from vitrail.auditing import LabelCheck
from vitrail.data.audit import Audit, count_classes
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.loading import find_source
from vitrail.reporting.audit_corrections import propose_corrections

RATE = 0.05
SIZES = {"digits": (8, 1), "mnist": (28, 1), "clothing": (64, 3), "cifar10": (32, 3)}
Row = tuple[str, ...]


def planted(labels: np.ndarray, rate: float, num_classes: int) -> np.ndarray:
    """The labels, so many of them any other of the classes."""
    draws = np.random.default_rng(0)
    wrong = np.flatnonzero(draws.random(len(labels)) < rate)
    changed = labels.copy()
    changed[wrong] = (labels[wrong] + draws.integers(1, num_classes, len(wrong))) % num_classes
    return changed


def images_of(name: str, most: int) -> tuple[ImageSet, tuple[str, ...], Preprocess]:
    side, channels = SIZES[name]
    preprocess = Preprocess(image_size=(side, side), channels=channels, fit="pad")
    dataset = open_dataset(name) if name != "clothing" else open_dataset(clothing())
    images = dataset.prepared(dataset.training_source, preprocess)
    return images.take(np.random.default_rng(0).permutation(len(images))[:most]), dataset.classes, preprocess


def clothing() -> Path:
    import os

    return Path(os.environ["VITRAIL_DATA"], "clothing")


def measure(title: str, images: ImageSet, labels: np.ndarray, classes: tuple[str, ...], preprocess: Preprocess,
            run: Path | None = None) -> Row:  # fmt: skip
    given = ImageSet(images.pixels, labels, images.names, images.hashes)
    dataset = Dataset(title, classes, ("train",), lambda _: given)
    began = time.process_time()
    source = None if run is None else find_source(run)
    check = LabelCheck(dataset, preprocess, {"train": given}).run(source, "cpu", True, forced=True)
    seconds = time.process_time() - began
    assert check.facts is not None
    counts = {"train": tuple(count_classes(labels, len(classes)))}
    found = check.added_to(Audit(title, classes, counts, {"train": len(labels)}, {}, ()))
    proposed = propose_corrections(found, {"train": given})
    old = dict(zip(images.names, images.labels.tolist(), strict=True))
    now = dict(zip(images.names, labels.tolist(), strict=True))
    suspected = [finding.images[0] for finding in found.of_kind("suspicious_label")]
    right = sum(old[name] != now[name] for name in suspected)
    lines = [line.split(",") for line in proposed.text.splitlines()[1:] if not line.startswith("#")]
    mended = sum(
        classes[old[name]] == label if action == "relabel" else old[name] != now[name]
        for name, action, label, *_ in lines
    )
    wrong = int((labels != images.labels).sum())
    return (
        title,
        f"{len(labels):,}",
        f"{wrong:,}",
        f"{100 * check.facts['agreement']:.1f}",
        f"{len(suspected):,}",
        f"{right / len(suspected):.2f}" if wrong and suspected else "-",
        f"{right / wrong:.2f}" if wrong else "-",
        f"{len(lines):,}",
        f"{mended / len(lines):.2f}" if wrong and lines else "-",
        f"{seconds:.0f}",
    )


def of_own_run() -> list[Row]:
    """Digits with planted faults, by the vectors of a run that was trained on them, and of one on the right labels."""
    images, classes, preprocess = images_of("digits", 10_000)
    images = open_dataset("digits").prepared("all", preprocess)
    labels = planted(images.labels, RATE, len(classes))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        moved = np.flatnonzero(labels != images.labels)
        lines = [f"{images.hashes[place]},relabel,{classes[labels[place]]}\n" for place in moved.tolist()]
        corrections = Path(folder, "planted.csv")
        corrections.write_text("".join(lines), encoding="utf-8")
        for title, given in (("digits, a run on these faults", corrections), ("digits, a run on right labels", None)):
            run = vitrail.train("digits", corrections=given, out=Path(folder, f"run{len(rows)}")).path
            rows.append(measure(title, images, labels, classes, preprocess, run))
    return rows


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    rows: list[Row] = []
    for name in SIZES:
        images, classes, preprocess = images_of(name, most)
        for rate in (0.0, RATE):
            title = name if rate == 0 else f"{name}, {RATE:.0%} planted"
            labels = planted(images.labels, rate, len(classes))
            rows.append(measure(title, images, labels, classes, preprocess))
    rows += of_own_run()
    print_machine()
    print_markdown(
        ("set", "images", "planted", "agreement, %", "suspected", "precision", "recall", "in force", "right",
         "processor seconds"),
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
