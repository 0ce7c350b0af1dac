from typing import Any

import pytest
import torch
from other_layouts import to_torchvision
from torch import Tensor
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import ConvStemConfig

from vitrail.errors import CheckpointError
from vitrail.models.weights import import_weights, recognise

SIZES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 128,
    "mlp_dim": 72,
    "num_classes": 5,
}


def scaled(images: Tensor) -> Tensor:
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    return (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def test_logits_equal_torchvisions(scramble: Any, our_logits: Any, images: Any) -> None:
    model = scramble(VisionTransformer(**SIZES))
    weights = model.state_dict()
    assert recognise(weights) == "torchvision"
    old = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): part for name, part in weights.items()
    }
    for names in (weights, old):
        logits, imported = our_logits(images(2, 3, 32, 32), names)
        with torch.inference_mode():
            expected = model(scaled(images(2, 3, 32, 32)))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
    assert imported.config.mean == (0.485, 0.456, 0.406)


def test_the_heads_of_the_largest_are_known() -> None:
    with torch.device("meta"):
        weights = VisionTransformer(**{**SIZES, "hidden_dim": 1280, "num_heads": 16}).state_dict()
    assert import_weights(weights).config.num_heads == 16


def test_what_is_written_is_what_torchvision_loads(scramble: Any) -> None:
    model = scramble(VisionTransformer(**SIZES))
    imported = import_weights(model.state_dict())
    theirs = to_torchvision(imported.weights)
    model.load_state_dict(theirs, strict=True)
    again = import_weights(theirs)
    assert again.config == imported.config
    assert all(torch.equal(tensor, imported.weights[name]) for name, tensor in again.weights.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"representation_size": 12},
            r"^The model has no place for heads\.pre_logits\.weight, heads\.pre_logits\.bias",
        ),
        (
            {"conv_stem_configs": [ConvStemConfig(out_channels=8, kernel_size=3, stride=8)]},
            r"^The weights lack patch_embed\.proj\.weight",
        ),
    ],
)
def test_what_our_model_has_not_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        import_weights(VisionTransformer(**SIZES, **settings).state_dict())
