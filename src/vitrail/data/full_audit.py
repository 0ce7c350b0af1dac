"""The whole audit: beyond counts and equal images, near copies, odd files and images that may be of no use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vitrail.data.audit import Audit, audit_dataset, read_all
from vitrail.data.copies import near_copies
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.findings import Finding
from vitrail.data.near_duplicates import near_thumbnails
from vitrail.data.pixels import pixel_blocks
from vitrail.data.preprocess import Preprocess
from vitrail.data.quality import MIN_BLUR_IMAGES, MIN_BLUR_SIDE, Measures, join_measures, measure, quality_findings
from vitrail.data.stored_forms import stored_findings, stored_statistics
from vitrail.data.thumbnails import unpack_thumbnails

BLOCK_BYTES = 2**22  # of pixels at a time, which are measured as numbers of four bytes
MAX_IMBALANCE = 5.0  # images of the largest class for one of the smallest; from there on training.imbalance=auto acts


def audit_fully(dataset: Dataset, preprocess: Preprocess, report: Callable[[int, int], None] | None = None) -> Audit:
    """All that is wrong with a data set, or may be, as far as pixels and files tell, at a model's size.

    Raises as reading does. `report` hears how many images are looked at, of how many.
    """
    audit = audit_dataset(dataset, preprocess)
    images = read_all(dataset, preprocess)
    measures = _measure(images, preprocess, report)
    # The thumbnails that splits are drawn by: what is found here is what they keep together.
    near = near_thumbnails(unpack_thumbnails(np.concatenate([found.packed_thumbnails for found in images.values()])))
    findings = near_copies(images, dataset.classes, near.groups())
    findings += quality_findings(measures, [(split, name) for split, found in images.items() for name in found.names])
    headers = {} if dataset.headers is None else {split: _headers(dataset, split, images[split]) for split in images}
    findings += stored_findings(headers)
    findings += _imbalance(audit, dataset.training_source)
    statistics = {split: _statistics(found, headers.get(split, {})) for split, found in images.items()}
    return replace(
        audit.with_findings(findings, [*near.notes, *_blur_notes(preprocess, measures)]),
        statistics={**audit.statistics, "splits": statistics},
    )


def _measure(
    images: Mapping[str, ImageSet], preprocess: Preprocess, report: Callable[[int, int], None] | None
) -> Measures:
    """The measures of all images, in one pass: some are decoded each time they are asked for."""
    measures: list[Measures] = []
    done, total = 0, sum(map(len, images.values()))
    for found in images.values():
        for block in pixel_blocks(found.pixels, BLOCK_BYTES):
            measures.append(measure(block, preprocess))
            done += len(block)
            if report is not None:
                report(done, total)
    return join_measures(measures)


def _blur_notes(preprocess: Preprocess, measures: Measures) -> list[str]:
    if min(preprocess.image_size) < MIN_BLUR_SIDE:
        return [f"Blur is not looked for, as images are prepared at less than {MIN_BLUR_SIDE} pixels"]
    if len(measures.spread) < MIN_BLUR_IMAGES:
        return [f"Blur is not looked for among fewer than {MIN_BLUR_IMAGES} images"]
    return []


def _headers(dataset: Dataset, split: str, images: ImageSet) -> dict[str, Any]:
    assert dataset.headers is not None
    found = dataset.headers(split)
    return {name: found[name] for name in images.names if name in found}


def _statistics(images: ImageSet, headers: Mapping[str, Any]) -> dict[str, Any]:
    rows, columns, channels = images.pixels.shape[1:]
    read = [rows, columns, channels - (channels in (2, 4))]
    return {"images": len(images), "image_size": read[:2], "channels": read[2], **stored_statistics(headers)}


def _imbalance(audit: Audit, split: str) -> Sequence[Finding]:
    counts = np.array(audit.counts[split])
    present = np.where(counts > 0, counts, counts.max() + 1)
    least, most = int(np.argmin(present)), int(np.argmax(counts))
    if counts[most] < MAX_IMBALANCE * counts[least] or len(audit.classes) < 2:
        return []
    names = audit.classes[least], audit.classes[most]
    ratio = counts[most] / counts[least]
    sentence = f"{names[1]} has {ratio:.1f} times as many images as {names[0]}: {counts[most]:,} to {counts[least]:,}"
    return [
        Finding(
            "class_imbalance",
            split,
            (),
            sentence,
            {"smallest": names[0], "largest": names[1], "ratio": round(float(ratio), 3)},
        )
    ]
