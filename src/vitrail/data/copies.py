"""Findings about images that are equal, or nearly: within a split, across splits, under different labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitrail.data.dataset import ImageSet
from vitrail.data.findings import NUM_NAMED, Finding, Kind, sorted_findings
from vitrail.errors import some

Group = Sequence[tuple[str, int]]  # images that belong together: split and index within it


@dataclass(frozen=True)
class Members:
    """Images that are copies of one another, by split, and what they are."""

    images: Mapping[str, ImageSet]
    classes: Sequence[str]
    group: Group

    def of(self, *splits: str) -> list[tuple[str, int]]:
        """Those of the group in these splits, split by split, in the order of the files."""
        return [(split, index) for split in splits for own, index in self.group if own == split]

    def label(self, split: str, index: int) -> str | list[str]:
        """The class of an image; a list where images may have several."""
        label = self.images[split].labels[index]
        if label.ndim:
            return [str(self.classes[place]) for place in label.nonzero()[0].tolist()]
        return self.classes[int(label)]

    def finding(self, kind: Kind, split: str, places: Group, tell: Callable[[str], str], **details: Any) -> Finding:
        """A finding about the images at `places`, whose names, as far as they are told, `tell` makes a sentence of."""
        names = tuple(self.images[own].names[index] for own, index in places)
        labels = [self.label(own, index) for own, index in places]
        return Finding(kind, split, names, tell(some(names, NUM_NAMED)), {"classes": labels, **details})


def exact_copies(images: Mapping[str, ImageSet], classes: Sequence[str]) -> list[Finding]:
    """What is to say about images of equal pixels; splits in the order train, validation, test."""
    groups: dict[str, list[tuple[str, int]]] = {}
    for split, found in images.items():
        for index, content in enumerate(found.hashes):
            groups.setdefault(content, []).append((split, index))
    findings: list[Finding] = []
    for content, group in groups.items():
        if len(group) > 1:
            findings += copy_findings(Members(images, classes, group), exact=True, hash=content)
    return sorted_findings(findings, [*images])


def near_copies(images: Mapping[str, ImageSet], classes: Sequence[str], groups: Sequence[np.ndarray]) -> list[Finding]:
    """What is to say about images that are nearly equal, by groups of their indices among all, split after split.

    Of equal ones the first of each split stands for all: `exact_copies` tells of the others.
    """
    every = [(split, index) for split, found in images.items() for index in range(len(found))]
    findings: list[Finding] = []
    for group in groups:
        first: dict[tuple[str, str], tuple[str, int]] = {}
        for split, index in (every[place] for place in group.tolist()):
            first.setdefault((split, images[split].hashes[index]), (split, index))
        if len({content for _, content in first}) > 1:
            findings += copy_findings(Members(images, classes, [*first.values()]), exact=False)
    return sorted_findings(findings, [*images])


def copy_findings(members: Members, exact: bool, **details: Any) -> list[Finding]:
    """What is to say about one group of copies: within each split, for each two splits, and of their labels.

    Labels that differ are told for each split by itself, and across splits where those within agree.
    """
    details = {"exact": exact, **details}
    kind: Kind = "exact_duplicate" if exact else "near_duplicate"
    equal = "equal" if exact else "nearly equal"
    findings: list[Finding] = []
    splits = [split for split in members.images if members.of(split)]
    for split in splits:
        places = members.of(split)
        if len(places) < 2:
            continue
        findings.append(members.finding(kind, split, places, lambda names: f"{names} have {equal} pixels", **details))
        findings += _conflict(members, split, places, equal, details)
    for place, first in enumerate(splits):
        for second in splits[place + 1 :]:
            if not exact and len({members.images[own].hashes[index] for own, index in members.of(first, second)}) < 2:
                continue  # they are equal, and told of as such
            places, num_first = members.of(first, second), len(members.of(first))
            findings.append(
                members.finding(
                    "shared_between_splits",
                    f"{first}/{second}",
                    places,
                    lambda names, pair=(first, second): f"{names} have {equal} pixels, in {pair[0]} and in {pair[1]}",
                    num_first=num_first,
                    **details,
                )
            )
            if not any(_conflict(members, split, members.of(split), equal, details) for split in (first, second)):
                findings += _conflict(members, f"{first}/{second}", places, equal, details)
    return findings


def _conflict(members: Members, split: str, places: Group, equal: str, details: Mapping[str, Any]) -> list[Finding]:
    labels = list(dict.fromkeys(_written(members.label(*place)) for place in places))
    if len(labels) < 2:
        return []

    def tell(names: str) -> str:
        return f"{names} have {equal} pixels under different labels, {some(labels, NUM_NAMED)}"

    return [members.finding("conflicting_labels", split, places, tell, **details)]


def _written(label: str | list[str]) -> str:
    return label if isinstance(label, str) else " + ".join(label) or "none"
