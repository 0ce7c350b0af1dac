"""Hugging Face's names for ViT, DeiT, DINOv2 and DINOv3, in files and in memory, and what their config.json says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vitrail.errors import CheckpointError, suggest
from vitrail.models.layouts.packing import fold_class_position, pack

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
