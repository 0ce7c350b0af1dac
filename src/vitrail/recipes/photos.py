"""Recipes for photographs."""

from __future__ import annotations

from vitrail.config import DataConfig, RunConfig, TrainingConfig
from vitrail.data.augment import AugmentConfig
from vitrail.models import model_config


def photos() -> RunConfig:
    """For a few thousand photographs: a small ViT with a convolutional stem, Muon, moved and recoloured images.

    vitrail train photos
    3,068 photographs of clothing, ten kinds: 9 minutes on one shared CPU core; 80.6 % of 341 validation images (mean of
    seeds 0 and 1: 82.1 and 79.1). With --time 5m on two cores: 70.2 % of 372 test images (seed 0).
    """
    return RunConfig(
        recipe="photos",
        model_name="vit_micro_conv16_64",
        data=DataConfig(
            source="photos",
            augment=AugmentConfig(
                shift_pixels=5,
                rotate_degrees=10,
                scale_rate=0.25,
                flip_rate=0.5,
                color_jitter=0.3,  # 64x48 pixels, 40 epochs: validation loss 0.92 -> 0.87
                cutmix_rate=0.5,  # 48x48 pixels, 120 epochs: 0.89 -> 0.78; no gain in 40
            ),
        ),
        model=model_config("vit_micro_conv16_64"),
        training=TrainingConfig(epochs=115, batch_size=64, optimizer="muon", learning_rate=3e-3, label_smoothing=0.1),
    )


def s3_vit_256() -> RunConfig:
    """A published general ViT in the sizes of its worked example: 256 pixels, 64 patches of 32, width 1024.

    54.6 million parameters, which 3,000 photographs cannot fill: for larger sets, and for a GPU, where alone it is
    to be trained to the end. Its faults are mended: scores are scaled by the size of a head, not by the width, and
    images need not be square. How it is to be trained was not published.

    vitrail train photos --recipe s3_vit_256
    On two CPU cores a step of 64 images takes about 15 s. Trained here for a few steps only, so no accuracy is given.
    """
    return RunConfig(
        recipe="s3_vit_256",
        model_name="s3_vit_256",
        data=DataConfig(
            source="photos",
            fit="pad",
            augment=AugmentConfig(shift_pixels=20, rotate_degrees=10, scale_rate=0.25, flip_rate=0.5, color_jitter=0.3),
        ),
        model=model_config("s3_vit_256"),
        training=TrainingConfig(epochs=100, batch_size=64, learning_rate=3e-4, label_smoothing=0.1),
    )
