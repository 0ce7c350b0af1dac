"""Parquet files in the layout of the Hugging Face hub: a column of encoded images, a column of labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet, check_labels, number_names
from vitrail.data.images import read_image
from vitrail.errors import DataError

_SPLIT_FILE = re.compile(r"(train|test|validation|valid|val|dev)(?:[-_.].*)?\.parquet")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_VALIDATION = ("validation", "valid", "val", "dev")


def find_parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files of each split, shards in order, in `folder`, its `data/`, or its only subfolder that has any.

    Empty if there are none. Raises DataError if a shard is missing.
    """
    places = [folder, folder / "data"]
    others = sorted(path for path in folder.iterdir() if path.is_dir() and path != places[1])
    found = [splits for splits in map(_splits_in, places) if splits]
    if not found:
        found = [splits for splits in map(_splits_in, others) if splits]
        if len(found) > 1:
            return {}
    return found[0] if found else {}


def open_parquet(splits: dict[str, list[Path]], name: str, classes: tuple[str, ...] = ()) -> Dataset:
    """The data set of these files. Class names are those in the files' metadata, else `classes`, else the label values.

    Raises DataError if a file is no Parquet file or has no column of images or labels.
    """
    first = "train" if "train" in splits else next(iter(splits))
    image_column, label_column, named = _read_schema(splits[first][0])
    names: list[Any] = list(named or classes)
    if not names:
        labels = [label for path in splits[first] for label in _read_column(path, label_column).to_pylist()]
        names = sorted({label for label in labels if label is not None})
    classes = tuple(str(value) for value in names)
    # Labels are places in the list of names where it is given, and otherwise the values themselves.
    places = {value: place for place, value in enumerate(names)}

    def read(split: str) -> ImageSet:
        arrays: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for path in splits[split]:
            arrays += _decode(_read_column(path, image_column), path)
            labels.append(_read_labels(path, label_column, places))
        all_labels = np.concatenate(labels)
        return ImageSet(_stack(arrays, splits[split]), all_labels, number_names(split, len(all_labels)))

    return Dataset(name, classes, tuple(splits), read)


def _splits_in(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    splits: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for path in sorted(folder.iterdir()):
        match = _SPLIT_FILE.fullmatch(path.name)
        if match:
            splits["validation" if match[1] in _VALIDATION else match[1]].append(path)
    for paths in splits.values():
        _check_shards(paths)
    return {split: paths for split, paths in splits.items() if paths}


def _check_shards(paths: list[Path]) -> None:
    shards = [match for match in (_SHARD.search(path.name) for path in paths) if match]
    if not shards:
        return
    present = sorted(int(shard[1]) for shard in shards)
    total = int(shards[0][2])
    if present != list(range(total)):
        missing = sorted(set(range(total)) - set(present))
        wrong = f"shard {missing[0]} is missing" if missing else "a shard is there twice"
        raise DataError(f"{paths[0].parent}: {wrong} of the {total} that belong to {paths[0].name}")


def _read_schema(path: Path) -> tuple[str, str, list[str]]:
    """The names of the columns of images and of labels, and the class names if the metadata has them."""
    schema = _open(path).schema_arrow
    images = [field.name for field in schema if _is_image_type(field.type)]
    if not images:
        raise DataError(
            f"{path} has no column of images (struct<bytes, path>); its columns are {', '.join(schema.names)}"
        )
    labels = [name for name in ("label", "labels", "fine_label") if name in schema.names]
    if not labels:
        raise DataError(f"{path} has no column 'label'; its columns are {', '.join(schema.names)}")
    kind = schema.field(labels[0]).type
    if not _is_label_type(kind):
        raise DataError(f"{path}: the labels are of type {kind}; one whole number or text an image is needed")
    image = next((name for name in ("image", "img") if name in images), images[0])
    return image, labels[0], _class_names(schema.metadata or {}, labels[0])


def _is_image_type(kind: Any) -> bool:
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return False
    return any(field.name == "bytes" and field.type in (pa.binary(), pa.large_binary()) for field in kind)


def _is_label_type(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str]:
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read; download or write it again") from error


def _read_column(path: Path, column: str) -> Any:
    import pyarrow as pa

    file = _open(path)
    if column not in file.schema_arrow.names:
        raise DataError(f"{path} has no column {column!r}; its columns are {', '.join(file.schema_arrow.names)}")
    try:
        return file.read(columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged: its column {column!r} cannot be read; download or write it again"
        ) from error


def _read_labels(path: Path, column: str, places: dict[Any, int]) -> np.ndarray:
    import pyarrow as pa

    values = _read_column(path, column)
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(f"{path}: row {row} has no label; a data set to train or test with needs one for each image")
    if pa.types.is_integer(values.type) and not any(isinstance(key, int) for key in places):
        labels = values.to_numpy().astype(np.int64)
        check_labels(labels, len(places), str(path))
        return labels
    labels = [places.get(value, -1) for value in values.to_pylist()]
    if -1 in labels:
        row = labels.index(-1)
        raise DataError(f"{path}: the label of row {row} is {values[row].as_py()!r}, none of the {len(places)} classes")
    return np.array(labels, np.int64)


def _decode(column: Any, path: Path) -> list[np.ndarray]:
    """The images of a column as (H, W, C) arrays. One thread: more were not faster, small images take Python's time."""
    encoded = column.flatten()[column.type.get_field_index("bytes")].to_pylist()
    return [_decode_row(image, f"row {row} of {path}") for row, image in enumerate(encoded)]


def _decode_row(encoded: bytes | None, name: str) -> np.ndarray:
    if encoded is None:
        raise DataError(f"{name} has no image bytes; images are stored within the file, not beside it")
    pixels = np.asarray(read_image(encoded, name))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _stack(arrays: Sequence[np.ndarray], paths: Sequence[Path]) -> np.ndarray:
    """(N, H, W, C); grey images among RGB ones become RGB."""
    if not arrays:
        raise DataError(f"{paths[0]} holds no image")
    for array in arrays:
        if array.shape[:2] != arrays[0].shape[:2]:
            sizes = f"{arrays[0].shape[1]}x{arrays[0].shape[0]} and {array.shape[1]}x{array.shape[0]}"
            raise DataError(
                f"{paths[0]} holds images of different sizes, {sizes} among them; "
                "store them at one size, sets of mixed sizes cannot be read yet"
            )
    channels = max(array.shape[2] for array in arrays)
    stacked = np.empty((len(arrays), *arrays[0].shape[:2], channels), np.uint8)
    for index, array in enumerate(arrays):
        stacked[index] = array
    return stacked
