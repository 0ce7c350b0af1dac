"""Weights of one model fitted to another that differs in classes, image size, channels or pooling.

Shapes: C channels, N tokens, D embed_dim
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitrail.errors import CheckpointError
from vitrail.models import build_model, model_config
from vitrail.models.catalog import MODELS
from vitrail.models.cnn import TimmConfig
from vitrail.models.families import AnyModelConfig
from vitrail.models.layouts.packing import fold_prefix_positions
from vitrail.models.positions import resize_pos_embed
from vitrail.models.vit_config import ViTConfig

HEADS = ("head.", "head_dist.")  # what the names of a head's weights begin with

# What `load_weights` may find missing in adapted weights: what is new in the model, and starts untrained.
NEW_PARTS = (*HEADS, "attn_pool.", "fc_norm.")

# Settings in which models may differ and still share weights: adapted below, or without weights.
_FREE = frozenset(
    {
        "image_size",
        "in_chans",
        "num_classes",
        "mean",
        "std",
        "pos_embed_std",
        "norm_eps",
        "pos_embed_antialias",
        "padding_mask",
    }
)
_ADAPTED = frozenset({"global_pool", "fc_norm", "no_embed_class", "qkv_bias", "proj_bias", "mlp_bias"})
_BIASES = {"qkv_bias": ("attn.qkv",), "proj_bias": ("attn.proj",), "mlp_bias": ("mlp.fc1", "mlp.fc2")}


def adapt_weights(
    weights: Mapping[str, Tensor], own: AnyModelConfig, wanted: AnyModelConfig, keep_head: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of the model `own` fitted to the model `wanted`, and a sentence for each thing that was changed.

    Unless `keep_head`, the head is left out, for one of new classes, and pooling may differ. Position embeddings are
    resized to the patches of `wanted`, the first layer is fitted to its channels. Give the weights to `load_weights`
    with allowed_missing=(*NEW_PARTS, *head_names(wanted)).
    Raises CheckpointError naming the first setting in which the two are different models.
    """
    check_alike(own, wanted, keep_head)
    adapted, done = dict(weights), list[str]()
    expected = {name: tuple(tensor.shape) for name, tensor in build_on_meta(wanted).state_dict().items()}
    if not keep_head:
        heads = head_names(wanted)
        adapted = {name: tensor for name, tensor in adapted.items() if not name.startswith(heads)}
        done.append(f"The head is new, for {wanted.num_classes:,} classes")
    if isinstance(own, ViTConfig) and isinstance(wanted, ViTConfig):
        _adapt_pooling(adapted, own, wanted, done)
        _add_biases(adapted, own, wanted, done)
    if own.in_chans != wanted.in_chans:
        _adapt_channels(adapted, expected, own, wanted, done)
    if isinstance(wanted, TimmConfig):
        _check_size(adapted, expected, own, wanted)
    if "pos_embed" in adapted and "pos_embed" in expected:
        _adapt_positions(adapted, expected["pos_embed"], own, wanted, done)
    return adapted, done


def build_on_meta(config: AnyModelConfig) -> nn.Module:
    """The module that a config describes, without memory."""
    with torch.device("meta"):
        return build_model(config)


def head_names(config: AnyModelConfig) -> tuple[str, ...]:
    """What the names of a model's head begin with."""
    model: Any = build_on_meta(config)
    parts: list[nn.Module] = [*model.head] if isinstance(model.head, nn.ModuleList) else [model.head]
    found = [f"{name}." for name, module in model.named_modules() if any(module is part for part in parts)]
    return (*found, *HEADS) if isinstance(config, ViTConfig) else tuple(found)


def check_alike(own: AnyModelConfig, wanted: AnyModelConfig, keep_head: bool) -> None:
    """Raise CheckpointError unless weights of `own` can be fitted to `wanted`."""
    difference = _difference(own, wanted)
    if difference is None and keep_head:
        _check_heads(own, wanted)
    if difference is None:
        return
    name, has, needs = difference
    alike = next((f"--model {other}" for other in MODELS if _difference(own, model_config(other)) is None), None)
    raise CheckpointError(
        f"{name} {has} of the weights is not the model's {needs}; choose {alike or 'a model that has it'}"
    )


def _check_heads(own: AnyModelConfig, wanted: AnyModelConfig) -> None:
    has, needs = own.num_classes, wanted.num_classes
    if has != needs:
        raise CheckpointError(
            f"The head of the weights is for {has} classes, not {needs}; take them without their head"
        )
    has, needs = getattr(own, "global_pool", None), getattr(wanted, "global_pool", None)
    if has != needs:
        raise CheckpointError(
            f"The head of the weights reads global_pool={has}, not {needs}; set model.global_pool={has}"
        )


