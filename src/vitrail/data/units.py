"""What no split divides: images that are equal, nearly equal, or of one of the user's groups.

Splits are drawn of such units, and what a published test split has of a unit keeps the rest of it out of training.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from vitrail.data.dataset import ImageSet
from vitrail.data.drawing import GROUP
from vitrail.data.near_copies import near_copies

logger = logging.getLogger(__name__)


def units_of(name: str, images: Mapping[str, ImageSet], with_near: bool = True) -> dict[str, tuple[str, ...]]:
    """The name of each image's unit, for each split of a set; one unit may have images in several splits."""
    hashes = [content for found in images.values() for content in found.hashes]
    groups = None
    if any(found.groups is not None for found in images.values()):
        groups = [group for found in images.values() for group in found.groups or [""] * len(found)]
    near = near_copies(name, [*images.values()]) if with_near else None
    names = unit_names(hashes, groups, near)
    ends = np.cumsum([len(found) for found in images.values()]).tolist()
    return {split: names[end - len(found) : end] for (split, found), end in zip(images.items(), ends, strict=True)}


def say_near_copies(hashes: Sequence[str], units: Sequence[str]) -> None:
    """Tell in the log how many images share their unit with others that are neither equal nor of one of the groups."""
    contents: dict[str, set[str]] = {}
    for unit, content in zip(units, hashes, strict=True):
        contents.setdefault(unit, set()).add(content)
    near = sum(len(contents[unit]) > 1 and not unit.startswith(GROUP) for unit in units)
    if near:
        logger.info("%s", f"{near:,} images are nearly equal to others and stay in one split with them")


def unit_names(
    hashes: Sequence[str], groups: Sequence[str] | None = None, near: np.ndarray | None = None
) -> tuple[str, ...]:
    """The name of each image's unit, which no split divides: equal for images joined by content, group or likeness.

    They are joined over others, too: one that has the group of a second and the content of a third joins the three.
    `near` (N,) holds equal numbers for images that are nearly equal. A unit is called after the first, by alphabet, of
    its groups, else of its content hashes; so images that join two units, or come first in one, change its name.
    """
    if groups is None and near is None:
        return tuple(hashes)
    columns = [_numbered(hashes)]
    if groups is not None:  # an image without a group has none in common with others
        columns.append(_numbered([name or f"\0{index}" for index, name in enumerate(groups)]))
    if near is not None:
        columns.append(np.unique(near, return_inverse=True)[1])
    units = _joined(columns).tolist()
    names: dict[int, tuple[bool, str]] = {}
    for unit, content, group in zip(units, hashes, groups or [""] * len(hashes), strict=True):
        name = (not group, GROUP + group if group else content)
        names[unit] = min(names.get(unit, name), name)
    return tuple(names[unit][1] for unit in units)


def without_copies(images: Mapping[str, ImageSet], units: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """The indices of the images of each split that are to be used: none of a unit that a later split has images of.

    So test keeps all, validation what is not in test, and train what is in neither. What is left out is counted in the
    log, by what it has in common with which split.
    """
    order = [split for split in ("train", "validation", "test") if split in images]
    kept: dict[str, np.ndarray] = {}
    for place, split in enumerate(order):
        free = np.ones(len(images[split]), bool)
        for later in reversed(order[place + 1 :]):
            taken = {*units[later]}
            shared = np.array([unit in taken for unit in units[split]], bool) & free
            free &= ~shared
            if shared.any():
                said = _said(images[split], images[later], np.flatnonzero(shared).tolist())
                number = int(shared.sum())
                logger.info(
                    "%s", f"Left out of {split}: {number:,} image{'s' * (number != 1)} that {later} has, too ({said})"
                )
        kept[split] = np.flatnonzero(free)
    return kept


def _said(images: ImageSet, others: ImageSet, shared: Sequence[int]) -> str:
    """How many of the shared images are equal to others, of one of their groups, or nearly equal."""
    contents, groups = {*others.hashes}, {*(others.groups or ())} - {""}
    equal = sum(images.hashes[index] in contents for index in shared)
    grouped = sum(
        images.hashes[index] not in contents and images.groups is not None and images.groups[index] in groups
        for index in shared
    )
    counts = [(equal, "equal"), (grouped, "of its groups"), (len(shared) - equal - grouped, "nearly equal")]
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)


def _numbered(names: Sequence[str]) -> np.ndarray:
    """A number for each different name, from 0 on."""
    places: dict[str, int] = {}
    return np.array([places.setdefault(name, len(places)) for name in names], np.int64)


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The least index of all images that are joined to each image by equal numbers in any of the columns."""
    least = np.arange(len(columns[0]))
    while True:
        before = least
        for column in columns:
            first = np.full(int(column.max(initial=-1)) + 1, len(least))
            np.minimum.at(first, column, least)
            least = first[column]
        if np.array_equal(least, before):
            return least
