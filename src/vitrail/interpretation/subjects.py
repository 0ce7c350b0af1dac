"""What is explained: a model as the methods of explanation meet it, whatever engine runs it.

Shapes: N images, C channels of colour, K classes
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from vitrail.engines.pytorch import TorchEngine
from vitrail.models.cnn import TimmConfig
from vitrail.models.config import ImageModelConfig

_CPU = torch.device("cpu")


class Engine(Protocol):
    """Whatever runs a model."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, K) float32 of images uint8 (N, H, W, C) that have the model's size."""
        ...


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to explain.

    `answer` gives logits (N, K) float32 of images uint8 (N, H, W, channels). `fill` is the colour, float32 (C,) in
    0..255, that stands for "nothing": the model's mean. Images may have a channel more than that, which says what is
    padding; it is no evidence. `model` is None where there is no torch module, and so no gradients and no attention.
    """

    answer: Callable[[np.ndarray], np.ndarray]
    fill: np.ndarray
    model: nn.Module | None = None
    device: torch.device = _CPU
    found_out: dict[str, str | None] = field(default_factory=dict[str, "str | None"], repr=False)
    """what it was found to lack, by what was tried"""

    @classmethod
    def of(cls, engine: Engine, config: ImageModelConfig) -> Subject:
        """The model that an engine runs, `config` its own."""
        fill = np.array(config.scaling()[0], np.float32) * 255
        if not isinstance(engine, TorchEngine):
            return cls(engine.logits, fill)
        return cls(engine.logits, fill, _differentiable(engine.model), engine.device)

    def blank(self) -> np.ndarray:
        """One black image of the size that the model was made for, to try on it what cannot be told otherwise."""
        config = cast("Any", self.model).config
        return np.zeros((1, *config.image_size, config.input_channels), np.uint8)

    @contextmanager
    def evaluated(self) -> Generator[None]:
        """Within it the model is evaluated, and gradients may be taken; afterwards all is as it was."""
        modes = [] if self.model is None else [(module, module.training) for module in self.model.modules()]
        with torch.inference_mode(False), torch.enable_grad():
            try:
                for module, _ in modes:
                    module.training = False
                yield
            finally:
                for module, training in modes:
                    module.training = training


def _differentiable(model: nn.Module) -> nn.Module:
    """The model; a copy where its weights were made for inference alone, through which no gradient passes."""
    if any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers())):
        with torch.inference_mode(False):
            return copy.deepcopy(model)
    return model


def model_name(model: nn.Module) -> str:
    """What sentences call a model: its architecture where that has a name, else its class."""
    config: Any = getattr(model, "config", None)
    if isinstance(config, TimmConfig):
        return f"timm's {config.name}"
    return getattr(config, "architecture", type(model).__name__)
