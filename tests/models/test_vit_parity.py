"""The ViT against those of timm, torchvision, transformers and vit-pytorch: the same weights, the same numbers.

Their weights are renamed here by hand, apart from the layouts that Vitrail reads files with.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import vit_pytorch
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT
from transformers.models.deit.modeling_deit import DeiTConfig, DeiTForImageClassificationWithTeacher
from transformers.models.dinov2.modeling_dinov2 import Dinov2Config, Dinov2ForImageClassification
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
)
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTConfig, DINOv3ViTModel
from transformers.models.vit.modeling_vit import ViTConfig as TransformersViTConfig
from transformers.models.vit.modeling_vit import ViTForImageClassification

from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig

TINY: dict[str, Any] = {
    "image_size": 12,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 3.0,
}
Weights = dict[str, Tensor]


def ours_with(weights: Weights, **settings: Any) -> VisionTransformer:
    model = VisionTransformer(ViTConfig.model_validate({**TINY, **settings}))
    model.load_state_dict(weights, strict=True)
    return model


def assert_equal_to(
    reference: nn.Module, model: VisionTransformer, batch: Tensor, logits_of: Callable[[Any], Tensor] = lambda out: out
) -> None:
    """Logits and input gradients are equal, evaluated and in training without dropout; and are not all alike."""
    for training in (False, True):
        reference.train(training)
        model.train(training)
        theirs, ours = (batch.clone().requires_grad_() for _ in range(2))
        expected, logits = logits_of(reference((theirs - 0.5) / 0.5)), model(ours)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        for out in (expected, logits):
            (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
        assert expected.std() > 0.1
        assert theirs.grad is not None
        assert theirs.grad.abs().mean() > 1e-3


# timm: settings of ours, and what timm calls otherwise

REGISTERS: dict[str, Any] = {"reg_tokens": 4, "no_embed_class": True}
TIMM_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "token": ({}, {}),
    "avg": ({"global_pool": "avg"}, {}),
    "avg, no class token": ({"global_pool": "avg", "class_token": False}, {}),
    "avg, norm before": ({"global_pool": "avg", "fc_norm": False}, {}),
    "token, norm after": ({"fc_norm": True}, {}),
    "map": ({"global_pool": "map"}, {}),
    "map, no class token": ({"global_pool": "map", "class_token": False}, {}),
    "map, norm after": ({"global_pool": "map", "fc_norm": True}, {}),
    "no qkv bias": ({"qkv_bias": False}, {}),
    "no bias after": ({"proj_bias": False, "mlp_bias": False}, {"proj_bias": False}),
    "no position": ({"pos_embed": "none"}, {}),
    "positions of patches": ({"no_embed_class": True}, {}),
    "registers": (REGISTERS, {}),
    "registers with positions": ({"reg_tokens": 2, "global_pool": "avg"}, {}),
    "registers alone": ({"reg_tokens": 2, "class_token": False, "global_pool": "map"}, {}),
    "LayerScale": ({"init_values": 0.1}, {}),
    "norm of queries and keys": ({"qk_norm": True}, {}),
    "all of them": ({**REGISTERS, "init_values": 0.1, "qk_norm": True, "qkv_bias": False, "global_pool": "avg"}, {}),
    "eps": (
        {"norm_eps": 1e-2, "qk_norm": True, "global_pool": "map"},
        {"norm_layer": partial(LayerNorm, eps=1e-2)},
    ),
    "swiglu": (
        {"mlp_layer": "swiglu", "mlp_ratio": 2.0, "init_values": 1.0},
        {"mlp_layer": SwiGLUPacked, "act_layer": "silu", "mlp_ratio": 4.0},
    ),
    "swiglu, odd": (
        {"mlp_layer": "swiglu", "mlp_ratio": 2.66667, "embed_dim": 18},
        {"mlp_layer": SwiGLUPacked, "act_layer": "silu", "mlp_ratio": 2.66667 * 2},
    ),
    "wide image": ({"image_size": (8, 20)}, {}),
    "wide patches": ({"image_size": (8, 30), "patch_size": (2, 10)}, {}),
    "one channel": ({"in_chans": 1}, {}),
    "five channels": ({"in_chans": 5}, {}),
    "one head": ({"num_heads": 1}, {}),
    "twelve heads, deeper": ({"num_heads": 12, "depth": 5}, {}),
    "one block": ({"depth": 1}, {}),
    "relu": ({"act_layer": "relu", "global_pool": "map"}, {}),
    "tanh": ({"act_layer": "gelu_tanh"}, {}),
    "silu": ({"act_layer": "silu"}, {}),
    "narrow mlp": ({"mlp_ratio": 1.7, "global_pool": "map"}, {}),
}
NOT_TIMMS = {"image_size", "mlp_bias", "norm_eps"}


@pytest.mark.parametrize("case", TIMM_CASES)
@pytest.mark.parametrize("grid", [None, (5, 2), (2, 7)], ids=["own size", "higher", "wider"])
def test_timm(images, scrambled, case: str, grid: tuple[int, int] | None) -> None:
    ours, theirs = TIMM_CASES[case]
    settings = {**TINY, **ours}
    named = {key: value for key, value in settings.items() if key not in NOT_TIMMS}
    reference = scrambled(TimmViT(img_size=settings["image_size"], dynamic_img_size=True, **{**named, **theirs}))
    model = ours_with(reference.state_dict(), **ours)
    patch, size = model.config.patch_size, model.config.image_size
    size = size if grid is None else (grid[0] * patch[0], grid[1] * patch[1])
    assert_equal_to(reference, model, images(3, model.config.in_chans, *size))


def timm_pair(scrambled: Callable[..., Any], ours: dict[str, Any]) -> tuple[VisionTransformer, nn.Module]:
    named = {key: value for key, value in {**TINY, **ours}.items() if key not in NOT_TIMMS}
    reference = scrambled(TimmViT(img_size=12, **named))
    return ours_with(reference.state_dict(), **ours), reference


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_gradients_of_parameters_equal_timms(images, scrambled, pool: str) -> None:
    model, reference = timm_pair(scrambled, {"global_pool": pool})
    batch, labels = images(4, 3, 12, 12), torch.tensor([0, 1, 2, 4])
    nn.functional.cross_entropy(model(batch), labels).backward()
    nn.functional.cross_entropy(reference((batch - 0.5) / 0.5), labels).backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)


def test_drop_path_rates_grow_linearly_as_in_timm(scrambled) -> None:
    model, reference = timm_pair(scrambled, {"drop_path_rate": 0.3, "depth": 4})
    rates = [block.drop_path1.rate for block in model.blocks]
    assert rates == [block.drop_path2.rate for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates == pytest.approx([getattr(block.drop_path1, "drop_prob", 0.0) for block in reference.blocks])


@pytest.mark.parametrize("name", ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate"])
def test_dropout_falls_where_timms_does(images, scrambled, name: str) -> None:
    model, reference = timm_pair(scrambled, {name: 0.4})
    batch = images(3, 3, 12, 12)
    torch.manual_seed(0)
    expected = reference.train()((batch - 0.5) / 0.5)
    torch.manual_seed(0)
    # By way of all tokens: `forward` draws nothing for those of the last block that the head does not read.
    logits = model.train().classify(model.pool(model.forward_features(batch)))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert (reference.eval()((batch - 0.5) / 0.5) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(12, 12), (8, 20), (24, 16)])
def test_timms_distilled(images, scrambled, size: tuple[int, int]) -> None:
    named = {key: value for key, value in TINY.items() if key != "image_size"}
    reference = scrambled(VisionTransformerDistilled(img_size=12, dynamic_img_size=True, **named))
    model = ours_with(reference.state_dict(), distilled=True)
    assert_equal_to(reference, model, images(3, 3, *size))


def from_eva(theirs: Weights) -> Weights:
    """Its biases of query and value stand apart, a key has none; LayerScale's factors lie in the block."""
    ours: Weights = {}
    for name, weight in theirs.items():
        if name.endswith("v_bias"):
            continue
        if name.endswith("q_bias"):
            parts = [weight, torch.zeros_like(weight), theirs[name.replace("q_bias", "v_bias")]]
            ours[name.replace("q_bias", "qkv.bias")] = torch.cat(parts)
        else:
            ours[re.sub(r"gamma_([12])$", r"ls\1.gamma", name)] = weight
    return ours


