import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vitrail import api
from vitrail.models import build_model, count_parameters
from vitrail.recipes.photos import photos, s3_vit_256


def test_photos_is_small_and_for_square_colour_images() -> None:
    config = photos()
    assert count_parameters(config.model) == 245_002
    assert (config.model.image_size, config.model.in_chans, config.data.fit) == ((64, 64), 3, "auto")
    assert (config.training.epochs, config.training.batch_size, config.training.optimizer) == (115, 64, "muon")
    assert config.training.time_seconds is None


def test_photographs_are_moved_mirrored_recoloured_and_mixed() -> None:
    augment = photos().data.augment
    assert augment.moves
    assert augment.flip_rate == 0.5
    assert augment.color_jitter > 0
    assert augment.mixes


def test_its_model_takes_photographs() -> None:
    config = photos().model
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert build_model(config)(images).shape == (2, config.num_classes)


def test_mean_and_deviation_are_measured() -> None:
    assert photos().model.mean is photos().model.std is None


def test_the_general_vit_has_the_sizes_of_its_worked_example() -> None:
    config = s3_vit_256()
    model = config.model
    assert count_parameters(model) == 54_630_376
    assert (model.image_size, model.patch_size, model.embed_dim) == ((256, 256), (32, 32), 1024)
    assert (model.num_heads, model.head_dim, model.qkv_bias, model.patch_norm) == (16, 64, False, True)
    assert (model.pos_drop_rate, model.attn_drop_rate, model.proj_drop_rate) == (0.1, 0.1, 0.1)
    assert config.data.augment.moves
    assert config.training.optimizer == "adamw"


def test_the_general_vit_sees_65_tokens() -> None:
    model = build_model(s3_vit_256().model.model_copy(update={"depth": 1, "embed_dim": 64}))
    assert model.forward_features(torch.zeros(2, 3, 256, 256, dtype=torch.uint8)).shape == (2, 65, 64)


@pytest.mark.slow
def test_the_general_vit_trains_for_some_steps(write_tree: Callable[..., Path], tmp_path: Path, quick: None) -> None:
    """At its full size, on a few photographs: every loss is a number."""
    write_tree(tmp_path / "photos", {"ant": 12, "bee": 12})
    settings = {"training.batch_size": 4, "training.log_steps": 1}
    run = api.train(tmp_path / "photos", recipe="s3_vit_256", epochs=1, settings=settings, out=tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "step" in line and "split" not in line]
    assert len(losses) >= 3
    assert all(0 < loss < 20 for loss in losses)
