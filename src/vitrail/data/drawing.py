"""How images are dealt out to splits and folds: by class and seed, whatever their order.

What is dealt is a unit, which is never divided: the copies of one image, the photographs of one patient. A unit's name,
equal for its images, decides where it goes. Labels are int64 (N,), or 0 and 1 of (N, classes) where an image may have
several, and `units` are N names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vitrail.errors import ConfigError, DataError, some

GROUP = "group:"  # begins the name of a unit that is called after a user's group


@dataclass(frozen=True, eq=False)
class _Units:
    """The units of some images, and how many images of which class each has, as three arrays sorted by unit."""

    names: list[str]
    of: np.ndarray  # the unit of each image
    sizes: list[int]  # images
    owners: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    @classmethod
    def among(cls, labels: np.ndarray, units: Sequence[str]) -> _Units:
        """The units that are named; images without any label count as of one class more."""
        places: dict[str, int] = {}
        of = np.array([places.setdefault(name, len(places)) for name in units], np.int64)
        images, own = np.arange(len(of)), labels
        if labels.ndim == 2:
            images, own = np.nonzero(np.column_stack([labels, ~labels.any(axis=1)]))
        num_classes = int(own.max(initial=0)) + 1
        codes, counts = np.unique(of[images] * num_classes + own, return_counts=True)
        sizes = np.bincount(of, minlength=len(places)).tolist()
        return cls([*places], of, sizes, codes // num_classes, codes % num_classes, counts)

    def in_order(self, seed: int) -> list[int]:
        """The units in an order that the seed and their names alone decide."""
        return sorted(range(len(self.names)), key=lambda unit: _digest(seed, self.names[unit]))

    def contents(self) -> dict[int, dict[int, int]]:
        """How many images of which class the units of several classes have."""
        mixed = np.bincount(self.owners, minlength=len(self.names))[self.owners] > 1
        contents: dict[int, dict[int, int]] = {}
        for unit, label, count in zip(*(column[mixed].tolist() for column in self._columns()), strict=True):
            contents.setdefault(unit, {})[label] = count
        return contents

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.owners, self.labels, self.counts

    def labels_of(self, unit: int) -> list[int]:
        """The classes that a unit has images of."""
        first, end = np.searchsorted(self.owners, [unit, unit + 1])
        return self.labels[first:end].tolist()

    def holding(self, label: int) -> list[int]:
        """The units that have images of a class."""
        return self.owners[self.labels == label].tolist()


def draw_splits(
    labels: np.ndarray,
    units: Sequence[str],
    rates: Mapping[str, float],
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Sorted int64 indices for each split in `rates` (fractions of the images) and for "train", which gets the rest.

    Drawn class by class, in an order that depends on `seed` and the units' names alone: shuffled or renamed files give
    the same splits. Units of several classes are dealt first, each to where its classes are wanted most. Every class
    has at least one image in every split, but where images may have several labels and a class has too few units, which
    then go to train first. `classes` are the names that errors use.
    Raises ConfigError for rates outside 0..1 or of a sum of 1 and more, DataError for a class with fewer units than
    there are splits.
    """
    check_rates(rates)
    names = ["train", *rates]
    found = _Units.among(labels, units)
    required = _required(found, labels, classes, names)
    places = np.zeros(len(found.names), np.int64)
    order, contents = found.in_order(seed), found.contents()
    shares = [1 - sum(rates.values()), *rates.values()]
    totals = np.bincount(found.labels, found.counts).tolist()
    wanted = [[share * total for share in shares] for total in totals]
    held: list[set[int]] = [set() for _ in totals]
    for unit in order:
        if unit in contents:
            place = places[unit] = _most_wanted(contents[unit], wanted, totals, shares)
            for label in contents[unit]:
                held[label].add(place)
    by_class: list[list[int]] = [[] for _ in totals]
    single = dict(zip(found.owners.tolist(), found.labels.tolist(), strict=True))
    for unit in order:
        if unit not in contents:
            by_class[single[unit]].append(unit)
    for label, ordered in enumerate(by_class):
        _deal(ordered, found.sizes, wanted[label][1:], held[label], places)
    _lend(places, found, required, classes, names)
    return _by_split(places[found.of], names)


