"""The models by name: timm's names where timm has the model, with timm's settings, so that its weights fit."""

from __future__ import annotations

from typing import Any

# Dosovitskiy et al. 2021, table 1; tiny and small from Touvron et al. 2021, table 1; giant and gigantic from
# Zhai et al. 2022, table 2.
_TINY: dict[str, Any] = {"embed_dim": 192, "depth": 12, "num_heads": 3}
_SMALL: dict[str, Any] = {"embed_dim": 384, "depth": 12, "num_heads": 6}
_BASE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_HUGE: dict[str, Any] = {"embed_dim": 1280, "depth": 32, "num_heads": 16}
_GIANT: dict[str, Any] = {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11}
_GIGANTIC: dict[str, Any] = {"embed_dim": 1664, "depth": 48, "num_heads": 16, "mlp_ratio": 64 / 13}

# Touvron et al. 2022, "DeiT III"; its positions are for patches alone.
_DEIT3: dict[str, Any] = {"patch_size": 16, "no_embed_class": True, "init_values": 1e-6}
# Darcet et al. 2024, "Vision Transformers Need Registers", as timm trains them: without a class token.
_REG4: dict[str, Any] = {"patch_size": 16, "class_token": False, "reg_tokens": 4, "global_pool": "avg"}
_REG4_SCALED: dict[str, Any] = {**_REG4, "no_embed_class": True, "init_values": 1e-5}
_LITTLE: dict[str, Any] = {"embed_dim": 320, "depth": 14, "num_heads": 5, "mlp_ratio": 5.6}
_MEDIUM: dict[str, Any] = {"embed_dim": 512, "depth": 12, "num_heads": 8}
_MEDIUM_DEEP: dict[str, Any] = {"embed_dim": 512, "depth": 20, "num_heads": 8}
_BETWIXT: dict[str, Any] = {"embed_dim": 640, "depth": 12, "num_heads": 10}
_SO150M: dict[str, Any] = {"embed_dim": 896, "depth": 18, "num_heads": 14, "mlp_ratio": 2.572}
# Oquab et al. 2023, "DINOv2". Its giant has a gate, and two thirds of the hidden width for it.
_DINOV2: dict[str, Any] = {"patch_size": 14, "image_size": 518, "init_values": 1e-5}
_DINOV2_REG4: dict[str, Any] = {**_DINOV2, "reg_tokens": 4, "no_embed_class": True}
_GATED_GIANT: dict[str, Any] = {
    "embed_dim": 1536,
    "depth": 40,
    "num_heads": 24,
    "mlp_layer": "swiglu",
    "mlp_ratio": 8 / 3,
}
# Siméoni et al. 2025, "DINOv3". The published weights have biases of query and value, here those of the key too (qkvb);
# in the distilled base, large and huge all are zero, hence timm's names without.
_DINOV3_QKVB: dict[str, Any] = {
    "patch_size": 16,
    "image_size": 256,
    "reg_tokens": 4,
    "global_pool": "avg",
    "fc_norm": False,
    "norm_eps": 1e-5,
    "init_values": 1e-5,
    "pos_embed": "rope",
}
_DINOV3: dict[str, Any] = {**_DINOV3_QKVB, "qkv_bias": False}
_GATED: dict[str, Any] = {"mlp_layer": "swiglu"}
_HUGE_20: dict[str, Any] = {**_HUGE, "num_heads": 20}
_7B: dict[str, Any] = {"embed_dim": 4096, "depth": 40, "num_heads": 32, "mlp_ratio": 2.0}

_MICRO: dict[str, Any] = {
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 2,
    "stem": "conv",
    "class_token": False,
    "global_pool": "avg",
}
_MNIST: dict[str, Any] = {"patch_size": 7, "image_size": 28, "in_chans": 1, "num_classes": 10}

