"""Images that are nearly the same: stored again at another quality or size, a little cut, brighter, or without colour.

A perceptual hash proposes pairs: the signs of 63 low frequencies of the discrete cosine transform, in three bands, each
looked up as it is and with its least certain bits turned. Comparing the thumbnails, moved onto each other, decides.
Mirrored and turned copies are not looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitrail.data.likeness import unlikeness
from vitrail.data.thumbnails import Thumbnails

MAX_UNLIKENESS = 0.15  # of copies; looked at on CIFAR-10, where nearly all pairs below are copies, and on photographs
MAX_UNLIKENESS_AMONG_ALIKE = 0.005  # ten thousand digits have no such pair; saved as JPEG, most are within
BEYOND = 0.2
MAX_COLOUR = 14.0  # mean difference of red and blue against green, of 255
FLAT = 3.0  # standard deviation of a thumbnail below which there is no shape to compare
MAX_FLAT_DIFFERENCE = 2  # of 255, between two flat images that are copies
NUM_BANDS, NUM_TURNED = 3, 4
MAX_DISTANCE = 20  # of 63 bits
MIN_LIKENESS = 0.9  # correlation of the low frequencies
MAX_BUCKET = 300  # images of one code, above which each is compared with its neighbours only
NUM_NEIGHBOURS = 8
NUM_SAMPLED, NUM_NEAREST = 300, 32
NUM_ROUNDS = 6
ONLY_MOST_ALIKE = "So many images look alike that only the most alike pairs of them were compared"
_BLOCK = 4096
_FREQUENCIES = sorted(((u, v) for u in range(8) for v in range(8) if u + v), key=lambda place: (sum(place), place))


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of images that are nearly equal, int64 (P, 2), the lower index first, sorted; equal ones are among them.

    `notes` say what was not compared, where that was too much. `unlikeness` is that of each pair, 0 to 0.15.
    """

    num_images: int
    pairs: np.ndarray
    unlikeness: np.ndarray
    notes: tuple[str, ...]

    def groups(self) -> list[np.ndarray]:
        """The indices of images that belong together, also through others, sorted, two and more in each group."""
        ids = connected(self.num_images, self.pairs)
        order = np.argsort(ids, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(ids[order])) + 1) if len(order) else []
        return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


def near_thumbnails(thumbnails: Thumbnails) -> NearDuplicates:
    """The pairs of nearly equal images, by their thumbnails; in another order they give the same pairs.

    About a kilobyte of memory an image. Where a set has so many images alike that they are no copies, as thousands of
    handwritten ones, only the most alike count.
    """
    num_images = len(thumbnails)
    # Sorted by content and each once: from here on the order of the images makes no difference, not in the last bit.
    unique, places = _unique(thumbnails)
    pairs, differences, notes = _unique_pairs(unique)
    representative = np.full(len(unique), num_images)
    np.minimum.at(representative, places, np.arange(num_images))
    own = representative[places]
    equal = np.flatnonzero(own != np.arange(num_images))
    among = np.stack([own[equal], equal], 1)
    across = np.sort(representative[pairs], axis=1)
    both = np.concatenate([among, across])
    order = np.lexsort((both[:, 1], both[:, 0]))
    unlike = np.concatenate([np.zeros(len(among)), differences])[order]
    return NearDuplicates(num_images, both[order].astype(np.int64), unlike, tuple(notes))


def connected(num_images: int, pairs: np.ndarray) -> np.ndarray:
    """int64 (N,): the connected components of a graph, numbered in the order of their first images."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (num_images, num_images))
    labels = connected_components(edges, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    return ranks[inverse]


def _unique(thumbnails: Thumbnails) -> tuple[Thumbnails, np.ndarray]:
    parts = [_flatten(thumbnails.grey)]
    if thumbnails.colour is not None:
        parts.append(_flatten(np.ascontiguousarray(thumbnails.colour)).view(np.uint8))
    rows = np.concatenate(parts, 1)
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1])))[:, 0]
    _, first, places = np.unique(whole, return_index=True, return_inverse=True)
    return thumbnails.take(first), places


def _unique_pairs(thumbnails: Thumbnails) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pairs of different thumbnails that are copies, int64 (P, 2), how unlike they are, and what was left out."""
    notes: list[str] = []
    deviation = _flatten(thumbnails.grey).std(axis=1)
    flat, shaped = np.flatnonzero(deviation < FLAT), np.flatnonzero(deviation >= FLAT)
    flat_pairs = flat[_flat_pairs(thumbnails.take(flat))]
    subset = thumbnails.take(shaped)
    first, second, likeness = _candidates(subset, notes)
    most = max(20_000, len(subset))
    if len(first) > most:
        _add(notes, ONLY_MOST_ALIKE)
    if notes:
        allowed = _threshold(_sample_unlikeness(subset), notes)
        first, second, unlike = _spanning(subset.grey, first, second, likeness, allowed)
    else:
        unlike = unlikeness(subset.grey, first, second)
        allowed = _threshold(unlike, notes)
    kept = unlike <= allowed
    pairs = np.stack([shaped[first[kept]], shaped[second[kept]]], 1)
    return np.concatenate([flat_pairs, pairs]), np.concatenate([np.zeros(len(flat_pairs)), unlike[kept]]), notes


