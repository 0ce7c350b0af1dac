"""A forward pass that is watched: what every block's attention reads and gives, alike for every family of models.

Shapes: B images, C channels, N tokens, P patches, D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vitrail.errors import ConfigError
from vitrail.interpretation.probabilities import Attended, probability_chunks
from vitrail.models.attention2d import Attention2dClassifier
from vitrail.models.cnn import TimmModel
from vitrail.models.conv_tokens import CompactTransformer
from vitrail.models.features import Features
from vitrail.models.vit import VisionTransformer


@dataclass(frozen=True, eq=False)
class Trace:
    """A forward pass as explanations need it."""

    logits: Tensor
    """(B, num_classes)"""
    blocks: tuple[Attended, ...]
    """the self-attention of each block, first to last"""
    tokens: Tensor
    """what is pooled, (B, N, D)"""
    readout: Tensor
    """how much each of them weighs in what the head reads, (B, N); sums to 1"""
    grid: tuple[int, int]
    """rows and columns of the patches among the tokens"""
    num_prefix_tokens: int = 0
    """tokens in front of the patches"""
    patch_mask: Tensor | None = None
    """which patches take part, bool (B, P); None where all do"""
    pool: Attended | None = None
    """attention pooling, one query to all patches; then `readout` is the mean of its heads"""
    normed: Tensor | None = None
    """the last block's input after its first norm, (B, N, D); None where a backbone has no such"""

    def of_patches(self, weights: Tensor) -> Tensor:
        """Weights of tokens (B, N) as maps of the patches (B, rows, columns); prefix tokens have no place in them."""
        return weights[:, self.num_prefix_tokens :].unflatten(1, self.grid)


def trace(model: nn.Module, images: Tensor, *, gradients: bool = False) -> Trace:
    """Watch the model look at images (B, C, rows, columns), uint8 in 0..255 or float in 0..1; attention stays fused.

    With `gradients`, what the trace holds is part of a graph that leads to the logits. The model is evaluated: dropout
    off, and left in the mode it was in; its own parameters get no gradient. Raises ConfigError, with what remains, for
    models without attention over all tokens, and for images that do not fit.
    """
    check_attention(model)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad() if gradients else torch.no_grad():
            if gradients:
                images = (images / 255 if images.dtype == torch.uint8 else images).clone().requires_grad_()
            return _of_timm(model, images) if isinstance(model, TimmModel) else _of_ours(model, images)
    finally:
        model.train(was_training)


def check_attention(model: nn.Module) -> None:
    """Raise ConfigError for a model that has no attention at all."""
    if isinstance(model, TimmModel):
        if not any(_attends(name, module) for name, module in model.net.named_modules()):
            raise ConfigError(f"timm's {model.config.name} has no attention; {_REST}")
    elif not isinstance(model, VisionTransformer | CompactTransformer | Attention2dClassifier):
        name = getattr(getattr(model, "config", None), "architecture", type(model).__name__)
        raise ConfigError(f"{name} has no attention; {_REST}")


def _attends(name: str, module: nn.Module) -> bool:
    return "attn" in name.rpartition(".")[2] or "attention" in type(module).__name__.lower()


_REST = "use grad_cam, integrated_gradients or occlusion"


