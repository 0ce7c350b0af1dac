"""Evidence by gradients: Grad-CAM of the last maps or tokens, and integrated gradients of the pixels.

Gradients are taken of what is looked at alone: the weights count as fixed, so that their gradients are neither computed
nor touched, and little is kept in memory.

Shapes: B images, C channels, N tokens, P patches, D width
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitrail.data.loader import channels_first
from vitrail.errors import ConfigError
from vitrail.interpretation.subjects import Subject, model_name
from vitrail.interpretation.targets import Target, target_values
from vitrail.models.attention2d import Attention2dClassifier
from vitrail.models.cnn import Cnn, TimmModel
from vitrail.models.conv_tokens import CompactTransformer
from vitrail.models.features import Features
from vitrail.models.vit import VisionTransformer

STEPS = 50  # places between the fill colour and the image at which integrated gradients looks; Captum's own number
MEMORY_VALUES = 2**20  # input values of one pass whose inside is kept for its gradients: 6 images of 224x224 RGB
MOST_IMAGES = 16  # of one such pass
KEPT_VALUES = 2**27  # of all tokens and blocks of one such pass, half a GiB; small images may have many patches
_KEPT_RATE = 20  # values that a block keeps for its gradients for each value of its tokens


class _Seen(NamedTuple):
    """What Grad-CAM weighs: maps (B, D, rows, columns), their gradients, and which places take part."""

    maps: Tensor
    gradients: Tensor
    real: Tensor | None = None


def batches(
    subject: Subject, images: np.ndarray, targets: Sequence[Target]
) -> Iterator[tuple[Tensor, Sequence[Target]]]:
    """Images (B, C, H, W) uint8 on the device, with their targets, as many as memory holds with their inside."""
    tensors = channels_first(images)
    size = _most_images(subject, images[0])
    for start in range(0, len(tensors), size):
        yield tensors[start : start + size].to(subject.device), targets[start : start + size]


def _most_images(subject: Subject, image: np.ndarray) -> int:
    """How many images like this one (H, W, channels) go through the model at once, with their inside kept."""
    most = min(MOST_IMAGES, MEMORY_VALUES // image.size)
    config: Any = getattr(subject.model, "config", None)
    grid = getattr(getattr(subject.model, "patch_embed", None), "grid", None)
    if callable(grid):
        rows, columns = cast("tuple[int, int]", grid(*image.shape[:2]))
        most = min(most, KEPT_VALUES // (_KEPT_RATE * rows * columns * config.embed_dim * config.depth))
    return max(1, most)


def grad_cam(subject: Subject, images: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    """Maps (N, rows, columns) float32, 0 or more, on the grid of the last maps or of the patches.

    The channels of the last maps, each weighed by its mean gradient; what speaks against the target is 0. Of tokens,
    the patches among those that the last block's attention reads. Selvaraju et al. 2017, "Grad-CAM"; tokens as
    pytorch-grad-cam has them.
    """
    model = subject.model
    assert model is not None
    found: list[Tensor] = []
    for batch, wanted in batches(subject, images, targets):
        norm = attention_norm(model)
        seen = _last_maps(model, batch, wanted) if norm is None else _last_tokens(model, norm, batch, wanted)
        found.append(_weighed(seen).cpu())
    return torch.cat(found).numpy()


def attention_norm(model: nn.Module) -> nn.Module | None:
    """The norm whose output the last block's attention reads; None for networks without such blocks."""
    if isinstance(model, VisionTransformer | CompactTransformer | Attention2dClassifier):
        return model.blocks[-1].norm1
    if not isinstance(model, TimmModel) or not hasattr(model.net, "num_prefix_tokens"):
        return None
    blocks = getattr(model.net, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return None
    # timm's blocks named for it (ResPostBlock) normalise what attention gives, not what it reads.
    return None if "Post" in type(blocks[-1]).__name__ else getattr(blocks[-1], "norm1", None)


def check_grad_cam(model: nn.Module) -> None:
    """Raise ConfigError for a model that has neither maps nor tokens that are known here."""
    if attention_norm(model) is None and not isinstance(model, Cnn | TimmModel):
        raise ConfigError(f"{type(model).__name__} has no maps that Grad-CAM knows")


def _weighed(seen: _Seen) -> Tensor:
    if seen.real is None:
        weights = seen.gradients.mean(dim=(2, 3), keepdim=True)
        return (weights * seen.maps).sum(dim=1).relu()
    real = seen.real[:, None]
    count = real.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    weights = (seen.gradients * real).sum(dim=(2, 3), keepdim=True) / count
    return (weights * seen.maps * real).sum(dim=1).relu()


def _last_maps(model: nn.Module, images: Tensor, targets: Sequence[Target]) -> _Seen:
    """The last maps of a network without such a norm, which its pooling reads."""
    assert isinstance(model, Cnn | TimmModel)
    with torch.no_grad():
        maps = model.forward_features(images)
    if not isinstance(maps, Tensor) or maps.ndim not in (3, 4):  # pyright: ignore[reportUnnecessaryIsInstance]  # timm
        raise ConfigError(f"{model_name(model)} has no one set of last maps")
    maps = maps.detach().requires_grad_()
    gradients = _gradients(model.classify(model.pool(maps)), targets, maps)
    maps = maps.detach()
    if maps.ndim == 3:
        with torch.no_grad():
            features = model.features(images[:1])
        if features.num_prefix_tokens and getattr(model.net, "global_pool", "token") != "avg":
            raise ConfigError(f"The head of {model_name(model)} reads a token that has no place in the image")
        return _Seen(*(_as_maps(tokens, features) for tokens in (maps, gradients)))
    if isinstance(model, TimmModel) and maps.shape[1] != model.net.num_features == maps.shape[3]:
        return _Seen(maps.permute(0, 3, 1, 2), gradients.permute(0, 3, 1, 2))
    return _Seen(maps, gradients)


def _last_tokens(model: nn.Module, norm: nn.Module, images: Tensor, targets: Sequence[Target]) -> _Seen:
    """The patches that the last block's attention reads, as maps."""
    read: list[Tensor] = []

    def begin_here(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        read.append(output.detach().requires_grad_())
        return read[-1]

    handle = norm.register_forward_hook(begin_here)
    try:
        looking = _Looking(model)
        features = cast("Features", functional_call(looking, fixed_weights(looking), (images,)))
    finally:
        handle.remove()
    (tokens,) = read
    gradients = _gradients(features.logits, targets, tokens)
    tokens = tokens.detach()
    if tokens.ndim == 4:
        return _Seen(tokens, gradients)

    mask = features.patch_mask
    real = None if mask is None else mask.unflatten(1, features.grid)
    if isinstance(model, TimmModel) and tokens.shape[1] != features.tokens.shape[1]:
        raise ConfigError(f"{model_name(model)} has another number of tokens in its last block than at its end")
    return _Seen(_as_maps(tokens, features), _as_maps(gradients, features), real)


def _as_maps(tokens: Tensor, features: Features) -> Tensor:
    """The patches among tokens (B, N, D) as (B, D, rows, columns)."""
    return tokens[:, features.num_prefix_tokens :].unflatten(1, features.grid).permute(0, 3, 1, 2)


def _gradients(logits: Tensor, targets: Sequence[Target], of: Tensor) -> Tensor:
    return torch.autograd.grad(target_values(logits, targets).sum(), of)[0]


class _Looking(nn.Module):
    """A model whose call gives its features: `functional_call` knows calls alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Features:
        return cast("Any", self.model).features(images)


def fixed_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, the same memory, of which no gradient is taken; for `functional_call`."""
    return {name: tensor.detach() for name, tensor in chain(model.named_parameters(), model.named_buffers())}


def integrated_gradients(subject: Subject, images: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    """Maps (N, H, W) float32 of each pixel's part in the target, summed over its colours; signed.

    The mean gradient on the straight way from an image of the fill colour to the image, times their difference; a
    map's sum is the difference between the two answers, as far as so many steps go. Sundararajan et al. 2017,
    "Axiomatic Attribution for Deep Networks", by Captum; passes forward and back: 50 an image.
    """
    from captum.attr import IntegratedGradients

    model = subject.model
    assert model is not None
    weights, num_colours = fixed_weights(model), len(subject.fill)
    size = _most_images(subject, images[0])
    maps: list[Tensor] = []
    for image, target in zip(channels_first(images).split(1), targets, strict=True):
        pixels = image.to(subject.device).float() / 255
        baseline = pixels.clone()  # what is padding stays so
        baseline[:, :num_colours] = torch.from_numpy(subject.fill).to(pixels)[None, :, None, None] / 255

        def answer(images: Tensor, target: Target = target) -> Tensor:
            return target_values(functional_call(model, weights, (images,)), [target] * len(images))

        parts = IntegratedGradients(answer).attribute(
            pixels, baselines=baseline, n_steps=STEPS, internal_batch_size=size
        )
        maps.append(parts[:, :num_colours].sum(dim=1).detach().cpu())
    return torch.cat(maps).float().numpy()
