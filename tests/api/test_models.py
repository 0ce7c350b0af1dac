"""Models through the verbs: made, loaded, refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import vitrail
from vitrail.errors import CheckpointError, ConfigError


def test_create_model():
    torch.manual_seed(0)
    model = vitrail.create_model("vit_tiny_patch16_224", num_classes=10, depth=1, image_size=32)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert model(images).shape == (2, 10)
    with pytest.raises(vitrail.ConfigError, match="Did you mean 'vit_tiny_patch16_224'"):
        vitrail.create_model("vit_tniy")


@pytest.fixture
def copied(digits_run, tmp_path) -> Path:
    """The shared run, to change at will."""
    return shutil.copytree(digits_run, tmp_path / "copied")


def test_load_leaves_the_callers_random_numbers_alone(digits_run):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    vitrail.load(digits_run)
    assert torch.equal(torch.rand(3), expected)


def test_load_says_what_is_wrong(copied):
    with pytest.raises(ConfigError, match="device='gpu' is not known"):
        vitrail.load(copied, device="gpu")
    (copied / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or no safetensors file"):
        vitrail.load(copied)
    (copied / "model.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.json"):
        vitrail.load(copied)
