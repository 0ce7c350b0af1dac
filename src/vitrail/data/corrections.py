"""Corrections: what a user knows better than the data, in one CSV; the images stay as they are.

Three columns, in this order or named in a first line: what, action, label. `what` is an image (its path, as far as it
is needed to tell it from others, or the first eight or more digits of its content's hash) or a class.

    train/shirt/a.jpg,drop,
    9f86d081884c7d65,relabel,pants
    tshirt,rename,t-shirt
    longsleeve,merge,shirt
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.errors import ConfigError, DataError, some, suggest

IMAGE_ACTIONS = ("drop", "relabel")
CLASS_ACTIONS = ("rename", "merge")
COLUMNS = ("what", "action", "label")


@dataclass(frozen=True)
class Correction:
    """One line of the file."""

    line: int
    what: str
    action: str
    label: str


@dataclass(frozen=True)
class Corrections:
    """A file of corrections; `text` is what it holds."""

    text: str
    lines: tuple[Correction, ...]

    def summary(self) -> str:
        """How many corrections of each kind there are: "4 corrections: 1 drop, 2 relabel, 1 merge"."""
        kinds = [
            (action, sum(line.action == action for line in self.lines)) for action in (*IMAGE_ACTIONS, *CLASS_ACTIONS)
        ]
        counts = ", ".join(f"{count:,} {action}" for action, count in kinds if count)
        return f"{len(self.lines):,} correction{'s' * (len(self.lines) != 1)}: {counts}"

    @property
    def digest(self) -> str:
        """A hash of what is corrected, whatever the file is called."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def read_corrections(path: str | Path) -> Corrections:
    """The corrections of a CSV file. Raises ConfigError, with the line, for what cannot be understood."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} cannot be read: {reason}; --corrections takes a CSV file") from None
    lines: list[Correction] = []
    reader = csv.reader(io.StringIO(text, newline=""))
    for row in _rows(reader, path):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if tuple(cell.lower() for cell in cells[:2]) == COLUMNS[:2] and not lines:
            continue
        lines.append(_correction(cells, f"{path}, line {reader.line_num}", reader.line_num))
    if not lines:
        raise ConfigError(f"{path} holds no corrections; a line is such as: train/shirt/a.jpg,relabel,pants")
    return Corrections(text, tuple(lines))


def _rows(reader: Iterable[list[str]], path: str | Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ConfigError(f"{path} is not a CSV file that can be read ({error}); is a quote left open?") from None


def _correction(cells: Sequence[str], where: str, number: int) -> Correction:
    what, action, label = (*cells, "", "")[:3]
    if len(cells) == 1 and ";" in what:
        raise ConfigError(f"{where}: columns are separated by commas, not semicolons, as in {what.replace(';', ',')}")
    actions = (*IMAGE_ACTIONS, *CLASS_ACTIONS)
    if action not in actions:
        raise ConfigError(
            f"{where}: {action!r} is no action.{suggest(action, actions)} Use one of {', '.join(actions)}"
        )
    if not what or (action != "drop" and not label):
        raise ConfigError(
            f"{where}: {action} needs {'something to act on' if not what else 'a label in the third column'}"
        )
    return Correction(number, what, action, label)


def corrected(dataset: Dataset, corrections: Corrections) -> Dataset:
    """The data set with the corrections applied: first to classes, then to images, whose labels are the new names.

    Images named in a correction may be of any split; those of a split are looked for when it is read, and what names
    no image of any split is refused by `check_corrections`. Raises ConfigError for classes that do not exist, for
    corrections that contradict each other, and for images that may have several labels.
    """
    if dataset.multilabel:
        raise ConfigError(
            f"Corrections give an image one label, and those of {dataset.name} may have several; "
            "correct the data set itself"
        )
    renamed = _new_names(dataset, corrections)
    classes = _new_classes(dataset, renamed)
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([places[renamed.get(name, name)] for name in dataset.classes], np.int64)
    actions = _image_actions(corrections)
    for correction in actions.values():
        if correction.action == "relabel" and correction.label not in places:
            near = suggest(correction.label, classes)
            raise ConfigError(
                f"Line {correction.line} of the corrections: no class is called {correction.label!r}.{near} "
                f"The classes are {some(classes, 20)}"
            )

    def apply(images: ImageSet, split: str) -> ImageSet:
        before = labels[images.labels]
        after, done = before.copy(), dict[int, Correction]()
        for what, found in find_images(images, [*actions]).items():
            correction = actions[what]
            for index in found:
                first = done.setdefault(index, correction)
                if (first.action, first.label) != (correction.action, correction.label):
                    raise _contradiction(first, correction, images.names[index])
                after[index] = -1 if correction.action == "drop" else places[correction.label]
        if split == dataset.training_source:
            _check_not_emptied(dataset.name, before, after, classes)
        elif (after < 0).all():
            raise DataError(f"The corrections leave no image in {split} of {dataset.name}; leave some of its lines out")
        relabelled = replace(images, labels=after, originals=images.hashes)
        return relabelled.take(np.flatnonzero(after >= 0)) if (after < 0).any() else relabelled

    broken: dict[str, tuple[tuple[str, str], ...]] = {}
    dropped = [what for what, correction in actions.items() if correction.action == "drop"]

    def prepared(split: str, preprocess: Preprocess | None) -> ImageSet:
        images = dataset.read(split) if preprocess is None else dataset.prepared(split, preprocess)
        found = dataset.broken.get(split, ())  # of these, what was dropped is no longer missed
        broken[split] = tuple((name, why) for name, why in found if not any(_names(what, name) for what in dropped))
        return apply(images, split)

    def read(split: str) -> ImageSet:
        return prepared(split, None)

    kept = replace(dataset, classes=classes, reader=read, preparer=prepared, broken=broken)
    return replace(kept, measure=lambda: dataset.shape)


def _names(what: str, broken: str) -> bool:
    """Whether a correction names a file that cannot be read, by its path or the end of it."""
    path = what.replace("\\", "/").removeprefix("./")
    return broken == path or broken.endswith("/" + path) or path.endswith("/" + broken)


def check_corrections(dataset: Dataset, corrections: Corrections, preprocess: Preprocess) -> None:
    """Raise ConfigError, with the count and the first ones, for lines that name no image of `dataset`.

    The data set is that before `corrected`, which takes images away.
    """
    wanted = [*_image_actions(corrections)]
    unknown, named = {*wanted}, dict[str, set[str]]()
    for split in dataset.published:
        images = dataset.prepared(split, preprocess)
        for what, places in find_images(images, wanted).items():
            named.setdefault(what, set()).update(images.names[place] for place in places)
            unknown.discard(what)
        broken = [name for name, _ in dataset.broken.get(split, ())]  # may be dropped, too
        unknown -= {what for what in unknown if any(_names(what, name) for name in broken)}
    for what, names in named.items():
        if len(names) > 1 and any(name.endswith("/" + what.replace("\\", "/")) for name in names):
            raise ConfigError(
                f"{what!r} is the end of {len(names)} images' paths ({some(sorted(names))}); write more of the path"
            )
    if unknown:
        listed = [f"{line.what!r} in line {line.line}" for line in corrections.lines if line.what in unknown]
        raise ConfigError(
            f"{len(listed):,} correction{'s name' if len(listed) != 1 else ' names'} no image of {dataset.name}: "
            f"{some(listed)}; use paths below its folder, or hashes as `vitrail audit --json` gives them"
        )


def find_images(images: ImageSet, wanted: Sequence[str]) -> dict[str, list[int]]:
    """For each of `wanted` that names images, by path or hash, which they are. A path may begin above the folder.

    Raises ConfigError for the end of a path or the beginning of a hash that several different images share.
    """
    by_name = {name: index for index, name in enumerate(images.names)}
    by_end: dict[str, list[str]] = {}
    for name in images.names:
        by_end.setdefault(name.rpartition("/")[2], []).append(name)
    by_hash: dict[str, list[int]] = {}
    for index, content in enumerate(images.hashes):
        by_hash.setdefault(content, []).append(index)
    ordered = sorted(by_hash)
    found: dict[str, list[int]] = {}
    for what in wanted:
        places = _by_path(what, by_name)
        if places is None and re.fullmatch(r"[0-9a-f]{8,64}", what):
            first = bisect_left(ordered, what)
            contents = list(takewhile(lambda content: content.startswith(what), ordered[first : first + 99]))  # noqa: B023
            if len(contents) > 1:
                raise ConfigError(f"{what!r} is the beginning of {len(contents)} images' hashes; give more digits")
            places = by_hash[contents[0]] if contents else None
        if places is None:
            places = _by_end(what, by_end, by_name)
        if places is not None:
            found[what] = places
    return found


def _by_path(what: str, by_name: Mapping[str, int]) -> list[int] | None:
    """The image whose name is the longest end of the path, in whole parts."""
    parts = [part for part in what.replace("\\", "/").split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        index = by_name.get("/".join(parts[start:]))
        if index is not None:
            return [index]
    return None


def _by_end(what: str, by_end: Mapping[str, list[str]], by_name: Mapping[str, int]) -> list[int] | None:
    """The image whose name ends with the path. Raises ConfigError if there are several."""
    end = what.replace("\\", "/").removeprefix("./")
    names = [name for name in by_end.get(end.rpartition("/")[2], []) if name.endswith("/" + end)]
    if len(names) > 1:
        raise ConfigError(f"{what!r} is the end of {len(names)} images' paths ({some(names)}); write more of the path")
    return [by_name[names[0]]] if names else None


def _image_actions(corrections: Corrections) -> dict[str, Correction]:
    actions: dict[str, Correction] = {}
    for correction in corrections.lines:
        if correction.action not in IMAGE_ACTIONS:
            continue
        before = actions.setdefault(correction.what, correction)
        if (before.action, before.label) != (correction.action, correction.label):
            raise _contradiction(before, correction, correction.what)
    return actions


def _contradiction(first: Correction, second: Correction, what: str) -> ConfigError:
    said = [f"{line.action} {line.label}".rstrip() for line in (first, second)]
    return ConfigError(
        f"Lines {first.line} and {second.line} of the corrections contradict each other: {said[0]} and {said[1]} for "
        f"{what!r}; leave one of them out"
    )


def _new_names(dataset: Dataset, corrections: Corrections) -> dict[str, str]:
    """Old class name -> new one, of those renamed or merged into another."""
    before: dict[str, Correction] = {}
    for correction in corrections.lines:
        if correction.action not in CLASS_ACTIONS:
            continue
        if correction.what not in dataset.classes:
            near = suggest(correction.what, dataset.classes)
            raise ConfigError(
                f"Line {correction.line} of the corrections: {dataset.name} has no class {correction.what!r}.{near} "
                f"Its classes are {some(dataset.classes, 20)}"
            )
        first = before.setdefault(correction.what, correction)
        if (first.action, first.label) != (correction.action, correction.label):
            raise _contradiction(first, correction, correction.what)
    kept = {*dataset.classes} - {*before}
    for correction in before.values():
        targets = kept | {line.label for line in before.values() if line.action == "rename"}
        if correction.action == "rename" and correction.label in kept:
            raise ConfigError(
                f"Line {correction.line} of the corrections: there is a class {correction.label!r} already; "
                f"to make {correction.what!r} part of it, write merge"
            )
        if correction.action == "merge" and correction.label not in targets:
            near = suggest(correction.label, targets)
            raise ConfigError(
                f"Line {correction.line} of the corrections: no class {correction.label!r} to merge into.{near}"
            )
    return {name: correction.label for name, correction in before.items()}


def _new_classes(dataset: Dataset, renamed: Mapping[str, str]) -> tuple[str, ...]:
    classes = tuple(dict.fromkeys(renamed.get(name, name) for name in dataset.classes))
    if len(classes) < 2:
        raise ConfigError(f"The corrections leave one class, {', '.join(classes)}; a classifier needs two or more")
    return tuple(sorted(classes)) if tuple(sorted(dataset.classes)) == dataset.classes else classes


def _check_not_emptied(name: str, before: np.ndarray, after: np.ndarray, classes: tuple[str, ...]) -> None:
    emptied = [classes[label] for label in sorted({*before.tolist()} - {*after.tolist()})]
    if emptied:
        raise DataError(
            f"The corrections leave no training image of {some(emptied)} in {name}; "
            "leave some of their lines out, or merge the class into another"
        )