DINOV3_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "small": ({}, {}),
    "mean": ({"global_pool": "avg", "fc_norm": False}, {"global_pool": "avg"}),
    "biases": ({"qkv_bias": True}, {"qkv_bias": True}),
    "swiglu": ({"mlp_layer": "swiglu", "mlp_ratio": 2.0}, {"swiglu_mlp": True, "mlp_ratio": 2.0}),
    "temperature": ({"rope_temperature": 7.0}, {"rope_temperature": 7.0}),
    "wide patches": ({"patch_size": (2, 4), "image_size": (8, 16)}, {"patch_size": (2, 4), "img_size": (8, 16)}),
}
DINOV3: dict[str, Any] = {"embed_dim": 24, "num_heads": 3, "qkv_bias": False, "init_values": 0.1, "norm_eps": 1e-5}


@pytest.mark.parametrize("case", DINOV3_CASES)
@pytest.mark.parametrize("size", [(12, 12), (8, 20)])
def test_timms_dinov3(images, scrambled, case: str, size: tuple[int, int]) -> None:
    ours, theirs = DINOV3_CASES[case]
    named = {key: value for key, value in {**TINY, **DINOV3}.items() if key not in {"image_size", "norm_eps"}}
    named |= {"img_size": 12, "global_pool": "token", "rope_temperature": 100, "use_fc_norm": False}
    reference = scrambled(
        Eva(
            **{**named, **theirs},
            norm_layer=partial(LayerNorm, eps=1e-5),
            num_reg_tokens=4,
            use_abs_pos_emb=False,
            use_rot_pos_emb=True,
            rope_type="dinov3",
            rope_rotate_half=True,
            dynamic_img_size=True,
        )
    )
    model = ours_with(from_eva(reference.state_dict()), **{**DINOV3, "reg_tokens": 4, "pos_embed": "rope", **ours})
    assert_equal_to(reference, model, images(3, 3, *size))


