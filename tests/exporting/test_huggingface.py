from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from vitrail.data.preprocess import prepare
from vitrail.exporting.folders import export_folder

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "token": ("ViTForImageClassification", {}),
    "no biases": ("ViTForImageClassification", {"qkv_bias": False, "proj_bias": False, "mlp_bias": False}),
    "wide, grey": (
        "ViTForImageClassification",
        {"image_size": (8, 16), "patch_size": (2, 4), "in_chans": 1, "mean": (0.4,), "std": (0.2,)},
    ),
    "sine-cosine": ("ViTForImageClassification", {"pos_embed": "sincos2d", "act_layer": "gelu_tanh"}),
    "no positions": ("ViTForImageClassification", {"pos_embed": "none", "act_layer": "relu"}),
    "no class position": ("ViTForImageClassification", {"no_embed_class": True}),
    "distilled": ("DeiTForImageClassificationWithTeacher", {"distilled": True}),
    "factors": ("Dinov2ForImageClassification", {"init_values": 0.1}),
    "both": ("Dinov2ForImageClassification", {"global_pool": "token_avg"}),
    "average": ("Dinov2ForImageClassification", {"global_pool": "avg", "fc_norm": False}),
    "gated": ("Dinov2ForImageClassification", {"mlp_layer": "swiglu", "mlp_ratio": 4 / 3}),
    "registers": ("Dinov2WithRegistersForImageClassification", {"reg_tokens": 3, "no_embed_class": True}),
    "registers with positions": ("Dinov2WithRegistersForImageClassification", {"reg_tokens": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_transformers_loads_the_folder_with_equal_logits(case: str, tmp_path: Path, made: Any, images: Any) -> None:
    name, settings = CASES[case]
    model, card = made(**settings)
    exported = export_folder(model, card, "huggingface", tmp_path / "out")
    assert exported.largest_difference <= 1e-5
    loaded, info = AutoModelForImageClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(loaded).__name__ == name
    assert not any(info.values())
    batch = images(2, card.model.in_chans, *card.model.image_size)
    with torch.inference_mode():
        expected = model(batch)
        scaled = (batch / 255 - model.normalize.mean) / model.normalize.std
        torch.testing.assert_close(loaded.eval()(scaled).logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05
    assert loaded.config.id2label == dict(enumerate(card.classes))
    assert loaded.config.label2id["dog"] == 1


@pytest.mark.parametrize(
    ("fit", "crop_rate", "done"),
    [
        ("squash", 1.0, None),
        ("crop", 1.0, None),
        ("crop", 0.8, None),
        ("squash", 0.8, "stretches and crops"),
        ("pad", 1.0, "pads"),
    ],
)
def test_its_image_processor_prepares_images(
    fit: str, crop_rate: float, done: str | None, tmp_path: Path, made: Any
) -> None:
    model, card = made(fit=fit, crop_rate=crop_rate)
    note = () if done is None else (f"Its image processor stretches images to the model's size, Vitrail {done} them",)
    assert export_folder(model, card, "huggingface", tmp_path / "out").notes == note
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((80, 64), Image.Resampling.BICUBIC)
    pixels = processor(photo, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 16, 16)
    if done is None:
        ours = torch.from_numpy(prepare(photo, card.preprocess)).permute(2, 0, 1)[None]
        expected = model.normalize(ours)
        assert (pixels - expected).abs().mean() < 0.02


@pytest.mark.parametrize("antialias", [True, False])
def test_the_folder_is_for_the_size_that_images_are_given(
    antialias: bool, tmp_path: Path, made: Any, images: Any
) -> None:
    model, card = made(pos_embed_antialias=antialias, init_values=0.1)
    card = card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"image_size": (8, 8)})})
    exported = export_folder(model, card, "huggingface", tmp_path / "out")
    assert exported.notes == ("Position embeddings are resized from 4x4 to 2x2 patches",)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    batch = images(2, 3, 8, 8)
    with torch.inference_mode():
        scaled = (batch / 255 - model.normalize.mean) / model.normalize.std
        torch.testing.assert_close(loaded(scaled).logits, model(batch), rtol=1e-4, atol=1e-4)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert processor(Image.new("RGB", (9, 9)), return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)
