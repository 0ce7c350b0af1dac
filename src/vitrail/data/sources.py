"""From what a user writes as DATA to a Dataset."""

from __future__ import annotations

import os
from pathlib import Path

from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.files import files_dataset
from vitrail.data.folders import list_class_folders
from vitrail.data.groups import check_group
from vitrail.data.idx import holds_idx, open_idx
from vitrail.data.joined import join_datasets
from vitrail.data.named import NAMED
from vitrail.data.parquet import find_parquet_splits, open_parquet
from vitrail.data.records import ReadOptions
from vitrail.errors import ConfigError, DataError, suggest

__all__ = ["Dataset", "ImageSet", "open_dataset"]

_ACCEPTED = (
    "a folder of images for each class, the four IDX files of MNIST, or Parquet files named train-*, validation-*, "
    "test-* as on the Hugging Face hub"
)


def open_dataset(*data: str | Path, options: ReadOptions | None = None) -> Dataset:
    """The data set that `data` name, several joined to one, read as `options` say.

    Each is a name in NAMED, a folder of class folders or of IDX or Parquet files, or one .parquet file.

    A name is looked for in the folder of that name in $VITRAIL_DATA; `digits` needs no files. A name wins over a folder
    of the same name in the current directory: `mnist` is the named set, `./mnist` the folder. A data set opened from a
    path is called after its folder or file. To learn the classes, training labels may be read; no test file is opened.
    Raises ConfigError for an unknown name, a missing path or an empty folder, DataError for files that cannot be used.
    """
    options = options or ReadOptions()
    check_group(options.group, options.group_column)
    opened = [_open(source, options) for source in data]
    for dataset in opened:
        if options.group not in (None, "column") and dataset.preparer is None:
            raise ConfigError(
                f"data.group={options.group} looks at image files, and {dataset.name} has none; leave it out"
            )
    return opened[0] if len(opened) == 1 else join_datasets(opened)


def has_columns(*data: str | Path) -> bool:
    """Whether the images of any of these are rows with columns that have names."""
    return any(_has_columns(source) for source in data)


def _has_columns(data: str | Path) -> bool:
    path = Path(os.environ.get("VITRAIL_DATA") or os.devnull, data) if data in NAMED else Path(data)
    if path.is_dir():
        return bool(find_parquet_splits(path))
    return path.suffix.lower() == ".parquet"


def _open(data: str | Path, options: ReadOptions) -> Dataset:
    if isinstance(data, str) and data in NAMED:
        return _open_named(data, options)
    path = Path(data)
    if str(data) and os.path.isdir(path):
        return _open_folder(path, path.resolve().name, options=options)
    if os.path.isfile(path):
        if path.suffix.lower() != ".parquet":
            raise DataError(f"{data} is not a .parquet file; a data set is one, or a folder with {_ACCEPTED}")
        return open_parquet({"all": [path]}, path.stem)
    if os.path.exists(data):
        raise DataError(f"{data} is neither a folder nor a .parquet file; a data set is one of these, or a name")
    if path.name != str(data) or path.suffix:
        raise ConfigError(
            f"{data} does not exist; a data set is one of {', '.join(NAMED)}, a folder or a .parquet file"
        )
    near = suggest(str(data).lower().replace("-", "_"), NAMED)
    raise ConfigError(f"No data set named {str(data)!r}.{near} Names are {', '.join(NAMED)}; a path works as well")


def _open_named(name: str, options: ReadOptions) -> Dataset:
    named = NAMED[name]
    if named.read is not None:
        read = named.read
        return Dataset(name, named.classes, ("all",), lambda _: read())
    root = os.environ.get("VITRAIL_DATA")
    local = f", or write ./{name} for the folder of that name here" if Path(name).is_dir() else ""
    if not root:
        raise ConfigError(
            f"{name} is looked for in $VITRAIL_DATA, which is not set; "
            f"set VITRAIL_DATA to the folder that holds {name}/{local}"
        )
    folder = Path(root, name)
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist; set VITRAIL_DATA to the folder that holds {name}/{local}")
    return _open_folder(folder, name, named.classes, options=options)


def _open_folder(folder: Path, name: str, classes: tuple[str, ...] = (), *, options: ReadOptions) -> Dataset:
    if holds_idx(folder):
        return open_idx(folder, name, classes)
    splits = find_parquet_splits(folder)
    if splits:
        return open_parquet(splits, name, classes)
    listing = list_class_folders(folder, f"a data set's folder holds {_ACCEPTED}", grouped=options.group == "folder")
    return files_dataset(folder, name, listing, options)
