"""Going through images once, in batches that fit in memory, for what is told of a model's layers."""

# Shapes: N images, B images of a batch, L layers, P patches, D width of a layer

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.data.dataset import ImageSet
from vitrail.data.loader import channels_first
from vitrail.errors import DataError, some
from vitrail.interpretation.distances import AttentionSpread, attention_spread
from vitrail.interpretation.layers import Layer, layer_outputs, num_read, pooled, same_tokens
from vitrail.interpretation.traces import check_attention, trace
from vitrail.models import count_operations
from vitrail.models.families import AnyModelConfig

MOST_ATTENDING = 64  # images whose attention and tokens are looked at
MOST_IMAGES = 1000  # images of a split whose vectors are looked at
LEAST_IMAGES = 100
MOST_ROWS = 768  # tokens that layers are compared by; four times as many changed a similarity by less than 0.01
_MOST_TOKENS = 260  # of an image; of more, fewer images are looked at, as attention grows with their square
_LEAST_ATTENDING = 8
_BATCH_VALUES = 2**25  # numbers held for a batch: 128 MiB
_VALUES_OF_TOKEN = 6  # of each of its values: query, key, value, heads' output, normalised, token
_ATTENDING = ("validation", "test", "train")  # of the first of these
STEM = "stem"  # of a CNN, whose modules call it by its last activation
_ACTIVATIONS = ("relu", "act1")
_WORK = 4e12  # multiply-adds for a model's vectors on a CPU: a minute on two cores


class TokenSample(NamedTuple):
    """What the layers of a model make of some images."""

    names: tuple[str, ...]
    """of the layers"""
    rows: list[NDArray[np.float32]]
    """some tokens of all images, the same of each layer, (rows, D) each"""
    norms: NDArray[np.float32]
    """of patches, (L, N, P); NaN where one takes no part. (0, 0, 0) for layers of different sizes, as a CNN's"""
    prefix_norms: NDArray[np.float32]
    """of class token, distillation token and registers, the mean over images (L, number of them)"""
    grid: tuple[int, int]
    """rows and columns of the patches, of the first layer"""


class LayerVectors(NamedTuple):
    """A vector for each image by each layer, and the model's answers."""

    names: tuple[str, ...]
    vectors: list[NDArray[np.float32]]
    """(N, D) each"""
    logits: NDArray[np.float32]
    """(N, num_classes)"""


def num_images(config: AnyModelConfig, parameters: int, image_size: tuple[int, int], device: torch.device) -> int:
    """Images of a split whose vectors a model makes in reasonable time: a thousand, of large models on a CPU fewer."""
    pixels = image_size[0] * image_size[1]
    if device.type != "cpu" or 3 * MOST_IMAGES * parameters * pixels < _WORK:  # at the most every weight at every pixel
        return MOST_IMAGES
    operations = count_operations(config) * pixels / (config.image_size[0] * config.image_size[1])
    return int(min(MOST_IMAGES, max(LEAST_IMAGES, _WORK / (3 * operations))))


