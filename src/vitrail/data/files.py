"""Image files of any size as a Dataset: decoded in threads, once, and kept in the cache."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from vitrail.data.cache import Entry, ImageCache, stamp_of
from vitrail.data.content import content_hash
from vitrail.data.dataset import Dataset, ImageSet, Shape
from vitrail.data.folders import Listing
from vitrail.data.images import read_image, read_shape
from vitrail.data.preprocess import Preprocess, prepare
from vitrail.errors import DataError

NUM_MEASURED = 200  # images whose headers say how large the images of a set are
PROGRESS_SECONDS = 2.0

logger = logging.getLogger(__name__)


def files_dataset(root: Path, name: str, listing: Listing, num_workers: int | None = None) -> Dataset:
    """The data set of the image files that `listing` found below `root`; files that cannot be read are left out.

    Reading one split opens the files of that split only, in `num_workers` threads, by default one for each core.
    """
    if num_workers is not None and num_workers > num_cores():
        logger.warning(
            "data.num_workers=%d is more than the %d cores that this process may use; %d are used",
            num_workers,
            num_cores(),
            num_cores(),
        )
        num_workers = num_cores()
    places = {label: place for place, label in enumerate(listing.classes)}
    broken: dict[str, tuple[tuple[str, str], ...]] = {}

    def prepared(split: str, preprocess: Preprocess) -> ImageSet:
        names = [image for image, _ in listing.splits[split]]
        labels = np.array([places[label] for _, label in listing.splits[split]], np.int64)
        pixels, entries = decode_files(root, split, names, preprocess, num_workers or num_cores())
        broken[split] = tuple((image, entries[image].error or "") for image in names if entries[image].error)
        readable = np.array([entries[image].error is None for image in names])
        if not readable.any():
            raise DataError(
                f"None of the {len(names):,} images of {split} in {root} can be read; {broken[split][0][1]}"
            )
        kept = tuple(image for image, good in zip(names, readable.tolist(), strict=True) if good)
        originals = tuple(str(entries[image].content) for image in kept)
        return ImageSet(pixels, labels[readable], kept, originals)

    @cache
    def measure() -> Shape:
        source = "train" if "train" in listing.splits else next(iter(listing.splits))
        return measure_files([root / image for image, _ in listing.splits[source]])

    return Dataset(
        name,
        listing.classes,
        tuple(listing.splits),
        None,
        prepared,
        measure,
        grows=True,
        broken=broken,
        ignored=listing.ignored,
    )


def measure_files(paths: Sequence[Path]) -> Shape:
    """(rows, columns, channels) of most of these images: medians over the headers of some; 1 channel if all are grey.

    Raises DataError if no header can be read.
    """
    chosen = paths[:: max(1, len(paths) // NUM_MEASURED)]
    sizes: list[tuple[int, int]] = []
    coloured = False
    for path in chosen:
        try:
            shape = read_shape(path)
        except DataError:  # it is named, with the reason, when all are decoded
            continue
        sizes.append(shape[:2])
        coloured = coloured or shape[2] == 3
    if not sizes:
        raise DataError(f"None of {len(chosen):,} images can be read; {_reason(paths[0])}")
    rows, columns = (int(np.median(side)) for side in zip(*sizes, strict=True))
    return rows, columns, 3 if coloured else 1


def _reason(path: Path) -> str:
    try:
        read_image(path)
    except DataError as error:
        return str(error)
    return f"{path} can"


def decode_files(
    root: Path, split: str, names: Sequence[str], preprocess: Preprocess, num_workers: int
) -> tuple[np.ndarray, dict[str, Entry]]:
    """The readable images at a model's size, (N, rows, columns, channels), and what is known of every file.

    What is in the cache and has not changed is not read again.
    """
    store = ImageCache(f"{os.path.realpath(root)}|{split}", preprocess)
    stamps = {name: _stamp(root / name) for name in names}
    known = store.entries
    # What could not be read is tried again: the reason may have lain outside the file, as a missing extra does.
    fresh = [name for name in names if name not in known or known[name].error or known[name].stamp != stamps[name]]
    if not fresh and store.pixels is not None and len(known) == len(names):
        return store.pixels, {name: known[name] for name in names}
    decoded = _decode_all(root, fresh, preprocess, num_workers)
    entries = {
        name: replace(decoded[name][0], stamp=stamps[name]) if name in decoded else known[name] for name in names
    }
    readable = [name for name, entry in entries.items() if entry.error is None]
    pixels = np.empty((len(readable), *preprocess.image_size, preprocess.channels), np.uint8)
    for row, name in enumerate(readable):
        image = decoded.pop(name)[1] if name in decoded else None  # its memory is free from here on
        if image is None:
            assert store.pixels is not None
            image = store.pixels[store.rows[name]]
        pixels[row] = image
    store.write(entries, pixels)
    return pixels, entries


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        return stamp_of(path)
    except OSError:  # a link to nothing; reading it says what is wrong
        return -1, 0, 0


def _decode_all(
    root: Path, names: Sequence[str], preprocess: Preprocess, num_workers: int
) -> dict[str, tuple[Entry, np.ndarray | None]]:
    def decode(name: str) -> tuple[Entry, np.ndarray | None]:
        try:
            image = read_image(root / name, name)
        except DataError as error:
            return Entry((0, 0, 0), None, None, str(error)), None
        array = np.asarray(image)
        rows, columns = array.shape[:2]
        entry = Entry((0, 0, 0), content_hash(array), (rows, columns, 1 if array.ndim == 2 else 3))
        return entry, prepare(image, preprocess)

    decoded: dict[str, tuple[Entry, np.ndarray | None]] = {}
    said = time.perf_counter()
    # Threads, not processes: Pillow decodes, and hashlib hashes, without holding Python's lock.
    with ThreadPoolExecutor(num_workers) as pool:
        for name, result in zip(names, pool.map(decode, names), strict=True):
            decoded[name] = result
            if time.perf_counter() - said > PROGRESS_SECONDS:
                said = time.perf_counter()
                logger.info("Reading images: %s of %s", f"{len(decoded):,}", f"{len(names):,}")
    return decoded


def num_cores() -> int:
    """The cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1
