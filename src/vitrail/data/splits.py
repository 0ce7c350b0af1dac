"""Which images train, which validate, which test: drawn by content, so that the order of the files does not matter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, ConfigError, DataError, some, suggest


@dataclass(frozen=True)
class Members:
    """Which images a split has, by what they are: a content hash, a label (in the splits' classes) and a name each."""

    hashes: tuple[str, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, images: ImageSet) -> Members:
        """The members that these images are."""
        return cls(images.hashes, tuple(images.labels.tolist()), images.names)


@dataclass(frozen=True, eq=False)
class Part:
    """One split: the published split it is taken from, and which images of it.

    They are `members` where images may be added later, else `indices`, sorted; all of them where both are None.
    """

    source: str
    indices: np.ndarray | None = None
    members: Members | None = None


@dataclass(frozen=True, eq=False)
class Splits:
    """Where the images of "train", "validation" and "test" come from, and how they were drawn.

    `rates` are those of the drawn splits; `fingerprint` is of the published split that training images come from.
    `classes` are what labels mean.
    """

    dataset: str
    classes: tuple[str, ...]
    seed: int
    rates: dict[str, float]
    fingerprint: str
    parts: dict[str, Part]

    def images(self, dataset: Dataset, split: str, preprocess: Preprocess | None = None) -> ImageSet:
        """The images of "train", "validation" or "test", at their own or a model's size.

        No file of another published split is opened. Images that were added since, renamed or put into another order
        change nothing where members are known. Raises ConfigError for another name, DataError if the images drawn from
        are not those of `dataset`, CheckpointError for images that it does not have.
        """
        if split not in self.parts:
            near = suggest(split, self.parts)
            raise ConfigError(f"No split named {split!r}.{near} The splits are {', '.join(self.parts)}")
        part = self.parts[split]
        images = dataset.read(part.source) if preprocess is None else dataset.prepared(part.source, preprocess)
        if part.members is not None:
            return find_members(images, part.members, self, dataset, split)
        if part.source == self.parts["train"].source and fingerprint(images) != self.fingerprint:
            raise DataError(
                f"{dataset.name} is not the data that the splits were drawn from; its images or labels changed"
            )
        if part.indices is None:
            return images
        if len(part.indices) and not 0 <= part.indices.min() <= part.indices.max() < len(images):
            raise CheckpointError(f"The splits name images that {dataset.name} does not have; splits.json is damaged")
        return images.take(part.indices)

    def hashes(self) -> frozenset[str] | None:
        """The content hashes of all images of all splits, or None where they are not known."""
        members = [part.members for part in self.parts.values()]
        if any(member is None for member in members):
            return None
        return frozenset(content for member in members if member is not None for content in member.hashes)

    def to_json(self) -> str:
        """The splits as JSON text."""
        parts: dict[str, dict[str, Any]] = {}
        for name, part in self.parts.items():
            parts[name] = {"source": part.source, "indices": None if part.indices is None else part.indices.tolist()}
            if part.members is not None:
                parts[name] |= {"members": asdict(part.members)}
        return json.dumps(
            {
                "dataset": self.dataset,
                "classes": self.classes,
                "seed": self.seed,
                "rates": self.rates,
                "fingerprint": self.fingerprint,
                "splits": parts,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Splits:
        """The splits that `to_json` wrote. Raises CheckpointError if `text` is something else."""
        try:
            content: dict[str, Any] = json.loads(text)
            parts = {
                name: Part(part["source"], _indices(part["indices"]), _members(part.get("members")))
                for name, part in content["splits"].items()
            }
            if "train" not in parts:
                raise KeyError("train")
            classes = tuple(content["classes"])
            return cls(content["dataset"], classes, content["seed"], content["rates"], content["fingerprint"], parts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError("The splits are not readable: the file is damaged or of another kind") from error


def find_members(images: ImageSet, members: Members, splits: Splits, dataset: Dataset, split: str) -> ImageSet:
    """The images that `members` are, in their order, whatever was added, renamed or sorted otherwise since.

    Labels are places in `splits.classes`. Raises DataError, with the count and the first names, for images that are
    gone or have another label.
    """
    places: dict[str, list[int]] = {}
    for index, content in enumerate(images.hashes):
        places.setdefault(content, []).append(index)
    own = {name: place for place, name in enumerate(splits.classes)}
    labels = [own.get(dataset.classes[label], -1) for label in images.labels.tolist()]
    chosen: list[int] = []
    gone: list[str] = []
    moved: list[str] = []
    for content, label, name in zip(members.hashes, members.labels, members.names, strict=True):
        found = places.get(content, [])
        if not found:
            gone.append(name)
            continue
        same = next((index for index in found if labels[index] == label), None)
        if same is None:
            now = dataset.classes[images.labels[found[0]]]
            moved.append(f"{name} is {now!r} now, was {splits.classes[label]!r}")
        else:
            chosen.append(same)
            if len(found) > 1:  # each copy stands for itself, the last one also for copies that were taken away
                found.remove(same)
    if gone or moved:
        changes = [(len(gone), "no longer there", some(gone)), (len(moved), "now of another class", some(moved))]
        told = " and ".join(f"{number:,} {what} ({names})" for number, what, names in changes if number)
        raise DataError(
            f"{dataset.name} changed: of the run's {len(members.names):,} {split} images {told}; put them back, "
            "start a new run, or evaluate all that this one was not trained on: vitrail evaluate RUN DATA"
        )
    taken = images.take(np.array(chosen, np.int64))
    return ImageSet(taken.pixels, np.array(members.labels, np.int64), taken.names, taken.originals)


def make_splits(
    dataset: Dataset, validation_rate: float, test_rate: float, seed: int, preprocess: Preprocess | None = None
) -> Splits:
    """The splits of `dataset`: those published stay as they are, those missing are drawn from "train".

    A set without published splits is drawn from as a whole. A rate is the fraction of the images that it is drawn from,
    and not looked at where that split is published. Only the split that training images come from is read, except of a
    set that grows: there, images that are also in a published validation or test split are taken out of training, and
    images also in test out of validation. With `preprocess` images are read at that size, as all that follows does.
    Raises ConfigError for rates that do not leave images to train on, DataError for classes with too few images.
    """
    source = dataset.training_source
    if source not in dataset.published:
        raise DataError(f"{dataset.name} has no images to train on, only {', '.join(dataset.published)}")

    def read(split: str) -> ImageSet:
        return dataset.read(split) if preprocess is None else dataset.prepared(split, preprocess)

    images = read(source)
    wanted = {"validation": validation_rate, "test": test_rate}
    if not dataset.draws_test and "test" not in dataset.published:
        del wanted["test"]
    rates = {name: rate for name, rate in wanted.items() if name not in dataset.published}
    parts = {name: Part(name) for name in ("train", *wanted)}
    published = {name: read(name) for name in reversed(wanted) if dataset.grows and name in dataset.published}
    taken: set[str] = set()
    for name, found in published.items():
        parts[name] = Part(name, members=Members.of(_without(found, taken)))
        taken |= {*found.hashes}
    left = _without(images, taken)
    if rates:
        draw = draw_stable_splits if dataset.grows else draw_splits
        drawn = draw(left.labels, left.hashes, rates, seed, dataset.classes)
    else:
        drawn = {"train": np.arange(len(left))} if dataset.grows else {}
    if dataset.grows:
        parts |= {name: Part(source, members=Members.of(left.take(indices))) for name, indices in drawn.items()}
        _check_training(dataset, left.labels[drawn["train"]])
    else:
        parts |= {name: Part(source, indices) for name, indices in drawn.items()}
    return Splits(dataset.name, dataset.classes, seed, rates, fingerprint(images), parts)


def _check_training(dataset: Dataset, labels: np.ndarray) -> None:
    missing = [dataset.classes[label] for label in sorted({*range(len(dataset.classes))} - {*labels.tolist()})]
    if missing:
        raise DataError(
            f"{dataset.name} has no image to train on for {len(missing)} of its {len(dataset.classes)} classes "
            f"({some(missing)}): there are none, or all are in a validation or test split as well"
        )


def _without(images: ImageSet, taken: set[str]) -> ImageSet:
    """The images that have no copy among those whose hashes are in `taken`."""
    kept = [index for index, content in enumerate(images.hashes) if content not in taken]
    return images if len(kept) == len(images) else images.take(np.array(kept, np.int64))


def read_splits(path: str | Path) -> Splits:
    """The splits of a splits.json. Raises CheckpointError naming the file if it is missing or damaged."""
    try:
        return Splits.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, CheckpointError) as error:
        raise CheckpointError(f"{path} holds no splits that can be read: it is missing or damaged") from error


def fingerprint(image_set: ImageSet) -> str:
    """One sha256, hexadecimal, over the shape, pixels and labels of a set at its own size, in their order."""
    digest = hashlib.sha256("".join(image_set.hashes).encode())
    digest.update(image_set.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def draw_stable_splits(
    labels: np.ndarray,
    hashes: Sequence[str],
    rates: Mapping[str, float],
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """As `draw_splits`, but each image's place depends on `seed` and its own content alone: added images move no other.

    So a class's shares are as the draw has it, not exact. Only where a class would have no image at all in a split is
    one lent to it, which may go back when the class has grown: no rule can promise both.
    Raises as `draw_splits` does.
    """
    _check_rates(rates)
    numbers = np.array([_uniform(seed, content) for content in hashes])
    edges = np.cumsum([0.0, *rates.values()])
    names = ["train", *rates]
    places = np.zeros(len(hashes), np.int64)
    for place in range(1, len(names)):
        places[(edges[place - 1] <= numbers) & (numbers < edges[place])] = place
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for members in by_class:
        _check_class_size(len({hashes[int(index)] for index in members}), int(labels[members[0]]), classes, names)
    for _ in range(len(by_class) + 1):  # a loan may take another class's copy of the image along, and is then made good
        lent = False
        for members in by_class:
            for place in range(len(names)):
                if not (places[members] == place).any():
                    _lend(places, members, place, hashes)
                    lent = True
        if not lent:
            break
    return {name: np.flatnonzero(places == place) for place, name in enumerate(names)}


def _uniform(seed: int, content: str) -> float:
    """A number in 0..1 that is a function of the two alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{content}".encode()).digest()[:8], "big") / 2**64


def _lend(places: np.ndarray, members: np.ndarray, place: int, hashes: Sequence[str]) -> None:
    """Move one image of a class, with its copies, from the split where the class has most different images."""
    counts = {
        other: len({hashes[int(index)] for index in members[places[members] == other]})
        for other in set(places[members].tolist())
    }
    largest = max(counts, key=lambda other: (counts[other], -other))
    content = min(hashes[int(index)] for index in members[places[members] == largest])
    places[[index for index, other in enumerate(hashes) if other == content]] = place


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
    _check_rates(rates)
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
        _check_class_size(len(ordered), label, classes, drawn)
        for split, group in _deal(ordered, rates):
            drawn[split] += group
    return {name: np.array(sorted(indices), np.int64) for name, indices in drawn.items()}


def _check_rates(rates: Mapping[str, float]) -> None:
    if any(not 0 < rate < 1 for rate in rates.values()) or sum(rates.values()) >= 1:
        given = ", ".join(f"{name}_rate={rate}" for name, rate in rates.items())
        raise ConfigError(f"{given} is not possible; rates lie between 0 and 1, and their sum below 1")


def _check_class_size(number: int, label: int, classes: Sequence[str] | None, splits: Collection[str]) -> None:
    if number < len(splits):
        name = classes[label] if classes else label
        raise DataError(
            f"Class {name!r} has {number} different image{'s' * (number != 1)}; "
            f"{len(splits)} are needed, one for each of {', '.join(splits)}"
        )


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


def _members(values: dict[str, list[Any]] | None) -> Members | None:
    return None if values is None else Members(*(tuple(values[key]) for key in ("hashes", "labels", "names")))


def _indices(values: list[int] | None) -> np.ndarray | None:
    return None if values is None else np.array(values, np.int64)
