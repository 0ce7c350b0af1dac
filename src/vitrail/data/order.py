"""The order of an epoch in which every class is drawn equally often."""

from __future__ import annotations

import numpy as np

from vitrail.data.augment import seed_of


def balanced_order(labels: np.ndarray, seed: int, epoch: int, num_drawn: int | None = None) -> np.ndarray:
    """Indices of images, int64 (`num_drawn`,), by default as many as labels (N,); classes are drawn equally often.

    They depend on (labels, seed, epoch, num_drawn) alone. Within a class the images come in turn, also from one epoch
    to the next: none is drawn again before all have been, so that large classes are seen whole in the course of some
    epochs, and small ones several times in one. Where `num_drawn` is no multiple of the classes, they take
    turns with one more.
    """
    num_drawn = len(labels) if num_drawn is None else num_drawn
    classes = np.unique(labels).tolist()
    chosen: list[np.ndarray] = []
    for place, label in enumerate(classes):
        # Of all draws, in the epochs one after the other, each of so many is this class's.
        first, last = (-(-(draws - place) // len(classes)) for draws in (epoch * num_drawn, (epoch + 1) * num_drawn))
        chosen.append(_in_turn(np.flatnonzero(labels == label), first, last, (seed, label)))
    return np.random.default_rng(seed_of(seed, epoch)).permutation(np.concatenate(chosen))


def _in_turn(members: np.ndarray, first: int, last: int, keys: tuple[int, int]) -> np.ndarray:
    """Draws `first` to `last` (not with it) of a class, whose images are shuffled anew whenever all have been drawn."""
    rounds = range(first // len(members), -(-last // len(members)))
    shuffled = [np.random.default_rng(seed_of(*keys, turn, 3)).permutation(members) for turn in rounds]
    start = first - rounds.start * len(members)
    return np.concatenate(shuffled)[start : start + last - first]
