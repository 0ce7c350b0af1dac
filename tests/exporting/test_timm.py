from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config

from vitrail.exporting.folders import export_folder

CASES: dict[str, dict[str, Any]] = {
    "token": {},
    "average": {"global_pool": "avg", "class_token": False},
    "average of normalised tokens": {"global_pool": "avg", "fc_norm": False, "reg_tokens": 2},
    "attention pooling": {"global_pool": "map", "act_layer": "gelu_tanh"},
    "no biases": {"qkv_bias": False, "proj_bias": False, "mlp_bias": False},
    "biases of the MLP alone": {"proj_bias": False},
    "wide, grey": {"image_size": (8, 16), "in_chans": 1, "mean": (0.4,), "std": (0.2,)},
    "sine-cosine": {"pos_embed": "sincos2d"},
    "no positions": {"pos_embed": "none", "act_layer": "relu"},
    "registers, factors": {"reg_tokens": 3, "init_values": 1e-5, "no_embed_class": True},
    "gated": {"mlp_layer": "swiglu", "qk_norm": True},
    "coarse norms": {"norm_eps": 1e-5},
    "distilled": {"distilled": True},
    "distilled, positions of patches": {"distilled": True, "no_embed_class": True},
    "rotary, patches pooled": {"pos_embed": "rope", "num_heads": 2, "global_pool": "map", "class_token": False},
    "rotary": {"pos_embed": "rope", "num_heads": 2, "reg_tokens": 2, "init_values": 0.1, "norm_eps": 1e-5},
    "rotary, gated": {"pos_embed": "rope", "num_heads": 2, "mlp_layer": "swiglu", "global_pool": "avg"},
    "rotary, no biases": {"pos_embed": "rope", "num_heads": 2, "qkv_bias": False, "proj_bias": False},
}


@pytest.mark.parametrize("case", CASES)
def test_timm_loads_the_folder_with_equal_logits(case: str, tmp_path: Path, made: Any, images: Any) -> None:
    model, card = made(**CASES[case])
    exported = export_folder(model, card, "timm", tmp_path / "out")
    assert exported.largest_difference <= 1e-5
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    config = card.model
    batch = images(2, config.in_chans, *config.image_size)
    with torch.inference_mode():
        expected = model(batch)
        scaled = (batch / 255 - model.normalize.mean) / model.normalize.std
        torch.testing.assert_close(loaded(scaled), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05
    data = resolve_model_data_config(loaded)
    assert (tuple(data["mean"]), tuple(data["std"])) == config.scaling()
    assert data["input_size"] == (config.in_chans, *config.image_size)


@pytest.mark.parametrize("crop_rate", [0.875, 1.0])
@pytest.mark.parametrize(("fit", "mode"), [("pad", "border"), ("crop", "center"), ("squash", "squash")])
def test_timm_fits_images_as_the_model_does(fit: str, mode: str, crop_rate: float, tmp_path: Path, made: Any) -> None:
    model, card = made(fit=fit, crop_rate=crop_rate)
    exported = export_folder(model, card, "timm", tmp_path / "out")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    data = resolve_model_data_config(loaded)
    assert (data["crop_mode"], data["crop_pct"], data["interpolation"]) == (mode, crop_rate, "bicubic")
    create_transform(**data)
    padding = ("timm pads images with their mean colour, Vitrail with black",)
    assert exported.notes == (padding if fit == "pad" else ())
    assert loaded.pretrained_cfg["label_names"] == list(card.classes)
