"""torchvision's AlexNet and ResNet-18, and timm's backbones: the same networks, with our borders."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.config import RunConfig, with_settings
from vitrail.errors import ConfigError
from vitrail.models import count_parameters, create_model, model_config
from vitrail.models.cnn import Cnn, CnnConfig, TimmConfig, TimmModel

SMALL = ["alexnet_32", "resnet18_32"]
# Small networks of timm in each layout that its backbones have: maps, channels last, tokens with and without prefix.
BACKBONES = {
    "test_resnet": (64, 64),
    "test_efficientnet": (64, 64),
    "test_mambaout": (64, 96),
    "test_vit": (160, 160),
    "test_convnext": (64, 96),
}


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def sizes(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def fresh(name: str, **settings: Any) -> nn.Module:
    """A model with five classes, evaluated."""
    torch.manual_seed(0)
    return create_model(name, num_classes=5, **settings).eval()


shared = cache(fresh)  # AlexNet's weights take long to draw: for tests that change no weight


def tiny(name: str, **settings: Any) -> nn.Module:
    """One that other tests have too."""
    return shared(name, **settings).eval()


def warmed(model: nn.Module, *shape: int) -> nn.Module:
    """The model with statistics of its batch norms that are measured, not those it begins with."""
    model.train()
    for seed in range(3):
        model(pixels(4, *shape, seed=seed))
    return model.eval()


# Parity with torchvision


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_it_is_torchvisions_network_exactly(name: str) -> None:
    """Equal seeds give equal weights, and those equal logits and gradients, evaluated and in training, at two sizes."""
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)(num_classes=5)
    ours = tiny(name) if name == "alexnet" else fresh(name)  # batch norm's statistics will move
    theirs = reference.state_dict()
    assert ours.state_dict().keys() == {f"net.{key}" for key in theirs}
    assert all(torch.equal(ours.state_dict()[f"net.{key}"], tensor) for key, tensor in theirs.items())
    for size, train in (((64, 64), False), ((71, 90), True)):
        results = []
        for model in (reference.train(train), ours.train(train)):
            images = (pixels(2, 3, *size) / 255).requires_grad_()
            torch.manual_seed(1)  # AlexNet's dropout
            logits = model(images if model is ours else (images - 0.5) / 0.5)
            (gradient,) = torch.autograd.grad(logits.square().sum(), images)
            results.append((logits.detach(), gradient))
        assert torch.equal(results[0][0], results[1][0])
        torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)
    assert all(torch.equal(ours.state_dict()[f"net.{key}"], tensor) for key, tensor in reference.state_dict().items())


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_sizes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(model_config(name)) == sizes(getattr(torchvision.models, name)())
    weights = torchvision.models.get_model_weights(name).DEFAULT
    assert count_parameters(model_config(name)) == weights.meta["num_params"]


def test_small_forms_change_the_beginning_alone() -> None:
    with torch.device("meta"):
        shapes = {
            name: {key: tensor.shape for key, tensor in create_model(name, num_classes=10).state_dict().items()}
            for name in ("alexnet", "alexnet_32", "resnet18", "resnet18_32")
        }
    changed = {
        name: {key for key in shapes[name] if shapes[name][key] != shapes[f"{name}_32"][key]}
        for name in ("alexnet", "resnet18")
    }
    assert shapes["resnet18"].keys() == shapes["resnet18_32"].keys()
    assert changed["resnet18"] == {"net.conv1.weight"}
    assert shapes["alexnet"].keys() == shapes["alexnet_32"].keys()
    # The first convolution, and the hidden layer that reads fewer positions.
    assert changed["alexnet"] == {"net.features.0.weight", "net.classifier.1.weight"}


@pytest.mark.parametrize("name", SMALL)
def test_small_forms_have_maps_of_32_16_8_and_4_pixels(name: str) -> None:
    seen = list[int]()
    with torch.device("meta"):
        model = create_model(name)
        for module in model.net.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda module, inputs, maps: seen.append(maps.shape[2]))
        maps = model.forward_features(torch.zeros(1, 3, 32, 32))
    assert maps.shape[2:] == (4, 4)
    assert list(dict.fromkeys(seen)) == ([32, 16, 8] if name == "alexnet_32" else [32, 16, 8, 4])


def test_without_the_small_form_a_small_image_leaves_one_position() -> None:
    assert tiny("resnet18").forward_features(pixels(1, 3, 32, 32)).shape[2:] == (1, 1)


@pytest.mark.parametrize("name", ["alexnet", *SMALL, "resnet18"])
def test_any_size(name: str) -> None:
    for size in ((63, 70), (32, 32), (17, 40), (8, 8))[: 1 if name == "alexnet" else None]:
        assert tiny(name)(pixels(2, 3, *size)).shape == (2, 5)


@pytest.mark.parametrize("name", ["alexnet", *SMALL, "resnet18"])
@pytest.mark.parametrize("channels", [1, 4])
def test_any_channels(name: str, channels: int) -> None:
    with torch.device("meta"):
        model = create_model(name, in_chans=channels)
        assert model.patch_embed.in_channels == channels
        assert model(torch.zeros(2, channels, 64, 64)).shape[0] == 2


@pytest.mark.parametrize("name", ["resnet18", "resnet18_32"])
def test_a_new_first_convolution_begins_as_the_others(name: str) -> None:
    kernel = tiny(name, in_chans=2).net.conv1.weight
    assert kernel.std().item() == pytest.approx((2 / (64 * kernel[0, 0].numel())) ** 0.5, rel=0.05)


# timm


@pytest.mark.parametrize(("name", "size"), BACKBONES.items())
@pytest.mark.parametrize("train", [False, True], ids=["evaluated", "in training"])
def test_it_is_timms_network(name: str, size: tuple[int, int], train: bool) -> None:
    ours = tiny(f"timm:{name}", image_size=size)
    settings = {"img_size": size} if name == "test_vit" else {}
    reference = timm.create_model(name, pretrained=False, num_classes=5, **settings)
    reference.load_state_dict({key.removeprefix("net."): tensor for key, tensor in ours.state_dict().items()})
    results = []
    for model in (reference.train(train), ours.train(train)):
        images = (pixels(2, 3, *size) / 255).requires_grad_()
        logits = model(images if model is ours else (images - 0.5) / 0.5)
        logits.square().sum().backward()
        results.append((logits.detach(), images.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "grid", "num_prefix", "width"),
    [
        ("test_resnet", (2, 3), 0, 96),
        ("test_mambaout", (2, 3), 0, 64),
        ("test_vit", (4, 6), 1, 64),
        ("vit_tiny_r_s16_p8_224", (2, 3), 1, 192),
    ],
)
def test_features_of_backbones_in_each_layout(name: str, grid: tuple[int, int], num_prefix: int, width: int) -> None:
    model = tiny(f"timm:{name}", image_size=(64, 96))
    images = pixels(2, 3, 64, 96)
    found = model.features(images)
    assert (found.grid, found.num_prefix_tokens, found.blocks) == (grid, num_prefix, ())
    expected = (2, width, *grid) if num_prefix == 0 else (2, num_prefix + grid[0] * grid[1], width)
    assert found.tokens.shape == expected
    torch.testing.assert_close(found.logits, model(images))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("dla34", "levit_128", "deit_tiny_distilled_patch16_224", "crossvit_9_240", "ghostnet_050", "inception_v4"),
        *("volo_d1_224", "sequencer2d_s"),
    ],
)
def test_pooling_and_classifying_is_the_forward_pass(name: str) -> None:
    """Among them heads that are convolutions, several heads, hidden layers before them, pooling within."""
    model = tiny(f"timm:{name}")
    images = pixels(2, 3, *model.config.image_size)
    pooled = model.pool(model.forward_features(images))
    torch.testing.assert_close(model.classify(pooled), model(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(images), model.net((images / 255 - 0.5) / 0.5), rtol=1e-4, atol=1e-5)
    if name.startswith("crossvit"):
        with pytest.raises(ConfigError, match=r"^timm's crossvit_9_240 has several streams of tokens"):
            model.features(images)
    else:
        torch.testing.assert_close(model.features(images).logits, model(images), rtol=1e-4, atol=1e-5)


def test_a_backbone_begins_with_its_own_image_size_and_classes() -> None:
    config = model_config("timm:test_resnet.r160_in1k")
    assert (config.name, config.image_size, config.num_classes) == ("test_resnet.r160_in1k", (160, 160), 1000)
    config = model_config("timm:vit_small_patch14_dinov2", num_classes=3)  # published without a head
    assert (config.image_size, config.num_classes) == ((518, 518), 3)


def test_rates_reach_the_backbone() -> None:
    model = tiny("timm:test_convnext", drop_rate=0.3, drop_path_rate=0.2)
    assert model.net.drop_rate == 0.3
    rates = [module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.2)


# What all of them do


def every() -> list[Any]:
    return [
        pytest.param("resnet18_32", (3, 32, 32), id="resnet18_32"),
        # The others take a second each, and longer where anything runs beside them.
        pytest.param("alexnet_32", (3, 32, 32), id="alexnet_32", marks=pytest.mark.slow),
        pytest.param("alexnet", (3, 64, 64), id="alexnet", marks=pytest.mark.slow),
        pytest.param("resnet18", (3, 64, 64), id="resnet18", marks=pytest.mark.slow),
        pytest.param("timm:test_resnet", (3, 64, 64), id="timm"),
    ]


def sized(name: str, shape: tuple[int, int, int]) -> nn.Module:
    return fresh(name, image_size=shape[1:]) if name.startswith("timm:") else fresh(name)


@pytest.mark.parametrize(("name", "shape"), every())
def test_features_are_those_of_the_forward_pass(name: str, shape: tuple[int, int, int]) -> None:
    model, images = warmed(sized(name, shape), *shape), pixels(3, *shape)
    found = model.features(images)
    assert found.blocks == ()
    assert found.tokens.shape[2:] == found.grid
    torch.testing.assert_close(found.logits, model(images))
    torch.testing.assert_close(found.pooled, model.pool(model.forward_features(images)))
    torch.testing.assert_close(model.classify(found.pooled), found.logits)
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-4, atol=1e-5)  # and no other image's


@pytest.mark.parametrize(("name", "shape"), every())
def test_gradient_reaches_every_parameter(name: str, shape: tuple[int, int, int]) -> None:
    model = sized(name, shape).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm begins with zeros, which hold the gradient off
    model(pixels(4, *shape)).square().sum().backward()
    assert [key for key, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(("name", "shape"), every())
def test_stem_and_head_are_found(name: str, shape: tuple[int, int, int]) -> None:
    model = sized(name, shape)
    first = next(parameter for parameter in model.parameters() if parameter.ndim == 4)
    assert any(parameter is first for parameter in model.patch_embed.parameters())
    assert model.head.out_features == 5


def test_bytes_and_floats_are_the_same_image() -> None:
    model, images = tiny("resnet18_32", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)), pixels(2, 3, 32, 32)
    torch.testing.assert_close(model(images), model(images / 255), rtol=1e-4, atol=1e-5)


def test_dropout_is_published_for_alexnet() -> None:
    dropouts = [module.p for module in tiny("alexnet_32").modules() if isinstance(module, nn.Dropout) and module.p]
    assert dropouts == [0.5, 0.5]
    model, images = tiny("resnet18_32", drop_rate=0.5), pixels(4, 3, 32, 32)
    pooled = model.pool(model.forward_features(images))
    assert not torch.allclose(model.train().classify(pooled), model.eval().classify(pooled))


# Refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet81", "No timm model named 'resnet81'. Did you mean 'resnet18'? `timm.list_models()` lists them"),
        (
            "timm:resnet18.a1_in1",
            "timm's resnet18 has no weights named 'a1_in1'. Did you mean 'a1_in1k'? Leave the name after the dot out",
        ),
        ("timm:", "No timm model named ''. `timm.list_models()` lists them"),
        ("timm:hf-hub:someone/model", "No timm model named 'hf-hub:someone/model'."),
        ("tim:resnet18", "No model named 'tim:resnet18'."),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        create_model(name)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "alexnet",
            {"image_size": 32},
            "image_size=32 is too small for alexnet; use 63 or more, or small_images=true",
        ),
        (
            "alexnet",
            {"architecture": "alexnot"},
            "architecture='alexnot' is not possible. Did you mean 'alexnet'? Use one of alexnet, resnet18",
        ),
        ("resnet18", {"drop_rate": 1.0}, "drop_rate=1.0 is not possible; use a number less than 1"),
        ("resnet18", {"patch_size": 4}, "No model setting named 'patch_size'."),
        ("resnet18", {"mean": (0.5,)}, "mean=0.5 is not one value a channel for in_chans=3; give 3"),
        ("timm:vgg11", {"drop_path_rate": 0.1}, "timm cannot make vgg11 with drop_path_rate=0.1, num_classes=1000"),
    ],
)
def test_impossible_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        create_model(name, **settings)


@pytest.mark.parametrize("name", [*SMALL, "timm:test_resnet"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (2, 3, 0, 32)])
def test_images_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^The model takes images of .*\(B, 3, rows, columns\)"):
        tiny(name)(torch.zeros(shape))


def test_images_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^Images of 62x80 pixels are too small for alexnet; use 63 or more"):
        tiny("alexnet")(pixels(1, 3, 62, 80))
    with pytest.raises(ConfigError, match=r"^timm's test_vit does not take images of 35x32 pixels: Input height"):
        tiny("timm:test_vit")(pixels(1, 3, 35, 32))
    with torch.device("meta"), pytest.raises(ConfigError, match=r"^timm's vgg11 does not take images of 8x8 pixels: "):
        create_model("timm:vgg11")(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    "error", [AssertionError("Expected gradient function to be set"), ValueError("no"), KeyError()]
)
def test_other_errors_of_a_backbone_are_not_called_ones_of_size(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(images: Tensor) -> Tensor:
        raise error

    model = create_model("timm:test_resnet")
    monkeypatch.setattr(model.net, "forward_features", fails)
    with pytest.raises(type(error)):
        model(pixels(1, 3, 160, 160))
    if not isinstance(error, KeyError):  # of another size than the backbone's own it may be the size
        with pytest.raises(ConfigError, match=r"^timm's test_resnet does not take images of 80x160 pixels: "):
            model(pixels(1, 3, 80, 160))


def test_a_name_among_settings_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^No timm model named 'resnet81'\. Did you mean 'resnet18'\?"):
        with_settings(
            RunConfig(recipe="", model_name="", model=TimmConfig(name="resnet18")), {"model.name": "resnet81"}
        )


@pytest.mark.parametrize("name", ["resnet18", "resnet18_32", "timm:resnet10t"])
def test_one_image_of_one_position_is_refused_in_training(name: str) -> None:
    model = fresh(name).train()
    for size in ((8, 8), (5, 8)):
        with pytest.raises(ConfigError, match=r"^One image whose last maps have one position leaves batch norm"):
            model(pixels(1, 3, *size))
    assert model(pixels(2, 3, 8, 8)).shape == (2, 5)
    assert model(pixels(1, 3, 33, 8)).shape == (1, 5)
    assert model.eval()(pixels(1, 3, 8, 8)).shape == (1, 5)


# Ways to run it


@pytest.mark.parametrize(
    "name", [pytest.param("alexnet_32", marks=pytest.mark.slow), "resnet18_32", "timm:test_resnet"]
)
def test_bfloat16_and_channels_last(name: str) -> None:
    model, images = warmed(fresh(name), 3, 32, 32), pixels(2, 3, 32, 32) / 255
    expected = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert F.cosine_similarity(model(images).float(), expected).min() > 0.99
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(last), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, "timm:test_resnet"])
def test_it_can_be_exported_and_compiled(name: str) -> None:
    model, images = fresh(name), pixels(2, 3, 32, 32)
    expected = model(images)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.compile(model)(images), expected, rtol=1e-3, atol=1e-4)
    compiled = torch.compile(model.train())
    compiled(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_modules_are_of_their_configs() -> None:
    assert isinstance(create_model("resnet18_32"), Cnn)
    assert create_model("resnet18_32").config == CnnConfig(small_images=True, image_size=(32, 32), num_classes=10)
    config = TimmConfig(name="test_resnet", image_size=(32, 32), num_classes=2)
    assert TimmModel(config).config is config
