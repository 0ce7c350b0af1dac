import math
import re
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import adapt_input_conv
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.models import build_model
from vitrail.models.adaptation import NEW_PARTS, adapt_channels, adapt_scaling, adapt_weights, check_alike, head_names
from vitrail.models.attention2d import Attention2dConfig
from vitrail.models.cnn import CnnConfig, TimmConfig
from vitrail.models.families import AnyModelConfig
from vitrail.models.vit_config import ViTConfig
from vitrail.models.weights import load_weights

TINY: dict[str, Any] = {
    "image_size": 12,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}


def tiny(**changed: Any) -> ViTConfig:
    return ViTConfig.model_validate({**TINY, **changed})


def drawn(config: AnyModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    model = build_model(config)
    return {name: torch.randn(part.shape, generator=generator) * 0.3 for name, part in model.state_dict().items()}


def logits(config: AnyModelConfig, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    torch.manual_seed(0)
    model = build_model(config).eval()
    load_weights(model, weights, NEW_PARTS)
    with torch.inference_mode():
        return model(images)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_same_model_keeps_every_weight() -> None:
    weights = drawn(tiny())
    adapted, done = adapt_weights(weights, tiny(), tiny(), keep_head=True)
    assert done == []
    assert adapted.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in adapted.items())


def test_new_classes_have_a_new_head_and_the_rest_stays() -> None:
    weights = drawn(tiny(distilled=True))
    adapted, done = adapt_weights(weights, tiny(distilled=True), tiny(distilled=True, num_classes=3), keep_head=False)
    assert weights.keys() - adapted.keys() == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert done == ["The head is new, for 3 classes"]
    assert logits(tiny(distilled=True, num_classes=3), adapted, images(2, 3, 12, 12)).shape == (2, 3)


def test_the_head_of_a_cnn_is_left_out_too() -> None:
    own = CnnConfig.model_validate({"small_images": True, "image_size": 32, "num_classes": 5})
    weights = drawn(own)
    adapted, done = adapt_weights(weights, own, own.model_copy(update={"num_classes": 3}), keep_head=False)
    assert weights.keys() - adapted.keys() == {"net.fc.weight", "net.fc.bias"}
    assert head_names(own) == ("net.fc.",)
    assert done == ["The head is new, for 3 classes"]


def test_dropouts_statistics_and_the_first_value_of_factors_are_no_difference() -> None:
    changed = {"drop_rate": 0.3, "drop_path_rate": 0.2, "mean": (0.1, 0.2, 0.3), "init_values": 1.0, "norm_eps": 1e-12}
    weights = drawn(tiny(init_values=0.1))
    assert adapt_weights(weights, tiny(init_values=0.1), tiny(**changed), keep_head=True)[1] == []


# Position embeddings


@pytest.mark.parametrize("size", [(12, 12), (20, 20), (8, 24), (4, 8)])
@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_small_patch14_reg4_dinov2", "flexivit_small"])
def test_position_embeddings_are_resized_as_timm_does(size: tuple[int, int], name: str) -> None:
    sizes = {"patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
    model = timm.create_model(name, img_size=12, **sizes)
    is_registered, no_class = "reg4" in name, name != "vit_base_patch16_224"
    shape = {"depth": 1, "reg_tokens": 4 * is_registered, "init_values": 1e-5 if is_registered else None}
    own, wanted = (tiny(image_size=image, no_embed_class=no_class, **shape) for image in ((12, 12), size))
    adapted, done = adapt_weights(model.state_dict(), own, wanted, keep_head=True)
    model.set_input_size(size)
    torch.testing.assert_close(adapted["pos_embed"], model.pos_embed.detach())
    grid = f"{size[0] // 4}x{size[1] // 4}"
    assert done == ([] if size == (12, 12) else [f"Position embeddings are resized from 3x3 to {grid} patches"])


@settings(max_examples=20, deadline=None)
@given(st.tuples(st.integers(2, 5), st.integers(1, 5)), st.booleans())
def test_resizing_to_the_same_grid_is_the_identity(grid: tuple[int, int], no_embed_class: bool) -> None:
    config = tiny(image_size=(4 * grid[0], 4 * grid[1]), no_embed_class=no_embed_class)
    weights = drawn(config)
    assert torch.equal(adapt_weights(weights, config, config, keep_head=True)[0]["pos_embed"], weights["pos_embed"])


@pytest.mark.parametrize("shape", [{}, {"distilled": True}, {"reg_tokens": 2}])
@pytest.mark.parametrize("before", [True, False])
def test_positions_of_prefix_tokens_come_and_go_without_a_trace(shape: dict[str, Any], before: bool) -> None:
    own, wanted = tiny(no_embed_class=before, **shape), tiny(no_embed_class=not before, **shape)
    weights, batch = drawn(own), images(2, 3, 12, 12)
    adapted, _ = adapt_weights(weights, own, wanted, keep_head=True)
    torch.testing.assert_close(logits(wanted, adapted, batch), logits(own, weights, batch), rtol=1e-4, atol=1e-5)


def test_maps_of_positions_are_resized_too() -> None:
    sizes = {"patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
    own, wanted = (Attention2dConfig.model_validate({**sizes, "image_size": size}) for size in (12, (8, 20)))
    weights = drawn(own)
    adapted, done = adapt_weights(weights, own, wanted, keep_head=True)
    assert done == ["Position embeddings are resized from 3x3 to 2x5 patches"]
    assert logits(wanted, adapted, images(2, 3, 8, 20)).shape == (2, 5)


# Channels


@pytest.mark.parametrize("in_chans", [1, 2, 3, 4, 5, 7])
def test_a_first_layer_is_fitted_to_channels_as_in_timm(in_chans: int) -> None:
    kernel = drawn(tiny())["patch_embed.proj.weight"]
    torch.testing.assert_close(adapt_channels(kernel, in_chans), adapt_input_conv(in_chans, kernel))


IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406, 0.5), "std": (0.229, 0.224, 0.225, 0.5)}


def of_imagenet(in_chans: int) -> dict[str, Any]:
    return {"in_chans": in_chans} | {name: values[:in_chans] for name, values in IMAGENET.items()}


@pytest.mark.parametrize("patch_norm", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 4), (3, 5), (3, 6), (4, 3), (4, 1), (1, 5)])
def test_grey_images_answer_as_before_whatever_the_channels(
    before: int, after: int, known: bool, patch_norm: bool
) -> None:
    own = tiny(**(of_imagenet(before) if known else {"in_chans": before}), patch_norm=patch_norm)
    wanted = tiny(in_chans=after, **adapt_scaling(own, after), patch_norm=patch_norm)
    weights, grey = drawn(own), images(2, 1, 12, 12)
    adapted, done = adapt_weights(weights, own, wanted, keep_head=True)
    counted = f"{after} channel{'s' * (after > 1)}"
    assert done == [f"The first layer is fitted to {counted}, from {before}"]
    expected = logits(own, weights, grey.expand(-1, before, -1, -1))
    actual = logits(wanted, adapted, grey.expand(-1, after, -1, -1))
    if known and patch_norm and after == 1:  # a norm over the pixels of three statistics is not that over one
        assert (actual - expected).abs().max() < 0.2 * expected.std()
    elif math.gcd(before, after) in (before, after):  # else the channels weigh differently
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("in_chans", [1, 2, 3, 4, 7])
def test_statistics_go_with_their_channels(in_chans: int) -> None:
    scaling = adapt_scaling(tiny(**of_imagenet(3)), in_chans)
    if in_chans == 1:  # the scaled pixel is the mean of what it was in each channel
        pixels = images(5, 1)
        before = (pixels - torch.tensor(IMAGENET["mean"][:3])) / torch.tensor(IMAGENET["std"][:3])
        after = (pixels - scaling["mean"][0]) / scaling["std"][0]
        torch.testing.assert_close(after, before.mean(dim=1, keepdim=True))
    else:
        expected = {
            name: tuple(values[channel % 3] for channel in range(in_chans)) for name, values in IMAGENET.items()
        }
        assert scaling == expected
    assert adapt_scaling(tiny(), in_chans) == {}
    assert adapt_scaling(tiny(mean=(0.2, 0.2, 0.2)), in_chans) == {"mean": pytest.approx((0.2,) * in_chans)}


