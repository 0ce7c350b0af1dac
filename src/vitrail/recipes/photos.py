"""Recipes for photographs."""

from __future__ import annotations

from vitrail.config import DataConfig, RunConfig, TrainingConfig
from vitrail.data.augment import AugmentConfig
from vitrail.models import model_config


def photos() -> RunConfig:
    """For a few thousand photographs: a small ViT with a convolutional stem, Muon, moved and recoloured images.

    vitrail train photos
    Of 2,727 photographs of clothing, ten kinds: 32 epochs, 104 s on one CPU core, 69.8 % of 682 others (seed 0).
    """
    return RunConfig(
        recipe="photos",
        model_name="vit_micro_conv16_64",
        data=DataConfig(
            source="photos",
            fit="pad",
            augment=AugmentConfig(shift_pixels=5, rotate_degrees=10, scale_rate=0.2, flip_rate=0.5, color_jitter=0.3),
        ),
        model=model_config("vit_micro_conv16_64"),
        training=TrainingConfig(epochs=100, batch_size=64, optimizer="muon", learning_rate=3e-3, label_smoothing=0.1),
    )
