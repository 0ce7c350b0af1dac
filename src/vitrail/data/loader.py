"""Training batches; the order is a function of (seed, epoch) alone, whatever serves the images."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vitrail.data.augment import seed_of
from vitrail.data.dataset import ImageSet
from vitrail.data.decoding import memory_bytes
from vitrail.data.pixels import is_mapped
from vitrail.data.records import num_threads
from vitrail.data.streaming import StreamedPixels

AHEAD_BYTES = 2**28  # of batches that are made before they are asked for

Order = Callable[[int], np.ndarray]  # epoch -> int64 indices of its images, in turn


class Loader(Protocol):
    """Batches of one set of images; any batch of any epoch can be asked for directly.

    Images that do not fill an epoch's last batch are left out of that epoch; which ones changes with its order.
    """

    labels: Tensor
    batch_size: int
    num_batches: int

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) uint8 and their labels of batch `index` of `epoch`, on the device."""
        ...


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
    """Pixels (N, C, H, W) uint8 and labels int64 on `device`, all of them."""
    labels = _shared(images.labels).to(device)
    if isinstance(images.pixels, np.ndarray):
        return channels_first(images.pixels[:]).to(device), labels
    num_images, rows, columns, channels = images.pixels.shape
    pixels, start = torch.empty((num_images, channels, rows, columns), dtype=torch.uint8, device=device), 0
    for block in images.blocks():  # never twice in memory
        pixels[start : start + len(block)] = channels_first(block)
        start += len(block)
    return pixels, labels


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0..num_images-1, int64, that depends on (seed, epoch) alone."""
    return np.random.default_rng(seed_of(seed, epoch)).permutation(num_images)


def create_loader(
    images: ImageSet,
    batch_size: int,
    order: Order,
    device: torch.device,
    *,
    serving: str = "auto",
    memory_gigabytes: float | None = None,
    num_workers: int | None = None,
) -> Loader:
    """The loader of these images in the `order` of each epoch: in memory where they fit and `serving` allows it.

    The batches of every loader are equal. `memory_gigabytes` and `num_workers` are as in the settings of data.
    """
    num_bytes = int(np.prod(images.pixels.shape, dtype=np.int64))
    if is_mapped(images.pixels):
        loads = serving == "memory" or (serving == "auto" and num_bytes <= memory_bytes(memory_gigabytes))
    else:
        loads = isinstance(images.pixels, np.ndarray)
    if loads and device.type == "cuda":  # a GPU has less memory than its machine, and needs most of it for training
        loads = num_bytes <= torch.cuda.mem_get_info(device)[0] // 4
    if loads:
        return MemoryLoader(images, batch_size, order, device)
    waits = isinstance(images.pixels, StreamedPixels) and images.pixels.records.remote
    return PrefetchLoader(images, batch_size, order, device, num_threads(num_workers, waits))


class MemoryLoader:
    """Batches of images that are held on the device as one tensor."""

    def __init__(self, images: ImageSet, batch_size: int, order: Order, device: torch.device) -> None:
        self.pixels, self.labels = to_tensors(images, device)
        self.batch_size = min(batch_size, len(images))
        self.num_batches = len(images) // self.batch_size
        self.order = order
        self._epoch = -1
        self._order = torch.empty(0)

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """As `Loader` says."""
        if epoch != self._epoch:
            self._order, self._epoch = torch.from_numpy(self.order(epoch)).to(self.pixels.device), epoch
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.pixels[chosen], self.labels[chosen]


class PrefetchLoader:
    """Batches of images that are mapped or streamed: threads make the next ones while the device is busy."""

    def __init__(self, images: ImageSet, batch_size: int, order: Order, device: torch.device, num_workers: int) -> None:
        self.images, self.device = images, device
        self.labels = _shared(images.labels)
        self.batch_size = min(batch_size, len(images))
        self.num_batches = len(images) // self.batch_size
        self.order = order
        batch_bytes = self.batch_size * int(np.prod(images.pixels.shape[1:]))
        self._num_ahead = max(1, min(2 * num_workers, AHEAD_BYTES // batch_bytes))
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="batches")
        self._ahead: dict[tuple[int, int], Future[Tensor]] = {}
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """As `Loader` says. Raises DataError for an image that can no longer be read."""
        places = range(index, index + self._num_ahead + 1)
        wanted = [(epoch + place // self.num_batches, place % self.num_batches) for place in places]
        for place in [place for place in self._ahead if place not in wanted]:
            self._ahead.pop(place).cancel()
        for place in wanted:
            if place not in self._ahead:
                self._ahead[place] = self._pool.submit(self._pixels, self._chosen(*place))
        try:
            pixels = self._ahead.pop((epoch, index)).result()
        except BaseException:
            self._pool.shutdown(cancel_futures=True)  # nothing is read any more when training has stopped
            raise
        labels = self.labels[torch.from_numpy(self._chosen(epoch, index))]
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        return pixels.to(self.device, non_blocking=True), labels.to(self.device)

    def _chosen(self, epoch: int, index: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {known: self._orders[known] for known in self._orders if known in (epoch - 1, epoch + 1)}
            self._orders[epoch] = self.order(epoch)
        return self._orders[epoch][index * self.batch_size : (index + 1) * self.batch_size]

    def _pixels(self, chosen: np.ndarray) -> Tensor:
        return channels_first(self.images.pixels[chosen])
