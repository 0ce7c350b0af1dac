"""From what a user writes as DATA to a Dataset."""

from __future__ import annotations

import os
from pathlib import Path

from vitrail.data.cifar import holds_cifar, open_cifar
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.files import files_dataset
from vitrail.data.folders import list_class_folders
from vitrail.data.groups import check_group
from vitrail.data.hub_sets import PREFIX, HubSource, fetch_source, parse_source
from vitrail.data.idx import holds_idx, open_idx
from vitrail.data.joined import join_datasets
from vitrail.data.named import NAMED
from vitrail.data.parquet import find_parquet_splits
from vitrail.data.records import ReadOptions
from vitrail.data.shard_names import holds_shards, names_shards
from vitrail.data.shards import open_shards
from vitrail.data.tables import TABLE_SUFFIXES, find_table_splits, find_tables, is_table, open_tables
from vitrail.errors import CheckpointError, ConfigError, DataError, some, suggest

__all__ = ["Dataset", "ImageSet", "open_dataset"]

_ACCEPTED = (
    "a folder of images for each class, the four IDX files of MNIST, Parquet files named train-*, validation-*, "
    "test-* as on the Hugging Face hub, or tables train.csv, test.csv"
)


def open_dataset(*data: str | Path, options: ReadOptions | None = None) -> Dataset:
    """The data set that `data` name, several joined to one, read as `options` say.

    Each is a name in NAMED, a folder of class folders, of IDX files or of a table for each split, or a table.

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
    if str(data).startswith(PREFIX):
        return True  # there are few sets of another kind on the hub
    path = Path(os.environ.get("VITRAIL_DATA") or os.devnull, data) if data in NAMED else Path(data)
    if path.is_dir():
        names = [table.stem.lower() for table in find_tables(path)]
        return "metadata" in names or bool(find_table_splits(path) or find_parquet_splits(path)) or holds_shards(path)
    return is_table(path) or names_shards(data)


def _open(data: str | Path, options: ReadOptions) -> Dataset:
    if isinstance(data, str) and data in NAMED:
        return _open_named(data, options)
    if str(data).startswith(PREFIX):
        return _open_hub(parse_source(str(data)), options)
    path = Path(data)
    if names_shards(data) and not os.path.isdir(path):
        return open_shards(data, options)
    if str(data) and os.path.isdir(path):
        return _open_folder(path, path.resolve().name, options=options)
    if os.path.isfile(path):
        if is_table(path):
            return open_tables({"all": [path]}, path.stem, options=options)
        raise DataError(
            f"{data} is no table ({', '.join(TABLE_SUFFIXES)}); a data set is one, or a folder with {_ACCEPTED}"
        )
    if os.path.exists(data):
        raise DataError(f"{data} is neither a folder nor a file; a data set is one of these, or a name")
    if path.name != str(data) or path.suffix:
        raise ConfigError(f"{data} does not exist; a data set is one of {', '.join(NAMED)}, a folder or a table")
    near = suggest(str(data).lower().replace("-", "_"), NAMED)
    raise ConfigError(f"No data set named {str(data)!r}.{near} Names are {', '.join(NAMED)}; a path works as well")


def _open_named(name: str, options: ReadOptions) -> Dataset:
    named = NAMED[name]
    if named.read is not None:
        read = named.read
        return Dataset(name, named.classes, ("all",), lambda _: read())
    root = os.environ.get("VITRAIL_DATA")
    if root and Path(root, name).is_dir():
        return _open_folder(Path(root, name), name, named.classes, options=options)
    assert named.repository is not None
    try:
        return _open_hub(HubSource(named.repository), options, name, named.classes)
    except CheckpointError as error:
        missing = f"{Path(root, name)} does not exist" if root else "$VITRAIL_DATA is not set"
        local = f", or write ./{name} for the folder of that name here" if Path(name).is_dir() else ""
        raise ConfigError(
            f"{missing}, and {name} could not be fetched ({str(error).partition(';')[0]}); "
            f"set VITRAIL_DATA to the folder that holds {name}/{local}"
        ) from None


def _open_hub(source: HubSource, options: ReadOptions, name: str = "", classes: tuple[str, ...] = ()) -> Dataset:
    files = fetch_source(source, offline=options.offline)
    name = name or source.name
    if files.splits:
        return open_tables(files.splits, name, classes, options, grows=False)
    return _open_folder(files.folder, name, classes, options=options)


def _open_folder(folder: Path, name: str, classes: tuple[str, ...] = (), *, options: ReadOptions) -> Dataset:
    if holds_idx(folder):
        return open_idx(folder, name, classes)
    if holds_cifar(folder):
        return open_cifar(folder, name)
    splits = find_parquet_splits(folder) or find_table_splits(folder)
    if splits:
        return open_tables(splits, name, classes, options, grows=name not in NAMED)
    if holds_shards(folder):
        return open_shards(folder, options, name, classes)
    return _open_class_folders(folder, name, classes, options)


def _open_class_folders(folder: Path, name: str, classes: tuple[str, ...], options: ReadOptions) -> Dataset:
    """Class folders; where there are none, the table `metadata` beside the images, as the hub has it."""
    tables = find_tables(folder)
    try:
        listing = list_class_folders(
            folder, f"a data set's folder holds {_ACCEPTED}", grouped=options.group == "folder"
        )
    except DataError:
        if not tables:
            raise
        listing = None
    if listing is not None and (len(listing.classes) > 1 or not tables):
        return files_dataset(folder, name, listing, options)
    metadata = [table for table in tables if table.stem.lower() == "metadata"]
    if len(metadata) == 1:
        return open_tables({"all": metadata}, name, classes, options)
    raise DataError(
        f"{folder} holds no class folders, and beside its images {some([table.name for table in tables])}; "
        f"name the table that lists them, such as {tables[0]}"
    )
