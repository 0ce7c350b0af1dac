"""Sorting: images copied, or linked, into a folder for each class that was predicted, and one for "not sure".

The originals are never moved or changed, nothing in the folder is overwritten, and what lies there already with the
same name and content is not put there again. The result is a folder of class folders, as `vitrail train` reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrail.data.folders import SPLIT_FOLDERS
from vitrail.data.images import NOT_SURE_FOLDER
from vitrail.errors import CheckpointError, ConfigError
from vitrail.predictions import Prediction

LONGEST_FOLDER, LONGEST_FILE = 200, 240  # bytes of a name; file systems allow 255, and a number may follow

_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)  # on Windows
_UNSAFE = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f]')


@dataclass
class Sorted:
    """What `sort_images` did: images by how they came to lie in the folder, and by the class folder they lie in.

    `copied`, `hard_linked` and `soft_linked` were put there now, `present` were there already. `renamed` are the
    classes whose name no file system holds, with their folders.
    """

    folder: str
    copied: int = 0
    hard_linked: int = 0
    soft_linked: int = 0
    present: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON has them."""
        return dict(vars(self))


def class_folders(classes: Sequence[str]) -> dict[str, str]:
    """The folder of each class below the sorted one: "animals/cats" is two folders, one in the other.

    Names are made safe for every file system: forbidden characters become "_", those Windows reserves and those that
    would be hidden get a "_" in front, long ones are cut. No two are alike, capitals aside; none is that of "not sure",
    nor taken for a split. Where one class would lie within another, which a data set's folder cannot say, none is
    nested: "animals_cats".
    """
    parts = {name: _safe_parts(name) for name in classes}
    only_splits = all(folders[0].lower() in SPLIT_FOLDERS for folders in parts.values())
    for folders in parts.values():
        if folders[0].lower() in SPLIT_FOLDERS and (only_splits or len(folders) > 1):
            folders[0] = f"_{folders[0]}"
    nested = _apart({name: "/".join(folders) for name, folders in parts.items()})
    whole = {tuple(_folded(folder).split("/")) for folder in nested.values()}
    if any(folders[:end] in whole for folders in whole for end in range(1, len(folders))):
        return _apart({name: _shortened("_".join(folders)) for name, folders in parts.items()})
    return nested


def outside(paths: Iterable[Path], folder: Path) -> list[Path]:
    """The paths that do not lie below `folder`, whatever links lead there."""
    root = os.path.realpath(folder)
    parents: dict[Path, bool] = {}
    kept: list[Path] = []
    for path in paths:
        if path.parent not in parents:
            parents[path.parent] = Path(os.path.realpath(path.parent)).is_relative_to(root)
        if not parents[path.parent]:
            kept.append(path)
    return kept