class _Watch(TorchFunctionMode):
    """While it is entered, every use of torch's fused attention is noted, whoever calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Attended] = []

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if func is F.scaled_dot_product_attention:
            self.seen.append(_seen(result, *args, **given))
        return result


def _seen(
    heads: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Attended:
    return Attended(query, key, value, heads, query.shape[-1] ** -0.5 if scale is None else scale, attn_mask)


def _of_ours(model: Any, images: Tensor) -> Trace:
    pools = isinstance(model, VisionTransformer) and model.attn_pool is not None
    watch = _Watch() if pools else None
    with watch or nullcontext():
        features: Features = model.features(images)
    num_prefix, mask = features.num_prefix_tokens, features.patch_mask
    every = None
    if mask is not None:
        every = torch.cat([mask.new_ones(len(mask), num_prefix), mask], dim=1)[:, None, None]  # (B, 1, 1, N)
    blocks = tuple(
        Attended(block.query, block.key, block.value, block.heads, block.query.shape[-1] ** -0.5, every)
        for block in features.blocks
    )
    pool = None if watch is None else watch.seen[-1]
    if isinstance(model, CompactTransformer):
        readout = model.attention_pool(features.tokens).softmax(dim=1)[..., 0].detach()
    elif isinstance(model, VisionTransformer):
        kind = "distilled" if model.config.distilled else model.config.global_pool
        readout = _readout(kind, features.tokens, num_prefix, mask, pool)
    else:
        readout = _readout("avg", features.tokens, 0, None, None)
    normed = features.blocks[-1].normed
    return Trace(
        features.logits, blocks, features.tokens, readout, features.grid, num_prefix, mask, pool=pool, normed=normed
    )


def _of_timm(model: TimmModel, images: Tensor) -> Trace:
    net = model.net
    noted: list[Tensor] = []

    def note(_module: nn.Module, _given: Any, result: Tensor) -> None:
        noted.append(result)

    blocks = getattr(net, "blocks", None)
    norm = getattr(blocks[-1], "norm1", None) if isinstance(blocks, nn.ModuleList | nn.Sequential) else None
    hook = None
    if isinstance(norm, nn.Module):
        hook = norm.register_forward_hook(note)
    try:
        with _Watch() as watch:
            features = model.features(images)
    finally:
        if hook is not None:
            hook.remove()
    if features.tokens.ndim != 3:
        raise ConfigError(f"timm's {model.config.name} does not attend over all of an image at once; {_REST}")
    num_tokens, num_prefix = features.tokens.shape[1], features.num_prefix_tokens
    pool = None
    if watch.seen and watch.seen[-1].query.shape[2] == 1 and getattr(net, "attn_pool", None) is not None:
        pool = watch.seen.pop()
    whole = (len(images), num_tokens)
    depth = len(blocks) if isinstance(blocks, nn.ModuleList | nn.Sequential) else len(watch.seen)
    if watch.seen and len(watch.seen) != depth:  # as in differential and parallel attention
        raise ConfigError(
            f"The blocks of timm's {model.config.name} attend more than once each, and their maps are no chain; {_REST}"
        )
    if not watch.seen or any(
        (len(seen.query), seen.query.shape[2]) != whole or seen.key.shape[2] != num_tokens for seen in watch.seen
    ):
        raise ConfigError(f"timm's {model.config.name} does not attend over all of an image at once; {_REST}")
    if features.grid[0] * features.grid[1] != num_tokens - num_prefix:
        raise ConfigError(f"The patches of timm's {model.config.name} are no grid of the image's shape; {_REST}")
    kind = "distilled" if isinstance(model.head, nn.ModuleList) else getattr(net, "global_pool", "token")
    readout = _readout(kind, features.tokens, num_prefix, None, pool)
    normed = noted[-1] if noted and noted[-1].shape == features.tokens.shape else None
    return Trace(
        features.logits,
        tuple(watch.seen),
        features.tokens,
        readout,
        features.grid,
        num_prefix,
        pool=pool,
        normed=normed,
    )


def _readout(kind: str, tokens: Tensor, num_prefix: int, mask: Tensor | None, pool: Attended | None) -> Tensor:
    """Weights (B, N) of output tokens in what the head reads; of attention pooling, the mean of its heads'."""
    weights = tokens.new_zeros(tokens.shape[:2])
    patches = weights[:, num_prefix:]
    if pool is not None:
        ((_, probabilities),) = probability_chunks(pool)
        weights[:, -probabilities.shape[3] :] = probabilities.mean(dim=1)[:, 0].detach()
    elif kind == "distilled":
        weights[:, :2] = 0.5
    elif kind == "token":
        weights[:, 0] = 1.0
    else:
        share = patches.new_ones(patches.shape) if mask is None else mask.to(patches.dtype)
        patches += share / share.sum(dim=1, keepdim=True).clamp(min=1)
        if kind == "token_avg":
            patches /= 2
            weights[:, 0] = 0.5
    return weights
