"""What is done about rare classes where nobody says what."""

from __future__ import annotations

import logging

import numpy as np

from vitrail.config import RunConfig, with_settings
from vitrail.errors import ConfigError
from vitrail.training.losses import check_several_labels, class_counts

logger = logging.getLogger(__name__)

# Images of the largest class for one of the smallest from which on `auto` acts, and how. benchmarks/imbalance.py
# measures what it gains.
LEAST_RATIO = 5.0
CHOSEN = "balanced_sampling"


def fit_to_counts(config: RunConfig, labels: np.ndarray) -> RunConfig:
    """The config with training.imbalance=auto settled by the training images' labels, (N,) or 0 and 1 of (N, K)."""
    if config.training.imbalance != "auto":
        return config
    counts = class_counts(labels, config.model.num_classes)
    chosen, reason = choose_imbalance(counts, several=labels.ndim == 2)
    if reason:
        logger.info("%s", reason)
    return with_settings(config, {"training.imbalance": chosen})


def check_for_several_labels(config: RunConfig) -> None:
    """Raise ConfigError for settings that images with several labels do not allow."""
    check_several_labels(config.training.imbalance)
    if config.evaluation.reject is not None:
        raise ConfigError(
            f"evaluation.reject={config.evaluation.reject:g} is for images with one label each, and these may have "
            "several; leave it out"
        )


def choose_imbalance(counts: np.ndarray, *, several: bool) -> tuple[str, str | None]:
    """What is done about classes with so many images (K,), and a sentence that says why if something is.

    Where images may have `several` labels it is nothing: each has its own sigmoid, and mean average precision, which
    the best epoch is chosen by, does not depend on how rare it is.
    """
    present = counts[counts > 0]
    if several or not len(present):
        return "none", None
    ratio = float(present.max() / present.min())
    if ratio < LEAST_RATIO:
        return "none", None
    return CHOSEN, (
        f"The largest class has {int(present.max()):,} images to train on, the smallest {int(present.min()):,}: "
        f"training.imbalance={CHOSEN}, and the best epoch is chosen by balanced accuracy"
    )
