"""What a run's model answered to each image of a split: from the file that the run wrote, or from probabilities."""

# Shapes: N images, K classes

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitrail.errors import CheckpointError
from vitrail.predictions import GIVEN

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_COLUMNS = 64  # of probabilities that are in memory at a time


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to the images of a split.

    `names` (N,); `labels` and `given` int64 (N,), or bool (N, K) where an image may have several. `sure` (N,) is the
    probability of the answer, of several labels that of the least sure decision; `margin` (N,) how far it is from
    another answer, and `missed` (N,) how far from the right one, all 0..1.
    """

    split: str
    names: tuple[str, ...]
    labels: np.ndarray
    given: np.ndarray
    sure: np.ndarray
    margin: np.ndarray
    missed: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def nameless(self) -> Answers:
        """The same to images that are numbered."""
        return replace(self, names=tuple(f"image {place}" for place in range(1, len(self) + 1)))

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels.ndim == 2

    @property
    def wrong(self) -> np.ndarray:
        """Which answers are not exactly right, bool (N,)."""
        differs = self.labels != self.given
        return differs.any(axis=1) if self.multilabel else differs


def answers_of(split: str, names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> Answers:
    """The answers that probabilities (N, K) are, to images with these labels: int64 (N,), or (N, K) of 0 and 1."""
    if labels.ndim == 2:
        return _several(split, tuple(names), labels > 0, probabilities > GIVEN, [probabilities])
    return _one(split, tuple(names), labels, probabilities.argmax(axis=1), [probabilities])


def read_answers(path: Path, classes: Sequence[str]) -> Answers:
    """The answers in a run's predictions/<split>.parquet.

    Raises CheckpointError if the file is missing, damaged, or of other classes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            several = "labels" in file.schema_arrow.names
            columns = ("labels", "predictions") if several else ("label", "prediction")
            table = file.read(columns=["image", *columns])
            names = tuple(map(str, table.column("image").to_pylist()))
            labels, given = (_places(table.column(name).to_pylist(), classes, several) for name in columns)
            return (_several if several else _one)(path.stem, names, labels, given, _probabilities(file, classes))
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} is missing or damaged") from error


def _places(values: list[str] | list[list[str]], classes: Sequence[str], several: bool) -> np.ndarray:
    places = {name: place for place, name in enumerate(classes)}
    if not several:
        return np.array([places[str(name)] for name in values], np.int64)
    found = np.zeros((len(values), len(classes)), bool)
    for row, names in enumerate(values):
        found[row, [places[name] for name in names]] = True
    return found


def _probabilities(file: ParquetFile, classes: Sequence[str]) -> Iterator[np.ndarray]:
    """The columns of the classes in their order, (N, some) at a time: a thousand of them are too many at once."""
    for start in range(0, len(classes), _COLUMNS):
        names = [f"probability_{name}" for name in classes[start : start + _COLUMNS]]
        table = file.read(columns=names)
        yield np.stack([table.column(name).to_numpy() for name in names], axis=1)


def _one(
    split: str, names: tuple[str, ...], labels: np.ndarray, given: np.ndarray, parts: Iterable[np.ndarray]
) -> Answers:
    first, second, own = (np.zeros(len(names)) for _ in range(3))
    start = 0
    for part in parts:
        stop = start + part.shape[1]
        two = np.sort(np.column_stack([first, second, part]), axis=1)[:, -2:]
        second, first = two[:, 0], two[:, 1]
        here = np.flatnonzero((labels >= start) & (labels < stop))
        own[here] = part[here, labels[here] - start]
        start = stop
    return Answers(split, names, labels, given, first, first - second, 1 - own)


def _several(
    split: str, names: tuple[str, ...], labels: np.ndarray, given: np.ndarray, parts: Iterable[np.ndarray]
) -> Answers:
    sure, missed, start = np.ones(len(names)), np.zeros(len(names)), 0
    for part in parts:
        own = labels[:, start : start + part.shape[1]]
        sure = np.minimum(sure, np.maximum(part, 1 - part).min(axis=1))
        missed = np.maximum(missed, np.abs(own - part).max(axis=1))
        start += part.shape[1]
    return Answers(split, names, labels, given, sure, 2 * sure - 1, missed)