# torchvision


def renamed(theirs: Weights, rules: dict[str, str]) -> Weights:
    """Each name with all the rules applied in turn, patterns and what they become."""
    ours: Weights = {}
    for name, weight in theirs.items():
        for pattern, replacement in rules.items():
            name = re.sub(pattern, replacement, name)
        ours[name] = weight
    return ours


TORCHVISION = {
    r"^class_token": "cls_token",
    r"^conv_proj": "patch_embed.proj",
    r"^encoder\.pos_embedding": "pos_embed",
    r"^encoder\.ln\.": "norm.",
    r"^encoder\.layers\.encoder_layer_": "blocks.",
    r"ln_": "norm",
    r"self_attention\.in_proj_": "attn.qkv.",
    r"self_attention\.out_proj": "attn.proj",
    r"mlp\.0": "mlp.fc1",
    r"mlp\.3": "mlp.fc2",
    r"^heads\.": "",
}


@pytest.mark.parametrize("size", [12, 20])
def test_torchvision(images, scrambled, size: int) -> None:
    reference = scrambled(
        TorchvisionViT(size, patch_size=4, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=72, num_classes=5)
    )
    model = ours_with(renamed(reference.state_dict(), TORCHVISION), image_size=size)
    assert_equal_to(reference, model, images(3, 3, size, size))


# transformers

SIZES: dict[str, Any] = {
    "patch_size": 4,
    "num_labels": 5,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 72,
}
TRANSFORMERS = {
    r"^(vit|deit|dinov2|dinov2_with_registers|backbone)\.": "",
    r"^embeddings\.": "",
    r"^patch_embeddings\.projection": "patch_embed.proj",
    r"^patch_embeddings": "patch_embed.proj",
    r"^position_embeddings": "pos_embed",
    r"^distillation_token": "dist_token",
    r"^register_tokens": "reg_token",
    r"^(layers|encoder\.layer|model\.layer)\.": "blocks.",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"layer_scale([12])\.lambda1": r"ls\1.gamma",
    r"attention\.o_proj": "attn.proj",
    r"^layernorm\.": "norm.",
    r"^(cls_)?classifier": "head",
    r"^distillation_classifier": "head_dist",
}


