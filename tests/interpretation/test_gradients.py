import re
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from attending_models import small_model, some_images
from captum.attr import IntegratedGradients
from hypothesis import strategies
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn

from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError
from vitrail.interpretation.gradients import (
    MOST_IMAGES,
    attention_norm,
    batches,
    check_grad_cam,
    fixed_weights,
    grad_cam,
    integrated_gradients,
)
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target
from vitrail.models import create_model

CPU = torch.device("cpu")
OF_TOKENS = ("class token", "mean", "registers", "both", "distilled", "attention pooling", "rotary", "compact", "maps")
TARGETS = [Target(1), Target(4, against=2)]


def subject_of(model: Any) -> Subject:
    return Subject.of(TorchEngine(model, CPU), model.config)


def channels_last(images: Tensor) -> np.ndarray:
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def by_pytorch_grad_cam(model: Any, layer: nn.Module, images: Tensor, reshape: Any = None) -> np.ndarray:
    """Its maps before it resizes and scales them."""
    targets = [lambda logits: logits[1], lambda logits: logits[4] - logits[2]]
    with GradCAM(model, [layer], reshape_transform=reshape) as cam:
        cam(images, targets)
        inside = cam.activations_and_grads
        (maps,), (gradients,) = inside.activations, inside.gradients
        return np.maximum(cam.get_cam_image(images, layer, targets, maps.numpy(), gradients.numpy()), 0)


@pytest.mark.parametrize(
    "family", [*OF_TOKENS, "timm class token", "timm registers", "timm attention pooling", "timm rotary"]
)
def test_tokens_have_the_maps_of_pytorch_grad_cam(family: str) -> None:
    model = small_model(family)
    images = some_images(model)
    features = model.features(images)
    layer = model.net.blocks[-1].norm1 if "timm" in family else model.blocks[-1].norm1

    def reshape(tokens: Tensor) -> Tensor:
        return tokens[:, features.num_prefix_tokens :].unflatten(1, features.grid).permute(0, 3, 1, 2)

    expected = by_pytorch_grad_cam(model, layer, images, None if family == "maps" else reshape)
    maps = grad_cam(subject_of(model), channels_last(images), TARGETS)
    assert (maps.shape, maps.dtype) == ((2, *features.grid), np.float32)
    assert expected.max() > 1e-6
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize("family", ["convolutions", "timm convolutions"])
def test_networks_have_the_maps_of_pytorch_grad_cam(family: str) -> None:
    model = small_model(family)
    images = some_images(model)
    expected = by_pytorch_grad_cam(model, model.net.layer4, images)
    maps = grad_cam(subject_of(model), channels_last(images), TARGETS)
    assert expected.max() > 1e-6
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_maps_that_lie_channels_last_are_maps() -> None:
    """Those of a backbone with windows: torch differentiates them where timm has them."""
    from timm.models.swin_transformer import SwinTransformer

    model = small_model("timm class token")
    sizes = {"img_size": 64, "window_size": 4, "num_classes": 5, "embed_dim": 12}
    model.net = SwinTransformer(**sizes, depths=(1, 1), num_heads=(1, 2)).eval()
    images = some_images(model)
    maps = model.forward_features(images).detach().requires_grad_()  # (B, rows, columns, D)
    logits = model.net.forward_head(maps)
    (gradients,) = torch.autograd.grad(logits[0, 1] + logits[1, 4] - logits[1, 2], maps)
    expected = (gradients.mean(dim=(1, 2), keepdim=True) * maps.detach()).sum(dim=3).relu()
    assert expected.shape == (2, 8, 8)
    np.testing.assert_allclose(grad_cam(subject_of(model), channels_last(images), TARGETS), expected, atol=1e-6)


def test_padding_has_no_evidence_and_does_not_count() -> None:
    """Without positions the map is that of the image without its padding."""
    model: Any = small_model("masked mean")
    model.pos_embed = None
    images = channels_last(some_images(model))
    images[:, :, 16:, 3] = 0
    padded = grad_cam(subject_of(model), images, TARGETS)
    alone = grad_cam(subject_of(model), np.ascontiguousarray(images[:, :, :16]), TARGETS)
    assert padded.shape == (2, 2, 3)
    assert padded[:, :, 2].max() == 0 < alone.max()
    np.testing.assert_allclose(padded[:, :, :2], alone, rtol=1e-4, atol=1e-5 * alone.max())


def test_networks_without_maps_are_refused() -> None:
    message = "Linear has no maps that Grad-CAM knows"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        check_grad_cam(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cait_xxs24_224", "timm's cait_xxs24_224 has another number of tokens in its last block than at its end"),
        ("coat_tiny", "timm's coat_tiny has no one set of last maps"),
    ],
)
def test_other_streams_of_tokens_are_refused(name: str, message: str) -> None:
    from vitrail.models.cnn import TimmConfig, TimmModel

    model = TimmModel(TimmConfig(name=name, image_size=(32, 32), num_classes=5)).eval()
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        grad_cam(subject_of(model), np.zeros((1, 32, 32, 3), np.uint8), TARGETS[:1])


