"""timm's names, which are ours but for a few, and what its config.json says of a model."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vitrail.errors import CheckpointError, ConfigError, some
from vitrail.models.layouts.packing import fill_biases, fold_class_position, pack, unfold_positions
from vitrail.models.layouts.shapes import complete, settings_from_shapes
from vitrail.models.positions import sincos2d_pos_embed
from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig

# An activation, by the name of timm's or torch's class -> ours.
_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "ReLU": "relu", "SiLU": "silu", "Swish": "silu"}
_POOLS = ("token", "avg", "map")

# Patterns of its names -> ours, in this order, also of Meta's own files of DINOv2 and DINOv3, which timm reads too.
_NAMES = (
    (r"\.gamma_([12])$", r".ls\1.gamma"),  # Eva, which DINOv3 is in timm
    (r"^(register_tokens|storage_tokens)$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
)
# Arguments of timm.create_model that a description has no business to give: they read files.
_READING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
_LEFT_OUT = frozenset({*_READING, "num_classes", "scriptable", "exportable", "no_jit"})
# Arguments that a TimmConfig has settings for, or that change nothing but training.
_DROPPING = ("drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate", "patch_drop_rate")
_KEPT = frozenset({"global_pool", "img_size", "in_chans", *_DROPPING})
_NOT_NEEDED = re.compile(r"mask_token|(.*\.)?bias_mask|rope_embed\.periods|rope\..*|local_cls_norm\..*")


def recognises(names: Iterable[str]) -> bool:
    """Whether tensors are named as in timm's VisionTransformer or Eva."""
    names = set(names)
    return "patch_embed.proj.weight" in names and any(name.startswith("blocks.0.") for name in names)


def import_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of timm's VisionTransformer, VisionTransformerDistilled and Eva (DINOv3) under our names."""
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if _NOT_NEEDED.fullmatch(name):
            continue
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if f"{name}_mask" in weights and name.endswith("qkv.bias"):  # DINOv3's keys have no bias: it is masked
            tensor = tensor.unflatten(0, (3, -1)).clone()
            tensor[1] = 0
            tensor = tensor.flatten()
        ours[name] = tensor
    if "register_tokens" in weights and "pos_embed" in ours:
        ours = fold_class_position(ours)
    for name in [name for name in ours if re.search(r"\.attn\.[qv]_proj\.bias$", name)]:
        _pack_eva_bias(ours, name)
    return pack(ours)


