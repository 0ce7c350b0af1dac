import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitrail.errors import ConfigError
from vitrail.interpretation.layers import Layer, layer_outputs, num_read, pooled, same_tokens
from vitrail.models import create_model

TINY = {"image_size": (8, 12), "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 3}
VIT = "vit_tiny_patch16_224"


def made(name: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **settings).eval()


def images(rows: int, columns: int, channels: int = 3, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, channels, rows, columns), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "settings", "prefix"),
    [
        (VIT, {**TINY, "reg_tokens": 2}, 3),
        ("cct_2_3x2_32", {"image_size": (32, 48)}, 0),
        ("s1_attention2d", {**TINY}, 0),
    ],
)
def test_blocks_of_transformers(name, settings, prefix):
    model = made(name, **settings)
    given = images(*settings["image_size"])
    found = layer_outputs(model, given)
    assert [layer.name for layer in found.outputs] == [str(index) for index in range(model.config.depth)]
    assert {layer.num_prefix_tokens for layer in found.outputs} == {prefix}
    last = found.outputs[-1]
    assert last.grid == model.grid
    assert last.tokens.shape[1] == prefix + last.grid[0] * last.grid[1]
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model(given))
        if name == VIT:
            torch.testing.assert_close(model.norm(last.tokens), model.forward_features(given))


def test_stages_of_a_resnet():
    model = made("resnet18", small_images=True, image_size=32, num_classes=3)
    given = images(32, 48)
    found = layer_outputs(model, given)
    assert [(layer.name, layer.grid, layer.tokens.shape[2]) for layer in found.outputs] == [
        ("relu", (32, 48), 64),
        ("layer1", (32, 48), 64),
        ("layer2", (16, 24), 128),
        ("layer3", (8, 12), 256),
        ("layer4", (4, 6), 512),
    ]
    with torch.no_grad():
        torch.testing.assert_close(found.outputs[-1].tokens, model.forward_features(given).flatten(2).transpose(1, 2))
        torch.testing.assert_close(found.logits, model(given))
    assert not model.net.layer1._forward_hooks


def test_convolutions_of_alexnet():
    with torch.device("meta"):  # it is large
        found = layer_outputs(made("alexnet", small_images=True, image_size=32), images(32, 32).to("meta"))
    assert [(layer.name, layer.grid) for layer in found.outputs] == [
        ("conv1", (32, 32)),
        ("conv2", (16, 16)),
        ("conv3", (8, 8)),
        ("conv4", (8, 8)),
        ("conv5", (8, 8)),
    ]


@pytest.mark.parametrize(
    ("name", "names", "grids", "prefix"),
    [
        ("vit_tiny_patch16_224", [str(index) for index in range(12)], {(14, 14)}, 1),
        (
            "resnet18",
            ["act1", "layer1", "layer2", "layer3", "layer4"],
            {(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)},
            0,
        ),
        (
            "swin_tiny_patch4_window7_224",
            ["layers.0", "layers.1", "layers.2", "layers.3"],
            {(56, 56), (28, 28), (14, 14), (7, 7)},
            0,
        ),
    ],
)
def test_what_timm_lists(name, names, grids, prefix):
    model = made(f"timm:{name}", num_classes=2)
    found = layer_outputs(model, images(224, 224, number=1))
    assert [layer.name for layer in found.outputs] == names
    assert {layer.grid for layer in found.outputs} == grids
    assert {layer.num_prefix_tokens for layer in found.outputs} == {prefix}


def test_heads_read_what_pooling_takes():
    tokens = torch.arange(2 * 8 * 4.0).view(2, 8, 4)
    layer = Layer("0", tokens, (2, 3), 2)
    mean = tokens[:, 2:].mean(dim=1)
    torch.testing.assert_close(pooled(layer, (0, True)), mean)
    torch.testing.assert_close(pooled(layer, (1, False)), tokens[:, 0])
    torch.testing.assert_close(pooled(layer, (2, False)), tokens[:, :2].flatten(1))
    torch.testing.assert_close(pooled(layer, (1, True)), torch.cat([tokens[:, 0], mean], dim=1))
    without = layer._replace(tokens=tokens[:, 2:], num_prefix_tokens=0)
    torch.testing.assert_close(pooled(without, (1, False)), mean)  # a class token that comes later
    mask = torch.tensor([[True] + [False] * 5, [True] * 6])
    torch.testing.assert_close(pooled(layer, (0, True), mask), torch.stack([tokens[0, 2], mean[1]]))


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({}, (1, False)),
        ({"global_pool": "avg"}, (0, True)),
        ({"global_pool": "token_avg"}, (1, True)),
        ({"global_pool": "map"}, (0, True)),
        ({"distilled": True}, (2, False)),
    ],
)
def test_what_heads_read(settings, read):
    model = made(VIT, **TINY, **settings)
    assert num_read(model) == read
    found = layer_outputs(model, images(8, 12))
    if "map" not in settings.values():
        with torch.no_grad():
            last = found.outputs[-1]._replace(tokens=model.norm(found.outputs[-1].tokens))
            torch.testing.assert_close(model.fc_norm(pooled(last, read)), model.pool(last.tokens))


def test_other_models_that_are_read():
    assert num_read(made("resnet18")) == (0, True)
    assert num_read(made("timm:vit_tiny_patch16_224")) == (1, False)
    assert num_read(made("timm:deit_tiny_distilled_patch16_224")) == (2, False)


def test_the_same_tokens_of_each_layer():
    whole = [Layer(str(index), torch.randn(2, 7, 4), (2, 3), 1) for index in range(2)]
    for layer, tokens in zip(whole, same_tokens(whole), strict=True):
        torch.testing.assert_close(tokens, layer.tokens.flatten(0, 1))
    mask = torch.tensor([[True, False] * 3, [True] * 6])
    kept = same_tokens(whole, mask)[0]
    torch.testing.assert_close(kept, torch.cat([whole[0].tokens[0, [0, 1, 3, 5]], whole[0].tokens[1]]))

    fine, coarse = torch.randn(2, 24, 3), torch.randn(2, 6, 5)
    found = same_tokens([Layer("a", fine, (4, 6), 0), Layer("b", coarse, (2, 3), 0)])
    torch.testing.assert_close(found[1], coarse.flatten(0, 1))
    maps = F.avg_pool2d(fine.transpose(1, 2).unflatten(2, (4, 6)), 2)
    torch.testing.assert_close(found[0], maps.flatten(2).transpose(1, 2).flatten(0, 1))


def test_padding_is_known():
    model = made(VIT, **{**TINY, "image_size": 8}, padding_mask=True, global_pool="avg", class_token=False)
    given = torch.cat([images(8, 8), torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)], dim=1)
    given[0, 3, :, 4:] = 0
    assert layer_outputs(model, given).patch_mask.tolist() == [[True, False, True, False], [True] * 4]


def test_models_whose_layers_are_not_known():
    with pytest.raises(ConfigError, match="The layers of a Linear are not known"):
        layer_outputs(nn.Linear(2, 2), images(8, 8))
