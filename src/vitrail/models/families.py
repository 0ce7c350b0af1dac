"""The families of models: each one's config, and the module it describes.

`AnyModelConfig` is the type of a field that may hold the config of any family, told apart by `kind`.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, cast

from pydantic import BeforeValidator, Discriminator, Tag
from torch import nn

from vitrail.errors import suggest
from vitrail.models.attention2d import Attention2dClassifier, Attention2dConfig
from vitrail.models.cnn import Cnn, CnnConfig, TimmConfig, TimmModel
from vitrail.models.config import ImageModelConfig
from vitrail.models.conv_tokens import CompactTransformer, ConvTokensConfig
from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig


class Family(NamedTuple):
    """A config, and the module that takes it."""

    config: type[ImageModelConfig]
    module: type[nn.Module]


# The `kind` of a config -> its family.
FAMILIES: dict[str, Family] = {
    "vit": Family(ViTConfig, VisionTransformer),
    "attention2d": Family(Attention2dConfig, Attention2dClassifier),
    "cct": Family(ConvTokensConfig, CompactTransformer),
    "cnn": Family(CnnConfig, Cnn),
    "timm": Family(TimmConfig, TimmModel),
}


def _kind(model: object) -> Any:
    """The kind that a config, or what may become one, says it is: "vit" where it says none."""
    if isinstance(model, dict):
        return cast("dict[str, Any]", model).get("kind", "vit")
    return getattr(model, "kind", "vit")


def _check_kind(model: object) -> object:
    kind = _kind(model)
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(
            f"kind={kind!r} is not possible.{suggest(str(kind), FAMILIES)} Use one of {', '.join(FAMILIES)}"
        )
    return model


# Tags stand in angle brackets, as such parts are no part of a setting's name in errors.
AnyModelConfig = Annotated[
    Annotated[ViTConfig, Tag("<vit>")]
    | Annotated[Attention2dConfig, Tag("<attention2d>")]
    | Annotated[ConvTokensConfig, Tag("<cct>")]
    | Annotated[CnnConfig, Tag("<cnn>")]
    | Annotated[TimmConfig, Tag("<timm>")],
    Discriminator(lambda model: f"<{_kind(model)}>"),
    BeforeValidator(_check_kind),
]
