import re
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.errors import ConfigError, ExportError
from vitrail.exporting import FORMATS, folders
from vitrail.exporting.folders import export_folder
from vitrail.models.attention2d import Attention2dConfig


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        ({}, "tim", "No format named 'tim'. Did you mean 'timm'? Use one of timm, huggingface"),
        (
            {"stem": "conv"},
            "timm",
            "timm has no Vision Transformer with stem='conv', and no other format has; its run folder is a format too",
        ),
        (
            {"global_pool": "token_avg"},
            "timm",
            "timm has no Vision Transformer with global_pool='token_avg'; use --format huggingface",
        ),
        ({"patch_norm": True}, "timm", "timm has no Vision Transformer with patch_norm=true, and no other"),
        ({"head_dim": 4}, "timm", "timm has no Vision Transformer with head_dim=4, and no other format has"),
        ({"norm_eps": 1e-3}, "timm", "timm has no Vision Transformer with norm_eps=0.001; use --format huggingface"),
        (
            {"pos_embed": "rope", "num_heads": 2, "global_pool": "map"},
            "timm",
            "with pos_embed='rope' with global_pool='map' beside class token or registers, and no other format has",
        ),
        (
            {"mlp_layer": "swiglu", "norm_eps": 1e-5},
            "timm",
            "timm has no Vision Transformer with mlp_layer='swiglu' with norm_eps=1e-05",
        ),
        (
            {"pos_embed": "rope", "num_heads": 2},
            "huggingface",
            "Hugging Face's transformers has no Vision Transformer with pos_embed='rope'; use --format timm",
        ),
        ({"global_pool": "map"}, "huggingface", "transformers has no Vision Transformer with global_pool='map'; use"),
        ({"global_pool": "avg"}, "huggingface", "with a norm after pooling (global_pool='avg'); use --format timm"),
        (
            {"global_pool": "avg", "fc_norm": False, "class_token": False},
            "huggingface",
            "with class_token=false; use --format timm",
        ),
        ({"qk_norm": True}, "huggingface", "with qk_norm=true; use --format timm"),
        (
            {"init_values": 0.1, "image_size": (8, 16)},
            "huggingface",
            "with image_size=8x16 where it is a DINOv2; use --format timm",
        ),
        (
            {"init_values": 0.1, "mlp_ratio": 1.5},
            "huggingface",
            "with mlp_ratio=1.5 where it is a DINOv2; use --format timm",
        ),
        ({"distilled": True, "init_values": 0.1}, "huggingface", "with distilled=true beside init_values"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    settings: dict[str, Any], name: str, message: str, tmp_path: Path, made: Any
) -> None:
    model, card = made(**settings)
    with pytest.raises(ConfigError, match=re.escape(message)):
        export_folder(model, card, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_family_is_refused(tmp_path: Path, made: Any) -> None:
    model, card = made()
    other = Attention2dConfig.model_validate({"image_size": 16, "patch_size": 4, "embed_dim": 24, "num_heads": 3})
    with pytest.raises(
        ConfigError, match=r"^A model of kind 'attention2d' cannot be exported to timm; only 'vit' can$"
    ):
        export_folder(model, card.model_copy(update={"model": other}), "timm", tmp_path / "out")


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_that_leaves_padding_out_is_refused(name: str, tmp_path: Path, made: Any) -> None:
    model, card = made(fit="native", padding_mask=True)
    message = r"has no .* with padding_mask=true \(data\.fit=native\), and no other format has; its run folder is a"
    with pytest.raises(ConfigError, match=message):
        export_folder(model, card, name, tmp_path / "out")


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_in_use_is_refused_and_an_empty_one_is_taken(name: str, tmp_path: Path, made: Any) -> None:
    model, card = made()
    assert export_folder(model, card, name, tmp_path).path == tmp_path
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r" is not empty; give --output a new folder$"):
        export_folder(model, card, name, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"file is not empty; give --output a new folder$"):
        export_folder(model, card, name, tmp_path / "file")


@pytest.mark.parametrize("name", FORMATS)
def test_what_answers_differently_is_not_handed_over(
    name: str, tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = made()
    whole = folders._to_bytes

    def spoilt(tensors: dict[str, torch.Tensor]) -> bytes:
        key = next(key for key in tensors if key in ("head.bias", "classifier.bias"))
        return whole({**tensors, key: tensors[key] + 1e-2})

    monkeypatch.setattr(folders, "_to_bytes", spoilt)
    with pytest.raises(ExportError, match=r" answers differently, by 0\.\d+ in a logit; do not use it$"):
        export_folder(model, card, name, tmp_path / "out")


@pytest.mark.parametrize("name", FORMATS)
def test_what_cannot_be_read_again_is_not_handed_over(
    name: str, tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = made()
    whole = folders._to_bytes
    monkeypatch.setattr(folders, "_to_bytes", lambda tensors: whole(dict([*tensors.items()][:-1])))
    with pytest.raises(ExportError, match=r"^What was written to .*out cannot be read again: The weights lack "):
        export_folder(model, card, name, tmp_path / "out")


def test_what_several_labels_ask_of_probabilities_is_told(tmp_path: Path, made: Any) -> None:
    model, card = made()
    exported = export_folder(model, card.model_copy(update={"multilabel": True}), "timm", tmp_path / "out")
    assert exported.notes == ("Its labels do not exclude one another: take the sigmoid of each logit, not a softmax",)


def test_the_temperature_is_told(tmp_path: Path, made: Any) -> None:
    model, card = made()
    exported = export_folder(model, card.model_copy(update={"temperature": 1.2345678}), "timm", tmp_path / "out")
    assert exported.notes == ("Its probabilities are not calibrated: divide logits by the temperature 1.235",)
    assert exported.to_dict() == {
        "path": str(tmp_path / "out"),
        "format": "timm",
        "files": ["config.json", "model.safetensors"],
        "images": 8,
        "largest_difference": exported.largest_difference,
        "use": f'timm.create_model("local-dir:{(tmp_path / "out").as_posix()}", pretrained=True)',
        "notes": [*exported.notes],
    }
