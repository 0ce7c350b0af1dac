"""What each layer of a model makes of images: tokens of blocks, maps of a CNN's stages as tokens."""

# Shapes: B images, N tokens, P patches, D width of a layer

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.errors import ConfigError
from vitrail.models.attention2d import Attention2dClassifier
from vitrail.models.cnn import Cnn, TimmModel
from vitrail.models.conv_tokens import CompactTransformer
from vitrail.models.vit import VisionTransformer

Grid = tuple[int, int]


class Layer(NamedTuple):
    """The output of one layer for a batch of images."""

    name: str
    """the number of a block, as weights' names have it, or the name of a CNN's stage"""
    tokens: Tensor
    """(B, N, D), prefix tokens first, then patches or places of the maps in row-major order"""
    grid: Grid
    """rows and columns of the patches"""
    num_prefix_tokens: int
    """class token, distillation token, registers"""


class Layers(NamedTuple):
    """The layers of a model from the first to the last, for a batch of images."""

    outputs: tuple[Layer, ...]
    logits: Tensor
    """(B, num_classes)"""
    patch_mask: Tensor | None
    """bool (B, P): which patches are no padding, where a model knows that"""


@torch.no_grad()
def layer_outputs(model: nn.Module, images: Tensor) -> Layers:
    """What each layer makes of images (B, C, rows, columns).

    Layers are the blocks of our transformers, the stages of our CNNs, and of timm's backbones what these list as
    features. Raises ConfigError for a backbone that lists none.
    """
    if isinstance(model, VisionTransformer | CompactTransformer | Attention2dClassifier):
        found = model.features(images)
        outputs = tuple(
            Layer(str(index), block.tokens, found.grid, found.num_prefix_tokens)
            for index, block in enumerate(found.blocks)
        )
        return Layers(outputs, found.logits, found.patch_mask)
    if isinstance(model, Cnn):
        maps, logits = _watched(model, _stages(model), images)
        return Layers(tuple(_of_maps(name, one) for name, one in maps.items()), logits, None)
    if isinstance(model, TimmModel):
        return _of_timm(model, images)
    raise ConfigError(f"The layers of a {type(model).__name__} are not known")


def _stages(model: Cnn) -> dict[str, nn.Module]:
    """By name, the modules whose output is looked at."""
    if model.config.architecture == "resnet18":
        return {name: getattr(model.net, name) for name in ("relu", "layer1", "layer2", "layer3", "layer4")}
    activations = [layer for layer in model.net.features if isinstance(layer, nn.ReLU)]
    return {f"conv{number}": layer for number, layer in enumerate(activations, start=1)}


def _watched(model: nn.Module, modules: dict[str, nn.Module], images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The outputs of modules by name, in their order, and the model's logits."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) else output
            if isinstance(first, Tensor):
                seen[name] = first.clone()  # what follows may be done in place

        return keep

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: seen[name] for name in modules if name in seen}, logits


def _of_maps(name: str, maps: Tensor) -> Layer:
    """A layer of maps (B, D, rows, columns)."""
    return Layer(name, maps.flatten(2).transpose(1, 2), (maps.shape[2], maps.shape[3]), 0)


def _of_timm(model: TimmModel, images: Tensor) -> Layers:
    """Those that timm lists under `feature_info`."""
    listed = getattr(model.net, "feature_info", None) or []
    widths = {str(entry["module"]): int(entry["num_chs"]) for entry in listed if entry.get("module")}
    known = dict(model.net.named_modules())
    outputs, logits = _watched(model, {name: known[name] for name in widths if name in known}, images)
    num_prefix = int(getattr(model.net, "num_prefix_tokens", hasattr(model.net, "cls_token")))
    found: list[Layer] = []
    for name, output in outputs.items():
        width, short = widths[name], name.removeprefix("blocks.")
        if output.ndim == 4 and width in (output.shape[1], output.shape[3]):
            maps = output if output.shape[1] == width else output.permute(0, 3, 1, 2)
            found.append(_of_maps(short, maps))
        elif output.ndim == 3 and output.shape[2] == width:
            for prefix in (num_prefix, 0):  # some add their class token after the first blocks
                grid = _grid(output.shape[1] - prefix, images)
                if grid is not None:
                    found.append(Layer(short, output, grid, prefix))
                    break
    if not found:
        raise ConfigError(f"timm's {model.config.name} lists no layers whose output is one set of maps or tokens")
    return Layers(tuple(found), logits, None)


def _grid(num_patches: int, images: Tensor) -> Grid | None:
    """Rows and columns of so many patches of images; None where they are no grid of the images' shape."""
    rows = max(1, round((max(num_patches, 0) * images.shape[2] / images.shape[3]) ** 0.5))
    columns = round(rows * images.shape[3] / images.shape[2])
    return (rows, columns) if rows * columns == num_patches else None


def num_read(model: nn.Module) -> tuple[int, bool]:
    """What the model's head reads of tokens: how many of the first ones, and whether the patches' mean.

    A learned pooling, which only fits the last layer, counts as the mean.
    """
    if isinstance(model, VisionTransformer):
        pool = model.config.global_pool
        return (2, False) if model.config.distilled else (int("token" in pool), pool != "token")
    if isinstance(model, TimmModel) and getattr(model.net, "global_pool", None) == "token":
        return 1 + (getattr(model.net, "dist_token", None) is not None), False
    return 0, True


def pooled(layer: Layer, read: tuple[int, bool], patch_mask: Tensor | None = None) -> Tensor:
    """A vector (B, D) for each image of a layer's tokens, as `num_read` says; the mean where it has no such tokens."""
    num_tokens, with_mean = read
    parts: list[Tensor] = []
    if 0 < num_tokens <= layer.num_prefix_tokens:
        parts.append(layer.tokens[:, :num_tokens].flatten(1))
    if with_mean or not parts:
        patches = layer.tokens[:, layer.num_prefix_tokens :]
        if patch_mask is None:
            parts.append(patches.mean(dim=1))
        else:
            weights = patch_mask.to(patches.dtype)[..., None]
            parts.append((patches * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1))
    return torch.cat(parts, dim=1)


def same_tokens(layers: Sequence[Layer], patch_mask: Tensor | None = None) -> list[Tensor]:
    """The tokens (N, D) of each layer for all images, the same in each: padding left out.

    Where layers have maps of different sizes, all are averaged down to the smallest; then prefix tokens are left out.
    """
    counts = {layer.tokens.shape[1] for layer in layers}
    if len(counts) == 1:
        num_prefix = layers[0].num_prefix_tokens
        if patch_mask is None:
            return [layer.tokens.flatten(0, 1) for layer in layers]
        kept = torch.cat([patch_mask.new_ones(len(patch_mask), num_prefix), patch_mask], dim=1)
        return [layer.tokens[kept] for layer in layers]
    smallest = min(layer.grid[0] for layer in layers), min(layer.grid[1] for layer in layers)
    found: list[Tensor] = []
    for layer in layers:
        maps = layer.tokens[:, layer.num_prefix_tokens :].unflatten(1, layer.grid).permute(0, 3, 1, 2)
        found.append(F.adaptive_avg_pool2d(maps, smallest).flatten(2).transpose(1, 2).flatten(0, 1))
    return found
