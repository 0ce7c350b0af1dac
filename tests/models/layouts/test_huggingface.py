import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from vitrail.errors import CheckpointError
from vitrail.models import build_model
from vitrail.models.adaptation import adapt_weights
from vitrail.models.positions import resize_pos_embed
from vitrail.models.weights import HEADS, import_weights, load_weights, recognise

SIZES: dict[str, Any] = {
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
MLP = {"intermediate_size": 72}

# A model of transformers, the config it takes, and settings.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", "ViTConfig", {**SIZES, **MLP}),
    "vit, no bias, grey": (
        "ViTForImageClassification",
        "ViTConfig",
        {**SIZES, **MLP, "qkv_bias": False, "num_channels": 1, "image_size": (16, 32), "hidden_act": "gelu_new"},
    ),
    "deit": ("DeiTForImageClassification", "DeiTConfig", {**SIZES, **MLP}),
    "deit, teacher": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {**SIZES, **MLP}),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", {**SIZES, "mlp_ratio": 2}),
    "dinov2, swiglu": ("Dinov2ForImageClassification", "Dinov2Config", {**SIZES, "use_swiglu_ffn": True}),
    "registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**SIZES, "num_register_tokens": 3, "hidden_act": "relu"},
    ),
}


def made(case: str, scramble: Any) -> Any:
    model, config, settings = CASES[case]
    return scramble(getattr(transformers, model)(getattr(transformers, config)(**settings)))


