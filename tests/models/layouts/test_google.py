from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from other_layouts import to_google
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.models.weights import import_weights, recognise

D, HEADS, LAYERS, PATCH, HIDDEN, CLASSES, GRID = 48, 3, 2, 4, 60, 5, 4


def google_file(path: Path, root: str = "", big_vision: bool = False, scanned: bool = False, **extra: Any) -> None:
    """A small model as Google's programs write it, drawn anew; written out by hand from their documentation of it."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    attention, mlp, second = (0, 0, 1) if big_vision else (1, 3, 2)
    arrays = {
        "embedding/kernel": draw(PATCH, PATCH, 3, D),
        "embedding/bias": draw(D),
        "cls": draw(1, 1, D),
        "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding": draw(1, GRID**2 + 1, D),
        "Transformer/encoder_norm/scale": 1 + draw(D),
        "Transformer/encoder_norm/bias": draw(D),
        "head/kernel": draw(D, CLASSES),
        "head/bias": draw(CLASSES),
    }
    blocks = []
    for _ in range(LAYERS):
        block = {}
        for part in ("query", "key", "value"):
            block[f"MultiHeadDotProductAttention_{attention}/{part}/kernel"] = draw(D, HEADS, D // HEADS)
            block[f"MultiHeadDotProductAttention_{attention}/{part}/bias"] = draw(HEADS, D // HEADS)
        block[f"MultiHeadDotProductAttention_{attention}/out/kernel"] = draw(HEADS, D // HEADS, D)
        block[f"MultiHeadDotProductAttention_{attention}/out/bias"] = draw(D)
        for norm in (0, second):
            block[f"LayerNorm_{norm}/scale"], block[f"LayerNorm_{norm}/bias"] = 1 + draw(D), draw(D)
        block[f"MlpBlock_{mlp}/Dense_0/kernel"], block[f"MlpBlock_{mlp}/Dense_0/bias"] = draw(D, HIDDEN), draw(HIDDEN)
        block[f"MlpBlock_{mlp}/Dense_1/kernel"], block[f"MlpBlock_{mlp}/Dense_1/bias"] = draw(HIDDEN, D), draw(D)
        blocks.append(block)
    if scanned:
        arrays |= {f"Transformer/encoderblock/{key}": np.stack([block[key] for block in blocks]) for key in blocks[0]}
    else:
        arrays |= {f"Transformer/encoderblock_{i}/{key}": block[key] for i, block in enumerate(blocks) for key in block}
    np.savez(path, **{root + key: array for key, array in (arrays | extra).items()})


def read(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


FILES: dict[str, dict[str, Any]] = {
    "vision_transformer": {},
    "a training's file": {"root": "opt/target/"},
    "big_vision": {"root": "params/", "big_vision": True},
    "big_vision, scanned": {"root": "params/img/", "big_vision": True, "scanned": True},
}


@pytest.mark.parametrize("kind", FILES)
def test_logits_equal_those_of_timm_which_reads_the_file_itself(
    kind: str, tmp_path: Path, our_logits: Any, images: Any
) -> None:
    google_file(tmp_path / "vit.npz", **FILES[kind])
    reference = timm.create_model(
        "vit_base_patch16_224",
        img_size=GRID * PATCH,
        patch_size=PATCH,
        embed_dim=D,
        depth=LAYERS,
        num_heads=HEADS,
        mlp_ratio=HIDDEN / D,
        num_classes=CLASSES,
    ).eval()
    reference.load_pretrained(str(tmp_path / "vit.npz"))
    weights = read(tmp_path / "vit.npz")
    assert recognise(weights) == "google"
    batch = images(2, 3, 16, 16)
    logits, imported = our_logits(batch, weights)
    with torch.inference_mode():
        expected = reference((batch - 0.5) / 0.5)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
    assert (imported.config.num_heads, imported.config.mean) == (HEADS, (0.5, 0.5, 0.5))


def test_a_head_behind_a_layer_that_is_no_more_is_left_out(tmp_path: Path) -> None:
    extra = {"pre_logits/kernel": np.zeros((D, D), np.float32), "pre_logits/bias": np.zeros(D, np.float32)}
    google_file(tmp_path / "vit.npz", **extra)
    imported = import_weights(read(tmp_path / "vit.npz"))
    assert not [name for name in imported.weights if name.startswith(("head", "pre_logits"))]


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    google_file(tmp_path / "vit.npz")
    weights = read(tmp_path / "vit.npz")
    again = to_google(import_weights(weights).weights, HEADS)
    assert again.keys() == weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(again[name], tensor, rtol=0.0, atol=0.0, msg=name)


def test_a_hybrid_is_refused(tmp_path: Path) -> None:
    google_file(tmp_path / "vit.npz", **{"conv_root/kernel": np.zeros((7, 7, 3, 64), np.float32)})
    with pytest.raises(CheckpointError, match=r"^The model has no place for conv_root/kernel"):
        import_weights(read(tmp_path / "vit.npz"))


def test_weights_without_attention_are_refused(tmp_path: Path) -> None:
    google_file(tmp_path / "vit.npz")
    weights = {name: tensor for name, tensor in read(tmp_path / "vit.npz").items() if "/query/" not in name}
    with pytest.raises(CheckpointError, match=r"lack|no kernels of attention heads"):
        import_weights(weights)