def make_sorted_folder(folder: Path) -> None:
    """Make `folder` unless it is there. Raises ConfigError if it is a file, CheckpointError if it is not writable."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give --sort a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} could not be made: {error.strerror or error}; sort into another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CheckpointError(f"{folder} is not writable; change its permissions, or sort into another")


def sort_images(
    folder: Path,
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    *,
    link: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Sorted:
    """Put each image that could be read into its class's folder below `folder`, or into not_sure/.

    Files keep their name and modification time; a name that is taken gets -2, -3, ... With `link`, a hard link is made
    in place of a copy, where the disk is another one a symbolic link, and where there are no links a copy. `report`
    hears how many predictions of how many are dealt with.
    Raises CheckpointError when the disk refuses; what has been copied by then stays.
    """
    names = class_folders(classes)
    done = Sorted(str(folder), renamed={name: made for name, made in names.items() if name != made})
    shelves: dict[str, _Shelf] = {}
    for index, prediction in enumerate(predictions, start=1):
        if prediction.label is not None:
            name = names[prediction.label] if prediction.sure else NOT_SURE_FOLDER
            try:
                if name not in shelves:
                    shelves[name] = _Shelf(folder / name)
                how = shelves[name].put(Path(prediction.image), link)
            except OSError as error:
                num_sorted = sum(done.folders.values())
                raise CheckpointError(
                    f"{prediction.image} could not be put into {folder / name}: {error.strerror or error}; "
                    f"{num_sorted:,} images are sorted, and the same command goes on from there"
                ) from error
            setattr(done, how, getattr(done, how) + 1)
            done.folders[name] = done.folders.get(name, 0) + 1
        if report is not None:
            report(index, len(predictions))
    return done


class _Family:
    """The files of one folder that are called x.png, x-2.png, x-3.png, ...: each is read once, however many come."""

    def __init__(self) -> None:
        self.unread: dict[int, list[Path]] = {}  # by size
        self.contents: dict[int, set[bytes]] = {}  # by size
        self.next_number = 2

    def add(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # a link that leads nowhere has no content
            self.unread.setdefault(path.stat().st_size, []).append(path)

    def holds(self, path: Path) -> bool:
        size = path.stat().st_size
        contents = self.contents.setdefault(size, set())
        contents.update(_digest(other) for other in self.unread.pop(size, ()))
        return bool(contents) and _digest(path) in contents


class _Shelf:
    """One class folder and the names in it, compared as a file system would that knows no capitals."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.names: set[str] = set()
        self.families: dict[tuple[str, str], _Family] = {}
        for name in os.listdir(folder):
            self._add(name)

    def put(self, image: Path, link: bool) -> str:
        """Copy or link the image to here; the count of Sorted that it belongs to."""
        stem, suffix = _split_name(image)
        name = stem + suffix
        family = self._family(stem, suffix)
        if family.holds(image):
            return "present"
        while True:
            if _folded(name) not in self.names:
                try:
                    how = _link(image, self.folder / name) if link else None
                    how = how or _copy(image, self.folder / name)
                except FileExistsError:  # put there by another program just now
                    self._add(name)
                    continue
                self._add(name)
                return how
            name = f"{stem}-{family.next_number}{suffix}"
            family.next_number += 1

    def _add(self, name: str) -> None:
        """Know a file of that name: x-2.png is of the family of x.png and of its own."""
        self.names.add(_folded(name))
        stem, suffix = os.path.splitext(name)
        self._family(stem, suffix).add(self.folder / name)
        base, dash, number = stem.rpartition("-")
        if base and dash and number.isdecimal():
            self._family(base, suffix).add(self.folder / name)

    def _family(self, stem: str, suffix: str) -> _Family:
        return self.families.setdefault((_folded(stem), _folded(suffix)), _Family())


def _link(source: Path, target: Path) -> str | None:
    """Make a hard link, else a symbolic one; None where there is neither. FileExistsError if the name is taken."""
    original = os.path.realpath(source)
    for make, how in ((os.link, "hard_linked"), (os.symlink, "soft_linked")):
        try:
            make(original, target)
        except FileExistsError:
            raise
        except OSError:
            continue
        return how
    return None


def _copy(source: Path, target: Path) -> str:
    """Copy content and times; what fails half-way is taken away again. FileExistsError if the name is taken."""
    target.open("xb").close()
    try:
        shutil.copyfile(source, target)
        times = source.stat()
        with contextlib.suppress(OSError):  # a file system without times
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise
    return "copied"


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _safe_parts(name: str) -> list[str]:
    parts = [_safe(part) for part in name.split("/") if part] or ["_"]
    if _folded(parts[0]) == _folded(NOT_SURE_FOLDER):  # a class that is called so
        parts[0] += "-2"
    return parts


def _safe(part: str) -> str:
    """The name with what some file system cannot hold replaced; never hidden, as such folders are passed over."""
    text = _UNSAFE.sub("_", part.encode("utf-8", "replace").decode())
    text = _shortened(text).rstrip(". ")
    hidden = text.startswith(".") or not text
    return f"_{text.lstrip('.')}" if hidden else f"_{text}" if _RESERVED.fullmatch(text) else text


def _split_name(image: Path) -> tuple[str, str]:
    """Stem and suffix of the file's name, the stem cut where a number would not fit behind it any more."""
    stem, suffix = os.path.splitext(image.name)
    encoded = os.fsencode(stem)
    longest = LONGEST_FILE - len(os.fsencode(suffix))
    return (stem if len(encoded) <= longest else encoded[:longest].decode("utf-8", "ignore")), suffix


def _shortened(text: str) -> str:
    return text.encode()[:LONGEST_FOLDER].decode("utf-8", "ignore")


def _apart(folders: dict[str, str]) -> dict[str, str]:
    """The folders, with -2, -3, ... behind those that a class before has already."""
    taken: set[str] = set()
    apart: dict[str, str] = {}
    for name, folder in folders.items():
        unused, number = folder, 2
        while _folded(unused) in taken:
            unused, number = f"{folder}-{number}", number + 1
        taken.add(_folded(unused))
        apart[name] = unused
    return apart


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