def _spanning(
    images: np.ndarray, first: np.ndarray, second: np.ndarray, likeness: np.ndarray, allowed: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As many of the pairs as tell which images belong together, and how unlike they are.

    In each round every image is compared with the one most like it, of those that it is not yet known to belong to.
    """
    order = np.argsort(-likeness, kind="stable")
    first, second = first[order], second[order]
    number, compared = len(images), np.zeros((0, 2), np.int64)
    unlike, left = np.zeros(0), np.arange(len(first))
    for _ in range(NUM_ROUNDS):
        groups = connected(number, compared[unlike <= allowed])
        left = left[groups[first[left]] != groups[second[left]]]
        if not len(left):
            break
        best = np.full(number, len(first))
        np.minimum.at(best, first[left], left)
        np.minimum.at(best, second[left], left)
        chosen = np.unique(best[best < len(first)])
        left = np.setdiff1d(left, chosen, assume_unique=True)
        found = unlikeness(images, first[chosen], second[chosen], allowed)
        compared = np.concatenate([compared, np.stack([first[chosen], second[chosen]], 1)])
        unlike = np.concatenate([unlike, found])
    return compared[:, 0], compared[:, 1], unlike


def _threshold(known: np.ndarray, notes: list[str]) -> float:
    """How unlike copies of this set may be, by how unlike pairs of it are.

    Copies are near each other and far from all else. Where many pairs are a little more unlike than copies may be, the
    set is full of images that look alike by nature, as digits do: then only copies that are hardly changed stand out.
    """
    among, beyond = (known <= MAX_UNLIKENESS).sum(), ((known > MAX_UNLIKENESS) & (known <= BEYOND)).sum()
    if beyond < 5 or beyond <= among / 3:
        return MAX_UNLIKENESS
    notes.append("Many images look alike by nature, so near copies are told only where they are hardly changed")
    return MAX_UNLIKENESS_AMONG_ALIKE


def _sample_unlikeness(thumbnails: Thumbnails) -> np.ndarray:
    """How unlike some images of the set are to those that are most like them, of all."""
    frequencies = _low_frequencies(thumbnails.grey)
    chosen = np.unique(np.linspace(0, len(thumbnails) - 1, NUM_SAMPLED).astype(np.int64))
    likeness = frequencies[chosen] @ frequencies.T
    likeness[np.arange(len(chosen)), chosen] = -1
    number = min(NUM_NEAREST, len(thumbnails) - 1)
    nearest = np.argpartition(-likeness, number - 1, axis=1)[:, :number]
    first, second = chosen.repeat(number), nearest.ravel()
    same = _colour_agrees(thumbnails, first, second)
    return unlikeness(thumbnails.grey, first[same], second[same])


def _flat_pairs(thumbnails: Thumbnails) -> np.ndarray:
    """Pairs of images without any shape whose pixels nearly agree, int64 (P, 2)."""
    grey = _flatten(thumbnails.grey).astype(np.int16)
    colour = None if thumbnails.colour is None else _flatten(thumbnails.colour)
    order = np.argsort(grey.sum(axis=1, dtype=np.int64), kind="stable")
    pairs: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
    for step in range(1, min(NUM_NEIGHBOURS + 1, len(order))):
        first, second = order[:-step], order[step:]
        agrees = np.abs(grey[first] - grey[second]).max(axis=1) <= MAX_FLAT_DIFFERENCE
        if colour is not None:
            agrees &= np.abs(colour[first] - colour[second]).max(axis=1) <= 2 * MAX_FLAT_DIFFERENCE
        pairs.append(np.stack([first[agrees], second[agrees]], 1))
    return np.concatenate(pairs)


def _colour_agrees(thumbnails: Thumbnails, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether two images have the same colours, or one of them has none."""
    if thumbnails.colour is None:
        return np.ones(len(first), bool)
    colour = _flatten(thumbnails.colour)
    grey = np.abs(colour).max(axis=1) <= 6
    differs = np.abs(colour[first] - colour[second]).mean(axis=1)
    return (differs <= MAX_COLOUR) | grey[first] | grey[second]


def _candidates(thumbnails: Thumbnails, notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs whose low frequencies and colours are alike, and how much the former are."""
    if len(thumbnails) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    frequencies = _low_frequencies(thumbnails.grey)
    first, second = _hash_pairs(frequencies, notes)
    likeness = np.empty(len(first))
    for start in range(0, len(first), 4 * _BLOCK):
        block = slice(start, start + 4 * _BLOCK)
        likeness[block] = (frequencies[first[block]] * frequencies[second[block]]).sum(axis=1)
    kept = np.flatnonzero(likeness >= MIN_LIKENESS)
    kept = kept[_colour_agrees(thumbnails, first[kept], second[kept])]
    return first[kept], second[kept], likeness[kept]


def _low_frequencies(images: np.ndarray) -> np.ndarray:
    """float64 (N, 63): the low frequencies of the cosine transform without the mean, of length 1."""
    side = images.shape[1]
    angles = np.pi * np.outer(np.arange(8), 2 * np.arange(side) + 1) / (2 * side)
    basis = np.round(np.cos(angles) * 1024)
    rows, columns = np.array(_FREQUENCIES).T
    parts = [
        (basis @ images[start : start + _BLOCK].astype(np.float64) @ basis.T)[:, rows, columns]
        for start in range(0, len(images), _BLOCK)
    ]
    found = np.concatenate(parts)
    return found / np.sqrt((found**2).sum(axis=1, keepdims=True) + 1)


def _hash_pairs(frequencies: np.ndarray, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose hashes differ in few bits, as a lookup of three parts of each finds them."""
    number = len(frequencies)
    # So that each bit is set in half of the images, of which a crowd of copies counts once.
    one_of_each = np.unique(_codes(frequencies[:, :16]), return_index=True)[1]
    centred = frequencies - np.median(frequencies[one_of_each], axis=0)
    hashes = ((centred > 0).astype(np.uint64) << np.arange(63, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    num_bits = min(max(int(np.ceil(np.log2(number))), 10), 20)
    allowed, most = MAX_DISTANCE, max(1_000_000, 20 * number)
    found = [np.zeros(0, np.int64)]
    distances = [np.zeros(0, np.uint8)]
    for band in range(NUM_BANDS):
        for first, second in _lookup(centred[:, band : num_bits * NUM_BANDS : NUM_BANDS], hashes, notes):
            distance = np.bitwise_count(hashes[first] ^ hashes[second])
            near = (distance <= allowed) & (first != second)
            first, second = first[near], second[near]
            found.append(np.minimum(first, second) * number + np.maximum(first, second))
            distances.append(distance[near])
            if sum(map(len, found)) > most:  # fewer bits may differ then, as many as the pairs of all bands allow
                distances = [np.concatenate(distances)]
                counts = np.cumsum(np.bincount(distances[0], minlength=MAX_DISTANCE + 1))
                allowed = int(np.searchsorted(counts, most, "right")) - 1
                kept = distances[0] <= allowed
                found, distances = [np.concatenate(found)[kept]], [distances[0][kept]]
    if allowed < MAX_DISTANCE:
        _add(notes, ONLY_MOST_ALIKE)
    keys = np.unique(np.concatenate(found)[np.concatenate(distances) <= allowed])
    return keys // number, keys % number


def _codes(values: np.ndarray) -> np.ndarray:
    return (values > 0) @ (1 << np.arange(values.shape[1]))


def _lookup(values: np.ndarray, hashes: np.ndarray, notes: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of which one has the other's code, or its own with some of its least certain bits turned."""
    codes = _codes(values)
    order = np.lexsort((np.arange(len(codes)), hashes, codes))
    known, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    crowded = np.flatnonzero(counts > MAX_BUCKET)
    for bucket in crowded:
        members = order[starts[bucket] : starts[bucket] + counts[bucket]]
        for step in range(1, NUM_NEIGHBOURS + 1):
            yield members[:-step], members[step:]
    if len(crowded):
        _add(notes, ONLY_MOST_ALIKE)
        counts = np.where(counts > MAX_BUCKET, 0, counts)
    turned = 1 << np.argsort(np.abs(values), axis=1, kind="stable")[:, :NUM_TURNED]
    choices = (np.arange(1 << NUM_TURNED)[:, None] >> np.arange(NUM_TURNED)) & 1
    for start in range(0, len(codes), _BLOCK // 4):
        block = slice(start, start + _BLOCK // 4)
        wanted = codes[block, None] ^ (turned[block] @ choices.T)
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        number = np.where(known[place] == wanted, counts[place], 0).ravel()
        first = np.repeat(np.arange(start, start + len(wanted)).repeat(wanted.shape[1]), number)
        offsets = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        yield first, order[np.repeat(starts[place].ravel(), number) + offsets]


def _flatten(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _add(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)
