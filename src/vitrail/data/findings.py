"""What an audit finds wrong with a data set, one Finding for each thing to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vitrail.errors import some

Kind = Literal[
    "broken",
    "shared_between_splits",
    "exact_duplicate",
    "near_duplicate",
    "conflicting_labels",
    "suspicious_label",
    "class_imbalance",
    "size",
    "aspect_ratio",
    "mode",
    "exif_rotated",
    "empty",
    "dark",
    "bright",
    "blurred",
]

KINDS: tuple[Kind, ...] = get_args(Kind)  # most important first
NUM_NAMED = 3

# How many findings of one kind are told in one sentence: title, and what is counted where that is not the findings.
_TITLES: Mapping[tuple[Kind, bool], str] = {
    ("exact_duplicate", True): "Exact copies",
    ("near_duplicate", False): "Near copies",
    ("conflicting_labels", True): "Equal pixels under different labels",
    ("conflicting_labels", False): "Nearly equal pixels under different labels",
    ("suspicious_label", False): "Labels that may be wrong",
    ("size", False): "Odd sizes",
    ("aspect_ratio", False): "Odd aspect ratios",
    ("empty", False): "Nearly empty",
    ("dark", False): "Very dark",
    ("bright", False): "Very bright",
    ("blurred", False): "Blurred",
}


@dataclass(frozen=True)
class Finding:
    """One thing that a user should look at: a group of copies, images with the same fault, a file, a class.

    `split` is that of the images, or "train/test" for what is in both; `images` are their names, in the order of the
    files. `details` are what JSON can hold; those of copies have `classes`, the class of each image (or its classes),
    and `exact`. `sentence` says all of it, without a full stop.
    """

    kind: Kind
    split: str
    images: tuple[str, ...]
    sentence: str
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return {
            "kind": self.kind,
            "split": self.split,
            "images": list(self.images),
            "sentence": self.sentence,
            "details": dict(self.details),
        }

    @property
    def exact(self) -> bool:
        """Whether the images have equal pixels."""
        return bool(self.details.get("exact", False))


def sorted_findings(findings: Sequence[Finding], splits: Sequence[str]) -> list[Finding]:
    """First what is in two splits, then copies, then labels; those of a kind by split; else as they were."""
    pairs = [f"{first}/{second}" for place, first in enumerate(splits) for second in splits[place + 1 :]]
    return sorted(findings, key=lambda finding: (KINDS.index(finding.kind), [*splits, *pairs].index(finding.split)))


def summarise(findings: Iterable[Finding]) -> list[str]:
    """One sentence for all findings of a kind in a split where they may be many, else each finding's own."""
    grouped: dict[tuple[Kind, str, bool], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.kind, finding.split, finding.exact), []).append(finding)
    sentences: list[str] = []
    for (kind, split, exact), found in grouped.items():
        if kind == "shared_between_splits":
            sentences.append(_shared_sentence(split, found))
        elif (kind, exact) in _TITLES:
            number = len(found)
            if kind in ("exact_duplicate", "near_duplicate"):
                number = sum(len(finding.images) - 1 for finding in found)
            told = [_named(finding) for finding in found]
            sentences.append(f"{_TITLES[kind, exact]}{of_split(split)}: {number:,} ({some(told, NUM_NAMED)})")
        else:
            sentences += [finding.sentence for finding in found]
    return sentences


def _named(finding: Finding) -> str:
    if finding.kind in ("suspicious_label", "size", "aspect_ratio"):
        return finding.sentence
    return (" = " if finding.exact else " ~ ").join(finding.images[:NUM_NAMED])


def _shared_sentence(split: str, found: Sequence[Finding]) -> str:
    first, second = split.split("/")
    sign = "=" if found[0].exact else "~"
    named = some([f"{image} {sign} {copy}" for image, copy in map(shared_pair, found)], NUM_NAMED)
    nearly = "" if found[0].exact else ", nearly equal"
    return f"In {first} as well as in {second}{nearly}: {count_of(len(found), 'image')} ({named})"


def shared_pair(finding: Finding) -> tuple[str, str]:
    """The first image of the earlier split and the first of the later one, of a finding that is in two splits."""
    number = finding.details["num_first"]
    return finding.images[0], finding.images[number]


def of_split(split: str) -> str:
    """' of train', ' across train and test' for "train/test", or nothing where a set has no splits."""
    if "/" in split:
        return " across " + split.replace("/", " and ")
    return "" if split == "all" else f" of {split}"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """'1 image', '2,000 images'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