# Hassani et al. 2021, table 1: cct_<blocks>_<kernel>x<convolutions>_<image>, with the dropouts of the authors' code
_CCT: dict[str, Any] = {"kind": "cct", "attn_drop_rate": 0.1, "drop_path_rate": 0.1}
_CCT_128: dict[str, Any] = {**_CCT, "embed_dim": 128, "num_heads": 2, "mlp_ratio": 1.0}
_CCT_256: dict[str, Any] = {**_CCT, "embed_dim": 256, "num_heads": 4, "mlp_ratio": 2.0}
_CCT_384: dict[str, Any] = {**_CCT, "embed_dim": 384, "num_heads": 6, "mlp_ratio": 3.0}
_CCT_3X1: dict[str, Any] = {"kernel_size": 3, "num_convs": 1, "image_size": 32, "num_classes": 10}
_CCT_3X2: dict[str, Any] = {"kernel_size": 3, "num_convs": 2, "image_size": 32, "num_classes": 10}
_CCT_7X2: dict[str, Any] = {"kernel_size": 7, "stride": 2, "num_convs": 2, "image_size": 224}
_ALEXNET: dict[str, Any] = {"kind": "cnn", "architecture": "alexnet", "drop_rate": 0.5}
_RESNET18: dict[str, Any] = {"kind": "cnn", "architecture": "resnet18"}