def written(model: Any, folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What transformers writes, read again; names in files are older ones than in memory."""
    model.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), load_file(folder / "model.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str, tmp_path: Path, scramble: Any, our_logits: Any, images: Any) -> None:
    model = made(case, scramble)
    described, weights = written(model, tmp_path)
    assert recognise(weights) == recognise(model.state_dict()) == "huggingface"
    size = model.config.image_size
    batch = images(2, model.config.num_channels, *(size if isinstance(size, tuple | list) else (size, size)))
    with torch.inference_mode():
        expected = model((batch - 0.5) / 0.5).logits
    assert expected.std() > 0.1
    for names in (weights, model.state_dict()):
        logits, imported = our_logits(batch, names, described)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert imported.config.num_heads == 3
        assert imported.config.norm_eps == model.config.layer_norm_eps


@pytest.mark.parametrize("size", [(16, 24), (40, 48)])
@pytest.mark.parametrize("case", ["vit", "deit", "dinov2", "registers"])
def test_logits_at_another_size_equal_transformers(
    case: str, size: tuple[int, int], tmp_path: Path, scramble: Any, our_logits: Any, images: Any
) -> None:
    model = made(case, scramble)
    described, weights = written(model, tmp_path)
    batch = images(2, 3, *size)
    asked = {} if case in ("dinov2", "registers") else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        expected = model((batch - 0.5) / 0.5, **asked).logits
    logits, imported = our_logits(batch, weights, described)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    for config in (imported.config, import_weights(weights).config):
        assert config.pos_embed_antialias == (case == "registers")


def test_weights_for_another_size_are_resized_as_theirs(scramble: Any) -> None:
    own, weights = import_weights(made("vit", scramble).state_dict())
    wanted = own.model_copy(update={"image_size": (16, 16), "pos_embed_antialias": True})
    adapted, _ = adapt_weights(weights, own, wanted, keep_head=True)
    expected = resize_pos_embed(weights["pos_embed"][:, 1:], (4, 4), (2, 2), antialias=False)
    torch.testing.assert_close(adapted["pos_embed"][:, 1:], expected, rtol=0, atol=0)


@pytest.mark.parametrize("gated", [False, True])
def test_tokens_of_dinov3_equal_transformers(
    gated: bool, tmp_path: Path, scramble: Any, our_logits: Any, images: Any
) -> None:
    settings = {**SIZES, **MLP, "num_register_tokens": 2, "use_gated_mlp": gated}
    settings |= {"num_labels": 2, "hidden_act": "silu" if gated else "gelu"}
    model = scramble(transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**settings)))
    described, weights = written(model, tmp_path)
    batch = images(2, 3, 32, 32)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    scaled = (batch - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    for names in (weights, model.state_dict()):
        imported = import_weights(names, {**described, "image_mean": list(mean), "image_std": list(std)})
        assert "head.weight" not in imported.weights
        ours = build_model(imported.config).eval()
        load_weights(ours, imported.weights, HEADS)
        with torch.inference_mode():
            expected = model(scaled).last_hidden_state
            torch.testing.assert_close(ours.forward_features(batch), expected, rtol=1e-4, atol=1e-4)
    assert (imported.config.mean, imported.config.std) == (mean, std)


@pytest.mark.parametrize(
    "name", ["ViTModel", "ViTForMaskedImageModeling", "DeiTModel", "Dinov2Model", "Dinov2WithRegistersModel"]
)
def test_a_model_without_a_head_gives_all_but_a_head(name: str, scramble: Any, images: Any) -> None:
    config = {"ViT": "ViTConfig", "DeiT": "DeiTConfig"}.get(
        name.removesuffix("Model"), f"{name.removesuffix('Model')}Config"
    )
    settings = SIZES if "Dino" in name else {**SIZES, **MLP}
    if name == "ViTForMaskedImageModeling":
        weights = getattr(transformers, name)(transformers.ViTConfig(**settings)).state_dict()
        with pytest.raises(CheckpointError, match=r"^The model has no place for decoder"):
            import_weights(weights)
        return
    weights = getattr(transformers, name)(getattr(transformers, config)(**settings)).state_dict()
    imported = import_weights(weights, {"model_type": getattr(transformers, config).model_type, **settings})
    assert not [name for name in imported.weights if name.startswith("head")]
    assert imported.config.global_pool == "token"
    assert imported.config.distilled == (name == "DeiTModel")


@pytest.mark.parametrize(("case", "eps"), [("vit", 1e-12), ("dinov2", 1e-6), ("registers", 1e-6)])
def test_without_a_description_names_tell_the_norms(case: str, eps: float, scramble: Any) -> None:
    model = made(case, scramble)
    config = import_weights(model.state_dict()).config
    assert (config.norm_eps, config.num_heads, config.image_size) == (eps, 3, (32, 32))


def test_images_that_are_not_scaled_have_mean_zero(scramble: Any) -> None:
    described = {"model_type": "vit", "num_attention_heads": 3, "do_normalize": False, "image_size": 32}
    config = import_weights(made("vit", scramble).state_dict(), described).config
    assert (config.mean, config.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            {"model_type": "swin"},
            "model_type 'swin' is none of vit, deit, dinov2, dinov2_with_registers, dinov3_vit, "
            "the Vision Transformers that can be read",
        ),
        ({"model_type": "dinov22"}, "that can be read; did you mean 'dinov2'$"),
        ({}, "model_type 'None' is none of vit"),
        ({"model_type": "vit", "hidden_act": "mish"}, "hidden_act 'mish' is none of gelu, gelu_new"),
        (
            {"model_type": "vit", "num_attention_heads": 3, "id2label": {"0": "a", "1": "b"}},
            "The head of the weights has 5 outputs, not the 2 classes of their description",
        ),
        (
            {"model_type": "dinov3_vit", "use_gated_mlp": True},
            "A gated MLP with hidden_act 'gelu' cannot be read; only 'silu' can",
        ),
        (
            {"model_type": "vit", "num_attention_heads": 5},
            "The weights are of no model that can be built: embed_dim=192 is not a multiple of num_heads=5",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused(described: dict[str, Any], message: str, scramble: Any) -> None:
    with pytest.raises(CheckpointError, match=message):
        import_weights(made("vit", scramble).state_dict(), described)
