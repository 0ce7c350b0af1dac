"""What every source of images gives: a Dataset, read one split at a time as an ImageSet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vitrail.data.content import content_hashes
from vitrail.data.headers import Header
from vitrail.data.pixels import Pixels, pixel_blocks, take_pixels
from vitrail.data.preprocess import Preprocess, prepare_many
from vitrail.data.thumbnails import KEPT_SIDE, Thumbnails, make_thumbnails, pack_thumbnails, unpack_thumbnails
from vitrail.errors import ConfigError, DataError, suggest

Shape = tuple[int, int, int]  # rows, columns, channels
Sample = tuple[str, bytes | Path | np.ndarray]  # an image's name, and the image as it is stored


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size: `pixels` uint8 (N, H, W, C), `labels` int64 (N,), a name each.

    C is 1 or 3, or one more where the last channel is 255 inside the image and 0 in its padding. Pixels may lie in a
    file that is mapped, or be decoded when they are indexed, so large sets are gone through in blocks. Where an image
    may have several labels, or none, they are 0 or 1 of (N, number of classes).
    `originals` are the content hashes of the images at their own size, where `pixels` are at another, and `small` their
    packed thumbnails then. Images of one of the `groups` belong into one split.
    """

    pixels: Pixels
    labels: np.ndarray
    names: tuple[str, ...]
    originals: tuple[str, ...] | None = field(default=None, repr=False)
    groups: tuple[str, ...] | None = field(default=None, repr=False)
    small: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.uint8
        assert len(self.pixels.shape) == 4
        assert self.pixels.shape[3] in (1, 2, 3, 4)
        assert self.labels.dtype == np.int64
        assert self.labels.ndim in (1, 2)
        assert len(self.pixels) == len(self.labels) == len(self.names)
        assert self.originals is None or len(self.originals) == len(self.names)
        assert self.groups is None or len(self.groups) == len(self.names)
        assert self.small is None or len(self.small) == len(self.names)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """The content hash of each image, at its own size."""
        return content_hashes(self.pixels[:]) if self.originals is None else self.originals

    @cached_property
    def packed_thumbnails(self) -> np.ndarray:
        """What is kept of each image at its own size, uint8 (N, KEPT_BYTES), whatever model it is prepared for."""
        return pack_thumbnails(make_thumbnails(self.blocks(), KEPT_SIDE)) if self.small is None else self.small

    @property
    def thumbnails(self) -> Thumbnails:
        """The thumbnails of the images at their own size."""
        return unpack_thumbnails(self.packed_thumbnails)

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> ImageSet:
        """The images at `indices`, in that order: copied where they are in memory."""
        chosen = indices.tolist()
        names = tuple(self.names[index] for index in chosen)
        originals = None if self.originals is None else tuple(self.originals[index] for index in chosen)
        groups = None if self.groups is None else tuple(self.groups[index] for index in chosen)
        pixels = take_pixels(self.pixels, indices)
        small = None if self.small is None else self.small[indices]
        return ImageSet(pixels, self.labels[indices], names, originals, groups, small)

    def resized(self, preprocess: Preprocess) -> ImageSet:
        """The set with its images as `preprocess` makes them; itself where they are so already."""
        before = self.pixels[:]
        pixels = prepare_many(before, preprocess)
        return (
            self
            if pixels is before
            else replace(self, pixels=pixels, originals=self.hashes, small=self.packed_thumbnails)
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """The pixels, some 64 MB at a time: what does not fit in memory is never there as a whole."""
        return pixel_blocks(self.pixels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set whose splits are read when asked for, and kept: the arrays are shared, not to be written to.

    `published` names the splits its publisher drew, of "train", "validation", "test"; it is ("all",) if there are none.
    `draws_test` says whether a test split is drawn where none is published.
    Images of many sizes come at a model's size from `preparer`, and `shape` says how large most of them are, which is
    the size they are read at without a `reader`; without a preparer they come from `reader`, all of one size. `grows`
    says whether images may be added from one day to the next, as in a user's own folder. `broken` holds, for each
    split read so far, the files left out because they cannot be read, name and reason; `ignored` the files passed
    over because they are no images. With `multilabel` an image may have any number of labels. `headers` reads what the
    files of a split say of themselves, by the names of their images; those that cannot be read are missing. `shapes`
    gives rows and columns, int (n, 2), of some of the images to train on, where they differ; `samples` so many of these
    images as they are stored, file or bytes, with their names.
    """

    name: str
    classes: tuple[str, ...]
    published: tuple[str, ...]
    reader: Callable[[str], ImageSet] | None = field(repr=False)
    preparer: Callable[[str, Preprocess], ImageSet] | None = field(default=None, repr=False)
    measure: Callable[[], Shape] | None = field(default=None, repr=False)
    grows: bool = False
    draws_test: bool = True
    broken: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict[str, tuple[tuple[str, str], ...]])
    ignored: tuple[str, ...] = ()
    multilabel: bool = False
    headers: Callable[[str], Mapping[str, Header]] | None = field(default=None, repr=False)
    shapes: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    samples: Callable[[int], Sequence[Sample]] | None = field(default=None, repr=False)
    _kept: dict[str | tuple[str, Preprocess], ImageSet] = field(default_factory=dict, init=False, repr=False)

    @property
    def training_source(self) -> str:
        """The published split that training images come from: "train", or "all" where none are published."""
        return "all" if self.published == ("all",) else "train"

    @property
    def shape(self) -> Shape:
        """(rows, columns, channels) of the images to train on; of most of them, where they differ."""
        if self.measure is not None:
            return self.measure()
        rows, columns, channels = self.read(self.training_source).pixels.shape[1:]
        return rows, columns, channels

    def sampled_shapes(self) -> np.ndarray:
        """Rows and columns, int (n, 2), of some of the images to train on."""
        return np.array([self.shape[:2]]) if self.shapes is None else self.shapes()

    def stored_samples(self, count: int) -> Sequence[Sample]:
        """So many of the images to train on, as they are stored, with their names, from all parts of the set."""
        if self.samples is not None:
            return self.samples(count)
        images = self.read(self.training_source)
        chosen = images.take(spread(len(images), count))
        return [*zip(chosen.names, chosen.pixels[:], strict=True)]

    def read(self, split: str) -> ImageSet:
        """The images of one published split at their own size; no file of another split is opened.

        Raises ConfigError for a split that is not published, DataError for files that are missing or unfit.
        """
        self._check(split)
        if self.reader is None:
            rows, columns, channels = self.shape
            return self.prepared(split, Preprocess(image_size=(rows, columns), channels=channels, fit="pad"))
        if split not in self._kept:
            self._kept[split] = self.reader(split)
        return self._kept[split]

    def prepared(self, split: str, preprocess: Preprocess) -> ImageSet:
        """The images of one published split at a model's size and channels. Raises as `read` does."""
        self._check(split)
        if (split, preprocess) not in self._kept:
            self._kept[split, preprocess] = (
                self.read(split).resized(preprocess) if self.preparer is None else self.preparer(split, preprocess)
            )
        return self._kept[split, preprocess]

    def _check(self, split: str) -> None:
        if split not in self.published:
            near = suggest(split, self.published)
            raise ConfigError(f"{self.name} has no split {split!r}.{near} It has {', '.join(self.published)}")


def spread(total: int, count: int) -> np.ndarray:
    """`count` of the indices 0..total - 1 at even distances, all of them if they are fewer."""
    return np.linspace(0, total - 1, min(total, count)).astype(np.int64)


def number_names(split: str, count: int) -> tuple[str, ...]:
    """Names for images that have none of their own: "train/00000", "train/00001", ..."""
    return tuple(f"{split}/{index:05d}" for index in range(count))


def map_labels(labels: np.ndarray, places: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels (N,), or 0 and 1 of (N, classes), in other classes: class k becomes class `places[k]`."""
    if labels.ndim == 1:
        return places[labels]
    mapped = np.zeros((len(labels), num_classes), np.int64)
    for column, place in enumerate(places.tolist()):
        mapped[:, place] |= labels[:, column]
    return mapped


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Raise DataError, naming the first offender, unless all labels are within 0..num_classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{where}: the label of image {wrong[0]} is {labels[wrong[0]]}; "
            f"{num_classes} classes have labels from 0 to {num_classes - 1}"
        )