def draw_stable_splits(
    labels: np.ndarray,
    units: Sequence[str],
    rates: Mapping[str, float],
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """As `draw_splits`, but each unit's place depends on `seed` and its own name alone: added units move no other.

    So a class's shares are as the draw has it, not exact. Only where a class would have no image at all in a split is
    one unit lent to it, which may go back when the class has grown: no rule can promise both.
    Raises as `draw_splits` does.
    """
    check_rates(rates)
    names = ["train", *rates]
    found = _Units.among(labels, units)
    required = _required(found, labels, classes, names)
    numbers = np.array([_uniform(seed, name) for name in found.names])
    edges = np.cumsum([0.0, *rates.values()])
    places = np.zeros(len(found.names), np.int64)
    for place in range(1, len(names)):
        places[(edges[place - 1] <= numbers) & (numbers < edges[place])] = place
    _lend(places, found, required, classes, names)
    return _by_split(places[found.of], names)


def draw_folds(
    labels: np.ndarray, units: Sequence[str], num_folds: int, seed: int, classes: Sequence[str] | None = None
) -> np.ndarray:
    """The fold of each image, int64 (N,) in 0..num_folds - 1: equal parts, of each class and of all.

    As in `draw_splits`, order and files' names change nothing, and every class is in every fold. The largest units are
    dealt first, so that small ones even the folds out. Raises DataError for a class with fewer units than folds.
    """
    found = _Units.among(labels, units)
    names = [f"the folds 1/{num_folds}", *(f"{fold}/{num_folds}" for fold in range(2, num_folds + 1))]
    required = _required(found, labels, classes, names)
    contents, shares = found.contents(), [1 / num_folds] * num_folds
    for unit, label, count in zip(found.owners.tolist(), found.labels.tolist(), found.counts.tolist(), strict=True):
        contents.setdefault(unit, {label: count})
    totals = np.bincount(found.labels, found.counts).tolist()
    wanted = [[share * total for share in shares] for total in totals]
    filled = [0] * num_folds
    places = np.zeros(len(found.names), np.int64)
    for unit in sorted(found.in_order(seed), key=lambda unit: -found.sizes[unit]):
        fold = _most_wanted(contents[unit], wanted, totals, shares, filled)
        places[unit] = fold
        filled[fold] += found.sizes[unit]
    _lend(places, found, required, classes, names)
    return places[found.of]


def parse_fold(text: str) -> tuple[int, int]:
    """(fold, number of folds) of "2/5". Raises ConfigError for a fold that is not one of two or more."""
    match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    fold, num_folds = (int(match[1]), int(match[2])) if match else (0, 0)
    if num_folds < 2:
        raise ConfigError(f"data.fold={text} is no fold; use 2/5 for the second of five, or another of two or more")
    if not 1 <= fold <= num_folds:
        raise ConfigError(
            f"data.fold={text} is none of {num_folds} folds; use 1/{num_folds} to {num_folds}/{num_folds}"
        )
    return fold, num_folds


def check_rates(rates: Mapping[str, float]) -> None:
    """Raise ConfigError for rates that do not leave images to train on."""
    if any(not 0 < rate < 1 for rate in rates.values()) or sum(rates.values()) >= 1:
        given = ", ".join(f"{name}_rate={rate}" for name, rate in rates.items())
        raise ConfigError(f"{given} is not possible; rates lie between 0 and 1, and their sum below 1")


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()


def _uniform(seed: int, name: str) -> float:
    """A number in 0..1 that is a function of the two alone."""
    return int.from_bytes(_digest(seed, name)[:8], "big") / 2**64


def _by_split(places: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: np.flatnonzero(places == place) for place, name in enumerate(names)}


def _most_wanted(
    content: Mapping[int, int],
    wanted: list[list[float]],
    totals: Sequence[int],
    shares: Sequence[float],
    filled: Sequence[int] = (),
) -> int:
    """The split where a unit's classes lack most of what they should have there; what they lack then is less."""

    def lack(place: int) -> tuple[float, int]:
        # Webster's rule: with half of what is added gone already, neither large splits nor small ones are favoured.
        parts = ((wanted[label][place] - count / 2) * count / totals[label] for label, count in content.items())
        return round(sum(parts) / shares[place], 9), -filled[place] if filled else 0

    chosen = max(range(len(shares)), key=lack)
    for label, count in content.items():
        wanted[label][chosen] -= count
    return chosen


def _deal(ordered: list[int], sizes: Sequence[int], rooms: Sequence[float], held: set[int], places: np.ndarray) -> None:
    """Place the units of one class alone: what does not fit into a split any more is left to the next, then to train.

    `rooms` are the images wanted in each split but train, `held` the splits that have some of the class already.
    """
    remaining = ordered
    for place, wanted in enumerate(rooms, 1):
        needed = place not in held
        room = max(int(needed), int(wanted + 0.5))
        spare = len(remaining) - len({*range(place + 1, len(rooms) + 1), 0} - held)  # the others need a unit each
        taken: list[int] = []
        for unit in remaining:
            if sizes[unit] <= room and len(taken) < spare:
                taken.append(unit)
                room -= sizes[unit]
        if needed and not taken and remaining:
            taken = [min(remaining, key=lambda unit: sizes[unit])]
        places[taken] = place
        chosen = {*taken}
        remaining = [unit for unit in remaining if unit not in chosen]


def _required(found: _Units, labels: np.ndarray, classes: Sequence[str] | None, splits: Sequence[str]) -> np.ndarray:
    """Which class must be in which split, bool (classes, splits). Raises DataError for one with too few units."""
    num_units = np.bincount(found.labels)
    required = np.zeros((len(num_units), len(splits)), bool)
    for label, number in enumerate(num_units.tolist()):
        if labels.ndim == 2:  # rare labels go as far as there are images of them; images without labels go anywhere
            required[label, : number if label < labels.shape[1] else 0] = True
        elif number:
            if number < len(splits):
                raise DataError(_too_few(found, label, classes, splits))
            required[label] = True
    return required


def _too_few(found: _Units, label: int, classes: Sequence[str] | None, splits: Sequence[str]) -> str:
    name = classes[label] if classes else label
    held = [found.names[unit] for unit in found.holding(label)]
    needed = f"{len(splits)} are needed, one for each of {', '.join(splits)}"
    groups = sorted(unit.removeprefix(GROUP) for unit in held if unit.startswith(GROUP))
    if groups:
        listed = f"{len(held)} group{'s' * (len(held) != 1)} ({some(groups)})"
        return f"Class {name!r} has images of {listed}; {needed}, so take smaller groups or leave data.group out"
    return f"Class {name!r} has {len(held)} different image{'s' * (len(held) != 1)}; {needed}"


def _lend(
    places: np.ndarray, found: _Units, required: np.ndarray, classes: Sequence[str] | None, splits: Sequence[str]
) -> None:
    """Move units, in `places`, until each class is in every split that it must be in.

    One is taken that no other class then misses, if there is one; of those the smallest; of those one from the split
    that has most units of the class. Raises DataError where no such units are found.
    """
    presence = np.zeros(required.shape, np.int64)
    np.add.at(presence, (found.labels, places[found.owners]), 1)

    def cost(unit: int, label: int) -> tuple[int, int, int, int, str]:
        own, here = found.labels_of(unit), int(places[unit])
        missed = int((required[own, here] & (presence[own, here] == 1)).sum())
        return missed, found.sizes[unit], -int(presence[label, here]), here, found.names[unit]

    def can_lend(unit: int, label: int) -> bool:
        return bool(presence[label, places[unit]] > 1 or not required[label, places[unit]])

    for _ in range(len(required) + 1):  # a loan may take another class's last unit along, and is then made good
        for label, place in np.argwhere(required & (presence == 0)).tolist():
            lenders = [(cost(unit, label), unit) for unit in found.holding(label) if can_lend(unit, label)]
            if lenders and not presence[label, place]:
                unit = min(lenders)[1]
                own = found.labels_of(unit)
                presence[own, places[unit]] -= 1
                presence[own, place] += 1
                places[unit] = place
    missing = np.argwhere(required & (presence == 0)).tolist()
    if missing:
        name = classes[missing[0][0]] if classes else missing[0][0]
        raise DataError(
            f"Class {name!r} has no image in {splits[missing[0][1]]} that another class can do without, as they share "
            "their groups; take smaller groups or leave data.group out"
        )
