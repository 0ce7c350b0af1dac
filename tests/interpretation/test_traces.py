"""What is watched of a forward pass is what happened in it; models that have no such attention say so."""

from __future__ import annotations

import pytest
import torch
from attending_models import ATTENDING, WrittenOut, small_model, some_images

from vitrail.errors import ConfigError
from vitrail.interpretation.probabilities import probability_chunks
from vitrail.interpretation.traces import trace


@pytest.mark.parametrize("family", ATTENDING)
def test_a_trace_is_the_forward_pass(family):
    model = small_model(family)
    images = some_images(model)
    with torch.no_grad():
        expected = model(images)
    with WrittenOut() as attention:
        model(images) if family.startswith("timm") or family == "attention pooling" else model.features(images)
    for gradients in (False, True):
        found = trace(model, images, gradients=gradients)
        torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-5)
        assert found.logits.requires_grad is gradients
        torch.testing.assert_close(found.readout.sum(dim=1), torch.ones(2))
        assert found.readout.shape == found.tokens.shape[:2]
        assert found.grid[0] * found.grid[1] + found.num_prefix_tokens == found.tokens.shape[1]
        assert found.normed is not None
    pooled = found.pool is not None
    assert pooled is family.endswith("attention pooling")
    written = attention.probabilities[-1 - pooled]
    if written.shape[2] == found.tokens.shape[1]:  # not where the last block is spared its patches
        ((_, probabilities),) = probability_chunks(found.blocks[-1])
        torch.testing.assert_close(probabilities, written.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "readout"),
    [
        ("class token", [1.0, 0, 0, 0, 0, 0, 0]),
        ("mean", [1 / 6] * 6),
        ("registers", [0.0, 0, 0, *[1 / 6] * 6]),  # class token and registers in front
        ("both", [1 / 2, *[1 / 12] * 6]),
        ("distilled", [1 / 2, 1 / 2, 0, 0, 0, 0, 0, 0]),
        ("maps", [1 / 24] * 24),
    ],
)
def test_what_the_head_reads(family, readout):
    model = small_model(family)
    torch.testing.assert_close(trace(model, some_images(model)).readout, torch.tensor([readout, readout]))


def test_what_the_head_reads_follows_its_weights():
    """Sequence pooling and attention pooling give each token a weight of its own."""
    model = small_model("compact")
    found = trace(model, some_images(model))
    pooled = (found.readout[..., None] * found.tokens).sum(dim=1)
    torch.testing.assert_close(model.classify(pooled), found.logits)
    model = small_model("attention pooling")
    found = trace(model, some_images(model))
    assert found.pool is not None
    assert found.pool.query.shape[2] == 1
    assert float(found.readout.std()) > 1e-3


def test_padded_patches_are_not_read():
    found = trace(small_model("masked mean"), some_images(small_model("masked mean")))
    torch.testing.assert_close(found.readout[1, 1:], torch.tensor([1 / 4, 1 / 4, 0, 1 / 4, 1 / 4, 0]))


@pytest.mark.parametrize("family", ["class token", "compact", "timm class token"])
def test_nothing_of_the_model_changes(family):
    model = small_model(family).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = torch.get_rng_state()
    with torch.inference_mode():
        found = trace(model, some_images(model), gradients=True)
    assert found.blocks[0].heads.requires_grad
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("family", "pattern"),
    [
        ("convolutions", "^resnet18 has no attention; use grad_cam, integrated_gradients or occlusion$"),
        ("timm convolutions", "^timm's test_resnet has no attention; use grad_cam"),
        ("timm differences", "^The blocks of timm's vit_dwee_patch16_reg1_gap_256 attend more than once each"),
        ("timm windows", "^timm's swin_tiny_patch4_window7_224 does not attend over all of an image at once; use grad"),
    ],
)
def test_models_without_such_attention(family, pattern):
    model = small_model(family)
    with pytest.raises(ConfigError, match=pattern):
        trace(model, some_images(model))


def test_merged_tokens_have_no_place():
    model = small_model("class token")
    model.merge_tokens(1)
    with pytest.raises(ConfigError, match="take features with merge_tokens"):
        trace(model, some_images(model))
