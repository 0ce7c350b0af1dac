"""A trained model used otherwise than it was trained: on images of another size, with fewer tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, SupportsIndex

import torch
from pydantic import ValidationError
from torch import nn

from vitrail.checkpoint import ModelCard
from vitrail.errors import ConfigError, from_validation
from vitrail.models import build_model
from vitrail.models.config import ImageModelConfig

Size = tuple[int, int]  # rows, columns
SizeLike = int | str | Size


def parse_size(size: SizeLike) -> Size:
    """Rows and columns in pixels: 96 and "96" are square, "96x128" and (96, 128) have 96 rows.

    Raises ConfigError for anything else.
    """
    if isinstance(size, str):
        parts = re.fullmatch(r"\s*(\d+)\s*(?:x\s*(\d+)\s*)?", size.lower())
        numbers = [] if parts is None else [int(part) for part in parts.groups() if part is not None]
    else:
        given: Any = size  # callers need not be typed
        sides = list(given) if isinstance(given, Iterable) else [given]
        whole = all(isinstance(side, SupportsIndex) and not isinstance(side, bool) for side in sides)
        numbers = [int(side) for side in sides] if whole else []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        shown = size if isinstance(size, str) else repr(size)
        raise ConfigError(
            f"image_size={shown} is no size in pixels; write 96 for square images, or 96x128 for rows and columns"
        )
    return numbers[0], numbers[-1]


def adapted(model: nn.Module, card: ModelCard, image_size: SizeLike | None, merge_tokens: int = 0) -> ModelCard:
    """The card for images of another size; the model is set to merge so many tokens in each block.

    None leaves the size as it was trained, 0 the tokens. Raises ConfigError for a size that the model cannot take, with
    the nearest that it can, and for models that do not merge tokens.
    """
    merge = getattr(model, "merge_tokens", None)
    if merge is not None:
        merge(merge_tokens)
    elif merge_tokens:
        raise ConfigError(
            f"merge_tokens={merge_tokens} is not possible for {card.model_name}; only a ViT merges tokens"
        )
    size = card.preprocess.image_size if image_size is None else parse_size(image_size)
    if size == card.preprocess.image_size:
        return card
    _check_size(card, size)
    return card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"image_size": size})})


def changes(card: ModelCard, merge_tokens: int) -> dict[str, Any]:
    """What a result says of how the model was used otherwise than it was trained; nothing where it was not."""
    size = card.preprocess.image_size
    said = {} if size == card.model.image_size else {"image_size": list(size)}
    return said | ({"merge_tokens": merge_tokens} if merge_tokens else {})


def _check_size(card: ModelCard, size: Size) -> None:
    """Raise ConfigError unless the model takes images of that size: its config allows it, and one image passes.

    The image passes without memory or weights, as only its shape matters.
    """
    problem = _problem(card.model, size)
    if problem is not None:
        near = " or ".join(map(_text, _near(card.model, size)))
        # The config's own advice ends with other settings, which a trained model can no longer have.
        said = f"{problem.partition(';')[0]}; use {near}" if near else problem.partition(", or ")[0]
        raise ConfigError(f"image_size={_text(size)} does not fit {card.model_name}: {said}")
    try:
        with torch.device("meta"), torch.inference_mode():
            build_model(card.model).eval()(torch.zeros(1, card.model.input_channels, *size, dtype=torch.uint8))
    except RuntimeError as error:  # a network that halves its maps more often than a small image can be halved
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"image_size={_text(size)} does not fit {card.model_name}: {reason}; use another") from None


def _problem(config: ImageModelConfig, size: Size) -> str | None:
    """Why a model's config refuses a size; None where it does not."""
    try:
        type(config).model_validate({**config.model_dump(), "image_size": size})
    except ValidationError as error:
        return str(from_validation(error))
    return None


def _near(config: ImageModelConfig, size: Size) -> list[Size]:
    """The nearest sizes in whole patches that the config takes, at most two."""
    patch_size: Size = getattr(config, "patch_size", (1, 1))
    below = [side // patch for side, patch in zip(size, patch_size, strict=True)]
    above = [-(-side // patch) for side, patch in zip(size, patch_size, strict=True)]
    found: dict[Size, None] = {}
    for rows, columns in (below, above, [number + 1 for number in above]):
        near = rows * patch_size[0], columns * patch_size[1]
        if _problem(config, near) is None:
            found[near] = None
    return list(found)[:2]


def _text(size: Size) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
