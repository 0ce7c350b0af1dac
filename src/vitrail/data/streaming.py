"""Images that are decoded when they are asked for, where neither memory nor disk has room for all of them."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from vitrail.data.content import content_hash
from vitrail.data.preprocess import Preprocess, read_for, read_prepared
from vitrail.data.records import Records, SourceError
from vitrail.data.thumbnails import rough
from vitrail.errors import DataError

NUM_TRIES, WAIT_SECONDS = 3, 1.0  # a disk of the network may be away for a moment


class StreamedPixels:
    """uint8 (N, rows, columns, channels) of `records` at `indices`, decoded at each indexing, in the caller's thread.

    What was readable when the records were looked through, and no longer is, raises DataError after some tries.
    """

    def __init__(self, records: Records, preprocess: Preprocess, indices: np.ndarray) -> None:
        self.records, self.preprocess, self.indices = records, preprocess, indices

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, rows, columns, channels)."""
        return len(self.indices), *self.preprocess.shape

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        chosen = self.indices[index]
        pixels = np.empty((len(chosen), *self.preprocess.shape), np.uint8)
        for row, place in enumerate(chosen.tolist()):
            pixels[row] = self._decode(place)
        return pixels

    def take(self, indices: np.ndarray) -> StreamedPixels:
        """The images at `indices`, not decoded yet."""
        return StreamedPixels(self.records, self.preprocess, self.indices[indices])

    def _decode(self, place: int) -> np.ndarray:
        name = self.records.names[place]
        for left in reversed(range(NUM_TRIES)):
            try:
                return read_prepared(self.records.read(place), self.preprocess, name)
            except SourceError:  # it was tried there
                raise
            except DataError as error:
                if not left:
                    raise DataError(
                        f"{error}; it could be read when training began, mend it or take it away"
                    ) from error
                time.sleep(WAIT_SECONDS)
        raise AssertionError


class Look(NamedTuple):
    """What an image is, by its content hash, what its thumbnail is made of, and its pixels at a model's size."""

    content: str
    rough: np.ndarray | bytes  # bytes are a thumbnail that was made before
    pixels: np.ndarray


def look_at(records: Records, place: int, preprocess: Preprocess) -> Look:
    """What there is to know of an image. Raises DataError if it cannot be read."""
    reading = read_for(records.read(place), preprocess, records.names[place])
    original, pixels = reading.original, reading.pixels
    as_it_is = preprocess.crop_rate == 1 and preprocess.fit != "native" and original.size == pixels.shape[1::-1]
    small = rough(original)
    if as_it_is and len(original.getbands()) == pixels.shape[2]:
        return Look(content_hash(pixels), small, pixels)  # small images are copied for longer than they are hashed
    return Look(content_hash(np.asarray(original)), small, pixels)
