import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.models import create_model
from vitrail.models.weights import HEADS, LAYOUTS, import_weights, load_weights, recognise

TINY: dict[str, Any] = {
    "img_size": 12,
    "patch_size": 4,
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 1,
    "num_classes": 5,
}

Weights = dict[str, Tensor]


@pytest.fixture
def weights() -> Weights:
    return dict(timm.create_model("vit_base_patch16_224", **TINY).state_dict())


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vgg11", "mixer_s32_224"])
def test_weights_of_another_family_are_refused(name: str) -> None:
    with torch.device("meta"):
        others = timm.create_model(name).state_dict()
    first = re.escape(next(iter(others)))
    message = (
        rf"^These are not weights of a Vision Transformer in the layout of {', '.join(LAYOUTS)}; "
        rf"the first names are {first}, .* and [\d,]+ more$"
    )
    if name == "mixer_s32_224":
        message = "^These are not weights of a Vision Transformer|^The weights lack patch_embed|no place for|lack "
    with pytest.raises(CheckpointError, match=message):
        import_weights(others)


def test_no_weights_at_all_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"the first names are none$"):
        recognise({})


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: tensor for key, tensor in weights.items() if key != name}


def with_shape(name: str, *shape: int) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("norm.weight"), "The weights lack norm.weight; the file is incomplete or of another model"),
        (without("blocks.1.attn.qkv.bias"), "The weights lack blocks.1.attn.qkv.bias; the file is incomplete"),
        (without("blocks.0.attn.qkv.weight"), "The weights lack blocks.0.attn.qkv.weight, so their model is unknown"),
        (without("head.bias"), "The weights lack head.bias; the file is incomplete or of another model"),
        (
            with_shape("wings.weight", 2),
            "The model has no place for wings.weight of the weights; they are of another model",
        ),
        (
            with_shape("blocks.1.norm1.weight", 65),
            "blocks.1.norm1.weight of the weights has shape (65,), not the model's (64,); they are of another model",
        ),
        (
            with_shape("patch_embed.proj.weight", 64, 48),
            "patch_embed.proj.weight of shape (64, 48) is of no Vision Transformer",
        ),
        (with_shape("blocks.0.attn.qkv.weight", 0, 64), "blocks.0.attn.qkv.weight of shape (0, 64) is of no Vision"),
        (
            with_shape("pos_embed", 1, 12, 64),
            "12 position embeddings are not those of a square grid of patches; "
            "name a model with the image_size that they are for",
        ),
        (with_shape("pos_embed", 64), "The weights, or their description, are damaged: "),
        (with_shape("reg_token", 3), "The weights, or their description, are damaged: "),
        (with_shape("head.weight"), "The weights, or their description, are damaged: "),
    ],
)
def test_weights_that_are_damaged_are_refused(
    weights: Weights, spoil: Callable[[Weights], Weights], message: str
) -> None:
    with pytest.raises(CheckpointError, match="^" + re.escape(message)):
        import_weights(spoil(weights))


def test_weights_without_a_head_are_taken_without(weights: Weights) -> None:
    imported = import_weights({name: tensor for name, tensor in weights.items() if not name.startswith("head")})
    assert not [name for name in imported.weights if name.startswith("head")]
    assert imported.config.embed_dim == 64


def test_an_image_that_is_not_square_needs_its_model_to_be_named(weights: Weights) -> None:
    wide = dict(timm.create_model("vit_base_patch16_224", **{**TINY, "img_size": (8, 12)}).state_dict())
    with pytest.raises(CheckpointError, match=r"^7 position embeddings are not those of a square grid"):
        import_weights(wide)
    named = import_weights(weights).config.model_copy(update={"image_size": (8, 12)})
    assert import_weights(wide, config=named).config.image_size == (8, 12)


def test_positions_that_are_computed_are_those_of_the_model_that_is_named(weights: Weights) -> None:
    named = import_weights(weights).config.model_copy(update={"pos_embed": "sincos2d", "num_heads": 2})
    imported = import_weights({name: part for name, part in weights.items() if name != "pos_embed"}, config=named)
    assert (imported.config.pos_embed, imported.config.image_size) == ("sincos2d", (12, 12))
    assert imported.config.num_heads == 2


def test_a_model_is_left_as_it_was_by_weights_that_do_not_fit() -> None:
    settings = {"image_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
    model = create_model("vit_tiny_patch16_224", **settings)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    others = {name: torch.full_like(tensor, 7) for name, tensor in before.items()}
    with pytest.raises(CheckpointError, match=r"^The weights lack head\.weight, head\.bias; "):
        load_weights(model, {name: tensor for name, tensor in others.items() if not name.startswith("head")})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    load_weights(model, {name: tensor for name, tensor in others.items() if not name.startswith("head")}, HEADS)
    after = model.state_dict()
    assert all(torch.equal(tensor, before[name]) == name.startswith("head") for name, tensor in after.items())
