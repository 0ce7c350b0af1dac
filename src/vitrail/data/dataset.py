"""What every source of images gives: a Dataset, read one split at a time as an ImageSet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from vitrail.errors import ConfigError, DataError, suggest


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size in memory: `pixels` uint8 (N, H, W, C) with C = 1 or 3, `labels` int64 (N,), a name each."""

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.uint8
        assert self.pixels.ndim == 4
        assert self.pixels.shape[3] in (1, 3)
        assert self.labels.dtype == np.int64
        assert len(self.pixels) == len(self.labels) == len(self.names)

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> ImageSet:
        """The images at `indices`, copied, in that order."""
        names = tuple(self.names[index] for index in indices.tolist())
        return ImageSet(self.pixels[indices], self.labels[indices], names)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set whose splits are read when asked for, and kept: the arrays are shared, not to be written to.

    `published` names the splits its publisher drew, of "train", "validation", "test"; it is ("all",) if there are none.
    """

    name: str
    classes: tuple[str, ...]
    published: tuple[str, ...]
    reader: Callable[[str], ImageSet] = field(repr=False)
    _kept: dict[str, ImageSet] = field(default_factory=dict, init=False, repr=False)

    @property
    def training_source(self) -> str:
        """The published split that training images come from: "train", or "all" where none are published."""
        return "all" if self.published == ("all",) else "train"

    def read(self, split: str) -> ImageSet:
        """The images of one published split; no file of another split is opened.

        Raises ConfigError for a split that is not published, DataError for files that are missing or unfit.
        """
        if split not in self.published:
            near = suggest(split, self.published)
            raise ConfigError(f"{self.name} has no split {split!r}.{near} It has {', '.join(self.published)}")
        if split not in self._kept:
            self._kept[split] = self.reader(split)
        return self._kept[split]


def number_names(split: str, count: int) -> tuple[str, ...]:
    """Names for images that have none of their own: "train/00000", "train/00001", ..."""
    return tuple(f"{split}/{index:05d}" for index in range(count))


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Raise DataError, naming the first offender, unless all labels are within 0..num_classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{where}: the label of image {wrong[0]} is {labels[wrong[0]]}; "
            f"{num_classes} classes have labels from 0 to {num_classes - 1}"
        )
