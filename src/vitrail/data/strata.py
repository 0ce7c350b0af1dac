"""What splits are drawn by where an image may have several labels: one number an image, alike for like labels."""

from __future__ import annotations

import numpy as np


def label_strata(labels: np.ndarray, fewest: int) -> np.ndarray:
    """The stratum of each image, int64 (N,), of labels 0 and 1 (N, K): the rarest of its labels, K without any.

    Drawn from each stratum alike, splits have about equal shares of every label, the rare ones above all; exact shares
    of all labels at once cannot be had. Strata of fewer than `fewest` images are laid together with the next rarest, so
    that each can be drawn from. A simple form of Sechidis et al. 2011.
    """
    counts = labels.sum(axis=0)
    rarity = np.argsort(counts, kind="stable")  # the rarest class first
    ranks = np.where(labels[:, rarity].any(axis=1), (labels[:, rarity] > 0).argmax(axis=1), labels.shape[1])
    sizes = np.bincount(ranks, minlength=labels.shape[1] + 1)
    target, waiting, total = np.empty(len(sizes), np.int64), list[int](), 0
    for rank in np.flatnonzero(sizes).tolist():
        waiting.append(rank)
        total += int(sizes[rank])
        if total >= fewest:
            target[waiting] = rank
            waiting, total = [], 0
    if waiting:  # too few are left at the end: they join the last stratum that is large enough
        large = [rank for rank in np.flatnonzero(sizes).tolist() if rank not in waiting]
        target[waiting] = target[large[-1]] if large else waiting[-1]
    names = np.append(rarity, labels.shape[1])
    return names[target[ranks]].astype(np.int64)
