"""How alike two thumbnails are when one is moved, scaled and brightened onto the other: to tell copies from cousins.

The movement is found by least squares on the image's own derivatives (Lucas and Kanade 1981), twice. What is compared
are derivatives, too: most images differ least in their large shapes, and most in their details.
"""

from __future__ import annotations

import numpy as np

MAX_ROUGH = 0.2  # of the variance, left unexplained, above which a pair is not looked at any closer
MAX_SHIFT = 0.06  # of the side; cutting 3 % off moves an edge by 0.03
_BLOCK = 1024  # pairs at a time
_EPSILON = 1e-3


def unlikeness(images: np.ndarray, first: np.ndarray, second: np.ndarray, allowed: float = 1.0) -> np.ndarray:
    """For each pair of `images`, uint8 (N, side, side): the part of the derivatives' variance that differs, 0..1.

    The larger one of both directions; 1 where the pair differs in rough already, or by more than a copy may. Pairs
    that are sure to be more unlike than is `allowed` are not looked at any closer.
    """
    rough_allowed = min(MAX_ROUGH, 4 * allowed)
    found = np.ones(len(first))
    for start in range(0, len(first), _BLOCK):
        block = slice(start, start + _BLOCK)
        a, b = images[first[block]].astype(np.float32), images[second[block]].astype(np.float32)
        rough, _, gain = _move(_coarse(a), _coarse(b))
        close = np.flatnonzero((rough < rough_allowed) & (gain > 0.5) & (gain < 2.0))
        if len(close):
            a, b = a[close], b[close]
            found[start + close] = np.maximum(_compare(a, b), _compare(b, a))
    return found


def _compare(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    small_a, small_b = _coarse(a), _coarse(b)
    rough, movement, _ = _move(small_a, small_b)
    movement += _move(small_a, _warp(small_b, movement))[1]
    moved, movement_last, gain = _move(a, _warp(b, movement))
    movement += movement_last
    differs = _difference(_derivatives(a), _derivatives(_warp(b, movement)))
    odd = (np.abs(movement).max(1) > MAX_SHIFT) | (np.maximum(rough, moved) > MAX_ROUGH) | (gain < 0.5) | (gain > 2)
    return np.where(odd, 1.0, differs)


def _coarse(images: np.ndarray) -> np.ndarray:
    """Half the size where that leaves 16 pixels: movements are small enough then for one step."""
    if images.shape[1] < 32:
        return images
    return (images[:, ::2, ::2] + images[:, 1::2, ::2] + images[:, ::2, 1::2] + images[:, 1::2, 1::2]) / 4


def _move(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is left of a's variance when it is written as gain * b, shifted and scaled along each axis.

    Also the movement (columns, rows, their scales; parts of the side) and the gain.
    """
    place = _places(b.shape[1]).astype(np.float32)
    wide = np.pad(b, ((0, 0), (1, 1), (1, 1)), "edge")
    across = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
    down = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    parts = np.stack([b, across, down, across * place, down * place[:, None]], 1).reshape(len(b), 5, -1)
    parts -= parts.mean(2, keepdims=True)
    target = a.reshape(len(a), -1, 1) - a.mean((1, 2)).reshape(-1, 1, 1)
    products = (parts @ parts.transpose(0, 2, 1)).astype(np.float64) + np.eye(5) * _EPSILON
    projected = (parts @ target).astype(np.float64)
    weights = np.linalg.solve(products, projected)[:, :, 0]
    variance = (target[:, :, 0].astype(np.float64) ** 2).sum(1)
    left = np.maximum(variance - (weights * projected[:, :, 0]).sum(1), 0) / (variance + _EPSILON)
    gain = weights[:, 0]
    movement = weights[:, 1:] / np.where(np.abs(gain) < 0.1, 0.1, gain)[:, None]
    movement[:, :2] /= b.shape[1]
    return left, np.clip(movement, -2 * MAX_SHIFT, 2 * MAX_SHIFT), gain


def _places(side: int) -> np.ndarray:
    return np.arange(side) - (side - 1) / 2


def _warp(images: np.ndarray, movement: np.ndarray) -> np.ndarray:
    rows = _resampling(images.shape[1], movement[:, 1], movement[:, 3])
    columns = _resampling(images.shape[2], movement[:, 0], movement[:, 2])
    return rows @ images @ columns.transpose(0, 2, 1)


def _resampling(side: int, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 (n, side, side): linear interpolation at places moved by `shift` sides and scaled by 1 + `scale`."""
    wanted = _places(side) * (1 + scale[:, None]) + shift[:, None] * side + (side - 1) / 2
    wanted = np.clip(wanted, 0, side - 1)
    return np.maximum(0, 1 - np.abs(wanted[:, :, None] - np.arange(side))).astype(np.float32)


def _derivatives(images: np.ndarray) -> np.ndarray:
    inner = images[:, 1:-1, 1:-1]  # what moved in at an edge is not the image's own
    return np.concatenate(
        [np.diff(inner, axis=2).reshape(len(inner), -1), np.diff(inner, axis=1).reshape(len(inner), -1)], 1
    )


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    both = (a * b).sum(1)
    return 1 - np.where(both > 0, both, 0) ** 2 / ((a * a).sum(1) * (b * b).sum(1) + _EPSILON)
