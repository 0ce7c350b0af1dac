import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import save_for_hf
from timm.models.eva import checkpoint_filter_fn as eva_filter
from timm.models.vision_transformer import checkpoint_filter_fn

from vitrail.errors import CheckpointError
from vitrail.models.layouts.timm import as_timm_has_it, check_as_named, is_ours
from vitrail.models.weights import import_weights, recognise

SMALL: dict[str, Any] = {"embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 5}
TINY: dict[str, Any] = {**SMALL, "img_size": 32, "patch_size": 8}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_base_patch16_224", TINY),
    "own size": ("vit_tiny_patch16_224", {"depth": 1}),
    "one channel, wide image": ("vit_base_patch16_224", {**TINY, "in_chans": 1, "img_size": (16, 40)}),
    "average": ("vit_base_patch16_224", {**TINY, "global_pool": "avg"}),
    "average without fc_norm": ("vit_base_patch16_gap_224", TINY),
    "attention pooling, tanh": ("vit_base_patch16_siglip_256", {**TINY, "act_layer": "gelu_tanh"}),
    "no qkv bias, qk_norm": ("vit_base_patch16_224_miil", {**TINY, "qk_norm": True}),
    "odd mlp": ("vit_so150m_patch16_reg4_gap_256", {**TINY, "mlp_ratio": 2.572}),
    "registers": ("vit_small_patch14_reg4_dinov2", TINY),
    "registers with positions": ("vit_small_patch14_dinov2", {**TINY, "reg_tokens": 2}),
    "swiglu": ("vit_giant_patch14_reg4_dinov2", TINY),
    "distilled": ("deit_tiny_distilled_patch16_224", TINY),
    "deit3": ("deit3_small_patch16_224", TINY),
    "dinov3": ("vit_small_patch16_dinov3", TINY),
    "dinov3, biases": ("vit_small_patch16_dinov3_qkvb", {**TINY, "global_pool": "token"}),
    "dinov3, swiglu": ("vit_small_plus_patch16_dinov3", {**TINY, "img_size": (24, 40)}),
    "eva": ("eva_large_patch14_196", TINY),
}


