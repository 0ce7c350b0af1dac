import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attending_models import ATTENDING, small_model, some_images
from torch import nn

import vitrail
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError
from vitrail.interpretation.methods import METHODS, default_method, evidence_maps, impossible, possible_methods
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target
from vitrail.models import create_model

CNNS = ("convolutions", pytest.param("small alexnet", marks=pytest.mark.slow), "timm convolutions")
REST = "use grad_cam, integrated_gradients or occlusion"
PIXELS = ("integrated_gradients", "occlusion")


@pytest.fixture(autouse=True)
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse map of pixels is one as well."""
    monkeypatch.setattr("vitrail.interpretation.gradients.STEPS", 5)
    monkeypatch.setattr("vitrail.interpretation.occlusion.WINDOWS", 3)


def built(family: str) -> Any:
    if family == "small alexnet":
        with torch.random.fork_rng([]):
            torch.manual_seed(3)
            return create_model("alexnet_32", image_size=(16, 24), num_classes=5).eval()
    return small_model(family)


def of_windows() -> Any:
    """A small Swin Transformer, in the place of another backbone."""
    from timm.models.swin_transformer import SwinTransformer

    model: Any = small_model("timm class token")
    sizes = {"img_size": 64, "window_size": 4, "num_classes": 5, "embed_dim": 12}
    model.net = SwinTransformer(**sizes, depths=(1, 1), num_heads=(1, 2)).eval()
    return model


def subject_of(model: Any) -> Subject:
    return Subject.of(TorchEngine(model, torch.device("cpu")), model.config)


def images_for(model: Any, count: int = 2) -> np.ndarray:
    return np.ascontiguousarray(some_images(model, count).permute(0, 2, 3, 1).numpy())


def exported() -> Subject:
    return Subject(lambda images: images.reshape(len(images), -1)[:, :5].astype(np.float32), np.zeros(3, np.float32))


@pytest.mark.parametrize("family", [*ATTENDING, *CNNS])
def test_every_method_that_is_possible_explains_every_family(family: str) -> None:
    """Maps are finite, of the right shape, of the class asked for if they say so, and what they are alone."""
    model = built(family)
    subject, images = subject_of(model), images_for(model, 3)
    possible = list(METHODS) if family in ATTENDING else list(METHODS)[3:]
    assert possible_methods(subject) == possible
    assert possible[0] == ("relevance" if family in ATTENDING else "grad_cam")
    grid = model.features(some_images(model)).grid
    for method in possible:
        targets = [Target(1), Target(3), Target(0, against=2)]
        maps = evidence_maps(subject, images, targets, method)
        assert (maps.shape, maps.dtype) == ((3, *(images.shape[1:3] if method in PIXELS else grid)), np.float32)
        assert np.isfinite(maps).all()
        assert (maps.min() < 0) == METHODS[method].signed
        assert maps.max() > 0
        tolerance = 1e-4 * np.abs(maps).max()
        alone = evidence_maps(subject, images[1:2], targets[1:2], method)
        np.testing.assert_allclose(maps[1:2], alone, rtol=1e-3, atol=tolerance)
        others = evidence_maps(subject, images, [Target(2), Target(4), Target(2, against=0)], method)
        assert np.allclose(maps, others, atol=tolerance) != METHODS[method].specific


def test_padding_is_no_evidence() -> None:
    model = built("masked mean")
    subject, images = subject_of(model), images_for(model)
    images[:, :, 16:, 3] = 0
    for method in METHODS:
        maps = evidence_maps(subject, images, [Target(1), Target(2)], method)
        cut = maps.shape[2] * 2 // 3
        assert np.abs(maps[..., :cut]).max() > 0
        if method != "occlusion":  # windows over the border have a part on both sides
            assert np.abs(maps[..., cut:]).max() == 0


@pytest.mark.parametrize("settings", [{"in_chans": 1}, {"in_chans": 1, "padding_mask": True}, {"stem": "conv"}])
def test_grey_and_odd_images_are_explained(settings: dict[str, Any]) -> None:
    tiny = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    size = (10, 23) if "stem" in settings else (8, 24)
    model = create_model("vit_tiny_patch16_224", image_size=size, **tiny, **settings).eval()
    nn.init.normal_(model.head.weight)
    images = images_for(model, 1)
    for method in METHODS:
        assert np.isfinite(evidence_maps(subject_of(model), images, [Target(2)], method)).all()


def test_images_of_another_size_are_explained() -> None:
    model = built("class token")
    larger = np.random.default_rng(0).integers(0, 256, (1, 24, 16, 3), np.uint8)
    for method in METHODS:
        maps = evidence_maps(subject_of(model), larger, [Target(2)], method)
        assert maps.shape == (1, *((24, 16) if method in PIXELS else (3, 2)))


def test_layers_and_heads_are_chosen() -> None:
    model = built("class token")
    subject, images, targets = subject_of(model), images_for(model), [Target(0)] * 2
    probabilities = model.features(some_images(model)).blocks[1]
    scores = probabilities.query @ probabilities.key.mT * probabilities.query.shape[-1] ** -0.5
    expected = scores.softmax(dim=-1)[:, :, 0, 1:].unflatten(2, (2, 3)).detach().numpy()  # (B, H, rows, columns)
    for layer in (1, -2):
        of_one = evidence_maps(subject, images, targets, "attention", layer=layer, head=1)
        np.testing.assert_allclose(of_one, expected[:, 1], atol=1e-6)
        of_all = evidence_maps(subject, images, targets, "attention", layer=layer)
        np.testing.assert_allclose(of_all, expected.mean(axis=1), atol=1e-6)
    last = evidence_maps(subject, images, targets, "attention")
    np.testing.assert_array_equal(last, evidence_maps(subject, images, targets, "attention", layer=2))
    assert not np.allclose(last, of_all)


@pytest.mark.parametrize(
    ("method", "layer", "head", "message"),
    [
        ("attention", 3, None, "layer=3 is not there: the model has 3 layers, 0 to 2"),
        ("attention", -4, None, "layer=-4 is not there: the model has 3 layers, 0 to 2"),
        ("attention", 0, 2, "head=2 is not there: the model has 2 heads, 0 to 1"),
        ("rollout", 1, None, "rollout is of all layers and heads together; leave layer and head out, or use attention"),
        (
            "occlusion",
            None,
            0,
            "occlusion is of all layers and heads together; leave layer and head out, or use attention",
        ),
    ],
)
def test_layers_and_heads_that_are_not_there(method: str, layer: int | None, head: int | None, message: str) -> None:
    model = built("class token")
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        evidence_maps(subject_of(model), images_for(model), [Target(0)] * 2, method, layer, head)


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    message = (
        "No method named 'gradcam'. Did you mean 'grad_cam'? "
        "Use one of relevance, rollout, attention, grad_cam, integrated_gradients, occlusion"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        evidence_maps(exported(), np.zeros((1, 4, 4, 3), np.uint8), [Target(0)], "gradcam")


@pytest.mark.parametrize(
    ("model", "method", "sentence"),
    [
        ("convolutions", "attention", f"resnet18 has no attention; {REST}"),
        ("small alexnet", "rollout", f"alexnet has no attention; {REST}"),
        ("timm convolutions", "relevance", f"timm's test_resnet has no attention; {REST}"),
        ("windows", "relevance", f"timm's test_vit does not attend over all of an image at once; {REST}"),
        (
            "merged",
            "relevance",
            "Merged tokens have no place in the image; use merge_tokens=0, integrated_gradients or occlusion",
        ),
        (
            "merged",
            "grad_cam",
            "Merged tokens have no place in the image; use merge_tokens=0, integrated_gradients or occlusion",
        ),
        ("linear", "grad_cam", "Linear has no maps that Grad-CAM knows; use integrated_gradients or occlusion"),
        (
            "exported",
            "attention",
            "A model that runs without PyTorch gives answers alone, not its attention; use occlusion",
        ),
        ("exported", "grad_cam", "A model that runs without PyTorch gives answers alone, no gradients; use occlusion"),
    ],
)
def test_what_is_impossible_is_said_with_what_remains(model: str, method: str, sentence: str) -> None:
    if model == "exported":
        subject = exported()
    elif model == "linear":
        subject = Subject(lambda images: images, np.zeros(3, np.float32), nn.Linear(3, 3))
    elif model == "merged":
        merged = built("class token")
        merged.merge_tokens(1)
        subject = subject_of(merged)
    else:
        subject = subject_of(of_windows() if model == "windows" else built(model))
    assert impossible(subject, method) == sentence
    assert impossible(subject, "occlusion") is None
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        evidence_maps(subject, np.zeros((1, 64, 64, 3), np.uint8), [Target(0)], method)


def test_without_a_module_answers_are_explained() -> None:
    subject, images = exported(), np.full((1, 4, 4, 3), 9, np.uint8)
    assert possible_methods(subject) == ["occlusion"]
    (found,) = evidence_maps(subject, images, [Target(0)], "occlusion")  # the answer is the first pixel's red
    assert found[0, 0] == 9
    assert found[2:].max() == found[:, 2:].max() == 0


def test_merged_tokens_leave_the_methods_of_pixels() -> None:
    model = built("class token")
    model.merge_tokens(1)
    subject, images = subject_of(model), images_for(model)
    for method in PIXELS:
        assert np.abs(evidence_maps(subject, images, [Target(0), Target(1)], method)).max() > 0


def test_windows_have_maps() -> None:
    subject = subject_of(of_windows())
    assert evidence_maps(subject, np.full((1, 64, 64, 3), 9, np.uint8), [Target(0)], "grad_cam").shape == (1, 8, 8)


@pytest.mark.parametrize("family", ["class token", "compact", "maps", "timm class token", "timm convolutions"])
def test_nothing_is_left_changed(family: str) -> None:
    """Not the mode, gradients, hooks or torch's generator; and frozen weights have the same maps, in whatever mode."""
    model = built(family)
    subject, images = subject_of(model), images_for(model)
    targets, possible = [Target(1), Target(2)], possible_methods(subject)
    expected = {method: evidence_maps(subject, images, targets, method) for method in possible}
    model.train()
    first = next(model.parameters()).requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    for method in possible:
        with torch.inference_mode():
            found = evidence_maps(subject, images, targets, method)
        np.testing.assert_array_equal(found, expected[method])
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad != (parameter is first) for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not module._forward_hooks and not module._backward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    model.requires_grad_(False)
    for method in possible:
        np.testing.assert_allclose(evidence_maps(subject, images, targets, method), expected[method], atol=1e-6)


