"""Records as a Dataset: each image is decoded once, in threads, into a mapped file; else whenever it is needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from vitrail.data.building import Building
from vitrail.data.cache import ImageCache, Known
from vitrail.data.cache_entries import make_room, show_bytes
from vitrail.data.dataset import Dataset, ImageSet, Sample, Shape, spread
from vitrail.data.groups import bursts_of, with_groups
from vitrail.data.headers import Header, read_header
from vitrail.data.images import read_shape
from vitrail.data.pixels import Pixels, num_cores
from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions, Records, SourceError, Stamp, num_threads
from vitrail.data.streaming import Look, StreamedPixels, look_at
from vitrail.data.thumbnails import KEPT_BYTES, kept_thumbnails
from vitrail.errors import DataError

NUM_MEASURED = 200  # images whose headers say how large the images of a set are
PROGRESS_SECONDS = 2.0
BLOCK = 512  # images between two lines in a cache's journal
TASK = 16  # images that a thread is given at a time: small ones are decoded faster than threads change hands

logger = logging.getLogger(__name__)

Decoded = Look | DataError


def records_dataset(
    name: str,
    classes: tuple[str, ...],
    splits: Mapping[str, Callable[[], Records]],
    options: ReadOptions | None = None,
    *,
    grows: bool = True,
    ignored: tuple[str, ...] = (),
    multilabel: bool = False,
) -> Dataset:
    """The data set of these records; images that cannot be read are left out of it, and named in `broken`.

    Reading one split opens the images of that split only, in `options.num_workers` threads, one for each core.
    """
    options = options or ReadOptions()
    _check_workers(options.num_workers)
    broken: dict[str, tuple[tuple[str, str], ...]] = {}

    @cache
    def records_of(split: str) -> Records:
        return with_groups(splits[split](), classes, options, split, bursts)

    @cache
    def bursts() -> Mapping[str, Sequence[str]]:
        return bursts_of({split: records() for split, records in splits.items()})

    def prepared(split: str, preprocess: Preprocess) -> ImageSet:
        records = records_of(split)
        pixels, known = decode_records(records, preprocess, options, num_threads(options.num_workers, records.remote))
        broken[split] = tuple((image, known.errors[image]) for image in records.names if image in known.errors)
        readable = np.array([image not in known.errors for image in records.names], bool)
        if not readable.any():
            reason = broken[split][0][1] if broken[split] else "it is empty"
            raise DataError(f"None of the {len(records):,} images of {split} in {name} can be read; {reason}")
        return _image_set(records, pixels, known, np.flatnonzero(readable).tolist())

    def trained_on() -> Records:
        return records_of("train" if "train" in splits else next(iter(splits)))

    @cache
    def sampled() -> tuple[np.ndarray, list[str]]:
        return sampled_shapes(trained_on())

    return Dataset(
        name,
        classes,
        tuple(splits),
        None,
        prepared,
        lambda: most_common_shape(*sampled()),
        grows=grows,
        broken=broken,
        ignored=ignored,
        multilabel=multilabel,
        headers=lambda split: read_headers(records_of(split), num_threads(options.num_workers, remote=False)),
        shapes=lambda: sampled()[0][:, :2],
        samples=lambda count: _samples(trained_on(), count),
    )


def _image_set(records: Records, pixels: Pixels, known: Known, kept: Sequence[int]) -> ImageSet:
    """The records at the places `kept`, which are those that could be read, with their pixels."""
    return ImageSet(
        pixels,
        records.labels[kept],
        tuple(records.names[index] for index in kept),
        tuple(str(known.contents[index]) for index in kept),
        None if records.groups is None else tuple(records.groups[index] for index in kept),
        _thumbnails(known, kept),
    )


def _samples(records: Records, count: int) -> list[Sample]:
    return [(records.names[index], records.read(index)) for index in map(int, spread(len(records), count))]


def _thumbnails(known: Known, indices: Sequence[int]) -> np.ndarray:
    joined = b"".join(known.thumbnails[index] for index in indices)
    return np.frombuffer(joined, np.uint8).reshape(-1, KEPT_BYTES)


def _check_workers(wanted: int | None) -> None:
    if wanted is not None and wanted > num_cores():
        logger.warning(
            "data.num_workers=%d is more than the %d cores that this process may use; %d are used",
            wanted,
            num_cores(),
            num_cores(),
        )


def most_common_shape(shapes: np.ndarray, failed: Sequence[str]) -> Shape:
    """(rows, columns, channels) of most images, by what `sampled_shapes` gives: medians; 1 channel if all are grey.

    Raises DataError if no header could be read.
    """
    if not len(shapes):
        raise DataError(f"None of {len(failed):,} images can be read; {failed[0]}")
    rows, columns = (int(np.median(side)) for side in shapes[:, :2].T)
    return rows, columns, int(shapes[:, 2].max())


def sampled_shapes(records: Records) -> tuple[np.ndarray, list[str]]:
    """(rows, columns, channels) of some of these images, int (n, 3), and why the headers of others cannot be read."""
    shapes: list[Shape] = []
    failed: list[str] = []
    for index in range(0, len(records), max(1, len(records) // NUM_MEASURED)):
        try:
            shapes.append(read_shape(records.read(index), records.names[index]))
        except DataError as error:  # it is named again when all are decoded
            failed.append(str(error))
    return np.array(shapes, np.int64).reshape(-1, 3), failed


def read_headers(records: Records, num_workers: int) -> dict[str, Header]:
    """What the files of these images say of themselves, by name, without those that cannot be read."""

    def read(index: int) -> Header | None:
        try:
            return read_header(records.read(index), records.names[index])
        except DataError:
            return None

    with ThreadPoolExecutor(num_workers) as pool:
        found = zip(records.names, pool.map(read, range(len(records))), strict=True)
        return {name: header for name, header in found if header is not None}


def decode_records(
    records: Records, preprocess: Preprocess, options: ReadOptions, num_workers: int
) -> tuple[Pixels, Known]:
    """The readable images at a model's size, (N, rows, columns, channels), and what is known of every one.

    What is in the cache and has not changed is not read again. Where the disk has no room, images are decoded in
    memory, and where that has none either, whenever they are needed.
    """
    names, stamps = list(records.names), [_stamp(records, index) for index in range(len(records))]
    store = ImageCache(records.key, preprocess)
    wanted_bytes = len(records) * int(np.prod(preprocess.shape, dtype=np.int64))
    streams = options.serving == "stream"
    if _is_whole(store, names, stamps) and (store.pixels is not None) != streams:
        return _served(store, records, preprocess), store.known
    decoding = _Decoding(records, preprocess, names, stamps, num_workers)
    try:
        with store.locked():
            store.read()  # another process may have made it meanwhile
            if _is_whole(store, names, stamps) and (store.pixels is not None) != streams:
                return _served(store, records, preprocess), store.known
            if streams:
                return decoding.look(store)
            limit = None if options.cache_gigabytes is None else int(options.cache_gigabytes * 1e9)
            if decoding.still_broken(store):
                return _served(store, records, preprocess), store.known
            make_room(wanted_bytes, limit, store.folder)
            return decoding.build(store)
    except OSError as error:
        logger.warning("Decoded images are not kept in %s: %s", store.folder, error.strerror or error)
    room = memory_bytes(options.memory_gigabytes)
    if options.serving == "memory" or (options.serving == "auto" and wanted_bytes <= room):
        return decoding.in_memory()
    logger.warning("%s of images have no room in memory; they are decoded as they are needed", show_bytes(wanted_bytes))
    return decoding.look(store)


def memory_bytes(gigabytes: float | None) -> int:
    """The most that decoded images may take in memory: so many gigabytes, by default a quarter of what is free."""
    if gigabytes is not None:
        return int(gigabytes * 1e9)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024 // 4
    except (OSError, StopIteration, ValueError):
        return 2**32  # of a machine that does not say; any that trains has 16 GB


def _stamp(records: Records, index: int) -> Stamp:
    try:
        return records.stamp(index)
    except OSError:  # a link to nothing; reading it says what is wrong
        return -1, 0, 0


def _is_whole(store: ImageCache, names: list[str], stamps: list[Stamp]) -> bool:
    """Whether the cache has just these images. What could not be read is tried again: a missing extra may be there."""
    return bool(names) and not store.known.errors and (store.known.names, store.known.stamps) == (names, stamps)


def _served(store: ImageCache, records: Records, preprocess: Preprocess) -> Pixels:
    if store.pixels is not None:
        return store.pixels
    return _streamed(records, preprocess, store.known)


def _streamed(records: Records, preprocess: Preprocess, known: Known) -> StreamedPixels:
    readable = [index for index, name in enumerate(records.names) if name not in known.errors]
    return StreamedPixels(records, preprocess, np.array(readable, np.int64))


class _Decoding:
    """All images of some records, decoded block by block."""

    def __init__(
        self, records: Records, preprocess: Preprocess, names: list[str], stamps: list[Stamp], num_workers: int
    ) -> None:
        self.records, self.preprocess, self.names, self.stamps = records, preprocess, names, stamps
        self.num_workers = num_workers
        self.said = time.perf_counter()
        self.stopping = False

    def still_broken(self, store: ImageCache) -> bool:
        """Whether the cache has just these images, but for some that cannot be read, not even now."""
        known = store.known
        if store.pixels is None or (known.names, known.stamps) != (self.names, self.stamps):
            return False
        broken = [index for index, name in enumerate(self.names) if name in known.errors]
        return all(isinstance(self._decode(index), DataError) for index in broken)

    def build(self, store: ImageCache) -> tuple[Pixels, Known]:
        """Decode into the cache; what it has already is copied. Raises OSError where the disk refuses."""
        known_stamps = dict(zip(store.known.names, store.known.stamps, strict=True))
        rows = store.rows if store.pixels is not None else {}
        looks = zip(store.known.contents, store.known.thumbnails, strict=True)
        known = dict(zip(store.known.names, looks, strict=True))

        def kept(index: int) -> Decoded | None:
            name = self.names[index]
            row = rows.get(name)
            if row is None or store.pixels is None or known_stamps[name] != self.stamps[index]:
                return None
            content, small = known[name]
            return Look(str(content), small, store.pixels[row])

        building = Building(store, self.names, self.stamps)
        try:
            for part, pixels in self._blocks(len(building.known.names), kept):
                building.append(part, pixels)
            store.write(building.known, building.finish())
        except OSError:
            building.abandon()
            raise
        finally:
            building.close()
        pixels = store.pixels
        if pixels is None:
            raise OSError("what was written cannot be read again")
        return pixels, store.known

    def in_memory(self) -> tuple[Pixels, Known]:
        """Decode into memory."""
        known = Known()
        pixels = np.empty((len(self.names), *self.preprocess.shape), np.uint8)
        for part, rows in self._blocks(0, lambda index: None):
            for place, row in enumerate(rows, known.num_readable):
                pixels[place] = row
            known.extend(part)
        return pixels[: known.num_readable], known

    def look(self, store: ImageCache) -> tuple[Pixels, Known]:
        """Decode all, to know what they are, and keep no pixels."""
        known = Known()
        for part, _ in self._blocks(0, lambda index: None):
            known.extend(part)
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            store.write(known, None)
        except OSError as error:
            logger.warning("What is known of the images is not kept in %s: %s", store.folder, error.strerror or error)
        return _streamed(self.records, self.preprocess, known), known

    def _blocks(self, start: int, kept: Callable[[int], Decoded | None]) -> Iterator[tuple[Known, list[np.ndarray]]]:
        """What is known of the images from `start` on, and the pixels of the readable ones, a block at a time."""

        def task(indices: Sequence[int]) -> list[Decoded]:
            return [kept(index) or self._decode(index) for index in indices if not self.stopping]

        # Threads, not processes: Pillow decodes, and hashlib hashes, without holding Python's lock.
        pool = ThreadPoolExecutor(self.num_workers)
        try:
            ahead = list[tuple[range, Iterator[list[Decoded]]]]()
            for first in [*range(start, len(self.names), BLOCK), None, None]:
                if first is not None:
                    block = range(first, min(first + BLOCK, len(self.names)))
                    parts = [block[place : place + TASK] for place in range(0, len(block), TASK)]
                    ahead.append((block, pool.map(task, parts)))
                if ahead and (first is None or len(ahead) > 1):  # one block is decoded while one is written
                    yield self._collect(*ahead.pop(0))
        finally:
            self.stopping = True  # whoever stops waits for the images under way, not for those of whole tasks
            pool.shutdown(cancel_futures=True)
            self.stopping = False

    def _decode(self, index: int) -> Decoded:
        try:
            return look_at(self.records, index, self.preprocess)
        except SourceError:
            raise
        except DataError as error:
            return error

    def _collect(self, block: range, results: Iterator[list[Decoded]]) -> tuple[Known, list[np.ndarray]]:
        part, pixels, roughs = Known(), list[np.ndarray](), list[np.ndarray | bytes]()
        for index, result in zip(block, (one for many in results for one in many), strict=True):
            name = self.names[index]
            if isinstance(result, DataError):
                part.errors[name] = str(result)
                content, small = None, bytes(KEPT_BYTES)
            else:
                content, small = result.content, result.rough
                pixels.append(result.pixels)
            part.names.append(name)
            part.stamps.append(self.stamps[index])
            part.contents.append(content)
            roughs.append(small)
            if time.perf_counter() - self.said > PROGRESS_SECONDS:
                self.said = time.perf_counter()
                logger.info("Reading images: %s of %s", f"{index + 1:,}", f"{len(self.names):,}")
        made = iter(kept_thumbnails([small for small in roughs if isinstance(small, np.ndarray)]))
        part.thumbnails += [small if isinstance(small, bytes) else next(made) for small in roughs]
        return part, pixels
