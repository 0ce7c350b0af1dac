"""A config fitted to its data: to the shapes of the images, to their pixels, and to what mirroring makes of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitrail.config import RunConfig, with_settings
from vitrail.data.augment import flips_hurt
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.ratios import choose_fit
from vitrail.errors import ConfigError
from vitrail.models.vit_config import ViTConfig

logger = logging.getLogger(__name__)


# What says how files are read and kept, which images that are no files make nothing of.
_OF_FILES = ("serving", "memory_gigabytes", "cache_gigabytes", "max_broken_rate")
# What belongs to another setting: without that it changes nothing.
_PARTS = {
    "crop_ratio": ("crop_scale", "0.3,1"),
    "policy_magnitude": ("policy", "randaugment"),
    "policy_num_ops": ("policy", "randaugment"),
}


def check_of_files(dataset: Dataset, asked: Mapping[str, Any]) -> None:
    """Raise ConfigError for settings `asked` for that are about image files, where the data set has none.

    The data set is that before corrections.
    """
    for name in _OF_FILES:
        value = asked.get(f"data.{name}", "auto")
        if dataset.preparer is None and value not in (None, "none", "null", "auto"):
            raise ConfigError(f"data.{name}={value} is about image files, and {dataset.name} has none; leave it out")


def check_parts(config: RunConfig, asked: Mapping[str, Any]) -> None:
    """Raise ConfigError for augmentation settings `asked` for that change nothing without another one."""
    augment = config.data.augment
    for name, (whole, value) in _PARTS.items():
        missing = augment.crop_scale is None if whole == "crop_scale" else augment.policy != value
        if missing and f"data.augment.{name}" in asked:
            raise ConfigError(
                f"data.augment.{name} changes nothing without data.augment.{whole}={value}; set both, or neither"
            )


def fit_to_shapes(config: RunConfig, dataset: Dataset, asked: Mapping[str, Any]) -> RunConfig:
    """The config with the fit that the images' shapes suggest, where it has none, and a model that goes with its fit.

    `asked` are the settings that the user gave. Raises ConfigError for a fit that the model cannot have.
    """
    fit, rate = config.data.fit, config.data.crop_rate
    if fit == "auto" and rate < 1:
        fit = "crop"
    elif fit == "auto":
        fit, reason = choose_fit(dataset.sampled_shapes(), config.model.image_size)
        if reason:
            logger.info("%s", reason)
    native = fit == "native"
    settings: dict[str, Any] = {"data.fit": fit}
    if native and rate < 1:
        raise ConfigError(
            f"data.crop_rate={rate:g} cuts images off, and data.fit=native keeps them whole; leave one out"
        )
    if isinstance(config.model, ViTConfig):
        if "model.padding_mask" in asked and config.model.padding_mask != native:
            raise ConfigError("model.padding_mask follows from the fit; ask for data.fit=native, or for another, alone")
        settings["model.padding_mask"] = native
    elif native:
        raise ConfigError(
            f"data.fit=native leaves padding out of attention, which {config.model_name} cannot; use a ViT, such as "
            "--model vit_micro_conv16_64 or vit_tiny_patch16_224, or data.fit=pad"
        )
    return with_settings(config, settings)


def fit_flips(config: RunConfig, dataset: Dataset, chosen: bool) -> RunConfig:
    """The config without mirrored images where classes are digits or letters, unless that was `chosen` by the user.

    Photographs, of colour and above 64 pixels, may have numbers for classes, and are mirrored.
    """
    rate, (rows, columns, channels) = config.data.augment.flip_rate, dataset.shape
    if not rate or not flips_hurt(dataset.classes) or (channels == 3 and max(rows, columns) > 64):
        return config
    if chosen:
        logger.warning("data.augment.flip_rate=%g mirrors digits or letters, which are others then, or none", rate)
        return config
    logger.info(
        "The classes look like digits or letters, so images are not mirrored; if they are not: --set "
        "data.augment.flip_rate=%g",
        rate,
    )
    return with_settings(config, {"data.augment.flip_rate": 0})


def fit_to_pixels(config: RunConfig, train: ImageSet) -> RunConfig:
    """The config with the mean and deviation of the training images, where it has none."""
    if config.model.mean is not None and config.model.std is not None:
        return config
    # Counted by value: exact, and many times faster than sums over all pixels.
    channels, levels = config.model.in_chans, np.arange(256)
    counts = np.zeros((channels, 256), np.int64)
    for block in train.blocks():
        inside = ... if block.shape[3] == channels else block[..., -1] > 0  # padding is no part of the images
        for channel in range(channels):
            counts[channel] += np.bincount(block[..., channel][inside].ravel(), minlength=256)
    means = [float(np.average(levels, weights=count)) for count in counts]
    deviations = [
        float(np.average((levels - mean) ** 2, weights=count)) ** 0.5 for count, mean in zip(counts, means, strict=True)
    ]
    mean = [round(value / 255, 6) for value in means]
    std = [max(round(value / 255, 6), 1e-3) for value in deviations]
    return with_settings(config, {"model.mean": config.model.mean or mean, "model.std": config.model.std or std})