def _difference(own: AnyModelConfig, wanted: AnyModelConfig) -> tuple[str, str, str] | None:
    """The first setting in which two configs are different models, with its two values."""
    if own.kind != wanted.kind:
        return "kind", repr(own.kind), repr(wanted.kind)
    for name in type(own).model_fields:
        if name in _FREE or name in _ADAPTED or name.endswith("_rate"):
            continue
        if _weighed(own, name) != _weighed(wanted, name):
            return name, _said(getattr(own, name)), _said(getattr(wanted, name))
    for name in _BIASES:
        if getattr(own, name, False) and not getattr(wanted, name, True):
            return name, "true", "false"
    return None


def _weighed(config: AnyModelConfig, name: str) -> Any:
    """A setting as far as it shapes weights."""
    value = getattr(config, name)
    if isinstance(config, TimmConfig) and name == "name":
        return value.partition(".")[0]  # without the tag, which says whose weights these are
    if name == "init_values":
        return value is not None
    if name == "head_dim":
        return value or cast("Any", config).embed_dim // cast("Any", config).num_heads
    if name == "mlp_ratio":
        return int(cast("Any", config).embed_dim * value)
    if name == "act_layer" and getattr(config, "mlp_layer", "mlp") == "swiglu":
        return None
    if name == "rope_temperature" and getattr(config, "pos_embed", None) != "rope":
        return None
    return value


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, cast("tuple[Any, ...]", value)))
    return {"True": "true", "False": "false", "None": "none"}.get(str(value), str(value))


def _adapt_pooling(adapted: dict[str, Tensor], own: ViTConfig, wanted: ViTConfig, done: list[str]) -> None:
    """Other pooling reads the same tokens; the last norm moves with it."""
    if own.global_pool != wanted.global_pool:
        done.append(f"Pooling is {wanted.global_pool}, not {own.global_pool} as in the weights")
    if wanted.global_pool != "map":
        for name in [name for name in adapted if name.startswith("attn_pool.")]:
            del adapted[name]
    old, new = ("fc_norm." if config.norm_after_pooling else "norm." for config in (own, wanted))
    width = 2 * wanted.embed_dim if new == "fc_norm." and wanted.global_pool == "token_avg" else wanted.embed_dim
    for name in [name for name in adapted if name.startswith(old)]:
        tensor = adapted.pop(name)
        if len(tensor) == width:
            adapted[name.replace(old, new)] = tensor


def _add_biases(adapted: dict[str, Tensor], own: ViTConfig, wanted: ViTConfig, done: list[str]) -> None:
    for setting, layers in _BIASES.items():
        if getattr(wanted, setting) and not getattr(own, setting):
            done.append(f"Biases that the weights lack ({setting}) are zero")
            for name in [name for name in adapted if name.endswith(tuple(f".{layer}.weight" for layer in layers))]:
                tensor = adapted[name]
                adapted[name.removesuffix("weight") + "bias"] = tensor.new_zeros(len(tensor))


def adapt_channels(kernel: Tensor, in_chans: int) -> Tensor:
    """A convolution's kernel (out, C, rows, columns) for other channels, (out, in_chans, rows, columns).

    One channel gets the sum over the old ones, so grey images answer as grey ones in colour did. More channels get the
    old ones in turn, scaled so that equal channels answer as before. As timm's adapt_input_conv.
    """
    if in_chans == 1:
        return kernel.float().sum(dim=1, keepdim=True).to(kernel.dtype)
    before = kernel.shape[1]
    repeated = kernel.repeat(1, math.ceil(in_chans / before), 1, 1)[:, :in_chans]
    return repeated * (before / in_chans)


