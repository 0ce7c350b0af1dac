"""Weights from elsewhere: recognised, renamed, and fitted to a model.

Nothing here reads a file. Names and layouts of other libraries are in `layouts/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import ValidationError
from torch import Tensor, nn

from vitrail.errors import CheckpointError, from_validation, some
from vitrail.models.adaptation import HEADS, NEW_PARTS, adapt_weights, build_on_meta, head_names
from vitrail.models.cnn import CnnConfig, TimmConfig
from vitrail.models.families import AnyModelConfig
from vitrail.models.layouts import google, huggingface, timm, torchvision
from vitrail.models.layouts.shapes import complete, settings_from_shapes
from vitrail.models.vit_config import ViTConfig

__all__ = [
    "HEADS",
    "LAYOUTS",
    "NEW_PARTS",
    "Imported",
    "adapt_weights",
    "check_weights",
    "import_network",
    "import_weights",
    "load_weights",
    "recognise",
]

# What `recognise` answers -> the file that maps its names.
LAYOUTS: dict[str, ModuleType] = {
    "timm": timm,
    "huggingface": huggingface,
    "torchvision": torchvision,
    "google": google,
}

# Settings that shapes do not tell, which a model that the user names may.
_UNTOLD = ("num_heads", "act_layer", "norm_eps", "rope_temperature", "mean", "std", "image_size")


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
    try:
        own, ours = _told_and_renamed(weights, described, config)
    except ValidationError as error:
        raise CheckpointError(f"The weights are of no model that can be built: {from_validation(error)}") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"The weights, or their description, are damaged: {error}") from error
    _check_fit(_shapes(build_on_meta(own)), ours, () if "head.weight" in ours else HEADS)
    return Imported(own, ours)


def _told_and_renamed(
    weights: Mapping[str, Tensor], described: Mapping[str, Any] | None, config: ViTConfig | None
) -> tuple[ViTConfig, dict[str, Tensor]]:
    """The config that weights and description tell, and the weights under our names."""
    module = LAYOUTS[recognise(weights)]
    ours: dict[str, Tensor] = module.import_names(weights)
    settings = settings_from_shapes(ours)
    told: dict[str, Any] = module.describe(weights, described)
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
    return ViTConfig.model_validate(complete(settings | told, ours)), ours


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


def check_weights(config: AnyModelConfig, weights: Mapping[str, Tensor], allowed_missing: Sequence[str] = ()) -> None:
    """Raise CheckpointError unless `load_weights` would take them for the model that a config describes."""
    _check_fit(_shapes(build_on_meta(config)), weights, allowed_missing)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], allowed_missing: Sequence[str] = ()) -> None:
    """Give a model its weights; names that begin with one of `allowed_missing` may lack, and keep what they have.

    Raises CheckpointError, and leaves the model as it was, if another name lacks, is unknown, or has another shape.
    """
    _check_fit(_shapes(model), weights, allowed_missing)
    model.load_state_dict(dict(weights), strict=False)


def import_network(
    weights: Mapping[str, Tensor], named: CnnConfig | TimmConfig
) -> tuple[CnnConfig | TimmConfig, dict[str, Tensor], bool]:
    """Weights under torchvision's or timm's own names, of the model that the user says, and whether a head is there.

    Classes and channels are as the weights have them; `check_weights` tells what does not fit.
    """
    ours = {f"net.{name}": tensor for name, tensor in weights.items()}
    told: dict[str, int] = {}
    of_head = [tensor for name, tensor in ours.items() if name.startswith(head_names(named))]
    if of_head and of_head[0].ndim:
        told["num_classes"] = of_head[0].shape[0]
    kernels = [tensor for tensor in ours.values() if tensor.ndim == 4]
    if kernels:  # the first is the stem's
        told["in_chans"] = kernels[0].shape[1]
    return named.model_copy(update=told), ours, bool(of_head)