def test_a_first_layer_without_biases_is_fitted_as_well_as_it_can_be() -> None:
    own = CnnConfig.model_validate({"small_images": True, "image_size": 32, "num_classes": 5, **of_imagenet(3)})
    wanted = own.model_copy(update={"in_chans": 1, **adapt_scaling(own, 1)})
    weights, grey = drawn(own), images(1, 1, 32, 32)
    adapted, _ = adapt_weights(weights, own, wanted, keep_head=True)
    assert adapted.keys() == weights.keys()
    maps = [
        model.net.conv1(model.normalize(grey.expand(-1, config.in_chans, -1, -1)))[..., 1:-1, 1:-1].detach()
        for config, model in ((own, build_model(own)), (wanted, build_model(wanted)))
        if model.load_state_dict(weights if config is own else adapted)
    ]
    constant = (maps[1] - maps[0]).flatten(2)  # one number for each channel of the maps, which batch norm takes off
    torch.testing.assert_close(constant, constant[..., :1].expand_as(constant), rtol=1e-3, atol=1e-4)


def test_a_conv_stem_is_fitted_too() -> None:
    own, wanted = tiny(stem="conv"), tiny(stem="conv", in_chans=1)
    adapted, done = adapt_weights(drawn(own), own, wanted, keep_head=True)
    assert done == ["The first layer is fitted to 1 channel, from 3"]
    assert logits(wanted, adapted, images(2, 1, 12, 12)).shape == (2, 5)


