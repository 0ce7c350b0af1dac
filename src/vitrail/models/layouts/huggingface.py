"""Hugging Face's names for ViT, DeiT, DINOv2 and DINOv3, in files and in memory, and what their config.json says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import CheckpointError, ConfigError, suggest
from vitrail.models.layouts.packing import (
    fill_biases,
    fold_class_position,
    fold_prefix_positions,
    pack,
    split_qkv,
    unfold_positions,
)
from vitrail.models.positions import sincos2d_pos_embed
from vitrail.models.vit_config import ViTConfig

# A model_type -> what its config means where it says nothing.
MODEL_TYPES: dict[str, dict[str, Any]] = {
    "vit": {"num_attention_heads": 12, "layer_norm_eps": 1e-12},
    "deit": {"num_attention_heads": 12, "layer_norm_eps": 1e-12},
    "dinov2": {"num_attention_heads": 12, "layer_norm_eps": 1e-6},
    "dinov2_with_registers": {"num_attention_heads": 12, "layer_norm_eps": 1e-6},
    "dinov3_vit": {"num_attention_heads": 6, "layer_norm_eps": 1e-5, "rope_theta": 100.0},
}

# Its activations -> ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# Patterns of its names -> ours, in this order. Files keep the names of before transformers 5; in memory they are newer.
_NAMES = (
    (r"^(vit|deit|dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^((encoder|model)\.)?layers?\.(\d+)\.", r"blocks.\3."),
    (r"^layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(q)uery\.", ".attn.q_proj."),
    (r"\.attention\.attention\.(k)ey\.", ".attn.k_proj."),
    (r"\.attention\.attention\.(v)alue\.", ".attn.v_proj."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
_NOT_NEEDED = re.compile(r"(.*\.)?(mask_token|inv_freq)|(.*\.)?pooler\..*")  # for training, or for sentences


def recognises(names: Iterable[str]) -> bool:
    """Whether tensors are named as in transformers' ViT, DeiT, DINOv2 or DINOv3."""
    return any(re.search(r"^(\w+\.)?embeddings\.patch_embeddings\.", name) for name in names) and any(
        re.search(r"(^|\.)layers?\.0\.attention\.", name) for name in names
    )


def import_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' models under our names; the same logits.

    The class position of a model with registers, which have none, becomes part of the class token. A distillation token
    without a head of its own is a register.
    """
    ours: dict[str, Tensor] = {}
    is_gated = any(name.endswith("mlp.gate_proj.weight") for name in weights)
    for name, tensor in weights.items():
        if _NOT_NEEDED.fullmatch(name):
            continue
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        ours[name.replace(".mlp.up_proj.", ".mlp.fc1_x." if is_gated else ".mlp.fc1.")] = tensor
    if "reg_token" in ours and not ours["reg_token"].shape[1]:
        del ours["reg_token"]
    if "reg_token" in ours and "pos_embed" in ours and "cls_token" in ours:
        ours = fold_class_position(ours)
    if "dist_token" in ours and "head.weight" in ours and "head_dist.weight" not in ours:
        ours["reg_token"] = ours.pop("dist_token")
    return pack(ours)


def describe(weights: Mapping[str, Tensor], described: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings that shapes do not tell, from a parsed config.json, or as published models have them.

    Mean and deviation are taken from it if preprocessor_config.json is merged into it. Raises CheckpointError for a
    model_type or an activation of other models.
    """
    said = dict(described or {})
    if described is None:
        said["model_type"] = _likely_type(weights)
    model_type = str(said.get("model_type"))
    if model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"model_type {model_type!r} is none of {', '.join(MODEL_TYPES)}, the Vision Transformers that can be read"
            + suggest(model_type, MODEL_TYPES).replace(" Did", "; did").rstrip("?")
        )
    said = MODEL_TYPES[model_type] | {key: value for key, value in said.items() if value is not None}
    settings: dict[str, Any] = {"norm_eps": said["layer_norm_eps"]}
    if described is not None:
        activation = str(said.get("hidden_act", "gelu"))
        if activation not in ACTIVATIONS:
            raise CheckpointError(f"hidden_act {activation!r} is none of {', '.join(ACTIVATIONS)}")
        if model_type == "dinov3_vit" and said.get("use_gated_mlp") and ACTIVATIONS[activation] != "silu":
            raise CheckpointError(f"A gated MLP with hidden_act {activation!r} cannot be read; only 'silu' can")
        settings |= {"num_heads": said["num_attention_heads"], "act_layer": ACTIVATIONS[activation]}
        settings["image_size"] = _pair(said.get("image_size", 224))
    has_registers = any(name.endswith("embeddings.register_tokens") for name in weights)
    settings["pos_embed_antialias"] = model_type == "dinov2_with_registers" or has_registers
    if model_type == "dinov3_vit":
        settings |= {"pos_embed": "rope", "rope_temperature": said["rope_theta"]}
    if said.get("id2label"):
        settings["num_classes"] = len(said["id2label"])
    if said.get("do_normalize") is False:
        in_chans = said.get("num_channels", 3)
        settings |= {"mean": (0.0,) * in_chans, "std": (1.0,) * in_chans}
    elif "image_mean" in said and "image_std" in said:
        settings |= {"mean": tuple(said["image_mean"]), "std": tuple(said["image_std"])}
    return settings


