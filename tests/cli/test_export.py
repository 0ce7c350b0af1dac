from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

import vitrail as public

VIT = {
    "stem": "linear",
    "class_token": "true",
    "global_pool": "token",
    "embed_dim": 24,
    "num_heads": 3,
    "patch_size": 4,
    "qkv_bias": "false",
}


@pytest.fixture
def vit_run(vitrail: Any, small: Any) -> Path:
    """./vit, a ViT with class token and patch projection that was trained for a few steps."""
    settings = [f"--set=model.{key}={value}" for key, value in VIT.items()]
    done = vitrail("train", *small("photos", 1), *settings, "--out=vit")
    assert done.code == 0, done.err
    return Path("vit")


def batch(classifier: Any) -> Any:
    preprocess = classifier.card.preprocess
    shape = (3, *preprocess.image_size, preprocess.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def scaled(classifier: Any, pixels: Any) -> torch.Tensor:
    model = classifier.engine.model
    return model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def test_a_trained_vit_opens_in_timm_with_equal_logits(vitrail: Any, vit_run: Path) -> None:
    done = vitrail("export", vit_run, "--format=timm", "--output=for timm")
    assert done.code == 0, done.err
    in_use = vitrail("export", vit_run, "--format=timm", "--output=for timm")
    assert (in_use.code, in_use.error) == (2, "for timm is not empty; give --output a new folder")
    first, checked, *_, last = done.out.splitlines()
    assert first == f"{Path('for timm')} holds config.json, model.safetensors"
    assert checked.startswith("checked: read again, 8 random images have the same logits, but for ")
    assert last == 'load it with timm.create_model("local-dir:for timm", pretrained=True)'
    classifier = public.load(vit_run)
    loaded = timm.create_model("local-dir:for timm", pretrained=True).eval()
    pixels = batch(classifier)
    with torch.inference_mode():
        logits = loaded(scaled(classifier, pixels))
    np.testing.assert_allclose(logits.numpy(), classifier.logits(pixels), rtol=1e-4, atol=1e-4)


def test_a_trained_vit_opens_in_transformers_with_equal_logits(vitrail: Any, vit_run: Path) -> None:
    done = vitrail("export", vit_run, "--format=huggingface", "--json")
    folder = Path("exports") / "vit-huggingface"
    assert done.json["path"] == str(folder)
    assert done.json["files"] == ["config.json", "preprocessor_config.json", "model.safetensors"]
    assert done.json["largest_difference"] < 1e-4
    classifier = public.load(vit_run)
    loaded = AutoModelForImageClassification.from_pretrained(folder).eval()
    assert AutoImageProcessor.from_pretrained(folder).size["height"] == classifier.card.preprocess.image_size[0]
    pixels = batch(classifier)
    with torch.inference_mode():
        logits = loaded(scaled(classifier, pixels)).logits
    np.testing.assert_allclose(logits.numpy(), classifier.logits(pixels), rtol=1e-4, atol=1e-4)
    assert list(loaded.config.id2label.values()) == list(classifier.card.classes)


def test_mistakes_are_one_sentence(vitrail: Any, run: Path) -> None:
    done = vitrail("export", run, "--format=tim")
    assert (done.code, done.error) == (2, "No format named 'tim'. Did you mean 'timm'? Use one of timm, huggingface")
    done = vitrail("export", run, "--format=timm")
    message = "timm has no Vision Transformer with stem='conv', and no other format has; its run folder is a format too"
    assert (done.code, done.error) == (2, message)
    done = vitrail("export", "nothing", "--format=timm")
    assert done.code == 2
    assert "nothing" in done.error
    done = vitrail("export", run)
    assert done.code == 2
    assert "--format" in done.error
