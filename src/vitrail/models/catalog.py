"""The models by name."""

from __future__ import annotations

from typing import Any

# The sizes of Dosovitskiy et al. 2021, table 1; tiny and small from Touvron et al. 2021, table 1.
_TINY: dict[str, Any] = {"embed_dim": 192, "depth": 12, "num_heads": 3}
_SMALL: dict[str, Any] = {"embed_dim": 384, "depth": 12, "num_heads": 6}
_BASE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_MICRO: dict[str, Any] = {
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 2,
    "stem": "conv",
    "class_token": False,
    "global_pool": "avg",
}
_MNIST: dict[str, Any] = {"patch_size": 7, "image_size": 28, "in_chans": 1, "num_classes": 10}

# A name -> the settings in which it differs from the defaults of its family: of the ViT, where no `kind` is given.
MODELS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {**_TINY, "patch_size": 16, "image_size": 224},
    "vit_small_patch16_224": {**_SMALL, "patch_size": 16, "image_size": 224},
    "vit_small_patch32_224": {**_SMALL, "patch_size": 32, "image_size": 224},
    "vit_base_patch16_224": {**_BASE, "patch_size": 16, "image_size": 224},
    "vit_base_patch32_224": {**_BASE, "patch_size": 32, "image_size": 224},
    "vit_large_patch16_224": {**_LARGE, "patch_size": 16, "image_size": 224},
    # Small images, few of them: a convolutional stem and the mean over patches learn from the fewest images.
    "vit_micro_conv4_8": {**_MICRO, "patch_size": 4, "image_size": 8, "in_chans": 1, "num_classes": 10},
    "vit_micro_conv8_28": {**_MICRO, "patch_size": 8, "image_size": 28, "in_chans": 1, "num_classes": 10},
    "vit_micro_conv16_64": {**_MICRO, "patch_size": 16, "image_size": 64, "num_classes": 10},
    # Published models for MNIST, their faults mended; the recipes of the same names tell which.
    "s2_shallow_vit": {**_MNIST, "embed_dim": 32, "depth": 3, "num_heads": 4, "act_layer": "relu", "qkv_bias": False},
    "s5_wide_heads_vit": {
        **_MNIST,
        "embed_dim": 100,
        "depth": 3,
        "num_heads": 3,
        "head_dim": 100,
        "act_layer": "relu",
        "pos_embed_std": 0,
    },
    "s5_vit": {**_MNIST, "embed_dim": 100, "depth": 3, "num_heads": 2},
}
