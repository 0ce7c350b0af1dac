import re

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from vitrail.errors import ConfigError
from vitrail.models import MODELS, build_model, count_parameters, create_model, model_config
from vitrail.models.vit import VisionTransformer

PARAMETERS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch32_224": 22_878_952,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch16_224": 304_326_632,
    "vit_micro_conv4_8": 169_802,
    "vit_micro_conv8_28": 207_498,
    "vit_micro_conv16_64": 245_002,
    "s2_shallow_vit": 40_394,
    "s5_wide_heads_vit": 613_710,
    "s5_vit": 371_910,
}


def test_every_model_has_a_known_count() -> None:
    assert PARAMETERS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_counted(name: str) -> None:
    assert count_parameters(model_config(name)) == PARAMETERS[name]


def test_counting_takes_no_memory_and_no_random_numbers() -> None:
    state = torch.get_rng_state()
    huge = model_config("vit_large_patch16_224", embed_dim=65_536, depth=100)
    assert count_parameters(huge) > 5 * 10**12
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "name", ["vit_micro_conv4_8", "vit_micro_conv8_28", "vit_micro_conv16_64", "s2_shallow_vit", "s5_wide_heads_vit"]
)
def test_the_count_is_that_of_the_model(name: str) -> None:
    model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    config = model_config(name)
    assert model(torch.zeros(2, config.in_chans, *config.image_size, dtype=torch.uint8)).shape == (2, 10)


TIMM_NAMES = [name for name in MODELS if re.fullmatch(r"vit_\w+_patch\d+_224", name)]


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_models_of_timms_names_are_timms(name: str) -> None:
    with torch.device("meta"):
        reference = timm.create_model(name, pretrained=False)
        ours = create_model(name)
    shapes = {key: weight.shape for key, weight in reference.state_dict().items()}
    assert {key: weight.shape for key, weight in ours.state_dict().items()} == shapes
    assert sum(weight.numel() for weight in reference.parameters()) == PARAMETERS[name]


def test_timms_names_are_found() -> None:
    assert len(TIMM_NAMES) == 6


def test_s5_vit_is_the_one_that_timm_builds() -> None:
    reference = TimmVisionTransformer(
        img_size=28, patch_size=7, in_chans=1, num_classes=10, embed_dim=100, depth=3, num_heads=2
    ).eval()
    ours = create_model("s5_vit").eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), reference((images - 0.5) / 0.5), rtol=1e-5, atol=1e-5)


def test_settings_change_a_model() -> None:
    model = create_model("vit_tiny_patch16_224", num_classes=7, depth=1, image_size=32)
    assert isinstance(model, VisionTransformer)
    assert model.config == model_config("vit_tiny_patch16_224", num_classes=7, depth=1, image_size=(32, 32))
    assert isinstance(model.head, nn.Linear)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_creating_is_building_the_config() -> None:
    torch.manual_seed(0)
    created = create_model("s2_shallow_vit").state_dict()
    torch.manual_seed(0)
    built = build_model(model_config("s2_shallow_vit")).state_dict()
    assert created.keys() == built.keys()
    assert all(torch.equal(created[key], built[key]) for key in created)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vit_tniy",
            "No model named 'vit_tniy'. Did you mean 'vit_tiny_patch16_224'? `vitrail models` lists them",
        ),
        ("ViT_Base_Patch16_224", "Did you mean 'vit_base_patch16_224'?"),
        ("resnet", "No model named 'resnet'. `vitrail models` lists them"),
        ("", "No model named ''. `vitrail models` lists them"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        create_model(name)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    message = (
        "No model setting named 'embed_dims'. Did you mean 'embed_dim'? `vitrail recipes NAME` lists them under model"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        create_model("s5_vit", embed_dims=64)
