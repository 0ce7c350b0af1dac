"""Data sets on the Hugging Face hub: which of a repository's files make a data set, and where they are here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from vitrail.data.images import IMAGE_SUFFIXES
from vitrail.data.tables import TABLE_SUFFIXES
from vitrail.errors import ConfigError, DataError, some, suggest
from vitrail.hub import fetch_dataset, fetch_dataset_card

PREFIX = "hf:"
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
_SPLIT_NAME = re.compile(rf"(?:^|[-_./])({'|'.join(_SPLITS)})(?=[-_./]|$)")


@dataclass(frozen=True)
class HubSource:
    """A repository on the hub, perhaps one version of it, perhaps one of its configurations."""

    repository: str
    config: str | None = None

    @property
    def name(self) -> str:
        """What its data set is called here."""
        name = self.repository.partition("@")[0].rpartition("/")[2]
        return name if self.config is None else f"{name}-{self.config}"


@dataclass(frozen=True)
class HubFiles:
    """A data set's files in the hub's cache: tables by split, or a folder of anything else."""

    folder: Path
    splits: Mapping[str, list[Path]]


def parse_source(text: str) -> HubSource:
    """`hf:owner/name[@revision][:config]`. Raises ConfigError for anything else."""
    found = re.fullmatch(r"hf:([\w.-]+/[\w.-]+(?:@[\w./-]+)?)(?::([\w.-]+))?", text)
    if found is None:
        raise ConfigError(f"{text!r} is no data set on the hub; write it as hf:owner/name or hf:owner/name:config")
    return HubSource(found[1], found[2])


def fetch_source(source: HubSource, *, offline: bool = False) -> HubFiles:
    """The files of a data set on the hub, downloaded unless the newest lie in the hub's cache.

    Which they are is said by the `configs` of its card, else by the layout: Parquet files named after splits, in a
    folder a configuration; else tables; else tar shards; else folders of images.
    Raises ConfigError for a repository or configuration that is not there, DataError for one without images, and
    CheckpointError if files cannot be had.
    """
    configs = _card_configs(fetch_dataset_card(source.repository, offline=offline))
    chosen: dict[str, list[str]] = {}

    def choose(files: Sequence[str]) -> Sequence[str]:
        chosen.clear()
        chosen.update(_by_card(source, configs, files) if configs else _by_layout(source, files))
        if chosen:
            return [file for names in chosen.values() for file in names]
        return _others(source, files)

    folder = fetch_dataset(source.repository, choose, offline=offline)
    order = [split for split in ("all", "train", "validation", "test") if split in chosen]
    return HubFiles(folder, {split: [folder / file for file in chosen[split]] for split in order})


def _card_configs(card: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Patterns of files by configuration and split, as the card's YAML has them; the default one first."""
    found: dict[str, dict[str, list[str]]] = {}
    listed = card.get("configs")
    entries: list[dict[str, Any]] = [entry for entry in listed or () if isinstance(entry, dict)]
    for entry in sorted(entries, key=_is_no_default):
        splits: dict[str, list[str]] = {}
        files = entry.get("data_files")
        for part in files if isinstance(files, list) else [files]:
            values = part if isinstance(part, dict) else {"split": "train", "path": part}
            patterns = values.get("path")
            texts = [patterns] if isinstance(patterns, str) else patterns if isinstance(patterns, list) else []
            splits.setdefault(str(values.get("split", "train")), []).extend(map(str, texts))
        if any(splits.values()):
            found[str(entry.get("config_name", "default"))] = splits
    return found


def _is_no_default(entry: Mapping[str, Any]) -> bool:
    return not entry.get("default", False)


def _by_card(
    source: HubSource, configs: Mapping[str, Mapping[str, list[str]]], files: Sequence[str]
) -> dict[str, list[str]]:
    name = source.config or ("default" if "default" in configs else next(iter(configs)))
    _check_config(source, name, list(configs), picks=source.config is None and len(configs) > 1)
    chosen: dict[str, list[str]] = {}
    for split, patterns in configs[name].items():
        matching = [file for file in sorted(files) if any(fnmatch(file, pattern) for pattern in patterns)]
        tables = [file for file in matching if PurePosixPath(file).suffix.lower() in TABLE_SUFFIXES]
        if tables and split.lower() in _SPLITS:
            chosen.setdefault(_SPLITS[split.lower()], []).extend(tables)
        elif tables and len(configs[name]) == 1:
            chosen["all"] = tables
    return chosen


def _by_layout(source: HubSource, files: Sequence[str]) -> dict[str, list[str]]:
    """Tables named after splits in one folder, Parquet first; of several folders, each is a configuration."""
    for suffixes in ((".parquet",), tuple(suffix for suffix in TABLE_SUFFIXES if suffix != ".parquet")):
        folders: dict[str, dict[str, list[str]]] = {}
        for file in sorted(files):
            path = PurePosixPath(file)
            split = _split_of(path.name)
            if path.suffix.lower() in suffixes and split is not None:
                folders.setdefault(str(path.parent), {}).setdefault(split, []).append(file)
        if not folders:
            continue
        names = [PurePosixPath(folder).name or "default" for folder in folders]
        usual = next((folder for folder in (".", "data") if folder in folders), None)
        if source.config is not None:
            _check_config(source, source.config, names)
            return folders[list(folders)[names.index(source.config)]]
        if usual is None and len(folders) > 1:
            raise ConfigError(
                f"{source.repository} has several configurations, {some(names, 8)}; "
                f"name one: hf:{source.repository}:{names[0]}"
            )
        return folders[usual if usual is not None else next(iter(folders))]
    return {}


def _split_of(name: str) -> str | None:
    found = _SPLIT_NAME.search(name.lower())
    return None if found is None else _SPLITS[found[1]]


def _check_config(source: HubSource, name: str, names: Sequence[str], picks: bool = False) -> None:
    if picks and "default" not in names:
        raise ConfigError(
            f"{source.repository} has several configurations, {some(list(names), 8)}; "
            f"name one: hf:{source.repository}:{names[0]}"
        )
    if name not in names:
        raise ConfigError(
            f"{source.repository} has no configuration {name!r}.{suggest(name, names)} It has {some(list(names), 8)}"
        )


def _others(source: HubSource, files: Sequence[str]) -> Sequence[str]:
    """Tables of another name, tar shards, or else images; those of a kind, with what says more of them."""
    if source.config is not None:
        files = [file for file in files if file.startswith(source.config + "/")]
    suffix = {file: PurePosixPath(file).suffix.lower() for file in files}
    for kind in (frozenset(TABLE_SUFFIXES), frozenset({".tar"}), IMAGE_SUFFIXES):
        found = [file for file in files if suffix[file] in kind]
        if found:
            beside = IMAGE_SUFFIXES if kind == frozenset(TABLE_SUFFIXES) else frozenset[str]()  # those it names
            return [file for file in files if suffix[file] in kind | beside or file.endswith("classes.txt")]
    raise DataError(
        f"{source.repository} holds no images that are known: no Parquet file, table, tar shard or image file"
        + ("" if source.config is None else f" in {source.config}/")
    )
