"""How good a model is on the validation images, and by what the best epoch is chosen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.config import TrainingConfig
from vitrail.data.dataset import ImageSet
from vitrail.data.loader import channels_first
from vitrail.engines.pytorch import forward_batches
from vitrail.evaluation.multilabel import mean_average_precision
from vitrail.training.losses import num_right


def best_by(settings: TrainingConfig, labels: np.ndarray) -> str:
    """The number on validation images whose highest value names the best epoch.

    It is accuracy; balanced accuracy where something is done about rare classes, which accuracy would undo; mean
    average precision where images may have several labels.
    """
    if labels.ndim == 2:
        return "mean_average_precision"
    return "accuracy" if settings.imbalance in ("auto", "none") else "balanced_accuracy"


def validate(model: nn.Module, images: ImageSet, device: torch.device, best_by: str) -> dict[str, float]:
    """Accuracy, what the best epoch is chosen by where it is another, and the mean loss, without regard to rarity."""
    logits = torch.cat([forward_batches(model, channels_first(block), device) for block in images.blocks()])
    labels = torch.tensor(images.labels)
    found = {"accuracy": (num_right(logits, labels).double() / len(labels)).item()}
    if best_by == "balanced_accuracy":
        found[best_by] = _balanced_accuracy(logits.argmax(dim=1), labels)
    if labels.ndim == 2:
        found[best_by] = mean_average_precision(logits.numpy(), images.labels) or 0.0
        return found | {"loss": F.binary_cross_entropy_with_logits(logits.double(), labels.double()).item()}
    return found | {"loss": F.cross_entropy(logits.double(), labels).item()}


def _balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """The mean over classes of the share of their images that is right."""
    right, counts = (predicted == labels).double(), torch.bincount(labels)
    recalls = torch.bincount(labels, weights=right) / counts.clamp(min=1)
    return recalls[counts > 0].mean().item()