# Pooling and biases


@pytest.mark.parametrize("before", ["token", "avg", "token_avg", "map"])
@pytest.mark.parametrize("after", ["token", "avg", "token_avg", "map"])
def test_another_pooling_takes_the_weights_with_a_new_head(before: str, after: str) -> None:
    own, wanted = tiny(global_pool=before), tiny(global_pool=after)
    weights = drawn(own)
    adapted, done = adapt_weights(weights, own, wanted, keep_head=False)
    assert logits(wanted, adapted, images(2, 3, 12, 12)).shape == (2, 5)
    norm = "norm.weight" if after != "avg" else "fc_norm.weight"
    assert torch.equal(adapted[norm], weights["norm.weight" if before != "avg" else "fc_norm.weight"])
    changed = [f"Pooling is {after}, not {before} as in the weights"] if before != after else []
    assert done == ["The head is new, for 5 classes", *changed]


def test_a_norm_after_pooling_that_is_of_another_width_begins_anew() -> None:
    own, wanted = tiny(global_pool="token_avg", fc_norm=True), tiny(global_pool="avg")
    for before, after in ((own, wanted), (wanted, own)):
        adapted, _ = adapt_weights(drawn(before), before, after, keep_head=False)
        assert not [name for name in adapted if name.startswith("fc_norm.")]
        assert logits(after, adapted, images(2, 3, 12, 12)).shape == (2, 5)


def test_biases_that_lack_are_zero() -> None:
    own, wanted = tiny(qkv_bias=False, mlp_bias=False), tiny()
    weights, batch = drawn(own), images(2, 3, 12, 12)
    adapted, done = adapt_weights(weights, own, wanted, keep_head=True)
    assert done == [
        "Biases that the weights lack (qkv_bias) are zero",
        "Biases that the weights lack (mlp_bias) are zero",
    ]
    torch.testing.assert_close(logits(wanted, adapted, batch), logits(own, weights, batch), rtol=1e-4, atol=1e-5)