def _likely_type(weights: Mapping[str, Tensor]) -> str:
    """The model_type that names tell: all that it decides are norm_eps and rotary positions."""
    if not any(name.endswith("embeddings.position_embeddings") for name in weights):
        return "dinov3_vit"
    return "dinov2" if any(name.endswith(".lambda1") for name in weights) else "vit"


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


# Weights out

_CLASSES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassificationWithTeacher",
    "dinov2": "Dinov2ForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
}
_THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}

# Patterns of our names -> theirs in files, in this order.
_NAMES_OUT = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^dist_token$", "embeddings.distillation_token"),
    (r"^reg_token$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"\.attn\.q_proj\.", ".attention.attention.query."),
    (r"\.attn\.k_proj\.", ".attention.attention.key."),
    (r"\.attn\.v_proj\.", ".attention.attention.value."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
)
_VIT_BLOCK = {
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
_SWIGLU = {".mlp.fc1.": ".mlp.weights_in.", ".mlp.fc2.": ".mlp.weights_out."}


def model_type(config: ViTConfig) -> str:
    """The model of transformers that can hold ours, if one can: DINOv2 for all that ViT and DeiT have not."""
    if config.distilled:
        return "deit"
    if config.reg_tokens:
        return "dinov2_with_registers"
    is_plain = config.global_pool == "token" and config.init_values is None and config.mlp_layer == "mlp"
    return "vit" if is_plain else "dinov2"


def why_not(config: ViTConfig) -> str | None:
    """What a model has that no classifier of transformers has, or None."""
    if config.stem != "linear":
        return f"stem={config.stem!r}"
    if config.padding_mask:
        return "padding_mask=true (data.fit=native)"
    if config.patch_norm or config.qk_norm:
        return "patch_norm=true" if config.patch_norm else "qk_norm=true"
    if config.pos_embed == "rope" or config.global_pool == "map" or not config.class_token:
        named = [f"pos_embed={config.pos_embed!r}"] * (config.pos_embed == "rope")
        named += [f"global_pool={config.global_pool!r}"] * (config.global_pool == "map")
        return [*named, "class_token=false"][0]
    if config.norm_after_pooling:
        return f"a norm after pooling (global_pool={config.global_pool!r})"
    if config.head_dim is not None and config.head_dim * config.num_heads != config.embed_dim:
        return f"head_dim={config.head_dim}"
    kind = model_type(config)
    if kind == "deit":
        has = {"reg_tokens": config.reg_tokens, "init_values": config.init_values, "swiglu": config.mlp_layer != "mlp"}
        return next((f"distilled=true beside {name}" for name, value in has.items() if value), None)
    if kind.startswith("dinov2"):
        if config.image_size[0] != config.image_size[1] or config.patch_size[0] != config.patch_size[1]:
            return f"image_size={config.image_size[0]}x{config.image_size[1]} where it is a DINOv2"
        if _whole_ratio(config) is None:
            return f"mlp_ratio={config.mlp_ratio:g} where it is a DINOv2"
    return None


def _whole_ratio(config: ViTConfig) -> int | None:
    """The mlp_ratio of DINOv2 that gives our hidden width: a whole number, of which a gated MLP takes two thirds."""
    hidden = int(config.embed_dim * config.mlp_ratio)
    for ratio in range(1, 33):
        width = config.embed_dim * ratio
        if hidden == ((width * 2 // 3 + 7) // 8 * 8 if config.mlp_layer == "swiglu" else width):
            return ratio
    return None


def to_huggingface(
    config: ViTConfig,
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    *,
    fit: str = "squash",
    crop_rate: float = 1.0,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """config.json, preprocessor_config.json and the tensors of a file that transformers loads as the same model.

    Images are stretched by its image processor, or with `fit` "crop", if they are to be square, cut off, and
    `crop_rate` of each side kept. Raises ConfigError for a model that none of its classifiers is.
    """
    reason = why_not(config)
    if reason is not None:
        raise ConfigError(f"Hugging Face's transformers has no classifier with {reason}")
    kind = model_type(config)
    described: dict[str, Any] = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "hidden_act": _THEIR_ACTIVATIONS[config.act_layer],
        "layer_norm_eps": config.norm_eps,
        "image_size": _one_or_two(config.image_size),
        "patch_size": _one_or_two(config.patch_size),
        "num_channels": config.in_chans,
        "qkv_bias": config.qkv_bias,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
        "dtype": "float32",
    }
    if kind.startswith("dinov2"):
        described |= {"mlp_ratio": _whole_ratio(config), "use_swiglu_ffn": config.mlp_layer == "swiglu"}
        described |= {"num_register_tokens": config.reg_tokens} if config.reg_tokens else {}
    else:
        described["intermediate_size"] = int(config.embed_dim * config.mlp_ratio)
    return described, _preprocessor(config, fit, crop_rate), _their_weights(config, weights, kind)


def _one_or_two(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _preprocessor(config: ViTConfig, fit: str, crop_rate: float) -> dict[str, Any]:
    mean, std = config.scaling()
    rows, columns = config.image_size
    common: dict[str, Any] = {
        "do_resize": True,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    size = {"height": rows, "width": columns}
    if fit == "crop" and rows == columns:
        crop = {"size": {"shortest_edge": int(rows / crop_rate)}, "do_center_crop": True, "crop_size": size}
        return {"image_processor_type": "BitImageProcessor", **common, **crop}
    return {"image_processor_type": "ViTImageProcessor", **common, "size": size}


def _their_weights(config: ViTConfig, weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    ours = fill_biases(_with_positions(config, weights), "attn.proj", "mlp.fc1", "mlp.fc2")
    is_dino = kind.startswith("dinov2")
    if is_dino:
        ours = _as_dinov2(config, ours)
    block = _VIT_BLOCK if not is_dino else _SWIGLU if config.mlp_layer == "swiglu" else {}
    heads = {"head.": "cls_classifier.", "head_dist.": "distillation_classifier."}
    heads = heads if kind == "deit" else {"head.": "classifier."}
    theirs: dict[str, Tensor] = {}
    for name, tensor in split_qkv(ours).items():
        head = next((head for head in heads if name.startswith(head)), None)
        if head is not None:
            theirs[name.replace(head, heads[head])] = tensor
            continue
        for before, after in block.items():
            name = name.replace(before, after)
        for pattern, replacement in _NAMES_OUT:
            name = re.sub(pattern, replacement, name)
        theirs[f"{kind}.{name}"] = tensor
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def _with_positions(config: ViTConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with a position embedding of each patch and of class and distillation token, which theirs all have."""
    ours = dict(weights)
    grid = (config.image_size[0] // config.patch_size[0], config.image_size[1] // config.patch_size[1])
    num_own = 1 + config.distilled
    if config.pos_embed == "learn":
        if ours["pos_embed"].shape[1] == grid[0] * grid[1] + num_own and not config.reg_tokens:
            return ours
        ours = fold_prefix_positions(ours, grid[0] * grid[1])
    elif config.pos_embed == "sincos2d":
        ours["pos_embed"] = sincos2d_pos_embed(grid, config.embed_dim)
    else:
        ours["pos_embed"] = torch.zeros(1, grid[0] * grid[1], config.embed_dim)
    return unfold_positions(ours, num_own)


def _as_dinov2(config: ViTConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with all that DINOv2 has: a mask token, LayerScale, a head that reads class token and mean of patches."""
    ours = {**weights, "embeddings.mask_token": torch.zeros(1, config.embed_dim)}
    for index in range(config.depth):
        for branch in ("ls1", "ls2"):
            ours.setdefault(f"blocks.{index}.{branch}.gamma", torch.ones(config.embed_dim))
    head = ours["head.weight"]
    if config.global_pool != "token_avg":
        parts = [head, torch.zeros_like(head)]
        ours["head.weight"] = torch.cat(parts if config.global_pool == "token" else parts[::-1], dim=1)
    return ours