def written(model: Any, folder: Path, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What timm writes for the hub, read again."""
    save_for_hf(model, str(folder), safe_serialization=True)
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return described, load_file(folder / "model.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_timms(case: str, tmp_path: Path, scramble: Any, our_logits: Any, images: Any) -> None:
    name, arguments = CASES[case]
    model = scramble(timm.create_model(name, **arguments))
    described, weights = written(model, tmp_path, arguments)
    assert recognise(weights) == "timm"
    mean, std = (torch.tensor(described["pretrained_cfg"][key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    batch = images(2, weights["patch_embed.proj.weight"].shape[1], *model.patch_embed.img_size)
    logits, imported = our_logits(batch, weights, described)
    with torch.inference_mode():
        expected = model((batch - mean) / std)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1
    assert imported.config.image_size == tuple(model.patch_embed.img_size)
    assert imported.config.num_heads == arguments.get("num_heads", 3)


@pytest.mark.parametrize("case", ["vit", "average without fc_norm", "registers", "swiglu", "distilled", "dinov3"])
def test_without_a_description_shapes_tell_the_model(case: str, scramble: Any, our_logits: Any, images: Any) -> None:
    name, arguments = CASES[case]
    model = scramble(timm.create_model(name, **{**arguments, "img_size": 224 // 7}))
    logits, imported = our_logits(images(2, 3, 32, 32), model.state_dict())
    pool = "token" if case == "dinov3" else model.global_pool  # timm's pools patches, Meta's the class token
    model.global_pool = pool
    with torch.inference_mode():
        torch.testing.assert_close(logits, model((images(2, 3, 32, 32) - 0.5) / 0.5), rtol=1e-4, atol=1e-4)
    assert imported.config.global_pool == pool


def test_the_model_that_a_user_names_tells_what_shapes_do_not(scramble: Any, our_logits: Any, images: Any) -> None:
    model = scramble(timm.create_model("vit_base_patch16_224", **{**TINY, "num_heads": 6}, act_layer="relu"))
    assert import_weights(model.state_dict()).config.num_heads == 3
    asked = import_weights(model.state_dict()).config.model_copy(update={"num_heads": 6, "act_layer": "relu"})
    logits, _ = our_logits(images(2, 3, 32, 32), model.state_dict(), None, asked)
    with torch.inference_mode():
        torch.testing.assert_close(logits, model((images(2, 3, 32, 32) - 0.5) / 0.5), rtol=1e-4, atol=1e-4)


def metas_names(weights: dict[str, torch.Tensor], registers: str) -> dict[str, torch.Tensor]:
    """Weights of timm's under the names of Meta's own files."""
    theirs = {"mask_token": torch.zeros(1, 192)}
    for name, tensor in weights.items():
        name = re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name.replace("reg_token", registers))
        name = name.replace("fc1_g", "w1").replace("fc1_x", "w2").replace("fc2", "w3" if "w1" in theirs else "fc2")
        theirs[name] = tensor
    return theirs


def test_metas_own_dinov2_files_equal_what_timm_makes_of_them(scramble: Any, our_logits: Any, images: Any) -> None:
    model = scramble(timm.create_model("vit_giant_patch14_reg4_dinov2", **TINY))
    weights = metas_names(model.state_dict(), "register_tokens")
    weights = {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): part for name, part in weights.items()}
    positions = torch.cat([torch.full((1, 1, 192), 0.7), weights["pos_embed"]], dim=1)
    weights["pos_embed"] = positions
    del weights["head.weight"], weights["head.bias"]
    expected = scramble(timm.create_model("vit_giant_patch14_reg4_dinov2", **{**TINY, "num_classes": 0}))
    expected.load_state_dict(checkpoint_filter_fn(dict(weights), expected))
    imported = import_weights(weights)
    assert "head.weight" not in imported.weights
    theirs = expected.state_dict()
    assert imported.weights.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in imported.weights.items())
    assert (imported.config.reg_tokens, imported.config.no_embed_class) == (4, True)


def test_metas_own_dinov3_files_equal_what_timm_makes_of_them(scramble: Any) -> None:
    model = scramble(timm.create_model("vit_small_patch16_dinov3_qkvb", **{**TINY, "num_classes": 0}))
    weights = metas_names(model.state_dict(), "storage_tokens")
    for block in range(2):
        query, value = (weights.pop(f"blocks.{block}.attn.{part}_bias") for part in "qv")
        weights[f"blocks.{block}.attn.qkv.bias"] = torch.cat([query, torch.full((192,), 0.3), value])
        weights[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(576)
    weights["rope_embed.periods"] = torch.ones(4)
    imported = import_weights(weights)
    assert imported.config.pos_embed == "rope"
    expected = eva_filter(dict(weights), model)
    for name, tensor in import_weights(expected).weights.items():
        assert torch.equal(imported.weights[name], tensor), name


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"architecture": "vit_huge_hat"}, r"timm [\d.]+ has no model 'vit_huge_hat'; a newer timm may have it"),
        ({"architecture": "resnet18"}, "resnet18 is a ResNet and no Vision Transformer; use it as timm:resnet18"),
        ({}, "has no model 'None'"),
        (
            {"architecture": "vit_base_patch16_224", "model_args": {"wings": 2}},
            "timm cannot build 'vit_base_patch16_224' as its description says: .*wings",
        ),
        (
            {"architecture": "vit_base_patch16_clip_quickgelu_224"},
            "computes what our Vision Transformer does not; use it as timm:",
        ),
        ({"architecture": "vit_base_patch16_rpn_224"}, "computes what our Vision Transformer does not"),
        ({"architecture": "eva02_tiny_patch14_224"}, "computes what our Vision Transformer does not; use it as timm:"),
        (
            {"architecture": "vit_base_patch16_224", "model_args": TINY, "num_classes": 9},
            "The head of the weights has 5 outputs, not the 9 classes of their description",
        ),
        (
            {"architecture": "vit_base_patch16_224", "model_args": {**TINY, "num_heads": 5}},
            "timm cannot build 'vit_base_patch16_224' as its description says: ",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused(described: dict[str, Any], message: str) -> None:
    weights = timm.create_model("vit_base_patch16_224", **TINY).state_dict()
    with pytest.raises(CheckpointError, match=message):
        import_weights(weights, described)


def test_a_description_cannot_have_files_read(tmp_path: Path) -> None:
    weights = timm.create_model("vit_base_patch16_224", **TINY).state_dict()
    evil = {"checkpoint_path": str(tmp_path / "evil.pth"), "pretrained": True, "pretrained_cfg": {"file": "evil.pth"}}
    imported = import_weights(weights, {"architecture": "vit_base_patch16_224", "model_args": {**TINY, **evil}})
    assert imported.config.num_heads == 3


@pytest.mark.parametrize("name", ["vit_base_patch16_clip_224", "vit_base_patch16_xp_224", "vit_small_patch16_18x2_224"])
def test_another_kind_of_block_is_refused(name: str) -> None:
    weights = timm.create_model(name, **TINY).state_dict()
    with pytest.raises(CheckpointError, match=r"^The (model has no place for|weights lack) "):
        import_weights(weights)


UNLIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "activation": ("vit_tiny_patch16_224", {**TINY, "act_layer": "quick_gelu"}),
    "pooling": ("vit_tiny_patch16_224", {**TINY, "global_pool": "avgmax"}),
    "a norm before the blocks": ("vit_base_patch16_clip_224", TINY),
    "parallel blocks": ("vit_small_patch16_18x2_224", TINY),
    "rotary, prefix tokens pooled": ("vit_small_patch16_dinov3", {**TINY, "global_pool": "map"}),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_what_weights_do_not_show_is_refused_with_its_name(case: str, tmp_path: Path) -> None:
    name, arguments = UNLIKE[case]
    described, weights = written(timm.create_model(name, **arguments), tmp_path, arguments)
    assert not is_ours(weights, described)
    with pytest.raises(CheckpointError, match=r" computes what our Vision Transformer does not; use it as timm:|lack "):
        import_weights(weights, described)
    with pytest.raises(CheckpointError, match=f"^The weights are of timm's {name} with .*; use weights of {name} as"):
        check_as_named(described)


@pytest.mark.parametrize("case", CASES)
def test_what_ours_can_be_is_told(case: str, tmp_path: Path) -> None:
    name, arguments = CASES[case]
    described, weights = written(timm.create_model(name, **arguments), tmp_path, arguments)
    assert is_ours(weights, described)


@pytest.mark.parametrize(
    ("name", "described", "odd"),
    [
        ("test_resnet", {"model_args": {"act_layer": "silu", "num_classes": 5}}, "act_layer='silu'"),
        ("test_resnet", {"model_args": {"in_chans": 1, "drop_rate": 0.1}}, None),
        ("test_resnet", {"global_pool": "max"}, "global_pool='max'"),
        ("test_resnet", {"global_pool": "avg"}, None),
        ("test_convnext", {"global_pool": "max"}, "global_pool='max'"),
        ("test_convnext", {"global_pool": "avg"}, None),
        ("levit_128s", {"global_pool": "avg"}, None),
        ("resnet18", {"model_args": {"img_size": 64}}, "img_size=[64, 64]"),
        ("vit_tiny_patch16_224", {"model_args": {"img_size": 64}}, None),
    ],
)
def test_other_models_are_what_their_name_tells(name: str, described: dict[str, Any], odd: str | None) -> None:
    if odd is None:
        check_as_named({"architecture": name, **described})
        return
    with pytest.raises(CheckpointError, match=re.escape(f"The weights are of timm's {name} with {odd}, and only")):
        check_as_named({"architecture": name, **described})


@pytest.mark.parametrize(("name", "value"), [("depth", 3000), ("embed_dim", 192_000)])
def test_a_description_of_other_sizes_is_refused_before_timm_builds_it(
    name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = timm.create_model("vit_base_patch16_224", **TINY).state_dict()
    described = {"architecture": "vit_base_patch16_224", "model_args": {**TINY, name: value}}
    create, asked = timm.create_model, []
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: asked.append(settings) or create(name))
    message = f"The weights are of a model with {name}={TINY[name]}, not the {name}={value} of their description"
    with pytest.raises(CheckpointError, match=f"^{message}$"):
        import_weights(weights, described)
    assert asked == [{"pretrained": False}]


def test_weights_of_others_are_renamed_as_timm_does() -> None:
    model = timm.create_model("test_convnext.r160_in1k")
    weights = model.state_dict()
    assert as_timm_has_it("test_convnext.r160_in1k", weights).keys() == weights.keys()
    theirs = {f"visual.trunk.{key}": part for key, part in weights.items() if not key.startswith("head.fc")}
    theirs |= {"visual.head.mlp.fc1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"^The weights of timm:test_convnext.r160_in1k are not in timm's layout"):
        as_timm_has_it("test_convnext.r160_in1k", theirs)
    theirs = {f"visual.trunk.{key}": part for key, part in weights.items() if not key.startswith("head.fc")}
    theirs |= {"visual.head.proj.weight": weights["head.fc.weight"]}
    found = as_timm_has_it("test_convnext.r160_in1k", theirs)
    assert all(torch.equal(found[key], part) for key, part in weights.items() if key != "head.fc.bias")
    with pytest.raises(
        CheckpointError, match=r"are not in timm's layout: they lack conv1.0.weight, .*; use another tag$"
    ):
        as_timm_has_it("test_resnet.r160_in1k", theirs)
