"""Training batches from images in memory; the order is a function of (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitrail.data.augment import seed_of
from vitrail.data.dataset import ImageSet


def channels_first(pixels: np.ndarray) -> Tensor:
    """uint8 (N, H, W, C) -> (N, C, H, W), with strides that follow from the shape alone.

    With one channel those of NumPy may be any, and torch chooses kernels by them, which differ in the last bits.
    """
    num_images, rows, columns, channels = pixels.shape
    return _shared(pixels.transpose(0, 3, 1, 2)).view(-1).view(num_images, channels, rows, columns)


def _shared(array: np.ndarray) -> Tensor:
    """The array as a tensor; one that cannot be written to, of which torch warns, is copied."""
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def to_tensors(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (N, C, H, W) uint8 and labels (N,) int64 on `device`."""
    return channels_first(images.pixels).to(device), _shared(images.labels).to(device)


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0..num_images-1, int64, that depends on (seed, epoch) alone."""
    return np.random.default_rng(seed_of(seed, epoch)).permutation(num_images)


class MemoryLoader:
    """Batches of one set of images held on the device as a tensor; any batch of any epoch can be asked for directly.

    Images that do not fill an epoch's last batch are left out of that epoch; which ones changes with its order.
    """

    def __init__(self, images: ImageSet, batch_size: int, seed: int, device: torch.device) -> None:
        self.pixels, self.labels = to_tensors(images, device)
        self.batch_size = min(batch_size, len(images))
        self.num_batches = len(images) // self.batch_size
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0)

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) uint8 and labels (B,) int64 of batch `index` of `epoch`, on the device."""
        if epoch != self._epoch:
            order = epoch_order(len(self.labels), self.seed, epoch)
            self._order, self._epoch = torch.from_numpy(order).to(self.pixels.device), epoch
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.pixels[chosen], self.labels[chosen]
