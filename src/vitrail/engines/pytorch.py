"""The engine that runs a torch module."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.checkpoint import weights_digest
from vitrail.data.loader import channels_first
from vitrail.errors import ConfigError
from vitrail.models.padding import pad_images

MEMORY_VALUES = 2**22  # input values of one forward pass: 5,000 images of 28x28 grey, 27 of 224x224 RGB


def resolve_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda", "cuda:N" or "mps" stands for; auto prefers CUDA, then MPS.

    Raises ConfigError for another name, or a device that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (number and (kind != "cuda" or not number.isdecimal())):
        raise ConfigError(f"device={name!r} is not known; use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            found = f"{count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device"
            raise ConfigError(f"device={name!r} is not there: this machine has {found}; use auto or cpu")
        return torch.device("cuda", int(number or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            "device='mps' is not there: this machine has no Apple GPU that torch can use; use auto or cpu"
        )
    return torch.device(kind)


@torch.inference_mode()
def forward_batches(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Logits (N, K) float32 on the CPU of images (N, C, H, W) uint8, in batches that fit in memory.

    The model is evaluated: dropout off, and left in the mode it was in.
    """
    batch_size = _batch_size(images)
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(batch.to(device)).float().cpu() for batch in images.split(batch_size)])
    finally:
        model.train(was_training)


def _batch_size(images: Tensor) -> int:
    return max(1, min(512, MEMORY_VALUES // images[0].numel()))


@runtime_checkable
class _Pooling(Protocol):
    """A model that pools what it sees to one vector, and answers by that alone."""

    def forward_features(self, images: Tensor) -> Tensor: ...

    def pool(self, tokens: Tensor) -> Tensor: ...

    def classify(self, pooled: Tensor) -> Tensor: ...


@runtime_checkable
class _PoolingItself(_Pooling, Protocol):
    """One that does both in a step of its own, as with merged tokens."""

    def forward_pooled(self, images: Tensor) -> Tensor: ...


class TorchEngine:
    """A model on a device: images as a user has them to logits, whatever their number."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.device = device

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, K) float32 of images uint8 (N, H, W, C) that have the model's size."""
        return forward_batches(self.model, channels_first(images), self.device).numpy()

    @torch.inference_mode()
    def logits_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K), and the vectors (N, D) the head makes them of, float32; without such, the logits again."""
        if not isinstance(self.model, _Pooling):
            logits = self.logits(images)
            return logits, logits
        batches = channels_first(images)
        pooled = [self._pooled(batch.to(self.device)) for batch in batches.split(_batch_size(batches))]
        logits = torch.cat([self.model.classify(features).float().cpu() for features in pooled])
        return logits.numpy(), torch.cat([features.float().cpu() for features in pooled]).numpy()

    def _pooled(self, images: Tensor) -> Tensor:
        if isinstance(self.model, _PoolingItself):
            return self.model.forward_pooled(images)
        assert isinstance(self.model, _Pooling)
        return self.model.pool(self.model.forward_features(images))

    @torch.inference_mode()
    def native_logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Logits (N, K) float32 of images uint8 (H, W, C), each of its own size; each has those it has alone.

        Images of like size share a batch, padded to the largest. Raises ConfigError for models that take one size only,
        and for sizes that do not fit the model.
        """
        if "sizes" not in inspect.signature(self.model.forward).parameters:
            raise ConfigError("This model takes images of one size in a batch; resize them to one, or use a ViT")
        if not len(images):
            raise ConfigError("There are no images to pad; give one or more")
        tensors = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]
        found: dict[int, Tensor] = {}
        for places in _like_batches(tensors):
            batch, sizes = pad_images([tensors[place] for place in places])
            logits = self.model(batch.to(self.device), sizes=sizes.to(self.device))
            found.update(zip(places, logits.float().cpu(), strict=True))
        return torch.stack([found[place] for place in range(len(images))]).numpy()

    def digest(self) -> str:
        """The sha256 of the model's weights, which is that of the model.safetensors that holds them."""
        return weights_digest(self.model.state_dict())


def _like_batches(images: Sequence[Tensor]) -> list[list[int]]:
    """The places of the images, those of like size together, in batches that fit in memory when padded."""
    batches: list[list[int]] = []
    rows = columns = 0
    for place in sorted(range(len(images)), key=lambda place: tuple(images[place].shape[1:])):
        channels, own_rows, own_columns = images[place].shape
        rows, columns = max(rows, own_rows), max(columns, own_columns)
        num_images = len(batches[-1]) + 1 if batches else 1
        if batches and num_images <= 512 and num_images * channels * rows * columns <= MEMORY_VALUES:
            batches[-1].append(place)
        else:
            batches.append([place])
            rows, columns = own_rows, own_columns
    return batches