def adapt_scaling(config: AnyModelConfig, in_chans: int) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of a model for other channels, as settings; of the two those that it has.

    More channels get the old ones in turn, as in `adapt_channels`. One channel gets those that scale a grey pixel to
    the mean of what it was scaled to in each.
    """
    scaling = dict(zip(("mean", "std"), _scaling(config, in_chans), strict=True))
    return {name: values for name, values in scaling.items() if getattr(config, name) is not None}


def _scaling(config: AnyModelConfig, in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    means, stds = config.scaling()
    before = config.in_chans
    if in_chans == 1 < before:
        std = before / sum(1 / deviation for deviation in stds)
        return (std * fmean(mean / deviation for mean, deviation in zip(means, stds, strict=True)),), (std,)
    repeated = math.ceil(in_chans / before)
    return (means * repeated)[:in_chans], (stds * repeated)[:in_chans]


def _adapt_channels(
    adapted: dict[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    own: AnyModelConfig,
    wanted: AnyModelConfig,
    done: list[str],
) -> None:
    """What reads the pixels, for other channels that are scaled as `adapt_scaling` says.

    To one channel it answers as to grey pixels before, where each channel may have had statistics of its own: these go
    into kernel and bias. Without a bias, at borders of zeros, and under a norm of the pixels a difference is left.
    """
    before, after = own.in_chans, wanted.in_chans
    found = [
        name
        for name, tensor in adapted.items()
        if tensor.ndim == 4 and tensor.shape[1] == before and expected.get(name) == _with_channels(tensor, after)
    ]
    if not found:
        raise CheckpointError(
            f"in_chans {before} of the weights is not the model's {after}, and no first layer was found to fit; "
            f"set model.in_chans={before}"
        )
    has_patch_norm = _fold_patch_norm(adapted, expected)
    for name in found:
        kernel = adapted[name].float()
        if after == 1:
            values = (*own.scaling(), *_scaling(own, 1))
            old_mean, old_std, mean, std = (torch.tensor(part).view(1, -1, 1, 1) for part in values)
            bias = name.removesuffix("weight") + "bias"
            if bias in adapted and not has_patch_norm:
                shift = (kernel * (mean - old_mean) / old_std).sum(dim=(1, 2, 3))
                adapted[bias] = (adapted[bias] + shift).to(adapted[bias].dtype)
            kernel = kernel * std / old_std
        adapted[name] = adapt_channels(kernel, after).to(adapted[name].dtype)
    done.append(f"The first layer is fitted to {_counted(after)}, from {before}")


def _with_channels(kernel: Tensor, channels: int) -> tuple[int, ...]:
    return (kernel.shape[0], channels, *kernel.shape[2:])


def _fold_patch_norm(adapted: dict[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> bool:
    """Move what the norm of a patch's pixels learned into the projection after it, which can be fitted to channels.

    False where there is no such norm.
    """
    norm, proj = "patch_embed.pre_norm.", "patch_embed.proj."
    if norm + "weight" not in adapted:
        return False
    kernel = adapted[proj + "weight"]
    factors, shifts = (adapted[norm + name].view(kernel.shape[1:]) for name in ("weight", "bias"))
    adapted[proj + "bias"] = adapted[proj + "bias"] + (kernel * shifts).sum(dim=(1, 2, 3))
    adapted[proj + "weight"] = kernel * factors
    for name, fill in (("weight", 1.0), ("bias", 0.0)):
        adapted[norm + name] = adapted[norm + name].new_full(expected[norm + name], fill)
    return True


def _counted(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"


def _check_size(
    adapted: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    own: AnyModelConfig,
    wanted: AnyModelConfig,
) -> None:
    """Raise CheckpointError for weights of one of timm's backbones, the same at another size, that have a size."""
    if own.image_size == wanted.image_size:
        return
    for name, tensor in adapted.items():
        if expected.get(name, tensor.shape) != tuple(tensor.shape):
            size = "x".join(map(str, own.image_size))
            raise CheckpointError(
                f"{name.removeprefix('net.')} of the weights is for images of {size} pixels, and there is no way to "
                f"resize it; set model.image_size={','.join(map(str, own.image_size))}"
            )


def _adapt_positions(
    adapted: dict[str, Tensor], shape: tuple[int, ...], own: AnyModelConfig, wanted: AnyModelConfig, done: list[str]
) -> None:
    """Position embeddings for the patches and prefix tokens of `wanted`: (1, N, D), or maps (1, D, rows, columns)."""
    positions = adapted["pos_embed"]
    before, after = (cast("Any", build_on_meta(config)).grid for config in (own, wanted))
    antialias = getattr(own, "pos_embed_antialias", True)
    if positions.ndim == 4:
        flat = resize_pos_embed(positions.flatten(2).transpose(1, 2), before, after)
        adapted["pos_embed"] = flat.unflatten(1, after).permute(0, 3, 1, 2).contiguous()
    else:
        num_prefix, num_wanted = positions.shape[1] - math.prod(before), shape[1] - math.prod(after)
        prefix, patches = positions[:, :num_prefix], positions[:, num_prefix:]
        if num_prefix and not num_wanted:
            adapted |= fold_prefix_positions(adapted, math.prod(before))
        if num_prefix != num_wanted:
            prefix = positions.new_zeros(1, num_wanted, positions.shape[2])
        adapted["pos_embed"] = torch.cat([prefix, resize_pos_embed(patches, before, after, antialias)], dim=1)
    if before != after:
        grids = (f"{rows}x{columns}" for rows, columns in (before, after))
        done.append("Position embeddings are resized from {} to {} patches".format(*grids))
