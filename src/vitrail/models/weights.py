"""Weights from elsewhere: recognised, renamed, and fitted to a model.

Nothing here reads a file. Names and layouts of other libraries are in `layouts/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vitrail.errors import CheckpointError, from_validation, some
from vitrail.models import build_model
from vitrail.models.families import AnyModelConfig
from vitrail.models.layouts import google, huggingface, timm, torchvision
from vitrail.models.layouts.shapes import complete, settings_from_shapes
from vitrail.models.vit_config import ViTConfig

# What `recognise` answers -> the file that maps its names.
LAYOUTS: dict[str, ModuleType] = {
    "timm": timm,
    "huggingface": huggingface,
    "torchvision": torchvision,
    "google": google,
}

# Settings that shapes do not tell, which a model that the user names may.
_UNTOLD = ("num_heads", "act_layer", "norm_eps", "rope_temperature", "mean", "std", "image_size")
HEADS = ("head.", "head_dist.")


class Imported(NamedTuple):
    """A model's config, and its weights under our names.

    They fit `build_model(config)` strictly, but for a head where the weights come without one: then `head.weight` is
    not among them, and `load_weights` takes them with allowed_missing=("head.",).
    """

    config: ViTConfig
    weights: dict[str, Tensor]


def recognise(weights: Mapping[str, Tensor]) -> str:
    """Whose names the weights of a Vision Transformer bear: "timm", "huggingface", "torchvision" or "google".

    Raises CheckpointError for weights of anything else.
    """
    for layout, module in LAYOUTS.items():
        if module.recognises(weights):
            return layout
    raise CheckpointError(
        f"These are not weights of a Vision Transformer in the layout of {', '.join(LAYOUTS)}; "
        f"the first names are {some([*weights]) or 'none'}"
    )


def import_weights(
    weights: Mapping[str, Tensor], described: Mapping[str, Any] | None = None, config: ViTConfig | None = None
) -> Imported:
    """The config and the weights, under our names, of a Vision Transformer of another library.

    `described` is the model's config.json, parsed: of Hugging Face (with what its preprocessor_config.json holds, if
    that is merged into it), or of timm's repositories. Without it sizes come from shapes; what these do not tell, such
    as the number of heads, comes from `config`, the model that the user named, or is what the field's papers have.
    Raises CheckpointError for weights that are of no Vision Transformer, incomplete, or not as described.
    """
    module = LAYOUTS[recognise(weights)]
    try:
        ours: dict[str, Tensor] = module.import_names(weights)
        settings = settings_from_shapes(ours)
        told: dict[str, Any] = module.describe(weights, described)
    except (
        RuntimeError,
        IndexError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:  # shapes that cannot be turned or joined
        raise CheckpointError(f"The weights, or their description, are damaged: {error}") from error
    outputs, named = settings.get("num_classes"), told.get("num_classes")
    if None not in (outputs, named) and outputs != named:
        raise CheckpointError(
            f"The head of the weights has {outputs} outputs, not the {named} classes of their description"
        )
    if config is not None:
        asked = {name: getattr(config, name) for name in _UNTOLD}
        settings |= {name: value for name, value in asked.items() if value is not None}
        if settings["pos_embed"] == "none":
            settings["pos_embed"] = config.pos_embed if config.pos_embed != "learn" else "none"
    settings |= told
    try:
        own = ViTConfig.model_validate(complete(settings, ours))
    except ValidationError as error:
        raise CheckpointError(f"The weights are of no model that can be built: {from_validation(error)}") from None
    _check_fit(_shapes(build_on_meta(own)), ours, () if "head.weight" in ours else HEADS)
    return Imported(own, ours)


def build_on_meta(config: AnyModelConfig) -> nn.Module:
    """The module that a config describes, without memory."""
    with torch.device("meta"):
        return build_model(config)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_fit(
    expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor], allowed_missing: Sequence[str]
) -> None:
    """Raise CheckpointError unless weights have all the names and shapes that are expected, and no other."""
    missing = [name for name in expected if name not in weights and not name.startswith(tuple(allowed_missing))]
    if missing:
        raise CheckpointError(f"The weights lack {some(missing)}; the file is incomplete or of another model")
    unknown = [name for name in weights if name not in expected]
    if unknown:
        raise CheckpointError(f"The model has no place for {some(unknown)} of the weights; they are of another model")
    for name, tensor in weights.items():
        if tuple(tensor.shape) != expected[name]:
            raise CheckpointError(
                f"{name} of the weights has shape {tuple(tensor.shape)}, not the model's {expected[name]}; "
                "they are of another model"
            )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], allowed_missing: Sequence[str] = ()) -> None:
    """Give a model its weights; names that begin with one of `allowed_missing` may lack, and keep what they have.

    Raises CheckpointError, and leaves the model as it was, if another name lacks, is unknown, or has another shape.
    """
    _check_fit(_shapes(model), weights, allowed_missing)
    model.load_state_dict(dict(weights), strict=False)


def adapt_weights(
    weights: Mapping[str, Tensor], own: AnyModelConfig, wanted: AnyModelConfig, keep_head: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of the model `own` fitted to the model `wanted`, and a sentence for each thing that was changed.

    The head is left out, for one of new classes, unless `keep_head`. Position embeddings are resized to the grid of
    patches of `wanted`, the first layer to its channels. Give the result to `load_weights` with
    allowed_missing=("head.",); `head_dist.` and `attn_pool.` too where they are new.
    Raises CheckpointError naming the first setting in which the two are different models.
    """
    adapted = {name: tensor for name, tensor in weights.items() if keep_head or not name.startswith("head")}
    return adapted, []
