"""The IDX files of MNIST and its relatives (http://yann.lecun.com/exdb/mnist), compressed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet, check_labels, number_names
from vitrail.errors import DataError

_PREFIXES = {"train": "train", "test": "t10k"}
_DIMENSIONS = {"images": 3, "labels": 1}


def holds_idx(folder: Path) -> bool:
    """Whether at least one of the four IDX files lies in `folder`."""
    return any(_find(folder, split, kind) for split in _PREFIXES for kind in _DIMENSIONS)


def open_idx(folder: Path, name: str, classes: tuple[str, ...] = ()) -> Dataset:
    """The data set of `folder`, splits "train" and "test"; without `classes` they are 0..the largest training label.

    Raises DataError naming the file if one of the four is missing.
    """
    files = {split: {kind: _require(folder, split, kind) for kind in _DIMENSIONS} for split in _PREFIXES}
    if not classes:
        labels = read_idx(files["train"]["labels"], 1).astype(np.int64)
        classes = tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))

    def read(split: str) -> ImageSet:
        paths = files[split]
        pixels, labels = read_idx(paths["images"], 3), read_idx(paths["labels"], 1).astype(np.int64)
        if len(pixels) != len(labels):
            raise DataError(
                f"{paths['images']} holds {len(pixels)} images, {paths['labels'].name} {len(labels)} labels"
            )
        if pixels.size == 0:
            raise DataError(f"{paths['images']} holds no image")
        check_labels(labels, len(classes), str(paths["labels"]))
        return ImageSet(pixels[..., None], labels, number_names(split, len(pixels)))

    return Dataset(name, classes, ("train", "test"), read)


def read_idx(path: Path, num_dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped or not.

    Raises DataError if the file is damaged or no IDX file of unsigned bytes with that many dimensions.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":  # by content: browsers unpack files and leave the suffix
            data = gzip.decompress(data)
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or ends too early; download it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    magic, header = bytes([0, 0, 8, num_dimensions]), 4 + 4 * num_dimensions
    if data[:4] != magic or len(data) < header:
        kind = f"an IDX file of unsigned bytes in {num_dimensions} dimension{'s' * (num_dimensions > 1)}"
        raise DataError(f"{path} is not {kind}: it begins with {data[:4].hex()!r}, not {magic.hex()!r}, or ends there")
    shape = struct.unpack(f">{num_dimensions}I", data[4:header])
    if len(data) - header != math.prod(shape):
        length = f"{len(data) - header} bytes after its header, which promises {math.prod(shape)}"
        raise DataError(f"{path} holds {length}; download it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()  # a copy can be written to, for torch


def _names(split: str, kind: str) -> list[str]:
    stem, end = f"{_PREFIXES[split]}-{kind}", f"idx{_DIMENSIONS[kind]}-ubyte"
    return [f"{stem}{joint}{end}{suffix}" for suffix in ("", ".gz") for joint in ("-", ".")]


def _find(folder: Path, split: str, kind: str) -> Path | None:
    return next((folder / name for name in _names(split, kind) if (folder / name).is_file()), None)


def _require(folder: Path, split: str, kind: str) -> Path:
    path = _find(folder, split, kind)
    if path is None:
        raise DataError(f"{folder / _names(split, kind)[0]} is missing, also with .gz; the other IDX files are there")
    return path
