"""The models by name: their sizes, and that timm's names are timm's models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import vit_pytorch
from torch import Tensor, nn

from vitrail.models import MODELS, build_model, count_parameters, create_model, model_config

GOLDEN = Path(__file__).parents[1] / "golden" / "parameters.json"
PARAMETERS: dict[str, int] = json.loads(GOLDEN.read_text(encoding="utf-8"))
TIMM_NAMES = [name for name in MODELS if timm.is_model(name) and MODELS[name].get("kind", "vit") == "vit"]

# Settings that only make a model larger; names that differ in nothing else are one structure.
SIZES = ("embed_dim", "depth", "num_heads", "image_size", "patch_size")
TINY = {"embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 5}


def structure(name: str) -> str:
    return str(sorted((key, value) for key, value in MODELS[name].items() if key not in SIZES))


STRUCTURES = {structure(name): name for name in TIMM_NAMES}


def under_our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's weights; those of its Eva, which DINOv3 is, get the names of its VisionTransformer."""
    ours = {re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name): tensor for name, tensor in weights.items()}
    for name in [name for name in ours if name.endswith(".q_bias")]:
        # Eva has no bias of the key, which softmax takes out of any model: ours is zero, and one vector longer.
        query, value = ours.pop(name), ours.pop(name.replace("q_bias", "v_bias"))
        ours[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    for name in [name for name in ours if ".mlp.fc1_g." in name]:
        ours[name.replace("fc1_g", "fc1")] = torch.cat([ours.pop(name), ours.pop(name.replace("fc1_g", "fc1_x"))])
    return ours


def shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_model_has_its_golden_count() -> None:
    counted = {name: count_parameters(model_config(name)) for name in MODELS}
    wrong = "\n".join(f'  "{name}": {count},' for name, count in counted.items() if PARAMETERS.get(name) != count)
    assert not wrong, f"if these are meant, they belong into {GOLDEN}:\n{wrong}"
    surplus = sorted(PARAMETERS.keys() - MODELS.keys())
    assert not surplus, f"take {surplus} out, there are no such models"


def test_timms_names_are_found() -> None:
    assert len(TIMM_NAMES) >= 66
    assert len(STRUCTURES) >= 15


@pytest.mark.parametrize("name", STRUCTURES.values())
def test_a_model_of_timms_name_computes_what_timms_does(name: str) -> None:
    """Each structure in small: the same weights give the same logits, in training too, and the same gradient."""
    side = 4 * model_config(name).patch_size[0]
    reference = timm.create_model(name, pretrained=False, img_size=side, **TINY)
    generator = torch.Generator().manual_seed(0)
    for key, parameter in reference.named_parameters():
        is_scale = parameter.ndim == 1 and key.endswith("weight")
        parameter.data.normal_(mean=float(is_scale), std=0.1, generator=generator)
    ours = create_model(name, image_size=side, **TINY)
    ours.load_state_dict(under_our_names(reference.state_dict()), strict=True)
    images = torch.rand(2, 3, side, side, generator=generator)
    for train in (False, True):
        both = []
        for model in (reference.train(train), ours.train(train)):
            pixels = images.clone().requires_grad_()
            logits = model(pixels if model is ours else (pixels - 0.5) / 0.5)
            if isinstance(logits, tuple):  # timm's distilled models answer twice in training
                logits = (logits[0] + logits[1]) / 2
            logits.square().sum().backward()
            both.append((logits.detach(), pixels.grad))
        torch.testing.assert_close(both[1], both[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM_NAMES)
def test_a_model_of_timms_name_has_its_sizes(name: str) -> None:
    with torch.device("meta"):
        # Models that are published without a head get one of a thousand classes, as all others here.
        reference = timm.create_model(name, pretrained=False, num_classes=1000)
        ours = create_model(name)
        theirs = under_our_names(reference.state_dict())
    assert shapes(ours.state_dict()) == shapes(theirs)
    config = model_config(name)
    assert config.image_size == reference.pretrained_cfg["input_size"][1:]
    zero_biases = config.depth * config.embed_dim if name.endswith("_qkvb") else 0
    assert PARAMETERS[name] == num_parameters(ours) == num_parameters(reference) + zero_biases


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_tiny_patch16_384"])
def test_counts_are_timms(name: str) -> None:
    """A few of the slow ones."""
    test_a_model_of_timms_name_has_its_sizes(name)


def test_every_size_of_vit_and_deit_that_timm_names_is_there() -> None:
    sized = r"vit_(tiny|small|base|large|huge|giant|gigantic)_patch\d+_\d+|deit3?_\w+|vit_\w+_dinov[23](_qkvb)?"
    assert {name for name in timm.list_models() if re.fullmatch(sized, name)} <= {*MODELS}


def test_s5_vit_is_the_one_that_timm_builds() -> None:
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 28, "patch_size": 7, "in_chans": 1, "num_classes": 10}
    reference = VisionTransformer(**sizes, embed_dim=100, depth=3, num_heads=2).eval()
    ours = create_model("s5_vit").eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), reference((images - 0.5) / 0.5), rtol=1e-5, atol=1e-5)