# Other models


@pytest.mark.parametrize(
    ("own", "wanted", "message"),
    [
        ({"embed_dim": 48}, {}, "embed_dim 48 of the weights is not the model's 24; choose a model that has it"),
        ({"depth": 3}, {}, "depth 3 of the weights is not the model's 2; choose a model that has it"),
        ({"num_heads": 4}, {}, "num_heads 4 of the weights is not the model's 3; choose a model that has it"),
        ({"patch_size": 2}, {}, "patch_size 2x2 of the weights is not the model's 4x4; choose a model that has it"),
        ({"mlp_ratio": 2}, {}, "mlp_ratio 2.0 of the weights is not the model's 4.0; choose a model that has it"),
        ({"init_values": 0.1}, {}, "init_values 0.1 of the weights is not the model's none; choose a model"),
        ({}, {"qkv_bias": False}, "qkv_bias true of the weights is not the model's false; choose a model that has it"),
        ({"pos_embed": "none"}, {}, "pos_embed none of the weights is not the model's learn; choose a model that has"),
        ({"stem": "conv"}, {}, "stem conv of the weights is not the model's linear; choose a model that has it"),
        (
            {"num_classes": 7},
            {},
            "The head of the weights is for 7 classes, not 5; take them without their head",
        ),
        (
            {"global_pool": "avg"},
            {},
            "The head of the weights reads global_pool=avg, not token; set model.global_pool=avg",
        ),
    ],
)
def test_weights_of_another_model_are_refused(own: dict[str, Any], wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match="^" + re.escape(message)):
        adapt_weights(drawn(tiny(**own)), tiny(**own), tiny(**wanted), keep_head=True)


@pytest.mark.parametrize(
    ("name", "part"),
    [("beit_base_patch16_224", "blocks.0.attn.relative_position_bias_table"), ("cait_xxs24_224", "pos_embed")],
)
def test_timms_backbones_that_have_a_size_keep_it(name: str, part: str) -> None:
    own = TimmConfig(name=name, image_size=(64, 64), num_classes=5)
    with torch.device("meta"):
        weights = build_model(own).state_dict()
    message = (
        f"{part} of the weights is for images of 64x64 pixels, and there is no way to resize it; "
        "set model.image_size=64,64"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        adapt_weights(weights, own, own.model_copy(update={"image_size": (96, 96)}), keep_head=True)
    assert adapt_weights(weights, own, own, keep_head=True)[0].keys() == weights.keys()


@pytest.mark.parametrize("own", ["resnet10t", "resnet10t.c3_in1k"])
@pytest.mark.parametrize("wanted", ["resnet10t", "resnet10t.c3_in1k"])
def test_timms_tags_are_no_difference(own: str, wanted: str) -> None:
    check_alike(TimmConfig(name=own), TimmConfig(name=wanted), keep_head=True)
    with pytest.raises(CheckpointError, match=r"^name resnet10t\S* of the weights is not the model's resnet18; "):
        check_alike(TimmConfig(name=own), TimmConfig(name="resnet18"), keep_head=True)


def test_the_name_of_a_model_that_fits_is_given() -> None:
    sizes = {"embed_dim": 384, "depth": 12, "num_heads": 6}
    own = ViTConfig.model_validate({**sizes, "patch_size": 16, "num_classes": 7})
    message = "^embed_dim 384 of the weights is not the model's 192; choose --model vit_small_patch16_224$"
    with pytest.raises(CheckpointError, match=message):
        check_alike(own, own.model_copy(update={"embed_dim": 192, "num_heads": 3}), keep_head=False)


def test_weights_of_another_family_are_refused() -> None:
    other = Attention2dConfig.model_validate({"image_size": 12, "patch_size": 4, "embed_dim": 24, "num_heads": 3})
    with pytest.raises(CheckpointError, match=r"^kind 'attention2d' of the weights is not the model's 'vit'; choose "):
        check_alike(other, tiny(), keep_head=False)
