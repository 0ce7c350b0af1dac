"""Which images train, which validate, which test: drawn by content, so that the order of the files does not matter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet
from vitrail.errors import CheckpointError, ConfigError, DataError, suggest


@dataclass(frozen=True, eq=False)
class Part:
    """One split: the published split it is taken from, and which images of it, sorted; None for all of them."""

    source: str
    indices: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Splits:
    """Where the images of "train", "validation" and "test" come from, and how they were drawn.

    `rates` are those of the drawn splits; `fingerprint` is of the published split that training images come from.
    """

    dataset: str
    seed: int
    rates: dict[str, float]
    fingerprint: str
    parts: dict[str, Part]

    def images(self, dataset: Dataset, split: str) -> ImageSet:
        """The images of "train", "validation" or "test"; no file of another published split is opened.

        Raises ConfigError for another name, DataError if the images drawn from are not those of `dataset`,
        CheckpointError for images that it does not have.
        """
        if split not in self.parts:
            near = suggest(split, self.parts)
            raise ConfigError(f"No split named {split!r}.{near} The splits are {', '.join(self.parts)}")
        part = self.parts[split]
        images = dataset.read(part.source)
        if part.source == self.parts["train"].source and fingerprint(images) != self.fingerprint:
            raise DataError(
                f"{dataset.name} is not the data that the splits were drawn from; its images or labels changed"
            )
        if part.indices is None:
            return images
        if len(part.indices) and not 0 <= part.indices.min() <= part.indices.max() < len(images):
            raise CheckpointError(f"The splits name images that {dataset.name} does not have; splits.json is damaged")
        return images.take(part.indices)

    def to_json(self) -> str:
        """The splits as JSON text."""
        parts = {
            name: {"source": part.source, "indices": None if part.indices is None else part.indices.tolist()}
            for name, part in self.parts.items()
        }
        return json.dumps(
            {
                "dataset": self.dataset,
                "seed": self.seed,
                "rates": self.rates,
                "fingerprint": self.fingerprint,
                "splits": parts,
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Splits:
        """The splits that `to_json` wrote. Raises CheckpointError if `text` is something else."""
        try:
            content: dict[str, Any] = json.loads(text)
            parts = {name: Part(part["source"], _indices(part["indices"])) for name, part in content["splits"].items()}
            if "train" not in parts:
                raise KeyError("train")
            return cls(content["dataset"], content["seed"], content["rates"], content["fingerprint"], parts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError("The splits are not readable: the file is damaged or of another kind") from error


def make_splits(dataset: Dataset, validation_rate: float, test_rate: float, seed: int) -> Splits:
    """The splits of `dataset`: those published stay as they are, those missing are drawn from "train".

    A set without published splits is drawn from as a whole. A rate is the fraction of the images that it is drawn from,
    and not looked at where that split is published. Only the split that training images come from is read.
    Raises ConfigError for rates that do not leave images to train on, DataError for classes with too few images.
    """
    source = dataset.training_source
    if source not in dataset.published:
        raise DataError(f"{dataset.name} has no images to train on, only {', '.join(dataset.published)}")
    images = dataset.read(source)
    wanted = {"validation": validation_rate, "test": test_rate}
    rates = {name: rate for name, rate in wanted.items() if name not in dataset.published}
    parts = {name: Part(name, None) for name in ("train", *wanted)}
    if rates:
        drawn = draw_splits(images.labels, content_hashes(images.pixels), rates, seed, dataset.classes)
        parts |= {name: Part(source, indices) for name, indices in drawn.items()}
    return Splits(dataset.name, seed, rates, fingerprint(images), parts)


def read_splits(path: str | Path) -> Splits:
    """The splits of a splits.json. Raises CheckpointError naming the file if it is missing or damaged."""
    try:
        return Splits.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, CheckpointError) as error:
        raise CheckpointError(f"{path} holds no splits that can be read: it is missing or damaged") from error


def content_hashes(pixels: np.ndarray) -> list[str]:
    """One sha256 an image, hexadecimal, over its shape and pixels: equal for equal images only.

    `pixels` is uint8 (N, H, W, C).
    """
    shape = repr(tuple(pixels.shape[1:])).encode()
    return [hashlib.sha256(shape + image.tobytes()).hexdigest() for image in pixels]


def fingerprint(image_set: ImageSet) -> str:
    """One sha256, hexadecimal, over the shape, pixels and labels of a set, in their order."""
    digest = hashlib.sha256(repr(tuple(image_set.pixels.shape)).encode())
    digest.update(np.ascontiguousarray(image_set.pixels).data)
    digest.update(image_set.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def draw_splits(
    labels: np.ndarray,
    hashes: Sequence[str],
    rates: Mapping[str, float],
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Sorted int64 indices for each split in `rates` (fractions of the images) and for "train", which gets the rest.

    Drawn class by class, in an order that depends on `seed` and the images' content alone: shuffled or renamed files
    give the same splits. Images of equal content stay together, also across classes (as the lowest of their labels).
    Every class has at least one image in every split. `classes` are the names that errors use.
    Raises ConfigError for rates outside 0..1 or of a sum of 1 and more, DataError for a class with fewer different
    images than there are splits.
    """
    if any(not 0 < rate < 1 for rate in rates.values()) or sum(rates.values()) >= 1:
        given = ", ".join(f"{name}_rate={rate}" for name, rate in rates.items())
        raise ConfigError(f"{given} is not possible; rates lie between 0 and 1, and their sum below 1")
    groups: dict[str, list[int]] = {}
    for index, content in enumerate(hashes):
        groups.setdefault(content, []).append(index)
    by_class: dict[int, list[list[int]]] = {}
    for content in sorted(groups, key=lambda content: hashlib.sha256(f"{seed}:{content}".encode()).digest()):
        group = groups[content]
        by_class.setdefault(min(int(labels[index]) for index in group), []).append(group)
    drawn: dict[str, list[int]] = {"train": [], **{name: [] for name in rates}}
    for label in np.unique(labels).tolist():
        ordered = by_class.get(label, [])
        if len(ordered) <= len(rates):
            name = classes[label] if classes else label
            raise DataError(
                f"Class {name!r} has {len(ordered)} different image{'s' * (len(ordered) != 1)}; "
                f"{len(rates) + 1} are needed, one for each of {', '.join(drawn)}"
            )
        for split, group in _deal(ordered, rates):
            drawn[split] += group
    return {name: np.array(sorted(indices), np.int64) for name, indices in drawn.items()}


def _deal(groups: list[list[int]], rates: Mapping[str, float]) -> list[tuple[str, list[int]]]:
    """Each group of equal images with its split, one class; a group that would overfill a split is left to the next."""
    num_images = sum(map(len, groups))
    remaining, dealt = list(groups), []
    for done, (split, rate) in enumerate(rates.items()):
        room = max(1, int(rate * num_images + 0.5))
        spare = len(remaining) - (len(rates) - done)  # the later splits and train need a group each
        taken: list[list[int]] = []
        for group in remaining:
            if len(group) <= room and len(taken) < spare:
                taken.append(group)
                room -= len(group)
        taken = taken or [min(remaining, key=len)]
        chosen = {id(group) for group in taken}
        remaining = [group for group in remaining if id(group) not in chosen]
        dealt += [(split, group) for group in taken]
    return dealt + [("train", group) for group in remaining]


def _indices(values: list[int] | None) -> np.ndarray | None:
    return None if values is None else np.array(values, np.int64)