def test_blocks_that_normalise_afterwards_are_refused() -> None:
    """Their last norm reads nothing, and the output that a class token is taken of has no other place."""
    from timm.models.vision_transformer import ResPostBlock

    model = small_model("timm class token")
    model.net.blocks[-1] = ResPostBlock(64, 2)
    assert attention_norm(model) is None
    message = "The head of timm's test_vit reads a token that has no place in the image"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        grad_cam(subject_of(model), channels_last(some_images(model)), TARGETS)


def test_the_norm_is_what_the_last_attention_reads() -> None:
    for family in ("mean", "compact", "maps"):
        model = small_model(family)
        assert attention_norm(model) is model.blocks[-1].norm1
    assert attention_norm(small_model("convolutions")) is None


def test_batches_are_bounded() -> None:
    small = Subject(lambda images: images, np.zeros(3))
    images = np.zeros((MOST_IMAGES + 3, 4, 6, 3), np.uint8)
    targets = [Target(index) for index in range(len(images))]
    parts = list(batches(small, images, targets))
    assert [batch.shape for batch, _ in parts] == [(MOST_IMAGES, 3, 4, 6), (3, 3, 4, 6)]
    assert [target.index for _, wanted in parts for target in wanted] == list(range(len(images)))
    large = batches(small, np.zeros((7, 224, 224, 3), np.uint8), targets[:7])
    assert [len(batch) for batch, _ in large] == [6, 1]


def test_batches_are_smaller_where_there_are_many_patches() -> None:
    model = create_model("vit_tiny_patch16_224", image_size=128, patch_size=4)
    subject, images = Subject(lambda images: images, np.zeros(3), model), np.zeros((6, 128, 128, 3), np.uint8)
    assert [len(batch) for batch, _ in batches(subject, images, [Target(0)] * 6)] == [2, 2, 2]


def test_fixed_weights_share_memory_and_take_no_gradient() -> None:
    model = nn.BatchNorm1d(3)
    fixed = fixed_weights(model)
    assert fixed.keys() == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert not any(tensor.requires_grad for tensor in fixed.values())
    assert fixed["weight"].data_ptr() == model.weight.data_ptr()


class Linear(nn.Module):
    """Logits that are sums of weighed pixels."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(num_classes, *shape, generator=numbers))

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("bcij,kcij->bk", images, self.weight)


def test_a_linear_model_has_weight_times_difference() -> None:
    model, fill = Linear((3, 5, 7), 6), np.array([30, 120, 200], np.float32)
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    maps = integrated_gradients(Subject(lambda images: images, fill, model), images, TARGETS)
    weights = model.weight.detach().permute(0, 2, 3, 1).numpy()
    weighed = (images - fill) / 255 * np.stack([weights[1], weights[4] - weights[2]])
    assert (maps.shape, maps.dtype) == ((2, 5, 7), np.float32)
    np.testing.assert_allclose(maps, weighed.sum(axis=3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["class token", "distilled", "timm convolutions"])
def test_integrated_gradients_are_captums(family: str) -> None:
    model = small_model(family)
    images = some_images(model)
    pixels, subject = images.float() / 255, subject_of(model)
    baseline = torch.from_numpy(subject.fill / 255)[None, :, None, None].expand_as(pixels[:1])
    first = IntegratedGradients(model).attribute(pixels[:1], baseline, target=1)
    contrast = IntegratedGradients(lambda images: model(images)[:, 4] - model(images)[:, 2])
    second = contrast.attribute(pixels[1:], baseline)
    expected = torch.cat([first, second]).sum(dim=1).detach().numpy()
    maps = integrated_gradients(subject, channels_last(images), TARGETS)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(strategies.data())
def test_integrated_gradients_sum_to_the_difference(data: strategies.DataObject) -> None:
    pool = data.draw(strategies.sampled_from(["token", "avg", "token_avg", "map"]))
    masked = data.draw(strategies.booleans())
    index, against = data.draw(strategies.permutations(range(4)))[:2]
    pixels = np.random.default_rng(data.draw(strategies.integers(0, 99))).integers(0, 256, (1, 16, 8, 3), np.uint8)
    with torch.random.fork_rng([]):
        torch.manual_seed(data.draw(strategies.integers(0, 99)))
        tiny = {"image_size": (16, 8), "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 4}
        model = create_model("vit_tiny_patch16_224", global_pool=pool, padding_mask=masked, **tiny).eval()
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    mask = np.full((1, 16, 8, 1), 255, np.uint8)
    mask[:, 12:] = 0
    images = np.concatenate([pixels, mask], axis=3) if masked else pixels
    subject, target = subject_of(model), Target(index, against)
    plain = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    plain[:, :3] = 0.5
    with torch.no_grad():
        difference = subject.answer(images)[0] - model(plain)[0].numpy()
    maps = integrated_gradients(subject, images, [target])
    assert maps.sum() == pytest.approx(difference[index] - difference[against], rel=0.01, abs=1e-3)
    if masked:
        assert np.abs(maps[:, 12:]).max() == 0