def test_weights_for_inference_alone_are_explained() -> None:
    with torch.inference_mode():
        model = built("class token")
        model.to(torch.float64).to(torch.float32)
        subject = subject_of(model)
        images = images_for(model)
        for method in METHODS:
            assert np.abs(evidence_maps(subject, images, [Target(1), Target(2)], method)).max() > 0


def test_every_method_says_how_to_read_it() -> None:
    for method in METHODS.values():
        assert re.fullmatch(r"[A-Z].{40,130}[^.]", method.reading)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: built("class token"), "occlusion"),  # of 16x24 pixels
        (lambda: vitrail.create_model("vit_micro_conv8_28", in_chans=1), "occlusion"),
        (lambda: vitrail.create_model("cct_2_3x2_32"), "occlusion"),
        (lambda: vitrail.create_model("resnet18_32"), "occlusion"),
        (lambda: vitrail.create_model("vit_tiny_patch16_224", depth=1), "relevance"),
        (lambda: vitrail.create_model("cct_7_7x2_224", depth=1), "relevance"),
        (lambda: vitrail.create_model("resnet18"), "grad_cam"),
    ],
)
def test_the_default_is_occlusion_of_small_images(model: Callable[[], Any], expected: str) -> None:
    """Measured on small images to be more faithful than attention; on large ones it takes hundreds of passes."""
    assert default_method(subject_of(model())) == expected


def test_what_is_left_is_the_default() -> None:
    assert default_method(exported()) == "occlusion"
    model = vitrail.create_model("vit_tiny_patch16_224", depth=1)
    model.merge_tokens(1)
    assert default_method(subject_of(model)) == "occlusion"