def joined(weights: Weights, into: str, *parts: str) -> Weights:
    """What stands in several layers in one, one below the other."""
    first = [name for name in weights if f".{parts[0]}." in name]
    together = {
        name.replace(parts[0], into): torch.cat([weights[name.replace(parts[0], part)] for part in parts])
        for name in first
    }
    return together | {name: weight for name, weight in weights.items() if not any(f".{p}." in name for p in parts)}


def from_transformers(theirs: Weights) -> Weights:
    weights = joined(renamed(theirs, TRANSFORMERS), "attn.qkv", *(f"attention.{part}_proj" for part in "qkv"))
    if any("gate_proj" in name for name in weights):
        weights = joined(weights, "mlp.fc1", "mlp.gate_proj", "mlp.up_proj")
    weights = renamed(weights, {r"mlp\.up_proj": "mlp.fc1", r"mlp\.down_proj": "mlp.fc2"})
    return {name: weight for name, weight in weights.items() if name != "mask_token"}


def logits_of(out: Any) -> Tensor:
    return out.logits


@pytest.mark.parametrize("size", [(12, 12), (8, 20)])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [({}, {}), ({"qkv_bias": False, "hidden_act": "gelu_new"}, {"qkv_bias": False, "act_layer": "gelu_tanh"})],
)
def test_transformers_vit(
    images, scrambled, size: tuple[int, int], theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    config = TransformersViTConfig(image_size=list(size), layer_norm_eps=1e-6, **SIZES, **theirs)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    reference = scrambled(ViTForImageClassification(config))
    model = ours_with(from_transformers(reference.state_dict()), image_size=size, **ours)
    assert_equal_to(reference, model, images(3, 3, *size), logits_of)


@pytest.mark.parametrize("size", [(12, 12), (8, 20)])
def test_transformers_deit(images, scrambled, size: tuple[int, int]) -> None:
    config = DeiTConfig(image_size=list(size), layer_norm_eps=1e-12, **SIZES)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    reference = scrambled(DeiTForImageClassificationWithTeacher(config))
    weights = from_transformers(reference.state_dict())
    model = ours_with(weights, image_size=size, distilled=True, norm_eps=1e-12)
    assert_equal_to(reference, model, images(3, 3, *size), logits_of)


@pytest.mark.parametrize("size", [12, 20])
@pytest.mark.parametrize("swiglu", [False, True])
def test_transformers_dinov2(images, scrambled, size: int, swiglu: bool) -> None:
    config = Dinov2Config(image_size=size, mlp_ratio=4, use_swiglu_ffn=swiglu, **SIZES)
    reference = scrambled(Dinov2ForImageClassification(config))
    settings = {"mlp_layer": "swiglu", "mlp_ratio": 64 / 24} if swiglu else {"mlp_ratio": 4}
    settings |= {"image_size": size, "global_pool": "token_avg", "init_values": 1.0}
    model = ours_with(from_transformers(reference.state_dict()), **settings)
    assert_equal_to(reference, model, images(3, 3, size, size), logits_of)


@pytest.mark.parametrize("size", [(12, 12), (8, 20), (16, 8)])  # the other sizes by resized position embeddings
def test_transformers_dinov2_with_registers(images, scrambled, size: tuple[int, int]) -> None:
    config = Dinov2WithRegistersConfig(image_size=12, mlp_ratio=4, num_register_tokens=3, **SIZES)
    reference = scrambled(Dinov2WithRegistersForImageClassification(config))
    weights = from_transformers(reference.state_dict())
    weights["cls_token"] = weights["cls_token"] + weights["pos_embed"][:, :1]  # registers have no position
    weights["pos_embed"] = weights["pos_embed"][:, 1:]
    settings = {"global_pool": "token_avg", "init_values": 1.0, "reg_tokens": 3, "no_embed_class": True}
    assert_equal_to(reference, ours_with(weights, mlp_ratio=4, **settings), images(3, 3, *size), logits_of)


class WithHead(nn.Module):
    """Its model gives no logits; here are some."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images).pooler_output)


@pytest.mark.parametrize("size", [(12, 12), (8, 20)])
@pytest.mark.parametrize("gated", [False, True])
def test_transformers_dinov3(images, scrambled, size: tuple[int, int], gated: bool) -> None:
    named: dict[str, Any] = dict.fromkeys(("query_bias", "key_bias", "value_bias"), False)
    if gated:  # as the published models with a gate are
        named |= {"use_gated_mlp": True, "hidden_act": "silu"}
    config = DINOv3ViTConfig(image_size=12, num_register_tokens=4, pos_embed_rescale=None, **named, **SIZES)
    reference = scrambled(WithHead(DINOv3ViTModel(config)))
    settings = {**DINOV3, "reg_tokens": 4, "pos_embed": "rope", "mlp_layer": "swiglu" if gated else "mlp"}
    assert_equal_to(reference, ours_with(from_transformers(reference.state_dict()), **settings), images(3, 3, *size))


# vit-pytorch


def from_vit_pytorch(theirs: Weights, patch: tuple[int, int], channels: int) -> Weights:
    """Its patches hold pixels before channels, its norms stand within their layers."""
    rules = {
        r"^to_patch_embedding\.1": "patch_embed.pre_norm",
        r"^to_patch_embedding\.2": "patch_embed.proj",
        r"^to_patch_embedding\.3": "patch_embed.norm",
        r"^pos_embedding": "pos_embed",
        r"^transformer\.norm": "norm",
        r"^transformer\.layers\.(\d+)\.0\.norm": r"blocks.\1.norm1",
        r"^transformer\.layers\.(\d+)\.0\.to_qkv": r"blocks.\1.attn.qkv",
        r"^transformer\.layers\.(\d+)\.0\.to_out\.0": r"blocks.\1.attn.proj",
        r"^transformer\.layers\.(\d+)\.1\.net\.0": r"blocks.\1.norm2",
        r"^transformer\.layers\.(\d+)\.1\.net\.1": r"blocks.\1.mlp.fc1",
        r"^transformer\.layers\.(\d+)\.1\.net\.4": r"blocks.\1.mlp.fc2",
        r"^mlp_head": "head",
    }
    ours = {name: weight for name, weight in renamed(theirs, rules).items() if weight.numel()}
    for name in ("cls_token", "pos_embed"):
        if name in ours:
            ours[name] = ours[name][None]
    for name in ("patch_embed.pre_norm.weight", "patch_embed.pre_norm.bias"):
        ours[name] = ours[name].view(*patch, channels).permute(2, 0, 1).flatten()
    projection = ours["patch_embed.proj.weight"]
    ours["patch_embed.proj.weight"] = projection.view(-1, *patch, channels).permute(0, 3, 1, 2)
    return ours


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize(
    ("heads", "head_dim", "size", "patch"),
    [
        (3, 24, (12, 12), (4, 4)),
        (2, 5, (12, 12), (6, 4)),
        (5, 8, (8, 18), (4, 6)),
        (4, 1, (12, 12), (4, 4)),
        (3, 8, (20, 20), (4, 4)),
    ],
)
def test_vit_pytorch(
    images, scrambled, pool: str, heads: int, head_dim: int, size: tuple[int, int], patch: tuple[int, int]
) -> None:
    sizes = {"image_size": size, "patch_size": patch}
    reference = scrambled(
        vit_pytorch.ViT(**sizes, num_classes=5, dim=24, depth=2, heads=heads, mlp_dim=72, dim_head=head_dim, pool=pool)
    )
    settings = {"num_heads": heads, "head_dim": head_dim, "patch_norm": True, "qkv_bias": False, "norm_eps": 1e-5}
    if pool == "mean":
        settings |= {"global_pool": "avg", "fc_norm": False, "class_token": False}
    model = ours_with(from_vit_pytorch(reference.state_dict(), patch, 3), **sizes, **settings)
    assert count(model) == count(reference)
    assert_equal_to(reference, model, images(3, 3, *size))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_vit_pytorchs_parameters_at_full_size() -> None:
    """Image 256, patch 32, width 1024: its own example, and the size of system 3."""
    with torch.device("meta"):
        reference = vit_pytorch.ViT(
            image_size=256, patch_size=32, num_classes=1000, dim=1024, depth=6, heads=16, mlp_dim=2048
        )
        model = VisionTransformer(
            ViTConfig(
                image_size=(256, 256),
                patch_size=(32, 32),
                embed_dim=1024,
                depth=6,
                num_heads=16,
                head_dim=64,
                mlp_ratio=2.0,
                patch_norm=True,
                qkv_bias=False,
            )
        )
    assert count(model) == count(reference)
