"""Recipes of the networks that begin with convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vitrail import api
from vitrail.config import RunConfig, with_settings
from vitrail.data.augment import AugmentConfig
from vitrail.models import count_parameters
from vitrail.recipes import recipe_function
from vitrail.recipes.cnn import (
    alexnet_cifar10,
    cct_cifar10,
    resnet18_cifar10,
    s4_alexnet_cifar10,
    s4_resnet18_cifar10,
)

PUBLISHED = [s4_alexnet_cifar10(), s4_resnet18_cifar10()]


@pytest.mark.parametrize(
    ("config", "parameters", "size", "epochs"),
    [
        (PUBLISHED[0], 57_044_810, 224, 5),
        (PUBLISHED[1], 11_181_642, 224, 5),
        (alexnet_cifar10(), 36_054_858, 32, 30),
        (resnet18_cifar10(), 11_173_962, 32, 30),
        (cct_cifar10(), 283_723, 32, 20),
    ],
    ids=lambda value: value.recipe if isinstance(value, RunConfig) else str(value),
)
def test_size_and_length(config: RunConfig, parameters: int, size: int, epochs: int) -> None:
    """Parameters are with a head for CIFAR-10, as training gives them one."""
    assert count_parameters(config.model.model_copy(update={"num_classes": 10})) == parameters
    assert (config.model.image_size, config.model.in_chans) == ((size, size), 3)
    assert (config.training.epochs, config.data.source) == (epochs, "cifar10")


@pytest.mark.parametrize("config", PUBLISHED, ids=lambda config: config.recipe)
def test_published_cnns_train_as_published_and_with_nothing_else(config: RunConfig) -> None:
    training = config.training
    assert (training.optimizer, training.learning_rate, training.momentum) == ("sgd", 1e-3, 0.9)
    assert (training.batch_size, training.schedule) == (4, "constant")
    assert (training.warmup_rate, training.weight_decay, training.label_smoothing, training.ema_decay) == (0, 0, 0, 0)
    assert training.clip_norm is training.early_stop_epochs is None
    assert config.data.augment == AugmentConfig()
    assert (config.data.fit, config.data.crop_rate) == ("crop", 0.875)  # 256, of which the middle 224
    assert config.model.mean == config.model.std == (0.5, 0.5, 0.5)


def test_photographs_are_moved_and_mirrored() -> None:
    for config in (alexnet_cifar10(), resnet18_cifar10(), cct_cifar10()):
        assert config.data.augment.moves
        assert config.data.augment.flip_rate == 0.5
        assert config.model.mean is config.model.std is None


@pytest.mark.parametrize(
    "name",
    [
        "cct_cifar10",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("alexnet_cifar10", "resnet18_cifar10", "s4_alexnet_cifar10", "s4_resnet18_cifar10")
        ),
    ],
)
def test_a_few_steps_from_files_to_a_tested_model(
    name: str, tmp_path: Path, write_tree: Callable[..., Path], quick: None
) -> None:
    photos = write_tree(tmp_path / "photos", {"ant": 12, "bee": 12})
    settings = {"training.batch_size": 4, "training.learning_rate": 1e-3, "training.log_steps": 1}
    run = api.train(photos, recipe=name, epochs=1, settings=settings, out=tmp_path / "run")
    config = recipe_function(name)()
    assert run.result is not None
    assert run.result["images_seen"] >= 8
    assert 0 <= run.result["test"]["accuracy"] <= 1
    assert run.config.model.model_dump(exclude={"num_classes", "mean", "std"}) == config.model.model_dump(
        exclude={"num_classes", "mean", "std"}
    )
    asked = {**settings, "training.epochs": 1, "training.imbalance": "none"}
    assert run.config.training == with_settings(config, asked).training