# The example of vit-pytorch's README
WORKED_EXAMPLE: dict[str, Any] = {"image_size": 256, "patch_size": 32, "num_classes": 1000, "dim": 1024, "depth": 6}
WORKED_EXAMPLE |= {"heads": 16, "mlp_dim": 2048, "dropout": 0.1, "emb_dropout": 0.1}


def test_s3_vit_256_has_the_sizes_of_vit_pytorchs() -> None:
    with torch.device("meta"):
        reference = vit_pytorch.ViT(**WORKED_EXAMPLE)
        ours = create_model("s3_vit_256")
    assert num_parameters(ours) == num_parameters(reference) == PARAMETERS["s3_vit_256"]
    assert reference.pos_embedding.shape == ours.state_dict()["pos_embed"].shape[1:] == (65, 1024)
    dropouts = [
        [module.p for module in model.modules() if isinstance(module, nn.Dropout)] for model in (reference, ours)
    ]
    assert {*dropouts[0]} == {*dropouts[1]} - {0.0} == {0.1}


def test_s3_vit_256_computes_what_vit_pytorchs_does() -> None:
    """The same model in small, without chance: width 64, 2 heads of 16, 2 blocks, 9 patches of 32 pixels."""
    small = {"image_size": 96, "dim": 64, "depth": 2, "heads": 2, "mlp_dim": 128, "dim_head": 16}
    reference = vit_pytorch.ViT(**{**WORKED_EXAMPLE, **small}).eval()
    ours = create_model("s3_vit_256", image_size=96, embed_dim=64, depth=2, num_heads=2, head_dim=16).eval()
    theirs, weights = reference.state_dict(), dict[str, Tensor]()
    for name in ("weight", "bias"):
        before, projection, after = (theirs[f"to_patch_embedding.{index}.{name}"] for index in (1, 2, 3))
        if name == "weight":  # their pixels lie as (row, column, channel), ours as (channel, row, column)
            projection = projection.view(64, 32, 32, 3).permute(0, 3, 1, 2)
        before = before.view(32, 32, 3).permute(2, 0, 1).flatten()
        weights |= {f"patch_embed.pre_norm.{name}": before, f"patch_embed.proj.{name}": projection}
        weights |= {f"patch_embed.norm.{name}": after, f"norm.{name}": theirs[f"transformer.norm.{name}"]}
        weights |= {f"head.{name}": theirs[f"mlp_head.{name}"]}
    weights |= {"cls_token": theirs["cls_token"][None], "pos_embed": theirs["pos_embedding"][None]}
    parts = {
        "norm1": "0.norm",
        "attn.proj": "0.to_out.0",
        "norm2": "1.net.0",
        "mlp.fc1": "1.net.1",
        "mlp.fc2": "1.net.4",
    }
    for block in range(2):
        there, here = f"transformer.layers.{block}", f"blocks.{block}"
        weights[f"{here}.attn.qkv.weight"] = theirs[f"{there}.0.to_qkv.weight"]
        for own, other in parts.items():
            weights |= {f"{here}.{own}.{name}": theirs[f"{there}.{other}.{name}"] for name in ("weight", "bias")}
    ours.load_state_dict(weights, strict=True)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), reference((images - 0.5) / 0.5), rtol=1e-5, atol=1e-5)


def test_a_fresh_s3_vit_256_has_positions_as_large_as_its_tokens() -> None:
    torch.manual_seed(0)
    model = build_model(model_config("s3_vit_256", depth=1))
    assert model.state_dict()["pos_embed"].std().item() == pytest.approx(
        0.88, abs=0.02
    )  # a normal, cut at two deviations
