"""Image files in class folders as a Dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vitrail.data.cache import stamp_of
from vitrail.data.dataset import Dataset
from vitrail.data.decoding import records_dataset
from vitrail.data.folders import Listing
from vitrail.data.records import ReadOptions, Records


def files_dataset(root: Path, name: str, listing: Listing, options: ReadOptions | None = None) -> Dataset:
    """The data set of the image files that `listing` found below `root`; files that cannot be read are left out."""
    return records_dataset(
        name,
        listing.classes,
        {split: _reader(root, split, listing) for split in listing.splits},
        options,
        ignored=listing.ignored,
    )


def _reader(root: Path, split: str, listing: Listing) -> Callable[[], Records]:
    places = {label: place for place, label in enumerate(listing.classes)}

    def records() -> Records:
        names = [image for image, _ in listing.splits[split]]
        labels = np.array([places[label] for _, label in listing.splits[split]], np.int64)
        return Records(
            f"{os.path.realpath(root)}|{split}",
            names,
            labels,
            lambda index: root / names[index],
            lambda index: stamp_of(root / names[index]),
        )

    return records
