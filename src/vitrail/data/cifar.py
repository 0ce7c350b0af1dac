"""The binary files of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet, check_labels, number_names
from vitrail.errors import DataError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class _Layout:
    """The files of each split, the bytes of labels before an image's pixels, and the file of the classes' names."""

    folder: str
    splits: dict[str, tuple[str, ...]]
    num_labels: int  # the last one is that of the class; CIFAR-100 has a coarser one before it
    names: str


_LAYOUTS = (
    _Layout(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
        1,
        "batches.meta.txt",
    ),
    _Layout("cifar-100-binary", {"train": ("train.bin",), "test": ("test.bin",)}, 2, "fine_label_names.txt"),
)
_PICKLED = ("cifar-10-batches-py", "cifar-100-python", "batches.meta", "meta")


def holds_cifar(folder: Path) -> bool:
    """Whether `folder`, or the folder in it that the archive unpacks to, has at least one of the binary files.

    Raises DataError where it has the pickled ones instead.
    """
    if any(_find(folder, layout, file) for layout in _LAYOUTS for files in layout.splits.values() for file in files):
        return True
    pickled = [name for name in _PICKLED if (folder / name).exists()]
    if pickled and not any(folder.glob("*.parquet")):
        raise DataError(
            f"{folder} holds CIFAR as pickles ({', '.join(pickled)}), which can run any program when they are read; "
            "download the binary version"
        )
    return False


def open_cifar(folder: Path, name: str) -> Dataset:
    """The data set of `folder`, splits "train" and "test", 32x32 RGB, classes as its file of names says.

    Raises DataError naming the file if one is missing, torn or has labels beyond the classes.
    """
    layout = next(
        layout
        for layout in _LAYOUTS
        if any(_find(folder, layout, file) for files in layout.splits.values() for file in files)
    )
    paths = {split: [_require(folder, layout, file) for file in files] for split, files in layout.splits.items()}
    text = _require(folder, layout, layout.names).read_text(encoding="utf-8", errors="replace")
    classes = tuple(line.strip() for line in text.splitlines() if line.strip())

    def read(split: str) -> ImageSet:
        records = np.concatenate([_read(path, layout.num_labels) for path in paths[split]])
        labels = records[:, layout.num_labels - 1].astype(np.int64)
        check_labels(labels, len(classes), str(paths[split][0]))
        planes = records[:, layout.num_labels :].reshape(-1, 3, _SIDE, _SIDE)
        return ImageSet(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels, number_names(split, len(labels)))

    return Dataset(name, classes, ("train", "test"), read)


def _read(path: Path, num_labels: int) -> np.ndarray:
    """(N, labels and pixels) uint8."""
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % (num_labels + _PIXELS):
        raise DataError(
            f"{path} has {len(content):,} bytes, not a multiple of the {num_labels + _PIXELS:,} that an image takes; "
            "it is torn or of another kind, download it again"
        )
    return content.reshape(-1, num_labels + _PIXELS)


def _find(folder: Path, layout: _Layout, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / layout.folder / file) if path.is_file()), None)


def _require(folder: Path, layout: _Layout, file: str) -> Path:
    path = _find(folder, layout, file)
    if path is None:
        raise DataError(f"{folder} has no {file}, which belongs to its other files; unpack the whole archive there")
    return path
