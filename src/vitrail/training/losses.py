"""What training makes small: cross-entropy, or one sigmoid for each label, and what is done about rare classes.

Every loss is a mean over images, so that the gradients of micro-batches add up to that of their batch.
"""

# Shapes: B images of a batch, N images of training, K classes

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.config import TrainingConfig
from vitrail.errors import ConfigError

FOCAL_GAMMA = 2.0  # of Lin et al. 2017
ADJUSTMENT = 1.0  # tau of Menon et al. 2021
SINGLE_LABEL_ONLY = ("balanced_sampling", "logit_adjusted")

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, K) and targets -> a number


def training_loss(settings: TrainingConfig, labels: np.ndarray, num_classes: int, device: torch.device) -> Loss:
    """The loss of a training on images with these labels: (N,), or 0 and 1 of (N, K) where images have several.

    It takes logits (B, K) float32 and targets, labels (B,) or shares (B, K). "auto" is taken for "none": it is settled
    before. Raises ConfigError for what several labels do not allow.
    """
    imbalance, smoothing = settings.imbalance, settings.label_smoothing
    counts = class_counts(labels, num_classes)
    if labels.ndim == 2:
        check_several_labels(imbalance)
        if imbalance == "focal":
            return lambda logits, targets: sigmoid_focal(logits, smoothed_labels(targets, smoothing))
        weight = None
        if imbalance == "class_weights":
            weight = torch.from_numpy(positive_weights(counts, len(labels))).float().to(device)
        return lambda logits, targets: F.binary_cross_entropy_with_logits(
            logits, smoothed_labels(targets, smoothing), pos_weight=weight
        )
    if imbalance == "class_weights":
        weights = torch.from_numpy(class_weights(counts)).float().to(device)
        return lambda logits, targets: weighted_cross_entropy(logits, targets, weights, smoothing)
    if imbalance == "focal":
        return lambda logits, targets: focal(logits, targets, smoothing)
    if imbalance == "logit_adjusted":
        added = torch.from_numpy(log_priors(counts)).float().to(device) * ADJUSTMENT
        return lambda logits, targets: F.cross_entropy(logits + added, targets, label_smoothing=smoothing)
    return lambda logits, targets: F.cross_entropy(logits, targets, label_smoothing=smoothing)


def check_several_labels(imbalance: str) -> None:
    """Raise ConfigError for what can be done about rare classes only where each image has one label."""
    if imbalance in SINGLE_LABEL_ONLY:
        raise ConfigError(
            f"training.imbalance={imbalance} needs images with one label each, and these may have several; "
            "use class_weights, focal or none"
        )


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How many images each class has, (K,) int64; an image with several labels counts for each."""
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)


def class_weights(counts: np.ndarray) -> np.ndarray:
    """What an image of each class counts, (K,): inverse to the class's images, 1 on average over all images.

    As scikit-learn's "balanced". A class without images has the weight 0.
    """
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0.0)


def positive_weights(counts: np.ndarray, num_images: int) -> np.ndarray:
    """What a label counts where it is there, (K,), for 1 where it is not: images without it for one with it.

    As torch's `pos_weight`. A label that no image has, or every image, counts 1.
    """
    useful = (counts > 0) & (counts < num_images)
    return np.where(useful, (num_images - counts) / np.maximum(counts, 1), 1.0)


def log_priors(counts: np.ndarray) -> np.ndarray:
    """The logarithm of each class's share of the images, (K,); a class without images counts as one with one."""
    filled = np.maximum(counts, 1)
    return np.log(filled / filled.sum())


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy in which an image counts as much as its class, or a mixture of images as theirs do in its shares.

    It equals cross-entropy over images that are there `weights` times, with label smoothing too; that of torch weighs
    the smoothed part by the other classes' weights.
    """
    own = weights[targets] if targets.ndim == 1 else targets @ weights
    return (own * F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")).mean()


def focal(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy in which classes count less the surer they are: times (1 - probability) ** 2. Lin et al. 2017.

    Of a target with shares of several classes each counts by its own probability.
    """
    shares = F.one_hot(targets, logits.shape[1]).float() if targets.ndim == 1 else targets
    shares = shares * (1 - smoothing) + smoothing / logits.shape[1]
    log_probabilities = F.log_softmax(logits, dim=1)
    # Not 1 - exp(log): near 1 nothing of it would be left.
    rest = -torch.expm1(log_probabilities)
    return -(shares * rest**FOCAL_GAMMA * log_probabilities).sum(dim=1).mean()


def sigmoid_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """As `focal`, with one sigmoid for each label: (B, K) logits and targets in 0..1 -> the mean over both."""
    there, absent = torch.sigmoid(-logits) ** FOCAL_GAMMA, torch.sigmoid(logits) ** FOCAL_GAMMA
    losses = targets * there * F.softplus(-logits) + (1 - targets) * absent * F.softplus(logits)
    return losses.mean()


def smoothed_labels(targets: Tensor, smoothing: float) -> Tensor:
    """Targets (B, K) float, moved by half of `smoothing` to the middle: 0.1 makes 0 and 1 of 0.05 and 0.95."""
    return targets.float() * (1 - smoothing) + smoothing / 2


def num_right(logits: Tensor, labels: Tensor) -> Tensor:
    """How many images are answered right: by the class with the largest logit, or with exactly their labels."""
    if labels.ndim == 2:
        return ((logits > 0) == (labels > 0)).all(dim=1).sum()
    return (logits.argmax(dim=1) == labels).sum()
