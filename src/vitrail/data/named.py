"""The data sets that have a name of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitrail.data.dataset import ImageSet, number_names

_DIGITS = tuple("0123456789")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class NamedSet:
    """A named data set: what it is, its classes (empty: files name them), where the hub has it, how else it is read."""

    about: str
    classes: tuple[str, ...] = ()
    repository: str | None = None
    read: Callable[[], ImageSet] | None = None


def read_digits() -> ImageSet:
    """The 1,797 scanned digits that come with scikit-learn, 8x8 grey, 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    scaled = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return ImageSet(scaled, np.asarray(labels).astype(np.int64), number_names("all", len(scaled)))


NAMED: dict[str, NamedSet] = {
    "digits": NamedSet("1,797 scanned digits, 8x8 grey, comes with scikit-learn", _DIGITS, read=read_digits),
    "mnist": NamedSet("70,000 handwritten digits, 28x28 grey", _DIGITS, "ylecun/mnist"),
    "fashion_mnist": NamedSet("70,000 pieces of clothing, 28x28 grey", _FASHION, "zalando-datasets/fashion_mnist"),
    "cifar10": NamedSet("60,000 photographs of 10 kinds of things, 32x32 RGB", _CIFAR10, "uoft-cs/cifar10"),
    "cifar100": NamedSet("60,000 photographs of 100 kinds of things, 32x32 RGB", (), "uoft-cs/cifar100"),
}