def _pack_eva_bias(ours: dict[str, Tensor], name: str) -> None:
    """Eva keeps biases of query and value beside packed weights, and none of key."""
    stem = name[: name.index("_proj.bias") - 1]
    if f"{stem}qkv.weight" in ours and f"{stem}q_proj.bias" in ours and f"{stem}v_proj.bias" in ours:
        query, value = ours.pop(f"{stem}q_proj.bias"), ours.pop(f"{stem}v_proj.bias")
        ours[f"{stem}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])


class UnlikeError(CheckpointError):
    """A description is whole, but not of a Vision Transformer that ours can be."""


def describe(weights: Mapping[str, Tensor], described: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings that shapes do not tell: from the config.json of timm's repositories, or as DINOv3 has them.

    timm itself builds the `architecture` with its `model_args`, without memory, and what it has built is read.
    Raises CheckpointError for an architecture that timm does not know, UnlikeError for no Vision Transformer of ours.
    """
    if described is None:
        is_eva = "blocks.0.gamma_1" in weights or "storage_tokens" in weights
        return {"pos_embed": "rope", "norm_eps": 1e-5} if is_eva and "pos_embed" not in weights else {}
    name, pretrained = str(described.get("architecture")), dict(described.get("pretrained_cfg") or {})
    arguments = _arguments(described)
    if described.get("global_pool"):
        arguments.setdefault("global_pool", described["global_pool"])
    model = _built_by_timm(name, arguments, weights)
    rope, pool = getattr(model, "rope", None), model.global_pool or "token"
    activation = type(getattr(getattr(model.blocks[0], "mlp", None), "act", None)).__name__
    if activation not in _ACTIVATIONS or pool not in _POOLS or _unlike(model, rope):
        raise UnlikeError(f"{name} computes what our Vision Transformer does not; use it as timm:{name}")
    block, size = model.blocks[0], tuple(model.patch_embed.img_size)
    settings: dict[str, Any] = {
        "num_heads": block.attn.num_heads,
        "norm_eps": block.norm1.eps,
        "global_pool": pool,
        "no_embed_class": model.no_embed_class,
        "act_layer": _ACTIVATIONS[activation],
    }
    if rope is not None:
        settings |= {"pos_embed": "rope", "rope_temperature": rope.temperature}
    if not _is_all_of(model, settings | {"image_size": size}):
        raise UnlikeError(f"{name} computes what our Vision Transformer does not; use it as timm:{name}")
    if "img_size" not in arguments and "input_size" in pretrained:
        size = tuple(pretrained["input_size"][1:])
    settings |= {key: tuple(pretrained[key]) for key in ("mean", "std") if key in pretrained}
    settings["image_size"] = size
    if described.get("num_classes"):
        settings["num_classes"] = described["num_classes"]
    return settings


def is_ours(weights: Mapping[str, Tensor], described: Mapping[str, Any]) -> bool:
    """Whether a config.json of timm is of a Vision Transformer that ours can be. Raises CheckpointError for damage."""
    try:
        describe(weights, described)
    except UnlikeError:
        return False
    return True


def _arguments(described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dict(described.get("model_args") or {}).items() if key not in _LEFT_OUT}


def _made(name: str, arguments: dict[str, Any]) -> Any:
    """timm's model, without memory."""
    import timm

    if not timm.is_model(name):
        raise CheckpointError(f"timm {timm.__version__} has no model {name!r}; a newer timm may have it")
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"timm cannot build {name!r} as its description says: {error}") from error


def _built_by_timm(name: str, arguments: dict[str, Any], weights: Mapping[str, Tensor]) -> Any:
    """The Vision Transformer as timm builds it; as large as the weights are, so that it does not take long."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer as Theirs

    model = _made(name, {})
    if not isinstance(model, Theirs | Eva):
        raise UnlikeError(f"{name} is a {type(model).__name__} and no Vision Transformer; use it as timm:{name}")
    if not arguments:
        return model
    projection = weights.get("patch_embed.proj.weight")
    found = {
        "depth": len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
        "embed_dim": None if projection is None else len(projection),
    }
    for key, value in found.items():
        if value is not None and arguments.get(key, value) != value:
            raise CheckpointError(
                f"The weights are of a model with {key}={value}, not the {key}={arguments[key]} of their description"
            )
    return _made(name, arguments)


def _unlike(model: Any, rope: Any) -> bool:
    """Whether timm's model has what its weights do not show, and ours has not."""
    block = model.blocks[0]
    if type(block).__name__ not in ("Block", "EvaBlock") or not isinstance(block.norm1, nn.LayerNorm):
        return True
    if getattr(model, "pool_include_prefix", False):
        return True
    if rope is None:
        return False
    is_ours = type(rope).__name__ == "RotaryEmbeddingDinoV3" and block.attn.rotate_half
    pools_prefix = model.attn_pool is not None and model.num_prefix_tokens > 0  # ours pools patches alone
    return not is_ours or model.pos_embed is not None or pools_prefix


def _is_all_of(model: Any, settings: dict[str, Any]) -> bool:
    """Whether ours with `settings` has each tensor of timm's model, and no other; heads may lack."""
    theirs = import_names(model.state_dict())
    try:
        config = ViTConfig.model_validate(complete(settings_from_shapes(theirs) | settings, theirs))
    except (CheckpointError, ValidationError):
        return False
    with torch.device("meta"):
        ours = VisionTransformer(config).state_dict()
    shapes = [
        {key: part.shape for key, part in every.items() if not key.startswith("head")} for every in (theirs, ours)
    ]
    return shapes[0] == shapes[1]


def check_as_named(described: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless its name, image size and channels tell all of a model of timm's.

    Other arguments, such as another activation, may leave the same tensors and give other logits.
    """
    name, arguments = str(described["architecture"]), _arguments(described)
    plain = _made(name, {})
    own = plain.pretrained_cfg
    pool = arguments.get("global_pool") or described.get("global_pool")
    odd = [f"{key}={value!r}" for key, value in arguments.items() if key not in _KEPT]
    if "img_size" in arguments and not own.get("fixed_input_size"):
        size = arguments["img_size"]
        size = [size, size] if isinstance(size, int) else [*size]
        odd += [f"img_size={size}"] * (size != [*own["input_size"][1:]])
    odd += [f"global_pool={pool!r}"] * (bool(pool) and _pools_otherwise(plain, name, pool))
    if odd:
        raise CheckpointError(
            f"The weights are of timm's {name} with {', '.join(odd)}, and only Vision Transformers can be that; "
            f"use weights of {name} as timm has it"
        )


def _pools_otherwise(plain: Any, name: str, pool: Any) -> bool:
    own = getattr(plain, "global_pool", None)
    if isinstance(own, str):
        return pool != own
    try:
        return repr(_made(name, {"global_pool": pool})) != repr(plain)
    except CheckpointError:  # it has no such choice
        return False


def as_timm_has_it(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a file that timm points to but has not written, under timm's names, as timm itself renames them.

    Raises CheckpointError where timm does not, or not to all that the model called `name` has.
    """
    import timm

    model = _made(name, {})
    expected, found = model.state_dict().keys(), dict(weights)
    if expected == found.keys():
        return found
    rename = getattr(
        sys.modules[timm.model_entrypoint(name.partition(".")[0]).__module__], "checkpoint_filter_fn", None
    )
    if rename is not None:
        try:
            found = dict(rename(found, model))
        except (AssertionError, LookupError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The weights of timm:{name} are not in timm's layout, and timm cannot rename them: {error}"
            ) from error
    missing = [key for key in expected if key not in found]
    if missing:
        raise CheckpointError(
            f"The weights of timm:{name} are not in timm's layout: they lack {some(missing)}; use another tag"
        )
    return found


# Weights out


def why_not(config: ViTConfig) -> str | None:
    """What a model has that no Vision Transformer of timm's has, or None."""
    if config.stem != "linear":
        return f"stem={config.stem!r}"
    if config.patch_norm or config.padding_mask:
        return "patch_norm=true" if config.patch_norm else "padding_mask=true (data.fit=native)"
    if config.global_pool == "token_avg":
        return f"global_pool={config.global_pool!r}"
    if config.head_dim is not None and config.head_dim * config.num_heads != config.embed_dim:
        return f"head_dim={config.head_dim}"
    if config.norm_eps > 1e-5:
        return f"norm_eps={config.norm_eps:g}"
    if config.mlp_layer == "swiglu" and _is_coarse(config) and config.pos_embed != "rope":
        return f"mlp_layer='swiglu' with norm_eps={config.norm_eps:g}"
    if config.pos_embed == "rope" and (config.mlp_layer == "mlp" and config.act_layer != "gelu"):
        return f"pos_embed='rope' with act_layer={config.act_layer!r}"
    if config.pos_embed == "rope" and config.global_pool == "map" and config.num_prefix_tokens:
        return "pos_embed='rope' with global_pool='map' beside class token or registers"
    if config.distilled and (config.reg_tokens or config.pos_embed not in ("learn", "sincos2d")):
        return "distilled=true with registers or other positions than learned ones"
    if config.distilled and (config.mlp_layer != "mlp" or _is_coarse(config)):
        return "distilled=true with mlp_layer='swiglu' or another norm_eps"
    return None


def _is_coarse(config: ViTConfig) -> bool:
    """Whether norms are those of timm's CLIP and DINOv3 models, 1e-5, and not its usual 1e-6."""
    return config.norm_eps > 3e-6


def to_timm(
    config: ViTConfig,
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    *,
    fit: str = "squash",
    crop_rate: float = 1.0,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config.json and the state dict of a folder from which timm.create_model loads the same model.

    `fit` is what happens to images of another aspect ratio: "pad" (timm pads with the mean colour), "crop" or "squash";
    `crop_rate` the part of each side that is kept then.
    Raises ConfigError for a model that timm cannot express.
    """
    reason = why_not(config)
    if reason is not None:
        raise ConfigError(f"timm has no Vision Transformer with {reason}")
    theirs = dict(weights)
    if config.proj_bias or config.mlp_bias:  # timm has one switch for both
        theirs = fill_biases(weights, "attn.proj", "mlp.fc1", "mlp.fc2")
    if config.pos_embed == "sincos2d":
        positions = sincos2d_pos_embed(
            (config.image_size[0] // config.patch_size[0], config.image_size[1] // config.patch_size[1]),
            config.embed_dim,
        )
        prefix = positions.new_zeros(1, config.num_prefix_tokens, config.embed_dim)
        theirs["pos_embed"] = torch.cat([prefix, positions], dim=1)
    if config.distilled and config.pos_embed == "learn" and config.no_embed_class:
        theirs = unfold_positions(theirs, 2)  # timm's distilled model has positions for its tokens too
    architecture, arguments = _architecture(config)
    if config.pos_embed == "rope":
        theirs = {re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name): tensor for name, tensor in theirs.items()}
        theirs = fill_biases(theirs, "attn.proj", "mlp.fc1", "mlp.fc2")
    mean, std = config.scaling()
    pretrained = {
        "num_classes": config.num_classes,
        "input_size": [config.in_chans, *config.image_size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": crop_rate,
        "crop_mode": {"pad": "border", "crop": "center"}.get(fit, "squash"),
        "mean": list(mean),
        "std": list(std),
        "first_conv": "patch_embed.proj",
        "classifier": ["head", "head_dist"] if config.distilled else "head",
    }
    description = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.embed_dim,
        "global_pool": config.global_pool,
        "label_names": list(classes),
        "model_args": arguments,
        "pretrained_cfg": pretrained,
    }
    return description, theirs


def _architecture(config: ViTConfig) -> tuple[str, dict[str, Any]]:
    """A registered model of timm's and its arguments; those that JSON cannot hold come with the registered name."""
    arguments: dict[str, Any] = {
        "img_size": list(config.image_size),
        "patch_size": list(config.patch_size),
        "in_chans": config.in_chans,
        "num_classes": config.num_classes,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "init_values": config.init_values,
        "class_token": config.class_token,
        "global_pool": config.global_pool,
        "no_embed_class": config.no_embed_class and config.pos_embed == "learn" and not config.distilled,
        "qk_norm": config.qk_norm,
    }
    if config.pos_embed == "rope":
        arguments |= {
            "num_reg_tokens": config.reg_tokens,
            "use_fc_norm": config.norm_after_pooling,
            "use_post_transformer_norm": not config.norm_after_pooling,
            "attn_type": "rope",
            "swiglu_mlp": config.mlp_layer == "swiglu",
            "swiglu_align_to": 0,
            "use_abs_pos_emb": False,
            "use_rot_pos_emb": True,
            "rope_type": "dinov3",
            "rope_temperature": config.rope_temperature,
            "rope_rotate_half": True,
            "dynamic_img_size": True,
        }
        return ("vit_small_patch16_dinov3" if _is_coarse(config) else "eva_giant_patch14_224"), arguments
    arguments |= {
        "proj_bias": config.proj_bias or config.mlp_bias,
        "fc_norm": config.norm_after_pooling,
        "reg_tokens": config.reg_tokens,
        "pos_embed": "none" if config.pos_embed == "none" else "learn",
    }
    if config.mlp_layer == "swiglu":
        arguments["mlp_ratio"] = 2 * config.mlp_ratio
        return "vit_giant_patch14_dinov2", arguments
    arguments["act_layer"] = config.act_layer
    if config.distilled:
        return "deit_tiny_distilled_patch16_224", arguments
    if _is_coarse(config):
        return "vit_base_patch16_clip_224", arguments | {"pre_norm": False}
    return "vit_base_patch16_224", arguments
