"""What the configs of all models have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _pair(value: object) -> object:
    """One number means rows and columns alike."""
    if isinstance(value, int | float):
        return (value, value)
    if isinstance(value, list | tuple) and len(value) == 1:
        return (value[0], value[0])
    return value


PositiveInt = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_pair)]


class ImageModelConfig(BaseModel):
    """Every model's config: images of a size, with channels, that are scaled and sorted into classes.

    A family adds `kind`, a Literal with its name, and its own settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    kind: Any  # a Literal in each family
    """the family of models"""
    image_size: Size = (224, 224)
    """rows and columns of the images in pixels; one number for square ones"""
    in_chans: PositiveInt = 3
    """channels of the images"""
    num_classes: PositiveInt = 1000
    """outputs of the head"""
    mean: tuple[float, ...] | None = None
    """mean of each channel in 0..1, taken off the images; none: measured on the training images, else 0.5"""
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """deviation of each channel in 0..1, which divides the images; none: measured, else 0.5"""

    @model_validator(mode="after")
    def _check_channels(self) -> ImageModelConfig:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.in_chans:
                raise ValueError(
                    f"{name}={','.join(map(str, values))} is not one value a channel for in_chans={self.in_chans}; "
                    f"give {self.in_chans}"
                )
        return self

    @property
    def input_channels(self) -> int:
        """Channels of the arrays that the model takes: those of the images, and what else it is told of each pixel."""
        return self.in_chans

    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel, 0.5 where there are none yet."""
        half = (0.5,) * self.in_chans
        return self.mean or half, self.std or half


# What several families ask of their settings; a ValueError becomes the ConfigError of the settings as a whole.


def check_stem(stem: str, image_size: tuple[int, int], patch_size: tuple[int, int], embed_dim: int) -> None:
    """Raise ValueError unless convolutions can make the patches, or for stem=linear whole patches fill the image."""
    rows, columns = patch_size
    if stem == "conv":
        if rows != columns or rows < 4 or rows & (rows - 1):
            raise ValueError(f"patch_size={rows}x{columns} is not possible with stem='conv'; use 4, 8, 16 or 32")
        if embed_dim % 2:
            raise ValueError(f"embed_dim={embed_dim} is odd, which stem='conv' cannot halve; use an even one")
        return
    for size, patch in zip(image_size, patch_size, strict=True):
        if size % patch:
            below, above = size // patch * patch, (size // patch + 1) * patch
            nearest = f"{below} or {above}" if below else str(above)
            raise ValueError(
                f"image_size={size} is not a multiple of patch_size={patch}; use {nearest}, or another patch_size"
            )


def check_heads(embed_dim: int, num_heads: int, remedy: str = "change one of them") -> None:
    """Raise ValueError unless the heads share the width evenly."""
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim={embed_dim} is not a multiple of num_heads={num_heads}; {remedy}")


def check_mlp(embed_dim: int, mlp_ratio: float) -> None:
    """Raise ValueError unless the MLP has a hidden layer."""
    if int(embed_dim * mlp_ratio) < 1:
        raise ValueError(
            f"mlp_ratio={mlp_ratio:g} leaves the MLP of embed_dim={embed_dim} no hidden layer; use a larger one"
        )


def check_positions(pos_embed: str, embed_dim: int) -> None:
    """Raise ValueError for sines and cosines of rows and columns that do not share the width evenly."""
    if pos_embed == "sincos2d" and embed_dim % 4:
        raise ValueError(f"embed_dim={embed_dim} is not a multiple of 4, which pos_embed='sincos2d' needs")