# A name -> the settings in which it differs from the defaults of its family: of the ViT, where no `kind` is given.
MODELS: dict[str, dict[str, Any]] = {
    # The Vision Transformer
    "vit_tiny_patch16_224": {**_TINY, "patch_size": 16, "image_size": 224},
    "vit_tiny_patch16_384": {**_TINY, "patch_size": 16, "image_size": 384},
    "vit_small_patch8_224": {**_SMALL, "patch_size": 8, "image_size": 224},
    "vit_small_patch16_224": {**_SMALL, "patch_size": 16, "image_size": 224},
    "vit_small_patch16_384": {**_SMALL, "patch_size": 16, "image_size": 384},
    "vit_small_patch32_224": {**_SMALL, "patch_size": 32, "image_size": 224},
    "vit_small_patch32_384": {**_SMALL, "patch_size": 32, "image_size": 384},
    "vit_base_patch8_224": {**_BASE, "patch_size": 8, "image_size": 224},
    "vit_base_patch16_224": {**_BASE, "patch_size": 16, "image_size": 224},
    "vit_base_patch16_384": {**_BASE, "patch_size": 16, "image_size": 384},
    "vit_base_patch32_224": {**_BASE, "patch_size": 32, "image_size": 224},
    "vit_base_patch32_384": {**_BASE, "patch_size": 32, "image_size": 384},
    "vit_large_patch14_224": {**_LARGE, "patch_size": 14, "image_size": 224},
    "vit_large_patch16_224": {**_LARGE, "patch_size": 16, "image_size": 224},
    "vit_large_patch16_384": {**_LARGE, "patch_size": 16, "image_size": 384},
    "vit_large_patch32_224": {**_LARGE, "patch_size": 32, "image_size": 224},
    "vit_large_patch32_384": {**_LARGE, "patch_size": 32, "image_size": 384},
    "vit_huge_patch14_224": {**_HUGE, "patch_size": 14, "image_size": 224},
    "vit_giant_patch14_224": {**_GIANT, "patch_size": 14, "image_size": 224},
    "vit_gigantic_patch14_224": {**_GIGANTIC, "patch_size": 14, "image_size": 224},
    # DeiT: the same, trained otherwise; `distilled` has a second token and head
    "deit_tiny_patch16_224": {**_TINY, "patch_size": 16, "image_size": 224},
    "deit_small_patch16_224": {**_SMALL, "patch_size": 16, "image_size": 224},
    "deit_base_patch16_224": {**_BASE, "patch_size": 16, "image_size": 224},
    "deit_base_patch16_384": {**_BASE, "patch_size": 16, "image_size": 384},
    "deit_tiny_distilled_patch16_224": {**_TINY, "patch_size": 16, "image_size": 224, "distilled": True},
    "deit_small_distilled_patch16_224": {**_SMALL, "patch_size": 16, "image_size": 224, "distilled": True},
    "deit_base_distilled_patch16_224": {**_BASE, "patch_size": 16, "image_size": 224, "distilled": True},
    "deit_base_distilled_patch16_384": {**_BASE, "patch_size": 16, "image_size": 384, "distilled": True},
    # DeiT III: LayerScale
    "deit3_small_patch16_224": {**_SMALL, **_DEIT3, "image_size": 224},
    "deit3_small_patch16_384": {**_SMALL, **_DEIT3, "image_size": 384},
    "deit3_medium_patch16_224": {**_MEDIUM, **_DEIT3, "image_size": 224},
    "deit3_base_patch16_224": {**_BASE, **_DEIT3, "image_size": 224},
    "deit3_base_patch16_384": {**_BASE, **_DEIT3, "image_size": 384},
    "deit3_large_patch16_224": {**_LARGE, **_DEIT3, "image_size": 224},
    "deit3_large_patch16_384": {**_LARGE, **_DEIT3, "image_size": 384},
    "deit3_huge_patch14_224": {**_HUGE, **_DEIT3, "patch_size": 14, "image_size": 224},
    # Four registers, and the mean over patches
    "vit_little_patch16_reg4_gap_256": {**_LITTLE, **_REG4_SCALED, "image_size": 256},
    "vit_medium_patch16_reg4_gap_256": {**_MEDIUM, **_REG4_SCALED, "image_size": 256},
    "vit_mediumd_patch16_reg4_gap_256": {**_MEDIUM_DEEP, **_REG4_SCALED, "image_size": 256},
    "vit_mediumd_patch16_reg4_gap_384": {**_MEDIUM_DEEP, **_REG4_SCALED, "image_size": 384},
    "vit_betwixt_patch16_reg4_gap_256": {**_BETWIXT, **_REG4_SCALED, "image_size": 256},
    "vit_betwixt_patch16_reg4_gap_384": {**_BETWIXT, **_REG4_SCALED, "image_size": 384},
    "vit_base_patch16_reg4_gap_256": {**_BASE, **_REG4, "no_embed_class": True, "image_size": 256},
    "vit_so150m_patch16_reg4_gap_256": {**_SO150M, **_REG4, "fc_norm": False, "image_size": 256},
    "vit_so150m_patch16_reg4_gap_384": {**_SO150M, **_REG4, "fc_norm": False, "image_size": 384},
    "vit_so150m_patch16_reg4_map_256": {**_SO150M, **_REG4, "global_pool": "map", "image_size": 256},
    # DINOv2
    "vit_small_patch14_dinov2": {**_SMALL, **_DINOV2},
    "vit_base_patch14_dinov2": {**_BASE, **_DINOV2},
    "vit_large_patch14_dinov2": {**_LARGE, **_DINOV2},
    "vit_giant_patch14_dinov2": {**_GATED_GIANT, **_DINOV2},
    "vit_small_patch14_reg4_dinov2": {**_SMALL, **_DINOV2_REG4},
    "vit_base_patch14_reg4_dinov2": {**_BASE, **_DINOV2_REG4},
    "vit_large_patch14_reg4_dinov2": {**_LARGE, **_DINOV2_REG4},
    "vit_giant_patch14_reg4_dinov2": {**_GATED_GIANT, **_DINOV2_REG4},
    # DINOv3: rotary positions
    "vit_tiny_patch16_dinov3_qkvb": {**_TINY, **_DINOV3_QKVB},
    "vit_small_patch16_dinov3": {**_SMALL, **_DINOV3},
    "vit_small_patch16_dinov3_qkvb": {**_SMALL, **_DINOV3_QKVB},
    "vit_small_plus_patch16_dinov3": {**_SMALL, **_DINOV3, **_GATED},
    "vit_small_plus_patch16_dinov3_qkvb": {**_SMALL, **_DINOV3_QKVB, **_GATED},
    "vit_base_patch16_dinov3": {**_BASE, **_DINOV3},
    "vit_base_patch16_dinov3_qkvb": {**_BASE, **_DINOV3_QKVB},
    "vit_large_patch16_dinov3": {**_LARGE, **_DINOV3},
    "vit_large_patch16_dinov3_qkvb": {**_LARGE, **_DINOV3_QKVB},
    "vit_huge_plus_patch16_dinov3": {**_HUGE_20, **_DINOV3, **_GATED},
    "vit_huge_plus_patch16_dinov3_qkvb": {**_HUGE_20, **_DINOV3_QKVB, **_GATED},
    "vit_7b_patch16_dinov3": {**_7B, **_DINOV3, **_GATED},
    # Small images, few of them: a convolutional stem and the mean over patches learn from the fewest images.
    "vit_micro_conv4_8": {**_MICRO, "patch_size": 4, "image_size": 8, "in_chans": 1, "num_classes": 10},
    "vit_micro_conv8_28": {**_MICRO, "patch_size": 8, "image_size": 28, "in_chans": 1, "num_classes": 10},
    "vit_micro_conv16_64": {**_MICRO, "patch_size": 16, "image_size": 64, "num_classes": 10},
    # CIFAR's images, in the size that is usual for them
    "cifar_vit": {
        "patch_size": 4,
        "image_size": 32,
        "num_classes": 10,
        "embed_dim": 192,
        "depth": 9,
        "num_heads": 3,
    },
    # Compact transformers, whose tokens are made by convolutions
    "cct_2_3x2_32": {**_CCT_128, **_CCT_3X2, "depth": 2},
    "cct_4_3x2_32": {**_CCT_128, **_CCT_3X2, "depth": 4},
    "cct_6_3x1_32": {**_CCT_256, **_CCT_3X1, "depth": 6},
    "cct_7_3x1_32": {**_CCT_256, **_CCT_3X1, "depth": 7},
    "cct_7_7x2_224": {**_CCT_256, **_CCT_7X2, "depth": 7, "num_classes": 102},
    "cct_14_7x2_224": {**_CCT_384, **_CCT_7X2, "depth": 14},
    # CNNs to compare with: torchvision's, and in the forms that suit images of 32x32
    "alexnet": {**_ALEXNET, "image_size": 224},
    "alexnet_32": {**_ALEXNET, "small_images": True, "image_size": 32, "num_classes": 10},
    "resnet18": {**_RESNET18, "image_size": 224},
    "resnet18_32": {**_RESNET18, "small_images": True, "image_size": 32, "num_classes": 10},
    # Self-attention on maps
    "attention2d_micro_conv4_32": {
        "kind": "attention2d",
        "stem": "conv",
        "depth": 3,
        "final_norm": True,
        "image_size": 32,
        "num_classes": 10,
    },
    # Published models for MNIST, their faults mended; the recipes of the same names tell which.
    "s1_attention2d": {"kind": "attention2d", "image_size": 32, "num_classes": 10},
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
    # A published general ViT in the sizes of its worked example, as vit-pytorch builds it; see the recipe s3_vit_256.
    "s3_vit_256": {
        "patch_size": 32,
        "image_size": 256,
        "embed_dim": 1024,
        "depth": 6,
        "num_heads": 16,
        "head_dim": 64,
        "mlp_ratio": 2.0,
        "patch_norm": True,
        "qkv_bias": False,
        "norm_eps": 1e-5,
        "pos_embed_std": 1.0,
        "pos_drop_rate": 0.1,
        "attn_drop_rate": 0.1,
        "proj_drop_rate": 0.1,
    },
}
