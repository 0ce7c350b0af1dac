"""Class folders: which files of a folder are images of which class and split.

A class is the topmost folder that holds images itself; what lies below it belongs to it. So `cats/a.jpg` and
`cats/2024/b.jpg` are both "cats", `animals/cats/a.jpg` is "animals/cats". A folder `train` beside nothing but `val` or
`validation` and `test` holds the class folders of that split.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitrail.data.images import IMAGE_SUFFIXES, NOT_SURE_FOLDER
from vitrail.errors import ConfigError, DataError, some

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

_RUN_FILES = {"config.json", "journal.jsonl"}

Parts = tuple[str, ...]  # a folder's path below the data set's folder


@dataclass(frozen=True)
class Listing:
    """The images of a folder by split ("all" where it has no split folders): (path below the folder, class) each.

    `ignored` are the paths of files that are no images, or lie in no class folder.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[str, str], ...]]
    ignored: tuple[str, ...]


def list_class_folders(
    root: Path, advice: str = "a data set's folder holds a folder of images for each class", grouped: bool = False
) -> Listing:
    """The images in the class folders below `root`, sorted by path, whatever the order of the disk.

    Where folders are `grouped`, those below a class's are groups of its images: the class is then the folder above the
    topmost that holds images, if there is one.
    Hidden files and folders, and what has no image's suffix, are passed over and named in `ignored`. Links are
    followed, except those that lead back to a folder they lie in. Raises ConfigError for an empty folder, DataError
    where there are no images (both with `advice`) or class folders, a folder cannot be read, or a class's name is not
    UTF-8.
    """
    images, ignored = _walk(root)
    if not images:
        kind = (
            "is empty"
            if not ignored
            else f"holds {len(ignored):,} file{'s' * (len(ignored) != 1)} but no image ({some(ignored)})"
        )
        raise (DataError if ignored else ConfigError)(f"{root} {kind}; {advice}")
    top = {folder[0] for folder in images if folder}
    has_splits = bool(top) and all(name.lower() in SPLIT_FOLDERS for name in top)
    if not has_splits:
        _check_unmixed(root, images)
    groups: dict[str, dict[Parts, list[str]]] = {}
    for folder, names in images.items():
        split = SPLIT_FOLDERS[folder[0].lower()] if has_splits and folder else "all"
        groups.setdefault(split, {})[folder] = names
    if has_splits:
        _move(groups.pop("all", {}), ignored)
    splits: dict[str, tuple[tuple[str, str], ...]] = {}
    for split in sorted(groups, key=("all", "train", "validation", "test").index):
        splits[split] = tuple(_classify(root, groups[split], int(has_splits), ignored, grouped))
    classes = tuple(sorted({label for listed in splits.values() for _, label in listed}))
    _check_classes(root, classes, splits)
    return Listing(classes, splits, tuple(sorted(ignored)))


def holds_class_folders(root: Path) -> bool:
    """Whether `root` looks like a data set: two folders of images, or a folder `train` of such."""
    try:
        folders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        return any(folder.name.lower() == "train" and holds_class_folders(folder) for folder in folders) or (
            sum(any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir()) for folder in folders) >= 2
        )
    except OSError:
        return False


def _check_unmixed(root: Path, images: Mapping[Parts, list[str]]) -> None:
    """Raise DataError where folders of splits and of classes stand side by side; a class may be called train."""
    inside = {folder[0] for folder in images if len(folder) > 1} - {folder[0] for folder in images if len(folder) == 1}
    splits = sorted(name for name in inside if name.lower() in SPLIT_FOLDERS)
    if any(SPLIT_FOLDERS[name.lower()] == "train" for name in splits):
        others = sorted({folder[0] for folder in images if folder} - {*splits})
        raise DataError(
            f"{root} holds the split folder{'s' * (len(splits) != 1)} {', '.join(splits)} and beside them images in "
            f"{some(others)}; a data set's folder holds split folders or class folders, not both"
        )


def _classify(
    root: Path, folders: Mapping[Parts, list[str]], depth: int, ignored: list[str], grouped: bool
) -> Iterator[tuple[str, str]]:
    """(path, class) of each image; those that lie beside the class folders are added to `ignored`."""
    inside = {folder: names for folder, names in folders.items() if len(folder) > depth}
    _move({folder: names for folder, names in folders.items() if folder not in inside}, ignored)
    if not inside:
        place = root.joinpath(*next(iter(folders))) if folders else root
        count = sum(map(len, folders.values()))
        raise DataError(
            f"{place} holds {count:,} image{'s' * (count != 1)} but no class folders; "
            "put the images of each class into a folder of its name"
        )
    for folder in sorted(inside):
        owner = next(folder[:end] for end in range(depth + 1, len(folder) + 1) if folder[:end] in inside)
        if grouped and len(owner) > depth + 1:
            owner = owner[:-1]
        for name in sorted(inside[folder]):
            yield "/".join((*folder, name)), "/".join(owner[depth:])


def _move(folders: Mapping[Parts, list[str]], ignored: list[str]) -> None:
    ignored += ["/".join((*folder, name)) for folder, names in folders.items() for name in names]


def _check_classes(root: Path, classes: tuple[str, ...], splits: Mapping[str, tuple[tuple[str, str], ...]]) -> None:
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"The class folder {name!r} in {root} has a name that is not UTF-8; rename it") from None
    if "train" not in splits:
        return
    known = {label for _, label in splits["train"]}
    for split, listed in splits.items():
        unknown = sorted({label for _, label in listed} - known)
        if unknown:
            raise DataError(
                f"{root}: {split} has {len(unknown)} class{'es' * (len(unknown) != 1)} that train has no image of: "
                f"{some(unknown)}; add training images, or take those folders away"
            )


def _walk(root: Path) -> tuple[dict[Parts, list[str]], list[str]]:
    """Names of images by folder, and paths of all other files. A folder counts again where another link leads to it."""
    images: dict[Parts, list[str]] = {}
    ignored: list[str] = []
    unreadable: list[tuple[str, str]] = []
    waiting: list[tuple[Parts, frozenset[tuple[int, int]]]] = [((), frozenset())]
    while waiting:
        folder, above = waiting.pop()
        place = os.path.join(root, *folder)
        try:
            status = os.stat(place)
            identity = (status.st_dev, status.st_ino)
            if identity in above:  # a link that leads back
                ignored.append("/".join(folder))
                continue
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            if folder and (not entries or {entry.name for entry in entries} >= _RUN_FILES):
                ignored.append("/".join(folder) + "/")  # an empty folder; a run, whose figures are no photographs
                continue
            for entry in entries:
                kind = _kind(entry)
                if kind == "folder":
                    waiting.append(((*folder, entry.name), above | {identity}))
                elif kind == "image":
                    images.setdefault(folder, []).append(entry.name)
                else:
                    ignored.append("/".join((*folder, entry.name)))
        except OSError as error:
            unreadable.append(("/".join(folder) or str(root), error.strerror or str(error)))
    if unreadable:
        names = some([name for name, _ in unreadable])
        raise DataError(
            f"{root}: {len(unreadable)} folder{'s' * (len(unreadable) != 1)} cannot be read ({names}: "
            f"{unreadable[0][1]}); make them readable, or take them away"
        )
    return images, ignored


def _kind(entry: os.DirEntry[str]) -> str:
    hidden = entry.name.startswith(".") or entry.name == NOT_SURE_FOLDER
    try:
        if entry.is_dir():
            return "hidden" if hidden else "folder"
    except OSError:  # a link to itself
        return "other"
    return "image" if not hidden and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES else "other"
