"""Which images each step trains on, and where they come from."""

from __future__ import annotations

import functools

import numpy as np
import torch

from vitrail.config import RunConfig
from vitrail.data.augment import repeated
from vitrail.data.dataset import ImageSet
from vitrail.data.loader import Loader, create_loader, epoch_order
from vitrail.data.order import balanced_order


def open_batches(config: RunConfig, images: ImageSet, device: torch.device) -> Loader:
    """The batches of a run's training images, on the device, in the order of each epoch."""
    data = config.data
    return create_loader(
        images,
        config.training.batch_size,
        functools.partial(training_order, config, images.labels),
        device,
        serving=data.serving,
        memory_gigabytes=data.memory_gigabytes,
        num_workers=data.num_workers,
    )


def training_order(config: RunConfig, labels: np.ndarray, epoch: int) -> np.ndarray:
    """The images of an epoch in turn, int64 indices; a function of the labels and the run's seed alone."""
    repeats = config.data.augment.repeats
    if config.training.imbalance == "balanced_sampling":
        # No more are drawn than are seen: what is cut off would be missing in the turns of the classes.
        order = balanced_order(labels, config.seed, epoch, -(-len(labels) // repeats))
        return order.repeat(repeats)[: len(labels)]
    return repeated(epoch_order(len(labels), config.seed, epoch), repeats)
