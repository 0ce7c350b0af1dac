"""An audit of a data set: what a user should know before training; the short one begins every training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vitrail.data.copies import exact_copies
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.findings import NUM_NAMED, Finding, Kind, count_of, of_split, shared_pair, sorted_findings, summarise
from vitrail.data.preprocess import Preprocess
from vitrail.errors import DataError, some

Groups = Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Audit:
    """What was found in a data set. Names are those of its images; every tuple is in the order of the files.

    `counts` are images by split and class, `num_images` those of each split; `broken` the files left out, with reasons,
    by split; `ignored` those passed over because they are no images. `findings` is all that is wrong, or may be, and
    `notes` say how it was looked for, where that is not the same for every set.
    """

    dataset: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    num_images: Mapping[str, int]
    broken: Mapping[str, tuple[tuple[str, str], ...]]
    ignored: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: Kind) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def with_findings(self, findings: Sequence[Finding], notes: Sequence[str] = ()) -> Audit:
        """The audit with more findings, at their place, and how they were looked for."""
        found = sorted_findings([*self.findings, *findings], [*self.counts])
        return replace(self, findings=tuple(found), notes=(*self.notes, *notes))

    @property
    def duplicates(self) -> Groups:
        """Groups of images of equal pixels within one split, by split."""
        return self._groups("exact_duplicate")

    @property
    def conflicts(self) -> Groups:
        """Those of the `duplicates` that stand in several classes."""
        return self._groups("conflicting_labels")

    @property
    def shared(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """Pairs of images of equal pixels in two splits, by the splits: "train/test"."""
        pairs: dict[str, tuple[tuple[str, str], ...]] = {}
        for finding in self.of_kind("shared_between_splits"):
            if finding.exact:
                pairs[finding.split] = (*pairs.get(finding.split, ()), shared_pair(finding))
        return pairs

    def _groups(self, kind: Kind) -> Groups:
        found = [finding for finding in self.of_kind(kind) if finding.exact]
        return {split: tuple(one.images for one in found if one.split == split) for split in self.counts}

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON has it."""
        counts = {split: dict(zip(self.classes, numbers, strict=True)) for split, numbers in self.counts.items()}
        broken = {
            split: [{"image": name, "reason": why} for name, why in files] for split, files in self.broken.items()
        }
        hashes = {finding.images[0]: finding.details["hash"] for finding in self.findings if finding.exact}
        shared = {
            pair: [{"image": image, "copy": copy, "hash": hashes[image]} for image, copy in images]
            for pair, images in self.shared.items()
        }

        def told(groups: Groups) -> dict[str, list[dict[str, Any]]]:
            return {
                split: [{"hash": hashes[group[0]], "images": list(group)} for group in found]
                for split, found in groups.items()
            }

        return {
            "dataset": self.dataset,
            "classes": list(self.classes),
            "counts": counts,
            "num_images": dict(self.num_images),
            "broken": broken,
            "ignored": list(self.ignored),
            "duplicates": told(self.duplicates),
            "conflicts": told(self.conflicts),
            "shared": shared,
            "statistics": dict(self.statistics),
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }

    def sentences(self) -> list[str]:
        """What a user should know before training, most important first; counts, then what is wrong."""
        found = [self._count_sentence()]
        found += [broken_sentence(split, files) for split, files in self.broken.items() if files]
        found += self._refusals()
        if self.ignored:
            found.append(f"Passed over, being no images in a class folder: {some(self.ignored)}")
        return found + summarise(finding for finding in self.findings if finding.kind != "broken")

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
            if len(files) > 0.01 * (self.num_images[split] + len(files)):
                refused.append(
                    f"Over 1 % broken{of_split(split)}: training stops, unless data.max_broken_rate is raised"
                )
        return refused

    def _count_sentence(self) -> str:
        splits = ", ".join(f"{number:,} {split}" for split, number in self.num_images.items() if split != "all")
        splits = splits or f"{self.num_images['all']:,}"
        numbers = next(iter(self.counts.values()))
        least, most = int(np.argmin(numbers)), int(np.argmax(numbers))
        within = f"{numbers[least]:,} {self.classes[least]} to {numbers[most]:,} {self.classes[most]}"
        if numbers[least] == numbers[most]:
            within = f"{numbers[least]:,} each"
        return f"{self.dataset}: {splits} images of {count_of(len(self.classes), 'class', 'classes')} ({within})"


def audit_dataset(dataset: Dataset, preprocess: Preprocess) -> Audit:
    """The short audit: counts, broken files, and images of equal pixels, of every split at a model's size.

    Raises as reading does.
    """
    images = read_all(dataset, preprocess)
    counts = {split: tuple(count_classes(found.labels, len(dataset.classes))) for split, found in images.items()}
    num_images = {split: len(found) for split, found in images.items()}
    broken = {split: dataset.broken.get(split, ()) for split in images}
    findings = [Finding("broken", split, (name,), reason) for split, files in broken.items() for name, reason in files]
    findings += exact_copies(images, dataset.classes)
    return Audit(dataset.name, dataset.classes, counts, num_images, broken, dataset.ignored, tuple(findings))


def read_all(dataset: Dataset, preprocess: Preprocess) -> dict[str, ImageSet]:
    """The images of all published splits, in the order all, train, validation, test."""
    order = [split for split in ("all", "train", "validation", "test") if split in dataset.published]
    return {split: dataset.prepared(split, preprocess) for split in order}


def count_classes(labels: np.ndarray, num_classes: int) -> list[int]:
    """Images of each class, of labels (N,) or of 0 and 1 (N, num_classes)."""
    return (labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)).tolist()


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
        f"{len(files):,} of the {total:,} images{of_split(split)} {joint} {dataset.name} cannot be read "
        f"({some([reason for _, reason in files], NUM_NAMED)}); mend or remove them{option}"
    )


def broken_sentence(split: str, files: Sequence[tuple[str, str]]) -> str:
    """How many files of a split were left out, the first of them and why."""
    reasons = some([reason for _, reason in files], NUM_NAMED)
    return f"Left out{of_split(split)}: {count_of(len(files), 'broken file')}: {reasons}"
