"""A short audit of a data set: counts by class, broken files, exact duplicates, duplicates between splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitrail.data.dataset import Dataset
from vitrail.data.preprocess import Preprocess
from vitrail.errors import DataError, some

NUM_NAMED = 3


@dataclass(frozen=True)
class Audit:
    """What was found in a data set. Names are those of its images; every tuple is in the order of the files.

    `counts` are images by split and class; `broken` the files left out, with reasons, by split. `duplicates` are groups
    of images of equal pixels within one split, `conflicts` those groups that stand in several classes, and `shared`
    pairs of split and name that are in a split and, with equal pixels, in a later one of train, validation, test.
    `hashes` are of the content of all images that have such copies, by name.
    """

    dataset: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    broken: Mapping[str, tuple[tuple[str, str], ...]]
    ignored: tuple[str, ...]
    duplicates: Mapping[str, tuple[tuple[str, ...], ...]]
    conflicts: Mapping[str, tuple[tuple[str, ...], ...]]
    shared: Mapping[str, tuple[tuple[str, str], ...]]
    hashes: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON has it."""
        counts = {split: dict(zip(self.classes, numbers, strict=True)) for split, numbers in self.counts.items()}
        broken = {
            split: [{"image": name, "reason": why} for name, why in files] for split, files in self.broken.items()
        }
        shared = {
            pair: [{"image": image, "copy": copy, "hash": self.hashes[image]} for image, copy in images]
            for pair, images in self.shared.items()
        }
        return {
            "dataset": self.dataset,
            "classes": list(self.classes),
            "counts": counts,
            "broken": broken,
            "ignored": list(self.ignored),
            "duplicates": self._groups(self.duplicates),
            "conflicts": self._groups(self.conflicts),
            "shared": shared,
        }

    def _groups(self, found: Mapping[str, tuple[tuple[str, ...], ...]]) -> dict[str, list[dict[str, Any]]]:
        return {
            split: [{"hash": self.hashes[group[0]], "images": list(group)} for group in groups]
            for split, groups in found.items()
        }

    def sentences(self) -> list[str]:
        """What a user should know before training, most important first; counts, then what is wrong."""
        found = [self._count_sentence()]
        found += [broken_sentence(split, files) for split, files in self.broken.items() if files]
        found += self._refusals()
        if self.ignored:
            found.append(f"Passed over, being no images in a class folder: {some(self.ignored)}")
        for pair, images in self.shared.items():
            first, second = pair.split("/")
            named = some([f"{image} = {copy}" for image, copy in images])
            found.append(f"In {first} as well as in {second}: {_count(len(images), 'image')} ({named})")
        for split, groups in self.duplicates.items():
            if groups:
                copies = sum(map(len, groups)) - len(groups)
                named = some([" = ".join(group[:NUM_NAMED]) for group in groups])
                found.append(f"Exact copies{_of(split)}: {copies:,} ({named})")
        for split, groups in self.conflicts.items():
            if groups:
                named = some([" = ".join(group[:NUM_NAMED]) for group in groups])
                found.append(f"Equal pixels under different labels{_of(split)}: {len(groups):,} ({named})")
        return found

    def _refusals(self) -> list[str]:
        """What keeps training from starting, as far as images and labels tell."""
        refused: list[str] = []
        if len(self.classes) < 2:
            refused.append("Training needs two classes or more")
        few = [
            f"{name} ({count})"
            for name, count in zip(self.classes, self.counts.get("all", ()), strict=False)
            if count < 3
        ]
        if few:
            refused.append(f"Training needs 3 images of a class or more, one for each split: {some(few)}")
        for split, files in self.broken.items():
            if len(files) > 0.01 * (sum(self.counts[split]) + len(files)):
                refused.append(f"Over 1 % broken{_of(split)}: training stops, unless data.max_broken_rate is raised")
        return refused

    def _count_sentence(self) -> str:
        splits = ", ".join(f"{sum(numbers):,} {split}" for split, numbers in self.counts.items() if split != "all")
        splits = splits or f"{sum(self.counts['all']):,}"
        numbers = next(iter(self.counts.values()))
        least, most = int(np.argmin(numbers)), int(np.argmax(numbers))
        within = f"{numbers[least]:,} {self.classes[least]} to {numbers[most]:,} {self.classes[most]}"
        if numbers[least] == numbers[most]:
            within = f"{numbers[least]:,} each"
        return f"{self.dataset}: {splits} images of {_count(len(self.classes), 'class', 'classes')} ({within})"


