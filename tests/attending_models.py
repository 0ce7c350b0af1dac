"""Small models of every family, images for them, and attention written out, which what we compute is held against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import vitrail
from vitrail.models.cnn import TimmConfig, TimmModel

_VIT: dict[str, dict[str, Any]] = {
    "class token": {},
    "mean": {"global_pool": "avg", "class_token": False},
    "registers": {"global_pool": "avg", "reg_tokens": 2},
    "both": {"global_pool": "token_avg"},
    "distilled": {"distilled": True},
    "attention pooling": {"global_pool": "map", "class_token": False},
    "rotary": {"pos_embed": "rope", "qk_norm": True, "init_values": 0.5},
    "masked mean": {"padding_mask": True, "global_pool": "avg"},
    "masked class token": {"padding_mask": True},
}
_TIMM = {
    "timm class token": "test_vit",
    "timm registers": "test_vit2",
    "timm attention pooling": "test_vit3",
    "timm rotary": "test_vit4",
    "timm convolutions": "test_resnet",
    "timm differences": "vit_dwee_patch16_reg1_gap_256",
    "timm windows": "swin_tiny_patch4_window7_224",
}
OURS = (*_VIT, "compact", "maps")
ATTENDING = (*OURS, "timm class token", "timm registers", "timm attention pooling", "timm rotary")


def small_model(family: str) -> nn.Module:
    """A model, small but for those of windows and differences, with weights that make attention far from uniform."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        model = _built(family)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.data = torch.randn_like(parameter) * parameter[0].numel() ** -0.5 * 1.5
            elif name.endswith("bias"):
                parameter.data = 0.1 * torch.randn_like(parameter)
    return model.eval()


def _built(family: str) -> nn.Module:
    size = {"image_size": (16, 24), "num_classes": 5}
    if family in _VIT:
        tiny = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
        return vitrail.create_model("vit_tiny_patch16_224", **size, **tiny, **_VIT[family])
    if family == "compact":
        return vitrail.create_model("cct_2_3x2_32", **size, embed_dim=24, num_heads=2, stem_width=8)
    if family == "maps":
        return vitrail.create_model("attention2d_micro_conv4_32", **size, embed_dim=24, num_heads=2, depth=2)
    if family == "convolutions":
        return vitrail.create_model("resnet18_32", **size)
    side = {"timm windows": 224, "timm differences": 256}.get(family, 64)
    return TimmModel(TimmConfig(name=_TIMM[family], image_size=(side, side), num_classes=5))


def some_images(model: nn.Module, count: int = 2) -> Tensor:
    """Noise uint8 (count, C, rows, columns) of the model's size; of one that reads masks, some padded at the right."""
    config: Any = model.config
    numbers = torch.Generator().manual_seed(1)
    channels = getattr(config, "input_channels", config.in_chans)
    images = torch.randint(0, 256, (count, channels, *config.image_size), dtype=torch.uint8, generator=numbers)
    if channels > config.in_chans:
        images[:, -1] = 255
        images[1:, -1, :, 16:] = 0
    return images


class WrittenOut(TorchFunctionMode):
    """While it is entered, attention is computed as it is written, and its probabilities are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.probabilities: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value, *rest = args
        given = dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False)) | (kwargs or {})
        scores = torch.einsum("bhqk,bhnk->bhqn", query, key) * (given.get("scale") or query.shape[-1] ** -0.5)
        mask = given.get("attn_mask")
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        probabilities = torch.softmax(scores, dim=-1)
        if not probabilities.requires_grad:
            probabilities.requires_grad_()
        self.probabilities.append(probabilities)
        return torch.einsum("bhqn,bhnk->bhqk", probabilities, value)
