"""Which images train, which validate, which test: drawn by content, so that the order of the files does not matter."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.drawing import draw_folds, draw_splits, draw_stable_splits, parse_fold
from vitrail.data.preprocess import Preprocess
from vitrail.data.units import say_near_copies, units_of, without_copies
from vitrail.errors import CheckpointError, ConfigError, DataError, some, suggest

logger = logging.getLogger(__name__)

Label = int | tuple[int, ...]  # the class of an image, or its classes where it may have several


@dataclass(frozen=True)
class Members:
    """Which images a split has, by what they are: a content hash, a label (in the splits' classes) and a name each."""

    hashes: tuple[str, ...]
    labels: tuple[Label, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, images: ImageSet, indices: np.ndarray) -> Members:
        """The members that these of the images are."""
        chosen, labels = indices.tolist(), _label_list(images.labels[indices])
        return cls(tuple(images.hashes[index] for index in chosen), labels, tuple(images.names[i] for i in chosen))


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

    `rates` are those of the drawn splits, or `fold` says which of how many they are; `fingerprint` is of the published
    split that training images come from. `classes` are what labels mean.
    """

    dataset: str
    classes: tuple[str, ...]
    seed: int
    rates: dict[str, float]
    fingerprint: str
    parts: dict[str, Part]
    fold: str | None = None

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
                "fold": self.fold,
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
            seed, rates, fold = content["seed"], content["rates"], content.get("fold")
            return cls(content["dataset"], classes, seed, rates, content["fingerprint"], parts, fold)
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
    known = [own.get(name, -1) for name in dataset.classes]
    labels = [_translated(label, known) for label in _label_list(images.labels)]
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
            now = _label_list(images.labels[found[:1]])[0]
            moved.append(f"{name} is {_named(now, dataset.classes)!r} now, was {_named(label, splits.classes)!r}")
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
    return replace(taken, labels=_label_array(members.labels, len(splits.classes), images.labels.ndim))


def _label_list(labels: np.ndarray) -> tuple[Label, ...]:
    """Labels as they are written: a class each, or the classes of each."""
    if labels.ndim == 1:
        return tuple(labels.tolist())
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in labels)


def _label_array(labels: Sequence[Label], num_classes: int, ndim: int) -> np.ndarray:
    if ndim == 1:
        return np.array(labels, np.int64)
    array = np.zeros((len(labels), num_classes), np.int64)
    for row, label in enumerate(labels):
        array[row, label] = 1
    return array


def _translated(label: Label, places: Sequence[int]) -> Label:
    return places[label] if isinstance(label, int) else tuple(sorted(places[one] for one in label))


def _named(label: Label, classes: Sequence[str]) -> str:
    return classes[label] if isinstance(label, int) else " + ".join(classes[one] for one in label) or "none"


def make_splits(
    dataset: Dataset,
    validation_rate: float,
    test_rate: float,
    seed: int,
    preprocess: Preprocess | None = None,
    fold: str | None = None,
) -> Splits:
    """The splits of `dataset`: those published stay as they are, those missing are drawn from "train".

    A set without published splits is drawn from as a whole. A rate is the fraction of the images that it is drawn from,
    and not looked at where that split is published. With a `fold`, such as "2/5", that one of so many equal parts is
    the test and the next one validation; where test is published, that one is validation. What is drawn divides no
    unit, and training images whose unit has images in a published validation or test split are left out, as are those
    of validation that are in test. With `preprocess` images are read at that size, as all that follows does.
    Raises ConfigError for rates or folds that do not leave images to train on, DataError for classes with too few
    images, or too few groups of them.
    """
    source = dataset.training_source
    if source not in dataset.published:
        raise DataError(f"{dataset.name} has no images to train on, only {', '.join(dataset.published)}")
    wanted = {"validation": validation_rate, "test": test_rate}
    if not dataset.draws_test and "test" not in dataset.published:
        del wanted["test"]
    rates = {name: rate for name, rate in wanted.items() if name not in dataset.published}
    if fold is not None:
        _check_fold(dataset, fold, rates)
    sources = {"train": source, **{name: name for name in wanted if name not in rates}}
    images = {
        name: dataset.read(published) if preprocess is None else dataset.prepared(published, preprocess)
        for name, published in sources.items()
    }
    if rates or dataset.draws_test:
        try:
            kept, drawn = _kept_and_drawn(dataset, images, units_of(dataset.name, images), rates, seed, fold)
        except DataError:  # as where a class is one scene, or images are drawn by a program
            units = units_of(dataset.name, images, with_near=False)
            kept, drawn = _kept_and_drawn(dataset, images, units, rates, seed, fold)
            logger.warning(
                "So many images of %s are nearly equal that nothing is left to train on or to draw from where they "
                "stay together: only equal ones do",
                dataset.name,
            )
    else:  # arrays, whose validation split is their caller's choice, and may be all of them
        kept = {name: np.arange(len(found)) for name, found in images.items()}
        drawn = {"train": kept["train"]}
        _check_training(dataset, images["train"].labels, drawn["train"])
    parts: dict[str, Part] = {}
    for name in ("train", *wanted):
        found, indices = (images["train"], drawn[name]) if name in drawn else (images[name], kept[name])
        origin = source if name in drawn else name
        if dataset.grows:
            parts[name] = Part(origin, members=Members.of(found, indices))
        else:
            parts[name] = Part(origin, None if len(indices) == len(found) else indices)
    known = rates if fold is None else {}
    return Splits(dataset.name, dataset.classes, seed, known, fingerprint(images["train"]), parts, fold)


def _kept_and_drawn(
    dataset: Dataset,
    images: Mapping[str, ImageSet],
    units: Mapping[str, Sequence[str]],
    rates: Mapping[str, float],
    seed: int,
    fold: str | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Which images of each split are used, and which of those to train on are drawn for each."""
    kept = without_copies(images, units)
    drawn = _draw(dataset, images["train"], kept["train"], units["train"], rates, seed, fold)
    _check_training(dataset, images["train"].labels, drawn["train"])
    return kept, drawn


def _draw(
    dataset: Dataset,
    images: ImageSet,
    kept: np.ndarray,
    units: Sequence[str],
    rates: Mapping[str, float],
    seed: int,
    fold: str | None,
) -> dict[str, np.ndarray]:
    """The indices of the kept images that train, and of those in each split that is not published."""
    labels, names = images.labels[kept], [units[int(index)] for index in kept]
    if rates:
        say_near_copies([images.hashes[int(index)] for index in kept], names)
    if fold is not None:
        number, num_folds = parse_fold(fold)
        folds = draw_folds(labels, names, num_folds, seed, dataset.classes)
        order = [name for name in ("test", "validation") if name in rates]
        places = {name: (number - 1 + place) % num_folds for place, name in enumerate(order)}
        told = " and ".join(f"fold {place + 1} is {name}" for name, place in places.items())
        rest = "" if "test" in rates else "; the published test stays"
        logger.info("%s", f"Of {num_folds} folds, {told}{rest}")
        drawn = {name: np.flatnonzero(folds == place) for name, place in places.items()}
        drawn["train"] = np.flatnonzero(~np.isin(folds, [*places.values()]))
    elif rates:
        draw = draw_stable_splits if dataset.grows else draw_splits
        drawn = draw(labels, names, rates, seed, dataset.classes)
    else:
        drawn = {"train": np.arange(len(kept))}
    return {name: kept[indices] for name, indices in drawn.items()}


def _check_fold(dataset: Dataset, fold: str, drawn: Mapping[str, float]) -> None:
    _, num_folds = parse_fold(fold)
    if not drawn:
        raise ConfigError(
            f"data.fold={fold} has nothing to draw, as {dataset.name} has splits of its own; leave data.fold out"
        )
    if num_folds <= len(drawn):
        raise ConfigError(
            f"data.fold={fold} leaves no fold to train on, as one is the test and one validation; use three or more"
        )


def _check_training(dataset: Dataset, labels: np.ndarray, chosen: np.ndarray) -> None:
    """Raise DataError where no image of a class trains; of sets that do not grow, where any could have."""

    def present(some_labels: np.ndarray) -> set[int]:
        return {*np.flatnonzero(some_labels.any(axis=0)).tolist()} if labels.ndim == 2 else {*some_labels.tolist()}

    needed = {*range(len(dataset.classes))} if dataset.grows and labels.ndim == 1 else present(labels)
    missing = [dataset.classes[label] for label in sorted(needed - present(labels[chosen]))]
    if missing:
        raise DataError(
            f"{dataset.name} has no image to train on for {len(missing)} of its {len(dataset.classes)} classes "
            f"({some(missing)}): there are none, or all are in a validation or test split as well"
        )


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


def _members(values: dict[str, list[Any]] | None) -> Members | None:
    if values is None:
        return None
    labels = tuple(label if isinstance(label, int) else tuple(label) for label in values["labels"])
    return Members(tuple(values["hashes"]), labels, tuple(values["names"]))


def _indices(values: list[int] | None) -> np.ndarray | None:
    return None if values is None else np.array(values, np.int64)
