"""The families of models: each one's config, and the module it describes.

`AnyModelConfig` is the type of a field that may hold the config of any family, told apart by `kind`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from vitrail.models.config import ImageModelConfig
from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig


class Family(NamedTuple):
    """A config, and the module that takes it."""

    config: type[ImageModelConfig]
    module: type[nn.Module]


# The `kind` of a config -> its family.
FAMILIES: dict[str, Family] = {
    "vit": Family(ViTConfig, VisionTransformer),
}

AnyModelConfig = ViTConfig