@dataclass(eq=False)
class Look:
    """A model and the images to look at it with; what several figures need is gathered once, when first asked for.

    `images` are of the splits "train", "validation" and "test", any of which may be missing; `no_images` is said where
    there are none. `report` hears how many images of how many have gone through the layers.
    """

    model: nn.Module
    device: torch.device
    config: AnyModelConfig
    image_size: tuple[int, int]
    images: Mapping[str, ImageSet]
    no_images: str
    report: Callable[[int, int], None] | None = None
    done: int = 0

    def __post_init__(self) -> None:
        self.images = {name: own for name, own in self.images.items() if len(own)}

    def part(self, *names: str) -> tuple[str, ImageSet]:
        """The first of these splits that has images, and its name. Raises DataError if none has."""
        for name in names:
            if name in self.images:
                return name, self.images[name]
        if not self.images:
            raise DataError(self.no_images)
        raise DataError(f"There are no {some(names)} images to look at, but those of {some([*self.images])}")

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """Images of a batch, and images to look at closely, as one of them tells."""
        _, images = self.part(*_ATTENDING)
        found = layer_outputs(self.model, channels_first(images.pixels[:1]).to(self.device))
        values = _VALUES_OF_TOKEN * sum(layer.tokens.numel() for layer in found.outputs)
        tokens = max(layer.tokens.shape[1] for layer in found.outputs)
        attending = round(MOST_ATTENDING * min(1.0, _MOST_TOKENS / tokens) ** 2)
        return max(1, min(256, _BATCH_VALUES // values)), max(_LEAST_ATTENDING, attending)

    @cached_property
    def _attending(self) -> NDArray[np.uint8]:
        """Images whose attention and tokens are looked at."""
        return sample(self.part(*_ATTENDING)[1], self._sizes[1]).pixels[:]

    @cached_property
    def tokens(self) -> TokenSample:
        """Tokens of each layer. Raises ConfigError for models whose layers are not known."""
        return gather_tokens(self.model, self._attending, self.device, self._sizes[0])

    @cached_property
    def attention(self) -> AttentionSpread:
        """How far and how evenly heads attend. Raises ConfigError for models without attention."""
        check_attention(self.model)
        return gather_attention(self.model, self._attending, self.device, self._sizes[0])

    @cached_property
    def num_images(self) -> int:
        """Images of a split whose vectors are looked at."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return num_images(self.config, parameters, self.image_size, self.device)

    def vectors(self, name: str) -> tuple[LayerVectors, NDArray[np.int64]]:
        """Those of each layer for images of a split, train or validation, and the labels of these."""
        _, images = self.part(name)
        images = sample(images, self.num_images)
        before, report = self.done, self.report
        total = sum(min(len(self.images.get(split, ())), self.num_images) for split in ("train", "validation"))

        def tell(done: int) -> None:
            if report is not None:
                report(before + done, total)

        found = gather_vectors(self.model, images.pixels[:], self.device, self._sizes[0], tell)
        self.done += len(images)
        return found, images.labels


def sample(images: ImageSet, count: int, seed: int = 0) -> ImageSet:
    """So many of the images, the same each time, in the order that they are stored in; all if they are fewer."""
    if len(images) <= count:
        return images
    return images.take(np.sort(np.random.default_rng(seed).permutation(len(images))[:count]))


def _names(outputs: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(STEM if layer.name in _ACTIVATIONS else layer.name for layer in outputs)


def gather_attention(
    model: nn.Module, images: NDArray[np.uint8], device: torch.device, batch_size: int
) -> AttentionSpread:
    """How far and how evenly heads attend in images (N, H, W, C). Raises ConfigError for models without attention."""
    batches = channels_first(images).split(batch_size)
    return attention_spread((trace(model, batch.to(device)) for batch in batches), images.shape[1:3])


def gather_tokens(
    model: nn.Module, images: NDArray[np.uint8], device: torch.device, batch_size: int, seed: int = 0
) -> TokenSample:
    """What each layer makes of images (N, H, W, C). The same seed gives the same tokens."""
    names: tuple[str, ...] = ()
    rows: list[list[Tensor]] = []
    norms: list[Tensor] = []
    prefix_norms: list[Tensor] = []
    draws, grid = torch.Generator().manual_seed(seed), (0, 0)
    for batch in channels_first(images).split(batch_size):
        found = layer_outputs(model, batch.to(device))
        names = _names(found.outputs)
        grid = found.outputs[0].grid
        tokens = same_tokens(found.outputs, found.patch_mask)
        chosen = torch.randperm(len(tokens[0]), generator=draws)[: -(-MOST_ROWS * len(batch) // len(images))]
        rows.append([own[chosen.to(own.device)].float().cpu() for own in tokens])
        if len({layer.tokens.shape for layer in found.outputs}) > 1:
            continue
        lengths = torch.stack([layer.tokens.float().norm(dim=2) for layer in found.outputs]).cpu()  # (L, B, N)
        num_prefix = found.outputs[0].num_prefix_tokens
        prefix_norms.append(lengths[:, :, :num_prefix])
        lengths = lengths[:, :, num_prefix:]
        norms.append(lengths if found.patch_mask is None else lengths.where(found.patch_mask.cpu(), torch.nan))
    gathered = [torch.cat(parts).numpy() for parts in zip(*rows, strict=True)]
    if not norms:
        return TokenSample(
            names, gathered, np.empty((0, 0, 0), np.float32), np.empty((len(names), 0), np.float32), grid
        )
    every = torch.cat(norms, dim=1).numpy()
    return TokenSample(names, gathered, every, torch.cat(prefix_norms, dim=1).mean(dim=1).numpy(), grid)


def gather_vectors(
    model: nn.Module,
    images: NDArray[np.uint8],
    device: torch.device,
    batch_size: int,
    report: Callable[[int], None],
) -> LayerVectors:
    """A vector of each layer for each of images (N, H, W, C), pooled as the head pools; `report` hears how many."""
    names: tuple[str, ...] = ()
    vectors: list[list[Tensor]] = []
    logits: list[Tensor] = []
    read, done = num_read(model), 0
    for batch in channels_first(images).split(batch_size):
        found = layer_outputs(model, batch.to(device))
        names = _names(found.outputs)
        vectors.append([pooled(layer, read, found.patch_mask).float().cpu() for layer in found.outputs])
        logits.append(found.logits.float().cpu())
        done += len(batch)
        report(done)
    return LayerVectors(
        names, [torch.cat(parts).numpy() for parts in zip(*vectors, strict=True)], torch.cat(logits).numpy()
    )