def audit_dataset(dataset: Dataset, preprocess: Preprocess) -> Audit:
    """Read every split of `dataset`, at a model's size, and look for what is wrong with it. Raises as reading does."""
    order = [split for split in ("all", "train", "validation", "test") if split in dataset.published]
    images = {split: dataset.prepared(split, preprocess) for split in order}
    counts = {
        split: tuple(np.bincount(found.labels, minlength=len(dataset.classes)).tolist())
        for split, found in images.items()
    }
    duplicates: dict[str, tuple[tuple[str, ...], ...]] = {}
    conflicts: dict[str, tuple[tuple[str, ...], ...]] = {}
    places: dict[str, dict[str, list[int]]] = {}
    for split, found in images.items():
        groups: dict[str, list[int]] = {}
        for index, content in enumerate(found.hashes):
            groups.setdefault(content, []).append(index)
        places[split] = groups
        copies = [group for group in groups.values() if len(group) > 1]
        named = {id(group): tuple(found.names[index] for index in group) for group in copies}
        duplicates[split] = tuple(named[id(group)] for group in copies)
        conflicts[split] = tuple(named[id(group)] for group in copies if len({*found.labels[group].tolist()}) > 1)
    shared: dict[str, tuple[tuple[str, str], ...]] = {}
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            both = [content for content in places[first] if content in places[second]]
            if both:
                shared[f"{first}/{second}"] = tuple(
                    (images[first].names[places[first][content][0]], images[second].names[places[second][content][0]])
                    for content in both
                )
    broken = {split: dataset.broken.get(split, ()) for split in order}
    copied = {name for groups in duplicates.values() for group in groups for name in group}
    copied |= {name for pairs in shared.values() for pair in pairs for name in pair}
    hashes = {
        name: content
        for found in images.values()
        for name, content in zip(found.names, found.hashes, strict=True)
        if name in copied
    }
    return Audit(dataset.name, dataset.classes, counts, broken, dataset.ignored, duplicates, conflicts, shared, hashes)


def check_broken(
    dataset: Dataset, split: str, num_readable: int, max_broken_rate: float, can_be_set: bool = True
) -> None:
    """Raise DataError if more than that part of a split that was read is broken, with the setting that allows it."""
    files = dataset.broken.get(split, ())
    total = num_readable + len(files)
    if len(files) <= max_broken_rate * total:
        return
    allowed = next((value for value in (0.02, 0.05, 0.1, 0.2, 0.5) if value * total >= len(files)), 0.99)
    joint = "of" if split == "all" else "in"
    option = f", or leave them out with --set data.max_broken_rate={allowed}" if can_be_set else ""
    raise DataError(
        f"{len(files):,} of the {total:,} images{_of(split)} {joint} {dataset.name} cannot be read "
        f"({some([reason for _, reason in files], NUM_NAMED)}); mend or remove them{option}"
    )


def broken_sentence(split: str, files: Sequence[tuple[str, str]]) -> str:
    """How many files of a split were left out, the first of them and why."""
    reasons = some([reason for _, reason in files], NUM_NAMED)
    return f"Left out{_of(split)}: {_count(len(files), 'broken file')}: {reasons}"


def _of(split: str) -> str:
    return "" if split == "all" else f" of {split}"


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
