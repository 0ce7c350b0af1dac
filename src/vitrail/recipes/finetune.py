"""Recipes for trainings that begin with weights."""

from __future__ import annotations

from vitrail.config import DataConfig, RunConfig, TrainingConfig
from vitrail.data.augment import AugmentConfig
from vitrail.models import model_config


def finetune() -> RunConfig:
    """For weights that have seen many images, with --init: few epochs at a small learning rate, gentle moves.

    vitrail train photos --init timm:vit_tiny_patch16_224
    Model, image size, normalisation and fit are those of the weights. Not measured on published weights.
    """
    return RunConfig(
        recipe="finetune",
        model_name="vit_tiny_patch16_224",
        data=DataConfig(
            source="photos",
            augment=AugmentConfig(shift_pixels=2, rotate_degrees=10, scale_rate=0.2, flip_rate=0.5, color_jitter=0.2),
        ),
        model=model_config("vit_tiny_patch16_224"),
        training=TrainingConfig(epochs=10, batch_size=32, learning_rate=1e-4, warmup_rate=0.1, label_smoothing=0.1),
    )
